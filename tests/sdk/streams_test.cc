// Event streams through the SDK, on a real broker with its real index.
#include "tests/sdk/broker_fixture.h"

namespace tailrace {
namespace {

using Streams = SdkWithBroker;

NewEvent event(std::string id, std::string data) { return {.id = std::move(id), .type = "added", .data = std::move(data), .headers = {{"who", "test"}}}; }
std::vector<std::string> data_of(const StreamEvents& read) {
  std::vector<std::string> out;
  for (const Event& one : read.events) out.push_back(one.data);
  return out;
}

TEST_F(Streams, AreAppendedReadListedAndTruncatedAcrossARestart) {
  create(4, {{"streams", "true"}});
  EventStore orders = client.events("orders");
  auto first = orders.append("cart-7", Expected::none(), {event("a", "1"), event("b", "2")}).get();
  ASSERT_TRUE(first) << first.error().to_string();
  EXPECT_EQ(first->first_version, 0);
  EXPECT_EQ(first->last_version, 1);
  auto late = orders.append("cart-7", Expected::exactly(0), {event("x", "x")}).get();
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, Errc::wrong_version);
  EXPECT_EQ(late.error().at["actual_version"], "1");
  ASSERT_TRUE(orders.append("cart-7", Expected::exactly(1), {event("c", "3")}).get());
  ASSERT_TRUE(orders.append("cart-8", Expected::none(), {event("a", "other")}).get());
  for (int life = 0; life < 2; ++life) {
    auto again = orders.append("cart-7", Expected::none(), {event("a", "1"), event("b", "2")}).get();
    ASSERT_TRUE(again) << again.error().to_string();
    EXPECT_TRUE(again->duplicate);
    EXPECT_EQ(again->offset, first->offset);
    auto read = orders.read("cart-7").get();
    ASSERT_TRUE(read) << read.error().to_string();
    EXPECT_EQ(data_of(*read), (std::vector<std::string>{"1", "2", "3"}));
    EXPECT_TRUE(read->end);
    EXPECT_EQ(read->events[2].version, 2);
    EXPECT_EQ(read->events[2].id, "c");
    EXPECT_EQ(read->events[2].type, "added");
    EXPECT_EQ(read->events[2].headers, (std::vector<Header>{{"who", "test"}}));
    auto back = orders.read("cart-7", {.from = -1, .backwards = true, .max = 2}).get();
    ASSERT_TRUE(back);
    EXPECT_EQ(data_of(*back), (std::vector<std::string>{"3", "2"}));
    EXPECT_FALSE(back->end);
    EXPECT_EQ(back->next, 0);
    auto listed = orders.list("cart-").get();
    ASSERT_TRUE(listed);
    ASSERT_EQ(listed->size(), 2u);
    EXPECT_EQ(listed->at(0).stream, "cart-7");
    EXPECT_EQ(listed->at(0).last_version, 2);
    broker.stop();
    broker.start();
  }
  ASSERT_TRUE(orders.truncate("cart-7", 2).get());
  EXPECT_EQ(data_of(*orders.read("cart-7").get()), (std::vector<std::string>{"3"}));
  auto gone = orders.delete_stream("cart-8").get();
  ASSERT_TRUE(gone) << gone.error().to_string();
  EXPECT_EQ(gone->first_version, 1);
  EXPECT_TRUE(orders.read("cart-8").get()->events.empty());
  EXPECT_EQ(orders.append("cart-8", Expected::none(), {event("z", "z")}).get().error().code, Errc::wrong_version);
  EXPECT_EQ(orders.describe("cart-9").get().error().code, Errc::no_such_stream);
  EXPECT_EQ(orders.append("cart-9", Expected::any(), {}).get().error().code, Errc::invalid_argument);
}

TEST_F(Streams, AreReadAsAWholeWithoutTheBrokersOwnRecords) {
  create(1, {{"streams", "true"}});
  EventStore orders = client.events("orders");
  ASSERT_TRUE(orders.append("s", Expected::none(), {event("a", "0"), event("b", "1")}).get());
  ASSERT_TRUE(orders.truncate("s", 1).get());
  ASSERT_TRUE(orders.append("t", Expected::none(), {event("a", "2")}).get());
  Consumer all = consumer({.start = From::earliest(), .until = From::latest()});
  EXPECT_EQ(read(all, 3), (std::vector<std::string>{"0", "1", "2"}));
  EXPECT_EQ(read(all, 1), std::vector<std::string>{});
  auto publish = producer().send({.topic = "orders", .key = "s", .value = "past it"}).get();
  ASSERT_FALSE(publish);
  EXPECT_EQ(publish.error().code, Errc::stream_topic);
}

// Large appends and long streams take the ways that short ones do not.
TEST_F(Streams, ALongStreamOfLargeEventsIsReadInSteps) {
  create(1, {{"streams", "true"}});
  EventStore orders = client.events("orders");
  constexpr int kAppends = 40, kEvents = 5;
  std::vector<std::string> written;
  for (int i = 0; i < kAppends; ++i) {
    std::vector<NewEvent> events;
    for (int e = 0; e < kEvents; ++e) {
      std::string data = std::to_string(i * kEvents + e) + std::string(20'000, 'x');
      written.push_back(data);
      events.push_back(event("e" + std::to_string(i * kEvents + e), data));
    }
    auto stored = orders.append("s", Expected::exactly(static_cast<Version>(i) * kEvents - 1), events).get();
    ASSERT_TRUE(stored) << stored.error().to_string();
  }
  std::vector<std::string> found;
  int steps = 0;
  for (Version at = 0;; ++steps) {
    auto some = orders.read("s", {.from = at, .max = 7}).get();
    ASSERT_TRUE(some) << some.error().to_string();
    for (std::string& data : data_of(*some)) found.push_back(std::move(data));
    at = some->next;
    if (some->end) break;
  }
  EXPECT_EQ(found, written);
  EXPECT_GE(steps, kAppends * kEvents / 7);
}

TEST_F(Streams, WritersOfOneStreamAgreeOnOneOrder) {
  create(2, {{"streams", "true"}});
  constexpr int kWriters = 4, kEach = 25;
  std::atomic<int> conflicts{0};
  std::vector<std::thread> writers;
  for (int w = 0; w < kWriters; ++w) {
    writers.emplace_back([this, w, &conflicts] {
      EventStore orders = client.events("orders");
      Version last = -1;
      for (int i = 0; i < kEach;) {
        std::string id = std::to_string(w) + "-" + std::to_string(i);
        auto stored = orders.append("s", Expected::exactly(last), {event(id, id)}).get();
        if (stored) {
          last = stored->last_version;
          ++i;
        } else {
          ASSERT_EQ(stored.error().code, Errc::wrong_version) << stored.error().to_string();
          last = std::stoll(stored.error().at["actual_version"]);
          ++conflicts;
        }
      }
    });
  }
  for (std::thread& writer : writers) writer.join();
  auto read = client.events("orders").read("s").get();
  ASSERT_TRUE(read);
  ASSERT_EQ(read->events.size(), static_cast<std::size_t>(kWriters * kEach));
  std::map<char, int> next;
  for (const Event& one : read->events) EXPECT_EQ(std::stoi(one.id.substr(2)), next[one.id[0]]++);
  EXPECT_GT(conflicts.load(), 0);
}

}  // namespace
}  // namespace tailrace
