#pragma once
/// How a fetch waits for data, and how it is told to stop. Private to the room.
#include <memory>
#include <optional>

#include "base/notifier.h"
#include "io/runtime.h"
#include "service/broker_service.h"

namespace tailrace::broker::service {

/// Like io::WaitUntil, and someone who holds it may end it early.
class CancellableWait : private Notifier::Waiter, private io::Timer, private Runnable {
 public:
  CancellableWait(Notifier& notifier, io::Runtime& runtime, Instant due_at) : notifier_{notifier}, runtime_{runtime}, due_at_{due_at} {}
  CancellableWait(const CancellableWait&) = delete;
  CancellableWait& operator=(const CancellableWait&) = delete;
  [[nodiscard]] bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) noexcept {
    handle_ = handle;
    run = [](Runnable* self) noexcept { static_cast<CancellableWait*>(self)->handle_.resume(); };
    Notifier::Waiter::fire = [](Notifier::Waiter* self) noexcept {
      auto* me = static_cast<CancellableWait*>(self);
      me->runtime_.timers.disarm(*me);
      me->wake();
    };
    io::Timer::fire = [](io::Timer* self) noexcept {
      auto* me = static_cast<CancellableWait*>(self);
      me->notifier_.remove(*me);
      me->wake();
    };
    notifier_.add(*this);
    runtime_.timers.arm(*this, due_at_);
  }
  void await_resume() const noexcept {}
  void cancel() noexcept {
    if (woken_) return;
    notifier_.remove(*this);
    runtime_.timers.disarm(*this);
    wake();
  }

 private:
  void wake() noexcept {
    if (woken_) return;
    woken_ = true;
    runtime_.executor.post(*this);
  }
  Notifier& notifier_;
  io::Runtime& runtime_;
  Instant due_at_;
  std::coroutine_handle<> handle_;
  bool woken_ = false;
};

/// The half of a fetch that lives where the partition lives.
struct OwnerWait {
  bool cancelled = false;
  CancellableWait* waiting = nullptr;
  void cancel() {
    cancelled = true;
    if (waiting) waiting->cancel();
  }
};

/// A long poll for another shard: the owner answers it later, by a message of its own, so that thousands of idle readers hold no
/// place in the lanes between shards. Each member belongs to one shard; the shared pointer may be dropped on any.
struct RemoteWait {
  OwnerWait owner;                            // the owner's shard
  std::optional<Answer<FetchReply>> reply{};  // the reader's shard, from here down
  Notifier* arrived = nullptr;                // null: the reader is gone
};

/// The half that lives where the reader lives.
struct Fetcher::Wait {
  explicit Wait(Executor& executor) : arrived{executor} {}
  bool cancelled = false;
  bool busy = false;
  OwnerWait* local = nullptr;           // a fetch of this shard's own partition is under way
  std::shared_ptr<RemoteWait> remote;   // a fetch of another shard's is
  Notifier arrived;
};

}  // namespace tailrace::broker::service
