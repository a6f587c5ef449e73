#pragma once
/// Offline tools: re-check a whole data directory, print any file of ours. Both only read, and both go on past damage.
/// Spec     docs/storage-format.md; they judge by it what recovery would judge, and never repair.
/// Memory   windows of 1 MiB, with 8 reads of 1 MiB ahead, over WAL files and segments; indexes, snapshots and checkpoints whole, within their own limits.
#include <cstdint>
#include <string>
#include <string_view>

#include "io/runtime.h"

namespace tailrace::broker::log {

/// Receives one JSON object per line, without the newline. Damage has "kind":"damage" and says what under "damage"; what is
/// unusual and no loss (a torn tail, a leftover of a crash) has "kind":"note"; both carry file, position and bytes.
struct VerifyCounts;
class LineSink {
 public:
  virtual ~LineSink() = default;
  virtual void line(std::string_view json) = 0;
  /// How far it is, now and then. `bytes_expected`: of all files, roughly; 0: not known, or nobody wants to know.
  virtual void progress(const VerifyCounts& /*so_far*/, std::uint64_t /*bytes_expected*/) {}
  [[nodiscard]] virtual bool wants_progress() const { return false; }
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
  std::uint64_t notes = 0;       // the other notes
};

/// Takes the lock, so that nobody writes meanwhile. Lines: one per file, one per damaged place.
/// Errors: data_directory_locked, foreign_data_directory, newer_format, descriptors_exhausted, io_error. Damage is not an error.
Task<Result<VerifyCounts>> verify_directory(io::Runtime& runtime, std::string path, LineSink& sink);

/// WAL slot, checkpoint, segment, index, snapshot, node.toml or shards, told by its name, else by its content. One line per
/// header, frame, batch, entry. Takes no lock: a file being written to may look torn.
/// Errors: not_found, invalid_argument (none of ours), newer_format, io_error.
Task<Result<VerifyCounts>> dump_file(io::Runtime& runtime, std::string path, LineSink& sink);

}  // namespace tailrace::broker::log
