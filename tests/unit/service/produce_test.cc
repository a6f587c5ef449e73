/// Produce, as front ends see it: order, duplicates, preconditions, durability, refusals.
#include "tests/unit/service/broker_world.h"

namespace tailrace::broker::service {
namespace {

using Batch = TestBatch;
codec::ProducerStamp stamp(ProducerId id, std::int32_t sequence, std::int16_t epoch = 0) {
  return {.producer_id = id, .producer_epoch = ProducerEpoch{epoch}, .base_sequence = sequence};
}
std::string fact(const Refusal& refusal, std::string_view name) {
  for (const Fact& fact : refusal.facts) {
    if (fact.name == name) return fact.value;
  }
  return {};
}

/// Produces without waiting for the answer, and notes the order in which answers come.
struct Pipeline {
  TaskScope scope;
  std::vector<std::optional<Answer<ProduceReply>>> answers = {};
  std::vector<std::size_t> order = {};

  explicit Pipeline(std::size_t most) { answers.reserve(most); }
  void send(ShardService& shard, ProduceRequest request) {
    answers.emplace_back();
    scope.spawn(one(shard, std::move(request), answers.size() - 1));
  }
  Task<void> one(ShardService& shard, ProduceRequest request, std::size_t index) {
    auto answer = co_await shard.produce(std::move(request));
    answers[index] = std::move(answer);
    order.push_back(index);
  }
};

// The first promise of all: what was acknowledged is read back, in order, from offset 0.
TEST(Produce, WhatIsAcknowledgedIsReadBackInOrder) {
  BrokerWorld world;
  world.start();
  auto topic = world.create("orders");
  auto first = world.produce(topic, 0, {"a", "b"});
  auto second = world.produce(topic, 0, {"c"});
  ASSERT_TRUE(first && second);
  EXPECT_EQ(first->base_offset, Offset{0});
  EXPECT_EQ(second->base_offset, Offset{2});
  EXPECT_EQ(first->log_append_time_ms, -1);
  EXPECT_FALSE(first->duplicate);
  EXPECT_EQ(world.read_all(topic, 0), (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_EQ(world.read_all(topic, 0, 1), (std::vector<std::string>{"b", "c"}));
}

// A client pipelines without waiting. The partition is still being opened when the first batches arrive, and its owner may be another shard:
// neither may let a later batch pass an earlier one, nor an answer pass another.
TEST(Produce, PipelinedBatchesKeepTheirOrderFromTheFirstUseOn) {
  for (std::uint32_t shards : {1u, 2u, 3u}) {
    BrokerWorld world{{.shards = shards, .seed = 3}};
    world.start();
    auto topic = world.create("orders", 6);
    for (std::int32_t partition = 0; partition < 6; ++partition) {
      for (std::uint32_t at = 0; at < shards; ++at) {
        Pipeline pipeline{100};
        ProducerId id = world.producer_id("orders", at);
        for (int i = 0; i < 100; ++i) {
          pipeline.send(world.shard(at), BrokerWorld::request(topic, partition, batch_of({fmt::format("{}", i)}, stamp(id, i))));
        }
        ASSERT_TRUE(world.loop().run_until([&] { return pipeline.scope.running() == 0; }));
        for (std::size_t i = 0; i < 100; ++i) {
          ASSERT_TRUE(*pipeline.answers[i]) << pipeline.answers[i]->error().detail;
          EXPECT_EQ((*pipeline.answers[i])->base_offset, Offset{static_cast<std::int64_t>(at * 100 + i)});
          EXPECT_EQ(pipeline.order[i], i);
        }
      }
    }
  }
}

// The answer may be lost on the way; the resend must find the original, not append a second copy. Also after a power cut.
TEST(Produce, AResentBatchIsAnsweredWithItsOriginalOffsetAlsoAfterAPowerCut) {
  BrokerWorld world;
  world.start();
  auto topic = world.create("orders");
  ProducerId id = world.producer_id("orders");
  for (int i = 0; i < 7; ++i) ASSERT_TRUE(world.produce(topic, 0, batch_of({fmt::format("{}", i)}, stamp(id, i))));
  auto check = [&] {
    for (int i = 2; i < 7; ++i) {  // the last five
      auto again = world.produce(topic, 0, batch_of({fmt::format("{}", i)}, stamp(id, i)));
      ASSERT_TRUE(again) << again.error().detail;
      EXPECT_TRUE(again->duplicate);
      EXPECT_EQ(again->base_offset, Offset{i});
    }
    auto old = world.produce(topic, 0, batch_of({"1"}, stamp(id, 1)));
    ASSERT_FALSE(old);
    EXPECT_EQ(old.error().code, Errc::duplicate_sequence);
    auto gap = world.produce(topic, 0, batch_of({"9"}, stamp(id, 9)));
    ASSERT_FALSE(gap);
    EXPECT_EQ(gap.error().code, Errc::out_of_order_sequence);
    EXPECT_EQ(fact(gap.error(), "expected_sequence"), "7");
    EXPECT_EQ(world.read_all(topic, 0).size(), 7u);
  };
  check();
  world.power_cut(sim::CrashPlan::lose_all());
  world.start();
  topic = world.topic("orders");
  check();
  ASSERT_TRUE(world.produce(topic, 0, batch_of({"7"}, stamp(id, 7))));
  EXPECT_EQ(world.read_all(topic, 0).size(), 8u);
  auto fenced = world.produce(topic, 0, batch_of({"x"}, stamp(id, 0, 1)));
  ASSERT_TRUE(fenced);  // a new epoch begins at 0
  auto late = world.produce(topic, 0, batch_of({"8"}, stamp(id, 8)));
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, Errc::fenced);
  auto stranger = world.produce(topic, 0, batch_of({"y"}, stamp(ProducerId{12'345}, 4)));
  ASSERT_FALSE(stranger);
  EXPECT_EQ(stranger.error().code, Errc::unknown_producer);
}

// Optimistic concurrency: of two writers that read the same end, one wins and the other learns the actual end.
TEST(Produce, ExpectedEndOffsetLetsOneOfTwoWritersWin) {
  BrokerWorld world;
  world.start();
  auto topic = world.create("orders");
  ASSERT_TRUE(world.produce(topic, 0, {"a"}));
  ProducerId id = world.producer_id("orders");
  auto expecting = [&](Batch batch, std::int64_t end) {
    ProduceRequest request = BrokerWorld::request(topic, 0, std::move(batch));
    request.expected_end_offset = Offset{end};
    return request;
  };
  Pipeline both{2};  // sent together: the decision is the broker's
  both.send(world.shard(), expecting(batch_of({"one"}, stamp(id, 0)), 1));
  both.send(world.shard(), expecting(batch_of({"two"}), 1));
  ASSERT_TRUE(world.loop().run_until([&] { return both.scope.running() == 0; }));
  ASSERT_TRUE(*both.answers[0]);
  ASSERT_FALSE(*both.answers[1]);
  EXPECT_EQ(both.answers[1]->error().code, Errc::wrong_version);
  EXPECT_EQ(fact(both.answers[1]->error(), "actual_end_offset"), "2");
  EXPECT_EQ(both.order, (std::vector<std::size_t>{0, 1}));  // the refusal tells of an end that is durable by then
  // The winner's answer was lost and it sends again: it must still have won.
  auto again = world.run(world.shard().produce(expecting(batch_of({"one"}, stamp(id, 0)), 1)));
  ASSERT_TRUE(again) << again.error().detail;
  EXPECT_TRUE(again->duplicate);
  EXPECT_EQ(again->base_offset, Offset{1});
  EXPECT_EQ(world.read_all(topic, 0), (std::vector<std::string>{"a", "one"}));
}

// quorum: nothing is acknowledged before the disk said so. relaxed: the topic says memory is enough, so a slow disk is not felt.
TEST(Produce, TheTopicsDurabilityDecidesWhatAnAnswerMeans) {
  BrokerWorld world;
  world.start();
  auto durable = world.create("durable");
  auto relaxed = world.create("relaxed", 1, {{"durability", "relaxed"}});
  ASSERT_TRUE(world.produce(durable, 0, {"warm"}));
  ASSERT_TRUE(world.produce(relaxed, 0, {"warm"}));
  world.loop().run_for(std::chrono::seconds{1});
  sim::Fault stall{.op = sim::DiskOp::write_durable, .sticky = true, .effect = sim::Fault::Effect::stall};
  stall.stall = std::chrono::seconds{2};
  world.disk().inject(stall);
  Instant before = world.now();
  ASSERT_TRUE(world.produce(relaxed, 0, {"r"}));
  EXPECT_EQ(world.now(), before);  // no time passed at all
  ASSERT_TRUE(world.produce(durable, 0, {"d"}));
  EXPECT_GE(world.now() - before, std::chrono::seconds{2});
  world.disk().clear_faults();
}

// With LogAppendTime the broker's time is the record's: header and CRC are rewritten, and a reader's check still holds.
TEST(Produce, LogAppendTimeIsStampedAndStillChecks) {
  BrokerWorld world;
  world.start();
  auto topic = world.create("stamped", 1, {{"timestamp_type", "log_append_time"}});
  WallTime sent = world.loop().wall();
  auto reply = world.produce(topic, 0, batch_of({"a", "b"}, {}, 5));
  ASSERT_TRUE(reply);
  EXPECT_GE(reply->log_append_time_ms, sent.time_since_epoch().count());
  auto read = world.fetch(topic, 0, 0);
  ASSERT_TRUE(read);
  auto reader = codec::BatchReader::open(read->batches.at(0).bytes());  // checks the CRC
  ASSERT_TRUE(reader) << reader.error().detail;
  EXPECT_TRUE(reader->header().has_log_append_time());
  codec::RecordView record;
  ASSERT_TRUE(reader->next(record));
  EXPECT_EQ(record.timestamp, reply->log_append_time_ms);
}

// Each refusal names its reason, and nothing of a refused batch is stored.
TEST(Produce, RefusalsStoreNothingAndSayWhy) {
  BrokerWorld world{{.shards = 2}};
  world.start();
  auto topic = world.create("orders", 2, {{"message_bytes_max", "2KiB"}});
  auto code = [](const Answer<ProduceReply>& answer) { return answer ? Errc{} : answer.error().code; };
  EXPECT_EQ(code(world.produce(topic, 0, {std::string(3'000, 'x')})), Errc::too_large);
  EXPECT_EQ(code(world.produce(topic, 2, {"a"})), Errc::no_such_partition);
  EXPECT_EQ(code(world.produce(topic, -1, {"a"})), Errc::no_such_partition);
  EXPECT_EQ(code(world.produce(world.topic("__metadata"), 0, {"a"})), Errc::unauthorized);
  auto nowhere = std::make_shared<cluster::Topic>(*topic);
  nowhere->id.bytes.fill(9);
  EXPECT_EQ(code(world.produce(nowhere, 0, {"a"})), Errc::no_such_topic);
  for (std::int16_t attribute : {batch_layout::kControl, batch_layout::kTransactional, batch_layout::kLogAppendTime}) {
    Batch batch = batch_of({"a"});
    batch.header.attributes = static_cast<std::int16_t>(batch.header.attributes | attribute);
    EXPECT_EQ(code(world.produce(topic, 0, batch)), Errc::invalid_record) << attribute;
  }
  ProduceRequest late = BrokerWorld::request(topic, 0, batch_of({"a"}));
  late.deadline = world.now();
  EXPECT_EQ(code(world.run(world.shard().produce(late))), Errc::timeout);
  EXPECT_TRUE(world.read_all(topic, 0).empty());
  EXPECT_TRUE(world.read_all(topic, 1).empty());
  auto status = world.run(world.broker().status(ShardIndex{0}));
  EXPECT_EQ(status[0].refusals[Errc::too_large], 1u);
  EXPECT_EQ(status[0].refusals[Errc::no_such_partition], 2u);
}

// A burst larger than the WAL's queue must wait its turn, not fail and not overtake.
TEST(Produce, WaitsInOrderWhenTheWalsQueueIsFull) {
  BrokerWorld world{{.seed = 5, .pending_bytes_max = 64 * 1024}};
  world.start();
  auto topic = world.create("orders");
  ProducerId id = world.producer_id("orders");
  Pipeline pipeline{60};
  for (int i = 0; i < 60; ++i) {
    pipeline.send(world.shard(), BrokerWorld::request(topic, 0, batch_of({std::string(20'000, static_cast<char>('a' + i % 26))}, stamp(id, i))));
  }
  ASSERT_TRUE(world.loop().run_until([&] { return pipeline.scope.running() == 0; }));
  for (std::size_t i = 0; i < 60; ++i) {
    ASSERT_TRUE(*pipeline.answers[i]) << i << ": " << pipeline.answers[i]->error().detail;
    EXPECT_EQ((*pipeline.answers[i])->base_offset, Offset{static_cast<std::int64_t>(i)});
    EXPECT_EQ(pipeline.order[i], i);
  }
}

// Two producers with one id would take each other's batches for duplicates: no id is given twice, by any shard, before or after a crash.
TEST(Produce, ProducerIdsAreUniqueAcrossShardsAndRestarts) {
  BrokerWorld world{{.shards = 3}};
  std::set<ProducerId> seen;
  for (int life = 0; life < 3; ++life) {
    world.start();
    if (life == 0) world.create("orders");
    for (std::uint32_t at = 0; at < 3; ++at) {
      for (int i = 0; i < 40; ++i) EXPECT_TRUE(seen.insert(world.producer_id("orders", at)).second);
    }
    if (life == 0) world.kill();
    if (life == 1) world.restart();
  }
  auto again = world.run(world.shard(1).open_producer({.topic = "orders", .producer_id = *seen.begin(), .producer_epoch = ProducerEpoch{4}}));
  ASSERT_TRUE(again);
  EXPECT_EQ(again->producer_id, *seen.begin());
  EXPECT_EQ(again->producer_epoch, ProducerEpoch{4});
  auto invented = world.run(world.shard(1).open_producer({.topic = "orders", .producer_id = ProducerId{1'000'000}}));
  ASSERT_FALSE(invented);
  EXPECT_EQ(invented.error().code, Errc::unknown_producer);
  auto plain = world.run(world.shard(0).open_producer({.topic = "orders", .idempotent = false}));
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->producer_id, kNoProducer);
}

// A full disk refuses writes instead of deleting; reads and deletes go on, and space that returns is used again.
TEST(Produce, AFullDiskRefusesWritesAndRecoversByItself) {
  BrokerWorld world;
  world.start();
  auto topic = world.create("orders", 1, {{"segment_bytes_max", "64KiB"}});
  world.create("spare");
  ASSERT_TRUE(world.produce(topic, 0, {"kept"}));
  world.loop().run_for(std::chrono::seconds{1});
  world.disk().set_capacity(world.disk().used_bytes());
  Errc last{};
  int stored = 1;
  for (int i = 0; i < 400 && last == Errc{}; ++i) {
    auto answer = world.produce(topic, 0, {std::string(50'000, 'x')});
    if (answer) ++stored;
    else last = answer.error().code;
    world.loop().run_for(std::chrono::milliseconds{20});
  }
  EXPECT_EQ(last, Errc::storage_full);
  EXPECT_EQ(world.read_all(topic, 0).size(), static_cast<std::size_t>(stored));
  EXPECT_TRUE(world.run(world.shard().delete_topic("spare", false)));  // the way to get space back
  world.disk().set_capacity(std::uint64_t{1} << 40);
  world.loop().run_for(std::chrono::minutes{2});
  auto again = world.produce(topic, 0, {"again"});
  ASSERT_TRUE(again) << again.error().detail;
  EXPECT_EQ(again->base_offset, Offset{stored});
}

}  // namespace
}  // namespace tailrace::broker::service
