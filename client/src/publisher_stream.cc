// The loop's side of a publisher: streams, sequences, answers.
#include <algorithm>

#include "model/limits.h"
#include "src/publisher.h"

namespace tailrace::inline v1::detail {
namespace {

constexpr Milliseconds kBackoffFirst{20}, kBackoffMax{1'000};
constexpr std::size_t kFrameOverhead = 1024;  // header and control of a publish frame, generously

std::int32_t add_sequence(std::int32_t sequence, std::uint32_t count) {
  // Sequences go round at 2^31 (KIP-98: DefaultRecordBatch.incrementSequence).
  return static_cast<std::int32_t>((static_cast<std::uint32_t>(sequence) + count) & 0x7fffffffu);
}

Durability durability_of(proto::DurabilityKind kind) {
  switch (kind) {
    case proto::DURABILITY_LEADER: return Durability::leader;
    case proto::DURABILITY_RELAXED: return Durability::relaxed;
    default: return Durability::quorum;
  }
}

}  // namespace

void Topic::on_frame(IncomingFrame& frame) { publisher.on_stream_frame(*this, frame); }

void Publisher::pump() {
  std::vector<PartitionQueue*> ready;
  std::vector<Topic*> to_open;
  {
    Lock lock{mutex_};
    pump_posted_ = false;
    ready.swap(ready_);
    to_open.swap(to_open_);
  }
  std::vector<Topic*> touched;
  for (Topic* topic : to_open) touched.push_back(topic);
  for (PartitionQueue* partition : ready) {
    Topic& topic = partition->topic;
    topic.run.push_back(partition);
    if (touched.empty() || touched.back() != &topic) touched.push_back(&topic);
  }
  if (closed_) return fail_everything();  // a sender got in while the publisher was closing
  arm_sweep();
  for (Topic* topic : touched) run(*topic);
}

void Publisher::run(Topic& topic) {
  if (topic.state != Topic::State::open) return open_stream(topic);
  if (!engine_->link().up()) return;  // the broker said goodbye: what is new waits for the next connection
  while (!topic.run.empty()) {
    PartitionQueue& partition = *topic.run.front();
    BatchPtr batch = pick(topic, partition);
    if (!batch) {
      topic.run.pop_front();
      continue;
    }
    if (topic.window_used > 0 && topic.window_used + batch->bytes() > topic.window) {
      // No room: the batch goes back where it came from, the partition stays first in line.
      if (batch->sent) {
        partition.again.push_front(std::move(batch));
      } else {
        Lock lock{mutex_};
        partition.full.push_front(std::move(batch));
      }
      return;
    }
    transmit(topic, partition, std::move(batch));
    if (topic.state != Topic::State::open) return;
    if (topic.run.empty() || topic.run.front() != &partition) continue;
    topic.run.pop_front();
    topic.run.push_back(&partition);  // one batch each in turn
  }
  if (topic.fresh_id_wanted) use_fresh_id(topic);
}

/// The next batch to send, or null: then the partition is no longer scheduled.
BatchPtr Publisher::pick(Topic& topic, PartitionQueue& partition) {
  auto now = Clock::now();
  auto nothing = [&](Lock&) -> BatchPtr {
    partition.scheduled = false;
    return nullptr;
  };
  if (partition.draining && partition.in_flight.empty()) finish_draining(partition);
  Lock lock{mutex_};
  if (partition.draining || partition.in_flight.size() >= broker::limits::kProducerWindowBatches) return nothing(lock);
  if (partition.not_before > now) {
    arm_wake(partition.not_before);
    return nothing(lock);
  }
  if (!partition.again.empty()) {
    BatchPtr batch = std::move(partition.again.front());
    partition.again.pop_front();
    return batch;
  }
  if (topic.fresh_id_wanted) return nothing(lock);
  if (!partition.full.empty()) {
    BatchPtr batch = std::move(partition.full.front());
    partition.full.pop_front();
    return batch;
  }
  if (!partition.open) return nothing(lock);
  bool hurry = flushing_ > 0 || closing_ || pressure_;
  if (!hurry && !partition.in_flight.empty()) return nothing(lock);
  if (!hurry && options_.linger > Milliseconds{0}) {
    auto due = partition.open->created + options_.linger;
    if (due > now) {
      arm_wake(due);
      return nothing(lock);
    }
  }
  return std::move(partition.open);
}

void Publisher::transmit(Topic& topic, PartitionQueue& partition, BatchPtr batch) {
  using broker::codec::ProducerStamp;
  ProducerStamp stamp;
  if (options_.idempotent) {
    if (!batch->sent) {
      batch->sequence = partition.next_sequence;
      partition.next_sequence = add_sequence(partition.next_sequence, batch->count());
    }
    stamp = {.producer_id = broker::ProducerId{topic.producer_id.value_or(-1)},
             .producer_epoch = broker::ProducerEpoch{static_cast<std::int16_t>(topic.producer_epoch)},
             .base_sequence = batch->sequence};
  }
  if (batch->encoded.length == 0) {
    auto encoded = batch->builder.finish(stamp);
    if (!encoded) {
      if (options_.idempotent) partition.next_sequence = batch->sequence;
      return settle(partition, std::move(batch), to_error(encoded.error()));
    }
    batch->encoded = *std::move(encoded);
    if (options_.compression != Compression::none) batch->builder = broker::codec::BatchBuilder{broker::codec::BatchOptions{}};  // frees the uncompressed block
  } else if (!batch->sent) {
    broker::codec::stamp_producer(batch->encoded.mutable_bytes(), stamp);
  }
  batch->sent = true;
  proto::Publish publish;
  publish.set_ticket(++topic.last_ticket);
  publish.set_partition(partition.index);
  auto remaining = std::chrono::duration_cast<Milliseconds>(batch->deadline - Clock::now()).count();
  publish.mutable_call()->set_deadline_ms(static_cast<std::uint32_t>(std::max<std::int64_t>(remaining, 1)));
  if (batch->expected_end) publish.set_expected_end_offset(*batch->expected_end);
  std::size_t bytes = batch->encoded.length;
  engine_->link().send(encode_frame(proto::FrameType::publish, topic.stream, publish, bytes), batch->encoded);
  topic.window_used += bytes;
  topic.unanswered.push_back({topic.last_ticket, &partition, bytes});
  partition.in_flight.push_back(std::move(batch));
  update_busy(partition);
}

void Publisher::update_busy(PartitionQueue& partition) {
  Lock lock{mutex_};
  partition.busy = partition.in_flight.size() + partition.again.size() + partition.refused.size();
}

/// Puts the partition in line if there may be something to do.
void Publisher::reschedule(PartitionQueue& partition) {
  Lock lock{mutex_};
  partition.busy = partition.in_flight.size() + partition.again.size() + partition.refused.size();
  if (partition.scheduled) return;
  if (!partition.open && partition.full.empty() && partition.again.empty() && !partition.draining) return;
  partition.scheduled = true;
  partition.topic.run.push_back(&partition);
}

void Publisher::arm_wake(TimePoint at) {
  if (wake_timer_.armed() && wake_at_ <= at) return;
  wake_at_ = at;
  wake_timer_.arm(at, [this] {
    wake_at_ = TimePoint::max();
    std::vector<Topic*> all;
    {
      Lock lock{mutex_};
      for (auto& [name, topic] : topics_) all.push_back(topic.get());
    }
    for (Topic* topic : all) {
      for (auto& partition : topic->partitions) reschedule(*partition);
      run(*topic);
    }
  });
}

// Streams

void Publisher::open_stream(Topic& topic) {
  if (topic.state != Topic::State::closed || closed_ || !engine_->link().up()) return;
  auto now = Clock::now();
  if (topic.open_not_before > now) return arm_wake(topic.open_not_before);
  topic.state = Topic::State::opening;
  std::uint64_t attempt = ++topic.opening;
  proto::OpenProducerRequest request;
  request.set_topic(topic.name);
  request.set_not_idempotent(!options_.idempotent);
  if (options_.idempotent && topic.producer_id) {
    request.set_producer_id(*topic.producer_id);
    request.set_producer_epoch(topic.producer_epoch);
  }
  auto weak = weak_from_this();
  engine_->link().call(
      proto::FrameType::open_producer,
      [weak, &topic, attempt, request](std::uint64_t id, Milliseconds remaining) mutable {
        if (auto self = weak.lock(); self && topic.opening == attempt) topic.stream = id;
        request.mutable_call()->set_deadline_ms(static_cast<std::uint32_t>(remaining.count()));
        return encode_frame(proto::FrameType::open_producer, id, request);
      },
      proto::FrameType::open_producer_reply, now + options_.delivery_timeout, CallPolicy::once,
      [weak, &topic, attempt](Result<IncomingFrame*> frame) {
        auto self = weak.lock();
        if (!self || topic.opening != attempt || topic.state != Topic::State::opening) return;
        if (!frame) return self->open_failed(topic, std::move(frame).error());
        proto::OpenProducerReply reply;
        if (!decode_control((*frame)->control, reply) || reply.topic().partitions_size() == 0 ||
            reply.topic().partitions_size() > broker::limits::kPartitionsPerTopicMax) {
          return self->engine_->link().protocol_error("the reply to an open producer cannot be used");
        }
        self->opened(topic, reply);
      });
}

void Publisher::opened(Topic& topic, const proto::OpenProducerReply& reply) {
  topic.state = Topic::State::open;
  topic.open_backoff = {};
  topic.window = std::max<std::uint64_t>(reply.window_bytes(), 1);
  topic.window_used = 0;
  topic.last_ticket = 0;
  engine_->link().open_stream(topic.stream, topic);
  bool other_id = topic.producer_id && *topic.producer_id != reply.producer_id();
  if (other_id) replace_id(topic);
  if (options_.idempotent) {
    topic.producer_id = reply.producer_id();
    topic.producer_epoch = reply.producer_epoch();
  }
  std::vector<std::pair<WaitingRecord, Error>> failed;
  {
    Lock lock{mutex_};
    topic.wants_open = false;
    topic.durability = durability_of(reply.durability());
    std::size_t limit = reply.topic().message_bytes_max() == 0 ? broker::limits::kMessageBytesDefault : reply.topic().message_bytes_max();
    topic.batch_bytes_max = std::clamp(std::min(limit, engine_->link().broker().frame_bytes_max - kFrameOverhead), std::size_t{256}, broker::limits::kMessageBytesCeiling);
    add_partitions(topic, reply.topic().partitions_size());
    topic.refresh_at = Clock::now() + Milliseconds{30'000};
    admit_waiting(topic, failed);
    settled_.notify_all();
  }
  for (auto& [record, error] : failed) settle_waiting(std::move(record), topic.name, error);
  for (auto& partition : topic.partitions) reschedule(*partition);
  run(topic);
}

void Publisher::add_partitions(Topic& topic, int count) {
  while (topic.partitions.size() < static_cast<std::size_t>(std::min(count, broker::limits::kPartitionsPerTopicMax))) {
    topic.partitions.push_back(std::make_unique<PartitionQueue>(topic, static_cast<std::int32_t>(topic.partitions.size())));
  }
}

/// Asks how many partitions there are now: a topic may grow while its producers live.
void Publisher::refresh(Topic& topic) {
  proto::MetadataRequest request;
  request.add_topics(topic.name);
  engine_->link().call(
      proto::FrameType::metadata,
      [request](std::uint64_t id, Milliseconds remaining) mutable {
        request.mutable_call()->set_deadline_ms(static_cast<std::uint32_t>(remaining.count()));
        return encode_frame(proto::FrameType::metadata, id, request);
      },
      proto::FrameType::metadata_reply, Clock::now() + engine_->options().request_timeout, CallPolicy::once,
      [weak = weak_from_this(), &topic](Result<IncomingFrame*> frame) {
        auto self = weak.lock();
        proto::MetadataReply reply;
        if (!self || !frame || !decode_control((*frame)->control, reply)) return;
        for (const auto& one : reply.topics()) {
          if (one.name() != topic.name) continue;
          Lock lock{self->mutex_};
          if (!topic.partitions.empty()) self->add_partitions(topic, one.partitions_size());
        }
      });
}

void Publisher::open_failed(Topic& topic, Error error) {
  topic.state = Topic::State::closed;
  bool passing = error.retriable || error.code == Errc::connection_lost || error.code == Errc::outcome_unknown;
  if (error.code == Errc::closed) return;
  if (error.code == Errc::unknown_producer && topic.producer_id) {
    replace_id(topic);
    return open_stream(topic);
  }
  if (passing) {
    topic.open_backoff = std::clamp(topic.open_backoff * 2, kBackoffFirst, kBackoffMax);
    topic.open_not_before = Clock::now() + topic.open_backoff / 2 + Milliseconds{engine_->link().jitter(static_cast<std::uint64_t>(topic.open_backoff.count() / 2 + 1))};
    return arm_wake(topic.open_not_before);
  }
  fail_topic(topic, error);
}

void Publisher::on_up() {
  std::vector<Topic*> all;
  {
    Lock lock{mutex_};
    for (auto& [name, topic] : topics_) all.push_back(topic.get());
  }
  for (Topic* topic : all) {
    topic->open_not_before = {};
    open_stream(*topic);
  }
}

void Publisher::on_down() {
  std::vector<Topic*> all;
  {
    Lock lock{mutex_};
    for (auto& [name, topic] : topics_) all.push_back(topic.get());
  }
  for (Topic* topic : all) lose_stream(*topic);
  check_closed();
}

/// The stream is gone with its answers. What was in flight may be stored.
void Publisher::lose_stream(Topic& topic) {
  topic.state = Topic::State::closed;
  ++topic.opening;
  topic.unanswered.clear();
  topic.window_used = 0;
  engine_->link().close_stream(topic.stream);
  for (auto& at : topic.partitions) {
    PartitionQueue& partition = *at;
    if (!options_.idempotent) {
      auto lost = std::exchange(partition.in_flight, {});
      for (auto& batch : lost) settle(partition, std::move(batch), make_error(Errc::connection_lost, engine_->link().last_failure()));
    }
    // Behind a refused batch nothing can have been stored: its sequence does not follow.
    bool certainly_not = partition.draining;
    for (auto& batch : partition.in_flight) batch->maybe_stored |= !certainly_not;
    while (!partition.in_flight.empty()) {
      partition.again.push_front(std::move(partition.in_flight.back()));
      partition.in_flight.pop_back();
    }
    if (partition.draining) finish_draining(partition);
    reschedule(partition);
  }
}

/// Everything sent under the present id is settled or known not to be stored: take a new one.
void Publisher::use_fresh_id(Topic& topic) {
  for (auto& partition : topic.partitions) {
    if (!partition->in_flight.empty() || !partition->again.empty() || !partition->refused.empty()) return;
  }
  proto::CloseProducerRequest request;
  engine_->link().send(encode_frame(proto::FrameType::close_producer, topic.stream, request));
  lose_stream(topic);
  replace_id(topic);
  open_stream(topic);
}

void Publisher::replace_id(Topic& topic) {
  topic.producer_id.reset();
  topic.producer_epoch = 0;
  topic.fresh_id_wanted = false;
  for (auto& at : topic.partitions) {
    PartitionQueue& partition = *at;
    partition.next_sequence = 0;
    if (partition.again.empty()) continue;
    // Only when the broker changed or forgot the id on its own: what may be stored cannot be sent under another one.
    auto old = std::exchange(partition.again, {});
    std::deque<BatchPtr> safe;
    for (auto& batch : old) {
      if (batch->maybe_stored) {
        settle(partition, std::move(batch), make_error(Errc::outcome_unknown, "the broker no longer knows this producer"));
      } else {
        batch->sent = false;
        safe.push_back(std::move(batch));
      }
    }
    Lock lock{mutex_};
    while (!safe.empty()) {
      partition.full.push_front(std::move(safe.back()));
      safe.pop_back();
    }
  }
}

// Answers

void Publisher::on_stream_frame(Topic& topic, IncomingFrame& frame) {
  auto alive = shared_from_this();
  switch (frame.header.type) {
    case proto::FrameType::publish_reply: {
      proto::PublishReply reply;
      if (!decode_control(frame.control, reply)) return engine_->link().protocol_error("a publish reply cannot be read");
      return answered(topic, reply.ticket(), &reply, std::nullopt);
    }
    case proto::FrameType::error: {
      proto::ErrorReply reply;
      if (!decode_control(frame.control, reply)) return engine_->link().protocol_error("an error reply cannot be read");
      Error error = to_error(reply);
      error.at["topic"] = topic.name;
      if (reply.ticket() != 0) return answered(topic, reply.ticket(), nullptr, std::move(error));
      lose_stream(topic);  // the stream has ended, the connection goes on
      if (error.code == Errc::fenced || !(error.retriable || error.maybe_applied)) return fail_topic(topic, error);
      return open_failed(topic, std::move(error));
    }
    case proto::FrameType::producer_window: {
      proto::ProducerWindow window;
      if (!decode_control(frame.control, window)) return engine_->link().protocol_error("a producer window cannot be read");
      topic.window = std::max<std::uint64_t>(window.window_bytes(), 1);
      return run(topic);
    }
    default: return;  // newer than we: ignored
  }
}

void Publisher::answered(Topic& topic, std::uint64_t ticket, const proto::PublishReply* reply, std::optional<Error> error) {
  if (topic.unanswered.empty() || topic.unanswered.front().ticket != ticket) {
    return engine_->link().protocol_error("the answer to publish " + std::to_string(ticket) + " is out of turn");
  }
  auto entry = topic.unanswered.front();
  topic.unanswered.pop_front();
  topic.window_used -= entry.bytes;
  if (entry.partition) {
    PartitionQueue& partition = *entry.partition;
    BatchPtr batch = std::move(partition.in_flight.front());
    partition.in_flight.pop_front();
    if (reply) {
      partition.backoff = {};
      if (partition.draining) {
        // A batch behind a refused one was accepted: the broker does not check sequences as we rely on. Renumbering what
        // follows would be wrong, so the rest goes on under another id.
        partition.fresh_id = true;
      }
      settle(partition, std::move(batch), *reply);
    } else {
      refused(topic, partition, std::move(batch), *std::move(error));
      if (topic.partitions.empty()) return check_closed();  // the whole topic has failed, and `partition` with it
    }
    reschedule(partition);
  }
  run(topic);
  check_closed();
}

/// Nothing of the partition is sent for a while: doubled each time, but with some tries left before the deadline.
void Publisher::back_off(PartitionQueue& partition) {
  auto most = std::clamp(options_.delivery_timeout / 8, kBackoffFirst, kBackoffMax);
  partition.backoff = std::clamp(partition.backoff * 2, kBackoffFirst, most);
  auto half = static_cast<std::uint64_t>(partition.backoff.count() / 2);
  partition.not_before = Clock::now() + Milliseconds{half + engine_->link().jitter(half + 1)};
}

void Publisher::refused(Topic& topic, PartitionQueue& partition, BatchPtr batch, Error error) {
  if (error.code == Errc::no_such_topic) {
    // The stream's topic is gone for good; one of the same name needs another stream.
    error.maybe_applied |= batch->maybe_stored;
    settle(partition, std::move(batch), error);
    error.maybe_applied = false;
    return fail_topic(topic, error);
  }
  bool sequence_refused = error.code == Errc::out_of_order_sequence || error.code == Errc::unknown_producer;
  batch->last_refusal = error.message;
  if (!options_.idempotent) {
    // Later batches do not depend on this one. Trying again would change the order, so only the first in line is retried.
    if (error.retriable && !error.maybe_applied && partition.in_flight.empty() && partition.again.empty()) {
      partition.again.push_back(std::move(batch));
      return back_off(partition);
    }
    return settle(partition, std::move(batch), std::move(error));
  }
  if (error.code == Errc::fenced) {
    settle(partition, std::move(batch), error);
    return fail_topic(topic, error);
  }
  if (sequence_refused && partition.draining) {
    batch->maybe_stored = false;
    partition.refused.push_back(std::move(batch));
    return;
  }
  if (sequence_refused) {
    if (batch->maybe_stored) return give_up_sent(topic, partition, std::move(batch), make_error(Errc::outcome_unknown, "the broker no longer knows this producer: " + error.message));
    partition.draining = true;
    partition.fresh_id = true;
    partition.refused.push_back(std::move(batch));
    return back_off(partition);
  }
  if (error.retriable) {
    batch->maybe_stored |= error.maybe_applied;
    partition.draining = true;
    partition.refused.push_back(std::move(batch));
    return back_off(partition);
  }
  if (error.maybe_applied || batch->maybe_stored) {
    error.maybe_applied = true;
    return give_up_sent(topic, partition, std::move(batch), error);
  }
  // Refused for good and never stored: those behind it take its place in the sequence.
  partition.draining = true;
  if (!partition.renumber_from) partition.renumber_from = batch->sequence;
  settle(partition, std::move(batch), std::move(error));
}

/// All in flight is answered. Puts the refused ones back in line, with new sequences if one before them is gone.
void Publisher::finish_draining(PartitionQueue& partition) {
  partition.draining = false;
  while (!partition.refused.empty()) {
    partition.again.push_front(std::move(partition.refused.back()));
    partition.refused.pop_back();
  }
  if (partition.fresh_id) {
    partition.fresh_id = false;
    partition.renumber_from.reset();
    partition.topic.fresh_id_wanted = true;
    Lock lock{mutex_};
    while (!partition.again.empty()) {
      partition.again.back()->sent = false;
      partition.full.push_front(std::move(partition.again.back()));
      partition.again.pop_back();
    }
    return;
  }
  if (!partition.renumber_from) return;
  std::int32_t gone = *std::exchange(partition.renumber_from, std::nullopt);
  std::int32_t next = gone;
  for (auto& batch : partition.again) {
    // Sequences before the gap keep their place; the distance tells, since they go round.
    if (static_cast<std::int32_t>((static_cast<std::uint32_t>(batch->sequence) - static_cast<std::uint32_t>(gone)) << 1) < 0) continue;
    batch->sequence = next;
    broker::codec::stamp_producer(batch->encoded.mutable_bytes(),
                                  {.producer_id = broker::ProducerId{partition.topic.producer_id.value_or(-1)},
                                   .producer_epoch = broker::ProducerEpoch{static_cast<std::int16_t>(partition.topic.producer_epoch)},
                                   .base_sequence = next});
    batch->maybe_stored = false;
    next = add_sequence(next, batch->count());
  }
  partition.next_sequence = next;
}

/// `first` and everything of the partition that was sent and not answered has an unknown outcome.
void Publisher::give_up_sent(Topic& topic, PartitionQueue& partition, BatchPtr first, const Error& error) {
  std::deque<BatchPtr> gone;
  if (first) gone.push_back(std::move(first));
  for (auto* list : {&partition.refused, &partition.in_flight, &partition.again}) {
    for (auto& batch : *list) gone.push_back(std::move(batch));
    list->clear();
  }
  for (auto& entry : topic.unanswered) {
    if (entry.partition == &partition) entry.partition = nullptr;  // its answer still frees the window
  }
  partition.draining = false;
  partition.fresh_id = false;
  partition.renumber_from.reset();
  Error unknown = error;
  for (auto& batch : gone) {
    settle(partition, std::move(batch), unknown);
    // Those behind the first share its fate, not its reason.
    if (unknown.code != Errc::outcome_unknown) unknown = make_error(Errc::outcome_unknown, "sent behind a batch whose outcome is unknown: " + error.message);
  }
  if (options_.idempotent) topic.fresh_id_wanted = true;
  update_busy(partition);
}

}  // namespace tailrace::inline v1::detail
