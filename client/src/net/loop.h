#pragma once
/// The client's one I/O thread: a reactor with posting and timers. Only this folder names Asio.
///
/// Thread   post() and stop() from anywhere; everything else on the loop's thread, or before run().
/// Bounds   posted functions are few: each source posts once and waits until its function ran.
#include <chrono>
#include <functional>
#include <memory>

namespace tailrace::inline v1::detail {

using Clock = std::chrono::steady_clock;
using TimePoint = Clock::time_point;

class Loop {
 public:
  struct Impl;
  Loop();
  ~Loop();
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  /// Runs until stop(), then what was posted before that. Functions posted later are dropped unrun.
  void run();
  void stop();
  void post(std::move_only_function<void()> function);
  [[nodiscard]] bool on_loop_thread() const;
  [[nodiscard]] Impl& impl() { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

/// One timer: arming again replaces, cancelling or destroying it drops the callback.
class LoopTimer {
 public:
  explicit LoopTimer(Loop& loop);
  ~LoopTimer();
  LoopTimer(const LoopTimer&) = delete;
  LoopTimer& operator=(const LoopTimer&) = delete;
  void arm(TimePoint at, std::move_only_function<void()> function);
  void cancel();
  [[nodiscard]] bool armed() const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace tailrace::inline v1::detail
