#include "tests/sim/whole/world.h"

#include "tests/sim/whole/cluster.h"

namespace tailrace::broker::sim::whole {
namespace {

constexpr std::int64_t kDriftMax = 50'000;  // millionths: far more than any quartz

Random stream(std::uint64_t seed, std::uint64_t number) {
  Random mixed{seed * 0x9e3779b97f4a7c15ULL + number};
  return mixed.split();
}

}  // namespace

World::World(const Plan& plan)
    : plan_{plan}, topology_{stream(plan.seed, 1)}, faults_{stream(plan.seed, 2)}, disks_{stream(plan.seed, 3)},
      network_{plan.nodes, stream(plan.seed, 4), network_options()},
      clients_{.now = [this] { return now_; }, .serving = [this](int i) { return serving(i); }, .violate = [this](std::string what) { violate(std::move(what)); },
               .rotten = [this](int i) { return rotten_ == i; },
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

Outcome World::outcome() {
  if (set_up()) {
    for (int tick = 0; tick < plan_.ticks && fine(); ++tick) {
      draw_faults();
      step(true);
    }
    heal();
    settle();
    drain();
    compare_replicas();
    if (fine()) check_gone();
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

void World::violate(std::string what) {
  if (violation_.empty()) violation_ = fmt::format("at {} ms: {}", std::chrono::duration_cast<std::chrono::milliseconds>(now_ - Instant{}).count(), what);
}

NetworkOptions World::network_options() {
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

NodeOptions World::node_options() {
  NodeOptions options;
  options.shards = topology_.chance(1, 3) ? 2 : 1;
  options.wal_file_bytes = (std::uint64_t{64} << topology_.below(3)) * limits::kKiB;
  options.wal_files = static_cast<int>(topology_.between(2, 4));
  options.hot_tail_bytes = (std::uint64_t{16} << topology_.below(5)) * limits::kKiB;
  options.replica = {.election_timeout_min = 300ms, .election_timeout_max = 600ms, .report_wait_max = 10s,
                     .run_bytes_max = static_cast<std::uint32_t>(4'000 << topology_.below(4)), .window_bytes = static_cast<std::uint32_t>(16'000 << topology_.below(4))};
  return options;
}

void World::draw_rates() {
  rates_.fill(0);
  if (faults_.chance(1, 4)) return;  // none at all
  constexpr std::array<unsigned, static_cast<std::size_t>(FaultClass::count_)> kRates{4, 4, 2, 4, 4, 6, 0, 3, 2, 2, 3, 5, 6, 1, 3, 0, 2, 8};
  for (std::size_t i = 0; i < rates_.size(); ++i) {
    bool exists = faults_.chance(1, 2);
    if (exists && may(static_cast<FaultClass>(i))) rates_[i] = kRates[i];
  }
}

bool World::draw(FaultClass fault) {
  unsigned rate = rates_[static_cast<std::size_t>(fault)];
  return rate > 0 && faults_.chance(rate, 1'000);
}

bool World::set_up() {
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

void World::boot(int i, DiskImage image) {
  node(i).boot(std::move(image), disks_.next(), now_);
  if (now_ > Instant{}) ++out_.coverage.restarts;
}

void World::host(int i) {
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

void World::post(int from, const service::PeerMessage& message) {
  note_durable(node(from), message.partition);  // a stop flushes and answers in one instant, and nothing looks in between
  int to = message.to.node.value() - 1;
  if (to < 0 || to >= count() || to == from) return;
  network_.send(now_, from, to, message);
}

void World::run_to(Instant until) {
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

void World::step(bool more) {
  for (auto& producer : producers_) producer->tick(more && clients_.random.chance(1, 2));
  for (auto& reader : readers_) reader->tick();
  for (auto& surveyor : surveyors_) surveyor->tick();
  manage_nodes();
  manage_members();
  manage_topics();
  run_to(now_ + kTick);
  look();
}

std::string_view name_of(FaultClass fault) {
  constexpr std::array<std::string_view, static_cast<std::size_t>(FaultClass::count_)> kNames{
      "kill", "power_cut", "stop", "pause", "isolate", "cut_link", "lossy_links", "slow_disk", "failed_write", "disk_full", "wall_jump", "transfer", "log_start", "replace", "stalled_disk", "drift", "rot", "topics"};
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
  rotten += other.rotten;
  rot_found += other.rot_found;
  topics += other.topics;
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
