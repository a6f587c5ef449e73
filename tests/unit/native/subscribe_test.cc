/// Subscriptions: positions, credit, ends, seeking and pausing, deletion.
#include <numeric>

#include "native/messages.h"
#include "tests/unit/native/native_world.h"

namespace tailrace::broker::native {
namespace {

struct SubscribeWorld : NativeWorld {
  explicit SubscribeWorld(int records = 0, NativeOptions options = {}) : NativeWorld{options}, client{*this} {
    client.greet();
    client.create("orders", 3);
    add(records);
  }
  void add(int records, int partition = 0) {
    for (int i = 0; i < records; ++i) {
      ASSERT_TRUE(broker.produce(broker.topic("orders"), partition, {"v" + std::to_string(count[partition]++)}).has_value());
    }
  }
  Client client;
  int count[3] = {};
};

struct Got {
  proto::Records control;
  std::vector<std::pair<std::int64_t, std::string>> records;
};
Got next_records(Client& client, std::uint64_t stream) {
  Got out;
  std::string payload;
  out.control = client.expect<proto::Records>(FrameType::records, stream, &payload);
  out.records = records_of(payload);
  return out;
}
proto::SubscribeReply subscribed(Client& client, std::uint64_t stream) { return client.expect<proto::SubscribeReply>(FrameType::subscribe_reply, stream); }

/// All values until `finished`, `reached_end`, or nothing more comes.
std::vector<std::string> read_on(Client& client) {
  std::vector<std::string> out;
  while (auto frame = client.next(100ms)) {
    if (frame->header.type != FrameType::records) {
      ADD_FAILURE() << "frame type " << static_cast<int>(frame->header.type);
      return out;
    }
    auto control = frame->as<proto::Records>();
    for (auto& [offset, value] : records_of(frame->payload)) {
      if (offset >= control.first_offset()) out.push_back(value);
    }
  }
  return out;
}

TEST(Subscribe, FromTheStartEverythingComesInOrderAndTheEndIsSaid) {
  SubscribeWorld world{10};
  world.client.subscribe(5, "orders", at_start(), 1'000, 1 << 20);
  auto reply = subscribed(world.client, 5);
  ASSERT_EQ(reply.partitions_size(), 1);
  EXPECT_EQ(reply.partitions(0).offset(), 0);
  EXPECT_EQ(reply.partitions(0).high_watermark(), 10);
  Got got = next_records(world.client, 5);
  EXPECT_EQ(got.control.first_offset(), 0);
  EXPECT_EQ(got.control.records(), 10u);
  EXPECT_EQ(got.control.high_watermark(), 10);
  EXPECT_TRUE(got.control.reached_end());
  ASSERT_EQ(got.records.size(), 10u);
  EXPECT_EQ(got.records[9], (std::pair<std::int64_t, std::string>{9, "v9"}));
  world.add(1);
  got = next_records(world.client, 5);
  EXPECT_EQ(got.control.first_offset(), 10);
  EXPECT_EQ(got.records[0].second, "v10");
  EXPECT_TRUE(got.control.reached_end());
}

// `tail --until end` needs to hear that there is nothing.
TEST(Subscribe, AnEmptyPartitionSaysAtOnceThatItsEndIsReached) {
  SubscribeWorld world;
  world.client.subscribe(5, "orders", at_start(), 10, 1'000, {0, 1, 2});
  subscribed(world.client, 5);
  std::set<int> ends;
  for (int i = 0; i < 3; ++i) {
    Got got = next_records(world.client, 5);
    EXPECT_TRUE(got.control.reached_end());
    EXPECT_TRUE(got.records.empty());
    ends.insert(got.control.partition());
  }
  EXPECT_EQ(ends.size(), 3u);
  EXPECT_FALSE(world.client.next(200s).has_value()) << "once, not again and again";
}

// The bound that keeps a slow consumer's memory its own: never more than the credit and the rest of one batch.
TEST(Subscribe, NothingIsSentBeyondTheCredit) {
  SubscribeWorld world{100};
  world.client.subscribe(5, "orders", at_start(), 3, 1 << 20);
  subscribed(world.client, 5);
  EXPECT_EQ(read_on(world.client).size(), 3u);
  EXPECT_FALSE(world.client.next(10s).has_value());
  proto::Credit credit;
  credit.set_records(4);
  world.client.send(FrameType::credit, 5, credit);
  EXPECT_EQ(read_on(world.client).size(), 4u);
  credit.set_records(1'000);
  world.client.send(FrameType::credit, 5, credit);
  EXPECT_EQ(read_on(world.client).size(), 93u);
}

TEST(Subscribe, ByteCreditCountsWholeBatchesAndMayBeOverdrawnByOne) {
  SubscribeWorld world;
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(world.broker.produce(world.broker.topic("orders"), 0, {std::string(1'000, 'x')}).has_value());
  std::uint64_t size = batch({std::string(1'000, 'x')}).size();
  world.client.subscribe(5, "orders", at_start(), 1'000, size + 1);
  subscribed(world.client, 5);
  EXPECT_EQ(read_on(world.client).size(), 2u) << "one byte is enough for a whole batch";
  proto::Credit credit;
  credit.set_bytes(size - 1);
  world.client.send(FrameType::credit, 5, credit);
  EXPECT_EQ(read_on(world.client).size(), 0u) << "it only pays back what was overdrawn";
  credit.set_bytes(1);
  world.client.send(FrameType::credit, 5, credit);
  EXPECT_EQ(read_on(world.client).size(), 1u);
}

// Several partitions fetch at the same time, but the credit is one.
TEST(Subscribe, PartitionsShareOneCredit) {
  SubscribeWorld world{50};
  world.add(50, 1);
  world.add(50, 2);
  world.client.subscribe(5, "orders", at_start(), 20, 1 << 20, {0, 1, 2});
  subscribed(world.client, 5);
  EXPECT_EQ(read_on(world.client).size(), 20u);
  proto::Credit credit;
  credit.set_records(1'000);
  world.client.send(FrameType::credit, 5, credit);
  EXPECT_EQ(read_on(world.client).size(), 130u);
}

TEST(Subscribe, PositionsBeginWhereTheySay) {
  SubscribeWorld world{10};
  struct Case {
    proto::StartAt at;
    std::int64_t offset;
  };
  proto::StartAt last;
  last.set_last(3);
  proto::StartAt many;
  many.set_last(1'000);
  std::uint64_t stream = 10;
  for (const Case& one : {Case{at_start(), 0}, Case{at_offset(4), 4}, Case{at_offset(10), 10}, Case{at_end(), 10}, Case{last, 7}, Case{many, 0}}) {
    world.client.subscribe(++stream, "orders", one.at, 0, 0);
    EXPECT_EQ(subscribed(world.client, stream).partitions(0).offset(), one.offset);
  }
}

// A batch begins below the offset asked for: the frame says from where the records count.
TEST(Subscribe, AnOffsetInsideABatchIsHonoured) {
  SubscribeWorld world;
  ASSERT_TRUE(world.broker.produce(world.broker.topic("orders"), 0, {"a", "b", "c", "d"}).has_value());
  world.client.subscribe(5, "orders", at_offset(2), 10, 1'000);
  subscribed(world.client, 5);
  Got got = next_records(world.client, 5);
  EXPECT_EQ(got.control.first_offset(), 2);
  EXPECT_EQ(got.control.records(), 2u) << "only what counts costs credit";
  EXPECT_EQ(got.records.size(), 4u);
}

TEST(Subscribe, UntilEndsThePartition) {
  SubscribeWorld world{10};
  proto::SubscribeRequest request;
  request.set_topic("orders");
  request.set_credit_records(100);
  request.set_credit_bytes(100'000);
  auto& partition = *request.add_partitions();
  *partition.mutable_start() = at_offset(2);
  partition.set_until(6);
  auto& nothing = *request.add_partitions();
  nothing.set_partition(1);
  *nothing.mutable_start() = at_start();
  nothing.set_until(0);
  world.client.send(FrameType::subscribe, 5, request);
  subscribed(world.client, 5);
  std::map<int, bool> finished;
  std::vector<std::string> values;
  while (auto frame = world.client.next(100ms)) {
    auto control = frame->as<proto::Records>();
    if (control.finished()) finished[control.partition()] = true;
    for (auto& [offset, value] : records_of(frame->payload)) values.push_back(value);
  }
  EXPECT_EQ(values, (std::vector<std::string>{"v2", "v3", "v4", "v5"}));
  EXPECT_TRUE(finished[0]);
  EXPECT_TRUE(finished[1]) << "an empty range is finished at once";
  world.add(5);
  EXPECT_FALSE(world.client.next(1s).has_value());
}

TEST(Subscribe, AnOffsetOutOfRangeIsAnErrorWithTheRangeOrThePolicy) {
  SubscribeWorld world{10};
  world.client.subscribe(5, "orders", at_offset(11), 10, 1'000);
  auto error = world.client.expect<proto::ErrorReply>(FrameType::error, 5);
  EXPECT_EQ(static_cast<Errc>(error.code()), Errc::offset_out_of_range);
  std::map<std::string, std::string> facts;
  for (const auto& fact : error.facts()) facts[fact.name()] = fact.value();
  EXPECT_EQ(facts["log_start"], "0");
  EXPECT_EQ(facts["high_watermark"], "10");
  EXPECT_EQ(facts["partition"], "0");
  world.client.subscribe(6, "orders", at_offset(11), 10, 1'000, {0}, proto::OUT_OF_RANGE_LATEST);
  EXPECT_EQ(subscribed(world.client, 6).partitions(0).offset(), 10);
  EXPECT_TRUE(next_records(world.client, 6).control.reset());
  world.client.subscribe(7, "orders", at_offset(-5), 10, 100'000, {0}, proto::OUT_OF_RANGE_EARLIEST);
  EXPECT_EQ(subscribed(world.client, 7).partitions(0).offset(), 0);
  Got got = next_records(world.client, 7);
  EXPECT_TRUE(got.control.reset());
  EXPECT_EQ(got.records.size(), 10u);
}

// Records deleted under a waiting reader: it is moved or told, as it asked.
TEST(Subscribe, DeletedRecordsUnderAReaderFollowThePolicy) {
  SubscribeWorld world{10};
  world.client.subscribe(5, "orders", at_start(), 0, 0);
  world.client.subscribe(6, "orders", at_start(), 0, 0, {0}, proto::OUT_OF_RANGE_EARLIEST);
  subscribed(world.client, 5);
  subscribed(world.client, 6);
  proto::DeleteRecordsRequest request;
  request.set_topic("orders");
  request.add_before()->set_offset(7);
  EXPECT_EQ(world.client.call<proto::DeleteRecordsReply>(FrameType::delete_records, request).log_start(0).offset(), 7);
  proto::Credit credit;
  credit.set_records(100);
  credit.set_bytes(100'000);
  world.client.send(FrameType::credit, 5, credit);
  EXPECT_EQ(world.client.expect_error(5), Errc::offset_out_of_range);
  world.client.send(FrameType::credit, 6, credit);
  Got moved = next_records(world.client, 6);
  EXPECT_TRUE(moved.control.reset());
  EXPECT_EQ(moved.control.first_offset(), 7);
  EXPECT_EQ(read_on(world.client), (std::vector<std::string>{"v7", "v8", "v9"}));
}

TEST(Subscribe, SeekMovesAndWhatComesAfterTheReplyIsNew) {
  SubscribeWorld world{10};
  world.client.subscribe(5, "orders", at_start(), 1'000, 1 << 20, {0, 1});
  subscribed(world.client, 5);
  (void)read_on(world.client);
  proto::SeekRequest request;
  *request.add_partitions()->mutable_start() = at_offset(8);
  world.client.send(FrameType::seek, 5, request);
  auto reply = world.client.expect<proto::SeekReply>(FrameType::seek_reply, 5);
  EXPECT_EQ(reply.seek_count(), 1u);
  EXPECT_EQ(reply.partitions(0).offset(), 8);
  Got got = next_records(world.client, 5);
  EXPECT_EQ(got.control.first_offset(), 8);
  EXPECT_EQ(got.control.seek_count(), 1u);
  EXPECT_TRUE(got.control.reached_end());
  request.mutable_partitions(0)->set_partition(2);
  world.client.send(FrameType::seek, 5, request);
  EXPECT_EQ(world.client.expect_error(5), Errc::no_such_partition);
  request.mutable_partitions(0)->set_partition(0);
  *request.mutable_partitions(0)->mutable_start() = at_offset(99);
  world.client.send(FrameType::seek, 5, request);
  EXPECT_EQ(world.client.expect_error(5), Errc::offset_out_of_range);
  world.add(1);
  EXPECT_EQ(next_records(world.client, 5).records[0].second, "v10") << "a failed seek changes nothing";
}

// Pause must lose nothing and send nothing; other partitions go on.
TEST(Subscribe, APausedPartitionSendsNothingAndLosesNothing) {
  SubscribeWorld world;
  world.client.subscribe(5, "orders", at_start(), 1'000, 1 << 20, {0, 1});
  subscribed(world.client, 5);
  (void)read_on(world.client);
  proto::SeekRequest pause;
  pause.add_pause(0);
  world.client.send(FrameType::seek, 5, pause);
  EXPECT_EQ(world.client.expect<proto::SeekReply>(FrameType::seek_reply, 5).seek_count(), 0u);
  world.add(5, 0);
  world.add(2, 1);
  EXPECT_EQ(read_on(world.client), (std::vector<std::string>{"v0", "v1"})) << "of partition 1";
  proto::SeekRequest resume;
  resume.add_resume(0);
  world.client.send(FrameType::seek, 5, resume);
  world.client.expect<proto::SeekReply>(FrameType::seek_reply, 5);
  EXPECT_EQ(read_on(world.client), (std::vector<std::string>{"v0", "v1", "v2", "v3", "v4"}));
}

TEST(Subscribe, ADeletedTopicEndsItsStreams) {
  SubscribeWorld world{3};
  world.client.subscribe(5, "orders", at_start(), 1'000, 1 << 20, {0, 1});
  subscribed(world.client, 5);
  (void)read_on(world.client);
  Client other{world, "10.0.0.2:1"};
  other.greet();
  proto::DeleteTopicRequest request;
  request.set_name("orders");
  other.call<proto::DeleteTopicReply>(FrameType::delete_topic, request);
  EXPECT_EQ(world.client.expect_error(5), Errc::no_such_topic);
  EXPECT_FALSE(world.client.next(5s).has_value()) << "one end, not one for each partition";
  EXPECT_FALSE(world.client.closed());
  world.client.create("orders");
  world.client.subscribe(5, "orders", at_start(), 1, 1);
  EXPECT_EQ(subscribed(world.client, 5).partitions(0).high_watermark(), 0) << "the id is free again";
}

TEST(Subscribe, UnsubscribeIsTheLastFrame) {
  SubscribeWorld world{10};
  world.client.subscribe(5, "orders", at_start(), 3, 1 << 20);
  subscribed(world.client, 5);
  (void)read_on(world.client);
  world.client.send(FrameType::unsubscribe, 5, proto::UnsubscribeRequest{});
  world.client.expect<proto::UnsubscribeReply>(FrameType::unsubscribe_reply, 5);
  proto::Credit credit;
  credit.set_records(100);
  world.client.send(FrameType::credit, 5, credit);
  world.add(5);
  EXPECT_FALSE(world.client.next(1s).has_value());
  world.client.send(FrameType::unsubscribe, 5, proto::UnsubscribeRequest{});
  EXPECT_EQ(world.client.expect_error(5), Errc::closed);
  EXPECT_EQ(world.front->counters().streams_subscribe, 0u);
}

TEST(Subscribe, RequestsThatMakeNoSenseAreRefused) {
  SubscribeWorld world{1};
  world.client.subscribe(5, "orders", at_start(), 1, 1, {});
  EXPECT_EQ(world.client.expect_error(5), Errc::invalid_argument);
  world.client.subscribe(5, "orders", at_start(), 1, 1, {0, 0});
  EXPECT_EQ(world.client.expect_error(5), Errc::invalid_argument);
  world.client.subscribe(5, "orders", at_start(), 1, 1, {7});
  EXPECT_EQ(world.client.expect_error(5), Errc::no_such_partition);
  world.client.subscribe(5, "orders", at_start(), 1, 1, {-1});
  EXPECT_EQ(world.client.expect_error(5), Errc::no_such_partition);
  world.client.subscribe(5, "nowhere", at_start(), 1, 1);
  EXPECT_EQ(world.client.expect_error(5), Errc::no_such_topic);
  world.client.subscribe(0, "orders", at_start(), 1, 1);
  EXPECT_EQ(world.client.expect_error(0), Errc::invalid_argument);
  world.client.subscribe(5, "orders", at_start(), ~std::uint64_t{0}, ~std::uint64_t{0});
  subscribed(world.client, 5);
  proto::Credit credit;
  credit.set_records(~std::uint64_t{0});
  credit.set_bytes(~std::uint64_t{0});
  for (int i = 0; i < 10; ++i) world.client.send(FrameType::credit, 5, credit);
  EXPECT_EQ(read_on(world.client).size(), 1u) << "endless credit does not overflow";
}

TEST(Subscribe, StreamsAreLimited) {
  SubscribeWorld world;
  for (std::uint64_t i = 1; i <= limits::kStreamsPerConnectionMax; ++i) {
    world.client.subscribe(i, "orders", at_start(), 0, 0);
    if (i % 1'000 == 0) world.settle();
  }
  world.settle(1s);
  world.client.subscribe(9'999, "orders", at_start(), 0, 0);
  Errc last{};
  while (auto frame = world.client.next(100ms)) {
    if (frame->header.type == FrameType::error) last = static_cast<Errc>(frame->as<proto::ErrorReply>().code());
  }
  EXPECT_EQ(last, Errc::too_many);
}

// A reader that does not read its socket must cost the outbox's bound, whatever its credit.
TEST(Subscribe, AReaderThatDoesNotReadCostsABoundedAmount) {
  SubscribeWorld world;
  auto topic = world.broker.topic("orders");
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(world.broker.produce(topic, 0, {std::string(500'000, 'x')}).has_value());
  world.client.subscribe(5, "orders", at_start(), 1'000'000, std::uint64_t{1} << 40);
  subscribed(world.client, 5);
  world.client.take_at_most(10'000);
  world.settle(1s);
  EXPECT_LE(world.client.bytes_waiting(), 1'100'000u);
  world.client.take_at_most(~std::size_t{0});
  EXPECT_GE(read_on(world.client).size(), 39u);
}

// Memory for replies is one pool for all readers: without it they wait, and go on by themselves when there is some.
TEST(Subscribe, WithoutMemoryForRepliesReadersWaitAndGoOn) {
  SubscribeWorld world;
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(world.broker.produce(world.broker.topic("orders"), 0, {std::string(100'000, 'x')}).has_value());
  flow::MemoryPool& pool = world.broker.shard().memory().pool(flow::Pool::replies);
  auto all = pool.try_reserve(pool.limit());
  ASSERT_TRUE(all.has_value());
  world.client.subscribe(5, "orders", at_start(), 1'000, 1 << 21);
  subscribed(world.client, 5);
  EXPECT_FALSE(world.client.next(10s).has_value());
  EXPECT_EQ(pool.waiting(), 1u);
  all->release();
  EXPECT_EQ(read_on(world.client).size(), 10u);
  world.settle();
  EXPECT_EQ(pool.used(), 0u) << "given back once it is sent";
}

// A reader that takes little at a time and reads it is not held up by those that hold the pool.
TEST(Subscribe, WithoutMemoryForRepliesSmallBatchesGoOn) {
  SubscribeWorld world{200};
  flow::MemoryPool& pool = world.broker.shard().memory().pool(flow::Pool::replies);
  auto all = pool.try_reserve(pool.limit());
  ASSERT_TRUE(all.has_value());
  world.client.subscribe(5, "orders", at_start(), 1'000, 1 << 20);
  subscribed(world.client, 5);
  EXPECT_EQ(read_on(world.client).size(), 200u);
}

// Whoever does not read holds memory; while others wait for it that is not allowed for long, and the others then go on.
TEST(Subscribe, AStalledReaderIsCutWhenOthersWaitForItsMemory) {
  SubscribeWorld world{0, {.broker = {.memory_bytes = 4 * limits::kMiB}}};  // replies: 1.6 MiB
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(world.broker.produce(world.broker.topic("orders"), 0, {std::string(500'000, 'x')}).has_value());
  std::vector<std::unique_ptr<Client>> stalled;
  for (int i = 0; i < 3; ++i) {
    stalled.push_back(std::make_unique<Client>(world, "10.0.2." + std::to_string(i) + ":1"));
    stalled.back()->greet();
    stalled.back()->take_at_most(1'000);
    stalled.back()->subscribe(5, "orders", at_start(), 1'000, 1 << 24);
  }
  world.settle(500ms);
  world.client.subscribe(5, "orders", at_start(), 1'000, 1 << 24);
  subscribed(world.client, 5);
  std::size_t records = 0;
  while (auto frame = world.client.next(10s)) {
    records += records_of(frame->payload).size();
    if (records == 10) break;
  }
  EXPECT_EQ(records, 10u);
  EXPECT_GE(world.front->counters().closed_stalled, 1u);
  EXPECT_FALSE(world.client.closed());
}

// What is subscribed costs memory while it is idle: it is bounded for a connection and paid for, until its last loop has ended.
TEST(Subscribe, SubscribedPartitionsAreLimitedAndPaidFor) {
  SubscribeWorld world{0, {.broker = {.memory_bytes = 128 * limits::kMiB}}};
  world.client.create("wide", 4'000);
  flow::MemoryPool& pool = world.broker.shard().memory().pool(flow::Pool::streams);
  std::vector<int> all(4'000);
  std::iota(all.begin(), all.end(), 0);
  for (std::uint64_t id : {1, 2}) {
    world.client.subscribe(id, "wide", at_start(), 0, 0, all);
    EXPECT_EQ(subscribed(world.client, id).partitions_size(), 4'000);
  }
  EXPECT_GE(pool.used(), 8'000 * kReaderBytes);
  world.client.subscribe(3, "wide", at_start(), 0, 0, all);
  EXPECT_EQ(world.client.expect_error(3), Errc::too_many);
  proto::UnsubscribeRequest unsubscribe;
  world.client.send(FrameType::unsubscribe, 1, unsubscribe);
  world.client.expect<proto::UnsubscribeReply>(FrameType::unsubscribe_reply, 1);
  world.client.subscribe(4, "wide", at_start(), 0, 0, all);
  EXPECT_EQ(subscribed(world.client, 4).partitions_size(), 4'000);
  auto rest = pool.try_reserve(pool.limit() - pool.used());
  ASSERT_TRUE(rest.has_value());
  Client other{world, "10.0.0.2:1"};
  other.greet();
  other.subscribe(1, "orders", at_start(), 0, 0);
  EXPECT_EQ(other.expect_error(1), Errc::too_many);
  rest->release();
  other.subscribe(2, "orders", at_start(), 0, 0);
  subscribed(other, 2);
  world.client.close_side();
  other.close_side();
  world.settle(1s);
  EXPECT_EQ(pool.used(), 0u);
}

// Those that do not read leave a part of the pool to those that do, however many they are, and before they are cut.
TEST(Subscribe, ReadersThatDoNotReadLeaveAShareOfTheMemory) {
  SubscribeWorld world{0, {.broker = {.memory_bytes = 40 * limits::kMiB}}};  // replies: 16 MiB
  for (int i = 0; i < 60; ++i) ASSERT_TRUE(world.broker.produce(world.broker.topic("orders"), 0, {std::string(200'000, 'x')}).has_value());
  flow::MemoryPool& pool = world.broker.shard().memory().pool(flow::Pool::replies);
  std::vector<std::unique_ptr<Client>> stalled;
  for (int i = 0; i < 30; ++i) {
    stalled.push_back(std::make_unique<Client>(world, "10.0.2." + std::to_string(i) + ":1"));
    stalled.back()->greet();
    stalled.back()->take_at_most(1'000);
    stalled.back()->subscribe(5, "orders", at_start(), 1'000, 1 << 24);
  }
  world.settle(1s);
  EXPECT_GT(pool.used(), pool.limit() / 2) << "they do hold what they can";
  EXPECT_EQ(pool.waiting(), 0u) << "nobody waits, so nobody is cut";
  world.client.subscribe(5, "orders", at_start(), 1'000, 1 << 24);
  subscribed(world.client, 5);
  EXPECT_EQ(read_on(world.client).size(), 60u);
  EXPECT_EQ(world.front->counters().closed_stalled, 0u);
}

// Memory that was waited for and is not needed any more goes to those who do: a connection that unsubscribed keeps none.
TEST(Subscribe, AGrantThatNobodyUsesIsGivenBack) {
  SubscribeWorld world;
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(world.broker.produce(world.broker.topic("orders"), 0, {std::string(100'000, 'x')}).has_value());
  flow::MemoryPool& pool = world.broker.shard().memory().pool(flow::Pool::replies);
  auto all = pool.try_reserve(pool.limit());
  ASSERT_TRUE(all.has_value());
  world.client.subscribe(5, "orders", at_start(), 1'000, 1 << 21);
  subscribed(world.client, 5);
  world.settle(1s);
  ASSERT_EQ(pool.waiting(), 1u);
  world.client.send(FrameType::unsubscribe, 5, proto::UnsubscribeRequest{});
  world.client.expect<proto::UnsubscribeReply>(FrameType::unsubscribe_reply, 5);
  EXPECT_EQ(pool.waiting(), 0u);
  all->release();
  world.settle(1s);
  EXPECT_EQ(pool.used(), 0u);
}

// A topic on several shards, clients on one: everything goes through the mailboxes.
TEST(Subscribe, PartitionsOfOtherShardsAreReadToo) {
  SubscribeWorld world{0, {.broker = {.shards = 3}}};
  for (int partition : {0, 1, 2}) world.add(20, partition);
  world.client.subscribe(5, "orders", at_start(), 1'000, 1 << 20, {0, 1, 2});
  subscribed(world.client, 5);
  EXPECT_EQ(read_on(world.client).size(), 60u);
  world.add(1, 1);
  EXPECT_EQ(read_on(world.client), std::vector<std::string>{"v20"});
}

// A connection that goes away in mid-fetch must end all it started.
TEST(Subscribe, ADeadConnectionLeavesNothingRunning) {
  SubscribeWorld world{10, {.broker = {.shards = 2}}};
  {
    Client other{world, "10.0.0.2:1"};
    other.greet();
    other.subscribe(5, "orders", at_start(), 100, 100'000, {0, 1, 2});
    subscribed(other, 5);
    (void)read_on(other);
    EXPECT_GT(world.broker.shard().status().waits_in_flight + world.broker.shard(1).status().waits_in_flight, 0u);
    other.close_side();
    other.expect_close();
  }
  EXPECT_EQ(world.front->connections(), 1u);
  EXPECT_EQ(world.broker.shard().status().waits_in_flight + world.broker.shard(1).status().waits_in_flight, 0u);
}

}  // namespace
}  // namespace tailrace::broker::native
