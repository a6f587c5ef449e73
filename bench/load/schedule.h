#pragma once
/// When each record of an open-loop run is meant to be sent. The schedule never waits for the system under test: a sender
/// that is late sends at once and keeps the intended time, so that a stall of the broker counts against every record that
/// should have gone out meanwhile (what closed loops hide, "coordinated omission").
#include <chrono>
#include <cstdint>

namespace tailrace::load {

class Schedule {
 public:
  using Clock = std::chrono::steady_clock;
  /// `rate` records per second, > 0.
  Schedule(Clock::time_point start, double rate) : start_(start), rate_(rate) {}
  [[nodiscard]] Clock::time_point intended(std::uint64_t index) const {
    return start_ + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(static_cast<double>(index) / rate_));
  }
  /// How many records are meant to have been sent by `now`.
  [[nodiscard]] std::uint64_t due(Clock::time_point now) const {
    if (now < start_) return 0;
    return static_cast<std::uint64_t>(std::chrono::duration<double>(now - start_).count() * rate_) + 1;
  }

 private:
  Clock::time_point start_;
  double rate_;
};

}  // namespace tailrace::load
