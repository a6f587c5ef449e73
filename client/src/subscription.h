#pragma once
/// A consumer behind its handle. The loop subscribes, takes batches off the wire and queues them; the user's thread checks,
/// inflates and decodes them, and gives the credit back as it goes.
///
/// Places   of each partition: `next` is what the user gets next, `fetch` what the broker sends next; between them lies what is
///          queued here. After a lost connection the subscription is made anew at `fetch`: nothing twice, nothing skipped.
/// Credit   the window is what the options say, less what is queued; it is given back when half of it was read, so the broker
///          always has room to send while the user reads.
/// Seek     the queue of the partition is dropped (its credit given back), and frames sent before the broker handled the
///          move are recognised by seek_count and dropped too. A partition that is not part of the present stream (it had
///          ended with an error, or is finished) makes the whole stream be opened anew.
/// Pause    what is queued of the partition is dropped too, since it would hold credit that the others need; resuming is a move
///          to `next`. So nothing is lost, and memory stays within the window.
/// Damage   a batch that does not match its checksum is fetched once more, since it may have been damaged on the way;
///          then it is `corrupt`, and the partition stops until seek().
/// Thread   members marked "user": one thread at a time, checked. "loop": the loop. `mutex_` guards what both touch.
#include <deque>
#include <map>

#include "codec/batch_reader.h"
#include "src/engine.h"
#include "tailrace/consumer.h"

namespace tailrace::inline v1::detail {

/// Written by one thread at a time, read by any. Copied only before threads share it.
class Shared64 {
 public:
  Shared64(std::int64_t value) : value_{value} {}  // NOLINT: stands for the number
  Shared64(const Shared64& other) : value_{other.load()} {}
  Shared64& operator=(const Shared64& other) { return *this = other.load(); }
  Shared64& operator=(std::int64_t value) {
    value_.store(value, std::memory_order_relaxed);
    return *this;
  }
  operator std::int64_t() const { return load(); }  // NOLINT: stands for the number
  [[nodiscard]] std::int64_t load() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::int64_t> value_;
};

struct ReadPartition {
  std::int32_t index = 0;
  From start{};                          // where to begin when `fetch` is not known
  std::optional<std::int64_t> until{};   // exclusive
  // Under the lock.
  std::int64_t fetch = -1;               // -1: as `start` says
  Shared64 next = -1;                    // written by whoever reads, or under the lock
  std::int64_t high_watermark = -1;
  std::size_t queued = 0;                // chunks of this partition in the queue or being read
  bool paused = false;
  bool stopped = false;                  // an error was given; until seek()
  bool finished = false;                 // the broker sent all there is before `until`
  bool moving = false;                   // a seek is on its way to the loop: what arrives is of the old place
  bool refetched = false;                // the batch at `refetch_offset` was damaged once
  std::int64_t refetch_offset = -1;
  // The loop's.
  bool in_stream = false;
  std::uint64_t moved_at = 0;            // seek_count from which frames are of the present place
};

/// One received batch, or an error to be given when its turn comes.
struct Chunk {
  ReadPartition* partition = nullptr;
  broker::Slice batch{};
  std::int64_t from = 0;                 // records below are not meant for us
  std::uint64_t records = 0;             // credit to give back
  std::uint64_t bytes = 0;
  std::optional<Error> error{};
};

/// What keeps a message's bytes alive.
struct BatchPin {
  broker::Slice batch{};
  broker::Buffer inflated{};
  std::shared_ptr<const std::string> topic{};
};

class Subscription final : public Part, public LinkListener, public StreamHandler, public std::enable_shared_from_this<Subscription> {
 public:
  Subscription(std::shared_ptr<Engine> engine, std::string topic, ConsumerOptions options, std::vector<ReadPartition> partitions);
  ~Subscription() override;
  /// Any, once: subscribes, and waits for the first answer.
  Result<void> start(TimePoint deadline);

  // User.
  Result<std::optional<Message>> next(Milliseconds wait);
  Result<std::vector<Message>> next_batch(std::size_t max, Milliseconds wait);
  Task<Message> next();
  Task<std::vector<Message>> next_batch(std::size_t max);
  struct Move {
    std::int32_t partition;
    From to;
    bool keep_until;
    std::optional<std::int64_t> until;
  };
  Result<void> move(std::vector<Move> moves);
  Result<void> set_paused(std::span<const std::int32_t> partitions, bool paused);

