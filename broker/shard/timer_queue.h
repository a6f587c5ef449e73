#pragma once
/// Armed timers of one loop: a binary heap that knows each timer's place, so that disarming costs O(log n) and an idle
/// timer costs nothing. Shared by the production loop and the simulator.
#include <optional>
#include <vector>

#include "io/timer.h"

namespace tailrace::broker::shard {

/// Owns     nothing but places: a timer belongs to its user, who disarms it before it goes away.
/// Thread   one loop's.
/// Order    by due time; timers due at the same instant fire in the order they were armed, so a simulated run repeats.
/// Bound    one place for each armed timer; whoever owns timers bounds them.
class TimerQueue {
 public:
  TimerQueue() = default;
  TimerQueue(const TimerQueue&) = delete;
  TimerQueue& operator=(const TimerQueue&) = delete;

  void arm(io::Timer& timer, Instant due);  // re-arms if armed
  void disarm(io::Timer& timer);            // nothing if idle
  [[nodiscard]] std::optional<Instant> next_due() const;
  /// Fires the timers that are due at `now`; each is idle when its `fire` runs and may be armed again there. A timer armed
  /// meanwhile waits for the next call if its turn has not come, so one call always ends. Answers how many fired.
  std::size_t fire_due(Instant now);
  [[nodiscard]] std::size_t size() const { return heap_.size(); }

 private:
  struct Place {
    Instant due;
    std::uint64_t order;
    io::Timer* timer;
    [[nodiscard]] bool before(const Place& other) const { return due != other.due ? due < other.due : order < other.order; }
  };
  void put(std::size_t at, Place place);
  void sift_up(std::size_t at, Place place);
  void sift_down(std::size_t at, Place place);
  void remove_at(std::size_t at);
  std::vector<Place> heap_;
  std::uint64_t next_order_ = 0;
};

}  // namespace tailrace::broker::shard
