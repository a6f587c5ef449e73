#include "text.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>

namespace tailrace::cli {
namespace {

std::string human_count_of(std::int64_t number) { return number < 0 ? fmt::format("{}", number) : human_count(static_cast<std::uint64_t>(number)); }

bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

/// A non-negative decimal at the front ("12", "1.5"); advances `text` past it.
std::optional<double> take_number(std::string_view& text) {
  std::size_t length = 0;
  bool digits = false, point = false;
  while (length < text.size() && (is_digit(text[length]) || (text[length] == '.' && !point))) {
    if (text[length] == '.') point = true;
    else digits = true;
    ++length;
  }
  if (!digits) return std::nullopt;
  double value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + length, value, std::chars_format::fixed);
  if (error != std::errc{} || end != text.data() + length) return std::nullopt;
  text.remove_prefix(length);
  return value;
}

/// Exactly `width` digits at the front; advances.
std::optional<int> take_digits(std::string_view& text, std::size_t width) {
  if (text.size() < width) return std::nullopt;
  int value = 0;
  for (std::size_t i = 0; i < width; ++i) {
    if (!is_digit(text[i])) return std::nullopt;
    value = value * 10 + (text[i] - '0');
  }
  text.remove_prefix(width);
  return value;
}

bool take(std::string_view& text, char c) {
  if (text.empty() || text.front() != c) return false;
  text.remove_prefix(1);
  return true;
}

constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

constexpr std::array<std::int8_t, 256> make_base64_values() {
  std::array<std::int8_t, 256> values{};
  for (auto& v : values) v = -1;
  for (std::size_t i = 0; i < kAlphabet.size(); ++i) values[static_cast<unsigned char>(kAlphabet[i])] = static_cast<std::int8_t>(i);
  return values;
}
constexpr auto kBase64Values = make_base64_values();

}  // namespace

Parsed<std::uint64_t> parse_size(std::string_view text) {
  auto rest = trimmed(text);
  auto refused = [&] { return std::unexpected(fmt::format("\"{}\" is not a size; write for example 512, 64KiB, 1MiB", text)); };
  // Whole numbers stay exact above 2^53.
  std::uint64_t whole = 0;
  auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), whole);
  const bool exact = error == std::errc{} && (end == rest.data() + rest.size() || *end != '.');
  auto number = take_number(rest);
  if (!number) return refused();
  auto unit = trimmed(rest);
  struct Unit {
    std::string_view name;
    std::uint64_t bytes;
  };
  static constexpr Unit kUnits[] = {{"", 1}, {"B", 1}, {"K", 1ull << 10}, {"k", 1ull << 10}, {"KiB", 1ull << 10}, {"kB", 1'000}, {"KB", 1'000},
                                    {"M", 1ull << 20}, {"MiB", 1ull << 20}, {"MB", 1'000'000}, {"G", 1ull << 30}, {"GiB", 1ull << 30},
                                    {"GB", 1'000'000'000}, {"T", 1ull << 40}, {"TiB", 1ull << 40}, {"TB", 1'000'000'000'000}};
  auto found = std::ranges::find(kUnits, unit, &Unit::name);
  if (found == std::end(kUnits)) return refused();
  constexpr auto kMax = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  if (exact) {
    if (whole > kMax / found->bytes) return std::unexpected(fmt::format("\"{}\" is too large", text));
    return whole * found->bytes;
  }
  double bytes = *number * static_cast<double>(found->bytes);
  if (bytes >= static_cast<double>(kMax)) return std::unexpected(fmt::format("\"{}\" is too large", text));
  return static_cast<std::uint64_t>(std::llround(bytes));
}

Parsed<std::chrono::nanoseconds> parse_duration(std::string_view text, std::chrono::nanoseconds low) {
  auto checked = [&](std::chrono::nanoseconds value) -> Parsed<std::chrono::nanoseconds> {
    if (value < low) return std::unexpected(fmt::format("\"{}\" is too short, at least {}", text, human_duration(low)));
    return value;
  };
  auto rest = trimmed(text);
  auto refused = [&] { return std::unexpected(fmt::format("\"{}\" is not a duration; write for example 250ms, 30s, 1h30m, 7d", text)); };
  if (rest == "0") return checked(std::chrono::nanoseconds{0});
  if (rest.empty()) return refused();
  struct Unit {
    std::string_view name;
    double nanoseconds;
  };
  // Longer names first where one begins another.
  static constexpr Unit kUnits[] = {{"ns", 1}, {"us", 1e3}, {"µs", 1e3}, {"ms", 1e6}, {"s", 1e9}, {"m", 60e9}, {"h", 3600e9}, {"d", 86400e9}, {"w", 7 * 86400e9}};
  constexpr double kMax = 100.0 * 366 * 86400e9;
  double total = 0;
  while (!rest.empty()) {
    auto number = take_number(rest);
    if (!number) return refused();
    std::size_t length = 0;
    while (length < rest.size() && !is_digit(rest[length]) && rest[length] != ' ') ++length;
    auto found = std::ranges::find(kUnits, rest.substr(0, length), &Unit::name);
    if (found == std::end(kUnits)) return refused();
    rest.remove_prefix(length);
    while (take(rest, ' ')) {}
    total += *number * found->nanoseconds;
    if (total > kMax) return std::unexpected(fmt::format("\"{}\" is longer than 100 years", text));
  }
  return checked(std::chrono::nanoseconds{std::llround(total)});
}

Parsed<std::int64_t> parse_integer(std::string_view text, std::int64_t low, std::int64_t high) {
  std::int64_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc::invalid_argument || end != text.data() + text.size() || text.empty()) {
    return std::unexpected(fmt::format("\"{}\" is not a whole number", text));
  }
  if (high == kNoLimit && error == std::errc{} && value < low) return std::unexpected(fmt::format("{} is not {} or more", text, low));
  if (error != std::errc{} || value < low || value > high) {
    return std::unexpected(high == kNoLimit ? fmt::format("{} is too large", text) : fmt::format("{} is not between {} and {}", text, human_count_of(low), human_count_of(high)));
  }
  return value;
}

