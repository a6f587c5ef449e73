/// What a connection does before its hello, and with a peer that breaks the rules.
#include "tests/unit/native/native_world.h"

namespace tailrace::broker::native {
namespace {

proto::Hello hello(std::uint32_t major = proto::kProtocolMajor) {
  proto::Hello out;
  out.set_major(major);
  out.set_client_id("test");
  return out;
}

TEST(Greeting, AHelloIsAnsweredWithIdentityAndLimits) {
  NativeWorld world;
  Client client{world};
  client.send(FrameType::hello, 9, hello());
  auto reply = client.expect<proto::HelloReply>(FrameType::hello_reply, 9);
  EXPECT_EQ(reply.cluster_id(), "test");
  EXPECT_EQ(reply.node_id(), 1);
  EXPECT_EQ(reply.frame_bytes_max(), limits::kFrameBytesMax);
  EXPECT_EQ(reply.idle_timeout_ms(), 300'000u);
}

// A client may send its first requests together with the hello: one round trip less.
TEST(Greeting, RequestsMayFollowTheHelloAtOnce) {
  NativeWorld world;
  Client client{world};
  client.send(frame_of(FrameType::hello, 0, hello()) + frame_of(FrameType::metadata, 5, proto::MetadataRequest{}));
  client.expect<proto::HelloReply>(FrameType::hello_reply, 0);
  client.expect<proto::MetadataReply>(FrameType::metadata_reply, 5);
}

TEST(Greeting, AnotherMajorVersionIsRefusedWithItsReason) {
  NativeWorld world;
  Client client{world};
  client.send(FrameType::hello, 9, hello(2));
  EXPECT_EQ(client.expect_error(0), Errc::unsupported_version);
  client.expect_close();
}

TEST(Greeting, AnythingElseFirstIsRefused) {
  for (FrameType type : {FrameType::ping, FrameType::metadata, FrameType::publish, FrameType::hello_reply, static_cast<FrameType>(0x8001), static_cast<FrameType>(0)}) {
    NativeWorld world;
    Client client{world};
    client.send(frame_of(type, 1, ""));
    EXPECT_EQ(client.expect_error(0), Errc::protocol);
    client.expect_close();
  }
}

TEST(Greeting, ASecondHelloEndsTheConnection) {
  NativeWorld world;
  Client client{world};
  client.greet();
  client.send(FrameType::hello, 9, hello());
  EXPECT_EQ(client.expect_error(0), Errc::protocol);
  client.expect_close();
}

TEST(Greeting, AHelloThatIsNoMessageIsRefused) {
  NativeWorld world;
  Client client{world};
  client.send(frame_of(FrameType::hello, 1, "\xff\xff\xff\xff\xff"));
  EXPECT_EQ(client.expect_error(0), Errc::protocol);
  client.expect_close();
}

// Silence must not hold a connection: 10 s for the hello, whatever part of it has come.
TEST(Greeting, ASlowHelloIsCutOff) {
  std::string whole = frame_of(FrameType::hello, 1, hello());
  for (std::size_t sent : {std::size_t{0}, std::size_t{3}, std::size_t{19}, whole.size() - 1}) {
    NativeWorld world;
    Client client{world};
    client.send(whole.substr(0, sent));
    world.settle(9s);
    EXPECT_FALSE(client.closed()) << sent;
    world.settle(2s);
    EXPECT_TRUE(client.closed()) << sent;
    EXPECT_EQ(world.front->counters().closed_hello, 1u);
  }
}

// One byte a second is the oldest way to hold a server's connections.
TEST(Greeting, OneByteASecondDoesNotHoldAConnection) {
  NativeWorld world;
  Client client{world};
  std::string whole = frame_of(FrameType::hello, 1, hello());
  for (std::size_t i = 0; i < whole.size() && !client.closed(); ++i) {
    client.send(whole.substr(i, 1));
    world.settle(1s);
  }
  EXPECT_TRUE(client.closed());
}

TEST(Greeting, ATruncatedHelloAtEveryByteIsClosedQuietly) {
  std::string whole = frame_of(FrameType::hello, 1, hello());
  NativeWorld world;
  for (std::size_t size = 0; size < whole.size(); ++size) {
    Client client{world};
    client.send(whole.substr(0, size));
    client.close_side();
    client.expect_close();
    EXPECT_EQ(client.bytes_waiting(), 0u);
  }
  EXPECT_EQ(world.front->connections(), 0u);
}

// HTTP, TLS, SSH and nonsense on the port: closed without an answer, and counted.
TEST(Greeting, StrangersAreClosedAndCounted) {
  NativeWorld world;
  int strangers = 0;
  for (std::string_view bytes : {std::string_view{"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"}, std::string_view{"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 9},
                                 std::string_view{"SSH-2.0-OpenSSH_9\r\n"}, std::string_view{"\0\0\0\0\0\0\0\0", 8}, std::string_view{"\xff\xff\xff\xff", 4}}) {
    Client client{world};
    client.send(std::string{bytes});
    client.expect_close(1s);
    EXPECT_EQ(client.bytes_waiting(), 0u);
    EXPECT_EQ(world.front->counters().connections_garbage, static_cast<std::uint64_t>(++strangers));
  }
}

TEST(BadInput, FramesThatContradictThemselvesEndTheConnectionWithAReason) {
  std::string good = frame_of(FrameType::metadata, 1, "abcd", "payload");
  struct Case {
    std::size_t at;
    std::uint32_t value;
  };
  for (Case bad : {Case{0, 0}, Case{0, 15}, Case{0, 0xffffffff}, Case{0, 0x7fffffff}, Case{0, static_cast<std::uint32_t>(limits::kFrameBytesMax)},
                   Case{16, 12}, Case{16, 0xffffffff}, Case{16, 0x80000000}}) {
    NativeWorld world;
    Client client{world};
    client.greet();
    std::string frame = good;
    store_le(reinterpret_cast<std::byte*>(frame.data()) + bad.at, bad.value);
    client.send(frame);
    EXPECT_EQ(client.expect_error(0), Errc::protocol) << bad.at << " " << bad.value;
    client.expect_close();
  }
}

TEST(BadInput, AControlPartThatIsNoMessageEndsTheConnection) {
  for (FrameType type : {FrameType::ping, FrameType::metadata, FrameType::create_topic, FrameType::alter_topic, FrameType::describe_topic,
                         FrameType::delete_topic, FrameType::delete_records, FrameType::list_offsets, FrameType::skip_damage, FrameType::open_producer, FrameType::publish,
                         FrameType::close_producer, FrameType::subscribe, FrameType::credit, FrameType::seek, FrameType::unsubscribe}) {
    NativeWorld world;
    Client client{world};
    client.greet();
    client.send(frame_of(type, 1, "\x0a\xff\xff\xff\xff\x0f"));  // a string of 4 GiB
    EXPECT_EQ(client.expect_error(0), Errc::protocol) << static_cast<int>(type);
    client.expect_close();
  }
}

TEST(BadInput, UnknownTypesAreRefusedBelow0x8000AndIgnoredAbove) {
  NativeWorld world;
  Client client{world};
  client.greet();
  for (std::uint16_t type : {std::uint16_t{0}, std::uint16_t{999}, std::uint16_t{0x7fff}, static_cast<std::uint16_t>(FrameType::records),
                             static_cast<std::uint16_t>(FrameType::publish_reply), static_cast<std::uint16_t>(FrameType::hello_reply)}) {
    client.send(frame_of(static_cast<FrameType>(type), 77, "whatever", "payload"));
    EXPECT_EQ(client.expect_error(77), Errc::unsupported) << type;
  }
  client.send(frame_of(static_cast<FrameType>(0x8000), 1, "a", "b"));
  client.send(frame_of(static_cast<FrameType>(0xffff), 1, "", std::string(100'000, 'x')));
  client.send(frame_of(FrameType::pong, 1, ""));
  client.send(frame_of(FrameType::error, 1, ""));
  proto::Ping ping;
  ping.set_token(5);
  EXPECT_EQ(client.call<proto::Pong>(FrameType::ping, ping).token(), 5u);
}

// 30 s for one frame, or a half-sent frame holds its memory for good.
TEST(BadInput, AFrameThatDoesNotCompleteIsCutOff) {
  for (std::size_t sent : {std::size_t{1}, std::size_t{19}, std::size_t{30}, std::size_t{50'000}}) {
    NativeWorld world;
    Client client{world};
    client.greet();
    client.create("orders");
    client.open(7, "orders");
    client.send(frame_of(FrameType::publish, 7, "", std::string(200'000, 'x')).substr(0, sent));
    world.settle(29s);
    EXPECT_FALSE(client.closed()) << sent;
    EXPECT_EQ(client.expect_error(0), Errc::timeout) << sent;
    client.expect_close();
    EXPECT_EQ(world.front->counters().closed_frame, 1u);
    EXPECT_EQ(world.broker.shard().memory().used(), 0u) << "what was reserved for the frame is given back";
  }
}

// Slow loris: half-read frames hold at most half of the memory for requests, so whole ones pass; and while others wait to send, who
// does not go on sending is cut long before the 30 s.
TEST(BadInput, HalfReadFramesDoNotKeepOthersFromPublishing) {
  NativeWorld world{{.broker = {.memory_bytes = 4 * limits::kMiB}}};  // requests: 2 MiB, of them half-read: 1 MiB
  std::vector<std::unique_ptr<Client>> slow;
  std::string half = frame_of(FrameType::publish, 7, "", std::string(400'000, 'x')).substr(0, 50'000);
  for (int i = 0; i < 8; ++i) {
    slow.push_back(std::make_unique<Client>(world, "10.0.1." + std::to_string(i) + ":1"));
    slow.back()->greet();
    if (i == 0) slow.back()->create("orders");
    slow.back()->open(7, "orders");
    slow.back()->send(half);
  }
  world.settle(100ms);
  Client neighbour{world, "10.0.0.9:1"};
  neighbour.greet();
  neighbour.open(7, "orders");
  neighbour.publish(7, 1, batch({std::string(10'000, 'n')}));
  EXPECT_EQ(neighbour.expect<proto::PublishReply>(FrameType::publish_reply, 7).ticket(), 1u) << "a whole frame needs nothing of theirs";
  neighbour.publish(7, 2, batch({std::string(300'000, 'n')}));
  world.settle(20s);
  EXPECT_EQ(neighbour.expect<proto::PublishReply>(FrameType::publish_reply, 7).ticket(), 2u) << "a large one waits for the first to be cut";
  EXPECT_GE(world.front->counters().closed_stalled, 1u);
  EXPECT_EQ(world.front->counters().closed_frame, 0u);
}

// Answers that grow with a topic wait for memory before they are made: asking for a thousand costs no more than a few.
TEST(BadInput, LargeAnswersThatNobodyReadsAreBounded) {
  NativeWorld world{{.broker = {.memory_bytes = 4 * limits::kMiB}}};  // replies: 1.6 MiB
  Client asking{world}, other{world, "10.0.0.2:1"};
  asking.greet();
  asking.create("wide", 500);
  asking.take_at_most(0);
  proto::DescribeTopicRequest describe;
  describe.set_name("wide");
  std::string many;
  for (std::uint64_t i = 1; i <= 1'000; ++i) many += frame_of(FrameType::describe_topic, i, describe);
  asking.send(std::move(many));
  world.settle(1s);
  const auto& pool = world.broker.shard().memory().pool(flow::Pool::replies);
  EXPECT_GT(pool.used(), 0u);
  EXPECT_GT(asking.unread_by_broker(), 0u) << "requests beyond a few stay in the client's socket";
  other.greet();
  other.send(FrameType::describe_topic, 5, describe);
  auto answer = other.next(20s);  // behind the first, who is cut for it
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->as<proto::DescribeTopicReply>().partitions_size(), 500);
  EXPECT_TRUE(asking.closed());
  world.settle();
  EXPECT_EQ(pool.used(), 0u);
  EXPECT_LE(pool.used_max(), pool.limit());
}

TEST(BadInput, SilenceIsClosedAndPingsKeepAlive) {
  NativeWorld world{{.idle_timeout = 60s}};
  Client silent{world}, polite{world, "10.0.0.2:1"};
  silent.greet();
  polite.greet();
  for (int i = 0; i < 6; ++i) {
    world.settle(20s);
    if (i < 2) EXPECT_FALSE(silent.closed());
    proto::Ping ping;
    EXPECT_EQ(polite.call<proto::Pong>(FrameType::ping, ping).token(), 0u);
  }
  EXPECT_EQ(silent.expect_error(0), Errc::timeout);
  silent.expect_close();
  EXPECT_FALSE(polite.closed());
  EXPECT_EQ(world.front->counters().closed_idle, 1u);
}

TEST(BadInput, ConnectionsAreLimitedInAllAndPerAddress) {
  NativeWorld world{{.connections_max = 4, .connections_per_address_max = 2}};
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 3; ++i) clients.push_back(std::make_unique<Client>(world, "10.0.0.1:" + std::to_string(i)));
  EXPECT_FALSE(clients[1]->closed());
  EXPECT_TRUE(clients[2]->closed()) << "the third of one address";
  for (int i = 0; i < 3; ++i) clients.push_back(std::make_unique<Client>(world, "10.0.0." + std::to_string(i + 2) + ":1"));
  EXPECT_FALSE(clients[4]->closed());
  EXPECT_TRUE(clients[5]->closed()) << "the fifth of all";
  clients[0]->close_side();
  clients[0]->expect_close();
  Client again{world, "10.0.0.1:9"};
  EXPECT_FALSE(again.closed()) << "a place that is given back can be taken";
}

// A peer that sends requests and never reads must cost no more than the outbox's bound.
TEST(BadInput, AClientThatDoesNotReadIsNotReadEither) {
  NativeWorld world{{.idle_timeout = 60s}};
  Client client{world};
  client.greet();
  for (int i = 0; i < 50; ++i) client.create("a-topic-with-a-rather-long-name-to-make-replies-long-" + std::to_string(i), 20);
  client.take_at_most(0);
  std::string many;
  for (std::uint64_t i = 0; i < 20'000; ++i) many += frame_of(FrameType::metadata, i, proto::MetadataRequest{});
  client.send(std::move(many));
  world.settle(5s);
  EXPECT_GT(client.unread_by_broker(), 0u) << "the rest stays in the client's socket";
  EXPECT_GE(world.front->counters().reader_pauses, 1u);
  EXPECT_FALSE(client.closed());
  world.settle(70s);
  EXPECT_TRUE(client.closed()) << "no progress for the idle timeout";
}

// An answer that is too large must be refused before it is made: a name costs a few bytes, the topic behind it megabytes.
TEST(Calls, ATopicNamedAgainAndAgainIsAnsweredOnce) {
  NativeWorld world;
  Client client{world};
  client.greet();
  client.create("wide", 2'000);
  proto::MetadataRequest request;
  for (int i = 0; i < 9'000; ++i) request.add_topics("wide");
  request.add_topics("nowhere");
  request.add_topics("nowhere");
  auto reply = client.call<proto::MetadataReply>(FrameType::metadata, request);
  ASSERT_EQ(reply.topics_size(), 1);
  EXPECT_EQ(reply.topics(0).partitions_size(), 2'000);
  EXPECT_EQ(reply.missing_size(), 1);
}

// Calls of all kinds, so that nothing that the service says is lost on the way.
TEST(Calls, TopicsAreCreatedListedAlteredDescribedAndDeleted) {
  NativeWorld world;
  Client client{world};
  client.greet();
  client.create("orders", 2, {{"retention_time", "7d"}});
  proto::MetadataRequest named;
  named.add_topics("orders");
  named.add_topics("nowhere");
  auto metadata = client.call<proto::MetadataReply>(FrameType::metadata, named);
  ASSERT_EQ(metadata.topics_size(), 1);
  EXPECT_EQ(metadata.topics(0).partitions_size(), 2);
  EXPECT_EQ(metadata.topics(0).id().size(), 16u);
  ASSERT_EQ(metadata.missing_size(), 1);
  EXPECT_EQ(metadata.missing(0), "nowhere");
  EXPECT_EQ(client.call<proto::MetadataReply>(FrameType::metadata, proto::MetadataRequest{}).topics_size(), 1) << "internal topics are not shown";
  proto::AlterTopicRequest alter;
  alter.set_name("orders");
  alter.set_partitions(5);
  alter.add_unset("retention_time");
  EXPECT_EQ(client.call<proto::AlterTopicReply>(FrameType::alter_topic, alter).topic().partitions_size(), 5);
  proto::DescribeTopicRequest describe_request;
  describe_request.set_name("orders");
  auto description = client.call<proto::DescribeTopicReply>(FrameType::describe_topic, describe_request);
  EXPECT_EQ(description.partitions_size(), 5);
  EXPECT_GT(description.config_size(), 5);
  for (const auto& value : description.config()) EXPECT_TRUE(value.is_default()) << value.key();
  proto::DeleteTopicRequest remove;
  remove.set_name("orders");
  client.call<proto::DeleteTopicReply>(FrameType::delete_topic, remove);
  client.send(FrameType::describe_topic, 5, describe_request);
  EXPECT_EQ(client.expect_error(5), Errc::no_such_topic);
  proto::CreateTopicRequest bad;
  bad.set_name("../etc/passwd");
  bad.set_partitions(1);
  client.send(FrameType::create_topic, 6, bad);
  EXPECT_EQ(client.expect_error(6), Errc::invalid_topic_name);
  bad.set_name("fine");
  auto& entry = *bad.add_config();
  entry.set_key("retention_tim");
  entry.set_value("7d");
  client.send(FrameType::create_topic, 7, bad);
  EXPECT_EQ(client.expect_error(7), Errc::unknown_key);
}

// A deadline is the client's: it hears in time, and is not told twice.
TEST(Calls, ADeadlineThatPassesIsAnsweredOnce) {
  NativeWorld world;
  Client client{world};
  client.greet();
  proto::CreateTopicRequest create;
  create.set_name("orders");
  create.set_partitions(1'000);
  create.mutable_call()->set_deadline_ms(1);
  client.send(FrameType::create_topic, 5, create);
  auto first = client.next();
  ASSERT_TRUE(first.has_value());
  if (first->header.type == FrameType::error) {
    EXPECT_EQ(static_cast<Errc>(first->as<proto::ErrorReply>().code()), Errc::outcome_unknown);
    EXPECT_TRUE(first->as<proto::ErrorReply>().maybe_applied());
  }
  EXPECT_EQ(static_cast<int>(first->header.type), static_cast<int>(FrameType::error)) << "a thousand partitions in 1 ms";
  EXPECT_FALSE(client.next(60s).has_value());
}

}  // namespace
}  // namespace tailrace::broker::native
