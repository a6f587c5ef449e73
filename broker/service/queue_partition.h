#pragma once
/// The queue groups on one partition of a topic: drives the pure queues, stores their events beside the data, reads the records, moves dead letters. Private
/// to `service`.
///
///   lease  -> records that follow are read -> the queue decides -> its events are appended -> committed -> delivered
///   settle -> the queue decides            -> its events are appended -> committed -> answered
///   condemned -> produced into the dead-letter topic, with a sequence that is its own -> `buried` is appended
///
/// So an attempt is stored before its delivery leaves, and an acked record is never delivered again. A dead letter that was produced and whose `buried` was not
/// stored is produced again with the same sequence, and is a duplicate there: it is in the topic once. Where something cannot be stored memory is ahead of
/// the log: failed() from then on, and whoever comes next makes another, which reads the log anew.
///
/// Shard    that of the partition of `__queue.T`, which is the data partition's as a rule; nothing relies on it.
/// Bounds   limits::kQueueGroupsMax groups; of each kQueueLiveMax live records and kAheadBytes read ahead, dropped when nobody asks.
/// Spec     docs/queues.md.
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "queue/records.h"
#include "service/queues.h"
#include "service/state_log.h"

namespace tailrace::broker::service {

class QueuePartition : public std::enable_shared_from_this<QueuePartition> {
 public:
  /// `state`: of `__queue.T`; its index is the data partition's too.
  QueuePartition(ShardCore& core, PartitionId state, TopicId topic);
  QueuePartition(const QueuePartition&) = delete;
  QueuePartition& operator=(const QueuePartition&) = delete;

  /// Reads what is stored. Before anything else.
  [[nodiscard]] Task<Answer<void>> load();
  [[nodiscard]] bool failed() const { return failed_; }

  // Errors of all: no_such_group, and where it could not be stored those of StateLog.
  /// Errors: invalid_argument, too_many.
  [[nodiscard]] Task<Answer<OpenedQueue>> open(OpenQueue request);
  /// Up to `credit` records, none if there was nothing until `wait_until`. Errors: too_many (credit), shutting_down.
  [[nodiscard]] Task<Answer<std::vector<LeasedRecord>>> lease(LeaseRecords request);
  /// One answer each: nothing, or why not (queue::Queue). What was taken is stored for good when it answers.
  [[nodiscard]] Task<Answer<std::vector<Result<void>>>> settle(std::string group, queue::WorkerId worker, std::vector<SettleRecord> records);
  [[nodiscard]] Task<Answer<QueueDescription>> describe(std::string group);
  [[nodiscard]] Task<Answer<std::vector<std::string>>> list();
  /// Forgets it, live records and all.
  [[nodiscard]] Task<Answer<void>> remove(std::string group);
  /// Records below are about to be deleted (docs/queues.md, "Retention"): answers below what they may be, after dead letters have left.
  [[nodiscard]] Task<Answer<Offset>> retire(Offset before);
  /// Everybody who waits is answered.
  void stop();

 private:
  struct Ahead {
    queue::Waiting record{};
    Slice batch{};
  };
  struct Entry {
    explicit Entry(Executor& executor) : changed{executor} {}
    QueueSettings settings{};
    Offset begin{};
    std::optional<queue::Queue> queue{};
    queue::DeadLetters letters{};
    std::set<Offset> intents{};  // of the open letters those whose `condemned` is committed: only they may move
    std::deque<Ahead> ahead{};  // read, and not delivered yet
    Offset ahead_end{};         // where reading goes on
    std::size_t ahead_bytes = 0;
    std::size_t waiting = 0;    // leases that wait
    bool reading = false;
    bool moving = false;        // dead letters are on their way
    bool gone = false;
    std::optional<Refusal> unreadable{};  // the data, now
    Notifier changed;
  };
  using EntryPtr = std::shared_ptr<Entry>;

  [[nodiscard]] Answer<EntryPtr> known(const std::string& group) const;
  [[nodiscard]] Result<void> take(const codec::RecordView& record);
  [[nodiscard]] Task<Answer<void>> store(std::string group, EntryPtr entry, queue::EventsRecord record);
  [[nodiscard]] Task<Answer<void>> append(std::vector<StateRecord> records);
  void happened(const std::string& group, const EntryPtr& entry);
  [[nodiscard]] Task<void> read_ahead(std::shared_ptr<QueuePartition> self, std::string group, EntryPtr entry);
  static void drop_stale(Entry& entry);
  [[nodiscard]] Task<Answer<Slice>> read_one(Offset offset);
  [[nodiscard]] Task<void> move_dead_letters(std::shared_ptr<QueuePartition> self, std::string group, EntryPtr entry);
  [[nodiscard]] Task<Answer<void>> bury(const std::string& group, const EntryPtr& entry, Offset offset);
  [[nodiscard]] Task<Answer<cluster::TopicPointer>> dead_letter_topic(const Entry& entry);
  void rewrite_if_due();
  [[nodiscard]] Task<void> rewrite(std::shared_ptr<QueuePartition> self);
  void fail();
  [[nodiscard]] queue::TimeMs now_ms() const;
  [[nodiscard]] bool ended() const;

  ShardCore& core_;
  StateLog log_;
  TopicId topic_;
  PartitionIndex index_;
  std::map<std::string, EntryPtr> groups_{};
  std::uint64_t appended_bytes_ = 0;  // of events, since the log was written anew
  std::uint64_t state_bytes_ = 0;     // that it was then
  bool rewriting_ = false;
  bool failed_ = false;
};

}  // namespace tailrace::broker::service
