#include "src/engine.h"
#include "tailrace/admin.h"

namespace tailrace::inline v1 {

using detail::CallPolicy;
using proto::FrameType;

namespace {

detail::Engine* engine_of(const std::shared_ptr<detail::ClientCore>& core) { return core ? core->engine().get() : nullptr; }

GroupState state_of(proto::GroupStateKind state) {
  switch (state) {
    case proto::GROUP_MOVING: return GroupState::moving;
    case proto::GROUP_STABLE: return GroupState::stable;
    default: return GroupState::empty;
  }
}
std::vector<Position> positions_of(const google::protobuf::RepeatedPtrField<proto::TopicPartitions>& in) {
  std::vector<Position> out;
  for (const auto& some : in) {
    for (std::int32_t partition : some.partitions()) out.push_back({some.topic(), partition, -1});
  }
  return out;
}
std::optional<Instant> time_of(std::int64_t ms) {
  if (ms <= 0) return std::nullopt;
  return Instant{Milliseconds{ms}};
}

GroupDescription description_of(const proto::DescribeGroupReply& reply) {
  GroupDescription out{.group = reply.group(), .state = state_of(reply.state()), .generation = reply.generation(),
                       .assignor = reply.assignor() == proto::ASSIGNOR_RANGE ? Assignor::range : Assignor::sticky,
                       .out_of_range = reply.out_of_range() == proto::OUT_OF_RANGE_EARLIEST ? OutOfRange::earliest
                                       : reply.out_of_range() == proto::OUT_OF_RANGE_LATEST ? OutOfRange::latest
                                                                                            : OutOfRange::error,
                       .empty_since = time_of(reply.empty_since_ms())};
  for (const auto& one : reply.members()) {
    out.members.push_back({.member = one.member(), .instance = one.instance(), .partitions = positions_of(one.assignment()), .target = positions_of(one.target()),
                           .session_timeout = Milliseconds{one.session_timeout_ms()}, .silent_after = Milliseconds{one.silent_after_ms()}});
  }
  for (const auto& one : reply.partitions()) {
    GroupPartition to{.topic = one.topic(), .partition = one.partition(), .member = one.member(), .committed = one.committed(),
                      .committed_time = time_of(one.committed_time_ms()), .metadata = one.metadata(), .log_start = one.log_start(),
                      .high_watermark = one.high_watermark(), .lag = one.lag_records()};
    if (one.lag_ms() >= 0) to.behind = Milliseconds{one.lag_ms()};
    out.partitions.push_back(std::move(to));
  }
  return out;
}

}  // namespace

Task<std::vector<GroupSummary>> Admin::list_groups() {
  auto* engine = engine_of(core_);
  if (!engine) return {};
  return engine->call<std::vector<GroupSummary>, proto::ListGroupsRequest, proto::ListGroupsReply>(
      FrameType::list_groups, proto::ListGroupsRequest{}, FrameType::list_groups_reply, CallPolicy::repeat,
      [](const proto::ListGroupsReply& reply) -> Result<std::vector<GroupSummary>> {
        std::vector<GroupSummary> out;
        for (const auto& one : reply.groups()) {
          out.push_back({.group = one.group(), .state = state_of(one.state()), .members = one.members(), .topics = {one.topics().begin(), one.topics().end()}});
        }
        return out;
      });
}

Task<GroupDescription> Admin::describe_group(std::string_view group) {
  auto* engine = engine_of(core_);
  if (!engine) return {};
  proto::DescribeGroupRequest request;
  request.set_group(std::string{group});
  return engine->call<GroupDescription, proto::DescribeGroupRequest, proto::DescribeGroupReply>(
      FrameType::describe_group, std::move(request), FrameType::describe_group_reply, CallPolicy::repeat,
      [](const proto::DescribeGroupReply& reply) -> Result<GroupDescription> { return description_of(reply); });
}

Task<void> Admin::reset_offsets(std::string_view group, std::span<const Position> offsets, bool kick) {
  auto* engine = engine_of(core_);
  if (!engine) return {};
  proto::ResetOffsetsRequest request;
  request.set_group(std::string{group});
  request.set_kick(kick);
  for (const Position& one : offsets) {
    auto* to = request.add_offsets();
    to->set_topic(one.topic);
    to->set_partition(one.partition);
    to->set_offset(one.offset);
  }
  return engine->call<void, proto::ResetOffsetsRequest, proto::ResetOffsetsReply>(FrameType::reset_offsets, std::move(request), FrameType::reset_offsets_reply,
                                                                                  CallPolicy::once, [](const proto::ResetOffsetsReply&) -> Result<void> { return {}; });
}

Task<void> Admin::delete_group(std::string_view group) {
  auto* engine = engine_of(core_);
  if (!engine) return {};
  proto::DeleteGroupRequest request;
  request.set_group(std::string{group});
  return engine->call<void, proto::DeleteGroupRequest, proto::DeleteGroupReply>(FrameType::delete_group, std::move(request), FrameType::delete_group_reply,
                                                                                CallPolicy::once, [](const proto::DeleteGroupReply&) -> Result<void> { return {}; });
}

}  // namespace tailrace::inline v1
