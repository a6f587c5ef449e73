/// Topics: create, alter, describe, delete, and what a crash in the middle leaves.
#include "tests/unit/service/broker_world.h"

namespace tailrace::broker::service {
namespace {

Errc code_of(const auto& answer) { return answer ? Errc{} : answer.error().code; }

// A create that was answered is known to every shard, and to the next life of the broker.
TEST(Topics, ACreatedTopicIsKnownEverywhereAndAfterARestart) {
  BrokerWorld world{{.shards = 3}};
  world.start();
  auto topic = world.create("orders", 7, {{"retention_time", "7d"}, {"durability", "leader"}}, 2);
  for (std::uint32_t at = 0; at < 3; ++at) ASSERT_EQ(world.topic("orders", at), topic);
  world.power_cut(sim::CrashPlan::lose_all());
  auto report = world.start();
  EXPECT_EQ(report.topics, 1u);
  EXPECT_EQ(report.partitions, 7u);
  EXPECT_EQ(report.partitions_lost + report.partitions_removed + report.partitions_kept, 0u);
  auto again = world.topic("orders", 1);
  ASSERT_TRUE(again);
  EXPECT_EQ(again->id, topic->id);
  EXPECT_EQ(again->config, topic->config);
  EXPECT_EQ(again->settings, topic->settings);
}

// Wrong requests change nothing; the reason is one that the user can act on.
TEST(Topics, WrongRequestsAreRefusedWithoutATrace) {
  BrokerWorld world;
  world.start();
  world.create("a.b");
  auto create = [&](CreateTopicRequest request) { return code_of(world.run(world.shard().create_topic(std::move(request)))); };
  EXPECT_EQ(create({.name = "a.b"}), Errc::topic_exists);
  EXPECT_EQ(create({.name = "a_b"}), Errc::topic_exists);
  EXPECT_EQ(create({.name = "no/slash"}), Errc::invalid_topic_name);
  EXPECT_EQ(create({.name = "__mine"}), Errc::invalid_topic_name);
  EXPECT_EQ(create({.name = "c", .partitions = 0}), Errc::invalid_argument);
  EXPECT_EQ(create({.name = "c", .replicas = 3}), Errc::invalid_argument);
  EXPECT_EQ(create({.name = "c", .config = {{"retention_tme", "1d"}}}), Errc::unknown_key);
  EXPECT_EQ(create({.name = "c", .config = {{"retention_time", "1x"}}}), Errc::invalid_argument);
  EXPECT_EQ(create({.name = "c", .config = {{"retention_time", "1d"}, {"retention_time", "2d"}}}), Errc::invalid_argument);
  EXPECT_EQ(create({.name = "c", .config = {{"message_bytes_max", "32MiB"}}}), Errc::invalid_argument);  // its WAL files are too small
  EXPECT_EQ(create({.name = "c", .partitions = 3, .validate_only = true}), Errc{});
  EXPECT_FALSE(world.topic("c"));
  EXPECT_EQ(code_of(world.run(world.shard().alter_topic({.name = "x", .partitions = 3}))), Errc::no_such_topic);
  EXPECT_EQ(code_of(world.run(world.shard().alter_topic({.name = "__metadata", .partitions = 3}))), Errc::unauthorized);
  EXPECT_EQ(code_of(world.run(world.shard().delete_topic("__metadata", false))), Errc::unauthorized);
  EXPECT_EQ(code_of(world.run(world.shard().delete_topic("x", false))), Errc::no_such_topic);
  EXPECT_EQ(code_of(world.run(world.shard().delete_topic("a.b", true))), Errc{});
  EXPECT_TRUE(world.topic("a.b"));
  EXPECT_EQ(world.run(world.broker().status(ShardIndex{0}))[0].partitions_owned, 2u);  // a.b and the metadata: no left-overs
}

// Alter takes effect for running partitions and is there after a restart; growing keeps what the old partitions hold.
TEST(Topics, AlterSetsUnsetsAndGrows) {
  BrokerWorld world{{.shards = 2}};
  world.start();
  auto topic = world.create("orders", 2, {{"message_bytes_max", "4KiB"}});
  ASSERT_TRUE(world.produce(topic, 1, {"old"}));
  EXPECT_EQ(code_of(world.run(world.shard(1).alter_topic({.name = "orders", .partitions = 1}))), Errc::invalid_argument);
  auto preview = world.run(world.shard(1).alter_topic({.name = "orders", .partitions = 5, .validate_only = true}));
  ASSERT_TRUE(preview);
  EXPECT_EQ((*preview)->partitions, 5);
  EXPECT_EQ(world.topic("orders")->partitions, 2);
  auto altered = world.run(world.shard(1).alter_topic({.name = "orders", .partitions = 5, .set = {{"timestamp_type", "log_append_time"}}, .unset = {"message_bytes_max"}}));
  ASSERT_TRUE(altered) << altered.error().detail;
  auto now = world.topic("orders", 0);
  EXPECT_EQ(now->partitions, 5);
  EXPECT_TRUE(world.produce(now, 4, {std::string(8'000, 'x')}));
  EXPECT_GT(world.produce(now, 1, {"new"})->log_append_time_ms, 0);
  world.restart();
  world.start();
  auto after = world.topic("orders");
  EXPECT_EQ(after->partitions, 5);
  EXPECT_EQ(after->config, now->config);
  EXPECT_EQ(world.read_all(after, 1), (std::vector<std::string>{"old", "new"}));
  EXPECT_EQ(world.read_all(after, 4).size(), 1u);
}

// Describe is where people look first: every partition, with its bounds, and every key with value, origin and meaning.
TEST(Topics, DescribeShowsEveryPartitionAndKey) {
  BrokerWorld world{{.shards = 2}};
  world.start();
  auto topic = world.create("orders", 3, {{"retention_bytes", "1GiB"}});
  ASSERT_TRUE(world.produce(topic, 2, {"a", "b"}));
  auto described = world.run(world.shard(1).describe_topic("orders"));
  ASSERT_TRUE(described) << described.error().detail;
  ASSERT_EQ(described->partitions.size(), 3u);
  for (std::int32_t i = 0; i < 3; ++i) {
    const PartitionDescription& p = described->partitions[static_cast<std::size_t>(i)];
    EXPECT_EQ(p.index, PartitionIndex{i});
    EXPECT_EQ(p.log_end, Offset{i == 2 ? 2 : 0});
    EXPECT_EQ(p.high_watermark, p.log_end);
    EXPECT_EQ(p.leader, world.broker().node_id());
    EXPECT_EQ(p.damage, "");
    EXPECT_EQ(p.bytes > 0, i == 2);
    EXPECT_EQ(p.first_time_ms > 0, i == 2) << i;
    EXPECT_EQ(p.leader_epoch, LeaderEpoch{i == 2 ? 1 : 0});  // no term begins where nothing is written
  }
  ASSERT_EQ(described->config.size(), cluster::kTopicKeyCount);
  for (const ConfigValue& value : described->config) {
    EXPECT_EQ(value.is_default, value.key != "retention_bytes") << value.key;
    EXPECT_FALSE(value.meaning.empty());
  }
  EXPECT_EQ(described->config[1].value, "1GiB");
  EXPECT_EQ(code_of(world.run(world.shard(1).describe_topic("nothing"))), Errc::no_such_topic);
  EXPECT_TRUE(world.run(world.shard(1).describe_topic("__metadata")));
}

struct Reader {
  explicit Reader(ShardService& shard) : fetcher{shard} {}
  Fetcher fetcher;
  TaskScope scope;
  std::optional<Answer<FetchReply>> answer{};
  Task<void> go(FetchRequest request) {
    auto got = co_await fetcher.fetch(std::move(request));
    answer = std::move(got);
  }
};

// A deletion must not wait for readers, and must tell them. A topic of the same name that follows is another topic.
TEST(Topics, DeletingUnderLiveReadersAndProducersEndsThemWithTheReason) {
  BrokerWorld world{{.shards = 2}};
  world.start();
  auto topic = world.create("orders", 4);
  for (std::int32_t p = 0; p < 4; ++p) ASSERT_TRUE(world.produce(topic, p, {"x"}));
  std::deque<Reader> readers;
  for (std::uint32_t at = 0; at < 2; ++at) {
    for (std::int32_t p = 0; p < 4; ++p) {
      readers.emplace_back(world.shard(at));
      readers.back().scope.spawn(readers.back().go({.topic = topic->id, .partition = PartitionIndex{p}, .from = Offset{1}, .bytes_max = 1'000,
                                                    .wait_until = world.now() + std::chrono::hours{1}}));
    }
  }
  // Producers in flight while it happens: each hears either an offset or the reason.
  TaskScope producing;
  int stored = 0, refused = 0;
  auto one = [&](std::int32_t p) -> Task<void> {
    auto answer = co_await world.shard(0).produce(BrokerWorld::request(topic, p, batch_of({"y"})));
    if (answer) ++stored;
    else {
      EXPECT_EQ(answer.error().code, Errc::no_such_topic) << answer.error().detail;
      ++refused;
    }
  };
  world.loop().run_for(std::chrono::milliseconds{50});
  for (int i = 0; i < 20; ++i) producing.spawn(one(i % 4));
  ASSERT_TRUE(world.run(world.shard(1).delete_topic("orders", false)));
  for (int i = 0; i < 8; ++i) producing.spawn(one(i % 4));
  ASSERT_TRUE(world.loop().run_until([&] { return producing.running() == 0; }));
  EXPECT_EQ(stored + refused, 28);
  EXPECT_GE(refused, 8);
  for (Reader& reader : readers) {
    ASSERT_TRUE(world.loop().run_until([&] { return reader.scope.running() == 0; }, std::chrono::seconds{1}));
    ASSERT_TRUE(reader.answer);
    if (*reader.answer) continue;  // one of the records produced meanwhile
    EXPECT_EQ(reader.answer->error().code, Errc::no_such_topic);
  }
  for (const ShardStatus& status : world.run(world.broker().status(ShardIndex{0}))) EXPECT_TRUE(status.topics.empty());
  auto again = world.create("orders", 4);
  EXPECT_NE(again->id, topic->id);
  EXPECT_TRUE(world.read_all(again, 0).empty());
  EXPECT_EQ(world.fetch(topic, 0, 0).error().code, Errc::no_such_topic);
  world.kill();
  auto report = world.start();
  EXPECT_EQ(report.topics, 1u);
  EXPECT_EQ(report.partitions_kept, 0u);
}

// Whatever the moment of a crash, a create is either whole or not there at all, and no partition is left that nobody knows.
TEST(Topics, ACrashAtAnyDiskOperationOfACreateLeavesAllOrNothing) {
  for (std::uint64_t at = 0;; ++at) {
    BrokerWorld world{{.shards = 2, .seed = 11}};
    world.start();
    auto keep = world.create("keep", 2);
    ASSERT_TRUE(world.produce(keep, 0, {"kept"}));
    world.loop().run_for(std::chrono::seconds{1});
    std::uint64_t started = 0;
    std::optional<sim::DiskImage> image;
    world.disk().on_start = [&](sim::DiskOp, const std::string&, std::uint64_t, Bytes) {
      if (started++ == at && !image) image = world.disk().crash_image(sim::CrashPlan::seeded(at));
    };
    auto created = world.run(world.shard(1).create_topic({.name = "new", .partitions = 5}));
    ASSERT_TRUE(created);
    world.disk().on_start = nullptr;
    bool acknowledged = !image;
    if (acknowledged) image = world.disk().crash_image(sim::CrashPlan::seeded(at));
    world.stop();
    world.boot(*image);
    auto report = world.start();
    EXPECT_EQ(report.partitions_kept, 0u) << at;
    EXPECT_EQ(report.partitions_lost, 0u) << at;  // partitions come before the command that names them
    auto topic = world.topic("new");
    if (acknowledged) ASSERT_TRUE(topic) << at;
    std::size_t owned = 0;
    for (const ShardStatus& status : world.run(world.broker().status(ShardIndex{0}))) owned += status.partitions_owned;
    EXPECT_EQ(owned, topic ? 8u : 3u) << at;  // keep 2, new 5, metadata 1
    EXPECT_EQ(world.read_all(world.topic("keep"), 0), (std::vector<std::string>{"kept"}));
    if (!topic) topic = world.create("new", 5);
    for (std::int32_t p = 0; p < 5; ++p) EXPECT_TRUE(world.produce(topic, p, {"z"})) << at;
    if (acknowledged) {
      EXPECT_GT(at, 5u) << "the sweep saw the operations of a create";
      break;
    }
  }
}

// A delete that was begun is finished, by this life or the next; one that was acknowledged never comes back.
TEST(Topics, ACrashAtAnyDiskOperationOfADeleteIsFinishedByTheNextStart) {
  for (std::uint64_t at = 0;; ++at) {
    BrokerWorld world{{.shards = 2, .seed = 12}};
    world.start();
    auto keep = world.create("keep", 2);
    ASSERT_TRUE(world.produce(keep, 0, {"kept"}));
    auto gone = world.create("gone", 3);
    for (std::int32_t p = 0; p < 3; ++p) ASSERT_TRUE(world.produce(gone, p, {"x"}));
    world.loop().run_for(std::chrono::seconds{1});
    std::uint64_t started = 0;
    std::optional<sim::DiskImage> image;
    world.disk().on_start = [&](sim::DiskOp, const std::string&, std::uint64_t, Bytes) {
      if (started++ == at && !image) image = world.disk().crash_image(sim::CrashPlan::seeded(at));
    };
    ASSERT_TRUE(world.run(world.shard(1).delete_topic("gone", false)));
    world.disk().on_start = nullptr;
    bool acknowledged = !image;
    if (acknowledged) image = world.disk().crash_image(sim::CrashPlan::seeded(at));
    world.stop();
    world.boot(*image);
    auto report = world.start();
    EXPECT_EQ(report.partitions_kept, 0u) << at;
    EXPECT_EQ(report.partitions_lost, 0u) << at;
    auto topic = world.topic("gone");
    if (acknowledged) EXPECT_FALSE(topic) << at;
    std::size_t owned = 0;
    for (const ShardStatus& status : world.run(world.broker().status(ShardIndex{0}))) owned += status.partitions_owned;
    EXPECT_EQ(owned, topic ? 6u : 3u) << at;
    if (topic) {
      for (std::int32_t p = 0; p < 3; ++p) EXPECT_EQ(world.read_all(topic, p), (std::vector<std::string>{"x"})) << at;
    }
    EXPECT_EQ(world.read_all(world.topic("keep"), 0), (std::vector<std::string>{"kept"}));
    if (acknowledged) {
      EXPECT_GT(at, 3u) << "the sweep saw the operations of a delete";
      break;
    }
  }
}

// The metadata log must not grow with every topic that ever was; what it is cut to is the same state.
TEST(Topics, TheMetadataLogIsCutToASnapshot) {
  BrokerWorld world{{.shards = 2, .metadata_snapshot_commands = 10}};
  world.start();
  for (int i = 0; i < 30; ++i) {
    world.create(fmt::format("t{}", i));
    if (i % 3 == 0) ASSERT_TRUE(world.run(world.shard().delete_topic(fmt::format("t{}", i), false)));
  }
  ProducerId id = world.producer_id("t1");
  auto before = world.shard().catalog();
  auto metadata = world.run(world.shard().describe_topic("__metadata"));
  ASSERT_TRUE(metadata);
  EXPECT_GT(metadata->partitions.at(0).log_start, Offset{20});
  world.power_cut(sim::CrashPlan::lose_all());
  world.start();
  auto after = world.shard().catalog();
  ASSERT_EQ(after->by_id.size(), before->by_id.size());
  for (const auto& [topic_id, topic] : before->by_id) {
    auto same = after->find(topic_id);
    ASSERT_TRUE(same);
    EXPECT_EQ(same->name, topic->name);
    EXPECT_EQ(same->config, topic->config);
  }
  EXPECT_GT(world.producer_id("t1"), id);
}

}  // namespace
}  // namespace tailrace::broker::service
