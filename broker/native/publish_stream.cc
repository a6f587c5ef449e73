#include "native/publish_stream.h"

namespace tailrace::broker::native {

std::uint64_t PublishStream::begin(std::uint64_t ticket, std::int32_t partition) {
  places_.push_back(Place{.ticket = ticket, .partition = partition});
  ++unanswered_;
  return first_ + places_.size() - 1;
}

void PublishStream::answer(std::uint64_t place, service::Answer<service::ProduceReply> reply) {
  places_[place - first_].reply = std::move(reply);
  for (; !places_.empty() && places_.front().reply; ++first_) {
    const Place& front = places_.front();
    if (const auto& done = *front.reply) {
      proto::PublishReply out;
      out.set_ticket(front.ticket);
      out.set_partition(front.partition);
      out.set_base_offset(done->base_offset.value());
      out.set_log_append_time_ms(done->log_append_time_ms);
      out.set_duplicate(done->duplicate);
      wire_.send(proto::FrameType::publish_reply, id_, out);
    } else {
      wire_.send_error(id_, done.error(), front.ticket);
    }
    places_.pop_front();
    --unanswered_;
  }
}

void PublishStream::tell_window(std::uint64_t window_bytes) {
  if (window_bytes == window_) return;
  proto::ProducerWindow out;
  out.set_window_bytes(window_bytes);
  out.set_reason(window_bytes < window_ ? "the log or memory is behind" : "the pressure is over");
  window_ = window_bytes;
  wire_.send(proto::FrameType::producer_window, id_, out);
}

}  // namespace tailrace::broker::native
