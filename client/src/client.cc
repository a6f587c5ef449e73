#include "tailrace/client.h"

#include <algorithm>
#include <cstdlib>
#include <set>

#include "model/topic.h"
#include "src/producer_core.h"
#include "src/resolve.h"
#include "src/subscription.h"
#include "src/translate.h"

namespace tailrace::inline v1 {

using detail::CallPolicy;
using proto::FrameType;

namespace detail {

Result<std::vector<std::int64_t>> resolve_until(Engine& engine, const std::string& topic, const From& until,
                                                std::span<const std::int32_t> partitions, TimePoint deadline) {
  if (const auto* offset = std::get_if<From::Offset>(&until.value())) {
    if (offset->value < 0) return std::unexpected(make_error(Errc::invalid_argument, "until: the offset is below 0"));
    return std::vector<std::int64_t>(partitions.size(), offset->value);
  }
  if (!std::holds_alternative<From::Latest>(until.value()) && !std::holds_alternative<From::Time>(until.value())) {
    return std::unexpected(make_error(Errc::invalid_argument, "until: an offset, a time or latest"));
  }
  auto task = engine.call<std::vector<ListedOffset>, proto::ListOffsetsRequest, proto::ListOffsetsReply>(
      FrameType::list_offsets, offsets_request(topic, until, partitions), FrameType::list_offsets_reply, CallPolicy::repeat, to_listed);
  auto listed = task.get_for(std::chrono::duration_cast<Milliseconds>(deadline - Clock::now()));
  if (!listed) return std::unexpected(make_error(Errc::timeout, "the offsets of " + topic + " were not answered in time"));
  if (!*listed) return std::unexpected((*listed).error());
  std::vector<std::int64_t> offsets;
  for (std::int32_t partition : partitions) {
    auto at = std::ranges::find(**listed, partition, &ListedOffset::partition);
    if (at == (*listed)->end()) return std::unexpected(make_error(Errc::protocol, "no answer for partition " + std::to_string(partition)));
    offsets.push_back(at->offset);
  }
  return offsets;
}

}  // namespace detail

namespace {

Error bad_option(const std::string& name, const std::string& why) {
  return make_error(Errc::invalid_argument, name + ": " + why, {{"option", name}});
}

std::vector<std::string> split(std::string_view text) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    auto comma = text.find(',');
    auto part = text.substr(0, comma);
    while (part.starts_with(' ')) part.remove_prefix(1);
    while (part.ends_with(' ')) part.remove_suffix(1);
    if (!part.empty()) parts.emplace_back(part);
    text = comma == std::string_view::npos ? std::string_view{} : text.substr(comma + 1);
  }
  return parts;
}

}  // namespace

Result<ClientOptions> ClientOptions::load() {
  ClientOptions options;
  if (const char* servers = std::getenv("TAILRACE_SERVERS"); servers && *servers) options.servers = split(servers);
  if (const char* id = std::getenv("TAILRACE_CLIENT_ID"); id && *id) options.client_id = id;
  if (auto problems = options.validate(); !problems.empty()) return std::unexpected(std::move(problems.front()));
  return options;
}

std::vector<Error> ClientOptions::validate() const {
  std::vector<Error> problems;
  if (servers.empty()) problems.push_back(bad_option("servers", "at least one host:port"));
  for (const auto& server : servers) {
    if (!detail::parse_server(server)) problems.push_back(bad_option("servers", "\"" + server + "\" is not host:port"));
  }
  if (client_id.size() > 256) problems.push_back(bad_option("client_id", "at most 256 bytes"));
  if (connect_timeout <= Milliseconds{0}) problems.push_back(bad_option("connect_timeout", "more than 0"));
  if (request_timeout <= Milliseconds{0}) problems.push_back(bad_option("request_timeout", "more than 0"));
  if (unreachable_after < Milliseconds{0}) problems.push_back(bad_option("unreachable_after", "0 or more"));
  if (reconnect_backoff <= Milliseconds{0}) problems.push_back(bad_option("reconnect_backoff", "more than 0"));
  if (reconnect_backoff_max < reconnect_backoff) problems.push_back(bad_option("reconnect_backoff_max", "at least reconnect_backoff"));
  if (memory_limit < 64 * 1024) problems.push_back(bad_option("memory_limit", "at least 64 KiB"));
  return problems;
}

