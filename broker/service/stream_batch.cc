#include "service/stream_batch.h"

#include <fmt/format.h>

#include <array>
#include <set>

#include "codec/batch_builder.h"
#include "codec/batch_reader.h"
#include "model/limits.h"
#include "stream/names.h"

namespace tailrace::broker::service {
namespace {

// The control record: key = version, type; value = version, before, stream.
constexpr std::int16_t kControlKeyVersion = 0, kTruncateType = 100;
constexpr std::size_t kControlKeyBytes = 4, kControlValueBytes = 9;
constexpr std::byte kTruncateVersion{1};

/// The only header of this name. Errors: invalid_record.
Result<std::string_view> header_of(const codec::RecordView& record, std::string_view name, std::size_t bytes_max) {
  std::optional<std::string_view> found;
  for (const codec::HeaderView& header : record.headers) {
    if (header.key != name) continue;
    if (found) return fail(Errc::invalid_record, fmt::format("event {}: two headers {}", record.offset_delta, name));
    if (!header.value || header.value->empty() || header.value->size() > bytes_max) {
      return fail(Errc::invalid_record, fmt::format("event {}: header {} takes 1 to {} bytes", record.offset_delta, name, bytes_max));
    }
    found = as_text(*header.value);
  }
  if (!found) return fail(Errc::invalid_record, fmt::format("event {}: header {} is missing", record.offset_delta, name));
  return *found;
}

}  // namespace

Result<std::vector<std::string>> check_append(Bytes batch, std::string_view stream) {
  TAILRACE_TRY(auto reader, codec::BatchReader::open(batch, {.check_crc = false}));
  if (reader.header().record_count < 1 || reader.header().record_count > limits::kEventsPerAppendMax) {
    return fail(Errc::invalid_record, fmt::format("{} events in one append; it takes 1 to {}", reader.header().record_count, limits::kEventsPerAppendMax));
  }
  std::vector<std::string> ids;
  std::set<std::string, std::less<>> seen;
  codec::RecordView record;
  while (reader.next(record)) {
    if (!record.key || as_text(*record.key) != stream) {
      return fail(Errc::invalid_record, fmt::format("event {}: its key is not the stream's name", record.offset_delta));
    }
    TAILRACE_TRY(std::string_view id, header_of(record, kEventIdHeader, limits::kEventIdBytesMax));
    TAILRACE_TRY(std::string_view type, header_of(record, kEventTypeHeader, limits::kEventTypeBytesMax));
    (void)type;  // any text will do
    if (!seen.emplace(id).second) return fail(Errc::invalid_record, fmt::format("event {}: its id stands in this append already", record.offset_delta));
    ids.emplace_back(id);
  }
  if (reader.error()) return std::unexpected(*reader.error());
  return ids;
}

Result<std::vector<std::string>> event_ids(Bytes batch) {
  auto reader = codec::BatchReader::open(batch, {.check_crc = false});
  if (!reader) return fail(Errc::corrupt, std::move(reader).error().detail);
  std::vector<std::string> ids;
  codec::RecordView record;
  while (reader->next(record)) {
    auto id = header_of(record, kEventIdHeader, limits::kEventIdBytesMax);
    ids.emplace_back(id.value_or(std::string_view{}));
  }
  if (reader->error()) return fail(Errc::corrupt, reader->error()->detail);
  return ids;
}

Result<std::optional<stream::Entry>> entry_of(Bytes batch) {
  auto reader = codec::BatchReader::open(batch, {.check_crc = false});
  if (!reader) return fail(Errc::corrupt, std::move(reader).error().detail);
  const BatchHeader& header = reader->header();
  codec::RecordView record;
  if (!reader->next(record)) {
    if (reader->error()) return fail(Errc::corrupt, reader->error()->detail);
    return std::optional<stream::Entry>{};
  }
  stream::Entry entry{.base = header.base_offset, .next = header.next_offset(), .time_ms = header.max_timestamp};
  if (!header.is_control()) {
    if (!record.key || !stream::valid_name(as_text(*record.key))) return std::optional<stream::Entry>{};
    entry.stream = as_text(*record.key);
    entry.count = header.record_count;
    return std::optional{std::move(entry)};
  }
  if (!record.key || record.key->size() != kControlKeyBytes || !record.value || record.value->size() < kControlValueBytes) return std::optional<stream::Entry>{};
  if (load_be<std::int16_t>(record.key->data()) != kControlKeyVersion || load_be<std::int16_t>(record.key->data() + 2) != kTruncateType) return std::optional<stream::Entry>{};
  std::string_view name = as_text(record.value->subspan(kControlValueBytes));
  if (record.value->front() != kTruncateVersion || !stream::valid_name(name)) return std::optional<stream::Entry>{};
  entry.kind = stream::Entry::Kind::truncate;
  entry.stream = name;
  entry.before = load_be<std::int64_t>(record.value->data() + 1);
  return std::optional{std::move(entry)};
}

Result<Slice> truncation(std::string_view stream, stream::Version before, WallTime now) {
  std::array<std::byte, kControlKeyBytes> key{};
  store_be(key.data(), kControlKeyVersion);
  store_be(key.data() + 2, kTruncateType);
  std::vector<std::byte> value(kControlValueBytes);
  value.front() = kTruncateVersion;
  store_be(value.data() + 1, std::int64_t{before});
  Bytes name = as_bytes(stream);
  value.insert(value.end(), name.begin(), name.end());
  codec::BatchBuilder builder{{.bytes_max = limits::kKiB}};
  TAILRACE_TRY_VOID(builder.add({.timestamp = std::max<std::int64_t>(now.time_since_epoch().count(), 0), .key = Bytes{key}, .value = Bytes{value}}));
  TAILRACE_TRY(Slice batch, builder.finish());
  MutableBytes bytes = batch.mutable_bytes();
  store_be(bytes.data() + batch_layout::kAttributes, batch_layout::kControl);
  store_be(bytes.data() + batch_layout::kCrc, batch_crc(bytes));
  return batch;
}

}  // namespace tailrace::broker::service
