#pragma once
/// What a log keeps for the replication that drives it, and what it tells it. The log does not know the protocol: members are bytes
/// to it, a commit is whatever its owner says.
/// Spec     docs/storage-format.md, "WAL frame", "Checkpoint"; docs/replication.md for the meaning.
#include <array>
#include <cstdint>
#include <vector>

#include "base/buffer.h"
#include "base/time.h"
#include "model/ids.h"

namespace tailrace::broker::log {

class Partition;

/// What recovery says of a log's tail (R5); more is worse.
inline constexpr std::uint8_t kWhole = 0;
inline constexpr std::uint8_t kCut = 1;   // a torn tail was cut: nothing proves that it had been durable
inline constexpr std::uint8_t kLost = 2;  // durable entries are gone, with proof

/// Term and vote, and how far this log is trusted. Durable before anybody is told of it.
struct HardState {
  LeaderEpoch term{0};
  NodeId vote_node{-1};  // in `term`; -1: none
  std::array<std::uint8_t, 16> vote_directory{};
  std::uint8_t suspicion = kWhole;
  LeaderEpoch floor_term{0};   // while suspicious
  LogPosition floor{};
  friend bool operator==(const HardState&, const HardState&) = default;
};

enum class MarkKind : std::uint8_t { term_start = 0, members = 1, log_start = 2 };

inline constexpr std::size_t kMembersBytesMax = 256;
/// Marks of memberships and log starts kept for each partition; older committed ones are dropped, which moves the start of the history.
inline constexpr std::size_t kOtherMarksMax = 1'024;

/// An entry of length zero, from `begin` to (offset, sub + 1).
struct Mark {
  LogPosition begin{};
  LeaderEpoch term{};
  MarkKind kind{};
  Offset log_start{};                // of kind log_start
  std::vector<std::byte> members{};  // of kind members; at most kMembersBytesMax
  [[nodiscard]] LogPosition end() const { return {begin.offset, begin.sub + 1}; }
  friend bool operator==(const Mark&, const Mark&) = default;
};

/// Where the history of marks begins: entries before it cannot be told apart any more.
struct HistoryStart {
  LogPosition position{};
  LeaderEpoch term{0};               // of the entry before it
  std::vector<std::byte> members{};  // in force there; empty: none were ever said
  friend bool operator==(const HistoryStart&, const HistoryStart&) = default;
};

struct ReplicatedState {
  HardState hard{};
  HistoryStart start{};
  std::vector<Mark> marks{};  // ascending, in [start, end)
  LogPosition end{};
  LogPosition commit{};       // as far as known; the truth may be further
  Offset log_start{};         // in force
};

/// Shard    the partition's.
class DurabilityListener {
 public:
  /// All up to `end`, and hard states up to `hard_generation`, are durable; `term` is that of the entry before `end`. Once for a
  /// commit of the WAL that holds something of the partition. From the completion handler: must not suspend or destroy the partition.
  virtual void durable(LogPosition end, LeaderEpoch term, std::uint64_t hard_generation) noexcept = 0;

 protected:
  ~DurabilityListener() = default;
};

struct ReplicaBatch {
  Slice bytes{};
  WallTime append_time{};  // the leader's; of a batch that only a segment holds, the last known at or before it
};
struct ReplicaRead {
  std::vector<ReplicaBatch> batches{};  // whole, in order; the first may begin below what was asked for
  Offset begin{};
  Offset end{};
};

/// Derived state at a place where the log can begin anew.
struct StateAt {
  LogPosition position{};
  std::vector<std::byte> producers{};
};

}  // namespace tailrace::broker::log
