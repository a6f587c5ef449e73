#pragma once
/// Frames to and from protobuf messages, and errors of either side to the SDK's.
#include <google/protobuf/message_lite.h>

#include "base/buffer.h"
#include "base/result.h"
#include "proto/native/frame.h"
#include "proto/native/native.pb.h"
#include "tailrace/error.h"

namespace tailrace::inline v1::detail {

/// Header and control of one frame; the payload, if any, is sent behind it.
[[nodiscard]] broker::Slice encode_frame(proto::FrameType type, std::uint64_t id, const google::protobuf::MessageLite& message,
                                         std::size_t payload_bytes = 0);
/// False: not a message of this type. Recursion is bounded (protobuf's own limit), size by the frame limit.
[[nodiscard]] bool decode_control(broker::Bytes control, google::protobuf::MessageLite& message);

[[nodiscard]] Error to_error(const proto::ErrorReply& reply);
[[nodiscard]] Error to_error(const broker::Error& error);

}  // namespace tailrace::inline v1::detail
