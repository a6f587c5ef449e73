#pragma once
/// Calls into libraries that block, away from the shard's thread.
#include <coroutine>
#include <functional>
#include <optional>
#include <utility>

#include "base/executor.h"
#include "base/task.h"

namespace tailrace::broker::io {

class BlockingCalls {
 public:
  virtual ~BlockingCalls() = default;
  /// Runs `work` once, on any thread; then runs `after` on the shard's. Calls of one shard may run at the same time.
  virtual void call(std::move_only_function<void()> work, Runnable& after) = 0;
};

/// `auto answer = co_await blocking(calls, [..] { return ...; })`. What `work` refers to lives until it answered.
template <class F>
Task<std::invoke_result_t<F>> blocking(BlockingCalls& calls, F work) {
  using T = std::invoke_result_t<F>;
  struct Awaiter : Runnable {
    Awaiter(BlockingCalls& to, F& work_) : calls{to}, work{work_} {}
    BlockingCalls& calls;
    F& work;
    std::optional<T> value{};
    std::coroutine_handle<> handle{};
    [[nodiscard]] bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> caller) {
      handle = caller;
      run = [](Runnable* self) noexcept { static_cast<Awaiter*>(self)->handle.resume(); };
      calls.call([this] { value.emplace(work()); }, *this);
    }
    T await_resume() { return *std::move(value); }
  };
  Awaiter awaiter{calls, work};
  co_return co_await awaiter;
}

}  // namespace tailrace::broker::io
