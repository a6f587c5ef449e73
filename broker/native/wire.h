#pragma once
/// The sending half of a connection: an outbox and the coroutine that empties it.
///
/// Thread   its shard's.
/// End      finish() lets the writer send what is queued and end; cut() makes it end at the next chance. Either way the
///          stream is shut when the writer ends.
#include <cstdint>
#include <functional>
#include <span>

#include "base/notifier.h"
#include "base/task.h"
#include "io/runtime.h"
#include "io/stream.h"
#include "native/messages.h"
#include "native/outbox.h"
#include "proto/native/frame.h"

namespace tailrace::broker::native {

class Wire {
 public:
  Wire(io::Stream& stream, io::Runtime& runtime) : stream_{stream}, runtime_{runtime}, wake_{runtime.executor} {}

  /// After the end nothing is sent any more, silently: whoever answers need not ask first.
  void send(proto::FrameType type, std::uint64_t id, const google::protobuf::MessageLite& control, std::span<const Slice> payload = {});
  void send_error(std::uint64_t id, const service::Refusal& refusal, std::uint64_t ticket = 0);

  [[nodiscard]] bool full() const { return outbox_.full(); }
  [[nodiscard]] bool flushed() const { return outbox_.empty(); }
  [[nodiscard]] bool ended() const { return cut_ || finish_; }  // nothing more is taken
  [[nodiscard]] bool broken() const { return cut_; }
  [[nodiscard]] const Outbox& outbox() const { return outbox_; }
  /// Since when the write under way made no progress; nullopt: none is under way.
  [[nodiscard]] std::optional<Instant> writing_since() const { return writing_since_; }

  [[nodiscard]] Task<void> write_loop();
  void finish();
  void cut();

  /// Called after a write, and when the writer ends; must only queue work.
  std::function<void()> on_written;

 private:
  io::Stream& stream_;
  io::Runtime& runtime_;
  Outbox outbox_;
  Notifier wake_;
  std::optional<Instant> writing_since_;
  bool finish_ = false;
  bool cut_ = false;
};

}  // namespace tailrace::broker::native
