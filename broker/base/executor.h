#pragma once
/// The one thing coroutine code needs from an event loop: run this later, from a flat loop, on the same thread.
#include <coroutine>

namespace tailrace::broker {

/// Work queued by its owner; intrusive, so queueing never allocates. The owner keeps it alive until it ran.
struct Runnable {
  void (*run)(Runnable*) noexcept = nullptr;
  Runnable* next = nullptr;
};

/// Thread   all calls on the loop's own thread.
class Executor {
 public:
  virtual ~Executor() = default;
  /// Runs `work` after the current event handler returned, in the order of the posts. Never runs it inside the call.
  virtual void post(Runnable& work) = 0;
};

/// Suspends the current coroutine and lets everything queued before it run: `co_await yield_to(executor)`.
class YieldAwaiter : private Runnable {
 public:
  explicit YieldAwaiter(Executor& executor) : executor_{executor} {}
  [[nodiscard]] bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) noexcept {
    handle_ = handle;
    run = [](Runnable* self) noexcept { static_cast<YieldAwaiter*>(self)->handle_.resume(); };
    executor_.post(*this);
  }
  void await_resume() const noexcept {}

 private:
  Executor& executor_;
  std::coroutine_handle<> handle_;
};
[[nodiscard]] inline YieldAwaiter yield_to(Executor& executor) { return YieldAwaiter{executor}; }

}  // namespace tailrace::broker
