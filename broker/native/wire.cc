#include "native/wire.h"

namespace tailrace::broker::native {

void Wire::send(proto::FrameType type, std::uint64_t id, const google::protobuf::MessageLite& control, std::span<const Slice> payload) {
  if (ended()) return;
  outbox_.add(type, id, control, payload);
  wake_.notify_all();
}

void Wire::send_error(std::uint64_t id, const service::Refusal& refusal, std::uint64_t ticket) {
  send(proto::FrameType::error, id, to_wire(refusal, ticket));
}

Task<void> Wire::write_loop() {
  while (!cut_) {
    std::span<const iovec> parts = outbox_.gather();
    if (parts.empty()) {
      if (finish_) break;
      co_await wake_.wait();
      continue;
    }
    writing_since_ = runtime_.clock.now();
    std::int64_t written = co_await io::FileOp{[&](io::Operation& op) { stream_.write(op, parts); }};
    writing_since_.reset();
    if (written < 0) {
      cut_ = true;
      break;
    }
    outbox_.written();
    if (on_written) on_written();
  }
  stream_.shut();  // ends the read as well
  finish_ = true;
  if (on_written) on_written();
}

void Wire::finish() {
  finish_ = true;
  wake_.notify_all();
}

void Wire::cut() {
  cut_ = true;
  stream_.shut();
  wake_.notify_all();
}

}  // namespace tailrace::broker::native
