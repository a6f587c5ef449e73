#include "tests/sim/whole/node.h"

#include <fmt/format.h>

#include <utility>

namespace tailrace::broker::sim::whole {

using namespace std::chrono_literals;

namespace {
constexpr Duration::rep kMillion = 1'000'000;
}

Node::Node(int index, NodeOptions options, Send send) : index_{index}, options_{options}, send_{std::move(send)} { image_.directories.insert("/data"); }

Node::~Node() {
  if (up_) kill();
}

void Node::boot(DiskImage image, std::uint64_t seed, Instant now) {
  machine_ = std::make_unique<SimMachine>(seed, std::move(image));
  machine_->loop.move_to(now);
  shards_ = std::make_unique<SimShards>(machine_->loop, options_.shards);
  work_ = std::make_unique<TaskScope>();
  service::BrokerOptions options;
  options.data_directory = "/data";
  options.node = NodeId{index_ + 1};
  options.log.wal_file_bytes = options_.wal_file_bytes;
  options.log.wal_files = options_.wal_files;
  options.log.hot_tail_bytes = options_.hot_tail_bytes;
  options.memory_bytes = 8 * limits::kMiB;
  options.replication = {.peers = this, .replica = options_.replica, .heartbeat_interval = options_.heartbeat_interval,
                         .tick_interval = options_.heartbeat_interval / 4};
  broker_ = std::make_unique<service::BrokerService>(options, std::vector<io::Runtime*>(options_.shards, &machine_->runtime), shards_->shards());
  ++life_;
  born_ = now;
  up_ = true;
  started_ = false;
  paused = false;
  start_error_.reset();
  work_->spawn(start_task());
}

Instant Node::local_time(Instant world) const {
  Duration::rep passed = (world - born_).count();
  return born_ + Duration{passed + passed / kMillion * drift + passed % kMillion * drift / kMillion};
}

Instant Node::world_time(Instant local) const {
  if (local == Instant::max()) return local;
  Duration::rep passed = (local - born_).count(), rate = kMillion + drift;
  Instant world = born_ + Duration{passed / rate * kMillion + passed % rate * kMillion / rate};
  while (local_time(world) < local) world += Duration{1};
  return world;
}

Task<void> Node::start_task() {
  auto report = co_await broker_->start();
  if (!report) start_error_ = std::move(report).error();
  started_ = true;
}

void Node::power_cut(const CrashPlan& plan) {
  image_ = machine_->disk.crash(plan);
  unwind();
}

void Node::kill() {
  image_ = machine_->disk.kill();
  unwind();
}

void Node::stop() {
  bool ended = !serving() || machine_->loop.run(broker_->stop(machine_->loop.now() + 10s)).has_value();
  if (!ended) stuck_ = fmt::format("node {}: a stop does not end", index_);
  image_ = machine_->disk.kill();
  unwind();
}

/// Nobody hears it any more; its coroutines end, so that its memory can go.
void Node::unwind() {
  up_ = false;
  SimLoop& loop = machine_->loop;
  bool ended = loop.run_until([&] { return started_; }, 30min);
  if (ended && broker_->state() == service::BrokerState::serving) ended = loop.run(broker_->stop(loop.now() + 10s)).has_value();
  // An operator's stop() that did not end while the machine was well has to end now.
  ended = ended && loop.run_until([&] { return work_->running() == 0 && broker_->state() != service::BrokerState::stopping; }, 30min);
  past_ = hash();
  if (!ended) {
    stuck_ = fmt::format("node {}: a dead process does not end", index_);
    keep_forever(broker_.release());
    keep_forever(work_.release());
    keep_forever(shards_.release());
    keep_forever(machine_.release());
    return;
  }
  broker_.reset();
  work_.reset();
  shards_.reset();
  machine_.reset();
}

std::uint64_t Node::hash() const { return machine_ ? past_ * 31 + machine_->loop.hash() : past_; }

raft::ReplicaId Node::id() { return service().core().replication->self(); }

void Node::send(service::PeerMessage message) {
  if (up_) send_(index_, message);
}

void Node::receive(service::PeerMessage message) {
  if (!serving()) return;
  if (!std::holds_alternative<raft::Message>(message.body)) {
    for (std::uint32_t shard = 0; shard < options_.shards; ++shard) service(shard).receive(message);
    return;
  }
  service::ShardService& home = service(service().home(message.partition).value());
  home.receive(std::move(message));
}

service::ReplicatedPartition* Node::replica(const PartitionId& partition) {
  if (!serving()) return nullptr;
  auto& slots = service(service().home(partition).value()).core().slots;
  auto found = slots.find(partition);
  return found == slots.end() ? nullptr : found->second->replicated.get();
}

}  // namespace tailrace::broker::sim::whole
