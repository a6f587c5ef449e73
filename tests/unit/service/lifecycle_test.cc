/// Start, stop and restart of a node; and that a run replays from its seed.
#include <algorithm>

#include "base/random.h"
#include "log/data_directory.h"
#include "log/shard_log.h"
#include "tests/support/lone_log.h"
#include "tests/unit/service/broker_world.h"

namespace tailrace::broker::service {
namespace {

std::int64_t next_of(const Answer<ProduceReply>& reply) { return reply ? reply->base_offset.value() + 1 : -1; }

// A stop drains what is under way, refuses what comes later, and leaves the mark that spares the next start its recovery.
TEST(Lifecycle, ACleanStopAnswersEverythingAndLeavesItsMark) {
  BrokerWorld world{{.shards = 2}};
  auto report = world.start();
  EXPECT_FALSE(report.was_clean);
  auto topic = world.create("orders", 2);
  TaskScope scope;
  std::vector<Answer<ProduceReply>> answers;
  auto one = [&](std::int32_t p) -> Task<void> {
    auto answer = co_await world.shard(0).produce(BrokerWorld::request(topic, p, batch_of({"x"})));
    answers.push_back(std::move(answer));
  };
  for (std::int32_t p : {0, 1}) ASSERT_TRUE(world.produce(topic, p, {"first"}));
  for (int i = 0; i < 20; ++i) scope.spawn(one(i % 2));
  Fetcher idle{world.shard(0)};
  std::optional<Answer<FetchReply>> idle_answer;
  auto wait = [&](std::int32_t p) -> Task<void> {
    idle_answer = co_await idle.fetch({.topic = topic->id, .partition = PartitionIndex{p}, .from = Offset{11}, .bytes_max = 1'000,
                                       .wait_until = world.now() + std::chrono::hours{1}});
  };
  scope.spawn(wait(1));
  Instant begun = world.now();
  StopReport stopped = world.stop();
  EXPECT_TRUE(stopped.clean);
  EXPECT_EQ(stopped.calls_left, 0u);
  EXPECT_LT(world.now() - begun, std::chrono::seconds{1});  // the hour-long poll did not hold it up
  ASSERT_EQ(scope.running(), 0u);
  std::int64_t stored = 2;
  for (const auto& answer : answers) {
    if (answer) ++stored;
    else EXPECT_EQ(answer.error().code, Errc::shutting_down);
  }
  ASSERT_TRUE(idle_answer);
  EXPECT_EQ(world.run(world.shard(0).create_topic({.name = "late"})).error().code, Errc::shutting_down);
  world.boot(world.disk().visible_image());
  auto again = world.start();
  EXPECT_TRUE(again.was_clean);
  topic = world.topic("orders");
  EXPECT_EQ(world.read_all(topic, 0).size() + world.read_all(topic, 1).size(), static_cast<std::size_t>(stored));
}

// The term rises with each life, so that no two lives of a broker write under one term; and clients see no offset of it.
TEST(Lifecycle, TheTermRisesWithEachLifeAndTakesNoOffset) {
  BrokerWorld world;
  world.start();
  auto topic = world.create("orders");
  LeaderEpoch last{-1};
  for (int life = 0; life < 4; ++life) {
    auto listed = world.run(world.shard().list_offsets("orders", {{PartitionIndex{0}, {Position::Kind::end}}}));
    ASSERT_TRUE(listed && listed->at(0));
    EXPECT_EQ(listed->at(0)->offset, Offset{life});
    ASSERT_EQ(next_of(world.produce(topic, 0, {"x"})), life + 1);
    LeaderEpoch mine = world.fetch(topic, 0, life)->leader_epoch;
    EXPECT_GT(mine, last);
    last = mine;
    if (life % 2) world.restart();
    else world.power_cut(sim::CrashPlan::lose_all());
    world.start();
    topic = world.topic("orders");
  }
}

// Two brokers on one directory would write over each other.
TEST(Lifecycle, ASecondBrokerOnTheSameDirectoryIsRefused) {
  BrokerWorld world;
  world.start();
  auto topic = world.create("orders");
  ASSERT_TRUE(world.produce(topic, 0, {"kept"}));
  auto second = world.try_start_second();
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Errc::data_directory_locked);
  ASSERT_TRUE(world.produce(topic, 0, {"and goes on"}));
  world.kill();
  world.start();
  EXPECT_EQ(world.read_all(world.topic("orders"), 0), (std::vector<std::string>{"kept", "and goes on"}));
}

// What metadata does not know is garbage only if it is empty: records may be all that is left after metadata was damaged.
TEST(Lifecycle, UnknownPartitionsAreRemovedOnlyWhenEmpty) {
  BrokerWorld world;
  world.start();
  auto topic = world.create("orders");
  ASSERT_TRUE(world.produce(topic, 0, {"known"}));
  world.stop();
  world.boot(world.disk().visible_image());
  TopicId stray;
  stray.bytes.fill(7);
  auto plant_strays = [&]() -> Task<bool> {
    io::Runtime& runtime = world.runtime();
    auto directory = co_await log::DataDirectory::open(runtime, "/data", 1);
    if (!directory || !co_await (*directory)->mark_dirty()) co_return false;
    log::ShardLogOptions options = world.log_options();
    options.directory_id = (*directory)->identity().directory_id;
    auto shard_log = co_await log::LoneShardLog::open(runtime, options);
    if (!shard_log) co_return false;
    auto empty = co_await (*shard_log)->create({stray, PartitionIndex{0}}, {});
    auto full = co_await (*shard_log)->create({stray, PartitionIndex{1}}, {});
    if (!empty || !full) co_return false;
    TestBatch batch = batch_of({"unknown"});
    auto appended = (*full)->append(batch.batch, batch.header, runtime.clock.wall());
    if (!appended || !co_await (*full)->committed(appended->next_offset)) co_return false;
    empty->reset();
    full->reset();
    co_await (*shard_log)->close();
    shard_log->reset();
    co_return true;
  };
  ASSERT_TRUE(world.run(plant_strays()));
  auto report = world.start();
  EXPECT_EQ(report.partitions_removed, 1u);
  EXPECT_EQ(report.partitions_kept, 1u);
  EXPECT_EQ(world.read_all(world.topic("orders"), 0), (std::vector<std::string>{"known"}));
  world.restart();
  report = world.start();
  EXPECT_EQ(report.partitions_removed, 0u);
  EXPECT_EQ(report.partitions_kept, 1u);
}

// WAL files that were in use are gone: what they alone held is lost, and that is said. Nothing begins anew as if it had been empty.
TEST(Lifecycle, PartitionsThatWentWithLostWalFilesAreDamagedNotEmpty) {
  BrokerWorld world{{.shards = 2}};
  world.start();
  auto topic = world.create("orders", 8);
  std::vector<std::int32_t> lost;
  for (std::int32_t p = 0; p < 8; ++p) {
    ASSERT_TRUE(world.produce(topic, p, {"a", "b"}));
    if (log::home_of({topic->id, PartitionIndex{p}}, 2) == ShardIndex{1}) lost.push_back(p);
  }
  ASSERT_FALSE(lost.empty());
  ASSERT_LT(lost.size(), 8u);
  sim::DiskImage image = world.disk().kill();
  sim::DiskImage without_metadata = image;
  for (const std::string& path : image.paths("shard-1/wal/")) image.remove(path);
  for (const std::string& path : without_metadata.paths("shard-0/wal/")) without_metadata.remove(path);
  if (world.broker().state() == BrokerState::serving) (void)world.run(world.broker().stop(world.now() + std::chrono::seconds{10}));
  world.boot(std::move(image));
  for (int life = 0; life < 3; ++life) {
    world.start();
    auto description = world.run(world.shard().describe_topic("orders"));
    ASSERT_TRUE(description);
    for (const PartitionDescription& one : description->partitions) {
      bool gone = std::ranges::find(lost, one.index.value()) != lost.end();
      EXPECT_EQ(!one.damage.empty(), gone) << one.index.value() << " " << one.damage;
      auto published = world.produce(topic, one.index.value(), {"c"});
      EXPECT_EQ(published.has_value(), !gone);
      if (!published) EXPECT_EQ(published.error().code, Errc::corrupt);
      auto fetched = world.fetch(topic, one.index.value(), 0);
      EXPECT_EQ(fetched.has_value(), !gone);
    }
    world.restart();
  }
  world.start();
  ASSERT_TRUE(world.run(world.shard().skip_damage("orders", PartitionIndex{lost.front()})));
  EXPECT_TRUE(world.produce(topic, lost.front(), {"again"}));
  EXPECT_EQ(world.read_all(topic, lost.front()), std::vector<std::string>{"again"});
  world.stop();
  // Without metadata there is no broker to start.
  world.boot(std::move(without_metadata));
  auto started = world.try_start();
  ASSERT_FALSE(started);
  EXPECT_EQ(started.error().code, Errc::corrupt);
}

// Moving to another number of shards moves partitions to new homes; nothing is lost on the way, and back.
TEST(Lifecycle, ANewNumberOfShardsKeepsEverything) {
  BrokerWorld world{{.shards = 1, .seed = 4}};
  world.start();
  auto topic = world.create("orders", 8);
  ProducerId id = world.producer_id("orders");
  for (std::int32_t p = 0; p < 8; ++p) {
    ASSERT_TRUE(world.produce(topic, p, batch_of({fmt::format("p{}", p)}, {.producer_id = id, .producer_epoch = ProducerEpoch{0}, .base_sequence = 0})));
  }
  std::int64_t round = 1;
  for (std::uint32_t shards : {3u, 2u, 1u}) {
    world.options().shards = shards;
    if (shards == 2) {
      world.power_cut(sim::CrashPlan::lose_all());
    } else {
      world.restart();
    }
    auto report = world.start();
    EXPECT_NE(report.shards_before, shards);
    EXPECT_EQ(report.partitions_lost + report.partitions_removed + report.partitions_kept, 0u);
    topic = world.topic("orders");
    for (std::int32_t p = 0; p < 8; ++p) {
      EXPECT_EQ(world.read_all(topic, p, 0, shards - 1).size(), static_cast<std::size_t>(round));
      auto again = world.produce(topic, p, batch_of({fmt::format("p{}", p)}, {.producer_id = id, .producer_epoch = ProducerEpoch{0}, .base_sequence = 0}));
      ASSERT_TRUE(again);
      EXPECT_TRUE(again->duplicate);
      ASSERT_TRUE(world.produce(topic, p, {"more"}, shards - 1));
    }
    ++round;
  }
}

// Retention runs by itself and removes only what the topic asked to lose.
TEST(Lifecycle, RetentionRunsInTheBackgroundAndOnlyWhereAsked) {
  BrokerWorld world{{.shards = 2, .retention_interval = std::chrono::minutes{1}}};
  world.start();
  auto short_lived = world.create("short", 2, {{"retention_time", "1h"}, {"segment_bytes_max", "4KiB"}});
  auto forever = world.create("forever", 2, {{"segment_bytes_max", "4KiB"}});
  for (auto& topic : {short_lived, forever}) {
    for (std::int32_t p : {0, 1}) {
      for (int i = 0; i < 20; ++i) ASSERT_TRUE(world.produce(topic, p, {std::string(1'000, 'x')}));
    }
  }
  world.loop().run_for(std::chrono::hours{3});
  auto start_of = [&](const char* name) {
    auto listed = world.run(world.shard().list_offsets(name, {{PartitionIndex{0}, {}}, {PartitionIndex{1}, {}}}));
    return std::min(listed->at(0)->offset, listed->at(1)->offset);
  };
  EXPECT_GT(start_of("short"), Offset{10});
  EXPECT_EQ(start_of("forever"), Offset{0});
  std::uint64_t removed = 0;
  for (const ShardStatus& status : world.run(world.broker().status(ShardIndex{0}))) removed += status.retention_segments;
  EXPECT_GT(removed, 0u);
}

/// A day in the life of a broker, drawn from a seed: topics, producers, readers, crashes. Answers a hash of all events.
std::uint64_t run_history(std::uint64_t seed, std::uint32_t shards) {
  BrokerWorld world{{.shards = shards, .seed = seed, .wal_file_bytes = 256 * 1024, .metadata_snapshot_commands = 6}};
  Random random{seed};
  std::map<std::string, std::map<std::int32_t, std::vector<std::string>>> model;  // acknowledged values, by topic and partition
  std::uint64_t hash = 0;
  world.start();
  for (int life = 0; life < 4; ++life) {
    for (int step = 0; step < 40; ++step) {
      auto at = static_cast<std::uint32_t>(random.below(shards));
      std::string name = fmt::format("t{}", random.below(4));
      auto topic = world.topic(name, at);
      switch (random.below(8)) {
        case 0:
          if (!topic) {
            topic = world.create(name, static_cast<std::int32_t>(random.between(1, 4)), {}, at);
            model[name].clear();
          }
          break;
        case 1:
          if (topic && random.chance(1, 4)) {
            EXPECT_TRUE(world.run(world.shard(at).delete_topic(name, false)));
            model.erase(name);
          }
          break;
        case 2:
          if (topic && topic->partitions < 8) {
            EXPECT_TRUE(world.run(world.shard(at).alter_topic({.name = name, .partitions = topic->partitions + 1})));
          }
          break;
        default: {
          if (!topic) break;
          auto p = static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(topic->partitions)));
          std::vector<std::string> values;
          for (std::uint64_t i = 0, n = random.between(1, 5); i < n; ++i) values.push_back(fmt::format("{}-{}", random.next(), std::string(random.below(3'000), 'v')));
          auto reply = world.produce(topic, p, values, at);
          EXPECT_TRUE(reply) << reply.error().detail;
          auto& stored = model[name][p];
          EXPECT_EQ(reply->base_offset.value(), static_cast<std::int64_t>(stored.size()));
          stored.insert(stored.end(), values.begin(), values.end());
        }
      }
    }
    hash = hash * 31 + world.loop().hash();
    switch (random.below(3)) {
      case 0: world.restart(); break;
      case 1: world.kill(); break;
      default: world.power_cut(sim::CrashPlan::seeded(random.next()));
    }
    auto report = world.start();
    EXPECT_EQ(report.partitions_kept + report.partitions_lost, 0u);
    EXPECT_EQ(report.topics, model.size());
    for (const auto& [name, partitions] : model) {
      auto topic = world.topic(name);
      EXPECT_TRUE(topic) << name;
      if (!topic) continue;
      for (std::int32_t p = 0; p < topic->partitions; ++p) {
        auto at = partitions.find(p);
        EXPECT_EQ(world.read_all(topic, p, 0, static_cast<std::uint32_t>(p) % shards), at == partitions.end() ? std::vector<std::string>{} : at->second)
            << "seed " << seed << " topic " << name << " partition " << p;
      }
    }
  }
  return hash;
}

// Nothing acknowledged is lost, reordered or invented by any mix of use and crashes: the log equals the model after each restart.
TEST(Lifecycle, EveryAcknowledgedRecordSurvivesAnyMixOfCrashes) {
  for (std::uint64_t seed = 100; seed < 112; ++seed) run_history(seed, 1 + seed % 3);
}

// A failure that a seed shows must be shown by it again: the same seed gives the same events in the same order.
TEST(Lifecycle, ASeedRunsTheSameWayTwice) {
  EXPECT_EQ(run_history(7, 2), run_history(7, 2));
  EXPECT_NE(run_history(8, 2), run_history(9, 2));
}

}  // namespace
}  // namespace tailrace::broker::service
