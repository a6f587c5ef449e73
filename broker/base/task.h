#pragma once
/// Our coroutine type. It knows no reactor, so `log` and `service` run on a real shard and in the simulator alike.
///
/// Task<T>     starts when awaited, resumes its awaiter by symmetric transfer, is awaited at most once. A coroutine takes
///             its parameters by value, or by reference only when its caller awaits it.
/// TaskScope   owns background tasks: spawn() starts one at once, drain() waits for all of them. Nothing outlives its
///             owner: destroying a scope with running tasks is a bug, and stops the process.
/// Exceptions  never cross: one that escapes a task body ends the process. Fallible tasks are Task<Result<T>>.
#include <coroutine>
#include <exception>
#include <optional>
#include <utility>

#include "base/check.h"

namespace tailrace::broker {

template <class T = void>
class Task;

namespace task_detail {

struct PromiseBase {
  std::coroutine_handle<> continuation = std::noop_coroutine();
  struct FinalAwaiter {
    [[nodiscard]] bool await_ready() const noexcept { return false; }
    template <class P>
    std::coroutine_handle<> await_suspend(std::coroutine_handle<P> self) const noexcept {
      return self.promise().continuation;
    }
    void await_resume() const noexcept {}
  };
  [[nodiscard]] std::suspend_always initial_suspend() const noexcept { return {}; }
  [[nodiscard]] FinalAwaiter final_suspend() const noexcept { return {}; }
  [[noreturn]] void unhandled_exception() const noexcept { std::terminate(); }
};

template <class T>
struct Promise : PromiseBase {
  std::optional<T> value;
  Task<T> get_return_object();
  template <class U>
  void return_value(U&& result) {
    value.emplace(std::forward<U>(result));
  }
  T take() { return *std::move(value); }
};
template <>
struct Promise<void> : PromiseBase {
  Task<void> get_return_object();
  void return_void() const noexcept {}
  void take() const noexcept {}
};

}  // namespace task_detail

template <class T>
class [[nodiscard]] Task {
 public:
  using promise_type = task_detail::Promise<T>;
  Task(Task&& other) noexcept : handle_{std::exchange(other.handle_, nullptr)} {}
  Task& operator=(Task&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Task() {
    if (handle_) handle_.destroy();
  }
  struct Awaiter {
    std::coroutine_handle<promise_type> handle;
    [[nodiscard]] bool await_ready() const noexcept { return false; }
    std::coroutine_handle<> await_suspend(std::coroutine_handle<> caller) const noexcept {
      handle.promise().continuation = caller;
      return handle;
    }
    T await_resume() const { return handle.promise().take(); }
  };
  Awaiter operator co_await() && noexcept { return Awaiter{handle_}; }

 private:
  friend promise_type;
  explicit Task(std::coroutine_handle<promise_type> handle) : handle_{handle} {}
  std::coroutine_handle<promise_type> handle_;
};

template <class T>
Task<T> task_detail::Promise<T>::get_return_object() {
  return Task<T>{std::coroutine_handle<Promise<T>>::from_promise(*this)};
}
inline Task<void> task_detail::Promise<void>::get_return_object() {
  return Task<void>{std::coroutine_handle<Promise<void>>::from_promise(*this)};
}

/// Thread   one loop's thread.
/// Bound    the caller's: a scope counts its tasks (`running()`), whoever spawns decides how many are allowed.
class TaskScope {
 public:
  TaskScope() = default;
  TaskScope(const TaskScope&) = delete;
  TaskScope& operator=(const TaskScope&) = delete;
  ~TaskScope() { TAILRACE_CHECK(running_ == 0, "a task scope is drained before it is destroyed"); }

  /// Starts the task now, on the caller's stack, until its first suspension.
  void spawn(Task<void> task) { run_detached(*this, std::move(task)); }
  [[nodiscard]] std::size_t running() const { return running_; }

  /// Waits until no task of this scope runs. One waiter at a time.
  auto drain() noexcept {
    struct Awaiter {
      TaskScope& scope;
      [[nodiscard]] bool await_ready() const noexcept { return scope.running_ == 0; }
      void await_suspend(std::coroutine_handle<> caller) const noexcept { scope.waiting_ = caller; }
      void await_resume() const noexcept {}
    };
    return Awaiter{*this};
  }

 private:
  struct Detached {
    struct promise_type {
      Detached get_return_object() const noexcept { return {}; }
      [[nodiscard]] std::suspend_never initial_suspend() const noexcept { return {}; }
      [[nodiscard]] std::suspend_never final_suspend() const noexcept { return {}; }
      void return_void() const noexcept {}
      [[noreturn]] void unhandled_exception() const noexcept { std::terminate(); }
    };
  };
  static Detached run_detached(TaskScope& scope, Task<void> task) {
    ++scope.running_;
    { // The task's frame, with all it references, is gone before drain() returns.
      Task<void> owned = std::move(task);
      co_await std::move(owned);
    }
    if (--scope.running_ == 0 && scope.waiting_) std::exchange(scope.waiting_, nullptr).resume();
  }
  std::size_t running_ = 0;
  std::coroutine_handle<> waiting_;
};

}  // namespace tailrace::broker
