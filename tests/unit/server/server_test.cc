/// The whole broker in this process: real shards, sockets and files.
#include "server/server.h"

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <csignal>
#include <fstream>
#include <thread>

#include "codec/batch_builder.h"
#include "codec/batch_reader.h"
#include "tests/support/scratch_directory.h"
#include "tests/unit/server/blocking_client.h"

namespace tailrace::broker::server {
namespace {

using proto::FrameType;

ServerOptions options_for(const std::string& directory, std::uint32_t shards = 2, std::vector<FlagValue> more = {}) {
  ConfigSources sources;
  sources.dev = true;
  sources.flags = {{"data.directory", directory, ""}, {"listen.native", "127.0.0.1:0", ""}, {"listen.http", "127.0.0.1:0", ""},
                   {"shards", std::to_string(shards), ""}, {"wal.file_bytes", "1MiB", ""}};
  for (FlagValue& flag : more) sources.flags.push_back(std::move(flag));
  auto loaded = load_config(sources);
  EXPECT_TRUE(loaded.has_value());
  return loaded->options;
}

std::string batch(std::string_view value) {
  codec::BatchBuilder builder{{}};
  EXPECT_TRUE(builder.add({.timestamp = 1'000, .value = as_bytes(value)}).has_value());
  auto built = builder.finish();
  EXPECT_TRUE(built.has_value());
  return std::string{as_text(built->bytes())};
}

void create(BlockingClient& client, std::string name, int partitions) {
  proto::CreateTopicRequest request;
  request.set_name(std::move(name));
  request.set_partitions(partitions);
  client.call<proto::CreateTopicReply>(FrameType::create_topic, 1, request);
}
void open(BlockingClient& client, std::string topic) {
  proto::OpenProducerRequest request;
  request.set_topic(std::move(topic));
  request.set_not_idempotent(true);
  client.call<proto::OpenProducerReply>(FrameType::open_producer, 7, request);
}
proto::PublishReply publish(BlockingClient& client, int partition, std::string_view value) {
  proto::Publish request;
  request.set_partition(partition);
  return client.call<proto::PublishReply>(FrameType::publish, 7, request, batch(value));
}
std::vector<std::string> read_all(BlockingClient& client, std::string topic, int partition) {
  proto::SubscribeRequest request;
  request.set_topic(std::move(topic));
  request.add_partitions()->set_partition(partition);
  request.set_credit_records(1'000'000);
  request.set_credit_bytes(1 << 30);
  client.call<proto::SubscribeReply>(FrameType::subscribe, 9, request);
  std::vector<std::string> out;
  for (bool end = false; !end && !::testing::Test::HasFailure();) {
    std::string payload;
    end = client.expect<proto::Records>(FrameType::records, &payload).reached_end();
    std::string_view rest = payload;
    while (!rest.empty()) {
      auto reader = codec::BatchReader::open(as_bytes(rest));
      EXPECT_TRUE(reader.has_value());
      if (!reader) return out;
      codec::RecordView record;
      while (reader->next(record)) out.emplace_back(as_text(record.value.value_or(Bytes{})));
      rest.remove_prefix(reader->batch_bytes());
    }
  }
  client.call<proto::UnsubscribeReply>(FrameType::unsubscribe, 9, proto::UnsubscribeRequest{});
  return out;
}

// The main job: create, publish, read back; stop, start, read back again.
TEST(Server, WhatIsAcknowledgedIsReadBackAlsoAfterARestart) {
  testing_support::ScratchDirectory scratch;
  std::vector<std::string> sent;
  for (int i = 0; i < 200; ++i) sent.push_back("record " + std::to_string(i));
  {
    auto server = Server::start(options_for(scratch.path() + "/data"));
    ASSERT_TRUE(server.has_value()) << server.error().message;
    BlockingClient client{(*server)->native_address().port};
    client.greet();
    create(client, "orders", 4);
    open(client, "orders");
    for (int i = 0; i < 200; ++i) EXPECT_EQ(publish(client, i % 4, sent[static_cast<std::size_t>(i)]).base_offset(), i / 4);
    EXPECT_EQ(read_all(client, "orders", 1).size(), 50u);
    EXPECT_TRUE((*server)->stop(5s)) << "a clean stop";
  }
  auto server = Server::start(options_for(scratch.path() + "/data"));
  ASSERT_TRUE(server.has_value()) << server.error().message;
  BlockingClient client{(*server)->native_address().port};
  client.greet();
  for (int partition = 0; partition < 4; ++partition) {
    std::vector<std::string> expected;
    for (int i = partition; i < 200; i += 4) expected.push_back(sent[static_cast<std::size_t>(i)]);
    EXPECT_EQ(read_all(client, "orders", partition), expected);
  }
}

// Partitions move to their new shards when the number of processors changes.
TEST(Server, AnotherNumberOfShardsFindsTheSameRecords) {
  testing_support::ScratchDirectory scratch;
  for (std::uint32_t shards : {2u, 1u, 3u}) {
    auto server = Server::start(options_for(scratch.path() + "/data", shards));
    ASSERT_TRUE(server.has_value()) << server.error().message;
    BlockingClient client{(*server)->native_address().port};
    client.greet();
    if (shards == 2) {
      create(client, "orders", 6);
      open(client, "orders");
      for (int i = 0; i < 60; ++i) publish(client, i % 6, std::to_string(i));
    }
    for (int partition = 0; partition < 6; ++partition) EXPECT_EQ(read_all(client, "orders", partition).size(), 10u) << shards;
  }
}

TEST(Server, TheHttpPortSaysWhatTheBrokerDoes) {
  testing_support::ScratchDirectory scratch;
  auto server = Server::start(options_for(scratch.path() + "/data"));
  ASSERT_TRUE(server.has_value()) << server.error().message;
  std::uint16_t http = (*server)->http_address().port;
  EXPECT_EQ(http_get(http, "/healthz").first, 200);
  EXPECT_EQ(http_get(http, "/readyz"), (std::pair<int, std::string>{200, "ready\n"}));
  EXPECT_EQ(http_get(http, "/nothing").first, 404);
  BlockingClient client{(*server)->native_address().port};
  client.greet();
  create(client, "orders", 2);
  open(client, "orders");
  for (int i = 0; i < 10; ++i) publish(client, i % 2, "value");
  auto [status, text] = http_get(http, "/metrics");
  EXPECT_EQ(status, 200);
  for (std::string_view line : {"tailrace_produce_records_total{topic=\"orders\"} 10", "tailrace_connections{listener=\"native\"} 1",
                                "tailrace_requests_total{api=\"publish\",protocol=\"native\",code=\"ok\"} 10", "tailrace_partitions 3",
                                "tailrace_build_info{version=", "tailrace_shards 2", "tailrace_wal_commits_total{shard=\"0\"}",
                                "# TYPE tailrace_produce_seconds histogram", "tailrace_io_backend{shard=\"1\",name="}) {
    EXPECT_NE(text.find(line), std::string::npos) << line << "\n" << text;
  }
}

TEST(Server, ALockedDataDirectoryIsOneClearError) {
  testing_support::ScratchDirectory scratch;
  auto first = Server::start(options_for(scratch.path() + "/data"));
  ASSERT_TRUE(first.has_value());
  auto second = Server::start(options_for(scratch.path() + "/data"));
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error().code, Errc::data_directory_locked);
  EXPECT_NE(second.error().message.find("/data"), std::string::npos) << second.error().message;
  EXPECT_NE(second.error().hint.find("another directory"), std::string::npos);
}

TEST(Server, AForeignDirectoryIsLeftAlone) {
  testing_support::ScratchDirectory scratch;
  std::ofstream{scratch.path() + "/holiday.jpg"} << "not ours";
  auto server = Server::start(options_for(scratch.path()));
  ASSERT_FALSE(server.has_value());
  EXPECT_EQ(server.error().code, Errc::foreign_data_directory);
}

TEST(Server, APortInUseIsOneClearErrorAndUndoesTheStart) {
  testing_support::ScratchDirectory scratch;
  auto first = Server::start(options_for(scratch.path() + "/one"));
  ASSERT_TRUE(first.has_value());
  for (std::string key : {"listen.native", "listen.http"}) {
    HostPort taken = key == "listen.native" ? (*first)->native_address() : (*first)->http_address();
    auto second = Server::start(options_for(scratch.path() + "/two", 2, {{key, taken.to_string(), ""}}));
    ASSERT_FALSE(second.has_value()) << key;
    EXPECT_EQ(second.error().code, Errc::address_in_use) << second.error().message;
    EXPECT_NE(second.error().message.find(std::to_string(taken.port)), std::string::npos) << second.error().message;
  }
  auto third = Server::start(options_for(scratch.path() + "/two"));
  EXPECT_TRUE(third.has_value()) << "nothing of the failed starts is left";
}

// A stop with clients connected must end in time, and say goodbye to them.
TEST(Server, AStopWithBusyClientsEndsWithinItsDeadline) {
  testing_support::ScratchDirectory scratch;
  auto server = Server::start(options_for(scratch.path() + "/data"));
  ASSERT_TRUE(server.has_value());
  BlockingClient idle{(*server)->native_address().port}, silent{(*server)->native_address().port};
  idle.greet();
  create(idle, "orders", 1);
  auto began = std::chrono::steady_clock::now();
  EXPECT_TRUE((*server)->stop(5s));
  EXPECT_LT(std::chrono::steady_clock::now() - began, 5s);
  auto frame = idle.next();
  ASSERT_TRUE(frame.has_value());
  EXPECT_EQ(frame->header.type, FrameType::goodbye);
  EXPECT_FALSE(idle.next().has_value());
  EXPECT_FALSE(BlockingClient{(*server)->native_address().port}.connected());
}

}  // namespace
}  // namespace tailrace::broker::server
