#pragma once
/// The compressed form of a batch's records: the LZ4 frame format and the Zstandard frame format, one frame each, as Kafka
/// writes them. Inflating is bounded by what may come out, never by what a frame declares.
///
/// Refused beyond what the formats refuse: anything but exactly one frame (no skippable or second frames, no bytes behind
/// it), dictionaries, zstd windows above kWindowLogMax, and LZ4 frames with linked blocks (Kafka's Java client cannot read
/// those, so one stored batch would stop its consumers).
/// Spec     LZ4 frame format 1.6.x; RFC 8878; KIP-57 (LZ4 framing), KIP-110 (zstd).
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/buffer.h"
#include "base/bytes.h"
#include "base/result.h"
#include "model/record_batch.h"

namespace tailrace::broker::codec {

inline constexpr int kZstdLevelDefault = 3;    // zstd's own default
inline constexpr int kWindowLogMax = 23;       // 8 MiB, the most RFC 8878 asks every decoder to support

/// What `compressed_bytes` of input may become, at most `bytes_max`: a bomb must be paid for with bytes sent. 256 is just
/// above the best LZ4 can do (255); zstd can do more, so a small batch of very regular records has a floor to stand on,
/// and the builder sends what would exceed this uncompressed.
[[nodiscard]] std::size_t inflated_budget(std::size_t compressed_bytes, std::size_t bytes_max);

[[nodiscard]] std::string_view name_of(Compression compression);

/// The most that compress() can write for `bytes` of input.
[[nodiscard]] std::size_t compressed_bound(Compression compression, std::size_t bytes);

/// Writes one frame of `from` to `to` and answers its length. `level` is zstd's or lz4's own scale, 0 for the default.
/// Errors: unsupported_compression, too_large (`to` has not the room).
[[nodiscard]] Result<std::size_t> compress(Compression compression, int level, Bytes from, MutableBytes to);

/// Where inflated bytes go: grows as they come, and is used again for the next batch.
/// Owns     one block, at most the largest `bytes_max` asked for. One thread at a time.
class InflateBuffer {
 public:
  [[nodiscard]] Bytes bytes() const { return used_ ? Bytes{block_.data(), used_} : Bytes{}; }
  /// Gives the block away (its capacity may exceed bytes()) and starts anew.
  [[nodiscard]] Slice take();
  /// Frees the block if it is larger than `keep`: one large batch must not hold memory for ever.
  void shrink(std::size_t keep);

  // For the decoders: room behind the used bytes, grown to hold more up to `bytes_max`; empty when that is reached.
  void clear() { used_ = 0; }
  [[nodiscard]] MutableBytes room(std::size_t bytes_max);
  void produced(std::size_t bytes) { used_ += bytes; }

 private:
  Buffer block_{};
  std::size_t used_ = 0;
};

/// Inflates the one frame that `from` is into `to` (cleared first).
/// Errors   unsupported_compression: gzip, snappy, unknown. invalid_record: not one whole well-formed frame, a dictionary,
///          a window too large, linked LZ4 blocks. too_large: more than inflated_budget(from.size(), bytes_max) came out.
/// Thread   keeps its decoders' working memory per thread (zstd: at most 8 MiB and a block).
[[nodiscard]] Result<void> inflate(Compression compression, Bytes from, std::size_t bytes_max, InflateBuffer& to);

}  // namespace tailrace::broker::codec
