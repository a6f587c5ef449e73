#pragma once
/// One process of the simulated cluster: a whole broker on a disk and a clock of its own, from its start to its death.
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "service/broker_service.h"
#include "service/shard_core.h"
#include "tests/support/sim_disk.h"
#include "tests/support/sim_shards.h"

namespace tailrace::broker::sim::whole {

struct NodeOptions {
  std::uint32_t shards = 1;
  std::uint64_t wal_file_bytes = 256 * limits::kKiB;
  int wal_files = 3;
  std::uint64_t hot_tail_bytes = 256 * limits::kKiB;
  raft::ReplicaOptions replica{};
  Duration heartbeat_interval = std::chrono::milliseconds{50};
};

class Node final : private service::Peers {
 public:
  using Send = std::function<void(int from, const service::PeerMessage&)>;
  Node(int index, NodeOptions options, Send send);
  ~Node();

  /// Begins a life with what the disk holds.
  void boot(DiskImage image, std::uint64_t seed, Instant now);
  /// The power goes: the disk keeps what `plan` says.
  void power_cut(const CrashPlan& plan);
  /// The process dies, the machine does not: what was written is there.
  void kill();
  /// As an operator stops it.
  void stop();
  /// The disk of the last life; the next boot may begin with it, or with an empty one.
  [[nodiscard]] DiskImage take_image() { return std::move(image_); }

  [[nodiscard]] int index() const { return index_; }
  [[nodiscard]] bool up() const { return up_; }
  [[nodiscard]] bool serving() const { return up_ && started_ && !start_error_; }
  [[nodiscard]] const std::optional<Error>& start_error() const { return start_error_; }
  [[nodiscard]] std::uint64_t life() const { return life_; }
  [[nodiscard]] SimMachine& machine() { return *machine_; }
  [[nodiscard]] service::ShardService& service(std::uint32_t shard = 0) { return broker_->shard(ShardIndex{shard}); }
  [[nodiscard]] raft::ReplicaId id();
  void receive(service::PeerMessage message);
  /// Its replica of a partition; null: not open here.
  [[nodiscard]] service::ReplicatedPartition* replica(const PartitionId& partition);
  /// Runs on this node until it ends or the node dies.
  void spawn(Task<void> task) { work_->spawn(std::move(task)); }
  /// Events of all lives so far, in order.
  [[nodiscard]] std::uint64_t hash() const;
  /// What unwinding a dead process could not end; empty: nothing.
  [[nodiscard]] const std::string& stuck() const { return stuck_; }

  /// Its monotonic clock began this life with the world's time, and runs faster by `drift` millionths.
  [[nodiscard]] Instant local_time(Instant world) const;
  /// When its clock will show `local`, at the earliest.
  [[nodiscard]] Instant world_time(Instant local) const;

  bool paused = false;
  std::int64_t drift = 0;

 private:
  void send(service::PeerMessage message) override;
  [[nodiscard]] Task<void> start_task();
  void unwind();

  int index_;
  NodeOptions options_;
  Send send_;
  bool up_ = false;
  bool started_ = false;
  std::optional<Error> start_error_{};
  std::uint64_t life_ = 0;
  Instant born_{};
  std::uint64_t past_ = 0;  // hash of the lives before
  std::string stuck_{};
  std::unique_ptr<SimMachine> machine_{};
  std::unique_ptr<SimShards> shards_{};
  std::unique_ptr<service::BrokerService> broker_{};
  std::unique_ptr<TaskScope> work_{};
  DiskImage image_{};
};

}  // namespace tailrace::broker::sim::whole