  // Any.
  [[nodiscard]] std::vector<PartitionProgress> positions() const;
  [[nodiscard]] bool caught_up() const;
  [[nodiscard]] bool finished() const;
  [[nodiscard]] std::vector<std::int32_t> partition_numbers() const;
  [[nodiscard]] const std::string& topic() const { return *topic_; }
  [[nodiscard]] Engine& engine() { return *engine_; }
  void end_waits();  // close() was called: next() answers `closed`

  // Loop.
  void begin_close(TimePoint deadline, std::function<void(CloseReport)> done) override;
  void on_up() override;
  void on_down() override;
  void on_frame(IncomingFrame& frame) override;

 private:
  using Lock = std::unique_lock<std::mutex>;
  /// Marks the user's thread for one call; `error` if another one is inside.
  class Inside;
  struct Reading {
    ReadPartition* partition = nullptr;
    std::optional<broker::codec::BatchReader> reader{};
    std::shared_ptr<const BatchPin> pin{};
    std::int64_t from = 0;
    std::int64_t until = 0;
    std::uint64_t records = 0;
    std::uint64_t bytes = 0;
  };
  struct Waiter {
    std::size_t max = 0;
    std::shared_ptr<Single<Message>> one{};
    std::shared_ptr<Single<std::vector<Message>>> many{};
  };

  // subscription_read.cc: the user's side
  /// A message, nothing (nothing is here), or an error.
  Result<bool> take(Message& message);
  Result<bool> open_chunk();
  bool read_record(Message& message);
  void end_reading(Lock& lock);
  void drop(Lock& lock, ReadPartition& partition, bool errors_too);
  void give_back(Lock& lock, std::uint64_t records, std::uint64_t bytes);
  [[nodiscard]] bool finished_locked() const;
  [[nodiscard]] bool anything_locked() const;
  Result<void> wait(TimePoint until);
  void add_waiter(Waiter waiter);
  void serve_waiter();
  Result<void> damaged(ReadPartition& partition, std::int64_t offset, Error error);

  // subscription_stream.cc: the loop's side
  void subscribe();
  void subscribed(const proto::SubscribeReply& reply);
  void subscribe_failed(Error error);
  void stream_ended(Error error);
  void on_records(IncomingFrame& frame);
  void send_moves(std::vector<std::int32_t> partitions);
  void send_pauses(const std::vector<std::int32_t>& pause);
  void send_credit();
  void resubscribe();
  void wake_user();
  void retry_later();
  [[nodiscard]] ReadPartition* find(std::int32_t partition);
  void set_start(proto::SubscribePartition& to, const ReadPartition& partition) const;

  std::shared_ptr<Engine> engine_;
  std::shared_ptr<const std::string> topic_;
  const ConsumerOptions options_;
  std::vector<ReadPartition> partitions_;  // never resized: pointers into it are kept

  std::atomic<std::uint64_t> inside_{0};   // thread number of the caller inside, 0: none
  Reading reading_{};                      // the user's
  std::optional<Error> later_error_{};     // likewise: met behind messages that were given first

  mutable std::mutex mutex_{};
  std::condition_variable changed_{};
  std::deque<Chunk> queue_{};
  std::uint64_t queued_records_ = 0, queued_bytes_ = 0;  // credit held here: queued, being read, and not given back yet
  std::uint64_t back_records_ = 0, back_bytes_ = 0;      // read, and not given back yet
  bool credit_posted_ = false;
  std::atomic<bool> closed_{false};
  std::optional<Error> fatal_{};
  std::optional<Waiter> waiter_{};
  bool started_ = false;
  std::optional<Result<void>> first_answer_{};

  // The loop's.
  enum class State : std::uint8_t { idle, subscribing, open, ended } state_ = State::idle;
  std::uint64_t stream_ = 0;
  std::uint64_t attempt_ = 0;
  std::uint64_t seeks_sent_ = 0;
  LoopTimer retry_timer_;
  Milliseconds backoff_{};
  bool listening_ = false;
};

/// What public handles share: its destruction closes the consumer.
class ConsumerCore {
 public:
  ConsumerCore(std::shared_ptr<ClientCore> client, std::shared_ptr<Subscription> subscription)
      : client_{std::move(client)}, subscription_{std::move(subscription)} {}
  ~ConsumerCore();
  ConsumerCore(const ConsumerCore&) = delete;
  ConsumerCore& operator=(const ConsumerCore&) = delete;
  Subscription& operator*() { return *subscription_; }
  Subscription* operator->() { return subscription_.get(); }
  CloseReport close(Milliseconds deadline);

 private:
  std::shared_ptr<ClientCore> client_;  // the client lives as long as what was made from it
  std::shared_ptr<Subscription> subscription_;
};

}  // namespace tailrace::inline v1::detail
