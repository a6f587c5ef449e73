#pragma once
/// Questions of other threads to a shard: `std::optional<T> answer = ask(loop, fn, 5s)`.
#include <condition_variable>
#include <coroutine>
#include <memory>
#include <mutex>
#include <optional>
#include <type_traits>
#include <utility>
#include <variant>

#include "base/task.h"
#include "io_asio/loop.h"
#include "shard/shards.h"

namespace tailrace::broker::io_asio {

namespace ask_detail {

template <class T>
struct State {
  std::mutex mutex;
  std::condition_variable changed;
  std::optional<T> answer;  // under the mutex, as is `over`
  bool over = false;
};

/// Says "over" when the question is gone, answered or not: nobody waits for a loop that has ended.
template <class T>
class Asked {
 public:
  explicit Asked(std::shared_ptr<State<T>> state) : state_{std::move(state)} {}
  Asked(Asked&&) noexcept = default;
  ~Asked() {
    if (!state_) return;
    std::lock_guard lock{state_->mutex};
    state_->over = true;
    state_->changed.notify_one();
  }
  void answer(T value) {
    std::lock_guard lock{state_->mutex};
    state_->answer.emplace(std::move(value));
  }

 private:
  std::shared_ptr<State<T>> state_;
};

/// A coroutine nobody waits for in this thread; it owns all it needs.
struct Detached {
  struct promise_type {
    Detached get_return_object() const noexcept { return {}; }
    [[nodiscard]] std::suspend_never initial_suspend() const noexcept { return {}; }
    [[nodiscard]] std::suspend_never final_suspend() const noexcept { return {}; }
    void return_void() const noexcept {}
    [[noreturn]] void unhandled_exception() const noexcept { std::terminate(); }
  };
};
template <class T, class F>
Detached serve(Asked<T> asked, F fn) {
  using Unwrapped = shard::shards_detail::Unwrap<std::invoke_result_t<F&>>;
  if constexpr (std::is_void_v<typename Unwrapped::type>) {
    if constexpr (Unwrapped::is_task) {
      co_await fn();
    } else {
      fn();
    }
    asked.answer({});
  } else if constexpr (Unwrapped::is_task) {
    asked.answer(co_await fn());
  } else {
    asked.answer(fn());
  }
}

}  // namespace ask_detail

/// Runs `fn`, which returns a value, nothing (answered as std::monostate) or a Task of these, on the loop's thread, and waits.
///
/// Thread   any but the loop's own, which would wait for itself.
/// Errors   nothing: the deadline passed, the loop was stopped, or too much was waiting already. After a deadline `fn` may
///          still run: it must own what it uses, and the shard must drain what it started.
template <class F>
auto ask(Loop& loop, F fn, Duration deadline) {
  using Unwrapped = shard::shards_detail::Unwrap<std::invoke_result_t<F&>>;
  using T = std::conditional_t<std::is_void_v<typename Unwrapped::type>, std::monostate, typename Unwrapped::type>;
  auto state = std::make_shared<ask_detail::State<T>>();
  ask_detail::Asked<T> asked{state};
  auto work = [asked = std::move(asked), fn = std::move(fn)]() mutable { ask_detail::serve(std::move(asked), std::move(fn)); };
  if (!loop.post_from_outside(std::move(work))) return std::optional<T>{};
  std::unique_lock lock{state->mutex};
  state->changed.wait_for(lock, deadline, [&] { return state->over; });
  return std::exchange(state->answer, std::nullopt);
}

}  // namespace tailrace::broker::io_asio
