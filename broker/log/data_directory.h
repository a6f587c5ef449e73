#pragma once
/// The root of one node's data: lock, identity, clean-stop mark, change of shard count.
/// Spec     docs/storage-format.md, "Data directory".
#include <cstdint>
#include <memory>
#include <string>

#include "io/runtime.h"
#include "model/ids.h"

namespace tailrace::broker::log {

struct NodeIdentity {
  NodeId node{};
  std::string cluster_id{};    // 32 hex digits
  std::string directory_id{};  // 32 hex digits; fresh for every new directory
  std::uint32_t format = 0;
};

/// What a new directory gets; an existing one keeps its own.
struct NewIdentity {
  NodeId node{1};
  std::string cluster_id{};  // empty: drawn
};

/// Owns     the lock, until destruction.
/// Thread   the shard whose runtime opened it.
class DataDirectory {
 public:
  virtual ~DataDirectory() = default;

  /// Locks, creates what is missing, reads node.toml.
  /// Errors: data_directory_locked; foreign_data_directory (not empty, and no node.toml); newer_format; corrupt; io_error.
  static Task<Result<std::unique_ptr<DataDirectory>>> open(io::Runtime& runtime, std::string path, std::uint32_t shards_wanted,
                                                           NewIdentity identity = {});

  [[nodiscard]] virtual const std::string& path() const = 0;
  [[nodiscard]] virtual const NodeIdentity& identity() const = 0;
  /// The clean mark was found: the last stop drained everything.
  [[nodiscard]] virtual bool was_clean() const = 0;
  /// The directory was made by this open().
  [[nodiscard]] virtual bool is_new() const = 0;
  /// Shard count of the last run; rehome() changes it.
  [[nodiscard]] virtual std::uint32_t shards_before() const = 0;
  [[nodiscard]] virtual std::uint32_t shards_wanted() const = 0;
  /// Before the first write after a start: removes the clean mark and syncs the directory. Idempotent.
  virtual Task<Result<void>> mark_dirty() = 0;
  /// The last thing of a clean stop.
  virtual Task<Result<void>> mark_clean() = 0;
};

/// Moves every partition to the shard that owns it under `shards_wanted`: replays the old WALs, syncs, reassigns. Call it before
/// any shard log is opened, whatever the count: a move that a crash cut short, perhaps to another count, is finished first.
/// Nothing is done when there is nothing to do. Safe to crash at any point and to run again. After it shards_before() ==
/// shards_wanted(). Shards' options are the same for all.
struct ShardLogOptions;
Task<Result<void>> rehome(io::Runtime& runtime, DataDirectory& directory, ShardLogOptions options);

/// Stable: the same partition and count give the same shard for ever. `__metadata`-0 lives on shard 0.
[[nodiscard]] ShardIndex home_of(const PartitionId& partition, std::uint32_t shards);

}  // namespace tailrace::broker::log
