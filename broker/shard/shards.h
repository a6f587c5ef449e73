#pragma once
/// Calls between shards. A shard owns its state; whoever needs it asks the owner to run a function:
///
///   Port& port = shards.port(self);
///   Offset end = co_await port.call_on(owner, [id]() -> Task<Offset> { co_return co_await partition_end(id); });
///
/// The function runs on the target's thread, the caller goes on on its own. Request and reply are one message in the
/// caller's coroutine frame: calling allocates no queue place, and a reply always has room, since its request reserved it.
#include <concepts>
#include <coroutine>
#include <deque>
#include <optional>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "base/check.h"
#include "base/executor.h"
#include "base/task.h"
#include "model/ids.h"
#include "model/limits.h"
#include "shard/inbox.h"

namespace tailrace::broker::shard {

namespace shards_detail {
template <class T>
struct Unwrap {
  using type = T;
  static constexpr bool is_task = false;
};
template <class T>
struct Unwrap<Task<T>> {
  using type = T;
  static constexpr bool is_task = true;
};
}  // namespace shards_detail

/// What a shard's loop offers to the others. Both outlive the Shards object.
struct Endpoint {
  Inbox& inbox;
  Executor& executor;
};

/// One shard's door to all of them.
///
/// Thread   its own shard's, all of it.
/// Full     limits::kShardCallsInFlightMax calls may be on their way from one shard to another; further callers wait in
///          order until replies come back. Nothing is dropped. A function that runs for another shard must not call back
///          in a circle (A calls B calls A calls B): when the pair is full, such a circle waits for itself.
/// Stop     the target's loop must run until the reply was sent: drain the task scopes of every shard, then stop the loops.
class Port {
 public:
  Port(ShardIndex self, std::deque<Port>& all, std::vector<Endpoint>& endpoints) : self_{self}, all_{all}, endpoints_{endpoints} {}
  Port(const Port&) = delete;
  Port& operator=(const Port&) = delete;

  [[nodiscard]] ShardIndex self() const { return self_; }
  [[nodiscard]] std::size_t shard_count() const { return endpoints_.size(); }
  /// Runs `fn` on `target`; inline, without a message, if that is this shard. `fn` returns a value, nothing, or a Task; it
  /// lives until the call has returned, so a coroutine may use its captures. Their destructors run on the caller's shard.
  template <class F>
  auto call_on(ShardIndex target, F fn) -> Task<typename shards_detail::Unwrap<std::invoke_result_t<F&>>::type>;

  struct Counters {
    std::uint64_t calls = 0;   // to other shards
    std::uint64_t served = 0;  // for other shards
    std::uint64_t waits = 0;   // calls that found the way to their target full
  };
  [[nodiscard]] const Counters& counters() const { return counters_; }
  /// Functions that run here for other shards.
  [[nodiscard]] std::size_t serving() const { return serving_.running(); }

 private:
  template <class F, class T>
  class Call;
  class Turn;
  /// Calls on their way to one target.
  struct Lane {
    std::size_t in_flight = 0;
    Turn* first = nullptr;
    Turn* last = nullptr;
  };
  /// Waits for a place in a lane; a released place passes to the first that waits.
  class Turn : private Runnable {
   public:
    Turn(Port& port, Lane& lane) : port_{port}, lane_{lane} {}
    [[nodiscard]] bool await_ready() noexcept {
      if (lane_.in_flight >= limits::kShardCallsInFlightMax) return false;
      ++lane_.in_flight;
      return true;
    }
    void await_suspend(std::coroutine_handle<> handle) noexcept {
      handle_ = handle;
      run = [](Runnable* self) noexcept { static_cast<Turn*>(self)->handle_.resume(); };
      (lane_.last ? lane_.last->after_ : lane_.first) = this;
      lane_.last = this;
      ++port_.counters_.waits;
    }
    void await_resume() const noexcept {}
    static void release(Port& port, Lane& lane) noexcept {
      Turn* first = lane.first;
      if (!first) {
        --lane.in_flight;
        return;
      }
      lane.first = first->after_;
      if (!lane.first) lane.last = nullptr;
      port.endpoints_[port.self_.value()].executor.post(*first);
    }

