#pragma once
/// A deterministic runtime for one simulated process: virtual time, timers, a flat executor and seeded randomness. The
/// same seed and the same calls give the same events in the same order, and the same hash of them.
#include <coroutine>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "base/executor.h"
#include "base/random.h"
#include "base/task.h"
#include "io/clock.h"
#include "io/timer.h"

namespace tailrace::broker::sim {

/// Holds something that may never be destroyed, so that a leak checker sees it is meant.
void keep_forever(void* thing);

/// Thread   one; nothing here is shared.
/// Time     stands still while code runs and moves only from one timer to the next.
/// Order    posted work first, in order of the posts; then the timer due first, ties in order of arming.
class SimLoop final : public io::Clock, public io::Timers, public Executor {
 public:
  explicit SimLoop(std::uint64_t seed);
  ~SimLoop() override = default;
  SimLoop(const SimLoop&) = delete;
  SimLoop& operator=(const SimLoop&) = delete;

  [[nodiscard]] Instant now() const override { return now_; }
  /// UTC as this process sees it: the start given by set_wall, plus monotonic time since, plus all jumps.
  [[nodiscard]] WallTime wall() const override;
  void jump_wall(std::chrono::milliseconds by) { wall_shift_ += by; }
  void set_wall(WallTime to) { wall_shift_ += to - wall(); }
  /// A stopped wall clock answers the same time until started again.
  void stop_wall();
  void start_wall();

  void arm(io::Timer& timer, Instant due) override;
  void disarm(io::Timer& timer) override;
  void post(Runnable& work) override;

  /// When the next event is due; now, when work is posted; max: there is none.
  [[nodiscard]] Instant next_due() const { return ready_ ? now_ : heap_.empty() ? Instant::max() : std::max(now_, heap_.front().due); }
  /// Time passed while this process did not run: what became due meanwhile is late.
  void move_to(Instant now) { now_ = std::max(now_, now); }

  /// One event; false when there is none. Time moves to the event.
  bool step();
  /// Until nothing is posted and no timer is armed, or the next timer lies beyond `limit` of virtual time. True: idle.
  bool run_until_idle(Duration limit = std::chrono::hours{1});
  void run_for(Duration duration);
  /// True: the predicate held, tested before each event. False: idle, or `limit` of virtual time or `steps` events passed.
  template <class Predicate>
  bool run_until(Predicate predicate, Duration limit = std::chrono::hours{1}, std::uint64_t steps = 50'000'000) {
    Instant end = now_ + limit;
    for (std::uint64_t i = 0; i < steps; ++i) {
      if (predicate()) return true;
      if (ready_ == nullptr && (heap_.empty() || heap_.front().due > end)) return false;
      step();
    }
    return false;
  }
  /// Runs a task to its end and answers its value; nothing when it does not end within `limit`. A task that hangs is
  /// left where it waits: its frame is leaked on purpose, since nobody may destroy it under a running operation.
  template <class T>
  std::optional<T> run(Task<T> task, Duration limit = std::chrono::minutes{10}) {
    auto state = std::make_unique<Running<T>>();
    state->scope.spawn(keep(std::move(task), state.get()));
    if (run_until([&] { return state->scope.running() == 0; }, limit)) return std::move(state->value);
    keep_forever(state.release());
    return std::nullopt;
  }
  bool run(Task<void> task, Duration limit = std::chrono::minutes{10}) {
    return run(as_value(std::move(task)), limit).has_value();
  }

  /// A generator for one purpose: a draw more in one stream shifts no other.
  [[nodiscard]] Random stream(std::string_view name) const;
  /// The one the product draws from.
  [[nodiscard]] Random& random() { return random_; }

  /// Adds to the hash of all events.
  void note(std::uint64_t what, std::uint64_t a = 0, std::uint64_t b = 0);
  [[nodiscard]] std::uint64_t hash() const { return hash_; }
  [[nodiscard]] std::uint64_t events() const { return events_; }
  [[nodiscard]] std::size_t armed() const { return heap_.size(); }

 private:
  template <class T>
  struct Running {
    TaskScope scope;
    std::optional<T> value;
  };
  template <class T>
  static Task<void> keep(Task<T> task, Running<T>* into) {
    into->value.emplace(co_await std::move(task));
  }
  static Task<bool> as_value(Task<void> task) {
    co_await std::move(task);
    co_return true;
  }
  struct Entry {
    Instant due;
    std::uint64_t order;
    io::Timer* timer;
    [[nodiscard]] bool before(const Entry& other) const {
      return due != other.due ? due < other.due : order < other.order;
    }
  };
  void place(std::size_t at, Entry entry);
  void sift_up(std::size_t at, Entry entry);
  void sift_down(std::size_t at, Entry entry);

  std::uint64_t seed_;
  Random random_;
  Instant now_{};
  std::chrono::milliseconds wall_shift_;
  std::optional<WallTime> stopped_wall_;
  std::vector<Entry> heap_;
  std::uint64_t order_ = 0;
  Runnable* ready_ = nullptr;
  Runnable* last_ready_ = nullptr;
  std::uint64_t hash_ = 0xcbf29ce484222325ULL;
  std::uint64_t events_ = 0;
};

}  // namespace tailrace::broker::sim
