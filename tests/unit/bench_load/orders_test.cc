#include "bench/load/orders.h"

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

namespace tailrace::load {
namespace {

// ./dev demo compares bytes between runs and machines: one seed must give one input.
TEST(OrderEvents, TheSameSeedGivesTheSameBytes) {
  OrderEvents a{7}, b{7}, other{8};
  bool differs = false;
  for (int i = 0; i < 500; ++i) {
    auto x = a.next(), y = b.next();
    EXPECT_EQ(x.line, y.line);
    EXPECT_EQ(x.key, y.key);
    differs |= x.line != other.next().line;
  }
  EXPECT_TRUE(differs);
}

// The bytes of the first line are pinned: a change of generator changes published figures and must be seen here.
TEST(OrderEvents, TheFirstLineOfSeedOneIsPinned) {
  EXPECT_EQ(OrderEvents{1}.next().line, R"({"event":"order.created","order_id":"o-000001","customer":"c-2465","at":"2026-01-05T08:00:00.390Z","currency":"EUR","items":[{"sku":"teapot","quantity":3,"price_cents":2750},{"sku":"green-tea-100g","quantity":1,"price_cents":1240},{"sku":"kettle","quantity":2,"price_cents":3490},{"sku":"strainer","quantity":2,"price_cents":650}],"total_cents":17770})");
}

// Readers of the demo see an order's life in order: created first, delivered or cancelled last, never two creations.
TEST(OrderEvents, EveryOrderLivesInOrder) {
  const std::map<std::string, std::string> before = {{"order.paid", "order.created"}, {"order.cancelled", "order.created"}, {"order.packed", "order.paid"}, {"order.shipped", "order.packed"}, {"order.delivered", "order.shipped"}};
  std::map<std::string, std::string> last;
  std::map<std::string, int> seen;
  OrderEvents events{3};
  std::string time;
  for (int i = 0; i < 5'000; ++i) {
    auto event = events.next();
    EXPECT_EQ(event.line.find('\n'), std::string::npos);
    auto json = nlohmann::json::parse(event.line);
    EXPECT_EQ(json["order_id"], event.key);
    const std::string kind = json["event"];
    ++seen[kind];
    if (kind == "order.created") EXPECT_EQ(last.count(event.key), 0u) << event.key;
    else EXPECT_EQ(last[event.key], before.at(kind)) << event.key;
    last[event.key] = kind;
    EXPECT_LE(time, json["at"].get<std::string>());
    time = json["at"];
  }
  EXPECT_EQ(seen.size(), 6u);
}

}  // namespace
}  // namespace tailrace::load
