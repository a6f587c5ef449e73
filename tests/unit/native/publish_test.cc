/// Publish streams: order, windows, lying batches, preconditions.
#include "tests/unit/native/native_world.h"

namespace tailrace::broker::native {
namespace {

struct PublishWorld : NativeWorld {
  explicit PublishWorld(NativeOptions options = {}, int partitions = 1) : NativeWorld{options}, client{*this} {
    client.greet();
    client.create("orders", partitions);
  }
  Client client;
};

proto::PublishReply acknowledged(Client& client, std::uint64_t stream) { return client.expect<proto::PublishReply>(FrameType::publish_reply, stream); }

TEST(Publish, ABatchIsStoredAndAnsweredWithItsOffset) {
  PublishWorld world;
  auto opened = world.client.open(7, "orders");
  EXPECT_EQ(opened.topic().name(), "orders");
  EXPECT_EQ(opened.producer_id(), -1);
  EXPECT_GT(opened.window_bytes(), 0u);
  EXPECT_EQ(opened.durability(), proto::DURABILITY_QUORUM);
  world.client.publish(7, 1, batch({"a", "b"}));
  world.client.publish(7, 2, batch({"c"}));
  auto first = acknowledged(world.client, 7);
  EXPECT_EQ(first.ticket(), 1u);
  EXPECT_EQ(first.base_offset(), 0);
  auto second = acknowledged(world.client, 7);
  EXPECT_EQ(second.ticket(), 2u);
  EXPECT_EQ(second.base_offset(), 2);
  EXPECT_EQ(world.broker.read_all(world.broker.topic("orders"), 0), (std::vector<std::string>{"a", "b", "c"}));
}

// Replies in the order of publishes is what lets a client keep a simple queue, whatever refuses or is slow in between.
TEST(Publish, RepliesComeInTheOrderOfThePublishesRefusalsIncluded) {
  PublishWorld world{{.broker = {.shards = 2}}, 8};
  world.client.open(7, "orders");
  std::string corrupt = batch({"bad"});
  corrupt.back() = static_cast<char>(corrupt.back() ^ 1);
  for (std::uint64_t ticket = 0; ticket < 200; ++ticket) {
    if (ticket % 10 == 3) world.client.publish(7, ticket, corrupt);
    else if (ticket % 10 == 6) world.client.publish(7, ticket, batch({"x"}), 99);
    else world.client.publish(7, ticket, batch({"v" + std::to_string(ticket)}), static_cast<int>(ticket % 8));
  }
  for (std::uint64_t ticket = 0; ticket < 200; ++ticket) {
    auto frame = world.client.next();
    ASSERT_TRUE(frame.has_value()) << ticket;
    EXPECT_EQ(frame->header.id, 7u);
    if (ticket % 10 == 3 || ticket % 10 == 6) {
      auto error = frame->as<proto::ErrorReply>();
      EXPECT_EQ(error.ticket(), ticket);
      EXPECT_EQ(static_cast<Errc>(error.code()), ticket % 10 == 3 ? Errc::corrupt_message : Errc::no_such_partition);
    } else {
      ASSERT_EQ(frame->header.type, FrameType::publish_reply) << ticket << " " << frame->as<proto::ErrorReply>().message();
      EXPECT_EQ(frame->as<proto::PublishReply>().ticket(), ticket);
    }
  }
}

// Each lie alone must be enough, and nothing of a refused batch may be stored.
TEST(Publish, ALyingBatchIsRefusedWhole) {
  PublishWorld world;
  world.client.open(7, "orders");
  auto patched = [](std::size_t at, auto value, bool fix_crc) {
    std::string bytes = batch({"one", "two"});
    store_be(reinterpret_cast<std::byte*>(bytes.data()) + at, value);
    if (fix_crc) store_be(reinterpret_cast<std::byte*>(bytes.data()) + batch_layout::kCrc, batch_crc(as_bytes(bytes)));
    return bytes;
  };
  using namespace batch_layout;
  std::string good = batch({"one", "two"});
  std::vector<std::pair<std::string, std::string>> lies{
      {"empty", ""},
      {"one byte", "x"},
      {"cut", good.substr(0, good.size() - 1)},
      {"too long", good + "x"},
      {"two batches", good + good},
      {"length", patched(kLength, std::int32_t{49}, true)},
      {"negative length", patched(kLength, std::int32_t{-1}, true)},
      {"magic", patched(kMagic, std::int8_t{1}, true)},
      {"crc", patched(kCrc, std::uint32_t{0}, false)},
      {"control", patched(kAttributes, std::int16_t{0x20}, true)},
      {"transactional", patched(kAttributes, std::int16_t{0x10}, true)},
      {"gzip", patched(kAttributes, std::int16_t{1}, true)},
      {"codec 7", patched(kAttributes, std::int16_t{7}, true)},
      {"zstd that is none", patched(kAttributes, std::int16_t{4}, true)},
      {"count", patched(kRecordCount, std::int32_t{3}, true)},
      {"count of billions", patched(kRecordCount, std::int32_t{0x7fffffff}, true)},
      {"negative count", patched(kRecordCount, std::int32_t{-1}, true)},
      {"last delta", patched(kLastOffsetDelta, std::int32_t{5}, true)},
      {"negative delta", patched(kLastOffsetDelta, std::int32_t{-2}, true)},
      {"max timestamp", patched(kMaxTimestamp, std::int64_t{1}, true)},
      {"another producer", patched(kProducerId, std::int64_t{77}, true)},
      {"negative epoch", patched(kProducerEpoch, std::int16_t{-7}, true)},
  };
  std::uint64_t ticket = 0;
  for (const auto& [what, bytes] : lies) {
    world.client.publish(7, ++ticket, bytes);
    auto frame = world.client.next();
    ASSERT_TRUE(frame.has_value()) << what;
    ASSERT_EQ(frame->header.type, FrameType::error) << what;
    auto error = frame->as<proto::ErrorReply>();
    EXPECT_EQ(error.ticket(), ticket) << what;
    auto code = static_cast<Errc>(error.code());
    EXPECT_TRUE(code == Errc::invalid_record || code == Errc::corrupt_message || code == Errc::unsupported_compression) << what << ": " << error.message();
    EXPECT_FALSE(error.maybe_applied()) << what;
  }
  EXPECT_TRUE(world.broker.read_all(world.broker.topic("orders"), 0).empty());
  world.client.publish(7, 1'000, good);
  EXPECT_EQ(acknowledged(world.client, 7).base_offset(), 0) << "the stream goes on";
}

// Larger than the topic allows is refused by the header, whatever the size; its bytes are dropped as they come.
TEST(Publish, ATooLargeBatchIsRefusedAndTheStreamGoesOn) {
  PublishWorld world;
  world.client.create("small", 1, {{"message_bytes_max", "64KiB"}});
  world.client.open(7, "small");
  world.client.open(8, "orders");
  std::string large = batch({std::string(3'000'000, 'x')});
  world.client.publish(7, 1, large);
  world.client.publish(8, 2, large);
  world.client.publish(7, 3, batch({std::string(70'000, 'x')}));
  world.client.publish(7, 4, batch({std::string(60'000, 'x')}));
  world.client.publish(8, 5, batch({std::string(1'000'000, 'x')}));
  for (std::uint64_t ticket : {1, 2, 3}) {
    auto error = world.client.expect<proto::ErrorReply>(FrameType::error);
    EXPECT_EQ(error.ticket(), ticket);
    EXPECT_EQ(static_cast<Errc>(error.code()), Errc::too_large);
    ASSERT_EQ(error.facts_size(), 1);
    EXPECT_EQ(error.facts(0).name(), "message_bytes_max");
  }
  EXPECT_EQ(acknowledged(world.client, 7).ticket(), 4u);
  EXPECT_EQ(acknowledged(world.client, 8).ticket(), 5u);
}

// Received once, stored as received: a batch that fills many reads comes out byte for byte.
TEST(Publish, LargeBatchesSurviveEveryCut) {
  for (std::size_t cut : {std::size_t{1'000}, std::size_t{4'097}, std::size_t{100'000}}) {
    PublishWorld world;
    world.client.cut_reads_to(cut);
    world.client.open(7, "orders");
    std::vector<std::string> values;
    for (std::uint64_t i = 0; i < 6; ++i) {
      values.push_back(std::string(i % 2 ? 300'000 : 500, static_cast<char>('a' + i)));
      world.client.publish(7, i, batch({values.back()}));
    }
    for (std::uint64_t i = 0; i < 6; ++i) EXPECT_EQ(acknowledged(world.client, 7).ticket(), i);
    EXPECT_EQ(world.broker.read_all(world.broker.topic("orders"), 0), values);
  }
}

TEST(Publish, TheExpectedEndOffsetIsAPrecondition) {
  PublishWorld world;
  world.client.open(7, "orders");
  auto publish_at = [&](std::uint64_t ticket, std::int64_t end) {
    proto::Publish request;
    request.set_ticket(ticket);
    request.set_expected_end_offset(end);
    world.client.send(FrameType::publish, 7, request, batch({"v"}));
  };
  publish_at(1, 0);
  EXPECT_EQ(acknowledged(world.client, 7).base_offset(), 0);
  publish_at(2, 0);
  auto error = world.client.expect<proto::ErrorReply>(FrameType::error, 7);
  EXPECT_EQ(static_cast<Errc>(error.code()), Errc::wrong_version);
  ASSERT_EQ(error.facts_size(), 1);
  EXPECT_EQ(error.facts(0).name(), "actual_end_offset");
  EXPECT_EQ(error.facts(0).value(), "1");
  proto::Publish reserved;
  reserved.set_ticket(3);
  reserved.set_expected_for_key("k");
  world.client.send(FrameType::publish, 7, reserved, batch({"v"}));
  EXPECT_EQ(world.client.expect_error(7), Errc::unsupported);
}

// A resend after a lost connection must not store twice.
TEST(Publish, AResentBatchIsAnsweredWithItsFirstOffset) {
  PublishWorld world;
  auto opened = world.client.open(7, "orders", true);
  ASSERT_GE(opened.producer_id(), 0);
  codec::ProducerStamp stamp{ProducerId{opened.producer_id()}, ProducerEpoch{static_cast<std::int16_t>(opened.producer_epoch())}, 0};
  world.client.publish(7, 1, batch({"a"}, stamp));
  EXPECT_EQ(acknowledged(world.client, 7).base_offset(), 0);
  Client again{world};
  again.greet();
  proto::OpenProducerRequest request;
  request.set_topic("orders");
  request.set_producer_id(opened.producer_id());
  request.set_producer_epoch(opened.producer_epoch());
  again.send(FrameType::open_producer, 3, request);
  EXPECT_EQ(again.expect<proto::OpenProducerReply>(FrameType::open_producer_reply, 3).producer_id(), opened.producer_id());
  again.publish(3, 1, batch({"a"}, stamp));
  auto duplicate = acknowledged(again, 3);
  EXPECT_TRUE(duplicate.duplicate());
  EXPECT_EQ(duplicate.base_offset(), 0);
  stamp.base_sequence = 5;
  again.publish(3, 2, batch({"gap"}, stamp));
  EXPECT_EQ(again.expect_error(3), Errc::out_of_order_sequence);
  EXPECT_EQ(world.broker.read_all(world.broker.topic("orders"), 0), std::vector<std::string>{"a"});
}

TEST(Publish, AStreamMustBeOpenAndItsIdFree) {
  PublishWorld world;
  world.client.publish(7, 1, batch({"a"}));
  auto error = world.client.expect<proto::ErrorReply>(FrameType::error, 7);
  EXPECT_EQ(static_cast<Errc>(error.code()), Errc::closed);
  EXPECT_EQ(error.ticket(), 1u);
  world.client.open(7, "orders");
  proto::OpenProducerRequest request;
  request.set_topic("orders");
  world.client.send(FrameType::open_producer, 7, request);
  EXPECT_EQ(world.client.expect_error(7), Errc::invalid_argument);
  world.client.send(FrameType::open_producer, 0, request);
  EXPECT_EQ(world.client.expect_error(0), Errc::invalid_argument);
  EXPECT_FALSE(world.client.closed());
  request.set_topic("nowhere");
  world.client.send(FrameType::open_producer, 8, request);
  EXPECT_EQ(world.client.expect_error(8), Errc::no_such_topic);
  world.client.publish(7, 2, batch({"last"}));
  world.client.send(FrameType::close_producer, 7, proto::CloseProducerRequest{});
  world.client.expect<proto::CloseProducerReply>(FrameType::close_producer_reply, 7);
  EXPECT_EQ(acknowledged(world.client, 7).ticket(), 2u) << "what was under way is still answered";
  world.client.publish(7, 3, batch({"late"}));
  EXPECT_EQ(world.client.expect_error(7), Errc::closed);
}

TEST(Publish, ADeletedTopicRefusesFurtherPublishes) {
  PublishWorld world;
  world.client.open(7, "orders");
  proto::DeleteTopicRequest request;
  request.set_name("orders");
  world.client.call<proto::DeleteTopicReply>(FrameType::delete_topic, request);
  world.client.publish(7, 1, batch({"a"}));
  EXPECT_EQ(world.client.expect_error(7), Errc::no_such_topic);
  world.client.create("orders");
  world.client.publish(7, 2, batch({"a"}));
  EXPECT_EQ(world.client.expect_error(7), Errc::no_such_topic) << "a new topic of the name is another topic";
}

// A client that closes its side, or says goodbye, still gets the answers it waits for.
TEST(Publish, AnswersUnderWayAreSentBeforeTheConnectionEnds) {
  for (bool goodbye : {true, false}) {
    PublishWorld world;
    world.client.open(7, "orders");
    for (std::uint64_t i = 0; i < 100; ++i) world.client.publish(7, i, batch({"v"}));
    if (goodbye) world.client.send(FrameType::goodbye, 0, proto::Goodbye{});
    else world.client.close_side();
    for (std::uint64_t i = 0; i < 100; ++i) EXPECT_EQ(acknowledged(world.client, 7).ticket(), i);
    world.client.expect_close();
  }
}

// The broker's stop: what was sent is answered, what comes later is refused as not applied, and nobody is left hanging.
TEST(Publish, ADrainAnswersWhatIsUnderWayAndRefusesTheRest) {
  PublishWorld world;
  world.client.open(7, "orders");
  world.client.publish(7, 1, batch({"v"}));
  world.settle(10us);  // received, not yet durable
  TaskScope scope;
  auto drain = [&]() -> Task<void> { (void)co_await world.front->drain(world.loop().now() + 5s); };
  scope.spawn(drain());
  world.client.publish(7, 2, batch({"late"}));
  bool said_goodbye = false, answered = false, refused = false;
  while (auto frame = world.client.next()) {
    if (frame->header.type == FrameType::goodbye) said_goodbye = true;
    if (frame->header.type == FrameType::publish_reply) answered = frame->as<proto::PublishReply>().ticket() == 1;
    if (frame->header.type == FrameType::error) refused = frame->as<proto::ErrorReply>().code() == static_cast<unsigned>(Errc::shutting_down);
  }
  EXPECT_TRUE(said_goodbye);
  EXPECT_TRUE(answered);
  EXPECT_TRUE(refused);
  EXPECT_TRUE(world.client.closed());
  world.settle(5s);
  EXPECT_EQ(scope.running(), 0u);
  EXPECT_EQ(world.front->connections(), 0u);
}

// Memory for requests is one pool: when it is used up sockets are not read, and when answers leave they are again.
TEST(Publish, MoreThanTheMemoryIsBackpressureNotGrowth) {
  PublishWorld world{{.broker = {.wal_file_bytes = 16 * limits::kMiB, .pending_bytes_max = 64 * limits::kMiB}}};
  std::vector<std::unique_ptr<Client>> clients;
  std::string payload = batch({std::string(900'000, 'x')});
  for (int i = 0; i < 20; ++i) {
    clients.push_back(std::make_unique<Client>(world, "10.0.1." + std::to_string(i) + ":1"));
    clients.back()->greet();
    clients.back()->open(7, "orders");
  }
  for (auto& client : clients) client->publish(7, 1, payload);
  const auto& pool = world.broker.shard().memory().pool(flow::Pool::requests);
  for (auto& client : clients) EXPECT_EQ(acknowledged(*client, 7).ticket(), 1u);
  EXPECT_LE(pool.used_max(), pool.limit());
  EXPECT_EQ(pool.used(), 0u);
  EXPECT_GT(world.front->counters().reader_pauses, 0u);
}

// A refused publish keeps its place behind one that waits for the disk: places are bounded like calls, whatever refuses them.
TEST(Publish, RefusalsBehindAStuckPublishAreBounded) {
  PublishWorld world;
  world.client.open(7, "orders");
  world.broker.disk().inject({.op = sim::DiskOp::write_durable, .sticky = true, .effect = sim::Fault::Effect::stall, .stall = 20s});
  world.client.publish(7, 0, batch({"stuck"}));
  world.settle();
  std::string bad = batch({"bad"});
  bad.back() = static_cast<char>(bad.back() ^ 1);
  constexpr std::size_t kSent = 3 * limits::kCallsInFlightPerConnectionMax;
  for (std::uint64_t ticket = 1; ticket < kSent; ++ticket) world.client.publish(7, ticket, bad);
  world.settle(1s);
  EXPECT_GT(world.client.unread_by_broker(), bad.size() * limits::kCallsInFlightPerConnectionMax) << "the socket is left unread at the bound";
  world.settle(60s);
  acknowledged(world.client, 7);
  for (std::uint64_t ticket = 1; ticket < kSent; ++ticket) ASSERT_EQ(world.client.expect_error(7), Errc::corrupt_message) << ticket;
}

// A connection that dies while it waits for memory must leave the queue.
TEST(Publish, DyingInTheMemoryQueueLeavesNothingBehind) {
  PublishWorld world;
  flow::MemoryPool& pool = world.broker.shard().memory().pool(flow::Pool::requests);
  auto all = pool.try_reserve(pool.limit());
  ASSERT_TRUE(all.has_value());
  Client waiting{world, "10.0.0.9:1"};
  waiting.greet();
  waiting.open(7, "orders");
  waiting.publish(7, 1, batch({std::string(100'000, 'x')}));
  world.settle();
  EXPECT_EQ(pool.waiting(), 1u);
  world.drain(1s);
  EXPECT_TRUE(waiting.closed());
  EXPECT_EQ(pool.waiting(), 0u);
}

}  // namespace
}  // namespace tailrace::broker::native
