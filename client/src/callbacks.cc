#include "src/callbacks.h"

#include <exception>
#include <utility>

namespace tailrace::inline v1::detail {
namespace {
thread_local const Callbacks* running_for = nullptr;
}

Callbacks::Callbacks(Executor executor, std::function<void(std::string)> failed)
    : executor_{std::move(executor)}, failed_{std::move(failed)} {}
Callbacks::~Callbacks() { queue_.clear(); }  // items give their backlog back to what is still whole

void Callbacks::start() {
  if (executor_) return;
  ended_ = false;
  std::thread([self = shared_from_this()] { self->loop(); }).detach();
}

void Callbacks::run_one(Item& item) {
  const Callbacks* before = std::exchange(running_for, this);
  try {
    item.function();
  } catch (const std::exception& e) {
    if (failed_) failed_(std::string{"a callback threw: "} + e.what());
  } catch (...) {
    if (failed_) failed_("a callback threw something that is not a std::exception");
  }
  item.function = nullptr;  // what it captured goes here too, inside the guard of running_for
  running_for = before;
}

void Callbacks::done(std::uint64_t results) {
  auto waiting = backlog_.fetch_sub(results);
  if (waiting > kCallbackBacklogMax && waiting - results <= kCallbackBacklogMax && drained_) drained_();
}

Callbacks::Item::~Item() {
  if (owner) owner->done(results);
}

void Callbacks::post(std::move_only_function<void()> function, std::uint64_t results) {
  backlog_.fetch_add(results);
  Item item{std::move(function), results, this};
  if (executor_) {
    // The executor may drop the task, or throw: the backlog is given back with the last copy of it.
    auto shared = std::make_shared<Item>(std::move(item));
    std::function<void()> task = [self = shared_from_this(), shared] { self->run_one(*shared); };
    try {
      executor_.post(std::move(task));
    } catch (...) {
      if (failed_) failed_("the executor's post threw; a callback was dropped");
    }
    return;
  }
  {
    std::lock_guard lock{mutex_};
    if (!ended_) {
      queue_.push_back(std::move(item));
      changed_.notify_all();
      return;
    }
  }
  run_one(item);
}

void Callbacks::loop() {
  std::unique_lock lock{mutex_};
  while (true) {
    changed_.wait(lock, [&] { return stopped_ || !queue_.empty(); });
    if (queue_.empty()) break;
    Item item = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    run_one(item);
    lock.lock();
  }
  ended_ = true;
  changed_.notify_all();
}

void Callbacks::stop() {
  std::lock_guard lock{mutex_};
  stopped_ = true;
  changed_.notify_all();
}

bool Callbacks::join(TimePoint deadline) {
  if (inside()) return false;
  std::unique_lock lock{mutex_};
  return changed_.wait_until(lock, deadline, [&] { return ended_; });
}

bool Callbacks::inside() const { return running_for == this; }

}  // namespace tailrace::inline v1::detail
