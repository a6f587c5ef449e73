/// The hex examples of docs/native-protocol.md are what the code writes. With TAILRACE_WRITE_EXAMPLES=1 the test prints the
/// section instead, to be put into the document.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <vector>

#include "codec/batch_builder.h"
#include "native/outbox.h"
#include "proto/native/native.pb.h"

namespace tailrace::broker::native {
namespace {

using proto::FrameType;

struct Example {
  std::string title;
  std::string bytes;
};

Slice batch_of_one(std::int64_t base_offset) {
  codec::BatchBuilder builder{{}};
  EXPECT_TRUE(builder.add({.timestamp = 1'767'225'600'000, .key = as_bytes("alice"), .value = as_bytes("hello")}).has_value());
  auto batch = builder.finish({.producer_id = ProducerId{1000}, .producer_epoch = ProducerEpoch{0}, .base_sequence = 0});
  EXPECT_TRUE(batch.has_value());
  if (base_offset >= 0) assign_batch(batch->mutable_bytes(), Offset{base_offset}, LeaderEpoch{1});
  return *batch;
}

std::string written(FrameType type, std::uint64_t id, const google::protobuf::MessageLite& control, std::vector<Slice> payload = {}) {
  Outbox outbox;
  outbox.add(type, id, control, payload);
  std::string out;
  for (const iovec& part : outbox.gather()) out.append(static_cast<const char*>(part.iov_base), part.iov_len);
  return out;
}

proto::TopicInfo orders() {
  proto::TopicInfo topic;
  topic.set_name("orders");
  topic.set_id("0123456789abcdef");
  topic.add_partitions()->set_leader(1);
  topic.mutable_partitions(0)->set_leader_epoch(-1);
  topic.set_message_bytes_max(1'048'576);
  return topic;
}

std::vector<Example> examples() {
  std::vector<Example> out;
  {
    proto::Hello hello;
    hello.set_major(1);
    hello.set_client_id("demo");
    out.push_back({"> hello: major 1, client id \"demo\"", written(FrameType::hello, 0, hello)});
    proto::HelloReply reply;
    reply.set_major(1);
    reply.set_cluster_id("c1");
    reply.set_node_id(1);
    reply.set_software("tailrace/0.1.0");
    reply.set_frame_bytes_max(33'816'640);
    reply.set_streams_max(4'096);
    reply.set_calls_in_flight_max(4'096);
    reply.set_idle_timeout_ms(300'000);
    out.push_back({"< hello reply", written(FrameType::hello_reply, 0, reply)});
  }
  {
    proto::CreateTopicRequest create;
    create.set_name("orders");
    create.set_partitions(1);
    auto& entry = *create.add_config();
    entry.set_key("retention_time");
    entry.set_value("7d");
    out.push_back({"> create_topic, call 1: \"orders\", one partition, retention_time=7d", written(FrameType::create_topic, 1, create)});
    proto::CreateTopicReply reply;
    *reply.mutable_topic() = orders();
    out.push_back({"< create_topic reply", written(FrameType::create_topic_reply, 1, reply)});
    proto::ErrorReply error;
    error.set_code(2032);
    error.set_message("A topic of this name exists already: orders");
    error.set_hint("See: tailrace topic describe NAME.");
    out.push_back({"< or an error on the same id: E2032", written(FrameType::error, 1, error)});
  }
  {
    proto::OpenProducerRequest open;
    open.set_topic("orders");
    out.push_back({"> open_producer: stream 2 on \"orders\", a new producer id, please", written(FrameType::open_producer, 2, open)});
    proto::OpenProducerReply reply;
    *reply.mutable_topic() = orders();
    reply.set_producer_id(1'000);
    reply.set_window_bytes(16'777'216);
    out.push_back({"< open_producer reply: producer id 1000, epoch 0, a window of 16 MiB, durability quorum", written(FrameType::open_producer_reply, 2, reply)});
    proto::Publish publish;
    publish.set_ticket(1);
    out.push_back({"> publish: ticket 1, partition 0; payload: one batch of 78 bytes with one record (key \"alice\", value \"hello\"), base offset 0, leader epoch -1, "
                   "producer 1000, epoch 0, sequence 0",
                   written(FrameType::publish, 2, publish, {batch_of_one(-1)})});
    proto::PublishReply acknowledged;
    acknowledged.set_ticket(1);
    acknowledged.set_base_offset(42);
    acknowledged.set_log_append_time_ms(-1);
    out.push_back({"< publish reply: ticket 1 is stored at offset 42", written(FrameType::publish_reply, 2, acknowledged)});
  }
  {
    proto::SubscribeRequest subscribe;
    subscribe.set_topic("orders");
    subscribe.add_partitions()->mutable_start()->set_offset(42);
    subscribe.set_credit_records(1'000);
    subscribe.set_credit_bytes(1'048'576);
    out.push_back({"> subscribe: stream 3, partition 0 from offset 42, credit 1000 records and 1 MiB", written(FrameType::subscribe, 3, subscribe)});
    proto::SubscribeReply reply;
    *reply.mutable_topic() = orders();
    reply.add_partitions()->set_offset(42);
    reply.mutable_partitions(0)->set_high_watermark(43);
    out.push_back({"< subscribe reply: begins at 42, high watermark 43, log start 0", written(FrameType::subscribe_reply, 3, reply)});
    proto::Records records;
    records.set_first_offset(42);
    records.set_high_watermark(43);
    records.set_records(1);
    records.set_reached_end(true);
    out.push_back({"< records: one record from 42, and that was the end; payload: the batch as it is stored, base offset 42, leader epoch 1",
                   written(FrameType::records, 3, records, {batch_of_one(42)})});
    proto::Credit credit;
    credit.set_records(1);
    credit.set_bytes(78);
    out.push_back({"> credit: one record and 78 bytes more", written(FrameType::credit, 3, credit)});
    proto::SeekRequest seek;
    seek.add_partitions()->mutable_start()->set_start(true);
    out.push_back({"> seek: partition 0 back to the start", written(FrameType::seek, 3, seek)});
    proto::SeekReply sought;
    sought.add_partitions()->set_high_watermark(43);
    sought.set_seek_count(1);
    out.push_back({"< seek reply: at 0 now, seek_count 1", written(FrameType::seek_reply, 3, sought)});
  }
  {
    proto::Ping ping;
    ping.set_token(7);
    out.push_back({"> ping", written(FrameType::ping, 0, ping)});
    proto::Pong pong;
    pong.set_token(7);
    out.push_back({"< pong", written(FrameType::pong, 0, pong)});
    out.push_back({"> goodbye", written(FrameType::goodbye, 0, proto::Goodbye{})});
  }
  return out;
}

std::string block(const Example& example) {
  std::string out = "`" + example.title + "`\n\n";
  for (std::size_t i = 0; i < example.bytes.size(); ++i) {
    if (i % 16 == 0) out += i == 0 ? "    " : "\n    ";
    else if (i % 4 == 0) out += " ";
    out += fmt::format("{}{:02x}", i % 16 == 0 ? "" : " ", static_cast<unsigned char>(example.bytes[i]));
  }
  return out + "\n";
}

// A specification that has drifted from the code is worse than none.
TEST(ProtocolDocument, ItsExamplesAreWhatTheCodeWrites) {
  if (std::getenv("TAILRACE_WRITE_EXAMPLES")) {
    for (const Example& example : examples()) std::puts(block(example).c_str());
    return;
  }
  std::ifstream in{TAILRACE_SOURCE_DIR "/docs/native-protocol.md"};
  std::stringstream text;
  text << in.rdbuf();
  ASSERT_GT(text.str().size(), 1'000u);
  for (const Example& example : examples()) EXPECT_NE(text.str().find(block(example)), std::string::npos) << block(example);
}

// Its error table is generated from the same source as the code's.
TEST(ProtocolDocument, ItNamesErrorsAsTheTableDoes) {
  std::ifstream in{TAILRACE_SOURCE_DIR "/docs/native-protocol.md"};
  std::string line;
  int rows = 0;
  while (std::getline(in, line)) {
    unsigned code = 0;
    char name[64] = {}, retriable[8] = {}, applied[8] = {};
    if (std::sscanf(line.c_str(), "| E%u | `%63[^`]` | %7[a-z] | %7[a-z] |", &code, name, retriable, applied) != 4) continue;
    ++rows;
    ASSERT_TRUE(is_known(static_cast<Errc>(code))) << line;
    const ErrcInfo& info = describe(static_cast<Errc>(code));
    EXPECT_EQ(info.name, name) << line;
    EXPECT_EQ(info.retriable, std::string_view{retriable} == "yes") << line;
    EXPECT_EQ(info.maybe_applied, std::string_view{applied} == "yes") << line;
  }
  EXPECT_GT(rows, 15);
}

}  // namespace
}  // namespace tailrace::broker::native
