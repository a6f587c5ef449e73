#include "tests/interop/raft_reference/world.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <utility>

namespace tailrace::broker::raft::interop {
namespace {

using namespace std::chrono_literals;

constexpr Duration kTimeout = 1s;

/// Of messages that answer each other within one event; a few are usual for each entry that is missing somewhere.
constexpr int kRoundsMax = 10'000;

/// One entry a message, as the other side is told too; windows that nothing here fills.
constexpr ReplicaOptions kOptions{
    .election_timeout_min = kTimeout, .election_timeout_max = kTimeout, .report_wait_max = kTimeout, .run_bytes_max = 1, .window_bytes = 1U << 30U};

std::vector<std::string_view> words_of(std::string_view line) {
  std::vector<std::string_view> out;
  while (!line.empty()) {
    std::size_t end = std::min(line.find(' '), line.size());
    if (end > 0) out.push_back(line.substr(0, end));
    line.remove_prefix(std::min(end + 1, line.size()));
  }
  return out;
}

int number_of(std::string_view text) {
  int out = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc{} && end == text.data() + text.size() ? out : 0;
}

}  // namespace

World::World(int nodes, int voters) : nodes_(static_cast<std::size_t>(nodes)), links_(static_cast<std::size_t>(nodes)) {
  std::vector<ReplicaId> first;
  for (int n = 1; n <= nodes; ++n) {
    at(n).id.node = NodeId{n - 1};
    at(n).id.directory.bytes[0] = static_cast<std::uint8_t>(n);
    if (n <= voters) first.push_back(at(n).id);
    links_[static_cast<std::size_t>(n - 1)].resize(static_cast<std::size_t>(nodes));
  }
  for (int n = 1; n <= nodes; ++n) {
    at(n).disk.start_members = Membership::of_voters(first);
    start(n);
  }
}

int World::leader() const {
  int best = 0;
  for (int n = 1; n <= size(); ++n) {
    if (leads(n) && (best == 0 || replica(n).term() > replica(best).term())) best = n;
  }
  return best;
}

bool World::apply(std::string_view line) {
  auto words = words_of(line);
  if (words.empty()) return false;
  std::string_view verb = words[0];
  if (verb == "heal") {
    for (auto& row : links_) {
      for (Link& link : row) link.state = Link::open;
    }
    settle();
    return true;
  }
  int n = words.size() > 1 ? number_of(words[1]) : 0;
  if (n < 1 || n > size()) return false;
  int m = words.size() > 2 ? number_of(words[2]) : 0;
  bool two = m >= 1 && m <= size() && m != n;
  Node& node = at(n);
  Actions out;
  if (verb == "timeout" || verb == "age") {
    node.now += kTimeout;
    if (up(n) && verb == "timeout" && !leads(n)) node.replica->tick(node.now, out);
  } else if (verb == "check") {
    if (leads(n)) node.replica->tick(node.now += kTimeout, out);
  } else if (verb == "beat") {
    beat(n);
  } else if (verb == "propose" && words.size() == 3) {
    propose(n, words[2]);
  } else if (verb == "transfer" && two) {
    if (leads(n)) static_cast<void>(node.replica->transfer(at(m).id, node.now, out));
  } else if ((verb == "add" || verb == "promote" || verb == "demote" || verb == "remove") && two) {
    ChangeKind kind = verb == "add"       ? ChangeKind::add_learner
                      : verb == "promote" ? ChangeKind::promote
                      : verb == "demote"  ? ChangeKind::demote
                                          : ChangeKind::remove;
    if (leads(n)) static_cast<void>(node.replica->change_members({kind, at(m).id}, node.now, out));
  } else if ((verb == "cut" || verb == "join") && two) {
    for (Link* link : {&link(n, m), &link(m, n)}) {
      link->state = verb == "cut" ? Link::cut : Link::open;
      if (verb == "cut") link->queue.clear();
    }
  } else if (verb == "hold" && two) {
    link(n, m).state = Link::held;
  } else if ((verb == "release" || verb == "twice" || verb == "backwards" || verb == "drop") && two) {
    release(n, m, verb);
  } else if (verb == "stall" || verb == "deafen") {
    node.stalled = up(n);
    node.deaf = up(n) && verb == "deafen";
    while (node.deaf && node.durable < node.queue.size()) node.queue[node.durable++].apply(node.disk);
  } else if (verb == "tell") {
    node.deaf = false;
    while (node.durable > 0) report(n);
  } else if (verb == "flush") {
    node.stalled = node.deaf = false;
    flush(n);
  } else if (verb == "crash" && words.size() == 3 && (words[2] == "lost" || words[2] == "kept")) {
    crash(n, words[2] == "kept");
  } else if (verb == "start") {
    start(n);
  } else if (verb == "compact") {
    if (compactable(n)) compact(n);
  } else {
    return false;
  }
  drain(n, out);
  settle();
  return true;
}

std::string World::state() const {
  std::string out = restless_ ? "= messages without end\n" : "";
  for (int n = 1; n <= size(); ++n) {
    const Node& node = at(n);
    // Of a node that is down: what its disk keeps.
    const Image& log = up(n) ? node.seen : node.disk;
    const HardState& hard = up(n) ? node.replica->hard_state() : node.disk.hard;
    LogPosition commit = up(n) ? node.replica->commit() : node.disk.commit;
    auto base = indexes_.find(log.start);
    std::size_t before = base == indexes_.end() ? 0 : base->second;
    std::size_t committed = before + static_cast<std::size_t>(std::ranges::count_if(log.entries, [&](const Entry& e) { return e.end <= commit; }));
    out += fmt::format("= {} {} term {} vote {} commit {} log", n, leads(n) ? "leads" : up(n) ? "up" : "down", hard.term.value(), number(hard.vote), committed);
    if (before > 0) out += fmt::format(" @{}:{}", before, log.start_term.value());
    for (const Entry& e : log.entries) {
      std::string label = !e.is_mark ? fmt::format("v{}", e.value) : e.mark.kind == MarkKind::members ? "members" : "-";
      out += fmt::format(" {}:{}", e.term.value(), label);
    }
    out += '\n';
  }
  return out;
}

// Nodes.

void World::start(int n) {
  Node& node = at(n);
  if (node.replica) return;
  node.stalled = node.deaf = false;
  node.seen = node.disk;
  Recovered found{.hard = node.disk.hard,
                  .start = node.disk.start,
                  .start_term = node.disk.start_term,
                  .members = node.disk.start_members,
                  .marks = {},
                  .members_after = {},
                  .end = node.disk.end(),
                  .commit = node.disk.commit,
                  .log_start = {}};
  for (const Entry& e : node.disk.entries) {
    if (!e.is_mark) continue;
    found.marks.push_back(e.mark);
    if (e.mark.kind == MarkKind::members) found.members_after.push_back({e.begin, e.members});
  }
  node.replica = std::make_unique<Replica>(node.id, ++node.boots, kOptions, std::move(found), Random{static_cast<std::uint64_t>(n)}, node.now);
}

void World::crash(int n, bool kept) {
  Node& node = at(n);
  for (std::size_t w = node.durable; kept && w < node.queue.size(); ++w) node.queue[w].apply(node.disk);
  node.queue.clear();
  node.durable = 0;
  node.replica.reset();
}

/// Three: a lost append is noticed when the second answer still lacks it, and the third carries the commit that comes of it.
void World::beat(int n) {
  for (int round = 0; round < 3 && leads(n); ++round) {
    Actions out;
    std::vector<ReplicaId> unanswered;
    for (const Progress& member : replica(n).progress()) {
      if (member.state == ProgressState::snapshot) unanswered.push_back(member.id);
    }
    for (const ReplicaId& id : unanswered) at(n).replica->snapshot_failed(id);
    auto fact = at(n).replica->heartbeat(1, at(n).now, out);
    if (fact) {
      for (const Progress& member : replica(n).progress()) post(n, member.id, {.body = *fact});
    }
    drain(n, out);
    settle();
  }
}

void World::compact(int n) {
  Node& node = at(n);
  LogPosition to = node.replica->commit();
  auto dropped = static_cast<std::size_t>(std::ranges::count_if(node.seen.entries, [&](const Entry& e) { return e.end <= to; }));
  indexes_[to] = indexes_[node.seen.start] + dropped;
  write(n, {.kind = Write::Kind::trim, .position = to});
  node.replica->trimmed(to);
}

void World::propose(int n, std::string_view label) {
  Node& node = at(n);
  if (!up(n) || node.replica->can_append() != Verdict::ok) return;
  Entry entry{
      .begin = node.seen.end(), .end = {node.seen.end().offset + 1, 0}, .term = node.replica->term(), .value = static_cast<std::uint64_t>(number_of(label))};
  write(n, {.kind = Write::Kind::entry, .entry = entry});
  Actions out;
  node.replica->appended(entry.end.offset);
  node.replica->replicate(node.now, out);
  drain(n, out);
}

void World::write(int n, Write write) {
  write.apply(at(n).seen);
  if (at(n).deaf) write.apply(at(n).disk);
  at(n).durable += at(n).deaf ? 1 : 0;
  at(n).queue.push_back(std::move(write));
}

void World::flush(int n) {
  while (up(n) && !at(n).stalled && !at(n).queue.empty()) report(n);
}

/// The oldest write is durable now, if it was not, and the replica hears of it.
void World::report(int n) {
  Node& node = at(n);
  Write write = std::move(node.queue.front());
  node.queue.pop_front();
  if (node.durable == 0) {
    write.apply(node.disk);
  } else {
    --node.durable;
  }
  Actions out;
  if (write.kind == Write::Kind::hard_state) node.replica->hard_state_saved(write.generation, node.now, out);
  if (write.kind == Write::Kind::entry) node.replica->persisted(write.entry.end, write.entry.term, node.now, out);
  if (write.kind == Write::Kind::install) node.replica->snapshot_installed(write.position, node.now, out);
  for (std::size_t k = 0; k < out.size(); ++k) {
    Action action = out[k];  // a copy: answering a read adds to the list
    act(n, action, out);
  }
}

void World::drain(int n, Actions& out) {
  for (std::size_t k = 0; k < out.size(); ++k) {
    Action action = out[k];
    act(n, action, out);
  }
  out.clear();
  flush(n);
}

void World::act(int n, const Action& action, Actions& out) {
  Node& node = at(n);
  if (auto* a = std::get_if<SaveHardState>(&action)) {
    write(n, {.kind = Write::Kind::hard_state, .hard = a->state, .generation = a->generation});
  } else if (auto* a = std::get_if<AppendMark>(&action)) {
    write(n, {.kind = Write::Kind::entry,
              .entry = {.begin = a->mark.begin, .end = a->mark.end(), .term = a->mark.term, .is_mark = true, .mark = a->mark, .members = a->members}});
  } else if (auto* a = std::get_if<AppendRun>(&action)) {
    for (std::size_t b = a->first; b < incoming_.size(); ++b) {
      Entry entry = incoming_[b];
      if (b == a->first) entry.begin = a->begin;
      write(n, {.kind = Write::Kind::entry, .entry = entry});
    }
  } else if (auto* a = std::get_if<Truncate>(&action)) {
    write(n, {.kind = Write::Kind::truncate, .position = a->to});
  } else if (auto* a = std::get_if<InstallSnapshot>(&action)) {
    auto image = std::make_shared<Image>();
    image->start = image->commit = a->snapshot.position;
    image->start_term = a->snapshot.position_term;
    image->start_members = a->snapshot.members;
    write(n, {.kind = Write::Kind::install, .position = a->snapshot.position, .image = image});
  } else if (auto* a = std::get_if<SendSnapshot>(&action)) {
    auto snapshot = node.replica->snapshot_for(a->to, node.seen.start);
    if (snapshot) post(n, a->to, {.body = Message{*snapshot}});
  } else if (auto* a = std::get_if<CommitAdvanced>(&action)) {
    write(n, {.kind = Write::Kind::checkpoint, .position = a->commit});
  } else if (auto* a = std::get_if<Send>(&action)) {
    ReplicaId to = std::visit([](const auto& m) { return m.header.to; }, a->message);
    post(n, to, {.body = a->message});
  } else if (auto* a = std::get_if<ReadEntries>(&action)) {
    EntriesRead read{.to = a->to, .ticket = a->ticket, .status = ReadStatus::failed};
    auto found = std::ranges::find_if(node.seen.entries, [&](const Entry& e) { return !e.is_mark && e.end.offset > a->from; });
    std::vector<Entry> batch;
    if (found != node.seen.entries.end()) {
      read = {.to = a->to, .ticket = a->ticket, .status = ReadStatus::ok, .begin = found->begin.offset, .end = found->end.offset, .bytes = 1};
      batch.push_back(*found);
    }
    auto message = node.replica->entries_read(read, node.now, out);
    if (message) post(n, a->to, {.body = Message{*message}, .batches = std::move(batch)});
  }
}

// Network.

void World::post(int from, const ReplicaId& to, Packet packet) {
  packet.incarnation = at(from).boots;
  Link& way = link(from, number(to));
  if (way.state != Link::cut) way.queue.push_back(std::move(packet));
}

void World::release(int from, int to, std::string_view how) {
  Link& way = link(from, to);
  if (how == "backwards") std::ranges::reverse(way.queue);
  if (how == "drop") way.queue.clear();
  if (how == "twice") {
    std::deque<Packet> doubled;
    for (const Packet& packet : way.queue) doubled.insert(doubled.end(), 2, packet);
    way.queue = std::move(doubled);
  }
  if (way.state == Link::held) way.state = Link::open;
}

/// In rounds: what a round sends arrives in the next.
void World::settle() {
  int rounds = 0;
  for (bool moved = true; moved;) {
    moved = false;
    if (++rounds > kRoundsMax) {
      restless_ = true;
      return;
    }
    std::vector<std::tuple<int, int, std::deque<Packet>>> round;
    for (int from = 1; from <= size(); ++from) {
      for (int to = 1; to <= size(); ++to) {
        if (open(from, to) && waiting(from, to)) round.emplace_back(from, to, std::exchange(link(from, to).queue, {}));
      }
    }
    for (const auto& [from, to, packets] : round) {
      for (const Packet& packet : packets) deliver(from, to, packet);
      moved = true;
    }
  }
}

void World::deliver(int from, int to, const Packet& packet) {
  Node& node = at(to);
  if (!up(to)) return;
  Actions out;
  if (auto* message = std::get_if<Message>(&packet.body)) {
    incoming_ = packet.batches;
    if (auto* append = std::get_if<Append>(message)) {
      std::vector<BatchRef> refs;
      for (const Entry& e : packet.batches) refs.push_back({e.end.offset, 1});
      node.replica->receive(ReceivedAppend{*append, refs}, node.now, out);
    } else {
      node.replica->receive(*message, node.now, out);
    }
  } else if (auto* fact = std::get_if<HeartbeatFact>(&packet.body)) {
    auto reply = node.replica->receive(at(from).id, *fact, node.now, out);
    if (reply) post(to, at(from).id, {.body = *reply});
  } else if (auto* reply = std::get_if<HeartbeatReply>(&packet.body)) {
    node.replica->receive(at(from).id, packet.incarnation, *reply, node.now, out);
  }
  drain(to, out);
}

}  // namespace tailrace::broker::raft::interop
