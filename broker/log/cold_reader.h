#pragma once
/// Reads of segments that left the hot tail: direct reads of aligned chunks, kept for consumers close together, read ahead
/// for sequential ones. The pool is its own: a scan cannot evict the hot tail.
#include <cstdint>
#include <list>
#include <memory>
#include <unordered_map>

#include "base/buffer.h"
#include "base/notifier.h"
#include "io/runtime.h"
#include "log/file_cache.h"
#include "log/shard_log.h"

namespace tailrace::broker::log {

class ColdReader {
 public:
  static constexpr std::uint32_t kChunkBytes = 256 * limits::kKiB;  // 128 KiB-1 MiB are within 5 % of each other (storage.md)
  static constexpr std::size_t kReadAhead = 8;                      // chunks in flight for one sequential consumer

  ColdReader(io::Runtime& runtime, FileCache& files, std::uint64_t pool_bytes, ShardLogStats& stats)
      : runtime_{runtime}, files_{files}, pool_bytes_{pool_bytes}, stats_{stats} {}

  struct Source {
    FileCache::Key key{};
    std::string path{};
    std::uint32_t end = 0;  // bytes of the segment that may be read now
  };
  /// `length` contiguous bytes from `position`, in a pooled chunk or, across chunks, in a buffer of their own; fewer at the
  /// end. `sequential`: read ahead. Errors: not_found, io_error.
  Task<Result<Slice>> read(Source source, std::uint32_t position, std::uint32_t length, bool sequential);
  /// The rest of the chunk that holds `position`: what can be had without a copy.
  Task<Result<Slice>> chunk_rest(Source source, std::uint32_t position, bool sequential);
  /// Forgets what it holds of a segment (cut, replaced or removed), or of all of a partition's.
  void forget(FileCache::Key key);
  void forget_partition(std::uint32_t partition);
  /// Waits for reads in flight.
  Task<void> drain();

 private:
  struct ChunkKey {
    FileCache::Key file{};
    std::uint32_t index = 0;
    friend bool operator==(const ChunkKey&, const ChunkKey&) = default;
  };
  struct Hash {
    std::size_t operator()(const ChunkKey& k) const noexcept {
      std::uint64_t h = static_cast<std::uint64_t>(k.file.base.value()) * 0x9e3779b97f4a7c15ULL;
      return (h ^ k.file.partition) * 0x9e3779b97f4a7c15ULL + k.index;
    }
  };
  struct Chunk {
    explicit Chunk(Executor& executor) : loaded{executor} {}
    Buffer bytes{};
    std::uint32_t valid = 0;
    bool loading = true;
    std::optional<Error> error{};
    Notifier loaded;
  };
  using ChunkPtr = std::shared_ptr<Chunk>;
  struct Item {
    ChunkKey key{};
    ChunkPtr chunk{};
  };

  Task<Result<ChunkPtr>> chunk(const Source& source, std::uint32_t index);
  ChunkPtr find(const ChunkKey& key);
  ChunkPtr insert(const ChunkKey& key);
  Task<void> load(Source source, std::uint32_t index, ChunkPtr chunk);
  void read_ahead(const Source& source, std::uint32_t index);
  void evict();

  io::Runtime& runtime_;
  FileCache& files_;
  std::uint64_t pool_bytes_;
  ShardLogStats& stats_;
  std::list<Item> items_{};  // most recently used first
  std::unordered_map<ChunkKey, std::list<Item>::iterator, Hash> by_key_{};
  TaskScope loads_{};
};

}  // namespace tailrace::broker::log
