#pragma once
/// Short words for the SDK's tests: a client of a fake broker, patient where a machine may be slow, never for ever.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "tailrace/tailrace.h"
#include "tailrace/testing.h"

namespace tailrace {

using testing::Action;
using testing::FakeBroker;
using testing::Fault;
using testing::Request;
using SteadyClock = std::chrono::steady_clock;

inline Client client_of(const FakeBroker& broker, ClientOptions options = {}) {
  options.servers = {broker.address()};
  options.reconnect_backoff = 5ms;
  options.reconnect_backoff_max = 50ms;
  auto client = Client::open(std::move(options));
  EXPECT_TRUE(client) << client.error().to_string();
  return *client;
}
inline Producer producer_of(Client& client, ProducerOptions options = {}) {
  auto producer = client.producer(std::move(options));
  EXPECT_TRUE(producer) << producer.error().to_string();
  return *producer;
}
inline Record record_of(std::string value, std::optional<std::int32_t> partition = 0, std::string topic = "orders") {
  Record record{.topic = std::move(topic), .value = std::move(value)};
  record.partition = partition;
  return record;
}
template <class Condition>
bool eventually(Condition condition, Milliseconds within = 10s) {
  auto until = SteadyClock::now() + within;
  while (!condition()) {
    if (SteadyClock::now() > until) return false;
    std::this_thread::sleep_for(2ms);
  }
  return true;
}
inline std::vector<std::string> values_of(const std::vector<Message>& messages) {
  std::vector<std::string> values;
  for (const auto& message : messages) values.emplace_back(message.value_text());
  return values;
}
inline std::vector<std::string> numbered(int count, int from = 0) {
  std::vector<std::string> values;
  for (int i = from; i < from + count; ++i) values.push_back(std::to_string(i));
  return values;
}
inline void fill(FakeBroker& broker, int count, std::int32_t partition = 0, int per_batch = 10, int from = 0) {
  std::vector<Record> records;
  for (int i = from; i < from + count; ++i) {
    records.push_back(record_of(std::to_string(i)));
    if (static_cast<int>(records.size()) == per_batch) {
      broker.append("orders", partition, records);
      records.clear();
    }
  }
  if (!records.empty()) broker.append("orders", partition, records);
}
/// Reads `count` values, or what comes within the time.
inline std::vector<std::string> read_values(Consumer& consumer, std::size_t count, Milliseconds within = 10s) {
  std::vector<std::string> values;
  auto until = SteadyClock::now() + within;
  while (values.size() < count && SteadyClock::now() < until) {
    auto message = consumer.next(100ms);
    if (!message) {
      ADD_FAILURE() << message.error().to_string();
      break;
    }
    if (*message) values.emplace_back((*message)->value_text());
    else if (consumer.finished()) break;
  }
  return values;
}
/// Sanitizers slow everything down; deadlines in tests of close() allow for it.
inline constexpr Milliseconds kGrace{1'500};

}  // namespace tailrace
