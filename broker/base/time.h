#pragma once
/// Two kinds of time that must not be mixed: `Instant` is monotonic and drives timers and deadlines; `WallTime` is UTC in
/// milliseconds, stamped into records and frames, and may jump.
#include <chrono>
#include <cstdint>

namespace tailrace::broker {

using Duration = std::chrono::nanoseconds;
struct MonotonicTag {
  using duration = Duration;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<MonotonicTag>;
  static constexpr bool is_steady = true;
};
using Instant = std::chrono::time_point<MonotonicTag, Duration>;
using WallTime = std::chrono::sys_time<std::chrono::milliseconds>;
using namespace std::chrono_literals;

}  // namespace tailrace::broker
