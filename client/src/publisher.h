#pragma once
/// A producer behind its handle. Senders append to open batches under one short lock; the loop takes batches, gives them
/// sequences, sends them on one stream per topic, and settles them when answers come.
///
/// Order and identity of one partition (idempotent):
///   - At most kProducerWindowBatches are unanswered; a batch keeps its sequence as long as it may be stored.
///   - Connection lost: what was in flight may be stored; it is sent again first, in order, same sequences.
///   - Refused for now (retriable): "draining": nothing more of the partition is sent until all in flight is answered (the
///     broker refuses those as out of order); then everything is sent again in order, same sequences, after a pause.
///   - Refused for good: that batch gets its error. Those behind it cannot be stored (their sequences do not follow), so
///     after draining they are renumbered from the refused one's sequence and sent: no gap, no reordering.
///   - No answer until delivery_timeout although sent: outcome_unknown for everything of the partition that was sent and not
///     answered. Which sequence the broker expects is now unknown, so the topic's stream is opened anew with a fresh
///     producer id as soon as nothing sent under the old one is open; what was never sent goes on under it.
///   - The broker does not know our sequence (out_of_order_sequence, unknown_producer without a refused predecessor): if the
///     batch may be stored from an earlier attempt, as above; if not, a fresh producer id, and it is sent again.
/// Not idempotent: what was in flight on a lost connection ends with connection_lost, maybe_applied, and is not sent again.
///
/// Thread   members marked "any" from anywhere; the rest on the loop. `mutex_` guards what both sides touch.
#include <deque>
#include <map>
#include <set>
#include <unordered_map>

#include "src/batch.h"
#include "src/engine.h"

namespace tailrace::inline v1::detail {

struct Topic;

struct PartitionQueue {
  PartitionQueue(Topic& of, std::int32_t number) : topic{of}, index{number} {}
  Topic& topic;
  const std::int32_t index;

  // Under the lock.
  BatchPtr open{};
  std::deque<BatchPtr> full{};
  std::size_t busy = 0;     // in flight or to be sent again; senders need not wake the loop while there is any
  bool scheduled = false;   // in ready_ or in the topic's run queue

  // The loop's.
  std::deque<BatchPtr> in_flight{};  // on the present stream, in the order of sending
  std::deque<BatchPtr> again{};      // sent before, to be sent first
  std::deque<BatchPtr> refused{};    // while draining: answered, go before `again`
  bool draining = false;
  bool fresh_id = false;             // after draining, `refused` and `again` wait for a fresh producer id
  std::optional<std::int32_t> renumber_from{};
  std::int32_t next_sequence = 0;
  TimePoint not_before{};
  Milliseconds backoff{};
};

struct WaitingRecord {
  Record record{};
  Want want{};
  std::size_t charged = 0;
  std::uint64_t number = 0;
  TimePoint deadline{};
  std::int64_t time = 0;
};

class Publisher;

struct Topic final : StreamHandler {
  Topic(Publisher& of, std::string of_name) : publisher{of}, name{std::move(of_name)} {}
  void on_frame(IncomingFrame& frame) override;
  Publisher& publisher;
  const std::string name;

  // Under the lock.
  std::vector<std::unique_ptr<PartitionQueue>> partitions{};  // empty: not known yet
  std::deque<WaitingRecord> waiting{};                        // until they are known
  std::size_t batch_bytes_max = 0;                            // message_bytes_max and the broker's frame
  std::uint32_t sticky = 0;
  std::optional<Durability> durability{};
  bool wants_open = false;
  std::optional<Error> open_error{};                          // of the last attempt

  // The loop's.
  enum class State : std::uint8_t { closed, opening, open } state = State::closed;
  struct Unanswered {
    std::uint64_t ticket;
    PartitionQueue* partition;  // null: given up
    std::size_t bytes;
  };
  std::uint64_t stream = 0;
  std::uint64_t last_ticket = 0;
  std::deque<Unanswered> unanswered{};
  std::size_t window = 0;
  std::size_t window_used = 0;
  std::deque<PartitionQueue*> run{};
  std::optional<std::int64_t> producer_id{};
  std::int32_t producer_epoch = 0;
  bool fresh_id_wanted = false;
  std::uint64_t opening = 0;         // counts attempts: an answer to an older one is ignored
  TimePoint open_not_before{};
  TimePoint refresh_at{};            // when the partition count is asked for again
  Milliseconds open_backoff{};
};

class Publisher final : public Part, public LinkListener, public std::enable_shared_from_this<Publisher> {
 public:
  Publisher(std::shared_ptr<Engine> engine, ProducerOptions options);
  ~Publisher() override;
  /// Once, after construction. Any.
  void start();

  // Senders; any.
  enum class Mode : std::uint8_t { as_configured, never_wait };
  Task<Receipt> send(const RecordView& record);
  Result<Task<Receipt>> try_send(const RecordView& record);
  Task<std::vector<Receipt>> send_batch(std::span<const Record> records);
  Result<void> post(const RecordView& record, std::uint64_t tag);
  Task<std::vector<Receipt>> send_if_end(std::string_view topic, std::int32_t partition, std::int64_t end_offset,
                                         std::span<const Record> records);
  Result<void> flush(Milliseconds deadline);
  [[nodiscard]] std::optional<Durability> durability(std::string_view topic) const;
  [[nodiscard]] std::uint64_t pending() const;
  [[nodiscard]] bool closed() const;

