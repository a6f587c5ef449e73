#pragma once
/// Reads of segments that left the hot tail: direct reads of aligned chunks, kept for consumers close together, and read
/// ahead for sequential ones. The pool is its own: a scan cannot evict the hot tail. Nothing is checked here beyond what the
/// device says; segment_scan.h and PartitionLog do that.
///
/// Read-ahead   who goes on from one chunk into the next gets one chunk ahead, then twice as many, up to kReadAhead. Chunks
///              nobody has asked for yet take at most half the pool.
/// Damage       a read that fails is tried in halves, down to a block. Blocks the device refuses are remembered with their
///              chunk, and asked for again after kQuarantine; all others can be read.
#include <array>
#include <bitset>
#include <cstdint>
#include <list>
#include <memory>
#include <unordered_map>
#include <vector>

#include "base/buffer.h"
#include "base/notifier.h"
#include "io/runtime.h"
#include "log/file_cache.h"
#include "log/shard_log.h"

namespace tailrace::broker::log {

/// [begin, end) of a segment as it lies in chunks. Keeps them alive.
class ColdBytes {
 public:
  explicit ColdBytes(std::uint32_t begin = 0) : begin_{begin}, end_{begin} {}
  [[nodiscard]] std::uint32_t begin() const { return begin_; }
  [[nodiscard]] std::uint32_t end() const { return end_; }
  /// The next bytes. Every part but the first and the last is a whole chunk.
  void add(Slice part) {
    end_ += static_cast<std::uint32_t>(part.length);
    parts_.push_back(std::move(part));
  }
  /// [from, from + length): a part of a chunk, or a copy where it goes over more than one.
  [[nodiscard]] Slice slice(std::uint32_t from, std::uint32_t length) const;
  /// Copies [from, from + into.size()).
  void copy(std::uint32_t from, MutableBytes into) const;
  /// CRC-32C of [from, to), `previous` before it.
  [[nodiscard]] std::uint32_t crc(std::uint32_t from, std::uint32_t to, std::uint32_t previous = 0) const;
  /// The bytes from `from` on that lie together.
  [[nodiscard]] Bytes at(std::uint32_t from) const;

 private:
  struct Place {
    std::size_t part = 0;
    std::uint32_t offset = 0;
  };
  [[nodiscard]] Place place(std::uint32_t at) const;
  std::uint32_t begin_;
  std::uint32_t end_;
  std::vector<Slice> parts_{};
};

class ColdReader {
 public:
  static constexpr std::uint32_t kChunkBytes = 256 * limits::kKiB;  // 128 KiB-1 MiB are within 5 % of each other (storage.md)
  static constexpr std::uint32_t kReadAhead = 4;                    // chunks ahead of one sequential consumer
  static constexpr std::chrono::seconds kQuarantine{10};            // before a block that was refused is asked for again

  ColdReader(io::Runtime& runtime, FileCache& files, std::uint64_t pool_bytes, ShardLogStats& stats)
      : runtime_{runtime}, files_{files}, pool_bytes_{pool_bytes}, stats_{stats} {}

  struct Source {
    FileCache::Key key{};
    std::string path{};
    std::uint32_t end = 0;  // bytes of the segment that may be read now
  };
  struct Loaded {
    ColdBytes bytes{};
    std::optional<Error> error{};  // why they end early: io_error, not_found, descriptors_exhausted; none: the file ends
  };
  /// [from, to), or as much of its front as can be had.
  Task<Loaded> load(Source source, std::uint32_t from, std::uint32_t to);
  /// Forgets what it holds of a segment (cut, replaced or removed), of a range of it, or of all of a partition's.
  void forget(FileCache::Key key);
  void forget(FileCache::Key key, std::uint32_t from, std::uint32_t to);
  void forget_partition(std::uint32_t partition);
  /// Waits for reads in flight.
  Task<void> drain();

 private:
  static constexpr std::size_t kChunkBlocks = kChunkBytes / limits::kWalBlock;
  static constexpr std::size_t kSpareMax = 16;

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
    Chunk(Executor& executor, ChunkKey key_in) : key{key_in}, loaded{executor} {}
    ChunkKey key;
    Buffer bytes{};
    std::uint32_t wanted = 0;           // bytes of the segment it was read for
    std::uint32_t valid = 0;            // bytes the file had of them
    std::bitset<kChunkBlocks> refused{};  // by the device; zeros stand there
    std::optional<Error> error{};       // of the newest refusal, or why nothing was read at all
    Instant loaded_at{};
    bool loading = true;
    bool asked_for = false;             // not only read ahead
    std::uint32_t ahead = 0;            // chunks that were read ahead of it
    std::uint64_t number = 0;           // of loads
    Notifier loaded;
  };
  using ChunkPtr = std::shared_ptr<Chunk>;
  using Items = std::list<ChunkPtr>;

  ChunkPtr get(const Source& source, std::uint32_t index);
  ChunkPtr start(const Source& source, std::uint32_t index, Items& list);
  Task<void> read_chunk(Source source, ChunkPtr chunk);
  Task<void> read_range(io::File& file, Chunk& chunk, std::uint32_t from, std::uint32_t to);
  void read_ahead(const Source& source, const Chunk& from);
  [[nodiscard]] bool usable(const Chunk& chunk, const Source& source) const;
  void make_room();
  void drop(Items::iterator item);
  template <class Match>
  void forget_if(Match match);
  Buffer take_buffer(std::size_t bytes);

  io::Runtime& runtime_;
  FileCache& files_;
  std::uint64_t pool_bytes_;
  ShardLogStats& stats_;
  Items asked_{};  // most recently used first
  Items ahead_{};  // newest first; nobody asked for them yet
  std::unordered_map<ChunkKey, Items::iterator, Hash> by_key_{};
  std::vector<Buffer> spare_{};  // of kChunkBytes
  std::uint64_t loads_started_ = 0;
  TaskScope loads_{};
};

}  // namespace tailrace::broker::log
