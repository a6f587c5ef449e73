// How records end: settled by an answer, by their deadline, or by close().
#include <algorithm>

#include "src/publisher.h"

namespace tailrace::inline v1::detail {
namespace {
constexpr Milliseconds kSweep{20};         // how late a delivery timeout may be
constexpr Milliseconds kRefresh{30'000};   // how late a grown topic may be noticed
}

void Publisher::settle(PartitionQueue& partition, BatchPtr batch, const proto::PublishReply& reply) {
  auto outcome = std::make_shared<BatchOutcome>();
  outcome->topic = partition.topic.name;
  outcome->partition = partition.index;
  outcome->base_offset = reply.base_offset();
  outcome->append_time = reply.log_append_time_ms();
  outcome->duplicate = reply.duplicate();
  outcome->times = std::move(batch->times);
  settle(std::move(batch), std::move(outcome));
}

void Publisher::settle(PartitionQueue& partition, BatchPtr batch, Error error) {
  error.at.try_emplace("topic", partition.topic.name);
  error.at.try_emplace("partition", std::to_string(partition.index));
  auto outcome = std::make_shared<BatchOutcome>();
  outcome->error = std::move(error);
  outcome->topic = partition.topic.name;
  outcome->partition = partition.index;
  outcome->times = std::move(batch->times);
  settle(std::move(batch), std::move(outcome));
}

void Publisher::settle(BatchPtr batch, std::shared_ptr<BatchOutcome> outcome) {
  engine_->budget().give_back(batch->charged);
  {
    Lock lock{mutex_};
    pending_ -= outcome->times.size();  // before anybody is told, so that whoever was told sees it
  }
  for (auto& forward : batch->forwards) forward.sink->settle(forward.slot, outcome->of(forward.index));
  std::shared_ptr<const BatchOutcome> shared = std::move(outcome);
  if (!batch->tags.empty() && options_.on_delivered) {
    auto results = batch->tags.size();
    engine_->callbacks()->post([keep = shared_from_this(), shared, tags = std::move(batch->tags)] {
      std::vector<Delivered> delivered;
      delivered.reserve(tags.size());
      for (const auto& [index, tag] : tags) {
        Delivered one{.tag = tag, .topic = shared->topic, .partition = shared->partition};
        if (shared->error) {
          one.error = &*shared->error;
        } else {
          one.offset = shared->base_offset + index;
          one.time = Instant{Milliseconds{shared->append_time >= 0 ? shared->append_time : shared->times[index]}};
          one.duplicate = shared->duplicate;
        }
        delivered.push_back(one);
      }
      keep->options_.on_delivered(delivered);
    }, results);
  }
  if (batch->completion) batch->completion->settle(shared);
  forget(batch->number);  // after everybody was told: flush() may return now
}

void Publisher::settle_waiting(WaitingRecord record, const std::string& topic, const Error& error) {
  engine_->budget().give_back(record.charged);
  {
    Lock lock{mutex_};
    --pending_;
  }
  Error with_topic = error;
  with_topic.at.try_emplace("topic", topic);
  if (record.want.kind == Want::Kind::sink) {
    record.want.sink->settle(record.want.slot, std::unexpected(with_topic));
  } else if (record.want.kind == Want::Kind::tag && options_.on_delivered) {
    engine_->callbacks()->post([keep = shared_from_this(), with_topic, tag = record.want.tag, topic] {
      Delivered one{.tag = tag, .topic = topic, .partition = -1, .error = &with_topic};
      keep->options_.on_delivered({&one, 1});
    });
  }
  forget(record.number);
}

void Publisher::forget(std::uint64_t number) {
  Lock lock{mutex_};
  if (auto at = open_numbers_.find(number); at != open_numbers_.end()) open_numbers_.erase(at);
  if (flushing_ > 0) settled_.notify_all();
}

void Publisher::fail_topic(Topic& topic, const Error& error) {
  std::deque<WaitingRecord> waiting;
  std::vector<std::pair<PartitionQueue*, BatchPtr>> batches;
  std::vector<std::unique_ptr<PartitionQueue>> forgotten;  // `batches` names them
  if (topic.state == Topic::State::open) {
    engine_->link().send(encode_frame(proto::FrameType::close_producer, topic.stream, proto::CloseProducerRequest{}));
    lose_stream(topic);
  }
  topic.state = Topic::State::closed;
  {
    Lock lock{mutex_};
    waiting.swap(topic.waiting);
    topic.wants_open = false;
    topic.open_error = error;
    for (auto& at : topic.partitions) {
      PartitionQueue& partition = *at;
      for (auto* list : {&partition.refused, &partition.in_flight, &partition.again, &partition.full}) {
        for (auto& batch : *list) batches.emplace_back(&partition, std::move(batch));
        list->clear();
      }
      if (partition.open) batches.emplace_back(&partition, std::move(partition.open));
      partition.draining = partition.fresh_id = false;
      partition.renumber_from.reset();
      partition.next_sequence = 0;
      partition.busy = 0;
      partition.scheduled = false;
    }
    std::erase_if(ready_, [&](const PartitionQueue* partition) { return &partition->topic == &topic; });
    // A topic created anew under the name may have another number of partitions: all is learned again.
    forgotten.swap(topic.partitions);
    settled_.notify_all();
  }
  topic.run.clear();
  topic.unanswered.clear();
  topic.producer_id.reset();  // sequences start again with the next stream
  topic.fresh_id_wanted = false;
  for (auto& record : waiting) settle_waiting(std::move(record), topic.name, error);
  for (auto& [partition, batch] : batches) {
    Error one = error;
    one.maybe_applied |= batch->maybe_stored;
    settle(*partition, std::move(batch), std::move(one));
  }
}

// Deadlines

/// While anything is pending; an idle producer wakes nobody.
void Publisher::arm_sweep() {
  if (sweep_timer_.armed() || closed_) return;
  sweep_timer_.arm(Clock::now() + kSweep, [this] {
    auto alive = shared_from_this();
    if (sweep()) arm_sweep();
  });
}

bool Publisher::sweep() {
  std::vector<Topic*> all, grown;
  {
    Lock lock{mutex_};
    pressure_ = false;  // set again by the next sender that has to wait
    auto now = Clock::now();
    for (auto& [name, topic] : topics_) {
      if (topic->state == Topic::State::open && topic->refresh_at <= now) {
        topic->refresh_at = now + kRefresh;
        grown.push_back(topic.get());
      }
    }
    if (pending_ > 0) {
      for (auto& [name, topic] : topics_) all.push_back(topic.get());
    }
  }
  for (Topic* topic : grown) refresh(*topic);
  auto now = Clock::now();
  for (Topic* topic : all) sweep(*topic, now);
  check_closed();
  return !all.empty();
}

Error Publisher::timed_out(const Topic&, const OutgoingBatch& batch) const {
  if (batch.maybe_stored) return make_error(Errc::outcome_unknown, "no acknowledgement within delivery_timeout");
  std::string why = batch.last_refusal;
  if (why.empty() && !engine_->link().up()) why = engine_->link().last_failure();
  return make_error(Errc::timeout, "not stored within delivery_timeout" + (why.empty() ? "" : ": " + why));
}

void Publisher::sweep(Topic& topic, TimePoint now) {
  std::deque<WaitingRecord> late;
  std::vector<std::pair<PartitionQueue*, BatchPtr>> unsent;
  {
    Lock lock{mutex_};
    while (!topic.waiting.empty() && topic.waiting.front().deadline <= now) {
      late.push_back(std::move(topic.waiting.front()));
      topic.waiting.pop_front();
    }
    for (auto& at : topic.partitions) {
      while (!at->full.empty() && at->full.front()->deadline <= now) {
        unsent.emplace_back(at.get(), std::move(at->full.front()));
        at->full.pop_front();
      }
      if (at->open && at->open->deadline <= now) unsent.emplace_back(at.get(), std::move(at->open));
    }
  }
  if (!late.empty()) {
    std::string why = engine_->link().up() ? "" : engine_->link().last_failure();
    Error error = make_error(Errc::timeout, "not sent within delivery_timeout" + (why.empty() ? "" : ": " + why));
    for (auto& record : late) settle_waiting(std::move(record), topic.name, error);
  }
  for (auto& [partition, batch] : unsent) {
    Error error = timed_out(topic, *batch);
    settle(*partition, std::move(batch), std::move(error));
  }
  bool changed = false;
  for (auto& at : topic.partitions) {
    PartitionQueue& partition = *at;
    if (!partition.in_flight.empty() && partition.in_flight.front()->deadline <= now) {
      BatchPtr first = std::move(partition.in_flight.front());
      partition.in_flight.pop_front();
      give_up_sent(topic, partition, std::move(first), make_error(Errc::outcome_unknown, "no acknowledgement within delivery_timeout"));
      changed = true;
      continue;
    }
    for (auto* list : {&partition.refused, &partition.again}) {
      while (!list->empty() && list->front()->deadline <= now) {
        changed = true;
        BatchPtr batch = std::move(list->front());
        list->pop_front();
        Error error = timed_out(topic, *batch);
        if (batch->maybe_stored) {
          give_up_sent(topic, partition, std::move(batch), error);
          break;
        }
        if (options_.idempotent && !partition.fresh_id && !partition.renumber_from) partition.renumber_from = batch->sequence;
        settle(partition, std::move(batch), std::move(error));
      }
    }
    if (partition.renumber_from && !partition.draining) {
      // What is in flight went before the gap; what follows it has not been sent again yet.
      finish_draining(partition);
    }
    if (!changed) continue;
    if (partition.again.empty() && partition.refused.empty()) partition.not_before = {};  // the pause was for what is gone
    reschedule(partition);
  }
  if (changed) run(topic);
}

// Close

void Publisher::begin_close(TimePoint deadline, std::function<void(CloseReport)> done) {
  auto alive = shared_from_this();
  if (closed_) {
    if (done) done(close_report_);
    return;
  }
  if (done) closed_callbacks_.push_back(std::move(done));
  std::vector<Topic*> all;
  {
    Lock lock{mutex_};
    closing_ = true;
    settled_.notify_all();
    for (auto& [name, topic] : topics_) all.push_back(topic.get());
  }
  engine_->budget().wake();
  for (Topic* topic : all) {
    for (auto& partition : topic->partitions) reschedule(*partition);
    run(*topic);
  }
  close_deadline_ = std::min(close_deadline_, deadline);
  close_timer_.arm(close_deadline_, [this] {
    auto self = shared_from_this();
    fail_everything();
    finish_close();
  });
  check_closed();
}

void Publisher::check_closed() {
  if (closed_ || closed_callbacks_.empty()) return;
  {
    Lock lock{mutex_};
    if (!closing_ || pending_ > 0) return;
  }
  finish_close();
}

/// At the deadline: every record left gets its error.
void Publisher::fail_everything() {
  std::vector<Topic*> all;
  {
    Lock lock{mutex_};
    for (auto& [name, topic] : topics_) all.push_back(topic.get());
  }
  for (Topic* topic : all) {
    std::deque<WaitingRecord> waiting;
    std::vector<std::pair<PartitionQueue*, BatchPtr>> batches;
    {
      Lock lock{mutex_};
      waiting.swap(topic->waiting);
      for (auto& at : topic->partitions) {
        for (auto& batch : at->in_flight) batch->maybe_stored = true;
        for (auto* list : {&at->refused, &at->in_flight, &at->again, &at->full}) {
          for (auto& batch : *list) batches.emplace_back(at.get(), std::move(batch));
          list->clear();
        }
        if (at->open) batches.emplace_back(at.get(), std::move(at->open));
      }
    }
    topic->unanswered.clear();
    for (auto& record : waiting) {
      ++close_report_.undelivered;
      settle_waiting(std::move(record), topic->name, make_error(Errc::closed, "the producer was closed before the record was sent"));
    }
    for (auto& [partition, batch] : batches) {
      (batch->maybe_stored ? close_report_.unknown : close_report_.undelivered) += batch->count();
      Error error = batch->maybe_stored ? make_error(Errc::outcome_unknown, "the producer was closed before the acknowledgement came")
                                        : make_error(Errc::closed, "the producer was closed before the record was sent");
      settle(*partition, std::move(batch), std::move(error));
    }
  }
}

void Publisher::finish_close() {
  if (closed_) return;
  auto alive = shared_from_this();
  closed_ = true;
  for (auto& [name, topic] : topics_) {
    if (topic->state == Topic::State::open) {
      proto::CloseProducerRequest request;
      engine_->link().send(encode_frame(proto::FrameType::close_producer, topic->stream, request));
    }
    engine_->link().close_stream(topic->stream);
    topic->state = Topic::State::closed;
    ++topic->opening;
  }
  if (listening_) engine_->link().remove_listener(*this);
  wake_timer_.cancel();
  sweep_timer_.cancel();
  close_timer_.cancel();
  engine_->remove(this);
  for (auto& done : std::exchange(closed_callbacks_, {})) done(close_report_);
}

}  // namespace tailrace::inline v1::detail
