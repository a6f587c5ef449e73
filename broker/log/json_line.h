#pragma once
/// One JSON object, front to back, for the offline tools. Field names are ours and need no escaping.
#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/bytes.h"

namespace tailrace::broker::log {

class JsonLine {
 public:
  JsonLine() { out_ += '{'; }
  explicit JsonLine(std::string_view kind) : JsonLine() { text("kind", kind); }
  template <std::integral T>
    requires(!std::same_as<T, bool>)
  JsonLine& number(std::string_view name, T value) {
    key(name);
    out_ += std::to_string(value);
    return *this;
  }
  JsonLine& flag(std::string_view name, bool value) { return raw(name, value ? "true" : "false"); }
  /// UTF-8; what is not becomes {"base64":"..."} in its place.
  JsonLine& text(std::string_view name, std::string_view value);
  JsonLine& null(std::string_view name) { return raw(name, "null"); }
  /// Milliseconds since the epoch as RFC 3339 in UTC; null before 1970 and after 9999.
  JsonLine& time(std::string_view name, std::int64_t ms);
  JsonLine& hex32(std::string_view name, std::uint32_t value);
  /// A value that is JSON already.
  JsonLine& raw(std::string_view name, std::string_view json) {
    key(name);
    out_ += json;
    return *this;
  }
  [[nodiscard]] std::string finish() { return std::move(out_ += '}'); }

 private:
  void key(std::string_view name);
  std::string out_{};
};

/// As JsonLine::text writes a value.
void append_json_value(std::string& out, std::string_view bytes);

}  // namespace tailrace::broker::log
