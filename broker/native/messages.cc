#include "native/messages.h"

#include <fmt/format.h>
#include <google/protobuf/io/coded_stream.h>

#include <limits>

namespace tailrace::broker::native {

using service::Answer;
using service::refuse;

namespace {

/// Of the outermost message; what is malformed is left for the parser to refuse.
bool has_few_fields(Bytes control) {
  if (control.size() / 2 <= kFieldsMax) return true;
  google::protobuf::io::CodedInputStream in{reinterpret_cast<const std::uint8_t*>(control.data()), static_cast<int>(control.size())};
  for (std::size_t fields = 0; std::uint32_t tag = in.ReadTag(); ++fields) {
    if (fields == kFieldsMax) return false;
    std::uint64_t number = 0;
    std::uint32_t length = 0;
    bool good = true;
    switch (tag & 7) {
      case 0: good = in.ReadVarint64(&number); break;
      case 1: good = in.Skip(8); break;
      case 2: good = in.ReadVarint32(&length) && length <= control.size() && in.Skip(static_cast<int>(length)); break;
      case 5: good = in.Skip(4); break;
      default: break;  // the ends of a group: its fields count like others
    }
    if (!good) break;
  }
  return true;
}

}  // namespace

bool parse(Bytes control, google::protobuf::MessageLite& into) {
  if (!has_few_fields(control)) return false;
  google::protobuf::io::CodedInputStream in{reinterpret_cast<const std::uint8_t*>(control.data()), static_cast<int>(control.size())};
  in.SetRecursionLimit(kRecursionMax);
  return into.ParseFromCodedStream(&in) && in.ConsumedEntireMessage();
}

proto::ErrorReply to_wire(const service::Refusal& refusal, std::uint64_t ticket) {
  const ErrcInfo& info = describe(refusal.code);
  proto::ErrorReply out;
  out.set_code(static_cast<std::uint32_t>(refusal.code));
  std::string_view sentence = info.sentence;
  if (refusal.detail.empty()) {
    out.set_message(std::string{sentence});
  } else {
    if (sentence.ends_with('.')) sentence.remove_suffix(1);
    out.set_message(fmt::format("{}: {}", sentence, refusal.detail));
  }
  out.set_retriable(info.retriable);
  out.set_maybe_applied(info.maybe_applied);
  out.set_hint(std::string{info.hint});
  for (const service::Fact& fact : refusal.facts) {
    proto::Fact& to = *out.add_facts();
    to.set_name(fact.name);
    to.set_value(fact.value);
  }
  out.set_ticket(ticket);
  return out;
}

namespace {

proto::DurabilityKind to_wire(Durability durability) {
  switch (durability) {
    case Durability::quorum: return proto::DURABILITY_QUORUM;
    case Durability::leader: return proto::DURABILITY_LEADER;
    case Durability::relaxed: return proto::DURABILITY_RELAXED;
  }
  return proto::DURABILITY_QUORUM;
}

Answer<void> check_count(int count, std::size_t most, std::string_view what) {
  if (static_cast<std::size_t>(count) <= most) return {};
  return refuse(Errc::invalid_argument, fmt::format("{} {} in one request, at most {}", count, what, most));
}

std::vector<service::KeyValue> key_values(google::protobuf::RepeatedPtrField<proto::ConfigEntry>&& entries) {
  std::vector<service::KeyValue> out;
  out.reserve(static_cast<std::size_t>(entries.size()));
  for (proto::ConfigEntry& entry : entries) out.push_back({std::move(*entry.mutable_key()), std::move(*entry.mutable_value())});
  return out;
}

}  // namespace

void to_wire(const cluster::Topic& topic, NodeId leader, proto::TopicInfo& out) {
  out.set_name(topic.name);
  out.set_id(topic.id.bytes.data(), topic.id.bytes.size());
  for (std::int32_t i = 0; i < topic.partitions; ++i) {
    proto::PartitionInfo& partition = *out.add_partitions();
    partition.set_index(i);
    partition.set_leader(leader.value());
    partition.set_leader_epoch(-1);  // asked for by describe_topic or list_offsets: it is the partition's own knowledge
  }
  out.set_durability(to_wire(topic.config.durability));
  out.set_timestamp_type(topic.config.timestamp_type == TimestampType::log_append_time ? proto::TIMESTAMP_LOG_APPEND_TIME
                                                                                       : proto::TIMESTAMP_CREATE_TIME);
  out.set_message_bytes_max(topic.config.message_bytes_max);
  out.set_internal(topic.internal);
}

void to_wire(const service::TopicDescription& description, NodeId leader, proto::DescribeTopicReply& out) {
  to_wire(*description.topic, leader, *out.mutable_topic());
  for (const service::ConfigValue& value : description.config) {
    proto::ConfigValue& to = *out.add_config();
    to.set_key(value.key);
    to.set_value(value.value);
    to.set_is_default(value.is_default);
    to.set_meaning(value.meaning);
  }
  for (const service::PartitionDescription& partition : description.partitions) {
    proto::PartitionDescription& to = *out.add_partitions();
    to.set_index(partition.index.value());
    to.set_leader(partition.leader.value());
    to.set_leader_epoch(partition.leader_epoch.value());
    for (NodeId replica : partition.replicas) to.add_replicas(replica.value());
    to.set_log_start(partition.log_start.value());
    to.set_high_watermark(partition.high_watermark.value());
    to.set_log_end(partition.log_end.value());
    to.set_bytes(partition.bytes);
    to.set_segments(partition.segments);
    to.set_first_time_ms(partition.first_time_ms);
    to.set_last_time_ms(partition.last_time_ms);
    to.set_shard(partition.shard.value());
    to.set_damage(partition.damage);
  }
}

void to_wire(PartitionIndex asked, const Answer<service::ListedOffset>& answer, proto::ListedOffset& out) {
  out.set_partition(asked.value());
  if (!answer) {
    *out.mutable_error() = to_wire(answer.error());
    out.set_time_ms(-1);
    out.set_offset(-1);
    out.set_leader_epoch(-1);
    return;
  }
  out.set_offset(answer->offset.value());
  out.set_time_ms(answer->time_ms);
  out.set_leader_epoch(answer->leader_epoch.value());
}

Answer<service::CreateTopicRequest> from_wire(proto::CreateTopicRequest&& in) {
  if (auto ok = check_count(in.config_size(), kConfigEntriesMax, "configuration entries"); !ok) return std::unexpected{ok.error()};
  return service::CreateTopicRequest{.name = std::move(*in.mutable_name()),
                                     .partitions = in.partitions(),
                                     .replicas = in.replicas(),
                                     .config = key_values(std::move(*in.mutable_config())),
                                     .validate_only = in.validate_only()};
}

Answer<service::AlterTopicRequest> from_wire(proto::AlterTopicRequest&& in) {
  if (auto ok = check_count(in.set_size(), kConfigEntriesMax, "configuration entries"); !ok) return std::unexpected{ok.error()};
  if (auto ok = check_count(in.unset_size(), kConfigEntriesMax, "configuration keys"); !ok) return std::unexpected{ok.error()};
  service::AlterTopicRequest out{.name = std::move(*in.mutable_name()),
                                 .partitions = in.partitions(),
                                 .set = key_values(std::move(*in.mutable_set())),
                                 .validate_only = in.validate_only()};
  for (std::string& key : *in.mutable_unset()) out.unset.push_back(std::move(key));
  return out;
}

Answer<service::DeleteRecordsRequest> from_wire(proto::DeleteRecordsRequest&& in) {
  if (auto ok = check_count(in.before_size(), kNamesPerRequestMax, "partitions"); !ok) return std::unexpected{ok.error()};
  service::DeleteRecordsRequest out{.topic = std::move(*in.mutable_topic()), .before = {}, .validate_only = in.validate_only()};
  for (const proto::PartitionOffset& one : in.before()) out.before.push_back({PartitionIndex{one.partition()}, Offset{one.offset()}});
  return out;
}

Answer<std::vector<service::ListOffsetsQuery>> from_wire(const proto::ListOffsetsRequest& in) {
  if (auto ok = check_count(in.queries_size(), kNamesPerRequestMax, "queries"); !ok) return std::unexpected{ok.error()};
  std::vector<service::ListOffsetsQuery> out;
  for (const proto::ListOffsetsQuery& query : in.queries()) {
    service::Position at;
    switch (query.at_case()) {
      case proto::ListOffsetsQuery::kStart:
      case proto::ListOffsetsQuery::AT_NOT_SET: at.kind = service::Position::Kind::start; break;
      case proto::ListOffsetsQuery::kEnd: at.kind = service::Position::Kind::end; break;
      case proto::ListOffsetsQuery::kTimeMs: at = {service::Position::Kind::time, query.time_ms()}; break;
    }
    out.push_back({PartitionIndex{query.partition()}, at});
  }
  return out;
}

Answer<service::OpenProducerRequest> from_wire(proto::OpenProducerRequest&& in) {
  service::OpenProducerRequest out{.topic = std::move(*in.mutable_topic()), .idempotent = !in.not_idempotent()};
  if (in.has_producer_id()) {
    constexpr auto kEpochMax = std::numeric_limits<std::int16_t>::max();
    if (in.producer_id() < 0 || in.producer_epoch() < 0 || in.producer_epoch() > kEpochMax)
      return refuse(Errc::invalid_argument, fmt::format("producer id {} with epoch {}", in.producer_id(), in.producer_epoch()));
    out.producer_id = ProducerId{in.producer_id()};
    out.producer_epoch = ProducerEpoch{static_cast<std::int16_t>(in.producer_epoch())};
  }
  return out;
}

service::Position from_wire(const proto::StartAt& in) {
  using Kind = service::Position::Kind;
  switch (in.at_case()) {
    case proto::StartAt::kOffset: return {Kind::exact, in.offset()};
    case proto::StartAt::kEnd: return {Kind::end, 0};
    case proto::StartAt::kTimeMs: return {Kind::time, in.time_ms()};
    case proto::StartAt::kLast:
      return {Kind::last, static_cast<std::int64_t>(std::min<std::uint64_t>(in.last(), std::numeric_limits<std::int64_t>::max()))};
    case proto::StartAt::kStart:
    case proto::StartAt::AT_NOT_SET: break;
  }
  return {Kind::start, 0};
}

}  // namespace tailrace::broker::native
