// The loop's side of a subscription: the stream, its frames, its credit.
#include <algorithm>

#include "model/limits.h"
#include "src/subscription.h"

namespace tailrace::inline v1::detail {
namespace {

constexpr Milliseconds kBackoffFirst{20}, kBackoffMax{1'000};

proto::OutOfRange wire_policy(OutOfRange policy) {
  switch (policy) {
    case OutOfRange::error: return proto::OUT_OF_RANGE_ERROR;
    case OutOfRange::earliest: return proto::OUT_OF_RANGE_EARLIEST;
    case OutOfRange::latest: return proto::OUT_OF_RANGE_LATEST;
  }
  return proto::OUT_OF_RANGE_ERROR;
}

}  // namespace

Subscription::Subscription(std::shared_ptr<Engine> engine, std::string topic, ConsumerOptions options, std::vector<ReadPartition> partitions)
    : engine_{std::move(engine)}, topic_{std::make_shared<const std::string>(std::move(topic))}, options_{std::move(options)},
      partitions_{std::move(partitions)}, retry_timer_{engine_->loop()} {}
Subscription::~Subscription() = default;

Result<void> Subscription::start(TimePoint deadline) {
  engine_->add(shared_from_this());
  bool posted = engine_->post([weak = weak_from_this()] {
    auto self = weak.lock();
    if (!self || self->state_ == State::ended) return;
    self->listening_ = true;
    self->engine_->link().add_listener(*self);
    self->subscribe();
  });
  if (!posted) return std::unexpected(make_error(Errc::closed, "the client is closed"));
  Lock lock{mutex_};
  bool answered = changed_.wait_until(lock, deadline, [&] { return first_answer_ || fatal_ || closed_; });
  if (closed_) return std::unexpected(make_error(Errc::closed, "the client was closed"));
  if (fatal_) return std::unexpected(*fatal_);
  if (!answered) return std::unexpected(make_error(Errc::timeout, "the broker did not answer the subscription in time"));
  return *first_answer_;
}

ReadPartition* Subscription::find(std::int32_t partition) {
  auto at = std::ranges::find(partitions_, partition, &ReadPartition::index);
  return at == partitions_.end() ? nullptr : &*at;
}

void Subscription::set_start(proto::SubscribePartition& to, const ReadPartition& partition) const {
  to.set_partition(partition.index);
  if (partition.until) to.set_until(*partition.until);
  auto& at = *to.mutable_start();
  if (partition.fetch >= 0) return at.set_offset(partition.fetch);
  std::visit(
      [&](const auto& from) {
        using F = std::decay_t<decltype(from)>;
        if constexpr (std::is_same_v<F, From::Earliest>) at.set_start(true);
        else if constexpr (std::is_same_v<F, From::Latest>) at.set_end(true);
        else if constexpr (std::is_same_v<F, From::Offset>) at.set_offset(from.value);
        else if constexpr (std::is_same_v<F, From::Time>) at.set_time_ms(from.value.time_since_epoch().count());
        else at.set_last(from.count);
      },
      partition.start.value());
}

void Subscription::wake_user() {
  {
    Lock lock{mutex_};  // a waiter between its test and its wait must not miss this
  }
  changed_.notify_all();
  serve_waiter();
}

void Subscription::subscribe() {
  if (state_ != State::idle || !engine_->link().up()) return;
  proto::SubscribeRequest request;
  request.set_topic(*topic_);
  request.set_out_of_range(wire_policy(options_.out_of_range));
  {
    Lock lock{mutex_};
    for (ReadPartition& partition : partitions_) {
      partition.in_stream = false;
      partition.moved_at = 0;
      partition.moving = false;
      if (partition.until && partition.fetch >= *partition.until) partition.finished = true;
      if (partition.finished || partition.stopped) continue;
      partition.in_stream = true;
      set_start(*request.add_partitions(), partition);
    }
    // What is queued or being read is still part of the window; what was read and not told is not: the stream is new.
    queued_records_ -= std::min(std::exchange(back_records_, 0), queued_records_);
    queued_bytes_ -= std::min(std::exchange(back_bytes_, 0), queued_bytes_);
    request.set_credit_records(options_.credit_records > queued_records_ ? options_.credit_records - queued_records_ : 1);
    request.set_credit_bytes(options_.credit_bytes > queued_bytes_ ? options_.credit_bytes - queued_bytes_ : 1);
    if (request.partitions_size() == 0 && !first_answer_) first_answer_.emplace();
  }
  if (request.partitions_size() == 0) return wake_user();
  seeks_sent_ = 0;
  state_ = State::subscribing;
  std::uint64_t attempt = ++attempt_;
  auto weak = weak_from_this();
  engine_->link().call(
      proto::FrameType::subscribe,
      [weak, attempt, request](std::uint64_t id, Milliseconds remaining) mutable {
        if (auto self = weak.lock(); self && self->attempt_ == attempt) self->stream_ = id;
        request.mutable_call()->set_deadline_ms(static_cast<std::uint32_t>(remaining.count()));
        return encode_frame(proto::FrameType::subscribe, id, request);
      },
      proto::FrameType::subscribe_reply, Clock::now() + engine_->options().request_timeout, CallPolicy::once,
      [weak, attempt](Result<IncomingFrame*> frame) {
        auto self = weak.lock();
        if (!self || self->attempt_ != attempt || self->state_ != State::subscribing) return;
        if (!frame) return self->subscribe_failed(std::move(frame).error());
        proto::SubscribeReply reply;
        if (!decode_control((*frame)->control, reply)) return self->engine_->link().protocol_error("a subscribe reply cannot be read");
        self->subscribed(reply);
      });
}

void Subscription::subscribed(const proto::SubscribeReply& reply) {
  state_ = State::open;
  backoff_ = {};
  engine_->link().open_stream(stream_, *this);
  std::vector<std::int32_t> moved, paused;
  {
    Lock lock{mutex_};
    for (const auto& answer : reply.partitions()) {
      ReadPartition* partition = find(answer.partition());
      if (!partition || !partition->in_stream) continue;
      if (partition->moving) {
        moved.push_back(partition->index);  // moved while the subscription was on its way
        continue;
      }
      partition->fetch = answer.offset();
      partition->high_watermark = answer.high_watermark();
      if (partition->queued == 0) partition->next = answer.offset();
      if (partition->until && partition->fetch >= *partition->until) partition->finished = true;
    }
    for (const ReadPartition& partition : partitions_) {
      if (partition.paused && partition.in_stream) paused.push_back(partition.index);
    }
    if (!first_answer_) first_answer_.emplace();
  }
  if (!moved.empty()) send_moves(moved);
  if (!paused.empty()) send_pauses(paused);
  wake_user();
}

void Subscription::retry_later() {
  backoff_ = std::clamp(backoff_ * 2, kBackoffFirst, kBackoffMax);
  auto half = static_cast<std::uint64_t>(backoff_.count() / 2);
  retry_timer_.arm(Clock::now() + Milliseconds{half + engine_->link().jitter(half + 1)}, [this] { subscribe(); });
}

void Subscription::subscribe_failed(Error error) {
  state_ = State::idle;
  stream_ended(std::move(error));
}

/// The stream is gone and `error` says why: of one partition, passing, or for good.
void Subscription::stream_ended(Error error) {
  state_ = State::idle;
  error.at.try_emplace("topic", *topic_);
  if (error.code == Errc::closed) {
    Lock lock{mutex_};
    if (!fatal_) fatal_ = std::move(error);
  } else if (error.retriable || error.code == Errc::outcome_unknown || error.code == Errc::connection_lost) {
    {
      Lock lock{mutex_};
      // The first subscription has somebody waiting, who wants to know that no broker can be reached.
      if (!first_answer_ && error.code == Errc::unreachable) first_answer_.emplace(std::unexpected(error));
    }
    retry_later();
  } else {
    ReadPartition* partition = nullptr;
    if (auto at = error.at.find("partition"); at != error.at.end()) {
      if (auto number = std::atoi(at->second.c_str()); std::to_string(number) == at->second) partition = find(number);
    }
    bool of_partition = partition && (error.code == Errc::offset_out_of_range || error.code == Errc::corrupt || error.code == Errc::no_such_partition ||
                                      error.code == Errc::io_error);
    {
      Lock lock{mutex_};
      if (of_partition) {
        // The others go on; this one waits for seek(). Its error comes after what was received before it.
        if (!error.at.contains("log_end") && error.at.contains("high_watermark")) error.at["log_end"] = error.at["high_watermark"];
        partition->stopped = true;
        queue_.push_back({.partition = partition, .error = error});
        ++partition->queued;
        if (!first_answer_) first_answer_.emplace();
      } else {
        fatal_ = std::move(error);
      }
    }
    if (of_partition) subscribe();
  }
  wake_user();
}

void Subscription::on_up() { subscribe(); }
void Subscription::on_down() {
  if (state_ != State::ended) state_ = State::idle;
  ++attempt_;
  retry_timer_.cancel();
}

void Subscription::resubscribe() {
  if (state_ == State::open) {
    proto::UnsubscribeRequest request;
    engine_->link().send(encode_frame(proto::FrameType::unsubscribe, stream_, request));
    engine_->link().close_stream(stream_);
  }
  if (state_ == State::ended) return;
  ++attempt_;
  state_ = State::idle;
  subscribe();
}

void Subscription::on_frame(IncomingFrame& frame) {
  auto alive = shared_from_this();
  switch (frame.header.type) {
    case proto::FrameType::records: return on_records(frame);
    case proto::FrameType::seek_reply: {
      proto::SeekReply reply;
      if (!decode_control(frame.control, reply)) return engine_->link().protocol_error("a seek reply cannot be read");
      bool any = false;
      {
        Lock lock{mutex_};
        for (const auto& answer : reply.partitions()) {
          ReadPartition* partition = find(answer.partition());
          // An older seek's answer says nothing about where a newer one will lead.
          if (!partition || partition->moving || reply.seek_count() < partition->moved_at) continue;
          partition->high_watermark = answer.high_watermark();
          if (partition->queued > 0) continue;  // records of the new place were faster than this reply
          if (partition->fetch < answer.offset() || partition->next < 0) {
            partition->fetch = answer.offset();
            partition->next = answer.offset();
          }
          if (partition->until && partition->fetch >= *partition->until) partition->finished = true;
          any = true;
        }
      }
      if (any) wake_user();
      return;
    }
    case proto::FrameType::error: {
      proto::ErrorReply reply;
      if (!decode_control(frame.control, reply)) return engine_->link().protocol_error("an error reply cannot be read");
      // Either the stream has ended, or a seek was refused and it has not; ending it here makes both the same.
      proto::UnsubscribeRequest request;
      engine_->link().send(encode_frame(proto::FrameType::unsubscribe, stream_, request));
      engine_->link().close_stream(stream_);
      return stream_ended(to_error(reply));
    }
    default: return;  // newer than we: ignored
  }
}

void Subscription::on_records(IncomingFrame& frame) {
  proto::Records records;
  if (!decode_control(frame.control, records)) return engine_->link().protocol_error("a records message cannot be read");
  ReadPartition* partition = find(records.partition());
  if (!partition) return engine_->link().protocol_error("records of a partition that was not asked for");
  std::size_t total = frame.payload.length;
  std::string broken;
  bool news = false;
  {
    Lock lock{mutex_};
    queued_records_ += records.records();
    queued_bytes_ += total;
    if (partition->moving || partition->paused || records.seek_count() < partition->moved_at || partition->stopped) {
      give_back(lock, records.records(), total);  // of a place that was left, or will be fetched again
      return;
    }
    if (records.reset()) {
      partition->fetch = records.first_offset();
      if (partition->queued == 0) partition->next = records.first_offset();
    }
    std::int64_t from = std::max(records.first_offset(), partition->fetch);
    std::uint64_t credit = records.records();
    std::size_t at = 0;
    while (at < total) {
      auto header = broker::read_batch_header(frame.payload.bytes().subspan(at), broker::limits::kMessageBytesCeiling);
      if (!header || header->total_bytes() > total - at || header->last_offset_delta < 0 || header->base_offset.value() < 0) {
        broken = header ? "a batch is longer than its frame" : header.error().detail;
        break;
      }
      std::size_t size = header->total_bytes();
      std::int64_t next = header->next_offset().value();
      if (next > from) {
        queue_.push_back({.partition = partition, .batch = frame.payload.part(at, size), .from = from, .records = std::exchange(credit, 0), .bytes = size});
        ++partition->queued;
        partition->fetch = next;
        from = next;
        news = true;
      } else {
        give_back(lock, 0, size);
      }
      at += size;
    }
    if (broken.empty()) {
      if (credit > 0) give_back(lock, credit, 0);
      partition->high_watermark = records.high_watermark();
      if (total == 0 && !records.reset()) partition->fetch = std::max(partition->fetch, records.first_offset());
      if (records.finished()) partition->finished = true;
      if (partition->queued == 0 && partition->next < partition->fetch) partition->next = partition->fetch;
      news = news || records.reached_end() || records.finished();
    } else {
      give_back(lock, credit, total - at);
    }
  }
  if (!broken.empty()) return engine_->link().protocol_error("records cannot be read: " + broken);
  if (news) wake_user();
}

void Subscription::send_credit() {
  proto::Credit credit;
  {
    Lock lock{mutex_};
    credit_posted_ = false;
    credit.set_records(std::exchange(back_records_, 0));
    credit.set_bytes(std::exchange(back_bytes_, 0));
    queued_records_ -= std::min(credit.records(), queued_records_);
    queued_bytes_ -= std::min(credit.bytes(), queued_bytes_);
  }
  if (state_ != State::open || (credit.records() == 0 && credit.bytes() == 0)) return;
  engine_->link().send(encode_frame(proto::FrameType::credit, stream_, credit));
}

void Subscription::send_moves(std::vector<std::int32_t> moved) {
  if (state_ == State::subscribing) return;  // subscribed() sees that they are moving
  if (state_ != State::open) return subscribe();
  proto::SeekRequest request;
  bool anew = false;
  {
    Lock lock{mutex_};
    for (std::int32_t index : moved) {
      ReadPartition& partition = *find(index);
      if (!partition.moving) continue;  // an earlier message took this move with it
      if (partition.stopped) {
        partition.moving = false;       // the user was told; nothing more of it is wanted
        partition.in_stream = false;
        anew = true;
        continue;
      }
      if (!partition.in_stream) anew = true;
      set_start(*request.add_partitions(), partition);
      if (partition.paused) request.add_pause(index);
      else request.add_resume(index);
    }
    if (!anew) {
      if (request.partitions_size() == 0) return;
      ++seeks_sent_;
      for (const auto& one : request.partitions()) {
        ReadPartition& partition = *find(one.partition());
        partition.moving = false;
        partition.moved_at = seeks_sent_;
      }
    }
  }
  if (anew) return resubscribe();
  engine_->link().send(encode_frame(proto::FrameType::seek, stream_, request));
}

void Subscription::send_pauses(const std::vector<std::int32_t>& pause) {
  if (state_ != State::open) return;  // subscribed() tells the broker
  proto::SeekRequest request;
  {
    Lock lock{mutex_};
    for (std::int32_t index : pause) {
      const ReadPartition& partition = *find(index);
      if (partition.in_stream && partition.paused) request.add_pause(index);
    }
  }
  if (request.pause_size() > 0) engine_->link().send(encode_frame(proto::FrameType::seek, stream_, request));
}

void Subscription::begin_close(TimePoint, std::function<void(CloseReport)> done) {
  auto alive = shared_from_this();
  end_waits();
  if (state_ == State::open) {
    proto::UnsubscribeRequest request;
    engine_->link().send(encode_frame(proto::FrameType::unsubscribe, stream_, request));
    engine_->link().close_stream(stream_);
  }
  state_ = State::ended;
  ++attempt_;
  retry_timer_.cancel();
  if (std::exchange(listening_, false)) engine_->link().remove_listener(*this);
  serve_waiter();
  engine_->remove(this);
  if (done) done({});
}

ConsumerCore::~ConsumerCore() { close(Milliseconds{5'000}); }
CloseReport ConsumerCore::close(Milliseconds deadline) {
  subscription_->end_waits();
  return subscription_->engine().close_part(subscription_, deadline);
}

}  // namespace tailrace::inline v1::detail
