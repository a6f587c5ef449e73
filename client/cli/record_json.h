#pragma once
/// A record as one line of JSON: the contract of `tail -o jsonl` and `pub -f jsonl`.
///
///   {"schema":"tailrace.record.v1","topic":"orders","partition":0,"offset":17,"timestamp":"2026-02-14T08:30:05.123Z",
///    "key":"alice","value":"{\"id\":1}","headers":[{"key":"source","value":"cli"}]}
///
/// null is null. A key, value, header key or header value that is not UTF-8 is {"base64":"..."} in its place. Reading back
/// what was written gives the same bytes; the reader ignores fields it does not know.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text.h"

namespace tailrace::cli {

inline constexpr std::string_view kRecordSchema = "tailrace.record.v1";

struct HeaderView {
  std::string_view key;
  std::optional<std::string_view> value;
};

/// Borrowed from whatever holds the record, for the length of one call.
struct JsonRecord {
  std::string_view topic;
  std::int32_t partition = 0;
  std::int64_t offset = 0;
  Time timestamp{};
  std::optional<std::string_view> key;
  std::optional<std::string_view> value;
  bool with_value = true;  ///< false: --no-value, the field is left out
};

struct ParsedHeader {
  std::string key;
  std::optional<std::string> value;
  friend bool operator==(const ParsedHeader&, const ParsedHeader&) = default;
};

/// What `pub -f jsonl` takes from a line. "value" must be there (null for a tombstone): a line written with --no-value is
/// refused instead of becoming a deletion.
struct ParsedRecord {
  std::optional<std::string> key;
  std::optional<std::string> value;
  std::vector<ParsedHeader> headers;
  std::optional<Time> timestamp;
  std::optional<std::int32_t> partition;
};

/// Quoted and escaped; `bytes` must be UTF-8.
void append_json_string(std::string& out, std::string_view bytes);
/// A string, or {"base64":"..."} when it is not UTF-8, or null.
void append_json_bytes(std::string& out, std::optional<std::string_view> bytes);
template <class Headers>
void append_record_json(std::string& out, const JsonRecord& record, const Headers& headers);
/// "2026-02-14T08:30:05.123Z", or null outside the years 1-9999, which RFC 3339 cannot write.
void append_json_time(std::string& out, Time time);

[[nodiscard]] Parsed<ParsedRecord> parse_record_json(std::string_view line);

namespace detail {
void append_record_front(std::string& out, const JsonRecord& record);
void append_header(std::string& out, bool first, std::string_view key, std::optional<std::string_view> value);
}  // namespace detail

template <class Headers>
void append_record_json(std::string& out, const JsonRecord& record, const Headers& headers) {
  detail::append_record_front(out, record);
  bool first = true;
  for (const auto& header : headers) {
    std::optional<std::string_view> value;
    if (header.value) value = std::string_view{*header.value};
    detail::append_header(out, first, header.key, value);
    first = false;
  }
  out += "]}";
}

}  // namespace tailrace::cli
