#pragma once
/// The configuration keys of a topic: their names, meanings, bounds, and their values as text. One table serves create,
/// alter, describe and `tailrace config explain topic.KEY`.
///
/// Text      a time is a whole number with a unit: "500ms", "30s", "15m", "12h", "7d", "2w"; a size is "512B", "64KiB",
///           "1GiB" or a bare number of bytes ("kB", "MB", "GB" are powers of ten); "unlimited" where that is the meaning.
/// Printed   canonically: the largest unit that divides the value, so that parse(print(x)) == x and print is one text.
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/topic.h"

namespace tailrace::broker::cluster {

/// Order and numbers are free to change: storage holds names (docs/metadata.md).
enum class TopicKey : std::uint8_t {
  retention_time, retention_bytes, segment_bytes_max, message_bytes_max, timestamp_type, cleanup_policy, durability, streams,
};
inline constexpr std::size_t kTopicKeyCount = 8;

struct TopicKeyInfo {
  TopicKey key{};
  std::string_view name;
  std::string_view values;   // what may be written, with bounds
  std::string_view meaning;  // one sentence for a person
};
[[nodiscard]] std::span<const TopicKeyInfo, kTopicKeyCount> topic_keys();
[[nodiscard]] const TopicKeyInfo& info_of(TopicKey key);

/// unknown_key with the nearest name that exists, when one is near.
[[nodiscard]] Result<TopicKey> topic_key_named(std::string_view name);

/// Parses `text` and puts it into `config`. Errors: invalid_argument, naming key, text, and what would be accepted.
[[nodiscard]] Result<void> set_topic_key(TopicConfig& config, TopicKey key, std::string_view text);
[[nodiscard]] std::string print_topic_key(const TopicConfig& config, TopicKey key);

/// Canonical text of the keys that were set by a user; the others follow the broker's defaults.
using TopicSettings = std::map<TopicKey, std::string>;

/// Parses one key and value as a user wrote them and puts the canonical text into `settings`.
[[nodiscard]] Result<void> add_setting(TopicSettings& settings, std::string_view name, std::string_view text);
/// The defaults with `settings` on top. A largest batch must fit a segment: of message_bytes_max and segment_bytes_max, the
/// one that nobody set gives way. So whether settings are valid never depends on the defaults, and a broker started with
/// other defaults replays every stored topic. Errors: invalid_argument, for a value or for two that contradict each other.
[[nodiscard]] Result<TopicConfig> effective_config(const TopicConfig& defaults, const TopicSettings& settings);

[[nodiscard]] Result<std::chrono::milliseconds> parse_duration(std::string_view text);
[[nodiscard]] Result<std::uint64_t> parse_size(std::string_view text);
[[nodiscard]] std::string print_duration(std::chrono::milliseconds value);
[[nodiscard]] std::string print_size(std::uint64_t bytes);

/// Of `known`, the one that a person who typed `text` most likely meant; empty when none is near (edit distance at most 1
/// for up to four letters, otherwise a third of the length).
[[nodiscard]] std::string_view nearest_name(std::string_view text, std::span<const std::string_view> known);

}  // namespace tailrace::broker::cluster
