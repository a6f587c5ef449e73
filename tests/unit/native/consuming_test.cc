/// Groups and event streams on the wire: what a client in another language would do, and what it could get wrong.
#include "codec/batch_builder.h"
#include "tests/support/map_index.h"
#include "tests/unit/native/native_world.h"

namespace tailrace::broker::native {
namespace {

struct GroupWire : NativeWorld {
  GroupWire() : client{*this} {
    client.greet();
    client.create("orders", 4);
  }
  proto::JoinGroupRequest joining(std::string group = "g") {
    proto::JoinGroupRequest request;
    request.set_group(std::move(group));
    request.add_topics("orders");
    request.set_session_timeout_ms(10'000);
    return request;
  }
  template <class Request>
  Errc refused(FrameType type, const Request& request) {
    client.send(type, 77, request);
    return client.expect_error(77);
  }
  Client client;
};

TEST(GroupWire, AMemberJoinsWaitsCommitsAndLeaves) {
  GroupWire world;
  auto joined = world.client.call<proto::JoinGroupReply>(FrameType::join_group, world.joining());
  EXPECT_FALSE(joined.member().empty());
  ASSERT_EQ(joined.assignment_size(), 1);
  EXPECT_EQ(joined.assignment(0).partitions_size(), 4);
  proto::GroupHeartbeatRequest beat;
  beat.set_group("g");
  beat.set_member(joined.member());
  beat.set_generation(joined.generation());
  *beat.mutable_owned() = joined.assignment();
  beat.set_wait_ms(3'000);
  world.client.send(FrameType::group_heartbeat, 50, beat);
  EXPECT_FALSE(world.client.next(2s)) << "there is nothing new";
  proto::CommitOffsetsRequest commit;
  commit.set_group("g");
  commit.set_member(joined.member());
  commit.set_generation(joined.generation());
  auto& one = *commit.add_offsets();
  one.set_topic("orders");
  one.set_partition(2);
  one.set_offset(41);
  one.set_metadata("m");
  world.client.call<proto::CommitOffsetsReply>(FrameType::commit_offsets, commit);
  proto::StoredOffsetsRequest asked;
  asked.set_group("g");
  auto stored = world.client.call<proto::StoredOffsetsReply>(FrameType::stored_offsets, asked);
  ASSERT_EQ(stored.offsets_size(), 1);
  EXPECT_EQ(stored.offsets(0).offset(), 41);
  EXPECT_EQ(stored.offsets(0).metadata(), "m");
  EXPECT_EQ(stored.offsets(0).leader_epoch(), -1);
  // Another one joins: the heartbeat that waits hears of it.
  auto second = world.client.call<proto::JoinGroupReply>(FrameType::join_group, world.joining());
  EXPECT_EQ(second.assignment_size(), 0);
  auto told = world.client.expect<proto::GroupHeartbeatReply>(FrameType::group_heartbeat_reply, 50);
  ASSERT_EQ(told.assignment_size(), 1);
  EXPECT_EQ(told.assignment(0).partitions_size(), 2);
  proto::DescribeGroupRequest describe;
  describe.set_group("g");
  auto described = world.client.call<proto::DescribeGroupReply>(FrameType::describe_group, describe);
  EXPECT_EQ(described.state(), proto::GROUP_MOVING);
  EXPECT_EQ(described.members_size(), 2);
  EXPECT_EQ(described.partitions_size(), 4);
  proto::LeaveGroupRequest leave;
  leave.set_group("g");
  leave.set_member(joined.member());
  world.client.call<proto::LeaveGroupReply>(FrameType::leave_group, leave);
}

// A stop must not wait for heartbeats that have nothing to say.
TEST(GroupWire, ADrainAnswersHeartbeatsThatWait) {
  GroupWire world;
  auto joined = world.client.call<proto::JoinGroupReply>(FrameType::join_group, world.joining());
  proto::GroupHeartbeatRequest beat;
  beat.set_group("g");
  beat.set_member(joined.member());
  beat.set_generation(joined.generation());
  *beat.mutable_owned() = joined.assignment();
  beat.set_wait_ms(600'000);
  world.client.send(FrameType::group_heartbeat, 50, beat);
  EXPECT_FALSE(world.client.next(1s));
  Instant begun = world.loop().now();
  EXPECT_EQ(world.drain(), 0U) << "nobody had to be cut off";
  EXPECT_LT(world.loop().now() - begun, 2s);
}

TEST(GroupWire, WhatCannotBeIsRefusedAndTheConnectionGoesOn) {
  GroupWire world;
  auto joined = world.client.call<proto::JoinGroupReply>(FrameType::join_group, world.joining());
  proto::JoinGroupRequest nothing;
  EXPECT_EQ(world.refused(FrameType::join_group, nothing), Errc::invalid_argument);
  proto::JoinGroupRequest many = world.joining();
  for (int i = 0; i < 200; ++i) many.add_topics("orders");
  EXPECT_EQ(world.refused(FrameType::join_group, many), Errc::invalid_argument);
  proto::JoinGroupRequest absurd = world.joining("h");
  absurd.set_session_timeout_ms(0xffffffffU);
  EXPECT_EQ(world.refused(FrameType::join_group, absurd), Errc::invalid_argument);
  proto::GroupHeartbeatRequest beat;
  beat.set_group("g");
  beat.set_member("stranger");
  beat.set_generation(-5);
  beat.set_wait_ms(0xffffffffU);
  EXPECT_EQ(world.refused(FrameType::group_heartbeat, beat), Errc::unknown_member);
  beat.set_member(joined.member());
  beat.set_generation(std::int64_t{1} << 62);
  EXPECT_EQ(world.refused(FrameType::group_heartbeat, beat), Errc::invalid_argument);
  beat.set_generation(joined.generation());
  auto& owned = *beat.add_owned();
  owned.set_topic("orders");
  owned.add_partitions(-1);
  EXPECT_EQ(world.refused(FrameType::group_heartbeat, beat), Errc::invalid_argument);
  for (int i = 0; i < 60'000; ++i) owned.add_partitions(i);
  EXPECT_EQ(world.refused(FrameType::group_heartbeat, beat), Errc::too_many);
  proto::CommitOffsetsRequest commit;
  commit.set_group("g");
  commit.set_member(joined.member());
  commit.set_generation(joined.generation());
  auto& one = *commit.add_offsets();
  one.set_topic("orders");
  one.set_offset(-1);
  EXPECT_EQ(world.refused(FrameType::commit_offsets, commit), Errc::invalid_argument);
  one.set_offset(1);
  one.set_partition(-3);
  EXPECT_EQ(world.refused(FrameType::commit_offsets, commit), Errc::no_such_partition);
  one.set_partition(0);
  one.set_metadata(std::string(5'000, 'm'));
  EXPECT_EQ(world.refused(FrameType::commit_offsets, commit), Errc::too_large);
  proto::DeleteGroupRequest remove;
  remove.set_group("g");
  EXPECT_EQ(world.refused(FrameType::delete_group, remove), Errc::group_not_empty);
  remove.set_group("none");
  EXPECT_EQ(world.refused(FrameType::delete_group, remove), Errc::no_such_group);
  world.client.send(frame_of(FrameType::describe_group, 78, std::string_view{"\xff\xff\xff", 3}));
  EXPECT_EQ(world.client.expect_error(0), Errc::protocol) << "what is no message ends the connection";
}

// ---- streams ------------------------------------------------------------------------------------------------------------

class MapIndexes final : public service::StreamIndexes {
 public:
  std::unique_ptr<stream::StreamIndex> index(const PartitionId&) override { return std::make_unique<stream::MapIndex>(); }
  Task<void> close() override { co_return; }
};
NativeOptions with_streams() {
  NativeOptions options;
  options.broker.stream_indexes = [](io::Runtime&, ShardIndex) -> Task<Result<std::unique_ptr<service::StreamIndexes>>> { co_return std::make_unique<MapIndexes>(); };
  return options;
}

struct StreamWire : NativeWorld {
  StreamWire() : NativeWorld{with_streams()}, client{*this} {
    client.greet();
    client.create("carts", 1, {{"streams", "true"}});
    client.create("plain");
  }
  static std::string events(std::vector<std::pair<std::string, std::string>> key_and_id) {
    codec::BatchBuilder builder{{}};
    for (const auto& [key, id] : key_and_id) {
      std::vector<codec::HeaderView> headers;
      if (!id.empty()) headers.push_back({"tailrace-event-id", as_bytes(id)});
      headers.push_back({"tailrace-event-type", as_bytes(std::string_view{"made"})});
      EXPECT_TRUE(builder.add({.timestamp = 1, .key = as_bytes(key), .value = as_bytes(id), .headers = headers}));
    }
    auto batch = builder.finish();
    EXPECT_TRUE(batch);
    return std::string{as_text(batch->bytes())};
  }
  proto::AppendStreamRequest appending(std::string stream = "s") {
    proto::AppendStreamRequest request;
    request.set_topic("carts");
    request.set_stream(std::move(stream));
    request.set_any(true);
    return request;
  }
  Errc refused(const proto::AppendStreamRequest& request, std::string_view payload) {
    client.send(FrameType::append_stream, 88, request, payload);
    return client.expect_error(88);
  }
  Client client;
};

TEST(StreamWire, AppendsThatCannotBeStoreNothing) {
  StreamWire world;
  EXPECT_EQ(world.refused(world.appending(), ""), Errc::invalid_record) << "no batch";
  EXPECT_EQ(world.refused(world.appending(), "not a batch at all, but long enough to look like the header of one, or nearly so"), Errc::invalid_record);
  EXPECT_EQ(world.refused(world.appending(), StreamWire::events({{"s", "1"}, {"t", "2"}})), Errc::invalid_record) << "two keys";
  EXPECT_EQ(world.refused(world.appending(), StreamWire::events({{"s", "1"}, {"s", "1"}})), Errc::invalid_record) << "one id twice";
  EXPECT_EQ(world.refused(world.appending(), StreamWire::events({{"s", ""}})), Errc::invalid_record) << "no id";
  EXPECT_EQ(world.refused(world.appending("t"), StreamWire::events({{"s", "1"}})), Errc::invalid_record) << "another stream's";
  EXPECT_EQ(world.refused(world.appending("a\nb"), StreamWire::events({{"a\nb", "1"}})), Errc::invalid_argument);
  EXPECT_EQ(world.refused(world.appending(std::string(256, 's')), StreamWire::events({{std::string(256, 's'), "1"}})), Errc::invalid_argument);
  proto::AppendStreamRequest silent = world.appending();
  silent.clear_any();
  EXPECT_EQ(world.refused(silent, StreamWire::events({{"s", "1"}})), Errc::invalid_argument) << "it expects nothing";
  proto::AppendStreamRequest edge = world.appending();
  edge.set_exactly(INT64_MAX);
  EXPECT_EQ(world.refused(edge, StreamWire::events({{"s", "1"}})), Errc::invalid_argument);
  edge.set_exactly(-2);
  EXPECT_EQ(world.refused(edge, StreamWire::events({{"s", "1"}})), Errc::invalid_argument);
  proto::AppendStreamRequest elsewhere = world.appending();
  elsewhere.set_topic("plain");
  EXPECT_EQ(world.refused(elsewhere, StreamWire::events({{"s", "1"}})), Errc::not_a_stream_topic);
  elsewhere.set_topic("none");
  EXPECT_EQ(world.refused(elsewhere, StreamWire::events({{"s", "1"}})), Errc::no_such_topic);
  std::vector<std::pair<std::string, std::string>> many;
  for (int i = 0; i < 1'001; ++i) many.emplace_back("s", std::to_string(i));
  EXPECT_EQ(world.refused(world.appending(), StreamWire::events(many)), Errc::invalid_record) << "1,001 events";
  proto::DescribeStreamRequest describe;
  describe.set_topic("carts");
  describe.set_stream("s");
  world.client.send(FrameType::describe_stream, 89, describe);
  EXPECT_EQ(world.client.expect_error(89), Errc::no_such_stream);
}

TEST(StreamWire, AReadCarriesBatchesAndTheirVersions) {
  StreamWire world;
  world.client.send(FrameType::append_stream, 90, world.appending(), StreamWire::events({{"s", "a"}, {"s", "b"}}));
  auto first = world.client.expect<proto::AppendStreamReply>(FrameType::append_stream_reply, 90);
  EXPECT_EQ(first.first_version(), 0);
  EXPECT_EQ(first.last_version(), 1);
  proto::AppendStreamRequest next = world.appending();
  next.set_exactly(1);
  world.client.send(FrameType::append_stream, 91, next, StreamWire::events({{"s", "c"}}));
  EXPECT_EQ(world.client.expect<proto::AppendStreamReply>(FrameType::append_stream_reply, 91).last_version(), 2);
  proto::ReadStreamRequest read;
  read.set_topic("carts");
  read.set_stream("s");
  read.set_events_max(100);
  world.client.send(FrameType::read_stream, 92, read);
  std::string payload;
  auto reply = world.client.expect<proto::ReadStreamReply>(FrameType::read_stream_reply, 92, &payload);
  EXPECT_EQ(reply.head().last_version(), 2);
  EXPECT_TRUE(reply.end());
  ASSERT_EQ(reply.batches_size(), 2);
  EXPECT_EQ(reply.batches(1).first_version(), 2);
  EXPECT_EQ(reply.batches(0).bytes() + reply.batches(1).bytes(), payload.size());
  auto records = records_of(payload);
  ASSERT_EQ(records.size(), 3U);
  EXPECT_EQ(records[2].second, "c");
  read.set_from(4);
  world.client.send(FrameType::read_stream, 93, read);
  EXPECT_EQ(world.client.expect_error(93), Errc::invalid_argument) << "past the end";
  read.set_from(0);
  read.set_events_max(0xffffffffU);
  world.client.send(FrameType::read_stream, 94, read);
  EXPECT_EQ(world.client.expect_error(94), Errc::invalid_argument);
}

}  // namespace
}  // namespace tailrace::broker::native
