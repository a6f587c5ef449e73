#pragma once
/// The batches of a segment, one after the other, as they are read from the disk by a running broker.
///
/// A batch's own CRC leaves out its first 17 bytes: base offset, length, leader epoch, magic. They are held against what must
/// stand there: the offset behind the batch before, the epoch history, and (a wrong length) the checksum itself or the
/// segment's end. Nothing is handed out that was not held against both.
#include <optional>
#include <vector>

#include "log/cold_reader.h"
#include "log/term_history.h"
#include "model/record_batch.h"

namespace tailrace::broker::log {

/// Over bytes that are at hand. `terms` outlives it.
class BatchWalk {
 public:
  enum class Checksums : bool {
    each,   // of every batch
    taken,  // the bytes were held against their block's checksum already
  };
  /// [from, to), within `bytes`; the first batch begins at offset `next`.
  BatchWalk(const ColdBytes& bytes, std::uint32_t from, std::uint32_t to, Offset next, const std::vector<TermEntry>& terms, Checksums checksums)
      : bytes_{bytes}, terms_{terms}, at_{from}, end_{to}, next_{next}, checksums_{checksums} {}

  /// Steps to the next batch; none: the bytes end. Errors: corrupt (what stands there is not the batch that belongs there, or
  /// does not add up), unexpected_end (it goes over the end). After an error position() is where it begins.
  Result<std::optional<BatchHeader>> next();
  /// Where the batch stepped to begins; the end, when there was none.
  [[nodiscard]] std::uint32_t position() const { return position_; }
  /// The batch stepped to.
  [[nodiscard]] Slice batch() const { return bytes_.slice(position_, at_ - position_); }
  /// The base offset of what comes next.
  [[nodiscard]] Offset next_offset() const { return next_; }

 private:
  const ColdBytes& bytes_;
  const std::vector<TermEntry>& terms_;
  std::uint32_t at_;
  std::uint32_t end_;
  std::uint32_t position_ = 0;
  Offset next_;
  LeaderEpoch epoch_{-1};
  Checksums checksums_;
};

/// Over a whole segment, reading as it goes. Every batch is checked by itself, so no index is needed. `terms` outlives it.
class SegmentScan {
 public:
  struct Item {
    BatchHeader header{};
    Slice batch{};
  };
  /// [from, source.end); the first batch begins at `next`.
  SegmentScan(ColdReader& cold, ColdReader::Source source, std::uint32_t from, Offset next, const std::vector<TermEntry>& terms)
      : cold_{cold}, terms_{terms}, source_{std::move(source)}, at_{from}, next_{next} {}

  /// None: what is left is less than a batch, or a batch that goes over the end. Errors: corrupt (also at a second look), and
  /// those of ColdReader.
  Task<Result<std::optional<Item>>> next();
  /// Where the next batch begins, and its base offset.
  [[nodiscard]] std::uint32_t position() const { return at_; }
  [[nodiscard]] Offset next_offset() const { return next_; }

 private:
  Task<Result<std::optional<Item>>> look();
  Task<Result<void>> window(std::uint32_t bytes);

  ColdReader& cold_;
  const std::vector<TermEntry>& terms_;
  ColdReader::Source source_;
  std::uint32_t at_;
  Offset next_;
  LeaderEpoch epoch_{-1};
  ColdBytes window_{};
};

}  // namespace tailrace::broker::log