Parsed<double> parse_rate(std::string_view text) {
  auto rest = trimmed(text);
  auto refused = [&] { return std::unexpected(fmt::format("\"{}\" is not a number of records per second; write for example 0.5, 5000, 20k", text)); };
  auto number = take_number(rest);
  if (!number) return refused();
  if (rest == "k" || rest == "K") *number *= 1e3;
  else if (rest == "M") *number *= 1e6;
  else if (!rest.empty()) return refused();
  constexpr double kLeast = 1e-3, kMost = 1e8;
  if (*number < kLeast || *number > kMost) return std::unexpected(fmt::format("\"{}\" is not between 0.001 and 100M records per second", text));
  return *number;
}

std::string listed(std::span<const std::string> words, std::string_view last) {
  std::string out;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (i > 0) out += i + 1 == words.size() ? fmt::format(" {} ", last) : std::string{", "};
    out += words[i];
  }
  return out;
}

std::string not_a_choice(std::string_view text, std::span<const std::string> words) {
  auto close = close_names(text, words);
  if (words.size() == 1) return fmt::format("\"{}\" is not possible here, only {}", text, words.front());
  return fmt::format("\"{}\" is none of {}{}", text, listed(words), close.empty() ? "" : fmt::format("; did you mean {}?", close.front()));
}

