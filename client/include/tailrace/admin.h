#pragma once
/// Topics and the cluster.
///
///     auto admin = client->admin();
///     TopicSpec spec{.partitions = 4, .config = {{"retention_time", "7d"}}};
///     auto created = admin.create_topic("orders", spec).get();
///     if (!created && created.error().code != Errc::topic_exists) ...
///
/// Every call has the client's request_timeout. A call that was never sent answers `unreachable` or `timeout`; one whose
/// answer was lost is repeated if that is harmless, otherwise it answers `connection_lost` with maybe_applied.
/// Threads  any.
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tailrace/group_consumer.h"
#include "tailrace/producer.h"
#include "tailrace/record.h"

namespace tailrace {
inline namespace v1 {

namespace detail {
class ClientCore;
}

struct TopicSpec {
  std::int32_t partitions = 1;
  std::int32_t replicas = 0;  ///< 0: the broker's default
  std::map<std::string, std::string> config{};
  bool validate_only = false;
};

struct TopicChange {
  std::int32_t partitions = 0;  ///< 0: as it is; otherwise more than now
  std::map<std::string, std::string> set{};
  std::vector<std::string> unset{};  ///< back to the default
  bool validate_only = false;
};

enum class TimestampType : std::uint8_t { create_time, log_append_time };

struct PartitionSummary {
  std::int32_t partition = 0;
  std::int32_t leader = 0;  ///< node id, -1: none
  std::int32_t leader_epoch = 0;
  std::vector<std::int32_t> replicas{};
};

struct TopicSummary {
  std::string name{};
  std::string id{};  ///< 32 hex digits
  std::vector<PartitionSummary> partitions{};
  Durability durability = Durability::quorum;
  TimestampType timestamp_type = TimestampType::create_time;
  std::uint64_t message_bytes_max = 0;
  bool internal = false;
};

struct PartitionDescription {
  std::int32_t partition = 0;
  std::int32_t leader = 0;
  std::int32_t leader_epoch = 0;
  std::vector<std::int32_t> replicas{};
  std::int64_t log_start = 0;
  std::int64_t high_watermark = 0;  ///< exclusive
  std::int64_t log_end = 0;         ///< exclusive
  std::uint64_t bytes = 0;
  std::uint32_t segments = 0;
  std::optional<Instant> first_time{};
  std::optional<Instant> last_time{};
  std::uint32_t shard = 0;
  std::string damage{};  ///< empty: none known
};

struct ConfigValue {
  std::string key{};
  std::string value{};
  bool is_default = false;
  std::string meaning{};
};

struct TopicDescription {
  TopicSummary topic{};
  std::vector<ConfigValue> config{};
  std::vector<PartitionDescription> partitions{};
};

struct PartitionOffset {
  std::int32_t partition = 0;
  std::int64_t offset = 0;
};

struct ListedOffset {
  std::int32_t partition = 0;
  std::int64_t offset = 0;
  std::optional<Instant> time{};
  std::int32_t leader_epoch = 0;
};

struct BrokerDescription {
  std::int32_t node_id = 0;
  std::string address{};  ///< host:port
};

struct ClusterDescription {
  std::string cluster_id{};
  std::int32_t connected_node = 0;
  std::string connected_to{};  ///< host:port
  std::string software{};      ///< of that broker
  std::vector<std::string> features{};  ///< of that broker: "auto_create_topics" (publishing may create the topic), as in dev
  std::vector<BrokerDescription> brokers{};
  std::vector<TopicSummary> topics{};
};

class Admin {
 public:
  Admin() = default;

  /// Errors: topic_exists, invalid_topic_name, unknown_key, invalid_argument.
  Task<TopicSummary> create_topic(std::string_view name, TopicSpec spec = {});
  Task<TopicSummary> alter_topic(std::string_view name, TopicChange change);
  Task<void> delete_topic(std::string_view name, bool validate_only = false);
  Task<TopicDescription> describe_topic(std::string_view name);
  Task<std::vector<TopicSummary>> list_topics(bool include_internal = false);
  /// Records before these offsets go; offset -1: everything committed now. Answers the new log starts.
  Task<std::vector<PartitionOffset>> delete_records(std::string_view topic, std::span<const PartitionOffset> before,
                                                    bool validate_only = false);
  /// Gives up, for good, the offsets that PartitionDescription::damage names: readers go on behind them, and the partition
  /// takes records again. Without damage it changes nothing. An operator's decision: `tailrace explain E5303`.
  /// Errors: no_such_topic, no_such_partition, io_error.
  Task<void> skip_damage(std::string_view topic, std::int32_t partition);
  /// Offsets of From::earliest, latest or time in the given partitions (empty: all), in the order of the partitions.
  Task<std::vector<ListedOffset>> list_offsets(std::string_view topic, From at, std::span<const std::int32_t> partitions = {});
  Task<ClusterDescription> cluster(bool include_internal = false);

  // Consumer groups.
  Task<std::vector<GroupSummary>> list_groups();
  /// Members, offsets and lag. Errors: no_such_group.
  Task<GroupDescription> describe_group(std::string_view group);
  /// Sets offsets, each of the next record to read; makes the group if it is not there. Errors: group_not_empty (`kick` removes its members first),
  /// no_such_topic, no_such_partition, invalid_argument.
  Task<void> reset_offsets(std::string_view group, std::span<const Position> offsets, bool kick = false);
  /// Forgets the group and its offsets. Errors: no_such_group, group_not_empty.
  Task<void> delete_group(std::string_view group);

  explicit Admin(std::shared_ptr<detail::ClientCore> core) : core_{std::move(core)} {}

 private:
  std::shared_ptr<detail::ClientCore> core_{};
};

}  // namespace v1
}  // namespace tailrace
