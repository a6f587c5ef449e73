#pragma once
/// Builds one record batch v2.
///
///   BatchBuilder builder{{.compression = Compression::lz4, .bytes_max = 256 * 1024}};
///   while (builder.fits(record)) builder.add(record);
///   Result<Slice> batch = builder.finish({.producer_id = id, .producer_epoch = epoch, .base_sequence = sequence});
///
/// Owns     one output block that grows to at most bytes_max; nothing is allocated per record.
/// Units    bytes() is exact for an uncompressed batch and an upper bound for a compressed one: a batch that compression
///          does not make smaller, or that would exceed inflated_budget(), is sent uncompressed.
/// After    finish(): base offset 0 and leader epoch -1 (the broker assigns both), CRC set; the builder is empty again.
/// Thread   one at a time.
/// Spec     model/record_batch.h, codec/record.h.
#include <cstdint>
#include <span>

#include "base/buffer.h"
#include "base/result.h"
#include "codec/compression.h"
#include "codec/record.h"
#include "model/ids.h"
#include "model/limits.h"
#include "model/record_batch.h"

namespace tailrace::broker::codec {

/// Timestamp in ms since the epoch, -1 for none.
struct RecordInput {
  std::int64_t timestamp = -1;
  std::optional<Bytes> key{};
  std::optional<Bytes> value{};
  std::span<const HeaderView> headers{};
};

struct BatchOptions {
  Compression compression = Compression::none;  // none, lz4 or zstd
  int compression_level = 0;                    // 0: the codec's default
  std::size_t bytes_max = limits::kMessageBytesDefault;  // of the batch before compression; at most kMessageBytesCeiling
};

/// The defaults say: not idempotent.
struct ProducerStamp {
  ProducerId producer_id = kNoProducer;
  ProducerEpoch producer_epoch{-1};
  std::int32_t base_sequence = -1;
};

class BatchBuilder {
 public:
  explicit BatchBuilder(BatchOptions options) : options_{options} {}

  [[nodiscard]] bool empty() const { return count_ == 0; }
  [[nodiscard]] std::int32_t record_count() const { return count_; }
  /// Of the batch as it is, header included; 61 for an empty one.
  [[nodiscard]] std::size_t bytes() const { return used_; }
  /// What bytes() would be after add(record).
  [[nodiscard]] std::size_t bytes_with(const RecordInput& record) const { return used_ + record_bytes(record); }
  [[nodiscard]] bool fits(const RecordInput& record) const {
    return count_ < limits::kBatchRecordsMax && bytes_with(record) <= options_.bytes_max;
  }

  /// Errors: too_large (does not fit; nothing was added), invalid_argument (a timestamp below -1 or too far from the
  /// first one, more than kHeadersPerRecordMax headers).
  [[nodiscard]] Result<void> add(const RecordInput& record);

  /// Errors: invalid_argument (no records), unsupported_compression. After an error the records are still there.
  [[nodiscard]] Result<Slice> finish(ProducerStamp stamp = {});

  /// Drops the records; keeps the block.
  void clear();

 private:
  [[nodiscard]] std::size_t record_bytes(const RecordInput& record) const;
  void reserve(std::size_t bytes);

  BatchOptions options_;
  Buffer block_{};
  std::size_t used_ = batch_layout::kHeaderBytes;
  std::int32_t count_ = 0;
  std::int64_t base_timestamp_ = -1;
  std::int64_t max_timestamp_ = -1;
};

/// Gives a finished batch another producer identity (a client that got a new one resends) and computes its CRC anew.
void stamp_producer(MutableBytes batch, ProducerStamp stamp);

}  // namespace tailrace::broker::codec
