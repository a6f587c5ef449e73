/// Consumer groups through the service: members, offsets, and what is left of both after crashes.
#include <gtest/gtest.h>

#include "base/planted.h"
#include "base/random.h"
#include "service/group_host.h"
#include "tests/unit/service/broker_world.h"

namespace tailrace::broker::service {
namespace {

using namespace std::chrono_literals;

JoinGroup joining(std::string group, std::vector<std::string> topics = {"orders"}, std::string instance = {}) {
  return {.group = std::move(group), .instance = std::move(instance), .topics = std::move(topics), .session_timeout = 10s};
}
std::size_t count_of(const GroupBeat& beat) {
  std::size_t count = 0;
  for (const TopicPartitions& some : beat.assignment) count += some.partitions.size();
  return count;
}

struct GroupWorld : BrokerWorld {
  using BrokerWorld::BrokerWorld;
  std::uint32_t at = 0;  // the shard that is asked
  GroupBeat join(JoinGroup request) {
    auto beat = run(shard(at).join_group(std::move(request)));
    EXPECT_TRUE(beat) << (beat ? "" : beat.error().detail);
    return beat ? *beat : GroupBeat{};
  }
  Answer<GroupBeat> beat(const std::string& group, const GroupBeat& last, Duration wait = {}) {
    return run(shard(at).group_heartbeat({.group = group, .member = last.member, .generation = last.generation, .owned = last.assignment, .wait_until = now() + wait}));
  }
  Answer<void> commit(const std::string& group, const GroupBeat& member, std::int32_t partition, std::int64_t offset, std::string topic = "orders") {
    return run(shard(at).commit_offsets({.group = group, .member = member.member, .generation = member.generation,
                                         .offsets = {{.topic = std::move(topic), .partition = PartitionIndex{partition}, .offset = Offset{offset}}}}));
  }
  std::map<std::int32_t, std::int64_t> offsets(const std::string& group) {
    auto stored = run(shard(at).stored_offsets(group, {}));
    EXPECT_TRUE(stored) << (stored ? "" : stored.error().detail);
    std::map<std::int32_t, std::int64_t> out;
    if (stored) for (const StoredOffset& one : *stored) out[one.partition.value()] = one.stored.offset.value();
    return out;
  }
};

// The purpose of it all: what was committed is there when the broker is there again, and whoever was a member still is.
std::string power_cuts() {
  GroupWorld world{WorldOptions{.shards = 2}};
  world.start();
  world.create("orders", 4);
  GroupBeat a = world.join(joining("g"));
  if (count_of(a) != 4) return "the only member does not read everything";
  for (auto [partition, offset] : {std::pair{0, 17}, {3, 5}, {3, 9}}) {
    if (!world.commit("g", a, partition, offset)) return "a commit is refused";
  }
  for (int i = 0; i < 3; ++i) {
    world.power_cut(sim::CrashPlan::lose_all());
    world.start();
    if (world.offsets("g") != std::map<std::int32_t, std::int64_t>{{0, 17}, {3, 9}}) return "offsets are not what was committed";
    world.at = 1 - world.at;
    auto again = world.beat("g", a);
    if (!again) return "the member is gone: " + again.error().detail;
    if (again->generation != a.generation || count_of(*again) != 4) return "the member reads something else";
    if (!world.commit("g", a, 0, 17)) return "a commit is refused after a restart";
  }
  return {};
}
TEST(Groups, APowerCutChangesNothingForItsMembers) { EXPECT_EQ(power_cuts(), ""); }

// A move takes as long as its messages: nobody waits for the next heartbeat to be due.
TEST(Groups, AWaitingHeartbeatHearsOfAMoveAtOnce) {
  GroupWorld world{WorldOptions{.shards = 2}};
  world.start();
  world.create("orders", 4);
  GroupBeat a = world.join(joining("g"));
  Instant begun = world.now();
  GroupBeat b;
  Instant given{};
  auto second = [&]() -> Task<void> {
    auto joined = co_await world.shard(1).join_group(joining("g"));
    EXPECT_TRUE(joined);
    if (joined) b = *joined;
    while (count_of(b) < 2) {
      auto told = co_await world.shard(1).group_heartbeat({.group = "g", .member = b.member, .generation = b.generation, .owned = b.assignment, .wait_until = world.now() + 4s});
      EXPECT_TRUE(told) << (told ? "" : told.error().detail);
      if (!told) co_return;
      b = *told;
    }
    given = world.now();
  };
  TaskScope scope;
  scope.spawn(second());
  while (count_of(a) != 2 || count_of(b) != 2) {
    auto told = world.beat("g", a, 4s);
    ASSERT_TRUE(told) << told.error().detail;
    a = *told;
    ASSERT_LT(world.now() - begun, 60s);
  }
  EXPECT_LT(given - begun, 1s);  // of simulated time; heartbeats wait for 4 s
  auto drain = [&]() -> Task<bool> {
    co_await scope.drain();
    co_return true;
  };
  EXPECT_TRUE(world.run(drain()));
}

// A thousand processes that start together: the topic for their offsets is made once, and all of them get in.
TEST(Groups, ManyJoinAtOnce) {
  GroupWorld world{WorldOptions{.shards = 2, .wal_file_bytes = 4 * limits::kMiB}};
  world.start();
  world.create("orders", 4);
  std::size_t joined = 0;
  auto join = [&](std::uint32_t at) -> Task<void> {
    auto beat = co_await world.shard(at).join_group(joining("g"));
    EXPECT_TRUE(beat) << (beat ? "" : beat.error().detail);
    joined += beat ? 1 : 0;
  };
  TaskScope scope;
  for (std::uint32_t i = 0; i < 1'000; ++i) scope.spawn(join(i % 2));
  auto drain = [&]() -> Task<bool> {
    co_await scope.drain();
    co_return true;
  };
  EXPECT_TRUE(world.run(drain()));
  EXPECT_EQ(joined, 1'000U);
}

TEST(Groups, WhoIsSilentGoesAndIsFenced) {
  GroupWorld world;
  world.start();
  world.create("orders", 4);
  GroupBeat a = world.join(joining("g"));
  world.loop().run_for(6s);
  GroupBeat b = world.join(joining("g"));
  EXPECT_EQ(count_of(b), 0U);
  world.loop().run_for(5s);
  auto told = world.beat("g", b);
  ASSERT_TRUE(told);
  EXPECT_EQ(count_of(*told), 4U);
  EXPECT_EQ(world.beat("g", a).error().code, Errc::unknown_member);
  EXPECT_EQ(world.commit("g", a, 0, 1).error().code, Errc::unknown_member);
  GroupBeat stale = *told;
  --stale.generation;
  EXPECT_EQ(world.commit("g", stale, 0, 1).error().code, Errc::fenced);
  EXPECT_TRUE(world.offsets("g").empty()) << "what was refused is not stored";
}

// Silence is counted from the restart on, also if nobody asks for the group before.
TEST(Groups, AMemberThatDiedWithTheBrokerGoesToo) {
  GroupWorld world;
  world.start();
  world.create("orders", 4);
  GroupBeat a = world.join(joining("g"));
  ASSERT_TRUE(world.commit("g", a, 0, 3));
  world.power_cut(sim::CrashPlan::lose_all());
  world.start();
  world.loop().run_for(11s);
  auto groups = world.run(world.shard().list_groups());
  ASSERT_TRUE(groups);
  ASSERT_EQ(groups->size(), 1U);
  EXPECT_EQ(groups->front().state, GroupState::empty);
  EXPECT_EQ(groups->front().topics, std::vector<std::string>{"orders"});
}

TEST(Groups, OffsetsAreSetFromOutsideOnlyWhileNobodyReads) {
  GroupWorld world;
  world.start();
  world.create("orders", 2);
  std::vector<PartitionCommit> to{{.topic = "orders", .partition = PartitionIndex{1}, .offset = Offset{7}}};
  ASSERT_TRUE(world.run(world.shard().reset_offsets("g", to, false)));
  EXPECT_EQ(world.offsets("g"), (std::map<std::int32_t, std::int64_t>{{1, 7}}));
  GroupBeat a = world.join(joining("g"));
  to[0].offset = Offset{2};
  EXPECT_EQ(world.run(world.shard().reset_offsets("g", to, false)).error().code, Errc::group_not_empty);
  EXPECT_EQ(world.commit("g", GroupBeat{}, 1, 2).error().code, Errc::group_not_empty);
  EXPECT_EQ(world.run(world.shard().delete_group("g")).error().code, Errc::group_not_empty);
  EXPECT_EQ(world.offsets("g"), (std::map<std::int32_t, std::int64_t>{{1, 7}}));
  ASSERT_TRUE(world.run(world.shard().reset_offsets("g", to, true)));
  EXPECT_EQ(world.offsets("g"), (std::map<std::int32_t, std::int64_t>{{1, 2}}));
  EXPECT_EQ(world.beat("g", a).error().code, Errc::unknown_member);
  ASSERT_TRUE(world.run(world.shard().delete_group("g")));
  EXPECT_EQ(world.run(world.shard().delete_group("g")).error().code, Errc::no_such_group);
  world.restart();
  world.start();
  EXPECT_TRUE(world.offsets("g").empty());
}

// Commits come for years; the log that holds them does not grow with them.
std::string many_commits() {
  GroupWorld world;
  world.start();
  world.create("orders", 8);
  GroupBeat a = world.join(joining("g"));
  GroupBeat other = world.join(joining("other"));
  bool refused = !world.commit("other", other, 7, 77);
  for (std::int64_t i = 0; i < 9'000; ++i) {
    refused |= !world.commit("other", other, 3, i);  // a neighbour, whose other offset is as old as the log
    refused |= !world.commit("g", a, static_cast<std::int32_t>(i % 8), i);
    if (i % 100 == 0) refused |= !world.beat("g", a) || !world.beat("other", other);
  }
  if (refused) return "a call is refused";
  std::map<std::int32_t, std::int64_t> expected;
  for (std::int64_t i = 8'992; i < 9'000; ++i) expected[static_cast<std::int32_t>(i % 8)] = i;
  auto described = world.run(world.shard().describe_topic("__offsets"));
  if (!described) return described.error().detail;
  std::int64_t records = 0, deleted = 0;
  for (const PartitionDescription& one : described->partitions) {
    records += one.log_end - one.log_start;
    deleted += one.log_start.value();
  }
  if (records > 2 * 4'096 + 200 || deleted < 4'000) return fmt::format("{} records are kept, {} were deleted", records, deleted);
  for (int i = 0; i < 2; ++i) {
    if (world.offsets("g") != expected) return "the offsets of g are others";
    if (world.offsets("other") != std::map<std::int32_t, std::int64_t>{{3, 8'999}, {7, 77}}) return "the offsets of the other are others";
    if (!world.beat("g", a) || !world.beat("other", other)) return "a member is gone";
    world.power_cut(sim::CrashPlan::lose_all());
    world.start();
  }
  return {};
}
TEST(Groups, TheLogIsWrittenAnewWhenMostOfItCountsNoMore) { EXPECT_EQ(many_commits(), ""); }

// Another topic of the same name has other records: an offset of the old one says nothing about it.
TEST(Groups, OffsetsAreOfATopicAndNotOfItsName) {
  GroupWorld world;
  world.start();
  world.create("orders", 2);
  GroupBeat a = world.join(joining("g"));
  ASSERT_TRUE(world.commit("g", a, 0, 5));
  ASSERT_TRUE(world.run(world.shard().delete_topic("orders", false)));
  EXPECT_TRUE(world.offsets("g").empty());
  world.create("orders", 2);
  EXPECT_TRUE(world.offsets("g").empty());
  EXPECT_EQ(world.commit("g", a, 0, 6).error().code, Errc::fenced) << "nobody gave it that topic's partitions";
}

TEST(Groups, NewPartitionsAreGivenOut) {
  GroupWorld world;
  world.start();
  world.create("orders", 2);
  GroupBeat a = world.join(joining("g"));
  EXPECT_EQ(count_of(a), 2U);
  ASSERT_TRUE(world.run(world.shard().alter_topic({.name = "orders", .partitions = 5})));
  auto told = world.beat("g", a, 4s);
  ASSERT_TRUE(told);
  EXPECT_EQ(count_of(*told), 5U);
}

TEST(Groups, LagIsInRecordsAndInTime) {
  GroupWorld world{WorldOptions{.shards = 2}};
  world.start();
  auto topic = world.create("orders", 2);
  std::int64_t now_ms = world.runtime().clock.wall().time_since_epoch().count();
  ASSERT_TRUE(world.produce(topic, 0, batch_of({"a", "b", "c", "d"}, {}, now_ms)));
  GroupBeat a = world.join(joining("g"));
  ASSERT_TRUE(world.commit("g", a, 0, 2));
  world.loop().run_for(5s);
  auto described = world.run(world.shard(1).describe_group("g"));
  ASSERT_TRUE(described);
  ASSERT_EQ(described->partitions.size(), 2U);
  const GroupLag& behind = described->partitions[0];
  EXPECT_EQ(behind.member, a.member);
  EXPECT_EQ(behind.committed, 2);
  EXPECT_EQ(behind.high_watermark, 4);
  EXPECT_EQ(behind.records, 2);
  EXPECT_GE(behind.behind_ms, 5'000 - 2);
  EXPECT_LE(behind.behind_ms, 5'100);
  const GroupLag& empty = described->partitions[1];
  EXPECT_EQ(empty.committed, -1);
  EXPECT_EQ(empty.records, 0);
  EXPECT_EQ(empty.behind_ms, 0);
}

// What is scraped is kept ready, summed over the partitions of a topic.
TEST(Groups, FiguresAreKeptForWhoeverScrapes) {
  GroupWorld world{WorldOptions{.shards = 2}};
  world.start();
  auto topic = world.create("orders", 3);
  std::int64_t now_ms = world.runtime().clock.wall().time_since_epoch().count();
  for (int p = 0; p < 3; ++p) ASSERT_TRUE(world.produce(topic, p, batch_of({"a", "b"}, {}, now_ms)));
  GroupBeat a = world.join(joining("g"));
  ASSERT_TRUE(world.commit("g", a, 0, 2));
  world.loop().run_for(9s);
  ASSERT_TRUE(world.beat("g", a));
  world.loop().run_for(4s);
  std::vector<GroupFigures> figures;
  for (std::uint32_t i = 0; i < 2; ++i) {
    for (const GroupFigures& one : world.shard(i).status().groups) figures.push_back(one);
  }
  ASSERT_EQ(figures.size(), 1U);
  EXPECT_EQ(figures[0].topic, "orders");
  EXPECT_EQ(figures[0].lag_records, 4);
  EXPECT_GE(figures[0].behind_ms, 9'000);
  EXPECT_EQ(figures[0].members, 1U);
}

TEST(Groups, AGroupThatWasLeftAloneIsForgotten) {
  GroupWorld world;
  world.start();
  world.create("orders", 2);
  GroupBeat a = world.join(joining("g"));
  ASSERT_TRUE(world.commit("g", a, 0, 5));
  ASSERT_TRUE(world.run(world.shard().leave_group("g", a.member)));
  world.loop().run_for(24h * 6);
  EXPECT_EQ(world.offsets("g").size(), 1U);
  world.loop().run_for(24h + 2min);
  EXPECT_TRUE(world.offsets("g").empty());
  world.power_cut(sim::CrashPlan::lose_all());
  world.start();
  EXPECT_TRUE(world.run(world.shard().list_groups())->empty());
}

TEST(Groups, WhatCannotBeIsRefusedAndStoresNothing) {
  GroupWorld world;
  world.start();
  world.create("orders", 2);
  auto refused = [&](JoinGroup request) { return world.run(world.shard().join_group(std::move(request))).error().code; };
  EXPECT_EQ(refused(joining("")), Errc::invalid_argument);
  EXPECT_EQ(refused(joining("a\nb")), Errc::invalid_argument);
  EXPECT_EQ(refused(joining(std::string(256, 'g'))), Errc::invalid_argument);
  EXPECT_EQ(refused(joining("g", {})), Errc::invalid_argument);
  EXPECT_EQ(refused(joining("g", {"orders", "orders"})), Errc::invalid_argument);
  EXPECT_EQ(refused(joining("g", {"none"})), Errc::no_such_topic);
  EXPECT_EQ(refused(joining("g", {"__metadata"})), Errc::unauthorized);
  JoinGroup absurd = joining("g");
  absurd.session_timeout = 24h;
  EXPECT_EQ(refused(absurd), Errc::invalid_argument);
  JoinGroup stranger = joining("g");
  stranger.member = "m-of-mine";
  EXPECT_EQ(refused(stranger), Errc::unknown_member);
  EXPECT_TRUE(world.run(world.shard().list_groups())->empty());
  EXPECT_EQ(world.run(world.shard().describe_group("none")).error().code, Errc::no_such_group);
  EXPECT_EQ(world.beat("none", GroupBeat{}).error().code, Errc::unknown_member);

  GroupBeat a = world.join(joining("g"));
  EXPECT_EQ(world.commit("g", a, 0, -1).error().code, Errc::invalid_argument);
  EXPECT_EQ(world.commit("g", a, 2, 1).error().code, Errc::no_such_partition);
  EXPECT_EQ(world.commit("g", a, 0, 1, "none").error().code, Errc::no_such_topic);
  std::vector<PartitionCommit> nowhere{{.topic = "none", .partition = PartitionIndex{0}, .offset = Offset{1}}};
  EXPECT_EQ(world.run(world.shard().reset_offsets("fresh", nowhere, false)).error().code, Errc::no_such_topic);
  EXPECT_EQ(world.run(world.shard().list_groups())->size(), 1U) << "whoever is refused leaves no group behind";
  GroupBeat liar = a;
  liar.assignment[0].partitions.push_back(PartitionIndex{77});
  EXPECT_EQ(world.beat("g", liar).error().code, Errc::invalid_argument);
  liar = a;
  liar.generation += 5;
  EXPECT_EQ(world.beat("g", liar).error().code, Errc::invalid_argument);
  EXPECT_TRUE(world.offsets("g").empty());
  EXPECT_TRUE(world.beat("g", a));
}

// Offsets are small, and what is written beside them is not: memory has an end, and what was stored stays.
TEST(Groups, WhatIsStoredBesideOffsetsHasABound) {
  GroupWorld world{WorldOptions{.wal_file_bytes = 4 * limits::kMiB}};
  world.start();
  world.create("orders", 1'000);
  std::string metadata(limits::kOffsetMetadataBytesMax, 'm');
  std::size_t stored = 0;
  Errc refused{};
  for (int group = 0; group < 40 && refused == Errc{}; ++group) {
    std::vector<PartitionCommit> offsets;
    for (std::int32_t p = 0; p < 1'000; ++p) offsets.push_back({.topic = "orders", .partition = PartitionIndex{p}, .offset = Offset{1}, .metadata = metadata});
    // Of names that all live on one coordinator.
    std::string name;
    for (int n = group * 1'000;; ++n) {
      name = "g" + std::to_string(n);
      if (coordinator_of(name) == PartitionIndex{0}) break;
    }
    auto done = world.run(world.shard().reset_offsets(name, offsets, false));
    if (done) stored += offsets.size();
    else refused = done.error().code;
  }
  EXPECT_EQ(refused, Errc::too_many);
  EXPECT_GT(stored * metadata.size(), limits::kOffsetsBytesMax / 2);
  EXPECT_LE(stored * metadata.size(), limits::kOffsetsBytesMax);
}

// A large commit takes several batches, and the write-ahead log has no room for a while: what came later still counts, before a restart and after it.
TEST(Groups, LargeCommitsAreStoredInTheOrderOfTheirCalls) {
  GroupWorld world{WorldOptions{.pending_bytes_max = 640 * limits::kKiB}};
  world.start();
  world.create("orders", 400);
  GroupBeat a = world.join(joining("g"));
  ASSERT_EQ(count_of(a), 400U);
  std::size_t answered = 0;
  auto commit = [&](std::int64_t offset) -> Task<void> {
    CommitOffsets all{.group = "g", .member = a.member, .generation = a.generation, .offsets = {}};
    // The last ones only of one partition, which is in the last batch of those before.
    for (std::int32_t p = offset <= 2 ? 0 : 399; p < 400; ++p) all.offsets.push_back({.topic = "orders", .partition = PartitionIndex{p}, .offset = Offset{offset}, .metadata = std::string(2'000, 'm')});
    auto done = co_await world.shard().commit_offsets(std::move(all));
    EXPECT_TRUE(done) << (done ? "" : done.error().detail);
    ++answered;
  };
  TaskScope scope;
  for (std::int64_t offset = 1; offset <= 4; ++offset) scope.spawn(commit(offset));
  auto drain = [&]() -> Task<bool> {
    co_await scope.drain();
    co_return true;
  };
  EXPECT_TRUE(world.run(drain()));
  EXPECT_EQ(answered, 4U);
  for (int life = 0; life < 2; ++life) {
    auto stored = world.offsets("g");
    EXPECT_EQ(stored.size(), 400U);
    for (auto [partition, offset] : stored) EXPECT_EQ(offset, partition == 399 ? 4 : 2) << partition;
    world.power_cut(sim::CrashPlan::lose_all());
    world.start();
  }
}

/// One reader that commits 1, 2, 3 ... and remembers what was answered.
struct Committer {
  GroupBeat beat{};
  std::int64_t tried = 0;
  std::int64_t acknowledged = 0;
};
Task<void> commit_on(BrokerWorld& world, Committer& who, const bool& ended) {
  while (!ended) {
    std::int64_t next = ++who.tried;
    auto done = co_await world.shard().commit_offsets({.group = "g", .member = who.beat.member, .generation = who.beat.generation,
                                                       .offsets = {{.topic = "orders", .partition = who.beat.assignment[0].partitions[0], .offset = Offset{next}}}});
    if (!done) co_return;
    who.acknowledged = next;
  }
}

std::string run_commits_through_cuts(std::uint64_t seeds) {
  for (std::uint64_t seed = 1; seed <= seeds; ++seed) {
    GroupWorld world{WorldOptions{.seed = seed, .wal_file_bytes = 64 * limits::kKiB}};
    world.start();
    world.create("orders", 1);
    Committer who;
    who.beat = world.join(joining("g"));
    Random random{seed};
    for (int life = 0; life < 5; ++life) {
      bool ended = false;
      TaskScope scope;
      scope.spawn(commit_on(world, who, ended));
      world.loop().run_for(std::chrono::milliseconds{random.between(1, 40)});
      ended = true;
      world.power_cut(sim::CrashPlan::seeded(random.next()));
      if (scope.running() != 0) return "a call was not answered";
      auto started = world.try_start();
      if (!started) return started.error().detail;
      std::int64_t stored = world.offsets("g")[0];
      if (stored < who.acknowledged) return fmt::format("seed {}: {} was acknowledged, {} is stored", seed, who.acknowledged, stored);
      if (stored > who.tried) return fmt::format("seed {}: {} was never committed", seed, stored);
      if (!world.beat("g", who.beat)) return fmt::format("seed {}: the member is not known any more", seed);
    }
    if (who.acknowledged < 20) return "too few commits to say anything";
  }
  return {};
}

TEST(Groups, AnAcknowledgedOffsetSurvivesEveryCut) { EXPECT_EQ(run_commits_through_cuts(40), ""); }

struct Planted {
  PlantedBug bug;
  std::string (*story)();
};
class PlantedInCoordinators : public testing::TestWithParam<Planted> {
 protected:
  void TearDown() override { plant(PlantedBug::none); }
};
std::string cuts() { return run_commits_through_cuts(40); }
TEST_P(PlantedInCoordinators, IsFound) {
  plant(GetParam().bug);
  EXPECT_NE(GetParam().story(), "") << "nothing notices " << name_of(GetParam().bug);
}
INSTANTIATE_TEST_SUITE_P(All, PlantedInCoordinators,
                         testing::Values(Planted{PlantedBug::group_answer_early, cuts}, Planted{PlantedBug::ack_before_completion, cuts},
                                         Planted{PlantedBug::group_forget_members, power_cuts}, Planted{PlantedBug::group_rewrite_loses, many_commits}),
                         [](const auto& info) { return std::string{name_of(info.param.bug)}; });

}  // namespace
}  // namespace tailrace::broker::service
