#pragma once
/// The index of streams in RocksDB: one database a shard, for all its partitions of streams. Never the truth: it is filled from committed
/// batches, without a write-ahead log of its own, and what a crash leaves is a prefix of what was written.
/// Spec     docs/event-store.md, "The index" (keys and values).
/// Thread   the shard's; every call into the library runs through `calls`.
/// Bounds   block cache, memtables and open files as StoreOptions says; RocksDB's own threads: two for all stores of the process.
/// Errors   io_error; corrupt: the caller clears the index of the partition and fills it again.
#include <memory>
#include <string>

#include "io/blocking.h"
#include "stream/index.h"

namespace tailrace::broker::stream {

struct StoreOptions {
  std::string path{};                       // a folder of its own; made when it is not there
  std::size_t cache_bytes = 32 << 20;       // blocks, their indexes and filters
  std::size_t memtable_bytes = 16 << 20;    // written and not yet in a file; beyond it the oldest is flushed
  int open_files_max = 128;
};

class RocksStore {
 public:
  /// What cannot be opened is deleted and begun anew, which the log says: `begun_anew` tells.
  static Task<Result<std::unique_ptr<RocksStore>>> open(StoreOptions options, io::BlockingCalls& calls);
  ~RocksStore();
  /// Writes what is in memory to files, so that the next start has less to fill. No index of it is used any more.
  Task<Result<void>> close();
  [[nodiscard]] bool begun_anew() const { return begun_anew_; }
  /// Of one partition. Not longer than the store.
  [[nodiscard]] std::unique_ptr<StreamIndex> index(const PartitionId& partition);
  /// Files and memory, as the library counts them.
  struct Size {
    std::uint64_t file_bytes = 0;
    std::uint64_t memory_bytes = 0;
  };
  Task<Result<Size>> size();

 private:
  struct Database;
  class Index;
  RocksStore(std::unique_ptr<Database> database, io::BlockingCalls& calls, bool begun_anew);
  std::unique_ptr<Database> database_;
  io::BlockingCalls& calls_;
  bool begun_anew_;
};

}  // namespace tailrace::broker::stream
