#pragma once
/// A real broker in this process, and a client of it.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <thread>

#include "server/config.h"
#include "server/server.h"
#include "tailrace/tailrace.h"

namespace tailrace {

namespace server_ns = broker::server;

/// One broker on a directory of its own; restart() keeps directory and port.
class Broker {
 public:
  explicit Broker(std::uint32_t shards = 2) : shards_{shards} {
    std::string pattern = (std::filesystem::temp_directory_path() / "tailrace-sdk.XXXXXX").string();
    directory_ = ::mkdtemp(pattern.data());
    start();
  }
  ~Broker() {
    stop();
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
  }
  void start() {
    server_ns::ConfigSources sources;
    sources.dev = true;
    auto set = [&](std::string key, std::string value) { sources.flags.push_back({std::move(key), std::move(value), "test"}); };
    set("data.directory", directory_ + "/data");
    set("listen.native", "127.0.0.1:" + std::to_string(port_));
    set("listen.http", "127.0.0.1:0");
    set("shards", std::to_string(shards_));
    auto config = server_ns::load_config(sources);
    ASSERT_TRUE(config) << config.error()[0].message;
    auto server = server_ns::Server::start(config->options);
    ASSERT_TRUE(server) << server.error().message;
    server_ = *std::move(server);
    port_ = server_->native_address().port;
  }
  void stop() {
    if (server_) EXPECT_TRUE(server_->stop(std::chrono::seconds{10}));
    server_.reset();
  }
  [[nodiscard]] std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

 private:
  std::uint32_t shards_;
  std::string directory_;
  std::uint16_t port_ = 0;
  std::unique_ptr<server_ns::Server> server_;
};

class SdkWithBroker : public ::testing::Test {
 protected:
  void SetUp() override {
    ClientOptions options{.servers = {broker.address()}};
    options.reconnect_backoff = 10ms;
    auto opened = Client::open(options);
    ASSERT_TRUE(opened);
    client = *opened;
  }
  void TearDown() override { EXPECT_TRUE(client.close(10s)); }
  void create(std::int32_t partitions, std::map<std::string, std::string> config = {}) {
    TopicSpec spec{.partitions = partitions, .config = std::move(config)};
    auto created = client.admin().create_topic("orders", spec).get();
    ASSERT_TRUE(created) << created.error().to_string();
  }
  Producer producer(ProducerOptions options = {}) {
    auto made = client.producer(std::move(options));
    EXPECT_TRUE(made);
    return *made;
  }
  Consumer consumer(ConsumerOptions options = {}) {
    auto made = client.consumer("orders", std::move(options));
    EXPECT_TRUE(made) << made.error().to_string();
    return made ? *made : Consumer{};
  }
  void publish(int count, std::int32_t partition = 0, int from = 0) {
    auto p = producer({.batch_bytes = 1024});
    for (int i = from; i < from + count; ++i) {
      Record record{.topic = "orders", .value = std::to_string(i), .partition = partition};
      p.send(record).then([](Result<Receipt> r) { EXPECT_TRUE(r) << r.error().to_string(); });
    }
    ASSERT_TRUE(p.flush(30s));
  }
  static std::vector<std::string> read(Consumer& from, std::size_t count, Milliseconds within = 20s) {
    std::vector<std::string> values;
    auto until = std::chrono::steady_clock::now() + within;
    while (values.size() < count && std::chrono::steady_clock::now() < until) {
      auto message = from.next(200ms);
      if (!message) {
        ADD_FAILURE() << message.error().to_string();
        break;
      }
      if (*message) values.emplace_back((*message)->value_text());
      else if (from.finished()) break;
    }
    return values;
  }
  static std::vector<std::string> numbered(int count, int from = 0) {
    std::vector<std::string> values;
    for (int i = from; i < from + count; ++i) values.push_back(std::to_string(i));
    return values;
  }
  Broker broker;
  Client client;
};

}  // namespace tailrace
