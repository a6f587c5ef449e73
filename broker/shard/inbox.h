#pragma once
/// What other threads hand to a shard: a lock-free list of intrusive messages, and one wake for a batch.
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace tailrace::broker::shard {

/// Interrupts a loop's sleep. An eventfd in production; the simulator's only marks the shard as runnable.
class Wake {
 public:
  virtual ~Wake() = default;
  virtual void wake() noexcept = 0;  // any thread
};

/// Intrusive; the sender keeps it alive until `arrive` was called, and may free it there.
struct Message {
  void (*arrive)(Message*) noexcept = nullptr;  // on the receiving loop's thread, from its flat loop
  Message* next = nullptr;
};

/// Thread   push(): any. deliver() and may_sleep(): the owner's.
/// Order    messages of one sender arrive in the order it pushed them.
/// Bound    the senders': Shards allows limits::kShardCallsInFlightMax calls per pair, a loop limits::kOutsidePostsMax posts.
/// Wakes    only the push that finds the owner asleep wakes it. The owner's protocol is: deliver(), do other work, and sleep
///          only if may_sleep() said yes; after waking, deliver() again.
class Inbox {
 public:
  explicit Inbox(Wake& wake) : wake_{wake} {}
  Inbox(const Inbox&) = delete;
  Inbox& operator=(const Inbox&) = delete;

  void push(Message& message) noexcept {
    Message* head = head_.load(std::memory_order_relaxed);
    do {
      message.next = head == asleep() ? nullptr : head;
    } while (!head_.compare_exchange_weak(head, &message, std::memory_order_acq_rel, std::memory_order_relaxed));
    if (head == asleep()) wake_.wake();
  }
  /// Takes everything and calls `arrive` of each; answers how many.
  std::size_t deliver() noexcept {
    if (head_.load(std::memory_order_relaxed) == nullptr) return 0;
    Message* taken = head_.exchange(nullptr, std::memory_order_acq_rel);
    if (taken == asleep()) return 0;
    Message* ordered = nullptr;
    while (taken) {  // newest first, as pushed: turn it round
      Message* next = taken->next;
      taken->next = ordered;
      ordered = taken;
      taken = next;
    }
    std::size_t count = 0;
    for (; ordered; ++count) {
      Message* message = ordered;
      ordered = ordered->next;  // before arrive, which may free the message
      message->arrive(message);
    }
    return count;
  }
  /// False: there is mail, deliver it first. True: the next push will wake.
  [[nodiscard]] bool may_sleep() noexcept {
    Message* none = nullptr;
    return head_.compare_exchange_strong(none, asleep(), std::memory_order_acq_rel, std::memory_order_relaxed) || none == asleep();
  }

 private:
  /// A head that is no message: the list is empty and its owner sleeps, or is about to.
  [[nodiscard]] Message* asleep() noexcept { return &asleep_; }
  Wake& wake_;
  Message asleep_;
  alignas(64) std::atomic<Message*> head_{nullptr};
};

}  // namespace tailrace::broker::shard
