#pragma once
/// One handle, four ways to finish it.
///
///     auto sent = producer.send(record);
///     Result<Receipt> r = sent.get();                                 // 1. block
///     sent.then([](Result<Receipt> r) { ... });                       // 2. callback, on the client's executor
///     Result<Receipt> r = co_await sent;                              // 3. coroutine, resumed on the client's executor
///     std::future<Result<Receipt>> f = sent.to_future();              // 4. std interop
///
/// The operation runs whether or not you look at the handle, and dropping the handle does not cancel it. A handle is cheap
/// to copy; every copy may be finished, on any thread, also after the client is gone: what can no longer be done has an
/// error by then, so no wait is endless. get() and get_for() may be called inside a callback: results do not need the
/// callback thread to arrive.
#include <chrono>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include "tailrace/error.h"

namespace tailrace {
inline namespace v1 {

using namespace std::chrono_literals;
using Milliseconds = std::chrono::milliseconds;

namespace detail {

/// What several handles share: one completion may carry the results of a whole batch, and `index` says which is meant.
/// Thread   any. Results never change once ready.
template <class T>
class Completion {
 public:
  using Callback = std::move_only_function<void(Result<T>)>;
  virtual ~Completion() = default;
  [[nodiscard]] virtual bool ready() const = 0;
  /// Waits until ready, or until `deadline`; answers whether it is ready.
  virtual bool wait(std::optional<std::chrono::steady_clock::time_point> deadline) const = 0;
  /// Only when ready.
  [[nodiscard]] virtual Result<T> result(std::uint32_t index) const = 0;
  /// Runs the callback once: on the executor, or with `direct` on whichever thread completes it (or here, if ready).
  virtual void when_ready(std::uint32_t index, Callback callback, bool direct) = 0;
};

struct DirectAccess;

}  // namespace detail

/// The outcome, now or later, of something the client does. See the top of this file.
/// Errors   those of the call that gave it; `closed` when the client was closed first; `invalid_argument` from an empty handle.
template <class T = void>
class [[nodiscard]] Task {
 public:
  using Value = T;

  Task() = default;
  /// For the SDK's own use.
  explicit Task(std::shared_ptr<detail::Completion<T>> completion, std::uint32_t index = 0)
      : completion_{std::move(completion)}, index_{index} {}

  [[nodiscard]] bool valid() const { return completion_ != nullptr; }
  [[nodiscard]] bool ready() const { return !completion_ || completion_->ready(); }

  /// Blocks until there is a result. Every operation has a deadline of its own, so this ends.
  [[nodiscard]] Result<T> get() const {
    if (!completion_) return std::unexpected(empty());
    completion_->wait(std::nullopt);
    return completion_->result(index_);
  }
  /// Blocks at most that long; nothing if there is no result yet.
  [[nodiscard]] std::optional<Result<T>> get_for(Milliseconds wait) const {
    if (!completion_) return Result<T>{std::unexpected(empty())};
    if (!completion_->wait(std::chrono::steady_clock::now() + wait)) return std::nullopt;
    return completion_->result(index_);
  }
  /// Calls `callback(Result<T>)` once, on the client's executor.
  template <class F>
    requires std::invocable<F&, Result<T>>
  void then(F&& callback) const {
    typename detail::Completion<T>::Callback function{std::forward<F>(callback)};
    if (!completion_) return function(std::unexpected(empty()));
    completion_->when_ready(index_, std::move(function), false);
  }
  [[nodiscard]] std::future<Result<T>> to_future() const {
    std::promise<Result<T>> promise;
    auto future = promise.get_future();
    if (!completion_) {
      promise.set_value(std::unexpected(empty()));
    } else {
      completion_->when_ready(index_, [p = std::move(promise)](Result<T> result) mutable { p.set_value(std::move(result)); }, true);
    }
    return future;
  }

  [[nodiscard]] bool await_ready() const { return ready(); }
  void await_suspend(std::coroutine_handle<> waiter) const {
    typename detail::Completion<T>::Callback resume{[waiter](Result<T>) { waiter.resume(); }};
    completion_->when_ready(index_, std::move(resume), false);
  }
  [[nodiscard]] Result<T> await_resume() const { return get(); }

 private:
  friend struct detail::DirectAccess;
  static Error empty() { return make_error(Errc::invalid_argument, "an empty task handle has no result"); }
  std::shared_ptr<detail::Completion<T>> completion_{};
  std::uint32_t index_ = 0;
};

}  // namespace v1
}  // namespace tailrace
