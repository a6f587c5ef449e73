#pragma once
/// A condition variable for coroutines of one thread. Waiters are resumed from the executor's flat loop, in order.
#include <coroutine>

#include "base/check.h"
#include "base/executor.h"

namespace tailrace::broker {

class Notifier {
 public:
  explicit Notifier(Executor& executor) : executor_{executor} {}
  Notifier(const Notifier&) = delete;
  Notifier& operator=(const Notifier&) = delete;
  ~Notifier() { TAILRACE_CHECK(head_ == nullptr, "nobody waits on a notifier that goes away"); }

  /// One waiting place; intrusive in the awaiter. `fire` runs inside notify and must only queue work.
  struct Waiter {
    Waiter* next = nullptr;
    Waiter* previous = nullptr;
    bool linked = false;
    void (*fire)(Waiter*) noexcept = nullptr;
  };
  void add(Waiter& waiter) {
    waiter.previous = tail_;
    waiter.next = nullptr;
    (tail_ ? tail_->next : head_) = &waiter;
    tail_ = &waiter;
    waiter.linked = true;
  }
  void remove(Waiter& waiter) {
    if (!waiter.linked) return;
    (waiter.previous ? waiter.previous->next : head_) = waiter.next;
    (waiter.next ? waiter.next->previous : tail_) = waiter.previous;
    waiter.linked = false;
  }
  void notify_all() {
    while (head_) notify_one();
  }
  void notify_one() {
    if (!head_) return;
    Waiter* first = head_;
    remove(*first);
    first->fire(first);
  }
  [[nodiscard]] bool has_waiters() const { return head_ != nullptr; }
  [[nodiscard]] Executor& executor() const { return executor_; }

  /// `co_await notifier.wait()`: returns after the next notify. Re-check the condition: state may have moved.
  class WaitAwaiter : private Waiter, private Runnable {
   public:
    explicit WaitAwaiter(Notifier& notifier) : notifier_{notifier} {}
    [[nodiscard]] bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> handle) noexcept {
      handle_ = handle;
      run = [](Runnable* self) noexcept { static_cast<WaitAwaiter*>(self)->handle_.resume(); };
      fire = [](Waiter* self) noexcept {
        auto* me = static_cast<WaitAwaiter*>(self);
        me->notifier_.executor_.post(*me);
      };
      notifier_.add(*this);
    }
    void await_resume() const noexcept {}

   private:
    Notifier& notifier_;
    std::coroutine_handle<> handle_;
  };
  [[nodiscard]] WaitAwaiter wait() { return WaitAwaiter{*this}; }

 private:
  Executor& executor_;
  Waiter* head_ = nullptr;
  Waiter* tail_ = nullptr;
};

}  // namespace tailrace::broker
