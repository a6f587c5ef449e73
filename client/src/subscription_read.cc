// The user's side of a subscription: from received batches to messages.
#include <algorithm>

#include "src/subscription.h"

namespace tailrace::inline v1::detail {
namespace {
constexpr std::int64_t kNoUntil = std::numeric_limits<std::int64_t>::max();

std::uint64_t thread_number() {
  static std::atomic<std::uint64_t> last{0};
  static thread_local const std::uint64_t mine = last.fetch_add(1) + 1;
  return mine;
}
}  // namespace

class Subscription::Inside {
 public:
  explicit Inside(std::atomic<std::uint64_t>& inside) : inside_{inside} {
    std::uint64_t nobody = 0;
    std::uint64_t me = thread_number();
    entered_ = inside.compare_exchange_strong(nobody, me, std::memory_order_acquire);
    if (!entered_) {
      error_ = make_error(Errc::internal, "a consumer is used by one thread at a time: thread " + std::to_string(nobody) +
                                              (nobody == kHandle ? " (an unfinished next() handle)" : "") + " is inside, thread " + std::to_string(me) + " called");
      error_.maybe_applied = false;
      error_.hint = "Give each thread its own consumer, or guard this one with a lock.";
    }
  }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;
  ~Inside() {
    if (entered_) inside_.store(0, std::memory_order_release);
  }
  /// The call goes on as a handle, which holds the consumer until it is finished.
  void pass_on() {
    inside_.store(kHandle, std::memory_order_release);
    entered_ = false;
  }
  [[nodiscard]] bool entered() const { return entered_; }
  [[nodiscard]] Error error() const { return error_; }
  static constexpr std::uint64_t kHandle = ~std::uint64_t{0};

