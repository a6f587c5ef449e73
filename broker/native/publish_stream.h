#pragma once
/// One producer's stream: replies leave in the order of the publishes, however they complete.
#include <cstdint>
#include <deque>
#include <optional>

#include "native/wire.h"
#include "service/broker_service.h"

namespace tailrace::broker::native {

/// Owns     a place per unanswered publish; a refused one too waits in its place for those before it.
/// Bound    `unanswered` counts the places of all streams of a connection, which reads no further at
///          limits::kCallsInFlightPerConnectionMax; what the stream itself costs is held in `memory`.
/// Lives    as long as its last publish under way: the connection and each publish hold it.
class PublishStream {
 public:
  PublishStream(Wire& wire, std::uint64_t id, const service::OpenProducerReply& opened, std::size_t& unanswered, flow::Reservation memory)
      : wire_{wire}, unanswered_{unanswered}, memory_{std::move(memory)}, id_{id}, topic_{opened.topic}, producer_id_{opened.producer_id}, producer_epoch_{opened.producer_epoch},
        window_{opened.window_bytes} {}

  [[nodiscard]] const cluster::TopicPointer& topic() const { return topic_; }
  /// The topic as it is now; keeps the last known one when it is gone.
  void refresh(const cluster::TopicPointer& now) {
    if (now) topic_ = now;
  }
  [[nodiscard]] ProducerId producer_id() const { return producer_id_; }
  [[nodiscard]] ProducerEpoch producer_epoch() const { return producer_epoch_; }

  /// A place in the order of replies.
  [[nodiscard]] std::uint64_t begin(std::uint64_t ticket, std::int32_t partition);
  void answer(std::uint64_t place, service::Answer<service::ProduceReply> reply);
  /// Tells the client, if the window changed since it was last told.
  void tell_window(std::uint64_t window_bytes);

 private:
  struct Place {
    std::uint64_t ticket = 0;
    std::int32_t partition = 0;
    std::optional<service::Answer<service::ProduceReply>> reply{};
  };
  Wire& wire_;
  std::size_t& unanswered_;
  flow::Reservation memory_;
  std::uint64_t id_;
  cluster::TopicPointer topic_;
  ProducerId producer_id_;
  ProducerEpoch producer_epoch_;
  std::uint64_t window_;
  std::deque<Place> places_;
  std::uint64_t first_ = 0;  // number of places_.front()
};

}  // namespace tailrace::broker::native
