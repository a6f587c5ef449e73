#pragma once
/// What `tail` will read: flags and a topic's present bounds, made into offsets. Pure, so that each rule has a test.
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "failure.h"
#include "flags.h"
#include "read_point.h"
#include "tailrace/consumer.h"

namespace tailrace::cli {

struct Bounds {
  std::int32_t partition = 0;
  std::int64_t start = 0;  ///< log start
  std::int64_t end = 0;    ///< high watermark
};

struct TailRequest {
  ReadPoint from = AtStart{};
  std::optional<ReadPoint> until;
  bool follow = false;
  bool by_default = false;  ///< stops at the end only because it is not followed: worth a word
  std::vector<std::int32_t> partitions;  ///< empty: all
  OutOfRange out_of_range = OutOfRange::error;
};

/// Flags to a request. On a terminal the default is the last 10 (or -n, if fewer) and then to follow; otherwise all of it,
/// to the end. `--from end` follows, as there is nothing before it.
[[nodiscard]] Outcome<TailRequest> tail_request(const TailFlags& flags, bool stdout_is_terminal, Time now);

struct TailRange {
  std::int32_t partition = 0;
  std::int64_t from = 0;
  std::int64_t until = 0;  ///< exclusive; for a followed topic where "new" begins
};

struct TailPlan {
  std::vector<TailRange> ranges;
  bool beyond_end = false;  ///< --until names an offset that is not there yet: the reading stops at the end all the same
  std::uint64_t last = 0;  ///< not 0: of the ranges only the last so many records, merged by time
  [[nodiscard]] std::uint64_t records() const {
    std::uint64_t n = 0;
    for (const auto& r : ranges) n += static_cast<std::uint64_t>(r.until - r.from);
    return n;
  }
};

/// `times` answers the first offset at or after a time, per partition, or where the group stands; asked only when that is in the request.
using OffsetsByTime = std::map<std::int32_t, std::int64_t>;
[[nodiscard]] Outcome<TailPlan> tail_plan(const std::string& topic, const TailRequest& request, const std::vector<Bounds>& bounds,
                                          const OffsetsByTime& from_times, const OffsetsByTime& until_times);

/// The last `count` records of several partitions together: repeatedly takes, from the partitions' ends, the one with the
/// latest time (of equal times the higher partition's), so that the order within a partition always stays. Answers
/// (list, index) pairs in the order to print. `times[i]` are one partition's times, oldest first.
struct Pick {
  std::size_t list;
  std::size_t index;
  friend bool operator==(const Pick&, const Pick&) = default;
};
[[nodiscard]] std::vector<Pick> last_by_time(const std::vector<std::vector<std::int64_t>>& times, std::uint64_t count);

}  // namespace tailrace::cli
