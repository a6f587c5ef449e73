#include "queue/queue.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>

#include "base/planted.h"
#include "base/random.h"
#include "model/limits.h"

namespace tailrace::broker::queue {
namespace {

std::vector<Waiting> records(std::int64_t from, std::vector<KeyHash> keys) {
  std::vector<Waiting> out;
  for (KeyHash key : keys) out.push_back({Offset{from++}, key});
  return out;
}
template <class T>
std::optional<Errc> code(const Result<T>& result) {
  return result ? std::nullopt : std::optional{result.error().code};
}

TEST(Queue, ARecordIsLeasedSettledAndForgotten) {
  Queue queue{{}, Offset{0}};
  auto log = records(0, {0, 0, 0});
  auto events = queue.deliver(7, 2, log, 1'000);
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0], Event(Attempted{Offset{0}, 1, 7, 31'000, 0}));
  EXPECT_EQ(queue.next(), Offset{2});
  ASSERT_TRUE(queue.ack(7, Offset{0}, 1, 2'000));
  EXPECT_EQ(queue.live(), 1u);
  EXPECT_EQ(code(queue.ack(7, Offset{0}, 1, 2'000)), Errc::not_found) << "twice";
  EXPECT_EQ(code(queue.ack(8, Offset{1}, 1, 2'000)), Errc::fenced) << "another worker";
  EXPECT_EQ(code(queue.ack(7, Offset{1}, 2, 2'000)), Errc::fenced) << "another attempt";
  EXPECT_EQ(code(queue.ack(7, Offset{2}, 1, 2'000)), Errc::not_found) << "not delivered";
  EXPECT_EQ(code(queue.ack(7, Offset{1}, 1, 31'000)), Errc::fenced) << "after the lease";
  EXPECT_EQ(code(queue.retry(7, Offset{1}, 1, -1, 2'000)), Errc::invalid_argument);
  EXPECT_EQ(code(queue.retry(7, Offset{1}, 1, limits::kQueueDelayMsMax + 1, 2'000)), Errc::invalid_argument);
  EXPECT_EQ(code(queue.extend(7, Offset{1}, 1, 0, 2'000)), Errc::invalid_argument);
  EXPECT_EQ(code(queue.buried(Offset{1})), Errc::not_found);
  // The lease ends: somebody else gets it, and it is older than what was never delivered.
  auto again = queue.deliver(9, 1, log, 31'000);
  ASSERT_EQ(again.size(), 1u);
  EXPECT_EQ(again[0], Event(Attempted{Offset{1}, 2, 9, 61'000, 0}));
}

TEST(Queue, RetriesBackOffAndThenItIsADeadLetter) {
  Queue queue{{.attempts_max = 4, .backoff_min_ms = 100, .backoff_max_ms = 300}, Offset{0}};
  auto log = records(0, {0});
  TimeMs now = 0;
  for (auto [attempt, wait] : {std::pair{1U, 100}, std::pair{2U, 200}, std::pair{3U, 300}}) {
    ASSERT_EQ(queue.deliver(1, 5, log, now).size(), 1u);
    auto delayed = queue.retry(1, Offset{0}, attempt, std::nullopt, now);
    ASSERT_TRUE(delayed);
    EXPECT_EQ(*delayed, Event(Delayed{Offset{0}, now + wait}));
    EXPECT_TRUE(queue.deliver(1, 5, log, now + wait - 1).empty());
    now += wait;
  }
  ASSERT_EQ(queue.deliver(1, 5, log, now).size(), 1u);
  EXPECT_EQ(*queue.retry(1, Offset{0}, 4, std::nullopt, now), Event(Condemned{Offset{0}, Reason::attempts}));
  EXPECT_TRUE(queue.deliver(1, 5, log, now + 1'000'000).empty());
  EXPECT_EQ(code(queue.ack(1, Offset{0}, 4, now)), Errc::fenced) << "it is on its way";
  ASSERT_TRUE(queue.buried(Offset{0}));
  EXPECT_EQ(code(queue.buried(Offset{0})), Errc::not_found);
  EXPECT_EQ(queue.live(), 0u);
}

TEST(Queue, OfOneKeyOneIsAtWorkAndOthersAreNotBlocked) {
  Queue queue{{.key_order = true}, Offset{0}};
  auto log = records(0, {11, 11, 22, 11, 0, 0});
  auto events = queue.deliver(1, 10, log, 0);
  auto count = [&](std::size_t kind) { return std::ranges::count_if(events, [&](const Event& e) { return e.index() == kind; }); };
  EXPECT_EQ(count(0), 4) << "11, 22 and the two without a key";
  EXPECT_EQ(count(1), 2);
  EXPECT_EQ(queue.standstill(false, 1).why, Standstill::Why::key_blocked);
  ASSERT_TRUE(queue.retry(1, Offset{0}, 1, 50, 10));
  EXPECT_TRUE(queue.deliver(1, 10, log, 20).empty()) << "its retry keeps the place";
  ASSERT_EQ(queue.deliver(1, 10, log, 60).size(), 1u);
  ASSERT_TRUE(queue.ack(1, Offset{0}, 2, 70));
  auto next = queue.deliver(1, 10, log, 70);
  ASSERT_EQ(next.size(), 1u);
  EXPECT_EQ(std::get<Attempted>(next[0]).offset, Offset{1});
  EXPECT_EQ(std::get<Attempted>(next[0]).attempt, 1u);
}

TEST(Queue, StuckDeadLettersStopNobodyElse) {
  Queue queue{{.attempts_max = 1}, Offset{0}};
  auto log = records(0, std::vector<KeyHash>(20, 0));
  ASSERT_EQ(queue.deliver(1, 8, log, 0).size(), 8u);
  auto later = queue.deliver(2, 3, log, 40'000);  // all leases ended, all attempts used
  EXPECT_EQ(queue.condemned().size(), limits::kDeadLettersPendingMax);
  EXPECT_EQ(std::ranges::count_if(later, [](const Event& e) { return std::holds_alternative<Attempted>(e); }), 3);
  EXPECT_EQ(queue.standstill(true, 40'000).why, Standstill::Why::dead_letters_pending);
  EXPECT_EQ(code(queue.reject(2, Offset{8}, 1, 40'001)), Errc::no_credit);
  ASSERT_TRUE(queue.buried(*queue.condemned().begin()));
  EXPECT_TRUE(queue.reject(2, Offset{8}, 1, 40'001));
}

TEST(Queue, RetentionTakesNothingThatWasDeliveredAndCountsTheRest) {
  Queue queue{{.key_order = true}, Offset{0}};
  auto log = records(0, {5, 5, 0, 0});
  ASSERT_EQ(queue.deliver(1, 2, log, 0).size(), 3u);  // 0 and 2, 1 held
  auto retired = queue.retire(Offset{6});
  EXPECT_EQ(retired.deletable, Offset{0}) << "until they are dead letters";
  EXPECT_EQ(queue.counters().expired, 1u + 3u);
  for (Offset offset : {Offset{0}, Offset{2}}) ASSERT_TRUE(queue.buried(offset));
  EXPECT_EQ(queue.retire(Offset{6}).deletable, Offset{6});
  EXPECT_EQ(queue.next(), Offset{6});
}

TEST(Queue, NoStoredEventThatCannotFollowIsTaken) {
  Queue queue{{}, Offset{10}};
  ASSERT_TRUE(queue.apply(Attempted{Offset{10}, 1, 1, 5, 0}));
  for (const Event& event : {Event{Attempted{Offset{9}, 1, 1, 5, 0}}, Event{Attempted{Offset{10}, 3, 1, 5, 0}}, Event{Acked{Offset{11}}}, Event{Buried{Offset{10}}},
                             Event{Held{Offset{3}, 1}}, Event{Expired{Offset{10}, Offset{11}}}, Event{Expired{Offset{12}, Offset{20}}}, Event{Delayed{Offset{4}, 1}}}) {
    EXPECT_EQ(code(queue.apply(event)), Errc::corrupt) << event.index();
  }
  queue.check_invariants();
}

TEST(Queue, BytesOfEventsAndSnapshotsAreNotTrusted) {
  Random random{4};
  std::vector<Event> events{Attempted{Offset{5}, 2, 9, 77, 3}, Held{Offset{6}, 3}, Acked{Offset{5}}, Delayed{Offset{5}, 8}, Extended{Offset{5}, 9}, Condemned{Offset{5}, Reason::retention},
                            Buried{Offset{5}}, Expired{Offset{7}, Offset{9}}};
  for (const Event& event : events) {
    std::vector<std::byte> bytes;
    encode(event, bytes);
    auto read = decode_event(bytes);
    ASSERT_TRUE(read);
    EXPECT_EQ(*read, event);
    for (std::size_t length = 0; length < bytes.size(); ++length) EXPECT_FALSE(decode_event(Bytes{bytes}.first(length)));
    bytes.push_back(std::byte{0});
    EXPECT_EQ(code(decode_event(bytes)), Errc::corrupt);
  }
  EXPECT_EQ(code(decode_event(std::vector<std::byte>(9, std::byte{200}))), Errc::newer_format);
  Queue queue{{.key_order = true}, Offset{0}};
  auto log = records(0, {1, 1, 2, 0});
  (void)queue.deliver(1, 3, log, 0);
  std::vector<std::byte> good = queue.snapshot();
  for (int i = 0; i < 5'000; ++i) {
    auto bytes = good;
    for (std::uint64_t flips = 1 + random.below(3); flips > 0; --flips) bytes[random.below(bytes.size())] ^= std::byte{static_cast<std::uint8_t>(1 << random.below(8))};
    if (random.chance(1, 3)) bytes.resize(random.below(bytes.size() + 4));
    Queue other{{.key_order = true}, Offset{0}};
    if (!other.load(bytes)) EXPECT_EQ(other, (Queue{{.key_order = true}, Offset{0}})) << "nothing has changed";
  }
}

/// Workers that ack, retry, reject, extend, fall silent and come too late; a state topic that loses what was not committed; snapshots.
class World {
 public:
  explicit World(std::uint64_t seed) : random_{seed} {
    options_ = {.attempts_max = static_cast<std::uint32_t>(1 + random_.below(4)), .lease_ms = 100, .backoff_min_ms = 10, .backoff_max_ms = 80, .key_order = random_.chance(1, 2),
                .live_max = 4 + random_.below(30)};
    queue_ = std::make_unique<Queue>(options_, Offset{0});
    total_ = static_cast<std::int64_t>(20 + random_.below(120));
    for (std::int64_t i = 0; i < total_; ++i) log_.push_back({Offset{i}, random_.below(5)});
  }
  std::string run() {
    for (int i = 0; i < 600 && wrong_.empty(); ++i) {
      now_ += static_cast<TimeMs>(random_.below(20));
      turn(random_.below(14));
      queue_->check_invariants();
      if (queue_->live() > options_.live_max) fail("more is kept than may be");
    }
    drain();
    return wrong_;
  }
  std::uint64_t acked = 0, dead = 0, expired = 0, late = 0, crashes = 0, held = 0;

 private:
  struct Delivery {
    WorkerId worker;
    Offset offset;
    std::uint32_t attempt;
  };
  void turn(std::uint64_t what) {
    if (what < 5) return deliver(1 + random_.below(4), random_.below(5));
    if (what < 10) return settle();
    if (what == 10) return bury();
    if (what == 11) return commit();
    if (what == 12 && random_.chance(1, 4)) return crash();
    if (what == 13 && random_.chance(1, 6)) retire();
  }
  void store(const std::vector<Event>& events) {
    for (const Event& event : events) {
      stored_.push_back(event);
      note(event);
      if (std::holds_alternative<Held>(event)) ++held;
    }
  }
  /// Who has a lease, by what is stored.
  void note(const Event& event) {
    if (const auto* e = std::get_if<Attempted>(&event)) {
      Lease& lease = leases_[e->offset];
      if (lease.runs && lease.until > e->until - options_.lease_ms) fail("two workers have one record");
      lease = {true, e->worker, e->attempt, e->until};
    } else if (const auto* e = std::get_if<Extended>(&event)) {
      leases_[e->offset].until = e->until;
    } else if (const auto* e = std::get_if<Delayed>(&event)) {
      leases_[e->offset].runs = false;
    } else if (const auto* e = std::get_if<Acked>(&event)) {
      leases_[e->offset].runs = false;
    } else if (const auto* e = std::get_if<Condemned>(&event)) {
      leases_[e->offset].runs = false;
    }
  }
  void deliver(WorkerId worker, std::size_t credit) {
    std::vector<Waiting> view;
    for (const Waiting& record : log_) {
      if (record.offset >= queue_->next() && view.size() < 12) view.push_back(record);
    }
    auto events = queue_->deliver(worker, credit, view, now_);
    std::size_t attempts = 0;
    for (const Event& event : events) {
      const auto* e = std::get_if<Attempted>(&event);
      if (!e) continue;
      ++attempts;
      leaving_.push_back({stored_.size(), {worker, e->offset, e->attempt}});
    }
    if (attempts > credit) fail("more is delivered than there is credit for");
    store(events);
    if (random_.chance(3, 4)) commit();
  }
  /// Everything stored so far is on a quorum's disks: deliveries leave, answers too.
  void commit() {
    committed_ = stored_.size();
    for (auto& [offset, fate] : answers_) settled(offset, fate);
    answers_.clear();
    for (auto& [at, delivery] : leaving_) left(delivery);
    leaving_.clear();
    if (random_.chance(1, 8)) {
      snapshot_ = queue_->snapshot();
      snapshot_at_ = stored_.size();
    }
  }
  void left(const Delivery& delivery) {
    if (fate_.contains(delivery.offset)) fail("what is settled is delivered");
    std::uint32_t& attempts = attempts_[delivery.offset];
    // An attempt that was stored and lost its delivery in a crash counts too.
    if (delivery.attempt <= attempts) fail("attempts are counted anew");
    attempts = delivery.attempt;
    if (attempts > options_.attempts_max) fail("more attempts than allowed");
    if (options_.key_order && key(delivery.offset) != 0) {
      for (const Waiting& record : log_) {
        if (record.offset >= delivery.offset) break;
        if (record.key == key(delivery.offset) && !fate_.contains(record.offset)) return fail("the order of a key is broken");
      }
    }
    out_.push_back(delivery);
  }
  KeyHash key(Offset offset) const { return log_[static_cast<std::size_t>(offset.value())].key; }

  void settle() {
    if (out_.empty()) return;
    const Delivery delivery = out_[random_.below(out_.size())];
    Result<Event> event = broker::fail(Errc::internal, "not decided");
    const Lease& lease = leases_[delivery.offset];
    bool in_time = lease.runs && lease.worker == delivery.worker && lease.attempt == delivery.attempt && lease.until > now_;
    char fate = 0;
    switch (random_.below(8)) {
      case 0: event = queue_->retry(delivery.worker, delivery.offset, delivery.attempt, random_.chance(1, 2) ? std::optional<TimeMs>{random_.below(50)} : std::nullopt, now_); break;
      case 1: event = queue_->reject(delivery.worker, delivery.offset, delivery.attempt, now_); break;
      case 2: event = queue_->extend(delivery.worker, delivery.offset, delivery.attempt, 150, now_); break;
      default:
        event = queue_->ack(delivery.worker, delivery.offset, delivery.attempt, now_);
        fate = 'a';
    }
    if (!event) {
      ++late;
      if (in_time && event.error().code != Errc::no_credit) fail("a settle in time is refused");
      return;
    }
    if (!in_time) fail("a settle is taken that is late, doubled or another worker's");
    store({*event});
    if (fate == 'a') answers_.emplace_back(delivery.offset, fate);
    if (random_.chance(3, 4)) commit();
  }
  void settled(Offset offset, char fate) {
    if (!fate_.emplace(offset, fate).second) fail("settled twice");
    acked += fate == 'a' ? 1 : 0;
    dead += fate == 'd' ? 1 : 0;
    expired += fate == 'e' ? 1 : 0;
  }
  void bury() {
    if (queue_->condemned().empty()) return;
    Offset offset = *queue_->condemned().begin();
    // Only what is committed as condemned is moved.
    bool stored = false;
    for (std::size_t i = 0; i < committed_; ++i) {
      const auto* e = std::get_if<Condemned>(&stored_[i]);
      stored = stored || (e && e->offset == offset);
    }
    if (!stored) return;
    auto event = queue_->buried(offset);
    if (!event) return fail("a move cannot be ended");
    store({*event});
    answers_.emplace_back(offset, 'd');
    commit();
  }
  void retire() {
    auto retired = queue_->retire(Offset{static_cast<std::int64_t>(random_.below(static_cast<std::uint64_t>(queue_->next().value()) + 4))});
    store(retired.events);
    for (const Event& event : retired.events) {
      const auto* e = std::get_if<Expired>(&event);
      for (Offset at = e ? e->from : Offset{0}; e && at < e->to && at.value() < total_; at = at + 1) answers_.emplace_back(at, 'e');
    }
    commit();
  }
  /// What was not committed is gone, and nobody heard of it; the state is what is stored.
  void crash() {
    ++crashes;
    stored_.resize(committed_);
    leaving_.clear();
    answers_.clear();
    auto whole = std::make_unique<Queue>(options_, Offset{0});
    for (const Event& event : stored_) {
      std::vector<std::byte> bytes;
      encode(event, bytes);
      auto read = decode_event(bytes);
      if (!read || !whole->apply(*read)) return fail("what was stored cannot be applied");
    }
    if (snapshot_at_ > 0) {
      Queue part{options_, Offset{0}};
      if (!part.load(snapshot_)) return fail("a snapshot cannot be read");
      for (std::size_t i = snapshot_at_; i < stored_.size(); ++i) {
        if (!part.apply(stored_[i])) return fail("what follows a snapshot cannot be applied");
      }
      if (!(part == *whole)) return fail("a snapshot and what follows give another state");
    }
    queue_ = std::move(whole);
    leases_.clear();
    for (const Event& event : stored_) note(event);
  }
  void drain() {
    for (int i = 0; i < 20'000 && wrong_.empty(); ++i) {
      now_ += 30;
      if (queue_->next().value() >= total_ && queue_->live() == 0) break;
      deliver(9, 3);
      commit();
      for (const Delivery& delivery : std::vector<Delivery>(out_)) {
        auto event = queue_->ack(delivery.worker, delivery.offset, delivery.attempt, now_);
        if (!event) continue;
        store({*event});
        answers_.emplace_back(delivery.offset, 'a');
      }
      commit();
      bury();
    }
    if (!wrong_.empty()) return;
    if (queue_->live() != 0 || fate_.size() != static_cast<std::size_t>(total_)) fail("not every record is settled once: " + std::to_string(fate_.size()) + " of " + std::to_string(total_));
  }
  void fail(std::string what) {
    if (wrong_.empty()) wrong_ = std::move(what);
  }

  Random random_;
  QueueOptions options_;
  std::unique_ptr<Queue> queue_;
  std::vector<Waiting> log_{};
  std::int64_t total_ = 0;
  TimeMs now_ = 0;
  std::vector<Event> stored_{};
  std::size_t committed_ = 0, snapshot_at_ = 0;
  std::vector<std::byte> snapshot_{};
  std::vector<std::pair<std::size_t, Delivery>> leaving_{};
  std::vector<std::pair<Offset, char>> answers_{};
  std::vector<Delivery> out_{};
  std::map<Offset, std::uint32_t> attempts_{};
  std::map<Offset, char> fate_{};
  struct Lease {
    bool runs = false;
    WorkerId worker = 0;
    std::uint32_t attempt = 0;
    TimeMs until = 0;
  };
  std::map<Offset, Lease> leases_{};
  std::string wrong_{};
};

std::string sweep(World* sum = nullptr) {
  for (std::uint64_t seed = 1; seed <= 400; ++seed) {
    World world{seed};
    std::string wrong = world.run();
    if (!wrong.empty()) return "seed " + std::to_string(seed) + ": " + wrong;
    if (!sum) continue;
    sum->acked += world.acked;
    sum->dead += world.dead;
    sum->expired += world.expired;
    sum->late += world.late;
    sum->crashes += world.crashes;
    sum->held += world.held;
  }
  return {};
}

TEST(QueueModel, EveryRecordIsSettledOnceThroughCrashes) {
  World sum{0};
  EXPECT_EQ(sweep(&sum), "");
  EXPECT_GT(sum.acked, 10'000u);
  EXPECT_GT(sum.dead, 1'000u);
  EXPECT_GT(sum.expired, 200u);
  EXPECT_GT(sum.late, 1'000u);
  EXPECT_GT(sum.crashes, 1'000u);
  EXPECT_GT(sum.held, 1'000u);
}

class PlantedInQueues : public testing::TestWithParam<PlantedBug> {
 protected:
  void TearDown() override { plant(PlantedBug::none); }
};
TEST_P(PlantedInQueues, IsFound) {
  plant(GetParam());
  EXPECT_NE(sweep(), "") << "nothing notices " << name_of(GetParam());
}
INSTANTIATE_TEST_SUITE_P(All, PlantedInQueues,
                         testing::Values(PlantedBug::queue_past_credit, PlantedBug::queue_forget_attempts, PlantedBug::queue_double_dead_letter, PlantedBug::queue_snapshot_loses_delayed),
                         [](const auto& info) { return std::string{name_of(info.param)}; });
// This one trips the queue's own check first: it stops the process.
TEST(PlantedInQueuesDeathTest, ABrokenOrderOfKeysIsFound) {
  auto run = [] {
    plant(PlantedBug::queue_key_order);
    if (!sweep().empty()) std::abort();
  };
  EXPECT_DEATH(run(), "");
}

}  // namespace
}  // namespace tailrace::broker::queue
