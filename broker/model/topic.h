#pragma once
/// A topic's configuration and the rules for its name.
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "model/ids.h"
#include "model/limits.h"

namespace tailrace::broker {

enum class TimestampType : std::uint8_t { create_time = 0, log_append_time = 1 };
enum class Durability : std::uint8_t { quorum = 0, leader = 1, relaxed = 2 };
enum class CleanupPolicy : std::uint8_t { remove = 0 };  // configured as "delete"; compaction adds values

/// Keys as a user writes them (`topic create -c key=value`) are these members' names; absent = the default shown.
struct TopicConfig {
  std::optional<std::chrono::milliseconds> retention_time{};  // none: unlimited
  std::optional<std::uint64_t> retention_bytes{};             // none: unlimited; per partition
  std::uint64_t segment_bytes_max = limits::kSegmentBytesDefault;
  std::uint64_t message_bytes_max = limits::kMessageBytesDefault;
  TimestampType timestamp_type = TimestampType::create_time;
  CleanupPolicy cleanup_policy = CleanupPolicy::remove;
  Durability durability = Durability::quorum;
  bool streams = false;  // event streams: fixed from creation on
  friend bool operator==(const TopicConfig&, const TopicConfig&) = default;
};

/// Letters, digits, '.', '_' and '-', 1-249 of them, not "." or ".."; names that begin with "__" are the broker's own.
[[nodiscard]] Result<void> check_topic_name(std::string_view name);
/// A topic of the broker's own: its name begins with "__". Otherwise as check_topic_name(), and up to kInternalTopicNameMax characters: one that
/// stands beside a user's topic carries that one's name.
[[nodiscard]] bool is_internal_topic(std::string_view name);
[[nodiscard]] Result<void> check_internal_topic_name(std::string_view name);
/// Names that differ only in '.' against '_' clash, since metric names cannot tell them apart (Kafka refuses them too).
[[nodiscard]] std::string topic_clash_key(std::string_view name);

}  // namespace tailrace::broker
