#pragma once
/// Where a read begins and ends: the value of --from and --until.
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>

#include "text.h"

namespace tailrace::cli {

struct AtStart {
  friend bool operator==(AtStart, AtStart) = default;
};
struct AtEnd {  ///< the high watermark of the moment the command starts
  friend bool operator==(AtEnd, AtEnd) = default;
};
struct AtOffset {  ///< of one partition
  std::int64_t offset;
  friend bool operator==(AtOffset, AtOffset) = default;
};
struct LastRecords {  ///< the last N of all partitions together, by time
  std::uint64_t count;
  friend bool operator==(LastRecords, LastRecords) = default;
};
struct AtTime {
  Time time;
  friend bool operator==(AtTime, AtTime) = default;
};
struct AtGroup {  ///< where the group of -g stands
  friend bool operator==(AtGroup, AtGroup) = default;
};
using ReadPoint = std::variant<AtStart, AtEnd, AtOffset, LastRecords, AtTime, AtGroup>;

/// start | end | OFFSET | -N | -1h | RFC 3339 time or date. "-1h" counts back from `now`.
[[nodiscard]] Parsed<ReadPoint> parse_from(std::string_view text, Time now);
/// end | OFFSET | -1h | RFC 3339: an exclusive end. "start" and "-N" make no sense there and say so.
[[nodiscard]] Parsed<ReadPoint> parse_until(std::string_view text, Time now);

}  // namespace tailrace::cli
