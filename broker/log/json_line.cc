#include "log/json_line.h"

#include <fmt/format.h>

#include <chrono>

namespace tailrace::broker::log {
namespace {

/// Length of the UTF-8 character at `at`; 0: none is there (overlong forms, surrogates and values above 10FFFF are none).
std::size_t character_length(std::string_view s, std::size_t at) {
  auto byte = [&](std::size_t i) { return i < s.size() ? static_cast<unsigned char>(s[i]) : 0U; };
  auto follows = [&](std::size_t i) { return (byte(i) & 0xc0U) == 0x80U; };
  unsigned first = byte(at);
  unsigned second = byte(at + 1);
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return follows(at + 1) ? 2 : 0;
  if (first >= 0xe0 && first <= 0xef) {
    bool wrong = (first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f);
    return !wrong && follows(at + 1) && follows(at + 2) ? 3 : 0;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    bool wrong = (first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f);
    return !wrong && follows(at + 1) && follows(at + 2) && follows(at + 3) ? 4 : 0;
  }
  return 0;
}

bool is_utf8(std::string_view s) {
  for (std::size_t at = 0; at < s.size();) {
    std::size_t length = character_length(s, at);
    if (length == 0) return false;
    at += length;
  }
  return true;
}

void append_base64(std::string& out, std::string_view s) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (std::size_t at = 0; at < s.size(); at += 3) {
    unsigned group = 0;
    for (std::size_t i = 0; i < 3; ++i) group = group << 8 | (at + i < s.size() ? static_cast<unsigned char>(s[at + i]) : 0U);
    for (std::size_t i = 0; i < 4; ++i) out += at + i > s.size() ? '=' : kDigits[group >> (18 - 6 * i) & 63];
  }
}

}  // namespace

void append_json_value(std::string& out, std::string_view bytes) {
  if (!is_utf8(bytes)) {
    out += "{\"base64\":\"";
    append_base64(out, bytes);
    out += "\"}";
    return;
  }
  out += '"';
  for (char c : bytes) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    } else {
      out += c;
    }
  }
  out += '"';
}

void JsonLine::key(std::string_view name) {
  if (out_.size() > 1) out_ += ',';
  out_ += '"';
  out_ += name;
  out_ += "\":";
}

JsonLine& JsonLine::text(std::string_view name, std::string_view value) {
  key(name);
  append_json_value(out_, value);
  return *this;
}

JsonLine& JsonLine::time(std::string_view name, std::int64_t ms) {
  constexpr std::int64_t kYear10000 = 253'402'300'800'000;
  if (ms < 0 || ms >= kYear10000) return null(name);
  std::chrono::sys_time<std::chrono::milliseconds> at{std::chrono::milliseconds{ms}};
  auto day = std::chrono::floor<std::chrono::days>(at);
  std::chrono::year_month_day date{day};
  std::chrono::hh_mm_ss clock{at - day};
  return raw(name, fmt::format("\"{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z\"", static_cast<int>(date.year()), static_cast<unsigned>(date.month()),
                               static_cast<unsigned>(date.day()), clock.hours().count(), clock.minutes().count(), clock.seconds().count(),
                               clock.subseconds().count()));
}

JsonLine& JsonLine::hex32(std::string_view name, std::uint32_t value) { return raw(name, fmt::format("\"{:08x}\"", value)); }

}  // namespace tailrace::broker::log
