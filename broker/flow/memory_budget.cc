#include "flow/memory_budget.h"

#include <fmt/format.h>

#include <algorithm>

namespace tailrace::broker::flow {

void Reservation::release() {
  if (pool_) std::exchange(pool_, nullptr)->give_back(std::exchange(bytes_, 0));
}

void Reservation::shrink_to(std::uint64_t bytes) {
  if (!pool_ || bytes >= bytes_) return;
  std::uint64_t back = bytes_ - bytes;
  bytes_ = bytes;
  pool_->give_back(back);
}

Result<Reservation> MemoryPool::try_reserve(std::uint64_t bytes) {
  if (closed_) return fail(Errc::closed, fmt::format("memory pool {}", name_));
  if (bytes > limit_) return fail(Errc::too_large, fmt::format("{} bytes of memory pool {}, which has {}", bytes, name_, limit_));
  if (head_ || bytes > limit_ - used_) return fail(Errc::no_credit, fmt::format("memory pool {} is in use", name_));
  take(bytes);
  return Reservation{*this, bytes};
}

Result<void> MemoryPool::wait(Waiter& waiter) {
  if (closed_) return fail(Errc::closed, fmt::format("memory pool {}", name_));
  if (waiter.bytes > limit_) return fail(Errc::too_large, fmt::format("{} bytes of memory pool {}, which has {}", waiter.bytes, name_, limit_));
  if (waiting_ >= waiters_max_) return fail(Errc::too_many, fmt::format("{} already wait for memory pool {}", waiting_, name_));
  waiter.previous = tail_;
  waiter.next = nullptr;
  (tail_ ? tail_->next : head_) = &waiter;
  tail_ = &waiter;
  waiter.linked = true;
  ++waiting_;
  serve();
  if (waiting_ > 0 && on_wait) on_wait();
  return {};
}

void MemoryPool::unlink(Waiter& waiter) {
  (waiter.previous ? waiter.previous->next : head_) = waiter.next;
  (waiter.next ? waiter.next->previous : tail_) = waiter.previous;
  waiter.linked = false;
  --waiting_;
}

void MemoryPool::remove(Waiter& waiter) {
  if (!waiter.linked) return;
  unlink(waiter);
  serve();  // it may have been the one that held the others up
}

void MemoryPool::close() {
  closed_ = true;
  while (head_) {
    Waiter* first = head_;
    unlink(*first);
    first->granted(first, fail(Errc::closed, fmt::format("memory pool {}", name_)));
  }
}

void MemoryPool::take(std::uint64_t bytes) {
  used_ += bytes;
  used_max_ = std::max(used_max_, used_);
}

void MemoryPool::give_back(std::uint64_t bytes) {
  TAILRACE_CHECK(bytes <= used_, "no more memory is given back than was taken");
  used_ -= bytes;
  serve();
}

void MemoryPool::serve() {
  while (head_ && head_->bytes <= limit_ - used_) {
    Waiter* first = head_;
    unlink(*first);
    take(first->bytes);
    first->granted(first, Reservation{*this, first->bytes});
  }
}

MemoryBudget::MemoryBudget(std::uint64_t bytes, std::size_t waiters_max)
    : pools_{{{"requests", bytes / 2, waiters_max}, {"replies", bytes / 5 * 2, waiters_max}, {"control", bytes / 10, waiters_max}, {"streams", bytes / 5 * 2, waiters_max}, {"receiving", bytes / 4, waiters_max}}} {}

std::uint64_t MemoryBudget::limit() const {
  std::uint64_t sum = 0;
  for (Pool which : {Pool::requests, Pool::replies, Pool::control, Pool::streams}) sum += pool(which).limit();
  return sum;
}

std::uint64_t MemoryBudget::used() const {
  std::uint64_t sum = 0;
  for (Pool which : {Pool::requests, Pool::replies, Pool::control, Pool::streams}) sum += pool(which).used();
  return sum;
}

void MemoryBudget::close() {
  for (MemoryPool& pool : pools_) pool.close();
}

}  // namespace tailrace::broker::flow
