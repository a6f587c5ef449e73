#pragma once
/// Names of a partition's files, and whole-file reads and writes for the small ones.
/// Spec     docs/storage-format.md, "Partition folder".
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/buffer.h"
#include "io/runtime.h"
#include "model/ids.h"

namespace tailrace::broker::log {

[[nodiscard]] std::string topics_folder(const std::string& data_directory);
[[nodiscard]] std::string topic_folder(const std::string& data_directory, const TopicId& topic);
[[nodiscard]] std::string partition_folder(const std::string& data_directory, const PartitionId& id);
[[nodiscard]] std::string shard_folder(const std::string& data_directory, ShardIndex shard);
/// `extension`: "log", "idx", "snap".
[[nodiscard]] std::string segment_path(const std::string& folder, Offset base, std::string_view extension);
/// Segments of a partition that its shard does not know become `.orphan`; what is derived from them goes. Ok if there is no folder.
Task<Result<void>> set_files_aside(io::Runtime& runtime, std::string folder);

/// The base offset of "<20 digits>.<extension>"; none for any other name.
[[nodiscard]] std::optional<Offset> parse_segment_name(std::string_view name, std::string_view extension);
[[nodiscard]] std::optional<TopicId> parse_topic_id(std::string_view text);

/// Reads past the page cache. Errors: not_found, too_large, io_error, descriptors_exhausted.
Task<Result<Slice>> read_whole_file(io::Runtime& runtime, std::string path, std::size_t bytes_max);
/// Writes `path`.tmp, syncs it, renames it over `path`. The folder is not synced: old or new are both right afterwards.
Task<Result<void>> replace_file(io::Runtime& runtime, std::string path, std::vector<std::byte> bytes);

/// Snapshot file: derived state at a segment's start.
[[nodiscard]] std::vector<std::byte> encode_snapshot(Offset at, Bytes state);
struct DecodedSnapshot {
  Offset at{};
  Bytes state{};
};
[[nodiscard]] Result<DecodedSnapshot> decode_snapshot(Bytes bytes);
inline constexpr std::size_t kSnapshotBytesMax = std::size_t{64} << 20;

}  // namespace tailrace::broker::log
