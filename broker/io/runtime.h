#pragma once
/// What a shard gives to the code that runs on it. Everything outside the process comes through here, so the simulator
/// replaces all of it at once.
#include "base/executor.h"
#include "base/random.h"
#include "io/clock.h"
#include "io/file.h"
#include "io/timer.h"

namespace tailrace::broker::io {

struct Runtime {
  FileSystem& files;
  Clock& clock;
  Timers& timers;
  Executor& executor;
  Random& random;
};

}  // namespace tailrace::broker::io
