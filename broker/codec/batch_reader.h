#pragma once
/// Reads the records of one stored or received batch.
///
///   TAILRACE_TRY(auto reader, BatchReader::open(batch));
///   RecordView record;
///   while (reader.next(record)) use(record);
///   if (auto& error = reader.error()) ...   // the records before it were good
///
/// Owns     the inflated records of a compressed batch; otherwise nothing. Views into uncompressed batches live as long as
///          the batch's bytes, views into compressed ones as long as the reader or a copy of inflated().
/// Bounds   inflated bytes by limits::kInflatedBytesMax and the ratio budget (codec/compression.h); every count and length
///          by the bytes that are left. Nothing is allocated by a declared size.
/// Accepts  more than validate_batch(): gaps between offset deltas and batches without records (compaction leaves both),
///          control batches, transactional batches.
/// Thread   one at a time.
#include <cstdint>
#include <optional>

#include "base/buffer.h"
#include "base/result.h"
#include "codec/record.h"
#include "model/limits.h"
#include "model/record_batch.h"

namespace tailrace::broker::codec {

struct ReadOptions {
  bool check_crc = true;  // off only when the same bytes were checked before
  std::size_t inflated_bytes_max = limits::kInflatedBytesMax;
};

class BatchReader {
 public:
  /// `batch` begins with a whole batch and may go on behind it; batch_bytes() says how far this one goes.
  /// Errors: unexpected_end (cut short), invalid_record, corrupt_message (CRC), unsupported_compression, too_large.
  [[nodiscard]] static Result<BatchReader> open(Bytes batch, ReadOptions options = {});

  [[nodiscard]] const BatchHeader& header() const { return header_; }
  [[nodiscard]] std::size_t batch_bytes() const { return header_.total_bytes(); }

  /// False at the end and at the first bad record; error() tells which.
  [[nodiscard]] bool next(RecordView& record);
  [[nodiscard]] const std::optional<Error>& error() const { return error_; }

  /// Keeps views into a compressed batch alive beyond the reader; empty for an uncompressed one.
  [[nodiscard]] const Buffer& inflated() const { return inflated_.owner; }

 private:
  BatchReader() = default;
  bool refuse(std::string why);

  BatchHeader header_{};
  Slice inflated_{};
  const std::byte* at_ = nullptr;
  const std::byte* end_ = nullptr;
  std::int32_t read_ = 0;
  std::int32_t last_delta_ = -1;
  std::optional<Error> error_{};
};

}  // namespace tailrace::broker::codec
