#include "read_point.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

namespace tailrace::cli {
namespace {

bool all_digits(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

Parsed<ReadPoint> parse(std::string_view text, Time now, bool is_from) {
  constexpr auto kMax = std::numeric_limits<std::int64_t>::max();
  if (text == "start" && is_from) return AtStart{};
  if (text == "end") return AtEnd{};
  if (all_digits(text)) {
    auto offset = parse_integer(text, 0, kMax);
    if (!offset) return std::unexpected(offset.error());
    return AtOffset{*offset};
  }
  if (text.starts_with('-')) {
    auto rest = text.substr(1);
    if (all_digits(rest)) {
      if (!is_from) return std::unexpected(fmt::format("\"{}\" counts records back from the end, which can only be a beginning; use -n, an offset or a time", text));
      auto count = parse_integer(rest, 1, 1'000'000'000);
      if (!count) return std::unexpected(count.error());
      return LastRecords{static_cast<std::uint64_t>(*count)};
    }
    auto ago = parse_duration(rest);
    if (!ago) return std::unexpected(fmt::format("\"{}\" is neither a number of records (-10) nor an age (-1h, -30m)", text));
    return AtTime{now - std::chrono::duration_cast<std::chrono::milliseconds>(*ago)};
  }
  if (!text.empty() && text.front() >= '0' && text.front() <= '9') {
    auto time = parse_time(text);
    if (!time) return std::unexpected(time.error());
    return AtTime{*time};
  }
  // The words of other systems.
  for (std::string_view other : {"earliest", "beginning", "begin", "first", "oldest"}) {
    if (text == other && is_from) return std::unexpected(fmt::format("\"{}\" is not a position; did you mean start?", text));
  }
  for (std::string_view other : {"latest", "last", "newest", "now"}) {
    if (text == other) return std::unexpected(fmt::format("\"{}\" is not a position; did you mean end?", text));
  }
  return std::unexpected(is_from ? fmt::format("\"{}\" is not a position: start, end, an OFFSET, -N (last N), -1h (age) or a time like 2026-02-14T08:30:00Z", text)
                                 : fmt::format("\"{}\" is not an end: end, an OFFSET, -1h (age) or a time like 2026-02-14T08:30:00Z", text));
}

}  // namespace

Parsed<ReadPoint> parse_from(std::string_view text, Time now) { return parse(text, now, true); }
Parsed<ReadPoint> parse_until(std::string_view text, Time now) { return parse(text, now, false); }

}  // namespace tailrace::cli
