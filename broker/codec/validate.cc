#include "codec/validate.h"

#include <fmt/format.h>

#include <algorithm>

#include "codec/compression.h"
#include "codec/record_cursor.h"

namespace tailrace::broker::codec {
namespace {

namespace layout = batch_layout;

[[gnu::cold, gnu::noinline]] std::unexpected<Error> refuse(std::string why) { return fail(Errc::invalid_record, std::move(why)); }

[[gnu::cold, gnu::noinline]] std::unexpected<Error> refuse_record(std::int32_t index, const char* field) {
  return fail(Errc::invalid_record, fmt::format("record {}: {}", index, field));
}

Result<void> check_attributes(const BatchHeader& header) {
  constexpr auto kAllowed = layout::kCompressionMask;
  if (header.is_control()) return refuse("attributes: only the broker writes control batches");
  if (header.is_transactional()) return refuse("attributes: transactional, and no transaction is open");
  if (header.has_log_append_time()) return refuse("attributes: only the broker stamps the append time");
  if ((header.attributes & ~kAllowed) != 0) return refuse(fmt::format("attributes: unknown bits in {:#06x}", static_cast<std::uint16_t>(header.attributes)));
  switch (header.compression()) {
    case Compression::none:
    case Compression::lz4:
    case Compression::zstd: return {};
    case Compression::gzip:
    case Compression::snappy: break;
  }
  return fail(Errc::unsupported_compression, fmt::format("attributes: compression {} ({})", name_of(header.compression()),
                                                         header.attributes & layout::kCompressionMask));
}

Result<void> check_producer(const BatchHeader& header) {
  bool none = header.producer_id == kNoProducer && header.producer_epoch.value() == -1 && header.base_sequence == -1;
  bool all = header.producer_id.value() >= 0 && header.producer_epoch.value() >= 0 && header.base_sequence >= 0;
  if (none || all) return {};
  return refuse(fmt::format("producer id {}, producer epoch {}, base sequence {}: all set or all -1", header.producer_id.value(),
                            header.producer_epoch.value(), header.base_sequence));
}

Result<void> check_counts(const BatchHeader& header) {
  if (header.record_count < 1 || header.record_count > limits::kBatchRecordsMax) {
    return refuse(fmt::format("record count: {} is outside 1..{}", header.record_count, limits::kBatchRecordsMax));
  }
  if (header.last_offset_delta != header.record_count - 1) {
    return refuse(fmt::format("last offset delta: {} with {} records", header.last_offset_delta, header.record_count));
  }
  if (header.base_timestamp < -1 || header.max_timestamp < -1) {
    return refuse(fmt::format("base timestamp {}, max timestamp {}: below -1", header.base_timestamp, header.max_timestamp));
  }
  return {};
}

Result<void> check_records(const BatchHeader& header, Bytes records) {
  const std::byte* at = records.data();
  const std::byte* end = at + records.size();
  std::int64_t max_timestamp = -1;
  for (std::int32_t i = 0; i < header.record_count; ++i) {
    RawRecord record;
    if (BadField bad = read_record(at, end, record)) return refuse_record(i, bad);
    if (record.offset_delta != i) return refuse_record(i, "offset delta");
    std::int64_t timestamp = 0;
    if (__builtin_add_overflow(header.base_timestamp, record.timestamp_delta, &timestamp) || timestamp < -1) {
      return refuse_record(i, "timestamp delta");
    }
    max_timestamp = std::max(max_timestamp, timestamp);
    at = record.end;
  }
  if (at != end) return refuse(fmt::format("record count: {} bytes follow the last of {} records", end - at, header.record_count));
  if (max_timestamp != header.max_timestamp) {
    return refuse(fmt::format("max timestamp: {}, but the largest record timestamp is {}", header.max_timestamp, max_timestamp));
  }
  return {};
}

}  // namespace

Result<BatchHeader> validate_batch(Bytes batch, const BatchLimits& limits) {
  if (batch.size() > limits.message_bytes_max) {
    return fail(Errc::too_large, fmt::format("the batch has {} bytes; message_bytes_max is {}", batch.size(), limits.message_bytes_max));
  }
  if (batch.size() < layout::kHeaderBytes) return refuse(fmt::format("length: {} bytes are less than a batch header", batch.size()));
  TAILRACE_TRY(BatchHeader header, read_batch_header(batch, batch.size()));
  if (header.total_bytes() != batch.size()) {
    return refuse(fmt::format("length: the batch says {} bytes and has {}", header.total_bytes(), batch.size()));
  }
  if (std::uint32_t computed = batch_crc(batch); computed != header.crc) {
    return fail(Errc::corrupt_message, fmt::format("crc: stored {:08x}, computed {:08x}", header.crc, computed));
  }
  TAILRACE_TRY_VOID(check_attributes(header));
  TAILRACE_TRY_VOID(check_producer(header));
  TAILRACE_TRY_VOID(check_counts(header));

  Bytes records = batch.subspan(layout::kHeaderBytes);
  if (header.compression() == Compression::none) {
    TAILRACE_TRY_VOID(check_records(header, records));
    return header;
  }
  thread_local InflateBuffer scratch;
  auto inflated = inflate(header.compression(), records, limits.inflated_bytes_max, scratch);
  auto checked = inflated ? check_records(header, scratch.bytes()) : std::move(inflated);
  scratch.shrink(kScratchKept);
  if (!checked) return std::unexpected<Error>(std::move(checked).error());
  return header;
}

}  // namespace tailrace::broker::codec