   private:
    Port& port_;
    Lane& lane_;
    Turn* after_ = nullptr;
    std::coroutine_handle<> handle_;
  };

  [[nodiscard]] Lane& lane_to(ShardIndex target) {
    if (lanes_.empty()) lanes_.resize(endpoints_.size());
    return lanes_[target.value()];
  }

  ShardIndex self_;
  std::deque<Port>& all_;
  std::vector<Endpoint>& endpoints_;
  std::vector<Lane> lanes_;
  TaskScope serving_;
  Counters counters_;
};

/// All shards of a process. Made before their threads start, destroyed after they ended.
class Shards {
 public:
  explicit Shards(std::vector<Endpoint> endpoints) : endpoints_{std::move(endpoints)} {
    for (std::uint32_t i = 0; i < endpoints_.size(); ++i) ports_.emplace_back(ShardIndex{i}, ports_, endpoints_);
  }
  Shards(const Shards&) = delete;
  Shards& operator=(const Shards&) = delete;
  [[nodiscard]] std::size_t count() const { return ports_.size(); }
  [[nodiscard]] Port& port(ShardIndex shard) {
    TAILRACE_CHECK(shard.value() < ports_.size(), "a shard index names a shard of this process");
    return ports_[shard.value()];
  }

 private:
  std::vector<Endpoint> endpoints_;
  std::deque<Port> ports_;  // a deque: ports do not move
};

/// The message, in the caller's frame. Only one thread touches it at a time: the inboxes hand it over.
template <class F, class T>
class Port::Call : private Message {
 public:
  Call(Port& caller, Port& target, F& fn) : caller_{caller}, target_{target}, fn_{fn} {}
  [[nodiscard]] bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) noexcept {
    handle_ = handle;
    arrive = [](Message* message) noexcept { static_cast<Call*>(message)->serve(); };
    target_.endpoints_[target_.self_.value()].inbox.push(*this);
  }
  T await_resume() {
    if constexpr (!std::is_void_v<T>) return *std::move(result_);
  }

 private:
  static constexpr bool kTask = shards_detail::Unwrap<std::invoke_result_t<F&>>::is_task;
  void serve() noexcept {
    ++target_.counters_.served;
    if constexpr (kTask) {
      target_.serving_.spawn(serve_task(this));
    } else {
      if constexpr (std::is_void_v<T>) {
        fn_();
      } else {
        result_.emplace(fn_());
      }
      reply();
    }
  }
  static Task<void> serve_task(Call* call) {
    if constexpr (std::is_void_v<T>) {
      co_await call->fn_();
    } else {
      call->result_.emplace(co_await call->fn_());
    }
    call->reply();  // the last touch: the caller may already be gone when this returns
  }
  void reply() noexcept {
    arrive = [](Message* message) noexcept { static_cast<Call*>(message)->handle_.resume(); };
    caller_.endpoints_[caller_.self_.value()].inbox.push(*this);
  }
  Port& caller_;
  Port& target_;
  F& fn_;
  std::coroutine_handle<> handle_;
  std::conditional_t<std::is_void_v<T>, std::monostate, std::optional<T>> result_;
};

template <class F>
auto Port::call_on(ShardIndex target, F fn) -> Task<typename shards_detail::Unwrap<std::invoke_result_t<F&>>::type> {
  using Unwrapped = shards_detail::Unwrap<std::invoke_result_t<F&>>;
  using T = typename Unwrapped::type;
  static_assert(!std::is_reference_v<T>, "a reply is a value: a reference would point into another shard's state");
  TAILRACE_CHECK(target.value() < all_.size(), "a shard index names a shard of this process");
  if (target == self_) {
    if constexpr (Unwrapped::is_task) {
      co_return co_await fn();
    } else {
      co_return fn();
    }
  }
  Lane& lane = lane_to(target);
  co_await Turn{*this, lane};
  ++counters_.calls;
  Call<F, T> call{*this, all_[target.value()], fn};
  if constexpr (std::is_void_v<T>) {
    co_await call;
    Turn::release(*this, lane);
  } else {
    T result = co_await call;
    Turn::release(*this, lane);
    co_return result;
  }
}

}  // namespace tailrace::broker::shard
