#pragma once
/// What recovery knows of a partition before anybody opens it: its checkpoint, changed by the frames behind it, and the
/// batches that only the WAL holds.
#include <vector>

#include "base/buffer.h"
#include "log/checkpoint.h"
#include "log/wal_format.h"

namespace tailrace::broker::log {

struct TailFrame {
  FrameType type{};            // batch or remainder
  Slice bytes{};
  Offset base{};
  Offset next{};               // a batch's exclusive end
  Offset segment{};
  std::uint32_t position = 0;
  std::uint64_t frame = 0;
  std::int64_t append_ms = 0;
};

struct RecoveredPartition {
  PartitionCheckpoint state{};
  std::vector<TailFrame> tail{};
  Offset end{};                // log end as far as the WAL says
  bool cut_elsewhere = false;  // one named a segment that batches of the flushed one were moved to: only its offset counts
  bool truncated = false;      // a truncation frame was applied: newer segment files are leftovers of it
  bool removed = false;        // its files are to be deleted
};

}  // namespace tailrace::broker::log