  void begin_close(TimePoint deadline, std::function<void(CloseReport)> done) override;
  void on_up() override;
  void on_down() override;
  void on_stream_frame(Topic& topic, IncomingFrame& frame);
  [[nodiscard]] Engine& engine() { return *engine_; }

 private:
  friend struct Topic;
  /// Held for a fraction of a microsecond by either side, so a short spin nearly always saves a trip to the kernel.
  class Lock : public std::unique_lock<std::mutex> {
   public:
    explicit Lock(std::mutex& mutex) : std::unique_lock<std::mutex>{mutex, std::defer_lock} {
      for (int i = 0; i < 100; ++i) {
        if (try_lock()) return;
        pause_cpu();
      }
      lock();
    }

   private:
    static void pause_cpu() {
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
  };

  // publisher_send.cc: the senders' side
  Result<void> append(const RecordView& record, Want want, Mode mode, Task<Receipt>* handle);
  Result<bool> try_append(const RecordView& record, Want& want, bool may_wait, Task<Receipt>* handle);  // false: no room
  void want_open(Topic& topic);
  Result<void> wait_known(Lock& lock, Topic& topic, TimePoint deadline);
  Result<Topic*> find_topic(Lock& lock, std::string_view name);
  Result<std::uint32_t> choose_partition(Topic& topic, const RecordView& record, std::optional<std::uint32_t> chosen);
  Result<bool> append_to(PartitionQueue& partition, const RecordView& record, std::int64_t time, Want& want, Task<Receipt>* handle,
                         std::size_t already_charged, std::uint64_t number, std::optional<TimePoint> deadline);
  BatchPtr new_batch(Topic& topic, std::uint64_t number, std::optional<TimePoint> deadline);
  void close_open(PartitionQueue& partition);
  void want(OutgoingBatch& batch, Want& want, Task<Receipt>* handle);
  void schedule(PartitionQueue& partition);
  void wake_loop();
  void admit_waiting(Topic& topic, std::vector<std::pair<WaitingRecord, Error>>& failed);

  // publisher_stream.cc: the loop's side
  void pump();
  void run(Topic& topic);
  BatchPtr pick(Topic& topic, PartitionQueue& partition);
  void transmit(Topic& topic, PartitionQueue& partition, BatchPtr batch);
  void open_stream(Topic& topic);
  void opened(Topic& topic, const proto::OpenProducerReply& reply);
  void open_failed(Topic& topic, Error error);
  void add_partitions(Topic& topic, int count);  // under the lock
  void refresh(Topic& topic);
  void lose_stream(Topic& topic);
  void use_fresh_id(Topic& topic);
  void replace_id(Topic& topic);
  void answered(Topic& topic, std::uint64_t ticket, const proto::PublishReply* reply, std::optional<Error> error);
  void refused(Topic& topic, PartitionQueue& partition, BatchPtr batch, Error error);
  void back_off(PartitionQueue& partition);
  void finish_draining(PartitionQueue& partition);
  void give_up_sent(Topic& topic, PartitionQueue& partition, BatchPtr first, const Error& error);
  void reschedule(PartitionQueue& partition);
  void update_busy(PartitionQueue& partition);
  void arm_wake(TimePoint at);

  // publisher_end.cc: settling, deadlines, close
  void settle(PartitionQueue& partition, BatchPtr batch, const proto::PublishReply& reply);
  void settle(PartitionQueue& partition, BatchPtr batch, Error error);
  void settle(BatchPtr batch, std::shared_ptr<BatchOutcome> outcome);
  void settle_waiting(WaitingRecord record, const std::string& topic, const Error& error);
  void forget(std::uint64_t number);
  void fail_topic(Topic& topic, const Error& error);
  bool sweep();  // false: nothing is pending
  void sweep(Topic& topic, TimePoint now);
  void arm_sweep();
  void fail_everything();
  void check_closed();
  void finish_close();
  [[nodiscard]] Error timed_out(const Topic& topic, const OutgoingBatch& batch) const;

  std::shared_ptr<Engine> engine_;
  const ProducerOptions options_;
  const bool sticky_only_, murmur_;

  mutable std::mutex mutex_{};
  std::condition_variable settled_{};
  std::map<std::string, std::unique_ptr<Topic>, std::less<>> topics_{};  // topics are never removed while the publisher lives
  Topic* last_topic_ = nullptr;
  std::vector<PartitionQueue*> ready_{};
  std::vector<Topic*> to_open_{};
  bool pump_posted_ = false;
  bool closing_ = false;
  int flushing_ = 0;         // flush() calls under way: batches do not linger
  bool pressure_ = false;    // a sender waits for memory: batches do not linger
  std::uint64_t pending_ = 0;
  std::uint64_t next_number_ = 1;
  std::multiset<std::uint64_t> open_numbers_{};

  // The loop's.
  LoopTimer wake_timer_, sweep_timer_, close_timer_;
  TimePoint wake_at_ = TimePoint::max();
  std::vector<std::function<void(CloseReport)>> closed_callbacks_{};
  CloseReport close_report_{};
  bool closed_ = false;
  bool listening_ = false;
  TimePoint close_deadline_ = TimePoint::max();
};

}  // namespace tailrace::inline v1::detail
