#pragma once
/// One partition's log, as `service` sees it: append, wait until it is durable, read, cut the front, cut the back.
/// Spec     docs/storage-format.md; design.md sections 5 and 6 for the rules.
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "base/notifier.h"
#include "base/result.h"
#include "base/task.h"
#include "base/time.h"
#include "log/producer_state.h"
#include "log/replicated.h"
#include "model/ids.h"
#include "model/limits.h"
#include "model/record_batch.h"

namespace tailrace::broker::log {

struct PartitionOptions {
  std::uint64_t segment_bytes_max = limits::kSegmentBytesDefault;
  std::optional<std::chrono::milliseconds> retention_time{};  // by leader append time; none: unlimited
  std::optional<std::uint64_t> retention_bytes{};             // none: unlimited
};

struct Appended {
  Offset base_offset{};
  Offset next_offset{};
};

struct ReadLimits {
  std::size_t bytes_max = limits::kMiB;  // the first batch is given whatever its size
  std::size_t batches_max = 1'024;
};

struct ReadResult {
  std::vector<Slice> batches{};  // whole batches, in order; the first may begin below the offset asked for
  Offset next{};                 // where the next read goes on
  Offset high_watermark{};
  Offset log_start{};
};

struct OffsetAtTime {
  Offset offset{};            // base offset of the first batch that holds a record at or after the time asked for
  std::int64_t time_ms = 0;   // that batch's max timestamp
};

struct RetentionOutcome {
  Offset log_start{};
  std::uint64_t segments_removed = 0;  // by going there
  std::uint64_t bytes_removed = 0;
};

struct PartitionStats {
  std::uint64_t bytes = 0;     // of batches between the first segment's start and the end
  std::uint64_t segments = 0;
  std::optional<WallTime> first_append{};  // leader append time of the oldest segment's newest record, where known
  std::optional<WallTime> last_append{};
  std::uint64_t hot_bytes = 0;             // readable without a disk
  std::size_t producers = 0;
  std::string damage{};                    // empty: none known
};

/// Shard    its own; all calls on that shard's thread. Slices that read() gave may be released on any thread.
/// Lifetime shared with the shard log; after ShardLog::remove() or close() every call answers closed or no_such_partition.
class Partition {
 public:
  virtual ~Partition() = default;
  [[nodiscard]] virtual PartitionId id() const = 0;

  /// Whether a batch of so many bytes would be taken now; 0: an entry of length zero. The errors of append().
  [[nodiscard]] virtual Result<void> writable(std::size_t bytes) const = 0;
  /// Errors: closed, no_such_partition, and what failed the directory.
  [[nodiscard]] virtual Result<void> usable() const = 0;
  /// Assigns base offset and leader epoch in place (both outside the batch's CRC), applies it to the derived state, adds it to
  /// the hot tail and queues its WAL frame, in the term of the newest hard state, whose term start stands in the log. Synchronous. The
  /// slice is exactly one validated batch, and nobody writes to it afterwards.
  /// Errors   storage_full, no_credit (the WAL's queue is full: wait for ShardLog::pressure()), too_large (does not fit a WAL
  ///          file), io_error (directory failed), corrupt (damaged, read-only), closed. Nothing was appended.
  [[nodiscard]] virtual Result<Appended> append(Slice batch, const BatchHeader& header, WallTime leader_append_time) = 0;
  /// The same for a batch of another replica's log: offset and epoch are in it, and continue this log.
  [[nodiscard]] virtual Result<void> append_copy(Slice batch, const BatchHeader& header, WallTime leader_append_time) = 0;
  /// An entry of length zero at the end. Errors: those of append() but storage_full; invalid_argument (it is not the end).
  [[nodiscard]] virtual Result<void> append_mark(const Mark& mark) = 0;
  /// Queues the frame; the listener hears of `generation`, which grows. Errors: io_error, closed.
  [[nodiscard]] virtual Result<void> save_hard_state(const HardState& state, std::uint64_t generation) = 0;
  /// Null before it goes away. One at a time.
  virtual void set_listener(DurabilityListener* listener) = 0;
  [[nodiscard]] virtual ReplicatedState replicated() const = 0;
  /// Everything up to `position` is committed: the high watermark moves, waiters are answered, readers woken. Never back.
  virtual void commit_to(LogPosition position) = 0;
  /// Those who wait for what is not committed are answered not_leader: whether it will be is not known here any more.
  virtual void abandon_waiters() = 0;
  /// A committed log start: records below are deleted for readers from now on. Never goes back. drop_deleted() frees the disk.
  virtual void apply_log_start(Offset start) = 0;
  /// Drops the whole log and begins anew at `start`, with `producers` as they are there. One step: a crash leaves the old log or the new
  /// beginning. Records below `log_start` are deleted; it is not below the beginning.
  /// Errors: invalid_argument (it is), corrupt and newer_format (producers), too_large, io_error, closed. Then nothing has changed, or the
  /// directory has failed.
  virtual Task<Result<void>> install(HistoryStart start, Offset log_start, std::vector<std::byte> producers) = 0;
  /// Removes what lies wholly below the log start, once that is durable here. Errors: io_error, closed.
  virtual Task<Result<void>> drop_deleted() = 0;
  /// Whole batches from the one that holds `from` on, below `until`, committed or not, about `bytes_max` of them, at least one.
  /// Errors: offset_out_of_range (deleted), corrupt, io_error, closed.
  virtual Task<Result<ReplicaRead>> read_replica(Offset from, Offset until, std::size_t bytes_max) = 0;
  /// The first place at or behind `at_least` where the derived state is stored, or the end if all of it is committed.
  /// Errors: not_found (none now; later perhaps), io_error, corrupt.
  virtual Task<Result<StateAt>> stored_state(LogPosition at_least) = 0;
  [[nodiscard]] virtual ProducerVerdict judge(const BatchHeader& header) const = 0;

