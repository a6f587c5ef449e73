#include "bench/load/orders.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <array>
#include <chrono>
#include <string_view>

namespace tailrace::load {
namespace {

struct Article {
  std::string_view sku;
  std::uint64_t price_cents;
};
constexpr std::array kArticles = {Article{"kettle", 3490}, Article{"teapot", 2750}, Article{"cup-blue", 890}, Article{"cup-white", 890}, Article{"tray", 1999},
                                  Article{"green-tea-100g", 1240}, Article{"black-tea-100g", 990}, Article{"strainer", 650}, Article{"timer", 1450}, Article{"honey-250g", 720}};
constexpr std::array<std::string_view, 3> kCurrencies = {"EUR", "CHF", "GBP"};
constexpr std::array<std::string_view, 3> kCarriers = {"post", "courier", "bike"};
constexpr std::array<std::string_view, 3> kReasons = {"changed-mind", "payment-failed", "out-of-stock"};

}  // namespace

std::string OrderEvents::begin(std::string_view event, const Order& order) {
  now_ms_ += static_cast<std::int64_t>(random_.below(900));
  const std::chrono::sys_time<std::chrono::milliseconds> at{std::chrono::milliseconds{now_ms_}};
  const auto seconds = std::chrono::floor<std::chrono::seconds>(at);
  return fmt::format(R"({{"event":"order.{}","order_id":"o-{:06}","customer":"c-{:04}","at":"{:%Y-%m-%dT%H:%M:%S}.{:03}Z")", event, order.number, order.customer,
                     fmt::gmtime(std::chrono::system_clock::to_time_t(seconds)), now_ms_ % 1000);
}

OrderEvent OrderEvents::create() {
  Order order{next_order_++, random_.below(5'000), 0, kCurrencies[random_.below(20) == 0 ? random_.between(1, 2) : 0], Stage::created};
  auto line = begin("created", order);
  line += fmt::format(R"(,"currency":"{}","items":[)", order.currency);
  const auto items = random_.between(1, 4);
  for (std::uint64_t i = 0; i < items; ++i) {
    const auto& article = kArticles[random_.below(kArticles.size())];
    const auto quantity = random_.between(1, 3);
    order.total_cents += quantity * article.price_cents;
    line += fmt::format(R"({}{{"sku":"{}","quantity":{},"price_cents":{}}})", i == 0 ? "" : ",", article.sku, quantity, article.price_cents);
  }
  line += fmt::format(R"(],"total_cents":{}}})", order.total_cents);
  auto key = fmt::format("o-{:06}", order.number);
  open_.push_back(order);
  return {std::move(key), std::move(line)};
}

// Each draw stands in a statement of its own: operands of one `+` may be evaluated in either order.
OrderEvent OrderEvents::advance() {
  const auto index = random_.below(open_.size());
  Order& order = open_[index];
  auto key = fmt::format("o-{:06}", order.number);
  std::string line;
  bool closed = false;
  switch (order.stage) {
    case Stage::created:
      if (random_.chance(1, 10)) {
        line = begin("cancelled", order);
        line += fmt::format(R"(,"reason":"{}"}})", kReasons[random_.below(kReasons.size())]);
        closed = true;
      } else {
        line = begin("paid", order);
        line += fmt::format(R"(,"currency":"{}","amount_cents":{}}})", order.currency, order.total_cents);
        order.stage = Stage::paid;
      }
      break;
    case Stage::paid:
      line = begin("packed", order);
        line += fmt::format(R"(,"parcels":{}}})", random_.between(1, 2));
      order.stage = Stage::packed;
      break;
    case Stage::packed:
      line = begin("shipped", order);
        line += fmt::format(R"(,"carrier":"{}","tracking":"{:012x}"}})", kCarriers[random_.below(kCarriers.size())], random_.next() & 0xFFFFFFFFFFFF);
      order.stage = Stage::shipped;
      break;
    case Stage::shipped:
      line = begin("delivered", order) + "}";
      closed = true;
      break;
  }
  if (closed) {
    open_[index] = open_.back();
    open_.pop_back();
  }
  return {std::move(key), std::move(line)};
}

OrderEvent OrderEvents::next() {
  if (open_.empty() || (open_.size() < kOpenOrdersMax && random_.chance(1, 4))) return create();
  return advance();
}

}  // namespace tailrace::load
