#pragma once
/// What a shard knows at one moment beyond the WAL files it still needs. Two copies, written in turn, so that a torn write
/// leaves the other.
/// Spec     docs/storage-format.md, "Checkpoint".
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "io/runtime.h"
#include "log/replicated.h"
#include "model/ids.h"

namespace tailrace::broker::log {

/// A term and the position behind its first entry, the term start; (offset, 0) where only a batch tells of the term.
struct TermEntry {
  LeaderEpoch term{};
  Offset start{};
  std::uint32_t sub = 0;
  [[nodiscard]] LogPosition behind() const { return {start, sub}; }
  friend bool operator==(const TermEntry&, const TermEntry&) = default;
};
/// Offsets [from, to) are known to be lost. `to` equals `from` while the end is not known: everything at or after it.
struct Hole {
  Offset from{};
  Offset to{};
  bool accepted = false;  // by the operator: reads step over it
  friend bool operator==(const Hole&, const Hole&) = default;
};

struct PartitionCheckpoint {
  std::uint32_t number = 0;  // shard-local, never reused
  PartitionId id{};
  HardState hard{};
  std::uint64_t hard_frame = 0;  // sequence of the newest frame that is in `hard`: those up to it change nothing of it any more
  bool removed = false;          // deleted; its files may still be there
  Offset log_start{};
  LogPosition commit{};  // as far as known
  /// Bytes of `flushed_segment` below `flushed_position`, and all older segments, are synced. `flushed_offset` is the first
  /// offset not wholly there.
  Offset flushed_segment{};
  std::uint32_t flushed_position = 0;
  Offset flushed_offset{};
  /// What the batches of `flushed_segment` add up to (batch_digest()): the first, and those before `flushed_offset`. Not known after a
  /// truncation until it is laid anew.
  std::optional<std::uint32_t> first_digest{};
  std::optional<std::uint32_t> flushed_digest{};
  std::int64_t last_append_ms = 0;
  std::uint64_t applied_through = 0;  // frame sequence: frames up to it change nothing any more
  Offset snapshot{-1};                // base of the newest .snap relied on; -1: none
  HistoryStart history{};             // marks before it are not kept
  std::vector<TermEntry> terms{};     // ascending
  std::vector<Mark> marks{};          // of memberships and log starts, ascending
  std::vector<Hole> holes{};          // ascending
};

struct Checkpoint {
  std::uint64_t sequence = 0;  // of checkpoints; the higher valid one counts
  std::uint32_t shard = 0;
  std::uint32_t slots = 0;  // WAL slot files that exist: one missing is damage
  std::array<std::uint8_t, 16> directory_id{};
  std::uint64_t wal_file_bytes = 0;
  std::uint64_t oldest_file = 1;    // file sequence the next recovery begins at
  std::uint64_t oldest_frame = 1;   // first frame of that file
  std::uint64_t newest_file = 0;    // file sequence in use when it was written; 0: none yet
  std::uint64_t durable_frame = 0;  // frames up to it were durable
  std::uint32_t next_number = 0;
  std::uint64_t incarnation = 0;  // starts of this shard so far
  bool clean = false;             // written by close(): no frame after durable_frame exists
  std::vector<PartitionCheckpoint> partitions{};
};

[[nodiscard]] std::vector<std::byte> encode(const Checkpoint& checkpoint);
/// Errors: corrupt, newer_format.
[[nodiscard]] Result<Checkpoint> decode_checkpoint(Bytes bytes);

inline constexpr std::size_t kCheckpointBytesMax = std::size_t{256} << 20;
inline constexpr std::size_t kTermsMax = 4'096;  // the oldest are dropped: a follower that far behind restarts at log start
inline constexpr std::size_t kHolesMax = 1'024;

/// `folder`/checkpoint-0 and -1.
[[nodiscard]] std::string checkpoint_path(const std::string& shard_folder, int copy);

/// The two copies as they lie on the disk.
struct CheckpointCopies {
  std::uint64_t sequence = 0;   // of the newest
  int newest = 0;               // the copy that is the newest
  std::array<bool, 2> sound{};  // read back whole, or written to the end: may be overwritten in place
};

struct LoadedCheckpoint {
  bool found = false;  // false: neither copy exists
  Checkpoint checkpoint{};
  CheckpointCopies copies{};
  int bad_copies = 0;  // exist, and did not parse or could not be read
};
/// Whose checkpoint it must be. A copy of another shard or directory was put there by somebody, and is a bad copy.
struct CheckpointOwner {
  std::uint32_t shard = 0;
  std::array<std::uint8_t, 16> directory_id{};
};
/// Errors: corrupt (copies were read, none is valid), newer_format, io_error (none is valid, and one could not be read).
Task<Result<LoadedCheckpoint>> load_checkpoint(io::Runtime& runtime, std::string shard_folder, std::optional<CheckpointOwner> owner = {});
/// Writes both copies, the older first, each with a sequence of its own, and makes them durable. At every moment one of
/// the two is whole: a copy that is missing, or whose last write may have failed, is replaced (written beside, synced,
/// renamed, the folder synced) instead of overwritten. Answers the bytes written.
Task<Result<std::uint64_t>> write_checkpoint_copies(io::Runtime& runtime, std::string shard_folder, CheckpointCopies& copies, Checkpoint& checkpoint);

}  // namespace tailrace::broker::log
