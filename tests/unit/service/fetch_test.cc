/// Fetch, as subscriptions use it: credit, long polls, cancelling, positions.
#include "tests/unit/service/broker_world.h"

namespace tailrace::broker::service {
namespace {

/// A fetch under way.
struct Poll {
  explicit Poll(ShardService& shard) : fetcher{shard} {}
  Fetcher fetcher;
  TaskScope scope;
  std::optional<Answer<FetchReply>> answer{};
  void begin(FetchRequest request) { scope.spawn(go(std::move(request))); }
  Task<void> go(FetchRequest request) {
    auto got = co_await fetcher.fetch(std::move(request));
    answer = std::move(got);
  }
};
FetchRequest from(const cluster::TopicPointer& topic, std::int32_t partition, std::int64_t offset, Instant wait_until = {}) {
  return {.topic = topic->id, .partition = PartitionIndex{partition}, .from = Offset{offset}, .bytes_max = limits::kMiB, .wait_until = wait_until};
}

// A reader at the end waits; a record wakes it with that record, whichever shard it reads from.
TEST(Fetch, ALongPollIsAnsweredByTheNextRecord) {
  BrokerWorld world{{.shards = 2}};
  world.start();
  auto topic = world.create("orders", 4);
  for (std::int32_t partition = 0; partition < 4; ++partition) {
    for (std::uint32_t at = 0; at < 2; ++at) {
      auto end = static_cast<std::int64_t>(at);
      Poll poll{world.shard(at)};
      poll.begin(from(topic, partition, end, world.now() + std::chrono::hours{1}));
      world.loop().run_for(std::chrono::seconds{5});
      ASSERT_FALSE(poll.answer);
      ASSERT_TRUE(world.produce(topic, partition, {"news"}));
      world.loop().run_for(std::chrono::milliseconds{100});
      ASSERT_TRUE(poll.answer && *poll.answer);
      EXPECT_EQ(BrokerWorld::records_of(**poll.answer).back(), (std::pair<std::int64_t, std::string>{end, "news"}));
      EXPECT_EQ((*poll.answer)->next, Offset{end + 1});
      EXPECT_TRUE((*poll.answer)->reached_end());
    }
  }
}

// Nobody waits longer than they said.
TEST(Fetch, AnEmptyPartitionAnswersAtTheDeadline) {
  BrokerWorld world{{.shards = 2}};
  world.start();
  auto topic = world.create("orders", 2);
  for (std::int32_t partition : {0, 1}) {
    Instant begun = world.now();
    Fetcher fetcher{world.shard(0)};
    auto reply = world.run(fetcher.fetch(from(topic, partition, 0, begun + std::chrono::seconds{3})));
    ASSERT_TRUE(reply);
    EXPECT_TRUE(reply->batches.empty());
    EXPECT_EQ(reply->next, Offset{0});
    EXPECT_GE(world.now() - begun, std::chrono::seconds{3});
    EXPECT_LT(world.now() - begun, std::chrono::milliseconds{3'100});
  }
}

// A client that goes away must not leave a wait behind for the rest of its hour, here or on the owner's shard.
TEST(Fetch, CancelEndsAWaitAtOnceOnBothShards) {
  BrokerWorld world{{.shards = 2}};
  world.start();
  auto topic = world.create("orders", 2);
  for (std::int32_t partition : {0, 1}) {
    Poll poll{world.shard(0)};
    poll.begin(from(topic, partition, 0, world.now() + std::chrono::hours{1}));
    world.loop().run_for(std::chrono::seconds{1});
    ASSERT_FALSE(poll.answer);
    Instant before = world.now();
    poll.fetcher.cancel();
    ASSERT_TRUE(world.loop().run_until([&] { return poll.answer.has_value(); }));
    EXPECT_LT(world.now() - before, std::chrono::milliseconds{1});
    EXPECT_EQ(poll.answer->error().code, Errc::cancelled);
    world.loop().run_for(std::chrono::milliseconds{1});
    for (const ShardStatus& status : world.run(world.broker().status(ShardIndex{0}))) EXPECT_EQ(status.waits_in_flight, 0u);
    // Cancelled until told otherwise: a reader that is being torn down cannot start over by mistake.
    EXPECT_EQ(world.run(poll.fetcher.fetch(from(topic, partition, 0))).error().code, Errc::cancelled);
    poll.fetcher.reset();
    EXPECT_TRUE(world.run(poll.fetcher.fetch(from(topic, partition, 0))));
  }
}

// Credit: whole batches while any credit is left, the last may overdraw, and never nothing when there is something.
TEST(Fetch, StopsAtTheBatchThatUsesUpTheCredit) {
  BrokerWorld world;
  world.start();
  auto topic = world.create("orders");
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(world.produce(topic, 0, {"a", "b", "c"}));
  auto request = from(topic, 0, 1);
  Fetcher fetcher{world.shard()};
  request.records_max = 1;
  auto one = world.run(fetcher.fetch(request));
  ASSERT_TRUE(one);
  EXPECT_EQ(one->batches.size(), 1u);
  EXPECT_EQ(one->records, 2u);  // offset 0 lies before the reader: it costs nothing
  EXPECT_EQ(one->next, Offset{3});
  request.records_max = 3;
  EXPECT_EQ(world.run(fetcher.fetch(request))->batches.size(), 2u);
  request.records_max = 0;
  EXPECT_EQ(world.run(fetcher.fetch(request))->records, 29u);
  request.bytes_max = 1;
  auto least = world.run(fetcher.fetch(request));
  EXPECT_EQ(least->batches.size(), 1u);
  EXPECT_EQ(least->bytes, least->batches[0].length);
}

// An offset outside the log is refused with the range that would be valid, so that a reset policy can be applied.
TEST(Fetch, OutOfRangeCarriesTheValidRange) {
  BrokerWorld world;
  world.start();
  auto topic = world.create("orders");
  for (int i = 0; i < 6; ++i) ASSERT_TRUE(world.produce(topic, 0, {"x"}));
  auto cut = world.run(world.shard().delete_records({.topic = "orders", .before = {{PartitionIndex{0}, Offset{2}}}}));
  ASSERT_TRUE(cut);
  EXPECT_EQ(cut->at(0).offset, Offset{2});
  for (std::int64_t bad : {std::int64_t{1}, std::int64_t{7}, std::int64_t{-1}, std::numeric_limits<std::int64_t>::max(), std::numeric_limits<std::int64_t>::min()}) {
    auto reply = world.fetch(topic, 0, bad);
    ASSERT_FALSE(reply) << bad;
    EXPECT_EQ(reply.error().code, Errc::offset_out_of_range);
    ASSERT_GE(reply.error().facts.size(), 2u);
    EXPECT_EQ(reply.error().facts[0].name, "log_start");
    EXPECT_EQ(reply.error().facts[0].value, "2");
    EXPECT_EQ(reply.error().facts[1].value, "6");
  }
  EXPECT_EQ(world.read_all(topic, 0, 2).size(), 4u);
  EXPECT_TRUE(world.read_all(topic, 0, 6).empty());
}

// Deleting records moves the start for live readers and survives a power cut; it never goes back.
TEST(Fetch, DeletedRecordsStayDeleted) {
  BrokerWorld world{{.shards = 2}};
  world.start();
  auto topic = world.create("orders", 2);
  for (std::int32_t partition : {0, 1}) {
    for (int i = 0; i < 6; ++i) ASSERT_TRUE(world.produce(topic, partition, {"x"}));
  }
  auto check_only = world.run(world.shard(1).delete_records({.topic = "orders", .before = {{PartitionIndex{0}, Offset{4}}}, .validate_only = true}));
  ASSERT_TRUE(check_only);
  EXPECT_EQ(world.read_all(topic, 0).size(), 6u);
  // One bad offset: nothing at all is cut.
  auto bad = world.run(world.shard().delete_records({.topic = "orders", .before = {{PartitionIndex{0}, Offset{4}}, {PartitionIndex{1}, Offset{7}}}}));
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().code, Errc::offset_out_of_range);
  EXPECT_EQ(world.read_all(topic, 0).size(), 6u);
  auto good = world.run(world.shard().delete_records({.topic = "orders", .before = {{PartitionIndex{0}, Offset{4}}, {PartitionIndex{1}, Offset{-1}}}}));
  ASSERT_TRUE(good);
  world.power_cut(sim::CrashPlan::lose_all());
  world.start();
  topic = world.topic("orders");
  EXPECT_EQ(world.fetch(topic, 0, 3).error().code, Errc::offset_out_of_range);
  EXPECT_EQ(world.read_all(topic, 0, 4).size(), 2u);
  EXPECT_TRUE(world.read_all(topic, 1, 6).empty());
  auto back = world.run(world.shard().delete_records({.topic = "orders", .before = {{PartitionIndex{0}, Offset{1}}}}));
  ASSERT_TRUE(back);
  EXPECT_EQ(back->at(0).offset, Offset{4});
}

// Where to begin: start, end, the last n, an exact offset, and the first record at or after a time, inside its batch.
TEST(Fetch, ListsOffsetsByEveryKindOfPosition) {
  BrokerWorld world{{.shards = 2}};
  world.start();
  auto topic = world.create("orders", 3);
  // Times 1000.. in batches of three; the second batch is compressed.
  ASSERT_TRUE(world.produce(topic, 2, batch_of({"a", "b", "c"}, {}, 1'000)));
  ASSERT_TRUE(world.produce(topic, 2, batch_of({"d", "e", std::string(1'000, 'f')}, {}, 2'000, Compression::lz4)));
  using Kind = Position::Kind;
  auto list = [&](Kind kind, std::int64_t value = 0) {
    auto answer = world.run(world.shard(1).list_offsets("orders", {{PartitionIndex{2}, {kind, value}}}));
    EXPECT_TRUE(answer);
    return answer->at(0);
  };
  EXPECT_EQ(list(Kind::start)->offset, Offset{0});
  EXPECT_EQ(list(Kind::end)->offset, Offset{6});
  EXPECT_EQ(list(Kind::last, 2)->offset, Offset{4});
  EXPECT_EQ(list(Kind::last, 100)->offset, Offset{0});
  EXPECT_EQ(list(Kind::last, 0)->offset, Offset{6});
  EXPECT_EQ(list(Kind::last, -5)->offset, Offset{6});
  EXPECT_EQ(list(Kind::last, std::numeric_limits<std::int64_t>::max())->offset, Offset{0});
  EXPECT_EQ(list(Kind::time, 0)->offset, Offset{0});
  EXPECT_EQ(list(Kind::time, 1'001)->offset, Offset{1});
  EXPECT_EQ(list(Kind::time, 1'001)->time_ms, 1'001);
  EXPECT_EQ(list(Kind::time, 1'500)->offset, Offset{3});
  EXPECT_EQ(list(Kind::time, 2'002)->offset, Offset{5});
  EXPECT_EQ(list(Kind::time, 2'003)->offset, Offset{6});  // none: the end
  EXPECT_EQ(list(Kind::time, 2'003)->time_ms, -1);
  EXPECT_EQ(list(Kind::exact, 6)->offset, Offset{6});
  EXPECT_EQ(list(Kind::exact, 7).error().code, Errc::offset_out_of_range);
  // One wrong partition does not spoil the others.
  auto mixed = world.run(world.shard(0).list_offsets("orders", {{PartitionIndex{0}, {}}, {PartitionIndex{9}, {}}, {PartitionIndex{2}, {Kind::end}}}));
  ASSERT_TRUE(mixed);
  EXPECT_TRUE(mixed->at(0));
  EXPECT_EQ(mixed->at(1).error().code, Errc::no_such_partition);
  EXPECT_EQ(mixed->at(2)->offset, Offset{6});
  EXPECT_EQ(world.run(world.shard(0).list_offsets("nothing", {})).error().code, Errc::no_such_topic);
}

}  // namespace
}  // namespace tailrace::broker::service
