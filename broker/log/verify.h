#pragma once
/// Offline tools: re-check a whole data directory, print any file of ours. Both go on past damage.
/// Spec     docs/storage-format.md.
#include <cstdint>
#include <string>
#include <string_view>

#include "io/runtime.h"

namespace tailrace::broker::log {

/// Receives one JSON object per line, without the newline.
class LineSink {
 public:
  virtual ~LineSink() = default;
  virtual void line(std::string_view json) = 0;
};

struct VerifyCounts {
  std::uint64_t files = 0;
  std::uint64_t bytes = 0;
  std::uint64_t frames = 0;      // of WALs
  std::uint64_t partitions = 0;
  std::uint64_t batches = 0;     // of segments
  std::uint64_t records = 0;
  std::uint64_t damaged = 0;     // places; each was one line with "damage"
  std::uint64_t torn = 0;        // WAL tails without proof that they were durable: not damage
};

/// Takes the lock, so that nobody writes meanwhile. Lines: one per file, one per damaged place.
/// Errors: data_directory_locked, foreign_data_directory, io_error. Damage is not an error.
Task<Result<VerifyCounts>> verify_directory(io::Runtime& runtime, std::string path, LineSink& sink);

/// WAL slot, checkpoint, segment, index or snapshot, told by its content. One line per header, frame, batch, entry.
/// Errors: not_found, invalid_argument (none of ours), io_error.
Task<Result<VerifyCounts>> dump_file(io::Runtime& runtime, std::string path, LineSink& sink);

}  // namespace tailrace::broker::log
