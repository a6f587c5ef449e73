#pragma once
/// All partitions of one shard over one write-ahead log.
/// Spec     docs/storage-format.md.
#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "io/runtime.h"
#include "log/partition.h"

namespace tailrace::broker::log {

struct ShardLogOptions {
  std::string data_directory{};
  ShardIndex shard{};
  std::string directory_id{};                            // NodeIdentity's; a WAL of another directory is refused
  std::uint64_t wal_file_bytes = 64 * limits::kMiB;      // kWalFileBytesMin..Max, a multiple of 4 KiB
  int wal_files = 4;                                     // kWalFilesMin..Max
  std::uint64_t hot_tail_bytes = 256 * limits::kMiB;     // received batches kept for readers; unsynced ones always are
  std::uint64_t read_pool_bytes = 64 * limits::kMiB;     // cold reads in flight
  std::uint64_t pending_bytes_max = 64 * limits::kMiB;   // appended, not yet submitted to the WAL: then no_credit
  std::size_t open_files_max = 4'096;                    // segment descriptors of this shard
  bool wal_mark_when_idle = true;                        // off only in benches that count writes
};

struct RecoveryReport {
  bool performed = false;               // false: nothing had been written before
  std::uint64_t wal_files = 0;
  std::uint64_t frames = 0;             // valid ones read
  std::uint64_t frames_applied = 0;     // past some partition's applied_through
  std::uint64_t bytes = 0;
  std::uint64_t torn = 0;               // tails cut; "may have been acknowledged" only within the last milliseconds
  std::uint64_t cut_frames = 0;         // valid frames behind the cut: never acknowledged
  std::uint64_t corrupt = 0;            // bad places that something proves to have been durable
  std::uint64_t padding_repaired = 0;   // damage in bytes that hold nothing
  std::uint64_t damaged_partitions = 0;
  double seconds = 0;
};

/// Powers of two of microseconds: bucket i counts values in [2^i, 2^(i+1)).
struct LatencyHistogram {
  std::array<std::uint64_t, 32> buckets{};
  std::uint64_t count = 0;
  std::uint64_t sum_us = 0;
  void record(Duration d);
};

/// Monotone counters unless a comment says otherwise. For metrics, tests and benches.
struct ShardLogStats {
  std::uint64_t appends = 0;
  std::uint64_t append_bytes = 0;         // batches as stored
  std::uint64_t commits = 0;              // WAL writes completed
  std::uint64_t commit_bytes = 0;         // padding included
  std::uint64_t commit_padding_bytes = 0;
  std::uint64_t frames = 0;
  std::uint64_t marks = 0;
  std::uint64_t commits_in_flight = 0;    // now
  std::uint64_t pending_bytes = 0;        // now: appended, not submitted
  std::uint64_t wal_rotations = 0;
  std::uint64_t wal_recycles = 0;
  std::uint64_t wal_stalls = 0;           // a commit waited for a free file
  std::uint64_t segment_writes = 0;
  std::uint64_t segment_bytes = 0;
  std::uint64_t segment_syncs = 0;
  std::uint64_t segments_created = 0;
  std::uint64_t segments_removed = 0;
  std::uint64_t segment_retirements = 0;  // rewritten into a new file after a failed write
  std::uint64_t checkpoints = 0;
  std::uint64_t checkpoint_bytes = 0;
  std::uint64_t remainders_copied = 0;
  std::uint64_t remainder_bytes = 0;
  std::uint64_t hot_bytes = 0;            // now
  std::uint64_t hot_reads = 0;
  std::uint64_t cold_reads = 0;           // device reads
  std::uint64_t cold_read_bytes = 0;
  std::uint64_t refused_blocks = 0;       // blocks of segments that the device did not read, each time
  std::uint64_t corrupt_reads = 0;
  std::uint64_t found_damaged = 0;        // partitions whose damage was found when they were opened, not by recovery
  std::uint64_t open_files = 0;           // now
  std::uint64_t free_bytes = 0;           // of the file system, when last looked at
  LatencyHistogram commit_latency{};      // submit to completion of a WAL write
  LatencyHistogram sync_latency{};        // segment fdatasync
};

/// Shard    one; all calls on its thread.
/// Owns     WAL, checkpoint and every partition of the shard. close() before destruction.
class ShardLog {
 public:
  virtual ~ShardLog() = default;

  /// Recovers the WAL; partitions open lazily. `runtime` outlives it.
  /// Errors   newer_format, corrupt (nothing can be said about what was stored), storage_full, io_error, descriptors_exhausted.
  static Task<Result<std::unique_ptr<ShardLog>>> open(io::Runtime& runtime, ShardLogOptions options);

  [[nodiscard]] virtual const RecoveryReport& recovery() const = 0;
  /// How often this shard was started: durable before the first frame of a start, so that replication tells a replica's lives apart.
  [[nodiscard]] virtual std::uint64_t incarnation() const = 0;
  /// `lost`: it was there before, and the shard knows nothing of it any more. It begins damaged, with a hole from its first offset
  /// on, until somebody accepts that; segments that lie in its folder are kept as `.orphan`.
  enum class Begin : std::uint8_t { empty, lost };
  /// Durable when it answers. Errors: exists, storage_full, io_error.
  /// `members` are in force from the beginning; empty: none are said.
  virtual Task<Result<PartitionPtr>> create(PartitionId id, PartitionOptions options, Begin begin = Begin::empty, std::vector<std::byte> members = {}) = 0;
  /// Lazy; cached; concurrent calls share one opening. Errors: no_such_partition, corrupt, io_error.
  virtual Task<Result<PartitionPtr>> open_partition(PartitionId id, PartitionOptions options) = 0;
  [[nodiscard]] virtual PartitionPtr find(const PartitionId& id) = 0;  // open ones only; null if not
  [[nodiscard]] virtual std::vector<PartitionId> stored_partitions() const = 0;
  [[nodiscard]] virtual std::size_t partition_count() const = 0;  // of them
  /// Under live readers: they get no_such_partition. Durable when it answers; files go in the background.
  virtual Task<Result<void>> remove(PartitionId id) = 0;
  /// Drains commits, flushes segments, writes the checkpoint: the next recovery has nothing to replay. Also after failed().
  virtual Task<void> close() = 0;
  /// close() follows. From here on nobody waits for space: with a full disk, what cannot be written fails the directory, and whoever waits
  /// for it is told. Nothing is created, opened or removed any more.
  virtual void begin_close() = 0;

  [[nodiscard]] virtual const ShardLogStats& stats() const = 0;
  /// A WAL write failed: nothing is acknowledged any more. Sticky until restart.
  [[nodiscard]] virtual bool failed() const = 0;
  [[nodiscard]] virtual Error failure() const = 0;
  /// For how long the oldest WAL write under way has been: a device that hangs fails nothing.
  [[nodiscard]] virtual Duration oldest_write() const = 0;
  /// Appends answer storage_full; reads and deletes work. Goes back by itself when space returns.
  [[nodiscard]] virtual bool disk_full() const = 0;
  /// failed(), disk_full() or room in the WAL's queue changed.
  [[nodiscard]] virtual Notifier& pressure() = 0;
  /// The largest batch that fits a WAL file of this shard.
  [[nodiscard]] virtual std::size_t batch_bytes_max() const = 0;
};

}  // namespace tailrace::broker::log
