#pragma once
/// The replicated partitions of one shard: their clock, their heartbeats, the way in for what other brokers say.
///
/// Thread   its shard's.
/// Owns     nothing of a partition: PartitionSlot does. A partition is listed here from its opening to its close.
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "base/notifier.h"
#include "base/random.h"
#include "base/task.h"
#include "io/runtime.h"
#include "raft/replica.h"
#include "service/peers.h"

namespace tailrace::broker::service {

class ReplicatedPartition;

struct ReplicationOptions {
  Peers* peers = nullptr;                        // null: a broker alone. Outlives the broker
  raft::ReplicaOptions replica{};
  Duration heartbeat_interval = std::chrono::milliseconds{200};
  Duration tick_interval = std::chrono::milliseconds{20};  // how late a timeout may be noticed
};

/// Since the start; monotone.
struct ReplicationCounters {
  std::uint64_t truncations = 0;          // of entries that another leader replaced
  std::uint64_t snapshots_installed = 0;
};

class Replication {
 public:
  Replication(ReplicationOptions options, raft::ReplicaId self, std::uint64_t incarnation, io::Runtime& runtime, TaskScope& background);
  Replication(const Replication&) = delete;
  Replication& operator=(const Replication&) = delete;

  [[nodiscard]] const raft::ReplicaId& self() const { return self_; }
  [[nodiscard]] const ReplicationOptions& options() const { return options_; }
  [[nodiscard]] io::Runtime& runtime() const { return runtime_; }
  [[nodiscard]] TaskScope& background() const { return background_; }
  [[nodiscard]] std::uint64_t incarnation() const { return incarnation_; }

  /// For partitions with other members: they have timeouts and heartbeats.
  void follow_clock(const std::shared_ptr<ReplicatedPartition>& partition);
  /// Sends what it appended once this turn of the loop is over.
  void replicate_soon(const std::shared_ptr<ReplicatedPartition>& partition);
  void send(PeerMessage message);
  /// Heartbeats of another broker's shard, for the partitions that `find` knows here.
  template <class Find>
  void receive_heartbeats(const PeerMessage& message, Find find);

  ReplicationCounters counters{};

  /// Ticks and heartbeats until stop().
  [[nodiscard]] Task<void> clock_task();
  void stop();
  /// Whoever waits for other brokers gives up.
  [[nodiscard]] bool stopping() const { return stopping_; }

  /// The actions of the event at hand; one list for all partitions of the shard, so that its memory is allocated once.
  class Turn {
   public:
    explicit Turn(Replication& shard);
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;
    ~Turn();
    raft::Actions& actions;

   private:
    Replication& shard_;
  };

 private:
  friend class Turn;
  struct Sender : Runnable {
    Replication* shard = nullptr;
  };
  void send_appended();
  void send_heartbeats(Instant now);

  ReplicationOptions options_;
  raft::ReplicaId self_;
  io::Runtime& runtime_;
  TaskScope& background_;
  std::uint64_t incarnation_;
  raft::Actions actions_{};
  bool in_turn_ = false;
  bool stopping_ = false;
  bool send_posted_ = false;
  Sender sender_{};
  Notifier wake_;
  std::vector<std::weak_ptr<ReplicatedPartition>> timed_{};    // in the order of their opening
  std::vector<std::shared_ptr<ReplicatedPartition>> appended_{};
};

template <class Find>
void Replication::receive_heartbeats(const PeerMessage& message, Find find) {
  if (message.to != self_ || message.from == self_) return;
  if (const auto* replies = std::get_if<std::vector<GroupReply>>(&message.body)) {
    for (const GroupReply& reply : *replies) {
      if (auto* partition = find(reply.partition)) partition->answered(message.from, message.incarnation, reply.reply);
    }
  } else if (const auto* facts = std::get_if<std::vector<GroupFact>>(&message.body)) {
    std::vector<GroupReply> replies;
    for (const GroupFact& fact : *facts) {
      auto* partition = find(fact.partition);
      if (!partition) continue;
      if (auto reply = partition->heard(message.from, fact.fact)) replies.push_back({fact.partition, *reply});
    }
    if (replies.empty()) return;
    send({.partition = {}, .from = self_, .to = message.from, .incarnation = incarnation_, .body = std::move(replies)});
  }
}

}  // namespace tailrace::broker::service
