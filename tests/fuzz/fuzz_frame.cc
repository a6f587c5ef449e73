/// Frames of the native protocol: the fixed header, then the protobuf message its type names. A frame that parses is
/// written again and must parse to the same bytes.
#include <google/protobuf/io/coded_stream.h>

#include <cstring>
#include <memory>

#include "proto/native/frame.h"
#include "proto/native/native.pb.h"
#include "tests/fuzz/fuzz.h"

namespace tailrace::fuzz {
namespace {

using namespace proto;

constexpr int kDepthMax = 32;

template <class Message>
void parse(broker::Bytes control) {
  auto read = [](std::string_view bytes, Message& message) {
    google::protobuf::io::CodedInputStream in(reinterpret_cast<const std::uint8_t*>(bytes.data()), static_cast<int>(bytes.size()));
    in.SetRecursionLimit(kDepthMax);
    return message.ParseFromCodedStream(&in) && in.ConsumedEntireMessage();
  };
  Message message;
  if (!read(broker::as_text(control), message)) return;
  std::string written = message.SerializeAsString();
  Message again;
  FUZZ_ASSERT(read(written, again));
  FUZZ_ASSERT(again.SerializeAsString() == written);
}

/// Every type of the enumeration; the compiler says when a new one is missing.
void parse_as(FrameType type, broker::Bytes control) {
  switch (type) {
    case FrameType::error: return parse<ErrorReply>(control);
    case FrameType::ping: return parse<Ping>(control);
    case FrameType::pong: return parse<Pong>(control);
    case FrameType::goodbye: return parse<Goodbye>(control);
    case FrameType::hello: return parse<Hello>(control);
    case FrameType::hello_reply: return parse<HelloReply>(control);
    case FrameType::metadata: return parse<MetadataRequest>(control);
    case FrameType::metadata_reply: return parse<MetadataReply>(control);
    case FrameType::create_topic: return parse<CreateTopicRequest>(control);
    case FrameType::create_topic_reply: return parse<CreateTopicReply>(control);
    case FrameType::alter_topic: return parse<AlterTopicRequest>(control);
    case FrameType::alter_topic_reply: return parse<AlterTopicReply>(control);
    case FrameType::describe_topic: return parse<DescribeTopicRequest>(control);
    case FrameType::describe_topic_reply: return parse<DescribeTopicReply>(control);
    case FrameType::delete_topic: return parse<DeleteTopicRequest>(control);
    case FrameType::delete_topic_reply: return parse<DeleteTopicReply>(control);
    case FrameType::skip_damage: return parse<SkipDamageRequest>(control);
    case FrameType::skip_damage_reply: return parse<SkipDamageReply>(control);
    case FrameType::delete_records: return parse<DeleteRecordsRequest>(control);
    case FrameType::delete_records_reply: return parse<DeleteRecordsReply>(control);
    case FrameType::list_offsets: return parse<ListOffsetsRequest>(control);
    case FrameType::list_offsets_reply: return parse<ListOffsetsReply>(control);
    case FrameType::open_producer: return parse<OpenProducerRequest>(control);
    case FrameType::open_producer_reply: return parse<OpenProducerReply>(control);
    case FrameType::publish: return parse<Publish>(control);
    case FrameType::publish_reply: return parse<PublishReply>(control);
    case FrameType::producer_window: return parse<ProducerWindow>(control);
    case FrameType::close_producer: return parse<CloseProducerRequest>(control);
    case FrameType::close_producer_reply: return parse<CloseProducerReply>(control);
    case FrameType::subscribe: return parse<SubscribeRequest>(control);
    case FrameType::subscribe_reply: return parse<SubscribeReply>(control);
    case FrameType::records: return parse<Records>(control);
    case FrameType::credit: return parse<Credit>(control);
    case FrameType::seek: return parse<SeekRequest>(control);
    case FrameType::seek_reply: return parse<SeekReply>(control);
    case FrameType::unsubscribe: return parse<UnsubscribeRequest>(control);
    case FrameType::unsubscribe_reply: return parse<UnsubscribeReply>(control);
    case FrameType::join_group: return parse<JoinGroupRequest>(control);
    case FrameType::join_group_reply: return parse<JoinGroupReply>(control);
    case FrameType::group_heartbeat: return parse<GroupHeartbeatRequest>(control);
    case FrameType::group_heartbeat_reply: return parse<GroupHeartbeatReply>(control);
    case FrameType::leave_group: return parse<LeaveGroupRequest>(control);
    case FrameType::leave_group_reply: return parse<LeaveGroupReply>(control);
    case FrameType::commit_offsets: return parse<CommitOffsetsRequest>(control);
    case FrameType::commit_offsets_reply: return parse<CommitOffsetsReply>(control);
    case FrameType::stored_offsets: return parse<StoredOffsetsRequest>(control);
    case FrameType::stored_offsets_reply: return parse<StoredOffsetsReply>(control);
    case FrameType::list_groups: return parse<ListGroupsRequest>(control);
    case FrameType::list_groups_reply: return parse<ListGroupsReply>(control);
    case FrameType::describe_group: return parse<DescribeGroupRequest>(control);
    case FrameType::describe_group_reply: return parse<DescribeGroupReply>(control);
    case FrameType::reset_offsets: return parse<ResetOffsetsRequest>(control);
    case FrameType::reset_offsets_reply: return parse<ResetOffsetsReply>(control);
    case FrameType::delete_group: return parse<DeleteGroupRequest>(control);
    case FrameType::delete_group_reply: return parse<DeleteGroupReply>(control);
    case FrameType::append_stream: return parse<AppendStreamRequest>(control);
    case FrameType::append_stream_reply: return parse<AppendStreamReply>(control);
    case FrameType::read_stream: return parse<ReadStreamRequest>(control);
    case FrameType::read_stream_reply: return parse<ReadStreamReply>(control);
    case FrameType::list_streams: return parse<ListStreamsRequest>(control);
    case FrameType::list_streams_reply: return parse<ListStreamsReply>(control);
    case FrameType::describe_stream: return parse<DescribeStreamRequest>(control);
    case FrameType::describe_stream_reply: return parse<DescribeStreamReply>(control);
    case FrameType::truncate_stream: return parse<TruncateStreamRequest>(control);
    case FrameType::truncate_stream_reply: return parse<TruncateStreamReply>(control);
  }
}

std::string frame(FrameType type, std::uint64_t id, const google::protobuf::MessageLite& message, std::string_view payload = {}) {
  std::string control = message.SerializeAsString();
  std::string out(kFrameHeaderBytes, '\0');
  write_frame_header(reinterpret_cast<std::byte*>(out.data()), type, id, control.size(), payload.size());
  out += control;
  out += payload;
  return out;
}

}  // namespace

std::map<std::string, std::string> seeds() {
  std::map<std::string, std::string> out;
  Hello hello;
  hello.set_major(kProtocolMajor);
  hello.set_client_id("orders-1");
  hello.add_features("seek");
  out["hello"] = frame(FrameType::hello, 1, hello);

  CreateTopicRequest create;
  create.mutable_call()->set_deadline_ms(5000);
  create.mutable_call()->set_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
  create.set_name("orders");
  create.set_partitions(3);
  auto* entry = create.add_config();
  entry->set_key("retention_time");
  entry->set_value("7d");
  out["create-topic"] = frame(FrameType::create_topic, 2, create);

  MetadataReply metadata;
  auto* broker = metadata.add_brokers();
  broker->set_host("127.0.0.1");
  broker->set_port(7070);
  auto* topic = metadata.add_topics();
  topic->set_name("orders");
  topic->set_id(std::string(16, '\x42'));
  for (int i = 0; i < 3; ++i) topic->add_partitions()->set_index(i);
  out["metadata-reply"] = frame(FrameType::metadata_reply, 3, metadata);

  ListOffsetsRequest offsets;
  offsets.set_topic("orders");
  offsets.add_queries()->set_time_ms(1'700'000'000'000);
  offsets.add_queries()->set_start(true);
  out["list-offsets"] = frame(FrameType::list_offsets, 4, offsets);

  OpenProducerRequest open;
  open.set_topic("orders");
  open.set_producer_id(-1);
  out["open-producer"] = frame(FrameType::open_producer, 5, open);

  Publish publish;
  publish.set_ticket(1);
  publish.set_expected_end_offset(100);
  out["publish"] = frame(FrameType::publish, 5, publish, std::string(80, '\x01'));

  SubscribeRequest subscribe;
  subscribe.set_topic("orders");
  auto* partition = subscribe.add_partitions();
  partition->mutable_start()->set_last(10);
  partition->set_until(1000);
  subscribe.set_credit_bytes(1 << 20);
  out["subscribe"] = frame(FrameType::subscribe, 6, subscribe);

  Records records;
  records.set_first_offset(42);
  records.set_reached_end(true);
  out["records"] = frame(FrameType::records, 6, records, std::string(61, '\0'));

  ErrorReply error;
  error.set_code(2031);
  error.set_message("The topic does not exist.");
  error.add_facts()->set_name("topic");
  out["error"] = frame(FrameType::error, 7, error);
  out["unsubscribe"] = frame(FrameType::unsubscribe, 8, UnsubscribeRequest{});
  out["pipelined"] = out["hello"] + out["open-producer"] + out["publish"];
  return out;
}

}  // namespace tailrace::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace tailrace::fuzz;
  tailrace::broker::Bytes rest = input(data, size);
  while (rest.size() >= kFrameHeaderBytes) {
    FrameHeader header = read_frame_header(rest.data());
    if (!header.is_consistent() || header.total_bytes() > rest.size()) return 0;
    tailrace::broker::Bytes control{rest.data() + kFrameHeaderBytes, header.control_length};
    consume(control);
    parse_as(header.type, control);
    consume(tailrace::broker::Bytes{control.data() + control.size(), header.payload_bytes()});
    rest = rest.subspan(header.total_bytes());
  }
  return 0;
}
