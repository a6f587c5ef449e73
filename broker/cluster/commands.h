#pragma once
/// The commands of `__metadata`-0: each is one record's value. Spec: docs/metadata.md.
///
///   u8 type   u8 version = 1   fields, little endian; a string is u16 length and bytes
///
/// A reader refuses a type or version it does not know with newer_format, and bytes left over or missing with corrupt: a
/// command that is not understood whole must not be skipped, since later ones build on it.
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "cluster/topic_keys.h"
#include "model/ids.h"

namespace tailrace::broker::cluster {

struct CreateTopic {
  TopicId id{};
  std::string name;
  std::int32_t partitions = 1;
  TopicSettings settings{};
  friend bool operator==(const CreateTopic&, const CreateTopic&) = default;
};
/// Sets and unsets keys and grows the partition count, all or nothing.
struct AlterTopic {
  TopicId id{};
  std::int32_t partitions = 0;  // 0: as it is
  TopicSettings set{};
  std::vector<TopicKey> unset{};
  friend bool operator==(const AlterTopic&, const AlterTopic&) = default;
};
/// From here on the topic is gone for everybody; its files are being removed.
struct DeleteTopic {
  TopicId id{};
  friend bool operator==(const DeleteTopic&, const DeleteTopic&) = default;
};
/// Its files are gone, durably. Between the two commands a restart goes on removing.
struct TopicRemoved {
  TopicId id{};
  friend bool operator==(const TopicRemoved&, const TopicRemoved&) = default;
};
/// Gives `node` the ids [first, first + count). `first` must be the next free one.
struct AllocateProducerIds {
  NodeId node{};
  std::int64_t first = 0;
  std::int32_t count = 0;
  friend bool operator==(const AllocateProducerIds&, const AllocateProducerIds&) = default;
};
/// A whole state in parts, so that the log before it can go. It counts once the last part was applied and the checksum holds;
/// an incomplete one (a crash between parts) is forgotten when another command follows.
struct SnapshotBegin {
  std::uint32_t parts = 0;
  std::uint64_t bytes = 0;
  std::uint32_t crc = 0;  // CRC-32C of all parts together
  friend bool operator==(const SnapshotBegin&, const SnapshotBegin&) = default;
};
struct SnapshotPart {
  std::uint32_t index = 0;
  std::vector<std::byte> bytes{};
  friend bool operator==(const SnapshotPart&, const SnapshotPart&) = default;
};
using Command =
    std::variant<CreateTopic, AlterTopic, DeleteTopic, TopicRemoved, AllocateProducerIds, SnapshotBegin, SnapshotPart>;

inline constexpr std::size_t kSnapshotPartBytes = 16 * 1024;  // so that one fits the smallest WAL file
inline constexpr std::size_t kCommandBytesMax = kSnapshotPartBytes + 64;
inline constexpr std::uint64_t kSnapshotBytesMax = 256ULL << 20;  // 100,000 topics of the largest size are about 70 MiB

[[nodiscard]] std::vector<std::byte> encode(const Command& command);
[[nodiscard]] Result<Command> decode_command(Bytes bytes);

}  // namespace tailrace::broker::cluster
