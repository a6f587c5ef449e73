#pragma once
/// Calls about consumer groups: from the wire to the service and back. Spec: docs/native-protocol.md, "Groups"; docs/groups.md.
/// Thread   the connection's shard. They know nothing of the connection.
#include "io/runtime.h"
#include "native/messages.h"

namespace tailrace::broker::native {

/// What a call needs that is about no stream of its connection.
struct Caller {
  service::ShardService& service;
  io::Runtime& runtime;
};

[[nodiscard]] Task<service::Answer<proto::JoinGroupReply>> join_group(Caller caller, proto::JoinGroupRequest request);
[[nodiscard]] Task<service::Answer<proto::GroupHeartbeatReply>> group_heartbeat(Caller caller, proto::GroupHeartbeatRequest request);
[[nodiscard]] Task<service::Answer<proto::LeaveGroupReply>> leave_group(Caller caller, proto::LeaveGroupRequest request);
[[nodiscard]] Task<service::Answer<proto::CommitOffsetsReply>> commit_offsets(Caller caller, proto::CommitOffsetsRequest request);
[[nodiscard]] Task<service::Answer<proto::StoredOffsetsReply>> stored_offsets(Caller caller, proto::StoredOffsetsRequest request);
[[nodiscard]] Task<service::Answer<proto::ListGroupsReply>> list_groups(Caller caller, proto::ListGroupsRequest request);
[[nodiscard]] Task<service::Answer<proto::DescribeGroupReply>> describe_group(Caller caller, proto::DescribeGroupRequest request);
[[nodiscard]] Task<service::Answer<proto::ResetOffsetsReply>> reset_offsets(Caller caller, proto::ResetOffsetsRequest request);
[[nodiscard]] Task<service::Answer<proto::DeleteGroupReply>> delete_group(Caller caller, proto::DeleteGroupRequest request);

}  // namespace tailrace::broker::native
