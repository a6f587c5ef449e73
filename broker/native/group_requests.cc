#include "native/group_requests.h"

#include <fmt/format.h>

namespace tailrace::broker::native {

using service::Answer;
using service::refuse;

namespace {

using WirePartitions = google::protobuf::RepeatedPtrField<proto::TopicPartitions>;

Answer<std::vector<service::TopicPartitions>> from_wire(WirePartitions&& in) {
  std::vector<service::TopicPartitions> out;
  std::size_t total = 0;
  for (proto::TopicPartitions& some : in) {
    total += static_cast<std::size_t>(some.partitions_size());
    if (total > limits::kGroupPartitionsMax || out.size() >= kNamesPerRequestMax) return refuse(Errc::too_many, "partitions in one request");
    service::TopicPartitions& to = out.emplace_back(service::TopicPartitions{std::move(*some.mutable_topic()), {}});
    for (std::int32_t index : some.partitions()) to.partitions.push_back(PartitionIndex{index});
  }
  return out;
}
void to_wire(const std::vector<service::TopicPartitions>& in, WirePartitions& out) {
  for (const service::TopicPartitions& some : in) {
    proto::TopicPartitions& to = *out.Add();
    to.set_topic(some.topic);
    for (PartitionIndex index : some.partitions) to.add_partitions(index.value());
  }
}

group::OutOfRange from_wire(proto::OutOfRange in) {
  switch (in) {
    case proto::OUT_OF_RANGE_EARLIEST: return group::OutOfRange::earliest;
    case proto::OUT_OF_RANGE_LATEST: return group::OutOfRange::latest;
    default: return group::OutOfRange::error;
  }
}
proto::OutOfRange to_wire(group::OutOfRange in) {
  switch (in) {
    case group::OutOfRange::error: return proto::OUT_OF_RANGE_ERROR;
    case group::OutOfRange::earliest: return proto::OUT_OF_RANGE_EARLIEST;
    case group::OutOfRange::latest: return proto::OUT_OF_RANGE_LATEST;
  }
  return proto::OUT_OF_RANGE_ERROR;
}
proto::GroupAssignor to_wire(group::Assignor in) { return in == group::Assignor::range ? proto::ASSIGNOR_RANGE : proto::ASSIGNOR_STICKY; }
proto::GroupStateKind to_wire(service::GroupState in) {
  switch (in) {
    case service::GroupState::empty: return proto::GROUP_EMPTY;
    case service::GroupState::moving: return proto::GROUP_MOVING;
    case service::GroupState::stable: return proto::GROUP_STABLE;
  }
  return proto::GROUP_EMPTY;
}

std::vector<service::PartitionCommit> from_wire(google::protobuf::RepeatedPtrField<proto::CommitOffset>&& in) {
  std::vector<service::PartitionCommit> out;
  for (proto::CommitOffset& one : in) {
    out.push_back({.topic = std::move(*one.mutable_topic()), .partition = PartitionIndex{one.partition()}, .offset = Offset{one.offset()},
                   .leader_epoch = LeaderEpoch{one.has_leader_epoch() ? one.leader_epoch() : -1}, .metadata = std::move(*one.mutable_metadata())});
  }
  return out;
}

}  // namespace

Task<Answer<proto::JoinGroupReply>> join_group(Caller caller, proto::JoinGroupRequest request) {
  if (static_cast<std::size_t>(request.topics_size()) > limits::kGroupTopicsMax) {
    co_return refuse(Errc::invalid_argument, fmt::format("{} topics; a member reads at most {}", request.topics_size(), limits::kGroupTopicsMax));
  }
  service::JoinGroup join{.group = std::move(*request.mutable_group()), .member = std::move(*request.mutable_member()), .instance = std::move(*request.mutable_instance()),
                          .topics = {}, .session_timeout = std::chrono::milliseconds{request.session_timeout_ms()},
                          .assignor = request.assignor() == proto::ASSIGNOR_RANGE ? group::Assignor::range : group::Assignor::sticky,
                          .out_of_range = from_wire(request.out_of_range())};
  for (std::string& topic : *request.mutable_topics()) join.topics.push_back(std::move(topic));
  auto beat = co_await caller.service.join_group(std::move(join));
  if (!beat) co_return std::unexpected(std::move(beat).error());
  proto::JoinGroupReply reply;
  reply.set_member(beat->member);
  reply.set_generation(beat->generation);
  to_wire(beat->assignment, *reply.mutable_assignment());
  reply.set_out_of_range(to_wire(beat->out_of_range));
  co_return reply;
}

Task<Answer<proto::GroupHeartbeatReply>> group_heartbeat(Caller caller, proto::GroupHeartbeatRequest request) {
  auto owned = from_wire(std::move(*request.mutable_owned()));
  if (!owned) co_return std::unexpected(std::move(owned).error());
  service::GroupHeartbeat heartbeat{.group = std::move(*request.mutable_group()), .member = std::move(*request.mutable_member()), .generation = request.generation(),
                                    .owned = *std::move(owned), .wait_until = caller.runtime.clock.now() + std::chrono::milliseconds{request.wait_ms()}};
  auto beat = co_await caller.service.group_heartbeat(std::move(heartbeat));
  if (!beat) co_return std::unexpected(std::move(beat).error());
  proto::GroupHeartbeatReply reply;
  reply.set_generation(beat->generation);
  to_wire(beat->assignment, *reply.mutable_assignment());
  reply.set_out_of_range(to_wire(beat->out_of_range));
  co_return reply;
}

Task<Answer<proto::LeaveGroupReply>> leave_group(Caller caller, proto::LeaveGroupRequest request) {
  auto done = co_await caller.service.leave_group(std::move(*request.mutable_group()), std::move(*request.mutable_member()));
  if (!done) co_return std::unexpected(std::move(done).error());
  co_return proto::LeaveGroupReply{};
}

Task<Answer<proto::CommitOffsetsReply>> commit_offsets(Caller caller, proto::CommitOffsetsRequest request) {
  service::CommitOffsets commit{.group = std::move(*request.mutable_group()), .member = std::move(*request.mutable_member()), .generation = request.generation(),
                                .offsets = from_wire(std::move(*request.mutable_offsets()))};
  auto done = co_await caller.service.commit_offsets(std::move(commit));
  if (!done) co_return std::unexpected(std::move(done).error());
  co_return proto::CommitOffsetsReply{};
}

Task<Answer<proto::StoredOffsetsReply>> stored_offsets(Caller caller, proto::StoredOffsetsRequest request) {
  auto of = from_wire(std::move(*request.mutable_partitions()));
  if (!of) co_return std::unexpected(std::move(of).error());
  auto stored = co_await caller.service.stored_offsets(std::move(*request.mutable_group()), *std::move(of));
  if (!stored) co_return std::unexpected(std::move(stored).error());
  proto::StoredOffsetsReply reply;
  for (service::StoredOffset& one : *stored) {
    proto::StoredOffset& to = *reply.add_offsets();
    to.set_topic(std::move(one.topic));
    to.set_partition(one.partition.value());
    to.set_offset(one.stored.offset.value());
    to.set_leader_epoch(one.stored.leader_epoch.value());
    to.set_metadata(std::move(one.stored.metadata));
    to.set_time_ms(one.stored.time_ms);
  }
  co_return reply;
}

Task<Answer<proto::ListGroupsReply>> list_groups(Caller caller, proto::ListGroupsRequest) {
  auto groups = co_await caller.service.list_groups();
  if (!groups) co_return std::unexpected(std::move(groups).error());
  proto::ListGroupsReply reply;
  for (service::GroupSummary& one : *groups) {
    proto::GroupSummary& to = *reply.add_groups();
    to.set_group(std::move(one.group));
    to.set_state(to_wire(one.state));
    to.set_members(static_cast<std::uint32_t>(one.members));
    for (std::string& topic : one.topics) to.add_topics(std::move(topic));
  }
  co_return reply;
}

Task<Answer<proto::DescribeGroupReply>> describe_group(Caller caller, proto::DescribeGroupRequest request) {
  auto described = co_await caller.service.describe_group(std::move(*request.mutable_group()));
  if (!described) co_return std::unexpected(std::move(described).error());
  proto::DescribeGroupReply reply;
  reply.set_group(described->group);
  reply.set_state(to_wire(described->state));
  reply.set_generation(described->generation);
  reply.set_assignor(to_wire(described->assignor));
  reply.set_out_of_range(to_wire(described->out_of_range));
  reply.set_empty_since_ms(described->empty_since_ms);
  for (service::GroupMember& one : described->members) {
    proto::GroupMember& to = *reply.add_members();
    to.set_member(std::move(one.member));
    to.set_instance(std::move(one.instance));
    to_wire(one.granted, *to.mutable_assignment());
    to_wire(one.target, *to.mutable_target());
    to.set_session_timeout_ms(static_cast<std::uint32_t>(one.session_timeout.count()));
    to.set_silent_after_ms(static_cast<std::uint32_t>(one.silent_after.count()));
  }
  for (service::GroupLag& one : described->partitions) {
    proto::GroupPartition& to = *reply.add_partitions();
    to.set_topic(std::move(one.topic));
    to.set_partition(one.partition.value());
    to.set_member(std::move(one.member));
    to.set_committed(one.committed);
    to.set_committed_time_ms(one.committed_time_ms);
    to.set_metadata(std::move(one.metadata));
    to.set_log_start(one.log_start);
    to.set_high_watermark(one.high_watermark);
    to.set_lag_records(one.records);
    to.set_lag_ms(one.behind_ms);
  }
  co_return reply;
}

Task<Answer<proto::ResetOffsetsReply>> reset_offsets(Caller caller, proto::ResetOffsetsRequest request) {
  bool kick = request.kick();
  std::vector<service::PartitionCommit> offsets = from_wire(std::move(*request.mutable_offsets()));
  auto done = co_await caller.service.reset_offsets(std::move(*request.mutable_group()), std::move(offsets), kick);
  if (!done) co_return std::unexpected(std::move(done).error());
  co_return proto::ResetOffsetsReply{};
}

Task<Answer<proto::DeleteGroupReply>> delete_group(Caller caller, proto::DeleteGroupRequest request) {
  auto done = co_await caller.service.delete_group(std::move(*request.mutable_group()));
  if (!done) co_return std::unexpected(std::move(done).error());
  co_return proto::DeleteGroupReply{};
}

}  // namespace tailrace::broker::native
