#pragma once
/// What a shard's checkpoint and WAL say, before any partition is opened. Reads only; twice gives the same.
/// Spec     docs/storage-format.md, "Recovery"; design.md section 5; storage.md 2.9.
#include <map>
#include <vector>

#include "log/recovered.h"
#include "log/shard_log.h"
#include "log/wal_files.h"
#include "log/wal_reader.h"

namespace tailrace::broker::log {

struct RecoveredShard {
  Checkpoint checkpoint{};
  CheckpointCopies checkpoint_copies{};
  std::map<std::uint32_t, RecoveredPartition> partitions{};  // by number
  std::uint32_t next_number = 0;
  struct Slot {
    WalSlot slot{};
    bool live = false;
    bool cut_short = false;  // shorter than its header says
  };
  std::vector<Slot> slots{};
  std::uint64_t next_frame = 1;
  std::uint32_t previous_header_crc = 0;
  std::uint64_t next_file = 1;
  WalFiles::Chain chain{};
  std::vector<std::pair<std::uint64_t, std::uint64_t>> file_starts{};  // file, its first frame
  RecoveryReport report{};
};

/// Errors: newer_format; corrupt (no checkpoint is there, or none is valid); io_error, descriptors_exhausted (something could
/// not be read, which says nothing about what is stored: starting again may work).
Task<Result<void>> recover(io::Runtime& runtime, ShardLogOptions options, RecoveredShard& into);

/// One slot file with its header: of the two copies the valid one, the newer if they differ.
/// Errors: newer_format; io_error (neither copy is valid, and one could not be read).
struct SlotHeader {
  bool valid = false;
  bool one_copy_bad = false;
  bool cut_short = false;  // the file is shorter than the header says
  WalFileHeader header{};
};
Task<Result<SlotHeader>> read_slot_header(io::File& file);

[[nodiscard]] std::array<std::uint8_t, 16> directory_id_bytes(std::string_view hex);

}  // namespace tailrace::broker::log
