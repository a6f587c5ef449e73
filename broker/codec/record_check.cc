#include "codec/record_check.h"

#include <fmt/format.h>

#include <algorithm>

#include "codec/record_cursor.h"

namespace tailrace::broker::codec {
namespace {

[[gnu::cold, gnu::noinline]] std::unexpected<Error> refuse_record(std::int32_t index, const char* field) {
  return fail(Errc::invalid_record, fmt::format("record {}: {}", index, field));
}

}  // namespace

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
  if (at != end) {
    return fail(Errc::invalid_record, fmt::format("record count: {} bytes follow the last of {} records", end - at, header.record_count));
  }
  if (max_timestamp != header.max_timestamp) {
    return fail(Errc::invalid_record, fmt::format("max timestamp: {}, but the largest record timestamp is {}", header.max_timestamp, max_timestamp));
  }
  return {};
}

}  // namespace tailrace::broker::codec
