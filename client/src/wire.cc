#include "src/wire.h"

#include <google/protobuf/io/coded_stream.h>

namespace tailrace::inline v1::detail {

broker::Slice encode_frame(proto::FrameType type, std::uint64_t id, const google::protobuf::MessageLite& message, std::size_t payload_bytes) {
  std::size_t control = message.ByteSizeLong();
  auto buffer = broker::Buffer::allocate(proto::kFrameHeaderBytes + control);
  proto::write_frame_header(buffer.data(), type, id, control, payload_bytes);
  message.SerializeWithCachedSizesToArray(reinterpret_cast<std::uint8_t*>(buffer.data() + proto::kFrameHeaderBytes));
  return broker::Slice::whole(std::move(buffer));
}

bool decode_control(broker::Bytes control, google::protobuf::MessageLite& message) {
  return message.ParseFromArray(control.data(), static_cast<int>(control.size()));
}

Error to_error(const proto::ErrorReply& reply) {
  Errc code = static_cast<Errc>(static_cast<std::uint16_t>(reply.code()));
  if (reply.code() > 0xffff || !is_known(code)) code = Errc::internal;
  Error error{.code = code, .retriable = reply.retriable(), .maybe_applied = reply.maybe_applied(), .message = reply.message(),
              .hint = reply.hint()};
  if (error.message.empty()) error.message = describe(code).sentence;
  if (error.hint.empty()) error.hint = describe(code).hint;
  for (const auto& fact : reply.facts()) error.at[fact.name()] = fact.value();
  if (code == Errc::internal && reply.code() != static_cast<unsigned>(Errc::internal)) error.at["code"] = std::to_string(reply.code());
  return error;
}

Error to_error(const broker::Error& error) { return make_error(error.code, error.detail); }

}  // namespace tailrace::inline v1::detail
