#pragma once
/// The client's bound on unacknowledged records: encoded bytes, taken in steps so that most sends touch no shared counter.
/// Thread   any.
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <mutex>

#include "src/net/loop.h"

namespace tailrace::inline v1::detail {

class Budget {
 public:
  explicit Budget(std::size_t limit) : limit_{limit} {}
  /// A request larger than the whole limit is granted when nothing else is held: one large record must not be stuck for ever.
  bool try_take(std::size_t bytes) {
    std::size_t used = used_.load(std::memory_order_relaxed);
    do {
      if (used + bytes > limit_ && used != 0) return false;
    } while (!used_.compare_exchange_weak(used, used + bytes, std::memory_order_relaxed));
    return true;
  }
  void give_back(std::size_t bytes) {
    if (bytes == 0) return;
    std::size_t left = used_.fetch_sub(bytes) - bytes;
    // Senders that wait are woken when there is room for many records, not for each batch: they would wait again at once.
    if (left <= limit_ / 4 * 3) wake();
  }
  void wake() {
    if (waiting_.load() == 0) return;
    std::lock_guard lock{mutex_};
    ++generation_;
    changed_.notify_all();
  }
  /// Call before the try that decides to wait; then wait(ticket): nothing given back in between is missed.
  [[nodiscard]] std::uint64_t ticket() {
    std::lock_guard lock{mutex_};
    waiting_.fetch_add(1);
    return generation_;
  }
  /// Answers false when the deadline came first.
  bool wait(std::uint64_t ticket, TimePoint deadline) {
    std::unique_lock lock{mutex_};
    bool woken = changed_.wait_until(lock, deadline, [&] { return generation_ != ticket; });
    waiting_.fetch_sub(1);
    return woken;
  }
  void forget(std::uint64_t) { waiting_.fetch_sub(1); }
  [[nodiscard]] std::size_t used() const { return used_.load(std::memory_order_relaxed); }
  [[nodiscard]] std::size_t limit() const { return limit_; }

 private:
  const std::size_t limit_;
  std::atomic<std::size_t> used_{0};
  std::atomic<int> waiting_{0};
  std::mutex mutex_{};
  std::condition_variable changed_{};
  std::uint64_t generation_ = 0;
};

}  // namespace tailrace::inline v1::detail
