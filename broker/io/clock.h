#pragma once
#include "base/time.h"

namespace tailrace::broker::io {

/// The only sources of time. Simulated in tests; wall time may jump, monotonic time may not.
class Clock {
 public:
  virtual ~Clock() = default;
  [[nodiscard]] virtual Instant now() const = 0;
  [[nodiscard]] virtual WallTime wall() const = 0;
};

}  // namespace tailrace::broker::io
