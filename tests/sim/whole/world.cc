#include "tests/sim/whole/world.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/crc32c.h"
#include "tests/support/history_checker.h"

namespace tailrace::broker::sim::whole {
namespace {

using namespace std::chrono_literals;

constexpr Duration kTick = 5ms;
constexpr Duration kSettleMax = 180s;  // of virtual time, once all is healed
constexpr std::int64_t kDriftMax = 50'000;  // millionths: far more than any quartz
constexpr std::string_view kTopic = "events";

Random stream(std::uint64_t seed, std::uint64_t number) {
  Random mixed{seed * 0x9e3779b97f4a7c15ULL + number};
  return mixed.split();
}

class World {
 public:
  explicit World(const Plan& plan)
      : plan_{plan}, topology_{stream(plan.seed, 1)}, faults_{stream(plan.seed, 2)}, disks_{stream(plan.seed, 3)},
        network_{plan.nodes, stream(plan.seed, 4), network_options()},
        clients_{.now = [this] { return now_; }, .serving = [this](int i) { return serving(i); }, .violate = [this](std::string what) { violate(std::move(what)); },
                 .nodes = plan.nodes, .topic = {}, .topic_name = std::string{kTopic}, .history = history_, .random = stream(plan.seed, 5)} {
    NodeOptions options = node_options();
    for (int i = 0; i < plan.nodes; ++i) {
      nodes_.push_back(std::make_unique<Node>(i, options, [this](int from, const service::PeerMessage& message) { post(from, message); }));
    }
    for (std::uint8_t& byte : clients_.topic.bytes) byte = static_cast<std::uint8_t>(topology_.below(256));
    draw_rates();
    Random drift = stream(plan.seed, 7);
    if (drift.chance(1, 2) && may(FaultClass::drift)) {
      for (auto& node : nodes_) node->drift = static_cast<std::int64_t>(drift.below(2 * kDriftMax + 1)) - kDriftMax;
    }
  }

  Outcome outcome() {
    if (set_up()) {
      for (int tick = 0; tick < plan_.ticks && fine(); ++tick) {
        draw_faults();
        step(true);
      }
      heal();
      settle();
      drain();
      compare_replicas();
      judge();
    }
    out_.virtual_time = now_ - Instant{};
    for (auto& node : nodes_) {
      count_lost_life(*node);
      if (node->up()) node->kill();
      if (!node->stuck().empty()) violate(node->stuck());
      out_.hash = out_.hash * 31 + node->hash();
    }
    out_.hash = out_.hash * 31 + network_.delivered();
    out_.violation = violation_;
    return out_;
  }

 private:
  [[nodiscard]] bool fine() const { return violation_.empty(); }
  void violate(std::string what) {
    if (violation_.empty()) violation_ = fmt::format("at {} ms: {}", std::chrono::duration_cast<std::chrono::milliseconds>(now_ - Instant{}).count(), what);
  }
  [[nodiscard]] bool may(FaultClass fault) const { return ((plan_.faults >> static_cast<unsigned>(fault)) & 1U) != 0; }
  [[nodiscard]] int count() const { return plan_.nodes; }
  Node& node(int i) { return *nodes_[static_cast<std::size_t>(i)]; }
  int any() { return static_cast<int>(faults_.below(static_cast<std::uint64_t>(count()))); }
  Node* serving(int i) { return node(i).serving() && !node(i).paused && joined_.contains(i) ? &node(i) : nullptr; }
  [[nodiscard]] PartitionId partition(std::int32_t i) const { return {clients_.topic, PartitionIndex{i}}; }

  // ---- what the seed says ----------------------------------------------------------------------------------------------

  NetworkOptions network_options() {
    NetworkOptions options;
    Random draw = stream(plan_.seed, 6);
    options.delay_max = std::chrono::milliseconds{1 + draw.below(20)};
    bool lossy = draw.chance(1, 2);
    if (!lossy || !may(FaultClass::lossy_links)) return options;
    options.drop_percent = static_cast<unsigned>(draw.below(15));
    options.duplicate_percent = static_cast<unsigned>(draw.below(15));
    options.late_percent = static_cast<unsigned>(draw.below(5));
    return options;
  }

