#pragma once
/// Calls about event streams: from the wire to the service and back. Spec: docs/native-protocol.md, "Event streams"; docs/event-store.md.
/// Thread   the connection's shard. They know nothing of the connection.
#include <optional>
#include <vector>

#include "native/group_requests.h"

namespace tailrace::broker::native {

/// Batches leave as they are stored, behind the control part.
struct ReadStreamAnswer {
  proto::ReadStreamReply control;
  std::vector<Slice> payload;
};

/// `batch`: the frame's payload; none: it was too large to be taken in.
[[nodiscard]] Task<service::Answer<proto::AppendStreamReply>> append_stream(Caller caller, proto::AppendStreamRequest request, std::optional<Slice> batch);
[[nodiscard]] Task<service::Answer<ReadStreamAnswer>> read_stream(Caller caller, proto::ReadStreamRequest request);
[[nodiscard]] Task<service::Answer<proto::ListStreamsReply>> list_streams(Caller caller, proto::ListStreamsRequest request);
[[nodiscard]] Task<service::Answer<proto::DescribeStreamReply>> describe_stream(Caller caller, proto::DescribeStreamRequest request);
[[nodiscard]] Task<service::Answer<proto::TruncateStreamReply>> truncate_stream(Caller caller, proto::TruncateStreamRequest request);

}  // namespace tailrace::broker::native
