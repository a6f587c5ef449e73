#include "record_json.h"

#include <fmt/format.h>

#include <limits>
#include <nlohmann/json.hpp>

namespace tailrace::cli {
namespace {

/// A string, {"base64":"..."} or null.
Parsed<std::optional<std::string>> bytes_of(const nlohmann::json& node, std::string_view what) {
  if (node.is_null()) return std::nullopt;
  if (node.is_string()) return node.get_ref<const std::string&>();
  if (node.is_object() && node.size() == 1 && node.contains("base64") && node["base64"].is_string()) {
    auto decoded = decode_base64(node["base64"].get_ref<const std::string&>());
    if (decoded) return std::move(*decoded);
    return std::unexpected(fmt::format("\"{}\" is not valid base64", what));
  }
  return std::unexpected(fmt::format("\"{}\" is neither a string nor null nor {{\"base64\":\"...\"}}", what));
}

}  // namespace

void append_json_string(std::string& out, std::string_view bytes) {
  static constexpr char kHex[] = "0123456789abcdef";
  out += '"';
  std::size_t plain = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const auto c = static_cast<unsigned char>(bytes[i]);
    if (c >= 0x20 && c != '"' && c != '\\') continue;
    out.append(bytes.substr(plain, i - plain));
    plain = i + 1;
    switch (c) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\n': out += "\\n"; break;
      case '\r': out += "\\r"; break;
      case '\t': out += "\\t"; break;
      case '\b': out += "\\b"; break;
      case '\f': out += "\\f"; break;
      default:
        out += "\\u00";
        out += kHex[c >> 4];
        out += kHex[c & 15];
    }
  }
  out.append(bytes.substr(plain));
  out += '"';
}

void append_json_bytes(std::string& out, std::optional<std::string_view> bytes) {
  if (!bytes) {
    out += "null";
  } else if (is_utf8(*bytes)) {
    append_json_string(out, *bytes);
  } else {
    out += "{\"base64\":\"";
    append_base64(out, *bytes);
    out += "\"}";
  }
}

void append_json_time(std::string& out, Time time) {
  using namespace std::chrono;
  static constexpr Time kFirst = sys_days{year{1} / 1 / 1}, kLast = sys_days{year{9999} / 12 / 31} + days{1} - milliseconds{1};
  if (time < kFirst || time > kLast) {
    out += "null";
    return;
  }
  out += '"';
  append_time(out, time);
  out += '"';
}

namespace detail {

void append_record_front(std::string& out, const JsonRecord& record) {
  out += "{\"schema\":\"";
  out += kRecordSchema;
  out += "\",\"topic\":";
  append_json_string(out, record.topic);
  fmt::format_to(std::back_inserter(out), ",\"partition\":{},\"offset\":{},\"timestamp\":", record.partition, record.offset);
  append_json_time(out, record.timestamp);
  out += ",\"key\":";
  append_json_bytes(out, record.key);
  if (record.with_value) {
    out += ",\"value\":";
    append_json_bytes(out, record.value);
  }
  out += ",\"headers\":[";
}

void append_header(std::string& out, bool first, std::string_view key, std::optional<std::string_view> value) {
  out += first ? "{\"key\":" : ",{\"key\":";
  append_json_bytes(out, key);
  out += ",\"value\":";
  append_json_bytes(out, value);
  out += '}';
}

}  // namespace detail

Parsed<ParsedRecord> parse_record_json(std::string_view line) {
  auto json = nlohmann::json::parse(line, nullptr, false);
  if (json.is_discarded()) {
    std::string why = "it is not valid JSON";
    try {
      [[maybe_unused]] auto again = nlohmann::json::parse(line);
    } catch (const nlohmann::json::exception& e) {
      // Only the position is taken over: the library's message quotes the payload.
      if (const auto* parse_error = dynamic_cast<const nlohmann::json::parse_error*>(&e)) why = fmt::format("it is not valid JSON (byte {})", parse_error->byte);
    }
    return std::unexpected(why);
  }
  if (!json.is_object()) return std::unexpected("it is not a JSON object; to publish lines as they are, leave out -f jsonl");
  ParsedRecord record;
  if (auto key = json.find("key"); key != json.end()) {
    auto bytes = bytes_of(*key, "key");
    if (!bytes) return std::unexpected(bytes.error());
    record.key = std::move(*bytes);
  }
  auto value = json.find("value");
  if (value == json.end()) return std::unexpected("it has no \"value\" (write \"value\":null to publish a tombstone)");
  auto bytes = bytes_of(*value, "value");
  if (!bytes) return std::unexpected(bytes.error());
  record.value = std::move(*bytes);
  if (auto headers = json.find("headers"); headers != json.end() && !headers->is_null()) {
    if (!headers->is_array()) return std::unexpected("\"headers\" is not a list of {\"key\":...,\"value\":...}");
    for (const auto& node : *headers) {
      if (!node.is_object() || !node.contains("key")) return std::unexpected("a header is not {\"key\":...,\"value\":...}");
      auto key = bytes_of(node["key"], "headers.key");
      if (!key) return std::unexpected(key.error());
      if (!*key) return std::unexpected("a header's key is null");
      ParsedHeader header{std::move(**key), std::nullopt};
      if (auto header_value = node.find("value"); header_value != node.end()) {
        auto header_bytes = bytes_of(*header_value, "headers.value");
        if (!header_bytes) return std::unexpected(header_bytes.error());
        header.value = std::move(*header_bytes);
      }
      record.headers.push_back(std::move(header));
    }
  }
  if (auto timestamp = json.find("timestamp"); timestamp != json.end() && !timestamp->is_null()) {
    if (!timestamp->is_string()) return std::unexpected("\"timestamp\" is not an RFC 3339 string");
    auto time = parse_time(timestamp->get_ref<const std::string&>());
    if (!time) return std::unexpected(time.error());
    record.timestamp = *time;
  }
  if (auto partition = json.find("partition"); partition != json.end() && !partition->is_null()) {
    if (!partition->is_number_integer()) return std::unexpected("\"partition\" is not a whole number");
    const auto number = partition->get<std::int64_t>();
    if (number < 0 || number > std::numeric_limits<std::int32_t>::max()) return std::unexpected("\"partition\" is out of range");
    record.partition = static_cast<std::int32_t>(number);
  }
  return record;
}

}  // namespace tailrace::cli
