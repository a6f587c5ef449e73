/// Files of the write-ahead log that somebody removed after a crash: what was acknowledged is damaged, never silently gone.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/service/broker_world.h"

namespace tailrace::broker::service {
namespace {

/// The next life begins without the files of that shard's log.
void crash_without_wal(BrokerWorld& world, std::uint32_t shard) {
  sim::DiskImage image = world.disk().crash_image(sim::CrashPlan::lose_all());
  world.stop();
  std::vector<std::string> files = image.paths(fmt::format("/shard-{}/wal/", shard));
  ASSERT_FALSE(files.empty());
  for (const std::string& path : files) image.remove(path);
  world.boot(std::move(image));
}

TopicDescription describe(BrokerWorld& world) {
  auto described = world.run(world.shard().describe_topic("orders"));
  EXPECT_TRUE(described) << described.error().detail;
  return described ? *described : TopicDescription{};
}

std::uint64_t found_damaged(BrokerWorld& world, const StartReport& report) {
  std::uint64_t damaged = 0;
  for (const log::RecoveryReport& one : report.recovery) damaged += one.damaged_partitions;
  for (const ShardStatus& status : world.run(world.broker().status(ShardIndex{0}))) damaged += status.log.found_damaged;
  return damaged;
}

// It was created empty, with a warning: acknowledged records were gone and nobody was told.
TEST(LostWal, APartitionThatItsShardDoesNotKnowIsDamagedUntilAnOperatorDecides) {
  BrokerWorld world{{.shards = 2, .seed = 3}};
  world.start();
  auto topic = world.create("orders", 4);
  for (std::int32_t p = 0; p < 4; ++p) ASSERT_TRUE(world.produce(topic, p, {"a", "b"}));
  std::vector<std::int32_t> lost;
  for (const PartitionDescription& p : describe(world).partitions) {
    if (p.shard == ShardIndex{1}) lost.push_back(p.index.value());
  }
  ASSERT_EQ(lost.size(), 2u);
  crash_without_wal(world, 1);
  for (int life = 0; life < 3; ++life) {  // the first finds it; the others know it, from the WAL and from the checkpoint
    auto report = world.start();
    topic = world.topic("orders");
    EXPECT_EQ(report.partitions_lost, life == 0 ? 2u : 0u) << life;
    EXPECT_EQ(found_damaged(world, report), 2u) << life;
    for (const PartitionDescription& p : describe(world).partitions) {
      bool gone = std::ranges::find(lost, p.index.value()) != lost.end();
      EXPECT_EQ(gone, !p.damage.empty()) << life << ": " << p.damage;
      if (!gone) {
        EXPECT_EQ(world.read_all(topic, p.index.value()), (std::vector<std::string>{"a", "b"}));
        continue;
      }
      for (std::int64_t from : {0, 1, 500}) {
        auto read = world.fetch(topic, p.index.value(), from);
        ASSERT_FALSE(read) << life;
        EXPECT_EQ(read.error().code, Errc::corrupt) << read.error().detail;
      }
      auto stored = world.produce(topic, p.index.value(), {"c"});
      ASSERT_FALSE(stored) << life;
      EXPECT_EQ(stored.error().code, Errc::corrupt);
    }
    if (life == 0) world.power_cut(sim::CrashPlan::lose_all());
    else if (life == 1) world.restart();
  }
  // The ways out: accepting it, for one partition, and deleting the topic.
  ASSERT_TRUE(world.run(world.shard().skip_damage("orders", PartitionIndex{lost[0]})));
  ASSERT_TRUE(world.produce(topic, lost[0], {"new"}));
  world.power_cut(sim::CrashPlan::lose_all());
  auto report = world.start();
  topic = world.topic("orders");
  EXPECT_EQ(found_damaged(world, report), 1u);
  EXPECT_EQ(world.read_all(topic, lost[0]), (std::vector<std::string>{"new"}));
  EXPECT_FALSE(world.produce(topic, lost[1], {"c"}));
  ASSERT_TRUE(world.run(world.shard().delete_topic("orders", false)));
  topic = world.create("orders", 4);
  for (std::int32_t p = 0; p < 4; ++p) EXPECT_TRUE(world.produce(topic, p, {"again"})) << p;
}

// Segments that no shard knows any more are evidence: the new life of the partition must not write over them.
TEST(LostWal, SegmentsOfALostPartitionAreKept) {
  BrokerWorld world{{.shards = 2, .seed = 5}};
  world.start();
  auto topic = world.create("orders", 2, {{"segment_bytes_max", "16KiB"}});
  for (std::int32_t p = 0; p < 2; ++p) {
    for (int i = 0; i < 8; ++i) ASSERT_TRUE(world.produce(topic, p, {std::string(9'000, 'x')}));
  }
  world.loop().run_for(std::chrono::seconds{5});
  crash_without_wal(world, 1);
  EXPECT_EQ(world.start().partitions_lost, 1u);
  std::int32_t lost = describe(world).partitions[0].damage.empty() ? 1 : 0;
  topic = world.topic("orders");
  ASSERT_TRUE(world.run(world.shard().skip_damage("orders", PartitionIndex{lost})));
  ASSERT_TRUE(world.produce(topic, lost, {"new"}));
  world.stop();
  EXPECT_FALSE(world.disk().visible_image().paths(".log.orphan").empty());
  world.boot(world.disk().visible_image());
  world.start();
  EXPECT_EQ(world.read_all(world.topic("orders"), lost), (std::vector<std::string>{"new"}));
}

// In its first life a directory has no checkpoint that names the metadata partition: it was made anew, and all topics were gone.
TEST(LostWal, ABrokerWhoseMetadataIsLostDoesNotStart) {
  for (std::uint32_t shards : {1u, 2u}) {
    BrokerWorld world{{.shards = shards, .seed = 7}};
    world.start();
    auto topic = world.create("orders", 2);
    ASSERT_TRUE(world.produce(topic, 0, {"a"}));
    crash_without_wal(world, 0);
    for (int attempt = 0; attempt < 2; ++attempt) {
      auto report = world.try_start();
      ASSERT_FALSE(report) << shards;
      EXPECT_EQ(report.error().code, Errc::corrupt) << report.error().detail;
      EXPECT_NE(report.error().detail.find("metadata"), std::string::npos) << report.error().detail;
      world.boot(world.disk().visible_image());
    }
  }
}

// Cut short, not removed: what is missing may have been acknowledged, and no crash makes a file of the log shorter.
TEST(LostWal, AFileOfTheLogThatIsShorterThanItWasMadeIsALoss) {
  BrokerWorld world{{.shards = 2, .seed = 5}};
  world.start();
  auto topic = world.create("orders", 4);
  for (std::int32_t p = 0; p < 4; ++p) ASSERT_TRUE(world.produce(topic, p, {"a", "b"}));
  for (std::uint32_t shard : {1u, 0u}) {
    sim::DiskImage image = world.disk().crash_image(sim::CrashPlan::lose_all());
    for (const std::string& path : image.paths(fmt::format("/shard-{}/wal/", shard))) image.truncate(path, 2 * limits::kWalBlock);
    BrokerWorld other{{.shards = 2, .seed = 6}};
    other.boot(std::move(image));
    auto started = other.try_start();
    if (shard == 0) {
      ASSERT_FALSE(started) << "metadata went with it";
      EXPECT_EQ(started.error().code, Errc::corrupt);
      continue;
    }
    ASSERT_TRUE(started);
    std::size_t damaged = 0;
    for (const PartitionDescription& p : describe(other).partitions) {
      EXPECT_EQ(p.shard == ShardIndex{1}, !p.damage.empty());
      damaged += !p.damage.empty();
    }
    EXPECT_EQ(damaged, 2u);
  }
}

}  // namespace
}  // namespace tailrace::broker::service
