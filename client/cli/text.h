#pragma once
/// Small pure pieces of text handling: sizes, durations, times, UTF-8, base64, "did you mean". No I/O, no clock.
#include <chrono>
#include <cstdint>
#include <expected>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tailrace::cli {

using Time = std::chrono::sys_time<std::chrono::milliseconds>;

/// What could not be read, as a sentence without a full stop: it is put behind the option's name.
template <class T>
using Parsed = std::expected<T, std::string>;

/// "512", "64KiB", "1.5 MiB", "1K" (= KiB), "10MB" (= 10^7), "2GiB". A bare number is bytes.
[[nodiscard]] Parsed<std::uint64_t> parse_size(std::string_view text);
/// "250ms", "30s", "1h30m", "7d", "100us", "1.5s". A bare number needs a unit, except 0. At least `low`; at most 100 years.
[[nodiscard]] Parsed<std::chrono::nanoseconds> parse_duration(std::string_view text, std::chrono::nanoseconds low = std::chrono::nanoseconds{0});
/// A whole decimal number in [low, high]; nothing before or after it. A `high` of kNoLimit is not mentioned.
inline constexpr std::int64_t kNoLimit = std::numeric_limits<std::int64_t>::max();
[[nodiscard]] Parsed<std::int64_t> parse_integer(std::string_view text, std::int64_t low, std::int64_t high);
/// Records per second: "5000", "0.5", "20k", "1.5M". Above 0, at most 100 million.
[[nodiscard]] Parsed<double> parse_rate(std::string_view text);
/// "x" is none of a, b and c, with what was perhaps meant.
[[nodiscard]] std::string not_a_choice(std::string_view text, std::span<const std::string> words);
/// "a, b and c".
[[nodiscard]] std::string listed(std::span<const std::string> words, std::string_view last = "and");

/// RFC 3339: "2026-02-14", "2026-02-14T08:30Z", "2026-02-14T08:30:05.123+02:00". A missing time is midnight, a missing zone
/// is UTC. Digits below a millisecond are cut. Years 0001-9999.
[[nodiscard]] Parsed<Time> parse_time(std::string_view text);
/// Always "2026-02-14T08:30:05.123Z".
void append_time(std::string& out, Time time);
[[nodiscard]] std::string format_time(Time time);

/// For people: "8 B", "1.5 KiB"; "850 us", "12 ms", "3.2 s", "2 h 5 min"; "1,234,567".
[[nodiscard]] std::string human_bytes(std::uint64_t bytes);
[[nodiscard]] std::string human_duration(std::chrono::nanoseconds duration);
[[nodiscard]] std::string human_count(std::uint64_t count);
/// "1 record", "2 records".
[[nodiscard]] std::string counted(std::uint64_t count, std::string_view noun);

/// No overlong forms, no surrogates, nothing above U+10FFFF.
[[nodiscard]] bool is_utf8(std::string_view bytes);

void append_base64(std::string& out, std::string_view bytes);
/// Standard alphabet, padding required, no white space: exactly what append_base64 writes.
[[nodiscard]] std::optional<std::string> decode_base64(std::string_view text);

/// Edits (insert, delete, replace, swap of neighbours) between two words.
[[nodiscard]] std::size_t edit_distance(std::string_view a, std::string_view b);
/// Up to three candidates that a person may have meant, closest first: few edits for the word's length, or one is the
/// beginning of the other.
[[nodiscard]] std::vector<std::string> close_names(std::string_view word, std::span<const std::string> candidates);

}  // namespace tailrace::cli