Parsed<Time> parse_time(std::string_view text) {
  using namespace std::chrono;
  auto refused = [&] { return std::unexpected(fmt::format("\"{}\" is not a time; write for example 2026-02-14 or 2026-02-14T08:30:00Z", text)); };
  auto rest = text;
  auto y = take_digits(rest, 4);
  if (!y || !take(rest, '-')) return refused();
  auto mo = take_digits(rest, 2);
  if (!mo || !take(rest, '-')) return refused();
  auto d = take_digits(rest, 2);
  if (!d) return refused();
  year_month_day date{year{*y}, month{static_cast<unsigned>(*mo)}, day{static_cast<unsigned>(*d)}};
  if (!date.ok() || *y < 1) return refused();
  Time at = sys_days{date};
  if (rest.empty()) return at;
  if (!take(rest, 'T') && !take(rest, 't') && !take(rest, ' ')) return refused();
  auto h = take_digits(rest, 2);
  if (!h || !take(rest, ':')) return refused();
  auto mi = take_digits(rest, 2);
  if (!mi) return refused();
  int s = 0, ms = 0;
  if (take(rest, ':')) {
    auto seconds_read = take_digits(rest, 2);
    if (!seconds_read) return refused();
    s = *seconds_read;
    if (take(rest, '.')) {
      int digits = 0;
      while (!rest.empty() && is_digit(rest.front())) {
        if (digits < 3) ms = ms * 10 + (rest.front() - '0');
        ++digits;
        rest.remove_prefix(1);
      }
      if (digits == 0) return refused();
      for (; digits < 3; ++digits) ms *= 10;
    }
  }
  if (*h > 23 || *mi > 59 || s > 60) return refused();  // 60: a leap second counts as the next minute's first
  at += hours{*h} + minutes{*mi} + seconds{s} + milliseconds{ms};
  if (rest.empty() || rest == "Z" || rest == "z") return at;
  const char sign = rest.front();
  if (sign != '+' && sign != '-') return refused();
  rest.remove_prefix(1);
  auto zone_hours = take_digits(rest, 2);
  if (!zone_hours) return refused();
  take(rest, ':');
  auto zone_minutes = take_digits(rest, 2);
  if (!zone_minutes || !rest.empty() || *zone_hours > 23 || *zone_minutes > 59) return refused();
  auto zone = hours{*zone_hours} + minutes{*zone_minutes};
  return sign == '+' ? at - zone : at + zone;
}

void append_time(std::string& out, Time time) {
  using namespace std::chrono;
  auto days_part = floor<days>(time);
  year_month_day date{days_part};
  hh_mm_ss clock{time - days_part};
  fmt::format_to(std::back_inserter(out), "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", static_cast<int>(date.year()),
                 static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()), clock.hours().count(), clock.minutes().count(),
                 clock.seconds().count(), clock.subseconds().count());
}

std::string format_time(Time time) {
  std::string out;
  append_time(out, time);
  return out;
}

std::string human_bytes(std::uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} B", bytes);
  static constexpr std::string_view kUnits[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  return value < 100 ? fmt::format("{:.1f} {}", value, kUnits[unit]) : fmt::format("{:.0f} {}", value, kUnits[unit]);
}

std::string human_duration(std::chrono::nanoseconds duration) {
  const double ns = static_cast<double>(duration.count());
  if (ns < 1e3) return fmt::format("{} ns", duration.count());
  if (ns < 1e6) return fmt::format("{:.0f} us", ns / 1e3);
  if (ns < 1e7) return fmt::format("{:.1f} ms", ns / 1e6);
  if (ns < 1e9) return fmt::format("{:.0f} ms", ns / 1e6);
  if (ns < 100e9) return fmt::format("{:.1f} s", ns / 1e9);
  const auto seconds = static_cast<std::uint64_t>(ns / 1e9);
  if (seconds < 3600) return fmt::format("{} min {} s", seconds / 60, seconds % 60);
  return fmt::format("{} h {} min", seconds / 3600, seconds % 3600 / 60);
}

std::string human_count(std::uint64_t count) {
  auto digits = fmt::format("{}", count);
  std::string out;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) out += ',';
    out += digits[i];
  }
  return out;
}

std::string counted(std::uint64_t count, std::string_view noun) { return fmt::format("{} {}{}", human_count(count), noun, count == 1 ? "" : "s"); }

bool is_utf8(std::string_view bytes) {
  const auto* p = reinterpret_cast<const unsigned char*>(bytes.data());
  const auto* end = p + bytes.size();
  auto continues = [&](const unsigned char* at, unsigned char low = 0x80, unsigned char high = 0xBF) { return at < end && *at >= low && *at <= high; };
  while (p < end) {
    const unsigned char c = *p;
    if (c < 0x80) {
      ++p;
    } else if (c >= 0xC2 && c <= 0xDF) {
      if (!continues(p + 1)) return false;
      p += 2;
    } else if (c >= 0xE0 && c <= 0xEF) {
      if (!continues(p + 1, c == 0xE0 ? 0xA0 : 0x80, c == 0xED ? 0x9F : 0xBF) || !continues(p + 2)) return false;
      p += 3;
    } else if (c >= 0xF0 && c <= 0xF4) {
      if (!continues(p + 1, c == 0xF0 ? 0x90 : 0x80, c == 0xF4 ? 0x8F : 0xBF) || !continues(p + 2) || !continues(p + 3)) return false;
      p += 4;
    } else {
      return false;
    }
  }
  return true;
}

