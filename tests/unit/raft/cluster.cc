#include "tests/unit/raft/cluster.h"

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <utility>

#include "tests/unit/raft/cluster_text.h"

namespace tailrace::broker::raft::test {
namespace {

/// For a trace: what changes a node's state, in a line.
std::string describe(const Action& action) {
  if (auto* a = std::get_if<SaveHardState>(&action)) {
    return fmt::format("save term {} vote {} suspicion {} floor {}/{}", a->state.term.value(), a->state.vote.node.value(),
                       static_cast<int>(a->state.suspicion), a->state.floor.term.value(), text(a->state.floor.position));
  }
  if (auto* a = std::get_if<AppendMark>(&action)) {
    return fmt::format("mark {} at {} term {}{}", static_cast<int>(a->mark.kind), text(a->mark.begin), a->mark.term.value(), text(a->members));
  }
  if (auto* a = std::get_if<AppendRun>(&action)) return fmt::format("run {}..{} term {}", text(a->begin), text(a->end), a->term.value());
  if (auto* a = std::get_if<Truncate>(&action)) return fmt::format("truncate to {}", text(a->to));
  if (auto* a = std::get_if<InstallSnapshot>(&action)) return fmt::format("install {}", text(a->snapshot.position));
  if (auto* a = std::get_if<CommitAdvanced>(&action)) return fmt::format("commit {}", text(a->commit));
  if (auto* a = std::get_if<RoleChanged>(&action)) return fmt::format("{} of term {}, leader {}", name_of(a->role), a->term.value(), a->leader.node.value());
  if (auto* a = std::get_if<MembersChanged>(&action)) return fmt::format("members{} committed {}", text(a->members), a->committed);
  if (auto* a = std::get_if<SendSnapshot>(&action)) return fmt::format("snapshot for {}", a->to.node.value());
  if (auto* a = std::get_if<Send>(&action)) {
    if (auto* v = std::get_if<VoteRequest>(&a->message)) return fmt::format("asks {} for ballot {} pre {}", v->header.to.node.value(), v->ballot.value(), v->pre_vote);
    if (auto* v = std::get_if<VoteReply>(&a->message)) return fmt::format("answers {} ballot {} granted {}", v->header.to.node.value(), v->ballot.value(), v->granted);
    if (auto* v = std::get_if<AppendReply>(&a->message)) {
      return fmt::format("replies to {}: {} match {} received {} hint {}/{}", v->header.to.node.value(), static_cast<int>(v->answer), text(v->match),
                         text(v->received), v->hint.term.value(), text(v->hint.position));
    }
    if (auto* v = std::get_if<Append>(&a->message)) {
      return fmt::format("appends to {}: kind {} previous {}/{} end {}", v->header.to.node.value(), static_cast<int>(v->kind), v->previous_term.value(),
                         text(v->previous), text(v->end));
    }
    return fmt::format("sends message {}", a->message.index());
  }
  return fmt::format("action {}", action.index());
}

}  // namespace

Cluster::Cluster(Options options)
    : options_{options}, random_{options.seed}, net_{random_.split()}, disk_{random_.split()}, now_{Instant{} + std::chrono::seconds{1}} {
  for (int i = 0; i < options.nodes; ++i) add_node();
  std::vector<ReplicaId> voters;
  int count = options.voters == 0 ? options.nodes : options.voters;
  for (int i = 0; i < count; ++i) voters.push_back(node(i).id);
  Membership members = Membership::of_voters(voters);
  for (int i = 0; i < count; ++i) node(i).disk.start_members = members;
  for (int i = 0; i < options.nodes; ++i) start(i);
}

int Cluster::add_node() {
  Node& added = nodes_.emplace_back();
  added.id.node = NodeId{static_cast<std::int32_t>(nodes_.size() - 1)};
  added.id.directory.bytes[0] = next_directory_++;
  for (auto& row : cut_) row.push_back(0);
  cut_.emplace_back(nodes_.size(), 0);
  return static_cast<int>(nodes_.size()) - 1;
}

int Cluster::index_of(const ReplicaId& id) const {
  std::int32_t i = id.node.value();
  return i >= 0 && i < static_cast<std::int32_t>(nodes_.size()) ? i : -1;
}

void Cluster::violate(std::string what) {
  if (violation_.empty()) violation_ = std::move(what);
}

void Cluster::suspect(std::string what) {
  if (options_.checks != Checks::history) violate(std::move(what));
}

// Nodes.

void Cluster::start(int i) {
  Node& n = node(i);
  if (n.up) return;
  n.up = true;
  n.seen = n.disk;
  n.queue.clear();
  n.reports.clear();
  n.reads.clear();
  n.snapshot_wanted.clear();
  n.kept_producers.clear();
  ++n.boots;
  if (trace_) {
    trace(i, fmt::format("starts: term {} vote {} suspicion {} start {} end {} commit {}", n.disk.hard.term.value(), n.disk.hard.vote.node.value(),
                         static_cast<int>(n.disk.hard.suspicion), text(n.disk.start), text(n.disk.end()), text(n.disk.commit)));
  }
  Recovered found;
  found.hard = n.disk.hard;
  found.start = n.disk.start;
  found.start_term = n.disk.start_term;
  found.members = n.disk.start_members;
  for (const Entry& entry : n.disk.entries) {
    if (!entry.is_mark) continue;
    found.marks.push_back(entry.mark);
    if (entry.mark.kind == MarkKind::members) found.members_after.push_back({entry.begin, entry.members});
  }
  found.end = n.disk.end();
  found.commit = n.disk.commit;
  found.log_start = n.disk.log_start;
  if (found.hard.suspicion != Suspicion::none) ++counters.suspicious;
  n.commit_told = std::clamp(found.commit, found.start, found.end);
  n.replica = std::make_unique<Replica>(n.id, n.boots, options_.replica, std::move(found), random_.split(), now_);
  n.heartbeat_at = now_;
  if (n.boots > 1) ++counters.restarts;
}

void Cluster::crash(int i, std::size_t writes_kept) {
  Node& n = node(i);
  if (!n.up) return;
  writes_kept = std::min(writes_kept, n.queue.size());
  for (std::size_t w = 0; w < writes_kept; ++w) n.queue[w].apply(n.disk);
  // A lone voter leads before its vote is durable. If it dies before, nothing of that term was said to anybody: it never was.
  LeaderEpoch term = n.replica->term();
  if (n.disk.hard.term < term) {
    if (auto led = leaders_.find(term); led != leaders_.end() && led->second == std::pair{n.id, n.boots}) {
      leaders_.erase(led);
      std::erase_if(chains_, [&](const auto& known) { return known.first.first == term; });
    }
  }
  trace(i, "crashes");
  n.up = false;
  n.replica.reset();
  confirming_.erase(i);
}

void Cluster::lose_tail(int i, LogPosition to, Suspicion suspicion, LogEnd floor) {
  Node& n = node(i);
  if (trace_) trace(i, fmt::format("loses from {} on, suspicion {}", text(to), static_cast<int>(suspicion)));
  n.disk.truncate(to);
  n.disk.commit = std::min(n.disk.commit, n.disk.end());
  n.disk.hard.suspicion = std::max(n.disk.hard.suspicion, suspicion);
  n.disk.hard.floor = std::max(n.disk.hard.floor, floor);
}

void Cluster::replace_directory(int i, bool keep_directory_id) {
  crash(i);
  Node& n = node(i);
  trace(i, "has its directory replaced");
  n.disk = Image{};
  if (!keep_directory_id) n.id.directory.bytes[0] = next_directory_++;
}

void Cluster::queue(int i, Write write) {
  Node& n = node(i);
  write.apply(n.seen);
  n.queue.push_back(std::move(write));
}

void Cluster::flush(int i, std::size_t writes) {
  Node& n = node(i);
  if (!n.up || n.queue.empty()) return;
  Report report;
  for (; writes > 0 && !n.queue.empty(); --writes) {
    const Write& write = n.queue.front();
    write.apply(n.disk);
    switch (write.kind) {
      case Write::Kind::hard_state:
        report.generation = write.generation;
        break;
      case Write::Kind::entry:
        report.durable = {write.entry.end, write.entry.term};
        break;
      case Write::Kind::install:
        report.installed = write.position;
        break;
      default:
        break;
    }
    n.queue.pop_front();
  }
  n.reports.push_back(report);
  if (!n.hold_reports && disk_.chance(options_.report_percent, 100)) this->report(i);
}

void Cluster::report(int i) {
  Node& n = node(i);
  while (n.up && !n.reports.empty()) {
    Report report = n.reports.front();
    n.reports.pop_front();
    Actions out;
    if (report.generation) {
      n.replica->hard_state_saved(*report.generation, now_, out);
      drain(i, out);
    }
    if (report.installed) {
      n.replica->snapshot_installed(*report.installed, now_, out);
      drain(i, out);
    }
    if (report.durable) {
      n.replica->persisted(report.durable->first, report.durable->second, now_, out);
      drain(i, out);
    }
  }
}

// Actions.

void Cluster::drain(int i, Actions& out) {
  for (std::size_t k = 0; k < out.size(); ++k) {
    Action action = out[k];  // a copy: answering a read adds to the list
    act(i, action, out);
    if (!node(i).up) break;
  }
  out.clear();
  look_after(i);
}

void Cluster::trace(int i, const std::string& what) const {
  if (trace_) fmt::print("{:8.3f} node {}: {}\n", std::chrono::duration<double>(now_ - Instant{}).count(), i, what);
}

void Cluster::act(int i, const Action& action, Actions& out) {
  Node& n = node(i);
  if (trace_) trace(i, describe(action));
  note(static_cast<std::uint64_t>(now_.time_since_epoch().count()) * 64 + static_cast<std::uint64_t>(i) * 16 + action.index());
  if (auto* a = std::get_if<SaveHardState>(&action)) {
    queue(i, {.kind = Write::Kind::hard_state, .hard = a->state, .generation = a->generation});
  } else if (auto* a = std::get_if<AppendMark>(&action)) {
    if (n.seen.end() != a->mark.begin) return violate(fmt::format("node {}: a mark at {} for a log that ends at {}", i, text(a->mark.begin), text(n.seen.end())));
    Entry entry{.begin = a->mark.begin, .end = a->mark.end(), .term = a->mark.term, .is_mark = true, .mark = a->mark, .members = a->members};
      n.seen.append(entry);
    entry = n.seen.entries.back();
    n.seen.entries.pop_back();
    note_append(entry);
    queue(i, {.kind = Write::Kind::entry, .entry = entry});
  } else if (auto* a = std::get_if<AppendRun>(&action)) {
    for (std::size_t b = a->first; b < incoming_.size(); ++b) {
      Entry entry = incoming_[b];
      if (b == a->first && (entry.begin.offset != a->begin.offset || n.seen.end() != a->begin)) {
        return violate(fmt::format("node {}: a run from {} for a log that ends at {}", i, text(a->begin), text(n.seen.end())));
      }
      if (b == a->first) entry.begin = a->begin;
      n.seen.append(entry);
      entry = n.seen.entries.back();
      n.seen.entries.pop_back();
      note_append(entry);
      queue(i, {.kind = Write::Kind::entry, .entry = entry});
    }
    ++counters.runs;
  } else if (auto* a = std::get_if<Truncate>(&action)) {
    ++counters.truncations;
    if (planted(PlantedBug::raft_keep_rolled_back_producers)) n.kept_producers = n.seen.producers_at(n.seen.end());
    queue(i, {.kind = Write::Kind::truncate, .position = a->to});
  } else if (auto* a = std::get_if<InstallSnapshot>(&action)) {
    ++counters.snapshots;
    auto image = std::make_shared<Image>();
    image->start = image->commit = a->snapshot.position;
    image->start_term = a->snapshot.position_term;
    image->start_members = a->snapshot.members;
    // In the same step, as log::Partition::install() does it: behind the new beginning nothing is left of what was in front.
    image->log_start = std::max(n.seen.log_start, std::min(a->snapshot.log_start, a->snapshot.position.offset));
    if (incoming_snapshot_) {
      image->start_chain = incoming_snapshot_->chain;
      if (!planted(PlantedBug::raft_snapshot_without_producers)) image->start_producers = incoming_snapshot_->producers;
    }
    queue(i, {.kind = Write::Kind::install, .position = a->snapshot.position, .image = image});
  } else if (auto* a = std::get_if<CommitAdvanced>(&action)) {
    if (a->commit <= n.commit_told) violate(fmt::format("node {}: the commit goes from {} to {}", i, text(n.commit_told), text(a->commit)));
    n.commit_told = a->commit;
    note_commit(i);
  } else if (auto* a = std::get_if<LogStartAdvanced>(&action)) {
    ++counters.log_starts;
    if (a->log_start < n.seen.log_start) violate(fmt::format("node {}: the log start goes back to {}", i, a->log_start.value()));
    queue(i, {.kind = Write::Kind::log_start, .log_start = a->log_start});
    // What is deleted may leave the disk: up to the last entry that ends there.
    LogPosition to = n.seen.start;
    for (const Entry& entry : n.seen.entries) {
      if (entry.end > n.replica->commit() || entry.end.offset > a->log_start) break;
      to = entry.end;
    }
    if (to > n.seen.start && random_.chance(1, 2)) {
      queue(i, {.kind = Write::Kind::trim, .position = to});
      n.replica->trimmed(to);
    }
  } else if (auto* a = std::get_if<MembersChanged>(&action)) {
    if (a->committed) ++counters.member_changes;
  } else if (auto* a = std::get_if<RoleChanged>(&action)) {
    if (a->role != Role::leader) return;
    ++counters.elections;
    auto [known, fresh] = leaders_.emplace(a->term, std::pair{n.id, n.boots});
    if (!fresh && known->second != std::pair{n.id, n.boots}) suspect(fmt::format("two leaders in term {}", a->term.value()));
    // Leader completeness: everything that was committed in an earlier term is in its log. (One elected late, in a term that others
    // have left, need not have what came after.)
    for (const auto& [term, at] : committed_in_) {
      if (term >= a->term || at <= n.seen.start) continue;
      if (n.seen.chain_at(at) != committed_.at(at)) violate(fmt::format("node {} leads term {} without what is committed up to {}", i, a->term.value(), text(at)));
    }
  } else if (auto* a = std::get_if<Send>(&action)) {
    const ReplicaId& to = std::visit([](const auto& m) -> const ReplicaId& { return m.header.to; }, a->message);
    check_send(i, a->message);
    post(i, to, {.body = a->message});
  } else if (auto* a = std::get_if<ReadEntries>(&action)) {
    if (net_.chance(options_.slow_read_percent, 100)) {
      n.reads.push_back(*a);
    } else {
      answer_read(i, *a, out);
    }
  } else if (auto* a = std::get_if<SendSnapshot>(&action)) {
    n.snapshot_wanted.insert(a->to);
    offer_snapshot(i, a->to, out);
  } else if (auto* a = std::get_if<LeadershipConfirmed>(&action)) {
    auto waiting = confirming_.find(i);
    if (waiting == confirming_.end() || waiting->second.incarnation != n.boots || waiting->second.term != n.replica->term()) return;
    if (a->round < waiting->second.round) return;
    ++counters.confirmed;
    const Confirming& c = waiting->second;
    if (c.commit < c.acknowledged) violate(fmt::format("node {} showed the end {} after {} had been acknowledged", i, text(c.commit), text(c.acknowledged)));
    if (c.log_start < c.log_start_shown) violate(fmt::format("node {} showed log start {} after {}", i, c.log_start.value(), c.log_start_shown.value()));
    log_start_shown_ = std::max(log_start_shown_, c.log_start);
    confirming_.erase(waiting);
  } else if (std::get_if<Halted>(&action)) {
    if (!may_halt_.contains(i)) violate(fmt::format("node {} halted", i));
  }
}

void Cluster::answer_read(int i, const ReadEntries& read, Actions& out) {
  Node& n = node(i);
  EntriesRead answer{.to = read.to, .ticket = read.ticket, .status = ReadStatus::ok};
  std::vector<Entry> batches;
  if (read.from < n.seen.start.offset) {
    answer.status = ReadStatus::gone;
  } else {
    std::uint32_t bytes = 0;
    for (const Entry& entry : n.seen.entries) {
      if (entry.is_mark || entry.end.offset <= read.from) continue;
      if (entry.end.offset > read.until) break;
      if (!batches.empty() && bytes + 1'000 > read.bytes_max) break;
      batches.push_back(entry);
      bytes += 1'000;
    }
    if (batches.empty()) {
      answer.status = ReadStatus::failed;
    } else {
      answer.begin = batches.front().begin.offset;
      answer.end = batches.back().end.offset;
      answer.bytes = bytes;
    }
  }
  auto message = n.replica->entries_read(answer, now_, out);
  if (message) post(i, read.to, {.body = Message{*message}, .batches = std::move(batches)});
}

void Cluster::offer_snapshot(int i, const ReplicaId& to, Actions&) {
  Node& n = node(i);
  n.snapshot_wanted.erase(to);
  n.snapshot_retry = now_ + std::chrono::seconds{1};
  LogPosition at = n.replica->log().start();
  if (random_.chance(1, 2)) at = n.replica->commit();
  if (at < n.seen.start) at = n.seen.start;
  auto chain = n.seen.chain_at(at);
  if (!chain) return;
  auto snapshot = n.replica->snapshot_for(to, at);
  if (!snapshot) return;
  post(i, to, {.body = SnapshotCargo{*snapshot, n.seen.producers_at(at), *chain}});
}

// Network.

void Cluster::post(int i, const ReplicaId& to, Packet packet) {
  packet.from = node(i).id;
  packet.to = to;
  packet.incarnation = node(i).boots;
  if (net_.chance(options_.drop_percent, 100)) return;
  int copies = net_.chance(options_.duplicate_percent, 100) ? 2 : 1;
  for (; copies > 0; --copies) {
    Duration delay{static_cast<Duration::rep>(net_.below(static_cast<std::uint64_t>(options_.delay_max.count()) + 1))};
    if (net_.chance(options_.late_percent, 100)) delay += Duration{static_cast<Duration::rep>(net_.below(2'000'000'000))};
    packet.at = now_ + delay;
    packets_.push_back(packet);
  }
}

void Cluster::deliver(Packet packet) {
  int from = index_of(packet.from), to = index_of(packet.to);
  if (from < 0 || to < 0 || cut_[static_cast<std::size_t>(from)][static_cast<std::size_t>(to)]) return;
  Node& n = node(to);
  if (!n.up) return;
  note(static_cast<std::uint64_t>(from) * 8 + static_cast<std::uint64_t>(to) + packet.body.index() * 64);
  Actions out;
  if (auto* message = std::get_if<Message>(&packet.body)) {
    incoming_ = packet.batches;
    if (auto* append = std::get_if<Append>(message)) {
      std::vector<BatchRef> refs;
      for (const Entry& entry : packet.batches) refs.push_back({entry.end.offset, 1'000});
      n.replica->receive(ReceivedAppend{*append, refs}, now_, out);
    } else {
      n.replica->receive(*message, now_, out);
    }
  } else if (auto* cargo = std::get_if<SnapshotCargo>(&packet.body)) {
    incoming_snapshot_ = std::make_shared<SnapshotCargo>(*cargo);
    n.replica->receive(Message{cargo->snapshot}, now_, out);
  } else if (auto* fact = std::get_if<HeartbeatFact>(&packet.body)) {
    if (packet.to != n.id && !planted(PlantedBug::raft_ignore_directory)) return;
    auto reply = n.replica->receive(packet.from, *fact, now_, out);
    if (reply) post(to, packet.from, {.body = *reply});
  } else if (auto* reply = std::get_if<HeartbeatReply>(&packet.body)) {
    if (packet.to != n.id) return;
    n.replica->receive(packet.from, packet.incarnation, *reply, now_, out);
  }
  drain(to, out);
}

void Cluster::inject(int to, const Message& message, std::vector<Entry> batches) {
  ReplicaId from = std::visit([](const auto& m) { return m.header.from; }, message);
  deliver({.from = from, .to = node(to).id, .body = message, .batches = std::move(batches)});
}

void Cluster::cut(int from, int to, bool cut) { cut_[static_cast<std::size_t>(from)][static_cast<std::size_t>(to)] = cut; }
void Cluster::isolate(int i) {
  for (int other = 0; other < size(); ++other) {
    if (other == i) continue;
    cut(i, other);
    cut(other, i);
  }
}
void Cluster::heal() {
  for (auto& row : cut_) std::ranges::fill(row, 0);
}

// Time.

void Cluster::step() {
  now_ += options_.step;
  // Packets posted while delivering wait for the next step, so a step ends.
  std::vector<Packet> due;
  std::size_t kept = 0;
  for (std::size_t p = 0; p < packets_.size(); ++p) {
    int to = index_of(packets_[p].to);
    bool waits = packets_[p].at > now_ || (to >= 0 && node(to).paused);
    if (waits) {
      if (kept != p) packets_[kept] = std::move(packets_[p]);
      ++kept;
    } else {
      due.push_back(std::move(packets_[p]));
    }
  }
  packets_.resize(kept);
  for (Packet& packet : due) deliver(std::move(packet));
  for (int i = 0; i < size(); ++i) {
    Node& n = node(i);
    if (!n.up || n.paused) continue;
    if (!n.hold_flush && !n.queue.empty()) {
      bool all = disk_.chance(options_.flush_percent, 100);
      std::size_t writes = all ? n.queue.size() : disk_.below(n.queue.size() + 1);
      if (writes > 0) flush(i, writes);
    }
    if (!n.hold_reports && !n.reports.empty() && disk_.chance(options_.report_percent, 100)) report(i);
    Actions out;
    for (ReadEntries& read : std::exchange(n.reads, {})) {
      answer_read(i, read, out);
      drain(i, out);
    }
    if (n.replica->deadline() <= now_) {
      n.replica->tick(now_, out);
      drain(i, out);
    }
    if (n.heartbeat_at <= now_) {
      n.heartbeat_at = now_ + options_.heartbeat;
      auto fact = n.replica->heartbeat(7, now_, out);
      if (fact) {
        for (const Progress& member : n.replica->progress()) post(i, member.id, {.body = *fact});
      }
      drain(i, out);
      // A transfer of a snapshot that brought no answer is begun anew.
      if (n.snapshot_retry <= now_) {
        std::vector<ReplicaId> stuck;
        for (const Progress& member : n.replica->progress()) {
          if (member.state == ProgressState::snapshot) stuck.push_back(member.id);
        }
        for (const ReplicaId& id : stuck) n.replica->snapshot_failed(id);
      }
      if (disk_.chance(1, 8) && n.replica->commit() > n.disk.commit) queue(i, {.kind = Write::Kind::checkpoint, .position = n.replica->commit()});
    }
  }
}

void Cluster::run(Duration duration) {
  Instant until = now_ + duration;
  while (now_ < until && violation_.empty()) step();
}

bool Cluster::await(const std::function<bool()>& condition, Duration wait) {
  Instant until = now_ + wait;
  while (now_ < until && violation_.empty()) {
    if (condition()) return true;
    step();
  }
  return condition();
}

// Leading.

}  // namespace tailrace::broker::raft::test
