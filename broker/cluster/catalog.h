#pragma once
/// What a broker knows about topics, as an immutable value: every shard holds the same snapshot and replaces it whole.
#include <array>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cluster/topic_keys.h"
#include "model/ids.h"
#include "model/topic.h"

namespace tailrace::broker::cluster {

/// State of a topic's queue groups; snapshots of its streams. The topic's name follows.
inline constexpr std::string_view kQueueStatePrefix = "__queue.";
inline constexpr std::string_view kSnapshotsPrefix = "__snapshots.";
inline constexpr std::array kBesidePrefixes{kQueueStatePrefix, kSnapshotsPrefix};

struct Topic {
  TopicId id{};
  std::string name;
  std::int32_t partitions = 0;
  TopicSettings settings;
  TopicConfig config;      // the defaults with `settings` on top
  bool internal = false;   // the broker's own: refused to clients except for reading what it is

  [[nodiscard]] bool has(PartitionIndex index) const { return index.value() >= 0 && index.value() < partitions; }
  [[nodiscard]] bool is_default(TopicKey key) const { return !settings.contains(key); }
};
using TopicPointer = std::shared_ptr<const Topic>;

/// Thread   immutable once published; copies of the pointer may go to any shard.
class Catalog {
 public:
  /// Rises with every applied command that changed a topic.
  std::uint64_t version = 0;
  std::map<std::string, TopicPointer, std::less<>> by_name;
  std::map<TopicId, TopicPointer> by_id;

  [[nodiscard]] TopicPointer find(std::string_view name) const {
    auto at = by_name.find(name);
    return at == by_name.end() ? nullptr : at->second;
  }
  [[nodiscard]] TopicPointer find(const TopicId& id) const {
    auto at = by_id.find(id);
    return at == by_id.end() ? nullptr : at->second;
  }
  /// The broker's own topics that stand beside a user's: as many partitions, and deleted with it.
  [[nodiscard]] std::vector<TopicPointer> beside(std::string_view name) const {
    std::vector<TopicPointer> found;
    for (std::string_view prefix : kBesidePrefixes) {
      if (TopicPointer topic = find(std::string{prefix} + std::string{name})) found.push_back(std::move(topic));
    }
    return found;
  }
};

}  // namespace tailrace::broker::cluster
