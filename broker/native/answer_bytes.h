#pragma once
/// What an answer takes, as a message and on the wire, where it grows with what is asked for: known before it is made, so that memory is taken first. 0: it is
/// small. Requests about streams of a connection (seek, unsubscribe, close) never wait: their answers are no larger than what they ask.
#include <algorithm>
#include <set>
#include <string>
#include <string_view>

#include "cluster/catalog.h"
#include "native/messages.h"

namespace tailrace::broker::native {

inline constexpr std::uint64_t kPartitionInfoBytes = 128, kPartitionDescriptionBytes = 512, kTopicBytes = 1'024, kListedOffsetBytes = 192;

[[nodiscard]] inline std::uint64_t topic_bytes(const cluster::Catalog& catalog, const std::string& name) {
  cluster::TopicPointer topic = catalog.find(name);
  return topic ? kTopicBytes + static_cast<std::uint64_t>(topic->partitions) * kPartitionInfoBytes : 0;
}
// What names too much is refused at once, and in few words.
[[nodiscard]] inline bool names_too_much(int count) { return static_cast<std::size_t>(count) > kNamesPerRequestMax; }

// A topic that is named again and again is answered once.
[[nodiscard]] inline std::set<std::string_view> different(const proto::MetadataRequest& request) { return {request.topics().begin(), request.topics().end()}; }

[[nodiscard]] inline std::uint64_t answer_bytes(const cluster::Catalog& catalog, const proto::MetadataRequest& request) {
  if (names_too_much(request.topics_size())) return 0;
  std::uint64_t bytes = 0;
  for (std::string_view name : different(request)) bytes += kTopicBytes / 4 + topic_bytes(catalog, std::string{name});
  if (request.topics_size() == 0) {
    for (const auto& [name, topic] : catalog.by_name) bytes += kTopicBytes + static_cast<std::uint64_t>(topic->partitions) * kPartitionInfoBytes;
  }
  return bytes;
}
[[nodiscard]] inline std::uint64_t answer_bytes(const cluster::Catalog& catalog, const proto::DescribeTopicRequest& request) {
  cluster::TopicPointer topic = catalog.find(request.name());
  return topic ? 16 * kTopicBytes + static_cast<std::uint64_t>(topic->partitions) * (kPartitionInfoBytes + kPartitionDescriptionBytes) : 0;
}
[[nodiscard]] inline std::uint64_t answer_bytes(const cluster::Catalog&, const proto::CreateTopicRequest& request) {
  return static_cast<std::uint64_t>(std::clamp(request.partitions(), 0, limits::kPartitionsPerTopicMax)) * kPartitionInfoBytes;
}
[[nodiscard]] inline std::uint64_t answer_bytes(const cluster::Catalog& catalog, const proto::AlterTopicRequest& request) {
  return topic_bytes(catalog, request.name()) + static_cast<std::uint64_t>(std::clamp(request.partitions(), 0, limits::kPartitionsPerTopicMax)) * kPartitionInfoBytes;
}
[[nodiscard]] inline std::uint64_t answer_bytes(const cluster::Catalog& catalog, const proto::OpenProducerRequest& request) { return topic_bytes(catalog, request.topic()); }
[[nodiscard]] inline std::uint64_t answer_bytes(const cluster::Catalog& catalog, const proto::SubscribeRequest& request) {
  if (names_too_much(request.partitions_size())) return 0;
  return topic_bytes(catalog, request.topic()) + static_cast<std::uint64_t>(request.partitions_size()) * kPartitionInfoBytes;
}
[[nodiscard]] inline std::uint64_t answer_bytes(const cluster::Catalog&, const proto::ListOffsetsRequest& request) {
  return names_too_much(request.queries_size()) ? 0 : static_cast<std::uint64_t>(request.queries_size()) * kListedOffsetBytes;
}
[[nodiscard]] inline std::uint64_t answer_bytes(const cluster::Catalog&, const proto::DeleteRecordsRequest& request) {
  return names_too_much(request.before_size()) ? 0 : static_cast<std::uint64_t>(request.before_size()) * kPartitionInfoBytes;
}

// How much a group's answers hold is known at its coordinator only. A group of ordinary size is paid for; a larger one passes as that.
inline constexpr std::uint64_t kGroupAnswerBytes = 256 * limits::kKiB;
[[nodiscard]] inline std::uint64_t answer_bytes(const cluster::Catalog&, const proto::StoredOffsetsRequest&) { return kGroupAnswerBytes; }
[[nodiscard]] inline std::uint64_t answer_bytes(const cluster::Catalog&, const proto::ListGroupsRequest&) { return kGroupAnswerBytes; }
[[nodiscard]] inline std::uint64_t answer_bytes(const cluster::Catalog&, const proto::DescribeGroupRequest&) { return kGroupAnswerBytes; }

inline constexpr std::uint64_t kListedStreamBytes = limits::kStreamNameBytesMax + 128;
[[nodiscard]] inline std::uint64_t answer_bytes(const cluster::Catalog&, const proto::ListStreamsRequest& request) {
  return std::min<std::uint64_t>(request.limit(), limits::kStreamListMax) * kListedStreamBytes;
}
// One batch is answered whatever its size.
[[nodiscard]] inline std::uint64_t answer_bytes(const cluster::Catalog& catalog, const proto::ReadStreamRequest& request) {
  cluster::TopicPointer topic = catalog.find(request.topic());
  std::uint64_t bytes = request.bytes_max() == 0 ? limits::kStreamReadBytesMax : std::min<std::uint64_t>(request.bytes_max(), limits::kStreamReadBytesMax);
  return topic ? std::max<std::uint64_t>(bytes, topic->config.message_bytes_max) : 0;
}

/// All others.
template <class Request>
[[nodiscard]] std::uint64_t answer_bytes(const cluster::Catalog&, const Request&) {
  return 0;
}

}  // namespace tailrace::broker::native
