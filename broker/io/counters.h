#pragma once
/// Counts kept by one thread and read by any: metrics read them without stopping a shard.
#include <array>
#include <atomic>
#include <cstdint>

namespace tailrace::broker::io {

/// Thread   add() and set(): one thread. value(): any. Costs what a plain variable costs.
class Counter {
 public:
  void add(std::uint64_t n = 1) noexcept { set(value() + n); }
  void subtract(std::uint64_t n = 1) noexcept { set(value() - n); }
  void set(std::uint64_t n) noexcept { value_.store(n, std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t value() const noexcept { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

/// What a shard's file backend did.
struct FileCounters {
  Counter reads, writes, durable_writes, syncs, others;  // started; writes with RWF_DSYNC count as durable_writes only
  Counter bytes_read, bytes_written;                     // done
  Counter in_flight;                                     // now
  Counter queued;                                        // now: started, but not yet handed to the kernel or a thread
  Counter short_results;                                 // fewer bytes than asked for, but some
  Counter submits;                                       // system calls that handed operations over (io_uring)
  Counter wakes;                                         // on_event() calls
  Counter failures;                                      // operations that ended with an error
  static constexpr std::size_t kErrnoMax = 134;          // Linux's largest errno is 133
  std::array<Counter, kErrnoMax> failures_by_errno;      // [0]: larger than any known

  void finished(std::int64_t result, std::size_t asked) noexcept {
    in_flight.subtract();
    if (result < 0) {
      failures.add();
      auto number = static_cast<std::uint64_t>(-result);
      failures_by_errno[number < kErrnoMax ? number : 0].add();
    } else if (static_cast<std::size_t>(result) < asked) {
      short_results.add();
    }
  }
};

}  // namespace tailrace::broker::io
