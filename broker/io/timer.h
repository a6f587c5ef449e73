#pragma once
#include <cstddef>

#include "base/time.h"

namespace tailrace::broker::io {

/// One pending alarm; intrusive, so arming never allocates more than a place in the queue. Disarm before destroying.
struct Timer {
  void (*fire)(Timer*) noexcept = nullptr;  // on the shard's thread, from its flat loop
  Instant due{};
  std::size_t place = kIdle;                // the queue's: index in its heap, kIdle when not armed
  static constexpr std::size_t kIdle = static_cast<std::size_t>(-1);
};

/// Thread   the shard's.
class Timers {
 public:
  virtual ~Timers() = default;
  virtual void arm(Timer& timer, Instant due) = 0;  // re-arms if armed
  virtual void disarm(Timer& timer) = 0;            // nothing if idle
};

}  // namespace tailrace::broker::io
