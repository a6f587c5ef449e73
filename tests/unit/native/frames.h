#pragma once
/// Frames as a client writes them.
#include <google/protobuf/message_lite.h>

#include <cstring>
#include <string>
#include <string_view>

#include "proto/native/frame.h"

namespace tailrace::broker::native {

inline std::string frame_of(proto::FrameType type, std::uint64_t id, std::string_view control, std::string_view payload = {}) {
  std::string out(proto::kFrameHeaderBytes, '\0');
  proto::write_frame_header(reinterpret_cast<std::byte*>(out.data()), type, id, control.size(), payload.size());
  out += control;
  out += payload;
  return out;
}
inline std::string frame_of(proto::FrameType type, std::uint64_t id, const google::protobuf::MessageLite& control, std::string_view payload = {}) {
  return frame_of(type, id, control.SerializeAsString(), payload);
}

}  // namespace tailrace::broker::native