std::vector<Error> ProducerOptions::validate() const {
  std::vector<Error> problems;
  if (linger < Milliseconds{0}) problems.push_back(bad_option("linger", "0 or more"));
  if (delivery_timeout <= Milliseconds{0}) problems.push_back(bad_option("delivery_timeout", "more than 0"));
  if (linger >= delivery_timeout) problems.push_back(bad_option("linger", "less than delivery_timeout"));
  if (batch_bytes < 256) problems.push_back(bad_option("batch_bytes", "at least 256"));
  if (batch_bytes > broker::limits::kMessageBytesCeiling) {
    problems.push_back(bad_option("batch_bytes", "at most " + std::to_string(broker::limits::kMessageBytesCeiling)));
  }
  return problems;
}

std::vector<Error> ConsumerOptions::validate() const {
  std::vector<Error> problems;
  std::set<std::int32_t> seen;
  for (std::int32_t partition : partitions) {
    if (partition < 0) problems.push_back(bad_option("partitions", "0 or more"));
    if (!seen.insert(partition).second) problems.push_back(bad_option("partitions", "each once, not " + std::to_string(partition) + " twice"));
  }
  auto check_from = [&](const From& from, const std::string& name) {
    if (const auto* offset = std::get_if<From::Offset>(&from.value()); offset && offset->value < 0) problems.push_back(bad_option(name, "an offset of 0 or more"));
  };
  auto check_until = [&](const From& from, const std::string& name) {
    check_from(from, name);
    if (std::holds_alternative<From::Earliest>(from.value()) || std::holds_alternative<From::Last>(from.value())) {
      problems.push_back(bad_option(name, "an offset, a time or latest"));
    }
  };
  check_from(start, "start");
  if (until) check_until(*until, "until");
  std::set<std::int32_t> started;
  for (const auto& one : starts) {
    check_from(one.start, "starts");
    if (one.until) check_until(*one.until, "starts");
    if (!started.insert(one.partition).second) problems.push_back(bad_option("starts", "each partition once"));
    if (!partitions.empty() && !seen.contains(one.partition)) problems.push_back(bad_option("starts", "partition " + std::to_string(one.partition) + " is not one of `partitions`"));
  }
  if (credit_records == 0) problems.push_back(bad_option("credit_records", "at least 1"));
  if (credit_bytes == 0) problems.push_back(bad_option("credit_bytes", "at least 1"));
  return problems;
}

Result<Client> Client::open(ClientOptions options) {
  if (auto problems = options.validate(); !problems.empty()) return std::unexpected(std::move(problems.front()));
  std::vector<detail::Server> servers;
  for (const auto& server : options.servers) servers.push_back(*detail::parse_server(server));
  auto engine = detail::Engine::start(std::move(options), std::move(servers));
  return Client{std::make_shared<detail::ClientCore>(std::move(engine))};
}

Task<void> Client::connected() {
  if (!core_) return {};
  auto& engine = *core_->engine();
  auto completion = std::make_shared<detail::Single<void>>(engine.callbacks());
  auto deadline = detail::Clock::now() + engine.options().request_timeout;
  bool posted = engine.post([weak = engine.weak_from_this(), completion, deadline] {
    if (auto self = weak.lock()) self->link().when_up(deadline, [completion](Result<void> result) { completion->complete(std::move(result)); });
  });
  if (!posted) completion->complete(std::unexpected(make_error(Errc::closed, "the client is closed")));
  return Task<void>{completion};
}

Result<Producer> Client::producer(ProducerOptions options) {
  if (!core_) return std::unexpected(make_error(Errc::invalid_argument, "an empty client handle"));
  if (auto problems = options.validate(); !problems.empty()) return std::unexpected(std::move(problems.front()));
  if (core_->engine()->closing()) return std::unexpected(make_error(Errc::closed, "the client is closed"));
  auto publisher = detail::Engine::make_part<detail::Publisher>(core_->engine(), std::move(options));
  publisher->start();
  return Producer{std::make_shared<detail::ProducerCore>(core_, std::move(publisher))};
}

