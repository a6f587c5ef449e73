#pragma once
/// How single values are written: sizes, durations, whole numbers.
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tailrace::broker::server {

/// "512B", "64KiB", "1GiB", also kB, MB, GB, TB; no fraction, no bare number. nullopt: not a size, or more than 64 bits.
[[nodiscard]] std::optional<std::uint64_t> parse_size(std::string_view text);
/// "500ms", "30s", "5m", "12h", "7d". nullopt: not a duration, or too long for 64-bit milliseconds.
[[nodiscard]] std::optional<std::chrono::milliseconds> parse_duration(std::string_view text);
[[nodiscard]] std::optional<std::uint64_t> parse_integer(std::string_view text);
/// The shortest exact spelling that the parsers above take back.
[[nodiscard]] std::string format_size(std::uint64_t bytes);
[[nodiscard]] std::string format_duration(std::chrono::milliseconds duration);

}  // namespace tailrace::broker::server
