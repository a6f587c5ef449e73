#pragma once
/// One shard's memory, in named pools. Whoever is about to hold bytes for a client reserves them first, and waits when
/// the pool is empty: that is the backpressure.
///
///   MemoryPool& requests = budget.pool(Pool::requests);
///   Result<Reservation> held = co_await requests.acquire(executor, bytes);   // given back when `held` goes away
///
/// Thread   the shard's; reservations are released there too.
/// Fair     waiters are served in order. One that asks for much is not overtaken by smaller ones, so it is not starved.
/// Bound    each pool has a limit and a bound on waiters; past it, acquire answers too_many at once.
#include <array>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>
#include <utility>

#include "base/check.h"
#include "base/executor.h"
#include "base/result.h"

namespace tailrace::broker::flow {

class MemoryPool;

/// Bytes of a pool, given back on destruction. Move-only.
class Reservation {
 public:
  Reservation() = default;
  Reservation(Reservation&& other) noexcept : pool_{std::exchange(other.pool_, nullptr)}, bytes_{std::exchange(other.bytes_, 0)} {}
  Reservation& operator=(Reservation&& other) noexcept {
    std::swap(pool_, other.pool_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Reservation() { release(); }
  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }
  [[nodiscard]] explicit operator bool() const { return pool_ != nullptr; }
  void release();
  /// Gives back what is not needed after all.
  void shrink_to(std::uint64_t bytes);

 private:
  friend class MemoryPool;
  Reservation(MemoryPool& pool, std::uint64_t bytes) : pool_{&pool}, bytes_{bytes} {}
  MemoryPool* pool_ = nullptr;
  std::uint64_t bytes_ = 0;
};

class MemoryPool {
 public:
  /// A place in the queue. `granted` runs inside the release that made room (or inside close(), then with an error) and must
  /// only queue work. Remove before destroying.
  struct Waiter {
    void (*granted)(Waiter*, Result<Reservation>) noexcept = nullptr;
    std::uint64_t bytes = 0;
    Waiter* next = nullptr;
    Waiter* previous = nullptr;
    bool linked = false;
  };

  MemoryPool(std::string_view name, std::uint64_t limit, std::size_t waiters_max)
      : name_{name}, limit_{limit}, waiters_max_{waiters_max} {}
  MemoryPool(const MemoryPool&) = delete;
  MemoryPool& operator=(const MemoryPool&) = delete;
  ~MemoryPool() {
    TAILRACE_CHECK(head_ == nullptr, "nobody waits for memory of a pool that goes away");
    TAILRACE_CHECK(used_ == 0, "all reservations are given back before their pool goes away");
  }

  [[nodiscard]] std::string_view name() const { return name_; }
  [[nodiscard]] std::uint64_t limit() const { return limit_; }
  [[nodiscard]] std::uint64_t used() const { return used_; }
  [[nodiscard]] std::uint64_t used_max() const { return used_max_; }
  [[nodiscard]] std::size_t waiting() const { return waiting_; }
  /// Called when somebody begins to wait; must only queue work.
  std::function<void()> on_wait;

  /// Now or never. Errors: no_credit (in use; others wait first), too_large (more than the pool has), closed.
  [[nodiscard]] Result<Reservation> try_reserve(std::uint64_t bytes);
  /// Queues `waiter` (its bytes and granted set). Errors, without queueing: too_many, too_large, closed.
  [[nodiscard]] Result<void> wait(Waiter& waiter);
  void remove(Waiter& waiter);
  /// Ends all waits with `closed`; later calls answer it too. Reservations stay valid.
  void close();

  class Acquire;
  /// `co_await pool.acquire(executor, bytes)`: Result<Reservation>; errors as wait().
  [[nodiscard]] Acquire acquire(Executor& executor, std::uint64_t bytes);

 private:
  friend class Reservation;
  void give_back(std::uint64_t bytes);
  void take(std::uint64_t bytes);
  void unlink(Waiter& waiter);
  void serve();

  std::string_view name_;
  std::uint64_t limit_;
  std::size_t waiters_max_;
  std::uint64_t used_ = 0;
  std::uint64_t used_max_ = 0;
  std::size_t waiting_ = 0;
  Waiter* head_ = nullptr;
  Waiter* tail_ = nullptr;
  bool closed_ = false;
};

class MemoryPool::Acquire : private Waiter, private Runnable {
 public:
  Acquire(MemoryPool& pool, Executor& executor, std::uint64_t wanted) : pool_{pool}, executor_{executor} { bytes = wanted; }
  [[nodiscard]] bool await_ready() {
    outcome_ = pool_.try_reserve(bytes);
    return outcome_ || outcome_.error().code != Errc::no_credit;
  }
  bool await_suspend(std::coroutine_handle<> handle) {
    handle_ = handle;
    run = [](Runnable* self) noexcept { static_cast<Acquire*>(self)->handle_.resume(); };
    granted = [](Waiter* self, Result<Reservation> outcome) noexcept {
      auto* me = static_cast<Acquire*>(self);
      me->outcome_ = std::move(outcome);
      me->executor_.post(*me);
    };
    if (auto queued = pool_.wait(*this); !queued) {
      outcome_ = std::unexpected(queued.error());
      return false;
    }
    return true;
  }
  [[nodiscard]] Result<Reservation> await_resume() { return std::move(outcome_); }

 private:
  MemoryPool& pool_;
  Executor& executor_;
  Result<Reservation> outcome_{};
  std::coroutine_handle<> handle_;
};
inline MemoryPool::Acquire MemoryPool::acquire(Executor& executor, std::uint64_t bytes) { return Acquire{*this, executor, bytes}; }

enum class Pool : std::uint8_t {
  requests,   // frames being read and batches on their way into the log
  replies,    // batches on their way to consumers, and large answers from before they are made
  control,    // parsed control messages, a multiple of their bytes on the wire
  streams,    // what open publish streams and subscribed partitions keep while they are idle
  receiving,  // what of `requests` frames may hold that are not whole yet: who sends slowly leaves the other half to the rest
};
inline constexpr std::size_t kPoolCount = 5;

class MemoryBudget {
 public:
  /// Shares of `bytes`: requests 50 %, replies 40 %, control 10 %; receiving half of requests, and counted there. Streams have
  /// 40 % on top: they are held for hours and may not starve what passes.
  explicit MemoryBudget(std::uint64_t bytes, std::size_t waiters_max);
  [[nodiscard]] MemoryPool& pool(Pool which) { return pools_[static_cast<std::size_t>(which)]; }
  [[nodiscard]] const MemoryPool& pool(Pool which) const { return pools_[static_cast<std::size_t>(which)]; }
  [[nodiscard]] std::uint64_t limit() const;
  [[nodiscard]] std::uint64_t used() const;
  void close();

 private:
  std::array<MemoryPool, kPoolCount> pools_;
};

}  // namespace tailrace::broker::flow
