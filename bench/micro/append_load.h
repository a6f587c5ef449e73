#pragma once
/// Closed-loop load on a ShardLog: `window` appends unacknowledged at any time, spread over partitions in turn.
#include "bench/micro/rig.h"

namespace tailrace::bench {

struct LoadPlan {
  int partitions = 1;
  int window = 16;
  std::uint64_t appends = 0;
  int records = 1;
  std::size_t value_bytes = 100;
};
struct LoadResult {
  double seconds = 0;
  std::uint64_t appends = 0;
  std::uint64_t bytes = 0;         // batches as stored
  std::uint64_t checksum = 0;      // over the offsets assigned
};

/// Creates the partitions that are missing, then runs the load. Only the load is timed.
[[nodiscard]] broker::Task<broker::Result<LoadResult>> append_load(broker::io::Runtime& runtime, broker::log::ShardLog& log, LoadPlan plan);

}  // namespace tailrace::bench
