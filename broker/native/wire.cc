#include "native/wire.h"

#include <algorithm>

namespace tailrace::broker::native {

Wire::Wire(io::Stream& stream, io::Runtime& runtime, flow::MemoryPool& replies)
    : stream_{stream}, runtime_{runtime}, replies_{replies}, memory_wait_{*this}, wake_{runtime.executor} {
  memory_wait_.granted = [](flow::MemoryPool::Waiter* waiter, Result<flow::Reservation> outcome) noexcept {
    Wire& wire = static_cast<MemoryWait*>(waiter)->wire;
    if (outcome) wire.granted_ = *std::move(outcome);
    if (wire.on_written) wire.on_written();
  };
}

Wire::~Wire() {
  if (memory_wait_.linked) replies_.remove(memory_wait_);
}

std::optional<flow::Reservation> Wire::take_memory(std::uint64_t bytes) {
  if (ended() || outbox_.unsent_bytes() + bytes <= held_bytes_ + kUnpaidMax) {
    ask_no_more();
    return flow::Reservation{};
  }
  bytes = std::min(bytes, replies_.limit());  // one larger batch passes alone
  if (granted_.bytes() >= bytes) {
    granted_.shrink_to(bytes);
    return std::exchange(granted_, {});
  }
  granted_ = {};
  // Who already holds some may hold no more than is left for all others: however many do not read, a part stays free.
  if (held_bytes_ > 0 && held_bytes_ + bytes > replies_.limit() - replies_.used()) return std::nullopt;
  Result<flow::Reservation> held = replies_.try_reserve(bytes);
  if (held) return *std::move(held);
  if (!memory_wait_.linked) {
    memory_wait_.bytes = bytes;
    (void)replies_.wait(memory_wait_).has_value();  // too many wait already: who asked asks again by itself
  }
  return std::nullopt;
}

void Wire::ask_no_more() {
  granted_ = {};
  if (memory_wait_.linked) replies_.remove(memory_wait_);
}

void Wire::hold(flow::Reservation memory) {
  if (!memory || ended() || outbox_.empty()) return;  // nothing of it was queued, or all has left
  held_bytes_ += memory.bytes();
  queued_.push_back({outbox_.sent_bytes() + outbox_.unsent_bytes(), std::move(memory)});
}

void Wire::give_back() {
  while (!queued_.empty() && (cut_ || outbox_.sent_bytes() >= queued_.front().sent_by)) {
    held_bytes_ -= queued_.front().held.bytes();
    queued_.pop_front();
  }
}

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
    give_back();
    if (on_written) on_written();
  }
  stream_.shut();  // ends the read as well
  finish_ = true;
  cut_ = true;  // there is nobody to send to any more
  give_back();
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
