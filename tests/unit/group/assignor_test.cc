#include "group/assignor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "base/random.h"

namespace tailrace::broker::group {
namespace {

TopicId topic(std::uint8_t n) {
  TopicId id;
  id.bytes[15] = n;
  return id;
}

std::size_t moved(const Assignment& before, const Assignment& after) {
  std::size_t out = 0;
  for (const auto& [member, has] : before) {
    auto now = after.find(member);
    for (const PartitionId& partition : has) out += now != after.end() && !std::ranges::binary_search(now->second, partition) ? 1 : 0;
  }
  return out;
}

/// Each partition of a subscribed topic once, to somebody who subscribed.
void expect_whole(const Assignment& assignment, const std::vector<Subscription>& members, const PartitionCounts& topics) {
  std::set<PartitionId> given;
  for (const Subscription& member : members) {
    ASSERT_TRUE(assignment.contains(member.member));
    EXPECT_TRUE(std::ranges::is_sorted(assignment.at(member.member)));
    for (const PartitionId& partition : assignment.at(member.member)) {
      EXPECT_TRUE(std::ranges::binary_search(member.topics, partition.topic));
      EXPECT_TRUE(given.insert(partition).second) << "given twice";
    }
  }
  std::size_t wanted = 0;
  for (const auto& [id, count] : topics) {
    bool any = std::ranges::any_of(members, [&](const Subscription& s) { return std::ranges::binary_search(s.topics, id); });
    wanted += any ? static_cast<std::size_t>(count) : 0;
  }
  EXPECT_EQ(given.size(), wanted);
}

TEST(AssignRange, GivesNeighboursToOneMember) {
  std::vector<Subscription> members{{"b", {topic(1), topic(2)}}, {"a", {topic(1), topic(2)}}, {"c", {topic(2)}}};
  Assignment out = assign_range(members, {{topic(1), 5}, {topic(2), 4}});
  auto of = [&](const char* member, std::uint8_t t) {
    std::vector<std::int32_t> indexes;
    for (const PartitionId& p : out.at(member)) {
      if (p.topic == topic(t)) indexes.push_back(p.index.value());
    }
    return indexes;
  };
  EXPECT_EQ(of("a", 1), (std::vector<std::int32_t>{0, 1, 2}));
  EXPECT_EQ(of("b", 1), (std::vector<std::int32_t>{3, 4}));
  EXPECT_EQ(of("a", 2), (std::vector<std::int32_t>{0, 1}));
  EXPECT_EQ(of("b", 2), (std::vector<std::int32_t>{2}));
  EXPECT_EQ(of("c", 2), (std::vector<std::int32_t>{3}));
}

TEST(AssignSticky, MovesNoMoreThanEvennessNeeds) {
  PartitionCounts topics{{topic(1), 12}};
  std::vector<Subscription> three{{"a", {topic(1)}}, {"b", {topic(1)}}, {"c", {topic(1)}}};
  Assignment first = assign_sticky(three, topics, {});
  for (const auto& [member, has] : first) EXPECT_EQ(has.size(), 4u);
  EXPECT_EQ(assign_sticky(three, topics, first), first) << "nothing changed, nothing moves";
  auto four = three;
  four.push_back({"d", {topic(1)}});
  Assignment joined = assign_sticky(four, topics, first);
  EXPECT_EQ(joined.at("d").size(), 3u);
  EXPECT_EQ(moved(first, joined), 3u);
  Assignment left = assign_sticky({three[0], three[1]}, topics, first);
  EXPECT_EQ(moved(first, left), 0u) << "those who stay keep what they have";
  Assignment grown = assign_sticky(three, {{topic(1), 13}}, first);
  EXPECT_EQ(moved(first, grown), 0u);
}

TEST(AssignSticky, IsAsEvenAsSubscriptionsAllow) {
  Random random{3};
  for (int round = 0; round < 400; ++round) {
    std::vector<Subscription> members;
    PartitionCounts topics;
    auto topic_count = static_cast<std::uint8_t>(1 + random.below(4));
    for (std::uint8_t t = 0; t < topic_count; ++t) topics[topic(t)] = static_cast<std::int32_t>(random.below(9));
    bool uniform = random.chance(1, 2);
    for (std::uint64_t m = 1 + random.below(7); m > 0; --m) {
      Subscription member{"m" + std::to_string(m), {}};
      for (std::uint8_t t = 0; t < topic_count; ++t) {
        if (uniform || random.chance(1, 2)) member.topics.push_back(topic(t));
      }
      members.push_back(member);
    }
    Assignment before;
    for (int step = 0; step < 3; ++step) {
      Assignment out = assign_sticky(members, topics, before);
      expect_whole(out, members, topics);
      expect_whole(assign_range(members, topics), members, topics);
      // Nobody has two more than somebody who could take one of them.
      for (const Subscription& rich : members) {
        for (const Subscription& poor : members) {
          if (out.at(rich.member).size() < out.at(poor.member).size() + 2) continue;
          for (const PartitionId& p : out.at(rich.member)) EXPECT_FALSE(std::ranges::binary_search(poor.topics, p.topic)) << "round " << round;
        }
      }
      before = std::move(out);
      if (members.size() > 1 && random.chance(1, 2)) members.erase(members.begin() + static_cast<std::ptrdiff_t>(random.below(members.size())));
      else members.push_back({"n" + std::to_string(step), members.front().topics});
    }
  }
}

}  // namespace
}  // namespace tailrace::broker::group
