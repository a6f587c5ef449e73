#pragma once
/// Order events of an invented web shop, one JSON object a line: the default input of `./dev demo` and of `dev --seed orders`.
/// The same seed gives the same bytes on every build and machine.
///
///   {"event":"order.created","order_id":"o-000007","customer":"c-0421","at":"2026-01-05T08:00:01.482Z","currency":"EUR",
///    "items":[{"sku":"kettle","quantity":1,"price_cents":3490}],"total_cents":3490}
///
/// An order is created, then paid or cancelled, then packed, shipped and delivered; events of up to 64 orders interleave.
#include <cstdint>
#include <string>
#include <vector>

#include "base/random.h"

namespace tailrace::load {

struct OrderEvent {
  std::string key;   ///< the order id: events of one order stay in order on one partition
  std::string line;  ///< JSON, no newline
};

class OrderEvents {
 public:
  explicit OrderEvents(std::uint64_t seed) : random_(seed) {}
  [[nodiscard]] OrderEvent next();

 private:
  enum class Stage { created, paid, packed, shipped };
  struct Order {
    std::uint64_t number;
    std::uint64_t customer;
    std::uint64_t total_cents;
    std::string_view currency;
    Stage stage;
  };
  static constexpr std::size_t kOpenOrdersMax = 64;

  OrderEvent create();
  OrderEvent advance();
  std::string begin(std::string_view event, const Order& order);

  broker::Random random_;
  std::vector<Order> open_;
  std::uint64_t next_order_ = 1;
  std::int64_t now_ms_ = 1'767'600'000'000;  // 2026-01-05T08:00:00Z
};

}  // namespace tailrace::load
