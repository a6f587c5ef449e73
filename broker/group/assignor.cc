#include "group/assignor.h"

#include <algorithm>
#include <set>
#include <utility>

namespace tailrace::broker::group {
namespace {

bool subscribed(const Subscription& member, const TopicId& topic) { return std::ranges::binary_search(member.topics, topic); }

/// Members in the order of how much they have; equal ones in the order of their names, so that the answer is one.
using ByLoad = std::set<std::pair<std::size_t, const Subscription*>>;

void give(Assignment& out, ByLoad& loads, const Subscription* to, const PartitionId& partition) {
  std::vector<PartitionId>& has = out[to->member];
  loads.erase({has.size(), to});
  has.push_back(partition);
  loads.insert({has.size(), to});
}

/// Moves one partition from somebody with at least two more to somebody who may have it. False: there is none.
bool even_out(Assignment& out, ByLoad& loads) {
  for (auto most = loads.rbegin(); most != loads.rend(); ++most) {
    const Subscription* from = most->second;
    for (const auto& [load, to] : loads) {
      if (load + 2 > most->first) break;
      std::vector<PartitionId>& has = out[from->member];
      // The last one that may move: the first of each topic stay longest.
      auto moved = std::find_if(has.rbegin(), has.rend(), [&](const PartitionId& p) { return subscribed(*to, p.topic); });
      if (moved == has.rend()) continue;
      PartitionId partition = *moved;
      const Subscription* receiver = to;
      loads.erase({has.size(), from});
      has.erase(std::next(moved).base());
      loads.insert({has.size(), from});
      give(out, loads, receiver, partition);
      return true;
    }
  }
  return false;
}

}  // namespace

Assignment assign_range(const std::vector<Subscription>& members, const PartitionCounts& topics) {
  Assignment out;
  std::vector<const Subscription*> order;
  for (const Subscription& member : members) {
    out[member.member];
    order.push_back(&member);
  }
  std::ranges::sort(order, {}, [](const Subscription* s) { return s->member; });
  for (const auto& [topic, count] : topics) {
    std::vector<const Subscription*> readers;
    for (const Subscription* member : order) {
      if (subscribed(*member, topic)) readers.push_back(member);
    }
    if (readers.empty()) continue;
    auto size = static_cast<std::int32_t>(readers.size());
    std::int32_t next = 0;
    for (std::int32_t i = 0; i < size; ++i) {
      std::int32_t share = count / size + (i < count % size ? 1 : 0);
      for (std::int32_t k = 0; k < share; ++k) out[readers[static_cast<std::size_t>(i)]->member].push_back({topic, PartitionIndex{next++}});
    }
  }
  return out;
}

Assignment assign_sticky(const std::vector<Subscription>& members, const PartitionCounts& topics, const Assignment& before) {
  Assignment out;
  std::vector<Subscription> sorted = members;
  std::ranges::sort(sorted, {}, &Subscription::member);
  std::set<PartitionId> placed;
  ByLoad loads;
  for (const Subscription& member : sorted) {
    std::vector<PartitionId>& has = out[member.member];
    if (auto known = before.find(member.member); known != before.end()) {
      for (const PartitionId& partition : known->second) {
        auto topic = topics.find(partition.topic);
        bool there = topic != topics.end() && partition.index.value() < topic->second && subscribed(member, partition.topic);
        if (there && placed.insert(partition).second) has.push_back(partition);
      }
    }
    loads.insert({has.size(), &member});
  }
  for (const auto& [topic, count] : topics) {
    for (std::int32_t index = 0; index < count; ++index) {
      PartitionId partition{topic, PartitionIndex{index}};
      if (placed.contains(partition)) continue;
      auto least = std::ranges::find_if(loads, [&](const auto& entry) { return subscribed(*entry.second, topic); });
      if (least != loads.end()) give(out, loads, least->second, partition);
    }
  }
  while (even_out(out, loads)) {}
  for (auto& [member, has] : out) std::ranges::sort(has);
  return out;
}

}  // namespace tailrace::broker::group
