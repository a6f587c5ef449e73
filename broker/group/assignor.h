#pragma once
/// Who reads which partition. Pure functions of what is known; both give the same answer for the same input, on any machine.
///
///   range    per topic, neighbouring partitions to one member: co-partitioned topics meet (Kafka's RangeAssignor)
///   sticky   as even as the subscriptions allow, and as little moved as that needs
///
/// Spec     docs/groups.md, "Assignment".
#include <map>
#include <string>
#include <vector>

#include "model/ids.h"

namespace tailrace::broker::group {

using MemberId = std::string;

struct Subscription {
  MemberId member{};
  std::vector<TopicId> topics{};  // ascending, none twice
};
/// How many partitions each topic has. One that is not in it does not exist (yet).
using PartitionCounts = std::map<TopicId, std::int32_t>;
/// Every member of the subscriptions, with its partitions ascending; each partition of a subscribed topic once.
using Assignment = std::map<MemberId, std::vector<PartitionId>>;

enum class Assignor : std::uint8_t { range, sticky };

[[nodiscard]] Assignment assign_range(const std::vector<Subscription>& members, const PartitionCounts& topics);
/// `before`: what stays where it is as far as it can.
[[nodiscard]] Assignment assign_sticky(const std::vector<Subscription>& members, const PartitionCounts& topics, const Assignment& before);

}  // namespace tailrace::broker::group