Result<Consumer> Client::consumer(std::string_view topic, ConsumerOptions options) {
  if (!core_) return std::unexpected(make_error(Errc::invalid_argument, "an empty client handle"));
  if (auto problems = options.validate(); !problems.empty()) return std::unexpected(std::move(problems.front()));
  auto& engine = *core_->engine();
  if (engine.closing()) return std::unexpected(make_error(Errc::closed, "the client is closed"));
  std::string name{topic};
  auto deadline = detail::Clock::now() + engine.options().request_timeout;
  proto::MetadataRequest request;
  request.add_topics(name);
  request.set_include_internal(true);
  auto known = engine
                   .call<std::vector<std::int32_t>, proto::MetadataRequest, proto::MetadataReply>(
                       FrameType::metadata, std::move(request), FrameType::metadata_reply, CallPolicy::repeat,
                       [name](const proto::MetadataReply& reply) { return detail::partitions_of(reply, name); })
                   .get();
  if (!known) return std::unexpected(std::move(known).error());
  std::vector<std::int32_t> numbers = options.partitions.empty() ? *known : options.partitions;
  for (std::int32_t number : numbers) {
    if (std::ranges::find(*known, number) == known->end()) {
      return std::unexpected(make_error(Errc::no_such_partition, name + " has " + std::to_string(known->size()) + " partitions, not one numbered " + std::to_string(number),
                                        {{"topic", name}, {"partition", std::to_string(number)}}));
    }
  }
  for (const auto& one : options.starts) {
    if (std::ranges::find(numbers, one.partition) == numbers.end()) {
      return std::unexpected(make_error(Errc::no_such_partition, "starts: " + name + " has no partition " + std::to_string(one.partition)));
    }
  }
  std::vector<detail::ReadPartition> partitions;
  // Partitions with the same kind of end are asked about together.
  std::vector<std::pair<From, std::vector<std::size_t>>> untils;
  for (std::int32_t number : numbers) {
    detail::ReadPartition partition{.index = number, .start = options.start};
    std::optional<From> until = options.until;
    if (auto own = std::ranges::find(options.starts, number, &PartitionStart::partition); own != options.starts.end()) {
      partition.start = own->start;
      if (own->until) until = own->until;
    }
    if (const auto* offset = std::get_if<From::Offset>(&partition.start.value())) partition.fetch = partition.next = offset->value;
    if (until) {
      auto group = std::ranges::find(untils, *until, &std::pair<From, std::vector<std::size_t>>::first);
      if (group == untils.end()) group = untils.insert(untils.end(), {*until, {}});
      group->second.push_back(partitions.size());
    }
    partitions.push_back(std::move(partition));
  }
  for (const auto& [until, members] : untils) {
    std::vector<std::int32_t> asked;
    for (std::size_t i : members) asked.push_back(partitions[i].index);
    auto offsets = detail::resolve_until(engine, name, until, asked, deadline);
    if (!offsets) return std::unexpected(std::move(offsets).error());
    for (std::size_t i = 0; i < members.size(); ++i) partitions[members[i]].until = (*offsets)[i];
  }
  auto subscription = detail::Engine::make_part<detail::Subscription>(core_->engine(), std::move(name), std::move(options), std::move(partitions));
  auto core = std::make_shared<detail::ConsumerCore>(core_, subscription);
  if (auto started = subscription->start(deadline); !started) return std::unexpected(std::move(started).error());
  return Consumer{std::move(core)};
}

Admin Client::admin() { return Admin{core_}; }

Result<CloseReport> Client::close(Milliseconds deadline) {
  if (!core_) return std::unexpected(make_error(Errc::invalid_argument, "an empty client handle"));
  return core_->engine()->close(deadline);
}

}  // namespace tailrace::inline v1
