// The public handle of a group consumer, and what is checked before there is one.
#include <algorithm>

#include "src/group_reader.h"

namespace tailrace::inline v1 {
namespace {

Error empty_handle() { return make_error(Errc::invalid_argument, "an empty handle: it came from a default constructor"); }
Error bad_option(const std::string& name, const std::string& why) { return make_error(Errc::invalid_argument, name + ": " + why, {{"option", name}}); }

Result<void> handle(const std::function<Result<void>(const Message&)>& handler, const Message& message) {
  try {
    return handler(message);
  } catch (const std::exception& e) {
    return std::unexpected(make_error(Errc::internal, std::string{"the handler threw: "} + e.what()));
  } catch (...) {
    return std::unexpected(make_error(Errc::internal, "the handler threw something that is not a std::exception"));
  }
}

}  // namespace

std::vector<Error> GroupOptions::validate() const {
  std::vector<Error> problems;
  if (const auto* offset = std::get_if<From::Offset>(&start.value()); offset && offset->value < 0) problems.push_back(bad_option("start", "an offset of 0 or more"));
  if (commit_interval <= Milliseconds{0}) problems.push_back(bad_option("commit_interval", "more than 0"));
  if (session_timeout < Milliseconds{1'000} || session_timeout > Milliseconds{1'800'000}) problems.push_back(bad_option("session_timeout", "1 s to 30 min"));
  if (instance.size() > 255) problems.push_back(bad_option("instance", "at most 255 bytes"));
  if (credit_records == 0) problems.push_back(bad_option("credit_records", "at least 1"));
  if (credit_bytes == 0) problems.push_back(bad_option("credit_bytes", "at least 1"));
  return problems;
}

Result<GroupConsumer> Client::group_consumer(std::string_view group, std::vector<std::string> topics, GroupOptions options) {
  if (!core_) return std::unexpected(make_error(Errc::invalid_argument, "an empty client handle"));
  if (auto problems = options.validate(); !problems.empty()) return std::unexpected(std::move(problems.front()));
  if (group.empty() || group.size() > 255) return std::unexpected(bad_option("group", "a name of 1 to 255 bytes"));
  std::ranges::sort(topics);
  if (topics.empty() || topics.size() > 100) return std::unexpected(bad_option("topics", "1 to 100 of them"));
  if (std::ranges::adjacent_find(topics) != topics.end()) return std::unexpected(bad_option("topics", "each once"));
  if (core_->engine()->closing()) return std::unexpected(make_error(Errc::closed, "the client is closed"));
  return GroupConsumer{std::make_shared<detail::GroupReader>(core_, std::string{group}, std::move(topics), std::move(options))};
}

Result<std::optional<Message>> GroupConsumer::next(Milliseconds wait) {
  if (!reader_) return std::unexpected(empty_handle());
  return reader_->next(wait);
}
Result<std::vector<Message>> GroupConsumer::next_batch(std::size_t max, Milliseconds wait) {
  if (!reader_) return std::unexpected(empty_handle());
  return reader_->next_batch(max, wait);
}

Result<void> GroupConsumer::run(const std::function<Result<void>(const Message&)>& handler, std::stop_token stop) {
  if (!reader_) return std::unexpected(empty_handle());
  constexpr Milliseconds kLook{50};  // how late a stop request may be noticed
  auto store = [&]() -> Result<void> {
    if (!reader_->commits_after_processing()) return {};
    return reader_->commit();
  };
  while (!stop.stop_requested()) {
    auto message = next(kLook);
    if (!message) return std::unexpected(std::move(message).error());
    if (!*message) continue;
    auto handled = handle(handler, **message);
    if (handled) continue;
    Error error = std::move(handled).error();
    error.at.try_emplace("topic", std::string{(*message)->topic});
    error.at.try_emplace("partition", std::to_string((*message)->partition));
    error.at.try_emplace("offset", std::to_string((*message)->offset));
    // This message was not handled: it comes again, here or elsewhere.
    (void)reader_->seek(detail::TopicPartition{std::string{(*message)->topic}, (*message)->partition}, From::offset((*message)->offset));
    (void)store();
    return std::unexpected(std::move(error));
  }
  return store();
}

Result<void> GroupConsumer::commit() {
  if (!reader_) return std::unexpected(empty_handle());
  return reader_->commit();
}
Result<void> GroupConsumer::commit(std::span<const Position> offsets) {
  if (!reader_) return std::unexpected(empty_handle());
  return reader_->commit(offsets);
}
Result<void> GroupConsumer::seek(From to) {
  if (!reader_) return std::unexpected(empty_handle());
  return reader_->seek(std::nullopt, to);
}
Result<void> GroupConsumer::seek(const Position& to) {
  if (!reader_) return std::unexpected(empty_handle());
  if (to.offset < 0) return std::unexpected(make_error(Errc::invalid_argument, "the offset is below 0"));
  return reader_->seek(detail::TopicPartition{to.topic, to.partition}, From::offset(to.offset));
}
Result<void> GroupConsumer::pause(std::span<const Position> partitions) {
  if (!reader_) return std::unexpected(empty_handle());
  return reader_->set_paused(partitions, true);
}
Result<void> GroupConsumer::resume(std::span<const Position> partitions) {
  if (!reader_) return std::unexpected(empty_handle());
  return reader_->set_paused(partitions, false);
}
std::vector<Position> GroupConsumer::assignment() const { return reader_ ? reader_->assignment() : std::vector<Position>{}; }
std::string GroupConsumer::member_id() const { return reader_ ? reader_->member_id() : std::string{}; }
bool GroupConsumer::caught_up() const { return reader_ && reader_->caught_up(); }
Result<void> GroupConsumer::close(Milliseconds deadline) {
  if (!reader_) return std::unexpected(empty_handle());
  return reader_->close(deadline);
}

}  // namespace tailrace::inline v1
