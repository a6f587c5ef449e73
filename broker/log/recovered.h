#pragma once
/// What recovery knows of a partition before anybody opens it: its checkpoint, changed by the frames behind it, and the
/// batches that only the WAL holds.
#include <functional>
#include <vector>

#include "base/buffer.h"
#include "log/checkpoint.h"
#include "log/wal_format.h"

namespace tailrace::broker::log {

/// A batch, a remainder, or (in front only) a new beginning behind the checkpoint. Its bytes may still lie in the WAL only: see fetch_tail().
struct TailFrame {
  FrameType type{};
  Slice bytes{};               // `length` of them, or none yet
  Offset base{};
  Offset next{};               // a batch's exclusive end
  Offset segment{};
  std::uint32_t position = 0;
  std::uint64_t frame = 0;
  std::int64_t append_ms = 0;
  std::uint32_t length = 0;    // of the payload, what a truncation left of it
  std::uint32_t wal_length = 0;    // all of it
  std::uint32_t wal_position = 0;  // of the frame in its file
  std::uint64_t wal_file = 0;  // sequence
};

struct RecoveredPartition {
  PartitionCheckpoint state{};
  std::vector<TailFrame> tail{};
  Offset end{};                // log end as far as the WAL says
  bool cut_elsewhere = false;  // one named a segment that batches of the flushed one were moved to: only its offset counts
  bool truncated = false;      // a truncation frame was applied: newer segment files are leftovers of it
  bool removed = false;        // its files are to be deleted
  [[nodiscard]] bool begins_anew() const { return !tail.empty() && tail.front().type == FrameType::install; }
};

/// Where the frames of a WAL file are read: the file and its salt. Null: the file is not in use any more.
struct WalSource {
  io::File* file = nullptr;
  std::uint64_t salt = 0;
};
using WalSources = std::move_only_function<WalSource(std::uint64_t file_sequence)>;

/// Reads from the WAL what recovery did not keep in memory. Frames are checked again.
/// Errors: io_error; corrupt (a frame that recovery found whole is not).
Task<Result<void>> fetch_tail(std::vector<TailFrame>& tail, WalSources sources);

}  // namespace tailrace::broker::log
