#pragma once
/// The sending half of a connection: an outbox and the coroutine that empties it.
///
/// Memory   what is queued beyond kUnpaidMax is held against the shard's `replies` pool until it is sent. When the pool has no
///          room, take_memory() says so, and on_written is called once it has. So a client that reads goes on in small steps
///          while others, which do not, hold the pool.
/// Thread   its shard's.
/// End      finish() lets the writer send what is queued and end; cut() makes it end at the next chance. Either way the
///          stream is shut when the writer ends.
#include <algorithm>
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
  /// Memory for `bytes` of records that are about to be sent (none is held for few); nullopt: there is none now, or this
  /// connection has its share, and on_written comes when that changes. Goes to hold() after they were.
  [[nodiscard]] std::optional<flow::Reservation> take_memory(std::uint64_t bytes);
  /// Whoever waited for memory does not need it any more: others have it.
  void ask_no_more();
  /// Keeps it until all that is queued now has left.
  void hold(flow::Reservation memory);

  [[nodiscard]] bool full() const { return outbox_.full(); }
  /// Answers that no pool pays for have piled up: the client asks and does not read.
  [[nodiscard]] bool crowded() const { return outbox_.unsent_bytes() > held_bytes_ + kUnpaidMax; }
  [[nodiscard]] bool waits_for_memory() const { return memory_wait_.linked; }
  /// So much may be asked for at once: a part of what is free (30 that do not read leave 15 %), and when others wait for it what needs none of it.
  [[nodiscard]] std::uint64_t share() const { return replies_.waiting() > 0 ? kUnpaidMax / 2 : std::max((replies_.limit() - replies_.used()) / 16, kUnpaidMax / 2); }
  static constexpr std::uint64_t kUnpaidMax = 64 * 1024;
  [[nodiscard]] bool flushed() const { return outbox_.empty(); }
  [[nodiscard]] bool ended() const { return cut_ || finish_; }  // nothing more is taken
  [[nodiscard]] bool broken() const { return cut_; }
  [[nodiscard]] const Outbox& outbox() const { return outbox_; }
  /// When the write under way began, of 1 MiB and a part at most; nullopt: none is under way.
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
  std::uint64_t held_bytes_ = 0;    // of queued_
  Outbox outbox_;
  Notifier wake_;
  std::optional<Instant> writing_since_;
  bool finish_ = false;
  bool cut_ = false;
};

}  // namespace tailrace::broker::native
