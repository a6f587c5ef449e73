#include "codec/batch_builder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace tailrace::broker::codec {
namespace {

namespace layout = batch_layout;

std::size_t nullable_bytes(const std::optional<Bytes>& bytes) {
  return bytes ? varint_bytes(static_cast<std::int64_t>(bytes->size())) + bytes->size() : varint_bytes(-1);
}

/// The record's bytes behind its length field.
std::size_t body_bytes(const RecordInput& record, std::int32_t offset_delta, std::int64_t timestamp_delta) {
  std::size_t bytes = 1 + varint_bytes(timestamp_delta) + varint_bytes(offset_delta) + nullable_bytes(record.key) +
                      nullable_bytes(record.value) + varint_bytes(static_cast<std::int64_t>(record.headers.size()));
  for (const HeaderView& header : record.headers) {
    bytes += varint_bytes(static_cast<std::int64_t>(header.key.size())) + header.key.size() + nullable_bytes(header.value);
  }
  return bytes;
}

std::byte* write_bytes(std::byte* to, Bytes bytes) {
  to = write_varint(to, static_cast<std::int64_t>(bytes.size()));
  if (!bytes.empty()) std::memcpy(to, bytes.data(), bytes.size());
  return to + bytes.size();
}

std::byte* write_nullable(std::byte* to, const std::optional<Bytes>& bytes) {
  return bytes ? write_bytes(to, *bytes) : write_varint(to, -1);
}

/// False on overflow. Unrepresentable only for a record more than 2^63 ms after a batch's first.
bool difference(std::int64_t a, std::int64_t b, std::int64_t& out) { return !__builtin_sub_overflow(a, b, &out); }

}  // namespace

std::size_t BatchBuilder::record_bytes(const RecordInput& record) const {
  std::int64_t timestamp_delta = 0;
  if (count_ > 0 && !difference(record.timestamp, base_timestamp_, timestamp_delta)) timestamp_delta = 0;  // add() refuses it
  std::size_t body = body_bytes(record, count_, timestamp_delta);
  return varint_bytes(static_cast<std::int64_t>(body)) + body;
}

void BatchBuilder::reserve(std::size_t bytes) {
  if (bytes <= block_.size()) return;
  constexpr std::size_t kFirst = 4 * limits::kKiB;
  Buffer larger = Buffer::allocate(std::max(bytes, std::min(options_.bytes_max, std::max(kFirst, block_.size() * 2))));
  if (block_) std::memcpy(larger.data(), block_.data(), used_);
  block_ = std::move(larger);
}

Result<void> BatchBuilder::add(const RecordInput& record) {
  if (record.timestamp < -1) return fail(Errc::invalid_argument, fmt::format("timestamp {} is below -1", record.timestamp));
  if (record.headers.size() > limits::kHeadersPerRecordMax) {
    return fail(Errc::invalid_argument, fmt::format("{} headers; a record has at most {}", record.headers.size(),
                                                    limits::kHeadersPerRecordMax));
  }
  std::int64_t timestamp_delta = 0;
  if (count_ > 0 && !difference(record.timestamp, base_timestamp_, timestamp_delta)) {
    return fail(Errc::invalid_argument, fmt::format("timestamp {} is too far from the batch's first, {}", record.timestamp,
                                                    base_timestamp_));
  }
  std::size_t body = body_bytes(record, count_, timestamp_delta);
  std::size_t after = used_ + varint_bytes(static_cast<std::int64_t>(body)) + body;
  std::size_t bytes_max = std::min(options_.bytes_max, limits::kMessageBytesCeiling);
  if (after > bytes_max || count_ >= limits::kBatchRecordsMax) {
    return fail(Errc::too_large, fmt::format("the batch would have {} bytes and {} records; at most {} and {}", after,
                                             count_ + 1, bytes_max, limits::kBatchRecordsMax));
  }
  reserve(after);
  std::byte* to = block_.data() + used_;
  to = write_varint(to, static_cast<std::int64_t>(body));
  *to++ = std::byte{0};
  to = write_varint(to, timestamp_delta);
  to = write_varint(to, count_);
  to = write_nullable(to, record.key);
  to = write_nullable(to, record.value);
  to = write_varint(to, static_cast<std::int64_t>(record.headers.size()));
  for (const HeaderView& header : record.headers) {
    to = write_bytes(to, as_bytes(header.key));
    to = write_nullable(to, header.value);
  }
  TAILRACE_DCHECK(to == block_.data() + after, "the size was computed from the same fields");
  used_ = after;
  if (count_ == 0) base_timestamp_ = record.timestamp;
  max_timestamp_ = std::max(max_timestamp_, record.timestamp);
  ++count_;
  return {};
}

Result<Slice> BatchBuilder::finish(ProducerStamp stamp) {
  if (count_ == 0) return fail(Errc::invalid_argument, "a batch has at least one record");
  Buffer out = block_;
  std::size_t total = used_;
  Compression stored = Compression::none;
  if (options_.compression != Compression::none) {
    Bytes records = block_.bytes().subspan(layout::kHeaderBytes, used_ - layout::kHeaderBytes);
    Buffer smaller = Buffer::allocate(layout::kHeaderBytes + compressed_bound(options_.compression, records.size()));
    TAILRACE_TRY(std::size_t length, compress(options_.compression, options_.compression_level, records,
                                              smaller.bytes().subspan(layout::kHeaderBytes)));
    if (length < records.size() && inflated_budget(length, limits::kInflatedBytesMax) >= records.size()) {
      // The bound is larger than the input: an exact copy keeps a full send queue from holding three times its bytes.
      total = layout::kHeaderBytes + length;
      out = Buffer::copy_of(Bytes{smaller.bytes()}.first(total));
      stored = options_.compression;
    }
  }
  std::byte* p = out.data();
  store_be(p + layout::kBaseOffset, std::int64_t{0});
  store_be(p + layout::kLength, static_cast<std::int32_t>(total - layout::kLengthPrefix));
  store_be(p + layout::kLeaderEpoch, std::int32_t{-1});
  store_be(p + layout::kMagic, layout::kMagicValue);
  store_be(p + layout::kAttributes, static_cast<std::int16_t>(stored));
  store_be(p + layout::kLastOffsetDelta, count_ - 1);
  store_be(p + layout::kBaseTimestamp, base_timestamp_);
  store_be(p + layout::kMaxTimestamp, max_timestamp_);
  store_be(p + layout::kRecordCount, count_);
  stamp_producer({p, total}, stamp);
  if (stored == Compression::none) block_ = {};
  clear();
  return Slice{std::move(out), 0, total};
}

void BatchBuilder::clear() {
  used_ = layout::kHeaderBytes;
  count_ = 0;
  base_timestamp_ = max_timestamp_ = -1;
}

void stamp_producer(MutableBytes batch, ProducerStamp stamp) {
  std::byte* p = batch.data();
  store_be(p + layout::kProducerId, stamp.producer_id.value());
  store_be(p + layout::kProducerEpoch, stamp.producer_epoch.value());
  store_be(p + layout::kBaseSequence, stamp.base_sequence);
  store_be(p + layout::kCrc, batch_crc(batch));
}

}  // namespace tailrace::broker::codec
