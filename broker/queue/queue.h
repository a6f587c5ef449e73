#pragma once
/// The records of one partition as one queue group works through them. A pure value: settles and the time go in, events come out.
///
///   never delivered --> leased --> acked
///        |              ^   \--> delayed --> leased again ...
///        |              |    \-> (lease ends) leased again ...
///        \--> held -----/     \-> condemned --> buried (in the dead-letter topic)
///
/// Whoever drives it appends what a call returned to the group's state topic, all of it in one batch, and acts on it (delivers, answers) once that
/// is committed: an attempt is durable before its delivery leaves. The state has already moved on then; where the append fails for good, it is built again from
/// what is stored. Every record below next() is live (here) or settled; nothing is kept of those that are settled.
///
/// Spec     docs/queues.md. Shard: the partition's. Bound: QueueOptions::live_max records here, whatever the backlog.
#include <map>
#include <optional>
#include <set>
#include <span>
#include <unordered_map>
#include <deque>

#include "queue/events.h"

namespace tailrace::broker::queue {

struct QueueOptions {
  std::uint32_t attempts_max = 10;
  TimeMs lease_ms = 30'000;
  TimeMs backoff_min_ms = 1'000;   // doubled with each attempt
  TimeMs backoff_max_ms = 600'000;
  bool key_order = false;          // of one key at most one record is leased or delayed; the next waits until it is settled
  std::size_t live_max = 10'000;
};

/// Within limits::kQueue... Errors: invalid_argument, naming what is not.
[[nodiscard]] Result<void> check(const QueueOptions& options);

/// A record that was not delivered yet, as the log has it.
struct Waiting {
  Offset offset{};
  KeyHash key = 0;
};
/// Why a worker with credit gets nothing now.
struct Standstill {
  enum class Why : std::uint8_t { end_of_log, leased, delayed, key_blocked, live_limit, dead_letters_pending };
  Why why{};
  Offset offset{};     // of the record that stands for the others
  WorkerId worker = 0;  // of leased
  TimeMs until = 0;     // of leased and delayed: when it changes by itself
};

class Queue {
 public:
  /// Begins at `next`: nothing below it was or will be delivered.
  explicit Queue(QueueOptions options, Offset next) : options_{options}, next_{next} {}

  /// Up to `credit` attempts for a worker. `log` is what follows next(), in order, without gaps in what is there. Also what ended by itself: condemned
  /// after too many attempts, held behind its key.
  [[nodiscard]] std::vector<Event> deliver(WorkerId worker, std::size_t credit, std::span<const Waiting> log, TimeMs now);

  // Settles of one delivery. Errors: not_found (settled already, or never delivered), fenced (another attempt or worker has it, or the lease has
  // ended), invalid_argument, no_credit (dead letters are pending: later).
  [[nodiscard]] Result<Event> ack(WorkerId worker, Offset offset, std::uint32_t attempt, TimeMs now);
  /// `delay_ms`: none: the backoff. After attempts_max it is condemned.
  [[nodiscard]] Result<Event> retry(WorkerId worker, Offset offset, std::uint32_t attempt, std::optional<TimeMs> delay_ms, TimeMs now);
  [[nodiscard]] Result<Event> reject(WorkerId worker, Offset offset, std::uint32_t attempt, TimeMs now);
  [[nodiscard]] Result<Event> extend(WorkerId worker, Offset offset, std::uint32_t attempt, TimeMs by_ms, TimeMs now);
  /// The dead-letter topic has it.
  [[nodiscard]] Result<Event> buried(Offset offset);
  /// Records below are about to be deleted: those that were delivered are condemned (as many as may be pending), the others expire. Answers events, and
  /// below what the log may be deleted once they are committed.
  struct Retired {
    std::vector<Event> events{};
    Offset deletable{};
  };
  [[nodiscard]] Retired retire(Offset before);

  /// From the state topic: what was stored, in order. Errors: corrupt (an event that cannot follow).
  [[nodiscard]] Result<void> apply(const Event& event);
  [[nodiscard]] std::vector<std::byte> snapshot() const;
  /// Errors: corrupt, newer_format; nothing has changed then.
  [[nodiscard]] Result<void> load(Bytes snapshot);

  [[nodiscard]] Offset next() const { return next_; }
  /// Of a live record. Errors: not_found.
  [[nodiscard]] Result<std::pair<std::uint32_t, Reason>> attempts(Offset offset) const;
  [[nodiscard]] std::size_t live() const { return live_.size(); }
  [[nodiscard]] const std::set<Offset>& condemned() const { return condemned_; }
  /// When something becomes due by itself; none: never.
  [[nodiscard]] std::optional<TimeMs> due() const;
  [[nodiscard]] Standstill standstill(bool more_in_log, TimeMs now) const;
  struct Counters {
    std::uint64_t acked = 0, buried = 0, expired = 0, attempts = 0;
    friend bool operator==(const Counters&, const Counters&) = default;
  };
  [[nodiscard]] const Counters& counters() const { return counters_; }
  void check_invariants() const;
  friend bool operator==(const Queue& a, const Queue& b);

 private:
  enum class State : std::uint8_t { leased, delayed, held, condemned };
  struct Live {
    State state = State::held;
    std::uint32_t attempts = 0;
    TimeMs until = 0;       // of leased and delayed
    WorkerId worker = 0;    // of leased
    KeyHash key = 0;
    Reason reason{};        // of condemned
    friend bool operator==(const Live&, const Live&) = default;
  };
  using Lives = std::map<Offset, Live>;
  Result<Lives::iterator> leased(WorkerId worker, Offset offset, std::uint32_t attempt, TimeMs now);
  void enter(Lives::iterator at, State state, TimeMs until);
  void leave_state(Lives::iterator at);
  void settle(Lives::iterator at);
  [[nodiscard]] bool orders(KeyHash key) const { return options_.key_order && key != 0; }
  [[nodiscard]] TimeMs backoff(std::uint32_t attempts) const;
  [[nodiscard]] bool may_condemn() const;
  Event now_happens(Event event);
  void check_state() const;

  QueueOptions options_;
  Offset next_;
  Lives live_{};
  std::set<std::pair<TimeMs, Offset>> due_{};  // of leased and delayed, by their until
  std::set<Offset> ready_{};                   // held, and first of their key
  std::set<Offset> condemned_{};
  std::unordered_map<KeyHash, std::deque<Offset>> of_key_{};  // unsettled ones, in order; only with key_order
  Counters counters_{};
};

}  // namespace tailrace::broker::queue
