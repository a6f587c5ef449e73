#pragma once
/// Waiting with a deadline, built from Notifier, Timer and Executor.
#include <coroutine>

#include "base/notifier.h"
#include "io/runtime.h"

namespace tailrace::broker::io {

/// `bool notified = co_await WaitUntil{notifier, runtime, due};` false: the deadline passed first.
class WaitUntil : private Notifier::Waiter, private Timer, private Runnable {
 public:
  WaitUntil(Notifier& notifier, Runtime& runtime, Instant due_at) : notifier_{notifier}, runtime_{runtime}, due_at_{due_at} {}
  [[nodiscard]] bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) noexcept {
    handle_ = handle;
    run = [](Runnable* self) noexcept { static_cast<WaitUntil*>(self)->handle_.resume(); };
    Notifier::Waiter::fire = [](Notifier::Waiter* self) noexcept {
      auto* me = static_cast<WaitUntil*>(self);
      me->notified_ = true;
      me->runtime_.timers.disarm(*me);
      me->runtime_.executor.post(*me);
    };
    Timer::fire = [](Timer* self) noexcept {
      auto* me = static_cast<WaitUntil*>(self);
      me->notifier_.remove(*me);
      me->runtime_.executor.post(*me);
    };
    notifier_.add(*this);
    runtime_.timers.arm(*this, due_at_);
  }
  [[nodiscard]] bool await_resume() const noexcept { return notified_; }

 private:
  Notifier& notifier_;
  Runtime& runtime_;
  Instant due_at_;
  bool notified_ = false;
  std::coroutine_handle<> handle_;
};

/// `co_await SleepUntil{runtime, due};` Not cancellable: keep it short, or wait on a notifier instead.
class SleepUntil : private Timer, private Runnable {
 public:
  SleepUntil(Runtime& runtime, Instant due_at) : runtime_{runtime}, due_at_{due_at} {}
  [[nodiscard]] bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) noexcept {
    handle_ = handle;
    run = [](Runnable* self) noexcept { static_cast<SleepUntil*>(self)->handle_.resume(); };
    Timer::fire = [](Timer* self) noexcept {
      auto* me = static_cast<SleepUntil*>(self);
      me->runtime_.executor.post(*me);
    };
    runtime_.timers.arm(*this, due_at_);
  }
  void await_resume() const noexcept {}

 private:
  Runtime& runtime_;
  Instant due_at_;
  std::coroutine_handle<> handle_;
};

}  // namespace tailrace::broker::io
