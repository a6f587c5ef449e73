#pragma once
/// Goes over the records of one batch, already inflated, testing each length against what is left before using it. The
/// reader and the validator both stand on it; the validator has a faster way through ordinary records (validate.cc).
#include <cstdint>

#include "base/bytes.h"
#include "base/planted.h"
#include "codec/varint.h"
#include "model/limits.h"

namespace tailrace::broker::codec {

/// A record's fields in place. Key and value are null when their length is -1.
struct RawRecord {
  const std::byte* end = nullptr;  // of the record; the next one begins here
  std::int64_t timestamp_delta = 0;
  std::int32_t offset_delta = 0;
  std::int32_t key_length = -1;
  std::int32_t value_length = -1;
  const std::byte* key = nullptr;
  const std::byte* value = nullptr;
  const std::byte* headers = nullptr;
  std::int32_t header_count = 0;
};

/// What is wrong with a record, as the field's name; null: nothing.
using BadField = const char*;

/// Reads the record that begins at `at`, within [at, end). Everything in `record` is valid only when null is answered.
[[nodiscard]] inline BadField read_record(const std::byte* at, const std::byte* end, RawRecord& record) {
  std::int32_t length = 0;
  at = read_varint32(at, end, length);
  if (!at || length < 0 || length > end - at) return "record length";
  end = at + length;
  record.end = end;
  if (at == end || *at != std::byte{0}) return "record attributes";
  ++at;
  at = read_varint64(at, end, record.timestamp_delta);
  if (!at) return "timestamp delta";
  at = read_varint32(at, end, record.offset_delta);
  if (!at || record.offset_delta < 0) return "offset delta";

  at = read_varint32(at, end, record.key_length);
  if (!at || record.key_length < -1 || record.key_length > end - at) return "key length";
  record.key = at;
  if (record.key_length > 0) at += record.key_length;

  at = read_varint32(at, end, record.value_length);
  if (!at || record.value_length < -1) return "value length";
  if (record.value_length > end - at) {
    // The planted decoder bug: a length is believed although the record ends before it.
    if (!planted(PlantedBug::decoder_length)) return "value length";
    record.value = at;
    record.headers = end;
    record.header_count = 0;
    return nullptr;
  }
  record.value = at;
  if (record.value_length > 0) at += record.value_length;

  at = read_varint32(at, end, record.header_count);
  if (!at || record.header_count < 0) return "header count";
  // A header has at least two bytes, so the count is known to fit before anything is done with it.
  if (record.header_count > static_cast<std::int32_t>(limits::kHeadersPerRecordMax) || record.header_count > (end - at) / 2) {
    return "header count";
  }
  record.headers = at;
  for (std::int32_t i = 0; i < record.header_count; ++i) {
    std::int32_t part = 0;
    at = read_varint32(at, end, part);
    if (!at || part < 0 || part > end - at) return "header key length";
    at += part;
    at = read_varint32(at, end, part);
    if (!at || part < -1 || part > end - at) return "header value length";
    if (part > 0) at += part;
  }
  return at == end ? nullptr : "record length (bytes left over)";
}

}  // namespace tailrace::broker::codec
