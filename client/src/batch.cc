#include "src/batch.h"

namespace tailrace::inline v1::detail {

Result<Receipt> BatchOutcome::of(std::uint32_t index) const {
  if (error) return std::unexpected(*error);
  return Receipt{.partition = partition, .offset = base_offset + index,
                 .time = Instant{Milliseconds{append_time >= 0 ? append_time : times[index]}}, .duplicate = duplicate};
}

bool BatchCompletion::wait(std::optional<TimePoint> deadline) const {
  if (ready()) return true;
  std::unique_lock lock{mutex_};
  auto done = [&] { return ready(); };
  if (deadline) return changed_.wait_until(lock, *deadline, done);
  changed_.wait(lock, done);
  return true;
}

void BatchCompletion::when_ready(std::uint32_t index, Callback callback, bool direct) {
  {
    std::lock_guard lock{mutex_};
    if (!ready()) {
      (direct ? direct_ : later_).push_back({index, std::move(callback)});
      return;
    }
  }
  if (direct) return callback(outcome_->of(index));
  callbacks_->post([f = std::move(callback), outcome = outcome_, index]() mutable { f(outcome->of(index)); });
}

void BatchCompletion::settle(std::shared_ptr<const BatchOutcome> outcome) {
  std::vector<Waiting> later, direct;
  {
    std::lock_guard lock{mutex_};
    outcome_ = std::move(outcome);
    ready_.store(true, std::memory_order_release);
    later.swap(later_);
    direct.swap(direct_);
  }
  changed_.notify_all();
  for (auto& one : direct) one.callback(outcome_->of(one.index));
  // One function per callback: an exception that one of them throws must not take the others with it.
  for (auto& one : later) {
    callbacks_->post([f = std::move(one.callback), o = outcome_, index = one.index]() mutable { f(o->of(index)); });
  }
}

void ManyReceipts::settle(std::uint32_t slot, const Result<Receipt>& result) {
  Result<std::vector<Receipt>> all;
  {
    std::lock_guard lock{mutex_};
    if (result) {
      receipts_[slot] = *result;
      any_stored_ = true;
    } else {
      if (!error_) error_ = result.error();
      error_->maybe_applied |= result.error().maybe_applied;
    }
    if (--left_ > 0) return;
    if (error_) {
      error_->maybe_applied |= any_stored_;
      all = std::unexpected(*std::move(error_));
    } else {
      all = std::move(receipts_);
    }
  }
  completion_->complete(std::move(all));
}

}  // namespace tailrace::inline v1::detail
