#pragma once
/// What brokers say to each other about partitions, as values, and the seam through which it leaves and arrives. The network (sockets,
/// or the simulator's) stands behind `Peers`; a broker alone has none.
///
/// Trust    whatever arrives is checked before a replica or a log sees it; a message may be lost, delayed, doubled and overtaken.
/// Bounds   heartbeats of kGroupsPerMessage partitions; an Append carries at most raft::ReplicaOptions::run_bytes_max of batches, or one larger batch.
/// Spec     docs/replication.md, "Messages".
#include <cstddef>
#include <cstdint>
#include <variant>
#include <vector>

#include "base/buffer.h"
#include "base/time.h"
#include "model/ids.h"
#include "raft/messages.h"

namespace tailrace::broker::service {

/// One batch as it lies in the sender's log: offset and leader epoch are set. The append time travels along, since retention and
/// derived state go by the leader's.
struct CarriedBatch {
  Slice bytes{};
  WallTime append_time{};
};

inline constexpr std::size_t kGroupsPerMessage = 4'096;

/// Heartbeats are coalesced (R10): one message for each pair of a shard and a directory elsewhere, whatever leads there.
struct GroupFact {
  PartitionId partition{};
  raft::HeartbeatFact fact{};
};
struct GroupReply {
  PartitionId partition{};
  raft::HeartbeatReply reply{};
};

struct PeerMessage {
  PartitionId partition{};        // of a Message; heartbeats name their own
  raft::ReplicaId from{};
  raft::ReplicaId to{};
  std::uint64_t incarnation = 0;  // of the sender's directory
  std::variant<raft::Message, std::vector<GroupFact>, std::vector<GroupReply>> body{};
  std::vector<CarriedBatch> batches{};     // of an Append
  std::vector<std::byte> producers{};      // of a Snapshot: the derived state at its place
};

/// Thread   the shard that sends. Never blocks, never calls back from within send().
class Peers {
 public:
  virtual ~Peers() = default;
  /// Best effort: what cannot be sent now is dropped. Goes to the shard of `message.to.node` that owns the partition there; heartbeats to all
  /// of its shards, each of which takes what it owns.
  virtual void send(PeerMessage message) = 0;
};

}  // namespace tailrace::broker::service
