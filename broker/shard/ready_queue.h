#pragma once
/// The flat loop: work posted by handlers runs after them, in order, on one stack level.
#include "base/executor.h"

namespace tailrace::broker::shard {

/// Thread   one loop's.
/// Bound    intrusive: each piece of work is a member of whoever posted it, so it holds no more than they do.
class ReadyQueue final : public Executor {
 public:
  void post(Runnable& work) override {
    work.next = nullptr;
    (tail_ ? tail_->next : head_) = &work;
    tail_ = &work;
  }
  /// Runs what is queued, and what that posts, until nothing is left or `limit` pieces ran; answers how many ran. The
  /// limit lets sockets and timers have their turn when work keeps posting work.
  std::size_t run(std::size_t limit) {
    std::size_t done = 0;
    for (; head_ && done < limit; ++done) {
      Runnable* first = head_;
      head_ = first->next;
      if (!head_) tail_ = nullptr;
      first->run(first);
    }
    return done;
  }
  [[nodiscard]] bool empty() const { return head_ == nullptr; }

 private:
  Runnable* head_ = nullptr;
  Runnable* tail_ = nullptr;
};

}  // namespace tailrace::broker::shard
