#include "tailrace/admin.h"

#include <algorithm>

#include "src/engine.h"
#include "src/translate.h"

namespace tailrace::inline v1 {

using detail::CallPolicy;
using proto::FrameType;

namespace {

detail::Engine* engine_of(const std::shared_ptr<detail::ClientCore>& core) { return core ? core->engine().get() : nullptr; }

template <class Request>
void add_config(Request& request, const std::map<std::string, std::string>& config) {
  for (const auto& [key, value] : config) {
    auto* entry = request.add_config();
    entry->set_key(key);
    entry->set_value(value);
  }
}
std::optional<Instant> time_of(std::int64_t ms) {
  if (ms < 0) return std::nullopt;
  return Instant{Milliseconds{ms}};
}

}  // namespace

Task<TopicSummary> Admin::create_topic(std::string_view name, TopicSpec spec) {
  auto* engine = engine_of(core_);
  if (!engine) return {};
  proto::CreateTopicRequest request;
  request.set_name(std::string{name});
  request.set_partitions(spec.partitions);
  request.set_replicas(spec.replicas);
  request.set_validate_only(spec.validate_only);
  add_config(request, spec.config);
  return engine->call<TopicSummary, proto::CreateTopicRequest, proto::CreateTopicReply>(
      FrameType::create_topic, std::move(request), FrameType::create_topic_reply, CallPolicy::once,
      [](const proto::CreateTopicReply& reply) -> Result<TopicSummary> { return detail::to_summary(reply.topic()); });
}

Task<TopicSummary> Admin::alter_topic(std::string_view name, TopicChange change) {
  auto* engine = engine_of(core_);
  if (!engine) return {};
  proto::AlterTopicRequest request;
  request.set_name(std::string{name});
  request.set_partitions(change.partitions);
  request.set_validate_only(change.validate_only);
  for (const auto& [key, value] : change.set) {
    auto* entry = request.add_set();
    entry->set_key(key);
    entry->set_value(value);
  }
  for (const auto& key : change.unset) request.add_unset(key);
  return engine->call<TopicSummary, proto::AlterTopicRequest, proto::AlterTopicReply>(
      FrameType::alter_topic, std::move(request), FrameType::alter_topic_reply, CallPolicy::once,
      [](const proto::AlterTopicReply& reply) -> Result<TopicSummary> { return detail::to_summary(reply.topic()); });
}

Task<void> Admin::delete_topic(std::string_view name, bool validate_only) {
  auto* engine = engine_of(core_);
  if (!engine) return {};
  proto::DeleteTopicRequest request;
  request.set_name(std::string{name});
  request.set_validate_only(validate_only);
  return engine->call<void, proto::DeleteTopicRequest, proto::DeleteTopicReply>(
      FrameType::delete_topic, std::move(request), FrameType::delete_topic_reply, CallPolicy::once,
      [](const proto::DeleteTopicReply&) -> Result<void> { return {}; });
}

Task<TopicDescription> Admin::describe_topic(std::string_view name) {
  auto* engine = engine_of(core_);
  if (!engine) return {};
  proto::DescribeTopicRequest request;
  request.set_name(std::string{name});
  return engine->call<TopicDescription, proto::DescribeTopicRequest, proto::DescribeTopicReply>(
      FrameType::describe_topic, std::move(request), FrameType::describe_topic_reply, CallPolicy::repeat,
      [](const proto::DescribeTopicReply& reply) -> Result<TopicDescription> {
        TopicDescription out{.topic = detail::to_summary(reply.topic())};
        for (const auto& c : reply.config()) out.config.push_back({.key = c.key(), .value = c.value(), .is_default = c.is_default(), .meaning = c.meaning()});
        for (const auto& p : reply.partitions()) {
          out.partitions.push_back({.partition = p.index(), .leader = p.leader(), .leader_epoch = p.leader_epoch(),
                                    .replicas = {p.replicas().begin(), p.replicas().end()}, .log_start = p.log_start(),
                                    .high_watermark = p.high_watermark(), .log_end = p.log_end(), .bytes = p.bytes(), .segments = p.segments(),
                                    .first_time = time_of(p.first_time_ms()), .last_time = time_of(p.last_time_ms()), .shard = p.shard(),
                                    .damage = p.damage()});
        }
        return out;
      });
}

Task<ClusterDescription> Admin::cluster(bool include_internal) {
  auto* engine = engine_of(core_);
  if (!engine) return {};
  proto::MetadataRequest request;
  request.set_include_internal(include_internal);
  return engine->call<ClusterDescription, proto::MetadataRequest, proto::MetadataReply>(
      FrameType::metadata, std::move(request), FrameType::metadata_reply, CallPolicy::repeat,
      [engine](const proto::MetadataReply& reply) -> Result<ClusterDescription> {
        const auto& broker = engine->link().broker();  // parse runs on the loop
        ClusterDescription out{.cluster_id = broker.cluster_id, .connected_node = broker.node_id, .connected_to = broker.address, .software = broker.software, .features = broker.features};
        for (const auto& b : reply.brokers()) {
          detail::Server server{.host = b.host(), .port = static_cast<std::uint16_t>(b.port())};
          // No host: the address we dialled is the one to use.
          out.brokers.push_back({.node_id = b.node_id(), .address = b.host().empty() ? broker.address : server.to_string()});
        }
        for (const auto& t : reply.topics()) out.topics.push_back(detail::to_summary(t));
        return out;
      });
}

Task<std::vector<TopicSummary>> Admin::list_topics(bool include_internal) {
  auto* engine = engine_of(core_);
  if (!engine) return {};
  proto::MetadataRequest request;
  request.set_include_internal(include_internal);
  return engine->call<std::vector<TopicSummary>, proto::MetadataRequest, proto::MetadataReply>(
      FrameType::metadata, std::move(request), FrameType::metadata_reply, CallPolicy::repeat,
      [](const proto::MetadataReply& reply) -> Result<std::vector<TopicSummary>> {
        std::vector<TopicSummary> out;
        for (const auto& t : reply.topics()) out.push_back(detail::to_summary(t));
        std::ranges::sort(out, {}, &TopicSummary::name);
        return out;
      });
}

Task<std::vector<PartitionOffset>> Admin::delete_records(std::string_view topic, std::span<const PartitionOffset> before, bool validate_only) {
  auto* engine = engine_of(core_);
  if (!engine) return {};
  proto::DeleteRecordsRequest request;
  request.set_topic(std::string{topic});
  request.set_validate_only(validate_only);
  for (const auto& one : before) {
    auto* to = request.add_before();
    to->set_partition(one.partition);
    to->set_offset(one.offset);
  }
  return engine->call<std::vector<PartitionOffset>, proto::DeleteRecordsRequest, proto::DeleteRecordsReply>(
      FrameType::delete_records, std::move(request), FrameType::delete_records_reply, CallPolicy::repeat,
      [](const proto::DeleteRecordsReply& reply) -> Result<std::vector<PartitionOffset>> {
        std::vector<PartitionOffset> out;
        for (const auto& one : reply.log_start()) out.push_back({one.partition(), one.offset()});
        return out;
      });
}

Task<void> Admin::skip_damage(std::string_view topic, std::int32_t partition) {
  auto* engine = engine_of(core_);
  if (!engine) return {};
  proto::SkipDamageRequest request;
  request.set_topic(std::string{topic});
  request.set_partition(partition);
  return engine->call<void, proto::SkipDamageRequest, proto::SkipDamageReply>(FrameType::skip_damage, std::move(request), FrameType::skip_damage_reply, CallPolicy::repeat,
                                                                              [](const proto::SkipDamageReply&) -> Result<void> { return {}; });
}

Task<std::vector<ListedOffset>> Admin::list_offsets(std::string_view topic, From at, std::span<const std::int32_t> partitions) {
  auto* engine = engine_of(core_);
  if (!engine) return {};
  using Offsets = detail::Single<std::vector<ListedOffset>>;
  auto completion = std::make_shared<Offsets>(engine->callbacks());
  if (std::holds_alternative<From::Last>(at.value()) || std::holds_alternative<From::Offset>(at.value())) {
    completion->complete(std::unexpected(make_error(Errc::invalid_argument, "offsets can be listed at earliest, latest or a time")));
    return Task<std::vector<ListedOffset>>{completion};
  }
  auto ask = [weak = engine->weak_from_this(), completion, at, name = std::string{topic}](std::vector<std::int32_t> wanted) {
    auto self = weak.lock();
    if (!self) return;
    auto task = self->call<std::vector<ListedOffset>, proto::ListOffsetsRequest, proto::ListOffsetsReply>(
        FrameType::list_offsets, detail::offsets_request(name, at, wanted), FrameType::list_offsets_reply, CallPolicy::repeat, detail::to_listed);
    detail::pass_on(task, completion);
  };
  if (!partitions.empty()) {
    ask({partitions.begin(), partitions.end()});
    return Task<std::vector<ListedOffset>>{completion};
  }
  // All partitions: which there are must be asked first.
  proto::MetadataRequest request;
  request.add_topics(std::string{topic});
  auto known = engine->call<std::vector<std::int32_t>, proto::MetadataRequest, proto::MetadataReply>(
      FrameType::metadata, std::move(request), FrameType::metadata_reply, CallPolicy::repeat,
      [name = std::string{topic}](const proto::MetadataReply& reply) { return detail::partitions_of(reply, name); });
  detail::when_done(known, [completion, ask](Result<std::vector<std::int32_t>> numbers) {
    if (!numbers) completion->complete(std::unexpected(std::move(numbers).error()));
    else ask(*std::move(numbers));
  });
  return Task<std::vector<ListedOffset>>{completion};
}

}  // namespace tailrace::inline v1
