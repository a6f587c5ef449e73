#pragma once
/// What the partitions of one shard share.
#include <vector>

#include "log/async_lock.h"
#include "log/cold_reader.h"
#include "log/file_cache.h"
#include "log/wal_writer.h"

namespace tailrace::broker::log {

class PartitionLog;

/// Owns     nothing; the shard log does, and outlives its partitions.
struct ShardContext {
  io::Runtime& runtime;
  const ShardLogOptions& options;
  ShardLogStats& stats;
  WalWriter& wal;
  FileCache& files;
  ColdReader& cold;

  /// Segment writes and syncs at a time; more only queue in the device (storage.md 2.4: few syncs, deep writes).
  AsyncLock writes{runtime.executor, 8};
  AsyncLock syncs{runtime.executor, 4};
  std::vector<Buffer> write_buffers{};  // idle ones, kWriteBytes each
  std::uint64_t index_bytes = 0;        // of sealed segments' indexes in memory
  bool disk_full = false;
  std::uint64_t free_bytes = 0;
  std::uint64_t total_bytes = 0;

  static constexpr std::size_t kWriteBytes = limits::kMiB;

  virtual void want_flush(PartitionLog& partition) = 0;  // enough is pending: write it in the background
  /// False while WAL and memory have room to spare: larger and fewer segment writes later, and the device for the WAL now.
  [[nodiscard]] virtual bool eager() const = 0;
  virtual void hot_grew() = 0;                           // evict if over budget, later in this turn
  virtual void space_ran_out() = 0;
  virtual void directory_failed(Error error) = 0;        // a second failure of a segment
  [[nodiscard]] virtual bool failed() const = 0;
  [[nodiscard]] virtual Error failure() const = 0;
  [[nodiscard]] virtual std::size_t partition_count() const = 0;

  Buffer take_buffer() {
    if (write_buffers.empty()) return Buffer::allocate(kWriteBytes, io::kDirectAlignment);
    Buffer b = std::move(write_buffers.back());
    write_buffers.pop_back();
    return b;
  }
  void give_buffer(Buffer buffer) {
    if (write_buffers.size() < 8) write_buffers.push_back(std::move(buffer));
  }

 protected:
  ShardContext(io::Runtime& runtime_in, const ShardLogOptions& options_in, ShardLogStats& stats_in, WalWriter& wal_in,
               FileCache& files_in, ColdReader& cold_in)
      : runtime{runtime_in}, options{options_in}, stats{stats_in}, wal{wal_in}, files{files_in}, cold{cold_in} {}
  ~ShardContext() = default;
};

}  // namespace tailrace::broker::log
