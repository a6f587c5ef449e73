#pragma once
/// Sparse index of one segment: where batches are, how late their timestamps reach, and what the bytes must add up to.
/// Spec     docs/storage-format.md, "Index file".
///
/// An entry stands for the block of log from its position to the next entry's: 16 KiB or one larger batch. Timestamps may
/// go back, so an entry holds the running maximum through its block, and a look-up by time is a binary search.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "model/ids.h"
#include "model/limits.h"
#include "model/record_batch.h"

namespace tailrace::broker::log {

/// What batches add up to: a running CRC-32C over offset, epoch, length and CRC of each. It tells a segment from another partition's, or
/// from an older copy of itself, in which every batch is as good.
[[nodiscard]] std::uint32_t batch_digest(const BatchHeader& header, std::uint32_t before);

struct IndexEntry {
  std::uint32_t offset_delta = 0;    // from the segment's base
  std::uint32_t position = 0;
  std::uint32_t max_time_delta = 0;  // ms from base_time, running maximum through this block; saturates
  std::uint32_t block_crc = 0;       // CRC-32C of all bytes of the block
  friend bool operator==(const IndexEntry&, const IndexEntry&) = default;
};
static_assert(sizeof(IndexEntry) == 16);

class SegmentIndex {
 public:
  explicit SegmentIndex(Offset base = {}) : base_{base}, next_{base} {}

  /// The next batch of the segment; `bytes` is the whole batch, `position` where the index ended.
  void add(const BatchHeader& header, Bytes bytes, std::int64_t append_ms);

  [[nodiscard]] Offset base() const { return base_; }
  [[nodiscard]] Offset next() const { return next_; }             // exclusive end of what is covered
  [[nodiscard]] std::uint32_t covered() const { return covered_; }  // bytes
  [[nodiscard]] std::uint32_t first_digest() const { return first_digest_; }  // batch_digest() of the first batch; 0: none
  [[nodiscard]] std::uint32_t digest() const { return digest_; }              // of all that are covered
  [[nodiscard]] std::optional<std::int64_t> max_time() const;
  [[nodiscard]] std::int64_t first_append_ms() const { return first_append_ms_; }
  [[nodiscard]] std::int64_t last_append_ms() const { return last_append_ms_; }
  [[nodiscard]] const std::vector<IndexEntry>& entries() const { return entries_; }
  [[nodiscard]] std::size_t memory_bytes() const { return entries_.capacity() * sizeof(IndexEntry); }

  struct Block {
    Offset first{};           // base offset of its first batch
    std::uint32_t begin = 0;  // bytes of the segment
    std::uint32_t end = 0;
    std::uint32_t crc = 0;    // of all of them
  };
  [[nodiscard]] std::size_t blocks() const { return entries_.size(); }
  [[nodiscard]] Block block(std::size_t i) const;
  /// The block that holds `offset`, or the last one before it. The index has blocks.
  [[nodiscard]] std::size_t block_of(Offset offset) const;
  /// The first block whose running maximum reaches `time_ms`; none: no record of the segment does.
  [[nodiscard]] std::optional<std::size_t> block_at_time(std::int64_t time_ms) const;

  /// As stored in .idx. `extra`: a derived-state snapshot at next(), for a segment that is still written to.
  [[nodiscard]] std::vector<std::byte> encode(bool sealed, Bytes extra) const;
  struct Decoded;
  /// Errors: corrupt, newer_format.
  [[nodiscard]] static Result<Decoded> decode(Bytes bytes);

 private:
  Offset base_;
  Offset next_;
  std::uint32_t covered_ = 0;
  std::uint32_t first_digest_ = 0;
  std::uint32_t digest_ = 0;
  std::int64_t base_time_ = 0;
  std::int64_t max_time_ = -1;   // -1: none
  std::int64_t first_append_ms_ = -1;
  std::int64_t last_append_ms_ = -1;
  std::vector<IndexEntry> entries_{};
};

struct SegmentIndex::Decoded {
  SegmentIndex index{};
  bool sealed = false;
  std::vector<std::byte> extra{};
};

inline constexpr std::size_t kIndexHeaderBytes = 80;
inline constexpr std::size_t kIndexFileBytesMax = std::size_t{64} << 20;

}  // namespace tailrace::broker::log
