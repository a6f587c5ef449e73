#include "tests/support/sim_runtime.h"

namespace tailrace::broker::sim {
namespace {

constexpr std::chrono::milliseconds kEpochStart{1'700'000'000'000};  // any fixed day will do; this one is in 2023

std::uint64_t mix(std::uint64_t hash, std::uint64_t value) {
  hash ^= value + 0x9e3779b97f4a7c15ULL + (hash << 6) + (hash >> 2);
  return hash * 0xff51afd7ed558ccdULL;
}

}  // namespace

void keep_forever(void* thing) {
  static auto* kept = new std::vector<void*>;
  kept->push_back(thing);
}

SimLoop::SimLoop(std::uint64_t seed) : seed_{seed}, random_{0}, wall_shift_{kEpochStart} { random_ = stream("product"); }

WallTime SimLoop::wall() const {
  if (stopped_wall_) return *stopped_wall_;
  return WallTime{std::chrono::duration_cast<std::chrono::milliseconds>(now_.time_since_epoch()) + wall_shift_};
}

void SimLoop::stop_wall() { stopped_wall_ = wall(); }

void SimLoop::start_wall() {
  if (!stopped_wall_) return;
  WallTime to = *stopped_wall_;
  stopped_wall_.reset();
  set_wall(to);
}

Random SimLoop::stream(std::string_view name) const {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  Random mixed{seed_ ^ hash};
  return mixed.split();
}

void SimLoop::note(std::uint64_t what, std::uint64_t a, std::uint64_t b) {
  hash_ = mix(mix(mix(hash_, what), a), b);
}

void SimLoop::place(std::size_t at, Entry entry) {
  heap_[at] = entry;
  entry.timer->place = at;
}

void SimLoop::sift_up(std::size_t at, Entry entry) {
  while (at > 0) {
    std::size_t parent = (at - 1) / 2;
    if (!entry.before(heap_[parent])) break;
    place(at, heap_[parent]);
    at = parent;
  }
  place(at, entry);
}

void SimLoop::sift_down(std::size_t at, Entry entry) {
  for (;;) {
    std::size_t child = 2 * at + 1;
    if (child >= heap_.size()) break;
    if (child + 1 < heap_.size() && heap_[child + 1].before(heap_[child])) ++child;
    if (!heap_[child].before(entry)) break;
    place(at, heap_[child]);
    at = child;
  }
  place(at, entry);
}

void SimLoop::arm(io::Timer& timer, Instant due) {
  disarm(timer);
  timer.due = due;
  heap_.push_back({});
  sift_up(heap_.size() - 1, Entry{due < now_ ? now_ : due, order_++, &timer});
}

void SimLoop::disarm(io::Timer& timer) {
  if (timer.place == io::Timer::kIdle) return;
  std::size_t at = timer.place;
  timer.place = io::Timer::kIdle;
  Entry moved = heap_.back();
  heap_.pop_back();
  if (at == heap_.size()) return;
  if (at > 0 && moved.before(heap_[(at - 1) / 2])) {
    sift_up(at, moved);
  } else {
    sift_down(at, moved);
  }
}

void SimLoop::post(Runnable& work) {
  work.next = nullptr;
  (last_ready_ ? last_ready_->next : ready_) = &work;
  last_ready_ = &work;
}

bool SimLoop::step() {
  if (ready_ != nullptr) {
    Runnable* work = ready_;
    ready_ = work->next;
    if (ready_ == nullptr) last_ready_ = nullptr;
    ++events_;
    note(1, static_cast<std::uint64_t>(now_.time_since_epoch().count()));
    work->run(work);
    return true;
  }
  if (heap_.empty()) return false;
  Entry next = heap_.front();
  disarm(*next.timer);
  now_ = std::max(now_, next.due);
  ++events_;
  note(2, static_cast<std::uint64_t>(now_.time_since_epoch().count()), next.order);
  next.timer->fire(next.timer);
  return true;
}

bool SimLoop::run_until_idle(Duration limit) {
  Instant end = now_ + limit;
  while (ready_ != nullptr || !heap_.empty()) {
    if (ready_ == nullptr && heap_.front().due > end) return false;
    step();
  }
  return true;
}

void SimLoop::run_for(Duration duration) {
  Instant end = now_ + duration;
  while (ready_ != nullptr || (!heap_.empty() && heap_.front().due <= end)) step();
  now_ = end;
}

}  // namespace tailrace::broker::sim
