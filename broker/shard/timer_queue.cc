#include "shard/timer_queue.h"

#include "base/check.h"

namespace tailrace::broker::shard {

void TimerQueue::put(std::size_t at, Place place) {
  heap_[at] = place;
  place.timer->place = at;
}

void TimerQueue::sift_up(std::size_t at, Place place) {
  while (at > 0) {
    std::size_t parent = (at - 1) / 2;
    if (!place.before(heap_[parent])) break;
    put(at, heap_[parent]);
    at = parent;
  }
  put(at, place);
}

void TimerQueue::sift_down(std::size_t at, Place place) {
  for (;;) {
    std::size_t child = 2 * at + 1;
    if (child >= heap_.size()) break;
    if (child + 1 < heap_.size() && heap_[child + 1].before(heap_[child])) ++child;
    if (!heap_[child].before(place)) break;
    put(at, heap_[child]);
    at = child;
  }
  put(at, place);
}

void TimerQueue::remove_at(std::size_t at) {
  heap_[at].timer->place = io::Timer::kIdle;
  Place last = heap_.back();
  heap_.pop_back();
  if (at == heap_.size()) return;
  if (at > 0 && last.before(heap_[(at - 1) / 2])) {
    sift_up(at, last);
  } else {
    sift_down(at, last);
  }
}

void TimerQueue::arm(io::Timer& timer, Instant due) {
  disarm(timer);
  timer.due = due;
  heap_.push_back({due, next_order_++, &timer});
  sift_up(heap_.size() - 1, heap_.back());
}

void TimerQueue::disarm(io::Timer& timer) {
  if (timer.place == io::Timer::kIdle) return;
  TAILRACE_CHECK(timer.place < heap_.size() && heap_[timer.place].timer == &timer, "a timer is disarmed by the queue that armed it");
  remove_at(timer.place);
}

std::optional<Instant> TimerQueue::next_due() const {
  if (heap_.empty()) return std::nullopt;
  return heap_.front().due;
}

std::size_t TimerQueue::fire_due(Instant now) {
  std::size_t fired = 0;
  for (std::size_t limit = heap_.size(); fired < limit && !heap_.empty() && heap_.front().due <= now; ++fired) {
    io::Timer* timer = heap_.front().timer;
    remove_at(0);
    timer->fire(timer);
  }
  return fired;
}

}  // namespace tailrace::broker::shard
