#include "src/translate.h"

#include <algorithm>

namespace tailrace::inline v1::detail {

TopicSummary to_summary(const proto::TopicInfo& topic) {
  TopicSummary out{.name = topic.name(), .message_bytes_max = topic.message_bytes_max(), .internal = topic.internal()};
  constexpr char kHex[] = "0123456789abcdef";
  for (unsigned char c : topic.id()) {
    out.id += kHex[c >> 4];
    out.id += kHex[c & 15];
  }
  for (const auto& p : topic.partitions()) out.partitions.push_back({.partition = p.index(), .leader = p.leader(), .leader_epoch = p.leader_epoch()});
  switch (topic.durability()) {
    case proto::DURABILITY_LEADER: out.durability = Durability::leader; break;
    case proto::DURABILITY_RELAXED: out.durability = Durability::relaxed; break;
    default: out.durability = Durability::quorum; break;
  }
  out.timestamp_type = topic.timestamp_type() == proto::TIMESTAMP_LOG_APPEND_TIME ? TimestampType::log_append_time : TimestampType::create_time;
  return out;
}

Result<std::vector<std::int32_t>> partitions_of(const proto::MetadataReply& reply, const std::string& topic) {
  for (const auto& one : reply.topics()) {
    if (one.name() != topic) continue;
    std::vector<std::int32_t> numbers;
    for (const auto& p : one.partitions()) numbers.push_back(p.index());
    std::ranges::sort(numbers);
    return numbers;
  }
  return std::unexpected(make_error(Errc::no_such_topic, "topic \"" + topic + "\" does not exist", {{"topic", topic}}));
}

proto::ListOffsetsRequest offsets_request(const std::string& topic, const From& at, std::span<const std::int32_t> partitions) {
  proto::ListOffsetsRequest request;
  request.set_topic(topic);
  for (std::int32_t partition : partitions) {
    auto* query = request.add_queries();
    query->set_partition(partition);
    if (std::holds_alternative<From::Latest>(at.value())) query->set_end(true);
    else if (const auto* time = std::get_if<From::Time>(&at.value())) query->set_time_ms(time->value.time_since_epoch().count());
    else query->set_start(true);
  }
  return request;
}

Result<std::vector<ListedOffset>> to_listed(const proto::ListOffsetsReply& reply) {
  std::vector<ListedOffset> out;
  for (const auto& one : reply.offsets()) {
    if (one.has_error()) return std::unexpected(to_error(one.error()));
    ListedOffset listed{.partition = one.partition(), .offset = one.offset(), .leader_epoch = one.leader_epoch()};
    if (one.time_ms() >= 0) listed.time = Instant{Milliseconds{one.time_ms()}};
    out.push_back(listed);
  }
  return out;
}

}  // namespace tailrace::inline v1::detail