  // log_start <= high_watermark <= log_end, flushed <= log_end. All are exclusive ends but log_start. What a quorum elsewhere has is
  // committed even while it is not flushed here.
  [[nodiscard]] virtual Offset log_start() const = 0;
  [[nodiscard]] virtual Offset high_watermark() const = 0;
  [[nodiscard]] virtual Offset flushed() const = 0;
  [[nodiscard]] virtual Offset log_end() const = 0;
  [[nodiscard]] virtual LeaderEpoch term() const = 0;  // of the newest hard state
  /// Behind the last entry; entries of length zero raise `sub`.
  [[nodiscard]] virtual LogPosition end_position() const = 0;

  /// High watermark or log start moved, or the partition failed or went away.
  [[nodiscard]] virtual Notifier& advanced() = 0;
  /// Answers when high_watermark >= end. Order of answers = order of offsets. Errors: io_error, closed, no_such_partition; not_leader
  /// (cut from the log, or abandoned).
  virtual Task<Result<void>> committed(Offset end) = 0;

  /// Whole batches below the high watermark. An empty list: nothing new yet.
  /// Errors   offset_out_of_range (below log_start, or above the high watermark), corrupt (the hole), io_error, closed.
  virtual Task<Result<ReadResult>> read(Offset from, ReadLimits limits) = 0;
  /// The offset lies in a hole that no operator accepted: read() answers corrupt, behind the high watermark too. A hole at the
  /// end is no end of the log.
  [[nodiscard]] virtual bool lost(Offset offset) const = 0;
  /// The first batch whose max timestamp is at or after `time_ms`, below the high watermark.
  virtual Task<Result<std::optional<OffsetAtTime>>> find_time(std::int64_t time_ms) = 0;

  /// Replication's: cuts everything at or after `to`, entries of length zero included; a batch around it goes whole. A WAL frame
  /// first; drains segment writes; rolls derived state back. A `to` at or behind the end changes nothing.
  virtual Task<Result<void>> truncate_suffix(LogPosition to) = 0;
  /// Where the log would begin if retention had its way: at a segment's base, never within the active one, never above the high
  /// watermark. Changes nothing.
  virtual Task<Result<RetentionOutcome>> plan_retention(WallTime now) = 0;

  virtual void configure(PartitionOptions options) = 0;
  [[nodiscard]] virtual PartitionStats stats() const = 0;
  /// The operator's command: accept the holes known now. Reads go on behind them, appends are admitted again.
  virtual Task<Result<void>> skip_damage() = 0;
};
using PartitionPtr = std::shared_ptr<Partition>;

}  // namespace tailrace::broker::log
