#pragma once
/// The nouns that everything is counted in.
#include <array>
#include <compare>
#include <cstdint>
#include <functional>
#include <string>

#include "base/strong.h"

namespace tailrace::broker {

using Offset = Strong<struct OffsetTag, std::int64_t>;          // a record's place in its partition, from 0
using LeaderEpoch = Strong<struct LeaderEpochTag, std::int32_t>;  // = Raft term
using PartitionIndex = Strong<struct PartitionIndexTag, std::int32_t>;
using ShardIndex = Strong<struct ShardIndexTag, std::uint32_t>;
using NodeId = Strong<struct NodeIdTag, std::int32_t>;
using ProducerId = Strong<struct ProducerIdTag, std::int64_t>;    // -1: not idempotent
using ProducerEpoch = Strong<struct ProducerEpochTag, std::int16_t>;

inline constexpr ProducerId kNoProducer{-1};

/// 128 random bits, as text 32 hex digits. Directory names use it, so a topic's name never reaches the disk.
struct TopicId {
  std::array<std::uint8_t, 16> bytes{};
  friend auto operator<=>(const TopicId&, const TopicId&) = default;
  [[nodiscard]] std::string to_string() const;
};
/// The id of `__metadata` is fixed: it must be found before any metadata is known.
inline constexpr TopicId kMetadataTopicId{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}};

struct PartitionId {
  TopicId topic{};
  PartitionIndex index{};
  friend auto operator<=>(const PartitionId&, const PartitionId&) = default;
};

/// A place in a replicated log. Entries of length zero (term starts, membership) share an offset and differ in `sub`.
struct LogPosition {
  Offset offset{};
  std::uint32_t sub = 0;
  friend auto operator<=>(const LogPosition&, const LogPosition&) = default;
};

}  // namespace tailrace::broker

template <>
struct std::hash<tailrace::broker::TopicId> {
  std::size_t operator()(const tailrace::broker::TopicId& id) const noexcept {
    std::uint64_t h = 0xcbf29ce484222325ULL;  // FNV-1a; ids are random already
    for (auto b : id.bytes) h = (h ^ b) * 0x100000001b3ULL;
    return h;
  }
};
template <>
struct std::hash<tailrace::broker::PartitionId> {
  std::size_t operator()(const tailrace::broker::PartitionId& id) const noexcept {
    return std::hash<tailrace::broker::TopicId>{}(id.topic) * 0x9e3779b97f4a7c15ULL +
           static_cast<std::uint32_t>(id.index.value());
  }
};
