// The public handles of producers and consumers: they forward to what stands behind them.
#include "src/producer_core.h"
#include "src/subscription.h"
#include "src/resolve.h"

namespace tailrace::inline v1 {
namespace {

Error empty_handle() { return make_error(Errc::invalid_argument, "an empty handle: it came from a default constructor"); }

}  // namespace

namespace detail {

ProducerCore::~ProducerCore() {
  auto report = close(Milliseconds{5'000});
  if (report.undelivered + report.unknown > 0) {
    publisher_->engine().event({ClientEvent::Level::warn, ClientEvent::Kind::closed,
                                "a producer was destroyed with " + std::to_string(report.undelivered) + " records undelivered and " +
                                    std::to_string(report.unknown) + " of unknown outcome"});
  }
}
CloseReport ProducerCore::close(Milliseconds deadline) { return publisher_->engine().close_part(publisher_, deadline); }

}  // namespace detail

Task<Receipt> Producer::send(const RecordView& record) {
  if (!core_) return {};
  return (*core_)->send(record);
}
Result<Task<Receipt>> Producer::try_send(const RecordView& record) {
  if (!core_) return std::unexpected(empty_handle());
  return (*core_)->try_send(record);
}
Task<std::vector<Receipt>> Producer::send_batch(std::span<const Record> records) {
  if (!core_) return {};
  return (*core_)->send_batch(records);
}
Result<void> Producer::post(const RecordView& record, std::uint64_t tag) {
  if (!core_) return std::unexpected(empty_handle());
  return (*core_)->post(record, tag);
}
Task<std::vector<Receipt>> Producer::send_if_end(std::string_view topic, std::int32_t partition, std::int64_t end_offset,
                                                 std::span<const Record> records) {
  if (!core_) return {};
  return (*core_)->send_if_end(topic, partition, end_offset, records);
}
Result<void> Producer::flush(Milliseconds deadline) {
  if (!core_) return std::unexpected(empty_handle());
  return (*core_)->flush(deadline);
}
Result<CloseReport> Producer::close(Milliseconds deadline) {
  if (!core_) return std::unexpected(empty_handle());
  return core_->close(deadline);
}
std::optional<Durability> Producer::durability(std::string_view topic) const {
  if (!core_) return std::nullopt;
  return (*core_)->durability(topic);
}
std::uint64_t Producer::pending() const { return core_ ? (*core_)->pending() : 0; }

Result<std::optional<Message>> Consumer::next(Milliseconds wait) {
  if (!core_) return std::unexpected(empty_handle());
  return (*core_)->next(wait);
}
Result<std::vector<Message>> Consumer::next_batch(std::size_t max, Milliseconds wait) {
  if (!core_) return std::unexpected(empty_handle());
  return (*core_)->next_batch(max, wait);
}
Task<Message> Consumer::next() {
  if (!core_) return {};
  return (*core_)->next();
}
Task<std::vector<Message>> Consumer::next_batch(std::size_t max) {
  if (!core_) return {};
  return (*core_)->next_batch(max);
}

Result<void> Consumer::run(const std::function<Result<void>(const Message&)>& handler, std::stop_token stop) {
  if (!core_) return std::unexpected(empty_handle());
  constexpr Milliseconds kLook{50};  // how late a stop request may be noticed
  while (!stop.stop_requested()) {
    auto message = next(kLook);
    if (!message) return std::unexpected(std::move(message).error());
    if (!*message) {
      if (finished()) return {};
      continue;
    }
    Result<void> handled;
    try {
      handled = handler(**message);
    } catch (const std::exception& e) {
      handled = std::unexpected(make_error(Errc::internal, std::string{"the handler threw: "} + e.what()));
    } catch (...) {
      handled = std::unexpected(make_error(Errc::internal, "the handler threw something that is not a std::exception"));
    }
    if (!handled) {
      Error error = std::move(handled).error();
      error.at.try_emplace("topic", std::string{(*message)->topic});
      error.at.try_emplace("partition", std::to_string((*message)->partition));
      error.at.try_emplace("offset", std::to_string((*message)->offset));
      return std::unexpected(std::move(error));
    }
  }
  return {};
}

Result<void> Consumer::seek(From to) {
  if (!core_) return std::unexpected(empty_handle());
  std::vector<detail::Subscription::Move> moves;
  for (std::int32_t partition : (*core_)->partition_numbers()) moves.push_back({.partition = partition, .to = to, .keep_until = true, .until = {}});
  return (*core_)->move(std::move(moves));
}
Result<void> Consumer::seek(const Position& to) {
  if (!core_) return std::unexpected(empty_handle());
  if (!to.topic.empty() && to.topic != (*core_)->topic()) {
    return std::unexpected(make_error(Errc::invalid_argument, "this consumer reads " + (*core_)->topic() + ", not " + to.topic));
  }
  if (to.offset < 0) return std::unexpected(make_error(Errc::invalid_argument, "the offset is below 0"));
  return (*core_)->move({{.partition = to.partition, .to = From::offset(to.offset), .keep_until = true, .until = {}}});
}
Result<void> Consumer::replay(From from, From until) {
  if (!core_) return std::unexpected(empty_handle());
  auto& subscription = **core_;
  auto numbers = subscription.partition_numbers();
  auto deadline = detail::Clock::now() + subscription.engine().options().request_timeout;
  auto untils = detail::resolve_until(subscription.engine(), subscription.topic(), until, numbers, deadline);
  if (!untils) return std::unexpected(std::move(untils).error());
  std::vector<detail::Subscription::Move> moves;
  for (std::size_t i = 0; i < numbers.size(); ++i) moves.push_back({.partition = numbers[i], .to = from, .keep_until = false, .until = (*untils)[i]});
  return subscription.move(std::move(moves));
}

Result<void> Consumer::pause(std::span<const std::int32_t> partitions) {
  if (!core_) return std::unexpected(empty_handle());
  return (*core_)->set_paused(partitions, true);
}
Result<void> Consumer::resume(std::span<const std::int32_t> partitions) {
  if (!core_) return std::unexpected(empty_handle());
  return (*core_)->set_paused(partitions, false);
}
std::vector<PartitionProgress> Consumer::positions() const {
  if (!core_) return {};
  return (*core_)->positions();
}
bool Consumer::caught_up() const { return core_ && (*core_)->caught_up(); }
bool Consumer::finished() const { return core_ && (*core_)->finished(); }
Result<void> Consumer::close(Milliseconds deadline) {
  if (!core_) return std::unexpected(empty_handle());
  core_->close(deadline);
  return {};
}

Record Message::to_record(std::string to_topic) const {
  Record out{.topic = std::move(to_topic), .headers = headers, .time = time};
  if (key) out.key.emplace(as_text(*key));
  if (value) out.value.emplace(as_text(*value));
  return out;
}

}  // namespace tailrace::inline v1
