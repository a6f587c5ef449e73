#pragma once
/// The parts of verify_directory: one shard's checkpoint and WAL, then the partitions with what those two know of them.
#include <array>
#include <map>
#include <set>
#include <vector>

#include "log/checkpoint.h"
#include "log/offline_report.h"
#include "log/wal_format.h"

namespace tailrace::broker::log {

/// A partition as checkpoint and WAL describe it, together.
struct KnownPartition {
  PartitionCheckpoint state{};
  Offset end{};                    // as far as the WAL says
  bool truncated = false;          // behind the checkpoint: newer segment files are leftovers
  bool removed = false;
  bool incomplete = false;         // frames are missing that may have been its own
  std::set<Offset> wal_segments{};  // their bytes are in the WAL, whatever the files hold
};

struct ShardSeen {
  bool begun = false;         // a checkpoint copy or a used WAL file is there
  bool checkpoint_good = false;
  Checkpoint checkpoint{};
  std::map<std::uint32_t, KnownPartition> partitions{};
};

struct DirectoryFacts {
  std::string root{};
  bool identity_known = false;
  std::array<std::uint8_t, 16> directory_id{};
  bool clean_mark = false;
};

Task<Result<void>> verify_shard(io::Runtime& runtime, OfflineReport& report, const DirectoryFacts& facts, std::uint32_t shard, ShardSeen& into);

/// `known`: null when no shard knows the folder.
Task<Result<void>> verify_partition(io::Runtime& runtime, OfflineReport& report, std::string folder, const KnownPartition* known);

}  // namespace tailrace::broker::log