void append_base64(std::string& out, std::string_view bytes) {
  std::size_t i = 0;
  auto at = [&](std::size_t k) { return static_cast<std::uint32_t>(static_cast<unsigned char>(bytes[k])); };
  for (; i + 2 < bytes.size(); i += 3) {
    const std::uint32_t v = at(i) << 16 | at(i + 1) << 8 | at(i + 2);
    for (int shift : {18, 12, 6, 0}) out += kAlphabet[v >> shift & 63];
  }
  if (i + 1 == bytes.size()) {
    const std::uint32_t v = at(i) << 16;
    out += kAlphabet[v >> 18];
    out += kAlphabet[v >> 12 & 63];
    out += "==";
  } else if (i + 2 == bytes.size()) {
    const std::uint32_t v = at(i) << 16 | at(i + 1) << 8;
    out += kAlphabet[v >> 18];
    out += kAlphabet[v >> 12 & 63];
    out += kAlphabet[v >> 6 & 63];
    out += '=';
  }
}

std::optional<std::string> decode_base64(std::string_view text) {
  if (text.size() % 4 != 0) return std::nullopt;
  std::string out;
  out.reserve(text.size() / 4 * 3);
  for (std::size_t i = 0; i < text.size(); i += 4) {
    const bool last = i + 4 == text.size();
    int padding = 0;
    if (last && text[i + 3] == '=') padding = text[i + 2] == '=' ? 2 : 1;
    std::uint32_t v = 0;
    for (int k = 0; k < 4; ++k) {
      const int value = k >= 4 - padding ? 0 : kBase64Values[static_cast<unsigned char>(text[i + static_cast<std::size_t>(k)])];
      if (value < 0) return std::nullopt;
      v = v << 6 | static_cast<std::uint32_t>(value);
    }
    // Bits that encode nothing must be zero, or two texts would mean the same bytes.
    if ((padding == 1 && (v & 0xFF) != 0) || (padding == 2 && (v & 0xFFFF) != 0)) return std::nullopt;
    out += static_cast<char>(v >> 16);
    if (padding < 2) out += static_cast<char>(v >> 8 & 0xFF);
    if (padding < 1) out += static_cast<char>(v & 0xFF);
  }
  return out;
}

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before(b.size() + 1), above(b.size() + 1), row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) above[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, above[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) row[j] = std::min(row[j], before[j - 2] + 1);
    }
    std::swap(before, above);
    std::swap(above, row);
  }
  return above[b.size()];
}

std::vector<std::string> close_names(std::string_view word, std::span<const std::string> candidates) {
  struct Scored {
    std::size_t distance;
    const std::string* name;
  };
  std::vector<Scored> scored;
  constexpr std::size_t kLongestWord = 300;  // topic names have at most 249; distance is quadratic
  if (word.empty() || word.size() > kLongestWord) return {};
  for (const auto& candidate : candidates) {
    if (candidate.size() > kLongestWord) continue;
    const bool prefix = word.size() >= 3 && (candidate.starts_with(word) || (candidate.size() >= 3 && word.starts_with(candidate)));
    const auto distance = edit_distance(word, candidate);
    const auto allowed = std::max<std::size_t>(1, std::min<std::size_t>(3, word.size() / 3));
    if (distance <= allowed || prefix) scored.push_back({std::min(distance, allowed + 1), &candidate});
  }
  // By pointer among equals: the order of the candidates. (stable_sort uses what libstdc++ 12 marks deprecated.)
  std::ranges::sort(scored, {}, [](const Scored& s) { return std::pair{s.distance, s.name}; });
  std::vector<std::string> names;
  for (const auto& s : scored) {
    if (names.size() == 3) break;
    names.push_back(*s.name);
  }
  return names;
}

}  // namespace tailrace::cli
