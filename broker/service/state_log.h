#pragma once
/// One partition of an internal topic as the log of a state machine that lives on its shard: group offsets, queue state.
///
///   open() -> replay(visit) -> append(records), append(records) ... -> committed(end) -> the answers that rest on it
///
/// Whoever keeps state here changes it in memory, appends what changed, and answers when that is committed. Where an append or a commit fails,
/// memory is ahead of the log: it is thrown away and built again by replay().
///
/// Shard    the partition's. The object outlives its calls.
/// Order    appends are stored in the order of the calls; the first does its work before it suspends.
/// Length   nothing is deleted by itself. The state machine writes what counts anew and cuts the log before it (cut()).
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "codec/record.h"
#include "service/broker_service.h"

namespace tailrace::broker::service {

struct PartitionSlot;

/// No value: the key counts no more.
struct StateRecord {
  std::vector<std::byte> key{};
  std::optional<std::vector<std::byte>> value{};
};

class StateLog {
 public:
  /// `core` outlives it. `partition` lives on its shard, and is of an internal topic.
  StateLog(ShardCore& core, PartitionId partition) : core_{core}, id_{partition} {}

  /// Errors: no_such_topic, shutting_down, not_leader, corrupt, io_error.
  [[nodiscard]] Task<Answer<void>> open();
  /// Every committed record from the log start on. An error of `visit` ends it and is answered. Of a partition that others vote on too it is known by
  /// then that all that was committed before is in it. Errors: not_leader, corrupt, and open()'s.
  using Visit = std::function<Result<void>(const codec::RecordView&)>;
  [[nodiscard]] Task<Answer<void>> replay(const Visit& visit);
  /// One batch. Answers where it ends. Errors: too_large, storage_full, no_credit, not_leader (also: it was lost and won again since replay()),
  /// io_error, shutting_down. Nothing was appended then.
  [[nodiscard]] Task<Answer<Offset>> append(std::vector<StateRecord> records);
  /// Errors: outcome_unknown.
  [[nodiscard]] Task<Answer<void>> committed(Offset end);
  /// Deletes what is below `before`; all of it was written anew, and that is committed.
  [[nodiscard]] Task<Answer<void>> cut(Offset before);

  [[nodiscard]] Offset end() const;

 private:
  [[nodiscard]] Answer<void> usable() const;

  ShardCore& core_;
  PartitionId id_;
  std::shared_ptr<PartitionSlot> slot_{};
  std::optional<LeaderEpoch> term_{};  // of replay()
};

}  // namespace tailrace::broker::service