  NodeOptions node_options() {
    NodeOptions options;
    options.shards = topology_.chance(1, 3) ? 2 : 1;
    options.wal_file_bytes = (std::uint64_t{64} << topology_.below(3)) * limits::kKiB;
    options.wal_files = static_cast<int>(topology_.between(2, 4));
    options.hot_tail_bytes = (std::uint64_t{16} << topology_.below(5)) * limits::kKiB;
    options.replica = {.election_timeout_min = 300ms, .election_timeout_max = 600ms, .report_wait_max = 10s,
                       .run_bytes_max = static_cast<std::uint32_t>(4'000 << topology_.below(4)), .window_bytes = static_cast<std::uint32_t>(16'000 << topology_.below(4))};
    return options;
  }

  void draw_rates() {
    rates_.fill(0);
    if (faults_.chance(1, 4)) return;  // none at all
    constexpr std::array<unsigned, static_cast<std::size_t>(FaultClass::count_)> kRates{4, 4, 2, 4, 4, 6, 0, 3, 2, 2, 3, 5, 6, 1, 3, 0};
    for (std::size_t i = 0; i < rates_.size(); ++i) {
      bool exists = faults_.chance(1, 2);
      if (exists && may(static_cast<FaultClass>(i))) rates_[i] = kRates[i];
    }
  }
  bool draw(FaultClass fault) {
    unsigned rate = rates_[static_cast<std::size_t>(fault)];
    return rate > 0 && faults_.chance(rate, 1'000);
  }

  // ---- beginning -------------------------------------------------------------------------------------------------------

  bool set_up() {
    for (int i = 0; i < count(); ++i) boot(i, node(i).take_image());
    if (!run_until([&] { return std::ranges::all_of(nodes_, [](const auto& n) { return n->serving(); }); }, 10s)) {
      violate("the nodes do not start");
      return false;
    }
    for (auto& node : nodes_) voters_.push_back(node->id());
    for (int i = 0; i < count(); ++i) host(i);
    if (!run_until([&] { return joined_.size() == nodes_.size(); }, 10s)) {
      violate("the topic is not made");
      return false;
    }
    std::uint32_t process = 1;
    for (int i = 0; i < plan_.producers; ++i) {
      producers_.push_back(std::make_unique<Producer>(clients_, process++, static_cast<std::int32_t>(i) % plan_.partitions));
    }
    for (std::int32_t i = 0; i < plan_.partitions; ++i) {
      readers_.push_back(std::make_unique<Reader>(clients_, process++, i));
      surveyors_.push_back(std::make_unique<Surveyor>(clients_, process++, i));
    }
    return true;
  }

  void boot(int i, DiskImage image) {
    node(i).boot(std::move(image), disks_.next(), now_);
    image_of_[i] = false;
    if (now_ > Instant{}) ++out_.coverage.restarts;
  }

  /// As the cluster's controller will: every node hears of the topic, its id and who votes.
  void host(int i) {
    struct Host {
      static Task<void> run(World* world, Node* node, std::int32_t partitions, std::uint64_t life) {
        service::CreateTopicRequest request{.name = std::string{kTopic}, .partitions = partitions};
        request.config = {{"segment_bytes_max", world->segment_bytes_}, {"retention_time", "unlimited"}};
        request.id = world->clients_.topic;
        request.voters = world->voters_;
        auto created = co_await node->service().create_topic(std::move(request));
        if (!node->up() || node->life() != life) co_return;
        if (created) world->joined_.insert(node->index());
        world->hosting_.erase(node->index());
      }
    };
    hosting_.insert(i);
    node(i).spawn(Host::run(this, &node(i), plan_.partitions, node(i).life()));
  }

  // ---- time ------------------------------------------------------------------------------------------------------------

  void post(int from, const service::PeerMessage& message) {
    note_durable(node(from), message.partition);  // a stop flushes and answers in one instant, and nothing looks in between
    int to = message.to.node.value() - 1;
    if (to < 0 || to >= count() || to == from) return;
    network_.send(now_, from, to, message);
  }

  void run_to(Instant until) {
    for (;;) {
      Instant due = network_.next_due();
      Node* next = nullptr;
      for (auto& node : nodes_) {
        if (!node->up() || node->paused) continue;
        Instant mine = node->world_time(node->machine().loop.next_due());
        if (mine >= due) continue;
        due = mine;
        next = node.get();
      }
      if (due > until) break;
      now_ = std::max(now_, due);
      if (next) {
        SimLoop& loop = next->machine().loop;
        Instant local = next->local_time(now_);
        loop.move_to(local);
        for (bool more = true; more && loop.next_due() <= local;) more = loop.step();
        continue;
      }
      auto packet = network_.take();
      if (!packet) continue;
      Node& to = node(packet->to);
      if (!to.serving() || to.paused) continue;
      to.machine().loop.move_to(to.local_time(now_));
      to.receive(std::move(packet->message));
    }
    now_ = until;
  }

  template <class Condition>
  bool run_until(Condition met, Duration limit) {
    Instant end = now_ + limit;
    while (!met()) {
      if (now_ >= end || !fine()) return false;
      run_to(now_ + kTick);
    }
    return true;
  }

  void step(bool more) {
    for (auto& producer : producers_) producer->tick(more && clients_.random.chance(1, 2));
    for (auto& reader : readers_) reader->tick();
    for (auto& surveyor : surveyors_) surveyor->tick();
    manage_nodes();
    manage_members();
    run_to(now_ + kTick);
    look();
  }

  // ---- faults ----------------------------------------------------------------------------------------------------------

  void draw_faults() {
    if (draw(FaultClass::kill)) die(any(), Death::kill);
    if (draw(FaultClass::power_cut)) {
      if (faults_.chance(1, 5)) {
        for (int i = 0; i < count(); ++i) die(i, Death::power_cut);  // all at once
      } else {
        die(any(), Death::power_cut);
      }
    }
    if (draw(FaultClass::stop)) die(any(), Death::stop);
    if (draw(FaultClass::pause)) node(any()).paused = true;
    for (auto& node : nodes_) {
      if (node->paused && faults_.chance(1, 100)) node->paused = false;
    }
    if (draw(FaultClass::isolate)) network_.isolate(any());
    if (draw(FaultClass::cut_link)) {
      int from = any(), to = any();
      network_.cut(from, to);
    }
    if (faults_.chance(1, 150)) network_.heal();
    if (draw(FaultClass::slow_disk)) {
      if (Node& n = node(any()); n.up()) n.machine().disk.set_latency(1ms, 40ms);
    }
    if (draw(FaultClass::failed_write)) {
      constexpr std::array kOps{DiskOp::write, DiskOp::write_durable, DiskOp::sync, DiskOp::sync_directory, DiskOp::make_directory, DiskOp::allocate};
      DiskOp op = kOps[faults_.below(kOps.size())];
      std::uint64_t after = faults_.below(5);
      if (Node& n = node(any()); n.serving()) n.machine().disk.inject({.op = op, .path_part = {}, .after = after, .to_path = {}});
    }
    if (draw(FaultClass::stalled_disk)) {
      constexpr std::array kOps{DiskOp::read, DiskOp::write, DiskOp::write_durable, DiskOp::sync, DiskOp::sync_directory};
      DiskOp op = kOps[faults_.below(kOps.size())];
      auto stall = std::chrono::milliseconds{100 + faults_.below(5'000)};
      if (Node& n = node(any()); n.serving()) n.machine().disk.inject({.op = op, .path_part = {}, .effect = Fault::Effect::stall, .stall = stall, .to_path = {}});
    }
    if (draw(FaultClass::disk_full)) {
      if (Node& n = node(any()); n.serving()) n.machine().disk.set_capacity(n.machine().disk.used_bytes() + 8 * limits::kKiB);
    }
    for (auto& node : nodes_) {
      if (node->up() && faults_.chance(1, 200)) ease(*node);
    }
    if (draw(FaultClass::wall_jump)) {
      auto by = std::chrono::minutes{static_cast<std::int64_t>(faults_.below(120)) - 60};
      if (Node& n = node(any()); n.up()) n.machine().loop.jump_wall(by);
    }
    if (draw(FaultClass::transfer)) transfer();
    if (draw(FaultClass::log_start)) advance_log_start();
    if (draw(FaultClass::replace)) replace(any());
  }

  static void ease(Node& node) {
    node.machine().disk.set_capacity(std::uint64_t{1} << 40);
    node.machine().disk.set_latency(20us, 300us);
  }

  enum class Death { kill, power_cut, stop };
  void die(int i, Death how) {
    Node& n = node(i);
    if (!n.up()) return;
    count_lost_life(n);
    switch (how) {
      case Death::kill: n.kill(); break;
      case Death::stop:
        n.machine().loop.move_to(n.local_time(now_));
        n.stop();
        break;
      case Death::power_cut: {
        std::uint64_t seed = disks_.next();
        n.power_cut(faults_.chance(1, 3) ? CrashPlan::lose_all() : CrashPlan::seeded(seed));
        break;
      }
    }
    if (!n.stuck().empty()) violate(n.stuck());
    hosting_.erase(i);
    image_of_[i] = true;
  }

  /// Another directory under the same node id; members are changed one after the other until it has taken the place of the old one.
  void replace(int i) {
    if (count() < 3 || !members_settled()) return;
    die(i, Death::kill);
    (void)node(i).take_image();
    DiskImage empty;
    empty.directories.insert("/data");
    joined_.erase(i);
    boot(i, std::move(empty));
    ++out_.coverage.replaced;
  }

  void transfer() {
    std::int32_t p = static_cast<std::int32_t>(faults_.below(static_cast<std::uint64_t>(plan_.partitions)));
    int to = any();
    Node* leader = leader_of(p);
    if (!leader || !node(to).serving()) return;
    struct Ask {
      static Task<void> run(Node* node, TopicId topic, std::int32_t p, raft::ReplicaId to) { (void)co_await node->service().transfer(topic, PartitionIndex{p}, to); }
    };
    leader->spawn(Ask::run(leader, clients_.topic, p, node(to).id()));
    ++out_.coverage.transfers;
  }

  void advance_log_start() {
    std::int32_t p = static_cast<std::int32_t>(faults_.below(static_cast<std::uint64_t>(plan_.partitions)));
    Node* leader = leader_of(p);
    if (!leader) return;
    const log::Partition& log = *leader->replica(partition(p))->log();
    auto span = static_cast<std::uint64_t>((log.high_watermark() - log.log_start()));
    Offset to = log.log_start() + static_cast<std::int64_t>(faults_.below(span + 1));
    struct Ask {
      static Task<void> run(World* world, Node* node, std::int32_t p, Offset to) {
        std::uint64_t life = node->life();
        auto done = co_await node->service().delete_records({.topic = std::string{kTopic}, .before = {{PartitionIndex{p}, to}}});
        if (node->up() && node->life() == life && done) ++world->out_.coverage.log_starts;
      }
    };
    leader->spawn(Ask::run(this, leader, p, to));
  }

  // ---- keeping the cluster up ------------------------------------------------------------------------------------------

  void manage_nodes() {
    for (int i = 0; i < count(); ++i) {
      Node& n = node(i);
      if (!n.up()) {
        if (healed_ || faults_.chance(1, 60)) boot(i, n.take_image());
        continue;
      }
      if (n.start_error()) {
        Errc code = n.start_error()->code;
        bool of_the_moment = code == Errc::io_error || code == Errc::storage_full;
        if (!of_the_moment) violate(fmt::format("node {} does not start: {} {}", i, describe(code).name, n.start_error()->detail));
        die(i, Death::kill);
        continue;
      }
      if (!n.serving()) continue;
      bool failed = false;
      for (std::uint32_t s = 0; s < n.service().core().node.cores.size(); ++s) failed = failed || n.service(s).core().log->failed();
      if (failed) {
        // An operator starts it again; the disk is well by then.
        ++out_.coverage.disk_failures;
        die(i, faults_.chance(1, 2) ? Death::kill : Death::power_cut);
        continue;
      }
      if (!joined_.contains(i) && !hosting_.contains(i)) {
        if (n.service().catalog()->find(kTopic)) joined_.insert(i);
        else host(i);
      }
    }
  }

  [[nodiscard]] bool is_current(const raft::ReplicaId& id) {
    int i = id.node.value() - 1;
    return i >= 0 && i < count() && node(i).serving() && node(i).id() == id;
  }
  Node* leader_of(std::int32_t p) {
    Node* best = nullptr;
    LeaderEpoch term{-1};
    for (auto& node : nodes_) {
      if (node->paused) continue;
      service::ReplicatedPartition* replica = node->replica(partition(p));
      if (!replica || !replica->serving() || replica->replica().term() < term) continue;
      best = node.get();
      term = replica->replica().term();
    }
    return best;
  }

  /// What is next to be done so that exactly the present directories vote; none: nothing, or nobody leads.
  std::optional<raft::MembershipChange> next_change(std::int32_t p) {
    Node* leader = leader_of(p);
    if (!leader) return std::nullopt;
    const raft::Membership& members = leader->replica(partition(p))->replica().members();
    for (int i = 0; i < count(); ++i) {
      if (!node(i).serving() || !joined_.contains(i)) continue;
      raft::ReplicaId id = node(i).id();
      const raft::Member* member = members.find(id);
      if (!member) return raft::MembershipChange{raft::ChangeKind::add_learner, id};
      if (!member->voter) return raft::MembershipChange{raft::ChangeKind::promote, id};
    }
    for (const raft::Member& member : members.members()) {
      bool replaced = node(member.id.node.value() - 1).serving() && !is_current(member.id);
      if (replaced) return raft::MembershipChange{raft::ChangeKind::remove, member.id};
    }
    return std::nullopt;
  }
  [[nodiscard]] bool members_settled() {
    for (std::int32_t p = 0; p < plan_.partitions; ++p) {
      Node* leader = leader_of(p);
      if (!leader || next_change(p)) return false;
      const raft::Replica& replica = leader->replica(partition(p))->replica();
      if (replica.log().members_pending(replica.commit())) return false;  // it may be rolled back
    }
    return std::ranges::all_of(nodes_, [&](const auto& n) { return n->serving(); });
  }
  void manage_members() {
    if (!healed_ && !faults_.chance(1, 20)) return;
    for (std::int32_t p = 0; p < plan_.partitions; ++p) {
      auto change = next_change(p);
      if (!change) continue;
      Node* leader = leader_of(p);
      struct Ask {
        static Task<void> run(Node* node, TopicId topic, std::int32_t p, raft::MembershipChange change) {
          (void)co_await node->service().change_members(topic, PartitionIndex{p}, change);
        }
      };
      leader->spawn(Ask::run(leader, clients_.topic, p, *change));
    }
  }

  // ---- invariants ------------------------------------------------------------------------------------------------------

  void look() {
    for (auto& node : nodes_) {
      if (node->up() && !node->machine().disk.violations().empty()) violate(fmt::format("node {}: {}", node->index(), node->machine().disk.violations().front()));
      for (std::int32_t p = 0; p < plan_.partitions && fine(); ++p) {
        service::ReplicatedPartition* replicated = node->replica(partition(p));
        if (replicated) look_at(*node, p, *replicated);
      }
    }
    for (std::int32_t p = 0; p < plan_.partitions && fine(); ++p) {
      for (auto& node : nodes_) {
        if (service::ReplicatedPartition* replicated = node->replica(partition(p))) look_at_quorum(*node, p, replicated->replica());
      }
    }
  }

  void note_durable(Node& node, const PartitionId& of) {
    service::ReplicatedPartition* replicated = node.replica(of);
    if (!replicated || of.topic != clients_.topic) return;
    raft::ReplicaId id = node.id();
    durable_[{of.index.value(), id.node.value(), id.directory}] = replicated->replica().flushed();
  }

  /// What a leader takes for committed is on the disks of a quorum, whatever has died since.
  void look_at_quorum(const Node& node, std::int32_t p, const raft::Replica& leading) {
    if (!leading.serving() || leading.log().members_pending(leading.commit())) return;
    std::size_t voters = 0, have = 0;
    for (const raft::Member& member : leading.members().members()) {
      if (!member.voter) continue;
      ++voters;
      auto known = durable_.find({p, member.id.node.value(), member.id.directory});
      if (known != durable_.end() && known->second >= leading.commit()) ++have;
    }
    if (2 * have <= voters) {
      violate(fmt::format("node {} leads term {} and {} of partition {} is committed, but on the disks of {} of {} voters", node.index(), leading.term().value(),
                          text(leading.commit()), p, have, voters));
    }
    ++out_.coverage.quorums;
  }

  void look_at(Node& node, std::int32_t p, const service::ReplicatedPartition& replicated) {
    const raft::Replica& replica = replicated.replica();
    replica.check_invariants();
    if (replica.halted()) violate(fmt::format("node {}: the replica of partition {} has halted", node.index(), p));
    note_durable(node, partition(p));
    Seen& seen = seen_[{node.index(), node.life(), p}];
    const log::Partition& log = *replicated.log();
    if (log.high_watermark() < seen.high_watermark) violate(fmt::format("node {}: the high watermark of partition {} goes back", node.index(), p));
    if (log.log_start() < seen.log_start) violate(fmt::format("node {}: the log start of partition {} goes back", node.index(), p));
    seen = {log.high_watermark(), log.log_start()};
    // A lone voter leads before its vote is durable, and may do so in the same term again after a crash: nobody heard of it.
    if (replica.role() != raft::Role::leader || replicated.alone()) return;
    std::pair who{node.index(), node.life()};
    auto [known, fresh] = leaders_.emplace(std::pair{p, replica.term()}, who);
    if (fresh) ++out_.coverage.elections;
    if (!fresh && known->second != who) violate(fmt::format("two leaders of partition {} in term {}: node {} in life {} and node {} in life {}", p, replica.term().value(), known->second.first, known->second.second, who.first, who.second));
  }

  void count_lost_life(Node& node) {
    if (!node.serving()) return;
    for (std::uint32_t s = 0; s < node.service().core().node.cores.size(); ++s) {
      const service::ReplicationCounters& counters = node.service(s).core().replication->counters;
      out_.coverage.truncations += counters.truncations;
      out_.coverage.snapshots += counters.snapshots_installed;
    }
  }

  // ---- the end ---------------------------------------------------------------------------------------------------------

  void heal() {
    healed_ = true;
    network_.heal();
    network_.set_options({.delay_max = 5ms});
    for (auto& node : nodes_) {
      node->paused = false;
      if (!node->up()) continue;
      ease(*node);
      node->machine().disk.clear_faults();
    }
  }

  static std::string text(LogPosition at) { return fmt::format("{}.{}", at.offset.value(), at.sub); }
  std::string state_of(Node* leader, Node* node, std::int32_t p) {
    const raft::Replica& leading = leader->replica(partition(p))->replica();
    std::string out = fmt::format("node {} leads term {}, log {} to {}, commit {}", leader->index(), leading.term().value(), text(leading.log().start()),
                                  text(leading.log().end()), text(leading.commit()));
    for (const raft::Progress& member : leading.progress()) {
      out += fmt::format("; to node {}{}: state {}, match {}, next {}, boundary {}, paused {}, reading {}", member.id.node.value() - 1, is_current(member.id) ? "" : " (gone)",
                         static_cast<int>(member.state), text(member.match), text(member.next), member.boundary, member.paused, member.reading);
    }
    if (service::ReplicatedPartition* other = node ? node->replica(partition(p)) : nullptr) {
      const raft::Replica& replica = other->replica();
      out += fmt::format("; node {}: term {}, {}, log {} to {}, commit {}, flushed {}, suspicion {}{}{}", node->index(), replica.term().value(), raft::name_of(replica.role()),
                         text(replica.log().start()), text(replica.log().end()), text(replica.commit()), text(replica.flushed()),
                         static_cast<int>(replica.hard_state().suspicion), other->failed() ? ", failed" : "", other->busy() ? ", busy" : "");
    }
    return out;
  }
  [[nodiscard]] std::string unsettled() {
    for (auto& node : nodes_) {
      if (!node->serving() || !joined_.contains(node->index())) return fmt::format("node {} does not serve", node->index());
    }
    for (std::int32_t p = 0; p < plan_.partitions; ++p) {
      Node* leader = leader_of(p);
      if (!leader) {
        std::string out = fmt::format("nobody leads partition {}", p);
        for (auto& node : nodes_) {
          service::ReplicatedPartition* other = node->replica(partition(p));
          if (!other) continue;
          const raft::Replica& replica = other->replica();
          out += fmt::format("; node {}: term {}, {}, log {} to {}, commit {}, flushed {}, suspicion {}{}{}", node->index(), replica.term().value(), raft::name_of(replica.role()),
                             text(replica.log().start()), text(replica.log().end()), text(replica.commit()), text(replica.flushed()),
                             static_cast<int>(replica.hard_state().suspicion), other->failed() ? ", failed" : "", other->busy() ? ", busy" : "");
          for (const raft::Member& member : replica.members().members()) out += fmt::format(" {}{}{}", member.id.node.value() - 1, member.voter ? "" : "?", is_current(member.id) ? "" : "x");
          out += fmt::format(" last term {}", replica.log().last_term().value());
        }
        return out;
      }
      if (auto change = next_change(p)) {
        return fmt::format("the members of partition {} are not those that are there (change {} of node {}): {}", p, static_cast<int>(change->kind), change->id.node.value() - 1,
                           state_of(leader, serving(change->id.node.value() - 1), p));
      }
      const raft::Replica& leading = leader->replica(partition(p))->replica();
      if (leading.commit() != leading.log().end()) return fmt::format("partition {} is not committed to its end", p);
      for (auto& node : nodes_) {
        service::ReplicatedPartition* replica = node->replica(partition(p));
        bool caught_up = replica && replica->replica().commit() == leading.commit() && replica->replica().flushed() == leading.commit();
        if (!caught_up) return fmt::format("node {} does not catch up with partition {}: {}", node->index(), p, state_of(leader, node.get(), p));
      }
    }
    for (auto& producer : producers_) {
      if (!producer->idle()) return "a producer is not answered";
    }
    return {};
  }

  void settle() {
    Instant end = now_ + kSettleMax;
    std::string why = "it was not looked";
    while (fine() && now_ < end && !(why = unsettled()).empty()) step(false);
    if (fine() && !why.empty()) violate("all is healed, and " + why);
  }

  void drain() {
    for (auto& reader : readers_) reader->begin_final();
    Instant end = now_ + kSettleMax;
    auto done = [&] {
      for (std::int32_t p = 0; p < plan_.partitions; ++p) {
        Node* leader = leader_of(p);
        if (!leader || !readers_[static_cast<std::size_t>(p)]->at_end(leader->replica(partition(p))->log()->high_watermark())) return false;
      }
      return true;
    };
    while (fine() && !done()) {
      if (now_ >= end) return violate("the final reads do not end");
      step(false);
    }
  }

  /// Batch by batch: base offset and checksum of all its bytes.
  using Batches = std::map<Offset, std::uint32_t>;
  static Task<void> read_all(log::PartitionPtr log, Batches* into, std::string* error) {
    Offset at = std::max(log->log_start(), Offset{0}), end = log->high_watermark();
    while (at < end) {
      auto read = co_await log->read_replica(at, end, 64 * limits::kKiB);
      if (!read || read->batches.empty()) {
        *error = read ? "nothing is read" : read.error().detail;
        co_return;
      }
      Offset base = read->begin;
      for (const log::ReplicaBatch& batch : read->batches) {
        auto header = read_batch_header(batch.bytes.bytes(), batch.bytes.length);
        base = header ? header->base_offset : base;
        (*into)[base] = crc32c(batch.bytes.bytes());
      }
      at = read->end;
    }
  }

  void compare_replicas() {
    for (std::int32_t p = 0; p < plan_.partitions && fine(); ++p) {
      Batches reference;
      int of = -1;
      for (auto& node : nodes_) {
        service::ReplicatedPartition* replicated = node->replica(partition(p));
        if (!replicated) return violate(fmt::format("node {} has no partition {}", node->index(), p));
        Batches mine;
        std::string error;
        bool ended = node->machine().loop.run(read_all(replicated->log(), &mine, &error), 1min);
        if (!ended || !error.empty()) return violate(fmt::format("node {}: partition {} cannot be read: {}", node->index(), p, error));
        if (of < 0) {
          reference = std::move(mine);
          of = node->index();
          continue;
        }
        for (const auto& [offset, crc] : mine) {
          auto known = reference.find(offset);
          bool differs = known != reference.end() ? known->second != crc : !reference.empty() && offset > reference.begin()->first;
          if (differs) return violate(fmt::format("nodes {} and {} differ in partition {} at offset {}", of, node->index(), p, offset.value()));
        }
      }
    }
  }

  void judge() {
    for (auto& producer : producers_) {
      out_.coverage.acknowledged += producer->acknowledged();
      out_.coverage.duplicates += producer->duplicates();
      out_.operations += producer->acknowledged();
    }
    for (auto& reader : readers_) out_.coverage.polls += reader->polls();
    out_.operations += out_.coverage.polls;
    for (auto& surveyor : surveyors_) out_.operations += surveyor->answers();
    if (!fine()) return;
    history::Verdict verdict = history::check(history_);
    if (verdict.fatal() > 0) violate("the history: " + verdict.summary());
  }

  Plan plan_;
  Random topology_, faults_, disks_;
  std::string segment_bytes_ = fmt::format("{}KiB", 4 << topology_.below(5));
  Instant now_{};
  bool healed_ = false;
  std::string violation_{};
  Outcome out_{};
  history::History history_{};
  Network network_;
  ClientContext clients_;
  std::vector<std::unique_ptr<Node>> nodes_{};
  std::vector<raft::ReplicaId> voters_{};  // of the beginning
  std::set<int> joined_{};                 // know the topic
  std::set<int> hosting_{};                // are being told of it
  std::map<int, bool> image_of_{};
  std::array<unsigned, static_cast<std::size_t>(FaultClass::count_)> rates_{};
  std::vector<std::unique_ptr<Producer>> producers_{};
  std::vector<std::unique_ptr<Reader>> readers_{};
  std::vector<std::unique_ptr<Surveyor>> surveyors_{};
  struct Seen {
    Offset high_watermark{}, log_start{};
  };
  std::map<std::tuple<int, std::uint64_t, std::int32_t>, Seen> seen_{};
  std::map<std::tuple<std::int32_t, std::int32_t, raft::DirectoryId>, LogPosition> durable_{};  // when it was last seen, also of the dead
  std::map<std::pair<std::int32_t, LeaderEpoch>, std::pair<int, std::uint64_t>> leaders_{};
};

}  // namespace

std::string_view name_of(FaultClass fault) {
  constexpr std::array<std::string_view, static_cast<std::size_t>(FaultClass::count_)> kNames{
      "kill", "power_cut", "stop", "pause", "isolate", "cut_link", "lossy_links", "slow_disk", "failed_write", "disk_full", "wall_jump", "transfer", "log_start", "replace", "stalled_disk", "drift"};
  return kNames[static_cast<std::size_t>(fault)];
}

Coverage& Coverage::operator+=(const Coverage& other) {
  acknowledged += other.acknowledged;
  restarts += other.restarts;
  elections += other.elections;
  truncations += other.truncations;
  snapshots += other.snapshots;
  replaced += other.replaced;
  log_starts += other.log_starts;
  transfers += other.transfers;
  disk_failures += other.disk_failures;
  duplicates += other.duplicates;
  polls += other.polls;
  quorums += other.quorums;
  return *this;
}

Plan plan_of(std::uint64_t seed) {
  Random draw = stream(seed, 0);
  Plan plan{.seed = seed};
  constexpr std::array kNodes{3, 3, 3, 3, 1, 5};
  plan.nodes = kNodes[draw.below(kNodes.size())];
  plan.partitions = static_cast<std::int32_t>(1 + draw.below(3));
  plan.producers = static_cast<int>(1 + draw.below(4));
  plan.ticks = static_cast<int>(800 + draw.below(2'400));
  return plan;
}

Outcome run(const Plan& plan) { return World{plan}.outcome(); }

}  // namespace tailrace::broker::sim::whole
