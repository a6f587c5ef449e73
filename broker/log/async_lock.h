#pragma once
/// Counting semaphore for coroutines of one shard; first come, first served.
#include <coroutine>
#include <utility>

#include "base/check.h"
#include "base/executor.h"

namespace tailrace::broker::log {

/// `auto held = co_await lock.acquire();` releases when `held` goes out of scope.
class AsyncLock {
 public:
  explicit AsyncLock(Executor& executor, std::size_t permits = 1) : executor_{executor}, free_{permits} {}
  AsyncLock(const AsyncLock&) = delete;
  AsyncLock& operator=(const AsyncLock&) = delete;
  ~AsyncLock() { TAILRACE_CHECK(head_ == nullptr, "nobody waits for a lock that goes away"); }

  class Held {
   public:
    explicit Held(AsyncLock* lock) : lock_{lock} {}
    Held(Held&& other) noexcept : lock_{std::exchange(other.lock_, nullptr)} {}
    Held& operator=(Held&& other) noexcept {
      std::swap(lock_, other.lock_);
      return *this;
    }
    ~Held() { release(); }
    void release() {
      if (lock_) std::exchange(lock_, nullptr)->release();
    }

   private:
    AsyncLock* lock_;
  };

  class Awaiter : private Runnable {
   public:
    explicit Awaiter(AsyncLock& lock) : lock_{lock} {}
    [[nodiscard]] bool await_ready() const noexcept {
      if (lock_.free_ == 0) return false;
      --lock_.free_;
      return true;
    }
    void await_suspend(std::coroutine_handle<> handle) noexcept {
      handle_ = handle;
      run = [](Runnable* self) noexcept { static_cast<Awaiter*>(self)->handle_.resume(); };
      later_ = nullptr;
      (lock_.tail_ ? lock_.tail_->later_ : lock_.head_) = this;
      lock_.tail_ = this;
    }
    [[nodiscard]] Held await_resume() const noexcept { return Held{&lock_}; }

   private:
    friend class AsyncLock;
    AsyncLock& lock_;
    std::coroutine_handle<> handle_;
    Awaiter* later_ = nullptr;
  };
  [[nodiscard]] Awaiter acquire() { return Awaiter{*this}; }
  [[nodiscard]] bool busy() const { return free_ == 0; }

 private:
  void release() {
    if (!head_) {
      ++free_;
      return;
    }
    Awaiter* first = head_;  // the permit goes straight to it
    head_ = first->later_;
    if (!head_) tail_ = nullptr;
    executor_.post(*first);
  }
  Executor& executor_;
  std::size_t free_;
  Awaiter* head_ = nullptr;
  Awaiter* tail_ = nullptr;
};

}  // namespace tailrace::broker::log