 private:
  std::atomic<std::uint64_t>& inside_;
  bool entered_ = false;
  Error error_{};
};

bool Subscription::finished_locked() const {
  return std::ranges::all_of(partitions_, [](const ReadPartition& p) { return p.finished && p.queued == 0; });
}
bool Subscription::anything_locked() const {
  return std::ranges::any_of(queue_, [](const Chunk& chunk) { return !chunk.partition->paused; });
}

/// Takes the next chunk off the queue and makes it the one being read. False: there is none.
Result<bool> Subscription::open_chunk() {
  Chunk chunk;
  {
    Lock lock{mutex_};
    if (closed_) return std::unexpected(make_error(Errc::closed, "the consumer is closed"));
    auto at = std::ranges::find_if(queue_, [](const Chunk& c) { return !c.partition->paused; });
    if (at == queue_.end()) {
      if (fatal_) return std::unexpected(*fatal_);
      return false;
    }
    chunk = std::move(*at);
    queue_.erase(at);
    reading_ = Reading{.partition = chunk.partition, .from = chunk.from, .until = chunk.partition->until.value_or(kNoUntil),
                       .records = chunk.records, .bytes = chunk.bytes};
    if (chunk.error) {
      end_reading(lock);
      return std::unexpected(*std::move(chunk.error));
    }
  }
  auto reader = broker::codec::BatchReader::open(chunk.batch.bytes());
  if (!reader) {
    Lock lock{mutex_};
    ReadPartition& partition = *chunk.partition;
    std::int64_t offset = chunk.from;
    end_reading(lock);
    lock.unlock();
    if (auto again = damaged(partition, offset, to_error(reader.error())); !again) return std::unexpected(std::move(again).error());
    return open_chunk();
  }
  auto pin = std::make_shared<BatchPin>(BatchPin{.batch = std::move(chunk.batch), .inflated = reader->inflated(), .topic = topic_});
  reading_.reader.emplace(*std::move(reader));
  reading_.pin = std::move(pin);
  return true;
}

/// A batch that cannot be used: fetched once more, then it is an error and the partition stops.
Result<void> Subscription::damaged(ReadPartition& partition, std::int64_t offset, Error error) {
  bool give_up = false;
  {
    Lock lock{mutex_};
    give_up = partition.refetched && partition.refetch_offset == offset;
    partition.refetched = !give_up;
    partition.refetch_offset = offset;
    drop(lock, partition, false);
    partition.fetch = offset;
    partition.moving = true;
    if (give_up) partition.stopped = true;
  }
  engine_->event({ClientEvent::Level::warn, ClientEvent::Kind::retrying,
                  "a batch of " + *topic_ + "[" + std::to_string(partition.index) + "] at offset " + std::to_string(offset) + " is damaged: " +
                      error.message + (give_up ? "; giving up" : "; fetching it again")});
  engine_->post([weak = weak_from_this(), index = partition.index] {
    if (auto self = weak.lock()) self->send_moves({index});
  });
  if (!give_up) return {};
  Error corrupt = make_error(Errc::corrupt, error.message,
                             {{"topic", *topic_}, {"partition", std::to_string(partition.index)}, {"offset", std::to_string(offset)}});
  corrupt.hint = "seek() past it to go on; see: tailrace log verify DIR.";
  return std::unexpected(std::move(corrupt));
}

/// Forgets what was received of a partition and not given to the user.
void Subscription::drop(Lock& lock, ReadPartition& partition, bool errors_too) {
  std::erase_if(queue_, [&](Chunk& chunk) {
    if (chunk.partition != &partition || (chunk.error && !errors_too)) return false;
    give_back(lock, chunk.records, chunk.bytes);
    --partition.queued;
    return true;
  });
  if (reading_.partition == &partition) end_reading(lock);
}

/// The batch being read is done with.
void Subscription::end_reading(Lock& lock) {
  if (!reading_.partition) return;
  --reading_.partition->queued;
  give_back(lock, reading_.records, reading_.bytes);
  reading_ = {};
  if (finished_locked()) changed_.notify_all();
}

void Subscription::give_back(Lock&, std::uint64_t records, std::uint64_t bytes) {
  back_records_ += records;
  back_bytes_ += bytes;
  if (credit_posted_ || (back_records_ < options_.credit_records / 2 + 1 && back_bytes_ < options_.credit_bytes / 2 + 1)) return;
  credit_posted_ = engine_->post([weak = weak_from_this()] {
    if (auto self = weak.lock()) self->send_credit();
  });
}

bool Subscription::read_record(Message& message) {
  broker::codec::RecordView record;
  Reading& r = reading_;
  if (r.reader->header().is_control()) return false;
  while (r.reader->next(record)) {
    std::int64_t offset = record.offset.value();
    if (offset < r.from) continue;
    if (offset >= r.until) return false;
    message.topic = *r.pin->topic;
    message.partition = r.partition->index;
    message.offset = offset;
    message.time = Instant{Milliseconds{record.timestamp}};
    message.key = record.key;
    message.value = record.value;
    message.headers.clear();
    if (!record.headers.empty()) {
      message.headers.reserve(record.headers.size());
      for (const auto& header : record.headers) {
        Header& to = message.headers.emplace_back();
        to.key = header.key;
        if (header.value) to.value.emplace(broker::as_text(*header.value));
      }
    }
    message.leader_epoch = r.reader->header().leader_epoch.value();
    message.pin = r.pin;
    return true;
  }
  return false;
}

/// The next message if there is one here.
Result<bool> Subscription::take(Message& message) {
  if (later_error_) return std::unexpected(*std::exchange(later_error_, std::nullopt));
  while (true) {
    if (reading_.partition) {
      if (closed_.load(std::memory_order_relaxed)) return std::unexpected(make_error(Errc::closed, "the consumer is closed"));
      if (read_record(message)) {
        std::int64_t next = message.offset + 1;
        reading_.partition->next = next;
        if (next >= reading_.until || next == reading_.reader->header().next_offset().value()) {
          Lock lock{mutex_};
          end_reading(lock);  // at once, so that finished() and the credit do not wait for the next call
        }
        return true;
      }
      auto header = reading_.reader->header();
      auto broken = reading_.reader->error();
      Lock lock{mutex_};
      ReadPartition& partition = *reading_.partition;
      std::int64_t next = std::max(partition.next.load(), reading_.from);
      if (!broken) partition.next = std::min(std::max(next, header.next_offset().value()), reading_.until);
      end_reading(lock);
      if (broken) {
        lock.unlock();
        if (auto again = damaged(partition, next, to_error(*broken)); !again) return std::unexpected(std::move(again).error());
      }
      continue;
    }
    auto opened = open_chunk();
    if (!opened) return std::unexpected(std::move(opened).error());
    if (!*opened) return false;
  }
}

/// Returns when something may be here, at `until`, or when finished.
Result<void> Subscription::wait(TimePoint until) {
  Lock lock{mutex_};
  changed_.wait_until(lock, until, [&] { return closed_ || fatal_ || anything_locked() || finished_locked(); });
  if (closed_) return std::unexpected(make_error(Errc::closed, "the consumer is closed"));
  return {};
}

Result<std::optional<Message>> Subscription::next(Milliseconds wait_at_most) {
  Inside inside{inside_};
  if (!inside.entered()) return std::unexpected(inside.error());
  auto until = Clock::now() + wait_at_most;
  std::optional<Message> message{std::in_place};
  while (true) {
    auto taken = take(*message);
    if (!taken) return std::unexpected(std::move(taken).error());
    if (*taken) return message;
    if (Clock::now() >= until || finished()) return std::nullopt;
    if (auto waited = wait(until); !waited) return std::unexpected(std::move(waited).error());
  }
}

Result<std::vector<Message>> Subscription::next_batch(std::size_t max, Milliseconds wait_at_most) {
  Inside inside{inside_};
  if (!inside.entered()) return std::unexpected(inside.error());
  if (max == 0) return std::unexpected(make_error(Errc::invalid_argument, "max is 0"));
  auto until = Clock::now() + wait_at_most;
  std::vector<Message> messages;
  while (messages.size() < max) {
    Message message;
    auto taken = take(message);
    if (!taken) {
      if (!messages.empty()) {
        // The messages before the error are good: they come first, the error with the next call.
        if (taken.error().code != Errc::closed) later_error_ = std::move(taken).error();
        return messages;
      }
      return std::unexpected(std::move(taken).error());
    }
    if (*taken) {
      messages.push_back(std::move(message));
      continue;
    }
    if (!messages.empty() || Clock::now() >= until || finished()) return messages;
    if (auto waited = wait(until); !waited) return std::unexpected(std::move(waited).error());
  }
  return messages;
}

Task<Message> Subscription::next() {
  auto completion = std::make_shared<Single<Message>>(engine_->callbacks());
  add_waiter({.max = 1, .one = completion});
  return Task<Message>{completion};
}
Task<std::vector<Message>> Subscription::next_batch(std::size_t max) {
  auto completion = std::make_shared<Single<std::vector<Message>>>(engine_->callbacks());
  add_waiter({.max = std::max<std::size_t>(max, 1), .many = completion});
  return Task<std::vector<Message>>{completion};
}

void Subscription::add_waiter(Waiter waiter) {
  Inside inside{inside_};
  if (!inside.entered()) {
    if (waiter.one) waiter.one->complete(std::unexpected(inside.error()));
    else waiter.many->complete(std::unexpected(inside.error()));
    return;
  }
  inside.pass_on();
  {
    Lock lock{mutex_};
    waiter_ = std::move(waiter);
  }
  bool posted = engine_->post([weak = weak_from_this()] {
    if (auto self = weak.lock()) self->serve_waiter();
  });
  if (!posted) serve_waiter();  // the client is closed: answered here
}

/// Loop: finishes the handle if it can. The handle holds the consumer, so nobody else reads.
void Subscription::serve_waiter() {
  std::optional<Waiter> waiter;
  {
    Lock lock{mutex_};
    if (!waiter_) return;
    if (!closed_ && !fatal_ && !later_error_ && !reading_.partition && !anything_locked() && !finished_locked()) return;
    waiter.swap(waiter_);
  }
  std::vector<Message> messages;
  std::optional<Error> error;
  while (messages.size() < waiter->max) {
    Message message;
    auto taken = take(message);
    if (!taken) {
      error = std::move(taken).error();
      break;
    }
    if (!*taken) break;
    messages.push_back(std::move(message));
  }
  if (messages.empty() && !error && !finished()) {
    Lock lock{mutex_};
    waiter_ = std::move(waiter);
    return;
  }
  if (!messages.empty() && error && error->code != Errc::closed) {
    later_error_ = *std::move(error);
    error.reset();
  }
  inside_.store(0, std::memory_order_release);
  if (waiter->one) {
    if (!messages.empty()) waiter->one->complete(std::move(messages.front()));
    else waiter->one->complete(std::unexpected(error ? *std::move(error) : make_error(Errc::closed, "everything before `until` was read")));
  } else if (messages.empty() && error) {
    waiter->many->complete(std::unexpected(*std::move(error)));
  } else {
    waiter->many->complete(std::move(messages));
  }
}

Result<void> Subscription::move(std::vector<Move> moves) {
  Inside inside{inside_};
  if (!inside.entered()) return std::unexpected(inside.error());
  std::vector<std::int32_t> moved;
  {
    Lock lock{mutex_};
    if (closed_) return std::unexpected(make_error(Errc::closed, "the consumer is closed"));
    for (Move& one : moves) {
      ReadPartition* partition = find(one.partition);
      if (!partition) return std::unexpected(make_error(Errc::no_such_partition, "partition " + std::to_string(one.partition) + " is not read by this consumer"));
    }
    for (Move& one : moves) {
      ReadPartition& partition = *find(one.partition);
      later_error_.reset();  // of a place that is left
      drop(lock, partition, true);
      partition.start = one.to;
      if (!one.keep_until) partition.until = one.until;
      partition.fetch = partition.next = -1;
      if (const auto* offset = std::get_if<From::Offset>(&one.to.value())) partition.fetch = partition.next = offset->value;
      partition.stopped = partition.finished = partition.refetched = false;
      partition.moving = true;
      moved.push_back(one.partition);
    }
  }
  engine_->post([weak = weak_from_this(), moved = std::move(moved)] {
    if (auto self = weak.lock()) self->send_moves(moved);
  });
  return {};
}

Result<void> Subscription::set_paused(std::span<const std::int32_t> partitions, bool paused) {
  Inside inside{inside_};
  if (!inside.entered()) return std::unexpected(inside.error());
  std::vector<std::int32_t> changed;
  {
    Lock lock{mutex_};
    if (closed_) return std::unexpected(make_error(Errc::closed, "the consumer is closed"));
    for (std::int32_t index : partitions) {
      if (!find(index)) return std::unexpected(make_error(Errc::no_such_partition, "partition " + std::to_string(index) + " is not read by this consumer"));
    }
    for (ReadPartition& partition : partitions_) {
      if (!partitions.empty() && std::ranges::find(partitions, partition.index) == partitions.end()) continue;
      if (partition.paused == paused) continue;
      partition.paused = paused;
      if (paused) {
        // What is here would hold credit that the others need; it is fetched again when the partition goes on.
        drop(lock, partition, false);
        if (partition.next >= 0) partition.fetch = partition.next;
        if (!partition.until || partition.fetch < *partition.until) partition.finished = false;
      } else {
        partition.moving = partition.moving || !partition.stopped;
      }
      changed.push_back(partition.index);
    }
  }
  engine_->post([weak = weak_from_this(), changed = std::move(changed), paused] {
    auto self = weak.lock();
    if (!self) return;
    if (paused) self->send_pauses(changed);
    else self->send_moves(changed);
  });
  return {};
}

std::vector<PartitionProgress> Subscription::positions() const {
  Lock lock{mutex_};
  std::vector<PartitionProgress> all;
  for (const ReadPartition& p : partitions_) {
    all.push_back({.partition = p.index, .next_offset = p.next, .high_watermark = p.high_watermark,
                   .caught_up = p.next >= 0 && p.high_watermark >= 0 && p.next >= p.high_watermark,
                   .finished = p.finished && p.queued == 0, .paused = p.paused});
  }
  return all;
}
bool Subscription::caught_up() const {
  auto all = positions();
  return std::ranges::all_of(all, [](const PartitionProgress& p) { return p.caught_up || p.finished; });
}
bool Subscription::finished() const {
  Lock lock{mutex_};
  return finished_locked();
}
std::vector<std::int32_t> Subscription::partition_numbers() const {
  std::vector<std::int32_t> all;
  for (const ReadPartition& p : partitions_) all.push_back(p.index);
  return all;
}

void Subscription::end_waits() {
  {
    Lock lock{mutex_};
    closed_ = true;
  }
  changed_.notify_all();
}

}  // namespace tailrace::inline v1::detail
