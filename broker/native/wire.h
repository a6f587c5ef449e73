#pragma once
/// The sending half of a connection: an outbox and the coroutine that empties it.
///
/// Memory   records that are queued are held against the shard's `replies` pool until they are sent. When the pool has no
///          room, take_memory() says so, and on_written is called once it has.
/// Thread   its shard's.
/// End      finish() lets the writer send what is queued and end; cut() makes it end at the next chance. Either way the
///          stream is shut when the writer ends.
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <span>

#include "base/notifier.h"
#include "base/task.h"
#include "flow/memory_budget.h"
#include "io/runtime.h"
#include "io/stream.h"
#include "native/messages.h"
#include "native/outbox.h"
#include "proto/native/frame.h"

namespace tailrace::broker::native {

class Wire {
 public:
  Wire(io::Stream& stream, io::Runtime& runtime, flow::MemoryPool& replies);
  ~Wire();
  Wire(const Wire&) = delete;
  Wire& operator=(const Wire&) = delete;

  /// After the end nothing is sent any more, silently: whoever answers need not ask first.
  void send(proto::FrameType type, std::uint64_t id, const google::protobuf::MessageLite& control, std::span<const Slice> payload = {});
  void send_error(std::uint64_t id, const service::Refusal& refusal, std::uint64_t ticket = 0);
  /// Memory for `bytes` of records that are about to be sent; nullopt: there is none now. Goes to hold() after they were.
  [[nodiscard]] std::optional<flow::Reservation> take_memory(std::uint64_t bytes);
  /// Keeps it until all that is queued now has left.
  void hold(flow::Reservation memory);

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

  /// Called after a write, when memory is there again, and when the writer ends; must only queue work.
  std::function<void()> on_written;

 private:
  /// Memory of records that leave before this many bytes were sent.
  struct Queued {
    std::uint64_t sent_by = 0;
    flow::Reservation held;
  };
  struct MemoryWait : flow::MemoryPool::Waiter {
    explicit MemoryWait(Wire& w) : wire{w} {}
    Wire& wire;
  };
  void give_back();

  io::Stream& stream_;
  io::Runtime& runtime_;
  flow::MemoryPool& replies_;
  MemoryWait memory_wait_;
  flow::Reservation granted_;       // what waiting brought, for whoever asks next
  std::deque<Queued> queued_;
  Outbox outbox_;
  Notifier wake_;
  std::optional<Instant> writing_since_;
  bool finish_ = false;
  bool cut_ = false;
};

}  // namespace tailrace::broker::native
