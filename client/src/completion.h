#pragma once
/// What stands behind a Task that is not part of a batch.
#include <condition_variable>
#include <mutex>
#include <vector>

#include "src/callbacks.h"
#include "tailrace/task.h"

namespace tailrace::inline v1::detail {

/// Thread   any. complete() counts once; later calls are ignored.
template <class T>
class Single final : public Completion<T> {
 public:
  using typename Completion<T>::Callback;
  explicit Single(std::shared_ptr<Callbacks> callbacks) : callbacks_{std::move(callbacks)} {}

  [[nodiscard]] bool ready() const override {
    std::lock_guard lock{mutex_};
    return result_.has_value();
  }
  bool wait(std::optional<TimePoint> deadline) const override {
    std::unique_lock lock{mutex_};
    auto done = [&] { return result_.has_value(); };
    if (deadline) return changed_.wait_until(lock, *deadline, done);
    changed_.wait(lock, done);
    return true;
  }
  [[nodiscard]] Result<T> result(std::uint32_t) const override {
    std::lock_guard lock{mutex_};
    return *result_;
  }
  void when_ready(std::uint32_t, Callback callback, bool direct) override {
    std::unique_lock lock{mutex_};
    if (!result_) {
      waiting_.push_back({std::move(callback), direct});
      return;
    }
    Result<T> copy = *result_;
    lock.unlock();
    run(std::move(callback), std::move(copy), direct);
  }
  /// Answers whether this call decided the result.
  bool complete(Result<T> result) {
    std::vector<Waiting> waiting;
    {
      std::lock_guard lock{mutex_};
      if (result_) return false;
      result_.emplace(std::move(result));
      waiting.swap(waiting_);
    }
    changed_.notify_all();
    for (auto& one : waiting) run(std::move(one.callback), this->result(0), one.direct);
    return true;
  }
  [[nodiscard]] static Task<T> done(std::shared_ptr<Callbacks> callbacks, Result<T> result) {
    auto completion = std::make_shared<Single<T>>(std::move(callbacks));
    completion->complete(std::move(result));
    return Task<T>{std::move(completion)};
  }

 private:
  struct Waiting {
    Callback callback;
    bool direct;
  };
  void run(Callback callback, Result<T> result, bool direct) {
    if (direct) return callback(std::move(result));
    callbacks_->post([f = std::move(callback), r = std::move(result)]() mutable { f(std::move(r)); });
  }
  std::shared_ptr<Callbacks> callbacks_;
  mutable std::mutex mutex_{};
  mutable std::condition_variable changed_{};
  std::optional<Result<T>> result_{};
  std::vector<Waiting> waiting_{};
};

/// The SDK's own continuations run where the result arrives; users' run on the executor.
struct DirectAccess {
  template <class T, class F>
  static void when_ready(const Task<T>& task, F function) {
    task.completion_->when_ready(task.index_, std::move(function), true);
  }
};

}  // namespace tailrace::inline v1::detail
