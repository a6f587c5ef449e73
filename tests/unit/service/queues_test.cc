/// Queue groups through the service: leases, settles and dead letters, and what is left of them after crashes.
#include <gtest/gtest.h>

#include <set>

#include "base/planted.h"
#include "base/random.h"
#include "tests/unit/service/broker_world.h"

namespace tailrace::broker::service {
namespace {

using namespace std::chrono_literals;
using How = SettleRecord::How;

struct QueueWorld : BrokerWorld {
  using BrokerWorld::BrokerWorld;
  std::uint32_t at = 0;  // the shard that is asked
  queue::WorkerId open(std::string group = "g", QueueSettings settings = {}) {
    auto opened = run(shard(at).open_queue("jobs", PartitionIndex{0}, {.group = std::move(group), .settings = std::move(settings)}));
    EXPECT_TRUE(opened) << (opened ? "" : opened.error().detail);
    return opened ? opened->worker : 0;
  }
  Answer<std::vector<LeasedRecord>> try_lease(queue::WorkerId worker, std::size_t credit, Duration wait = {}, std::string group = "g") {
    return run(shard(at).lease_records("jobs", PartitionIndex{0}, {.group = std::move(group), .worker = worker, .credit = credit, .wait_until = now() + wait}));
  }
  std::vector<LeasedRecord> lease(queue::WorkerId worker, std::size_t credit, Duration wait = 100ms, std::string group = "g") {
    auto leased = try_lease(worker, credit, wait, std::move(group));
    EXPECT_TRUE(leased) << (leased ? "" : leased.error().detail);
    return leased ? *std::move(leased) : std::vector<LeasedRecord>{};
  }
  /// The first refusal, or nothing.
  std::string settle(queue::WorkerId worker, std::vector<SettleRecord> records, std::string group = "g") {
    auto settled = run(shard(at).settle_records("jobs", PartitionIndex{0}, std::move(group), worker, std::move(records)));
    if (!settled) return settled.error().detail;
    for (const Result<void>& one : *settled) {
      if (!one) return std::string{describe(one.error().code).name} + ": " + one.error().detail;
    }
    return {};
  }
  QueueDescription describe_queue(std::string group = "g") {
    auto described = run(shard(at).describe_queue("jobs", PartitionIndex{0}, std::move(group)));
    EXPECT_TRUE(described) << (described ? "" : described.error().detail);
    return described ? *described : QueueDescription{};
  }
  void jobs(int count, int from = 0) {
    for (int i = from; i < from + count; ++i) ASSERT_TRUE(produce(topic("jobs"), 0, {"job " + std::to_string(i)}));
  }
};

std::string value_of(const LeasedRecord& leased) {
  auto reader = codec::BatchReader::open(leased.batch.bytes());
  codec::RecordView record;
  while (reader && reader->next(record)) {
    if (record.offset == leased.offset) return std::string{as_text(record.value.value_or(Bytes{}))};
  }
  return "not in its batch";
}
std::vector<std::int64_t> offsets_of(const std::vector<LeasedRecord>& leased) {
  std::vector<std::int64_t> out;
  for (const LeasedRecord& one : leased) out.push_back(one.offset.value());
  return out;
}

// An attempt is stored before it is delivered, an ack before it is answered.
TEST(Queues, WhatWasAckedIsGoneAndWhatWasLeasedComesBack) {
  QueueWorld world{WorldOptions{.shards = 2}};
  world.start();
  world.create("jobs", 1);
  world.jobs(6);
  queue::WorkerId a = world.open();
  auto first = world.lease(a, 4);
  ASSERT_EQ(offsets_of(first), (std::vector<std::int64_t>{0, 1, 2, 3}));
  EXPECT_EQ(value_of(first[2]), "job 2");
  EXPECT_EQ(world.settle(a, {{How::ack, Offset{0}, 1}, {How::ack, Offset{2}, 1}}), "");
  for (int life = 0; life < 2; ++life) {
    world.power_cut(sim::CrashPlan::lose_all());
    world.start();
    world.at = 1 - world.at;
    QueueDescription now = world.describe_queue();
    EXPECT_EQ(now.counters.acked, 2U);
    EXPECT_EQ(now.live, 2U);
    EXPECT_EQ(now.next, Offset{4});
  }
  EXPECT_EQ(world.settle(a, {{How::ack, Offset{1}, 1}}), "") << "the worker outlives the broker";
  queue::WorkerId b = world.open();
  EXPECT_EQ(offsets_of(world.lease(b, 10)), (std::vector<std::int64_t>{4, 5})) << "3 is still leased";
  world.loop().run_for(31s);
  auto again = world.lease(b, 10);
  std::ranges::sort(again, {}, &LeasedRecord::offset);
  EXPECT_EQ(offsets_of(again), (std::vector<std::int64_t>{3, 4, 5}));
  for (const LeasedRecord& one : again) EXPECT_EQ(one.attempt, 2U);
  EXPECT_EQ(value_of(again[0]), "job 3");
  EXPECT_NE(world.settle(a, {{How::ack, Offset{3}, 1}}), "") << "that lease has ended";
}

TEST(Queues, SettlesThatCannotBeChangeNothing) {
  QueueWorld world;
  world.start();
  world.create("jobs", 1);
  world.jobs(3);
  queue::WorkerId a = world.open();
  queue::WorkerId b = world.open();
  auto mine = world.lease(a, 2);
  ASSERT_EQ(mine.size(), 2U);
  auto code = [&](queue::WorkerId worker, SettleRecord record) { return world.settle(worker, {std::move(record)}).substr(0, 8); };
  EXPECT_EQ(code(b, {How::ack, Offset{0}, 1}), "fenced: ");
  EXPECT_EQ(code(a, {How::ack, Offset{0}, 2}), "fenced: ");
  EXPECT_EQ(code(a, {How::ack, Offset{2}, 1}), "not_foun");
  EXPECT_EQ(code(a, {How::ack, Offset{-7}, 1}), "not_foun");
  EXPECT_EQ(code(a, {How::extend, Offset{0}, 1, -5}), "invalid_");
  EXPECT_EQ(code(a, {How::retry, Offset{0}, 1, std::int64_t{1} << 60}), "invalid_");
  EXPECT_EQ(world.settle(a, {{How::ack, Offset{0}, 1}}), "");
  EXPECT_EQ(code(a, {How::ack, Offset{0}, 1}), "not_foun");
  EXPECT_EQ(world.describe_queue().live, 1U);
  EXPECT_EQ(world.try_lease(a, 0).error().code, Errc::invalid_argument);
  EXPECT_EQ(world.try_lease(a, 1, {}, "none").error().code, Errc::no_such_group);
  auto refused = [&](QueueSettings settings) { return world.run(world.shard().open_queue("jobs", PartitionIndex{0}, {.group = "h", .settings = std::move(settings)})).error().code; };
  EXPECT_EQ(refused({.options = {.attempts_max = 0}}), Errc::invalid_argument);
  EXPECT_EQ(refused({.options = {.lease_ms = -1}}), Errc::invalid_argument);
  EXPECT_EQ(refused({.options = {.live_max = 1'000'000}}), Errc::invalid_argument);
}

TEST(Queues, AnEmptyQueueWaitsForWork) {
  QueueWorld world{WorldOptions{.shards = 2}};
  world.start();
  world.create("jobs", 1);
  queue::WorkerId a = world.open();
  EXPECT_TRUE(world.lease(a, 5, 2s).empty());
  std::vector<LeasedRecord> got;
  auto wait = [&]() -> Task<void> {
    auto leased = co_await world.shard(1).lease_records("jobs", PartitionIndex{0}, {.group = "g", .worker = a, .credit = 5, .wait_until = world.now() + 60s});
    EXPECT_TRUE(leased);
    if (leased) got = *leased;
  };
  TaskScope scope;
  scope.spawn(wait());
  world.loop().run_for(3s);
  EXPECT_TRUE(got.empty());
  world.jobs(2);
  world.loop().run_for(100ms);
  ASSERT_FALSE(got.empty());
  EXPECT_EQ(got[0].offset, Offset{0});
}

TEST(Queues, ARetryWaitsAndItsAttemptsAreCounted) {
  QueueWorld world;
  world.start();
  world.create("jobs", 1);
  world.jobs(1);
  queue::WorkerId a = world.open();
  ASSERT_EQ(world.lease(a, 1).size(), 1U);
  EXPECT_EQ(world.settle(a, {{How::retry, Offset{0}, 1, 5'000}}), "");
  EXPECT_TRUE(world.lease(a, 1, 4s).empty());
  auto again = world.lease(a, 1, 2s);
  ASSERT_EQ(again.size(), 1U);
  EXPECT_EQ(again[0].attempt, 2U);
  EXPECT_EQ(world.settle(a, {{How::extend, Offset{0}, 2, 3'600'000}}), "");
  world.loop().run_for(31s);
  EXPECT_TRUE(world.lease(a, 1).empty()) << "it was extended";
  EXPECT_EQ(world.settle(a, {{How::ack, Offset{0}, 2}}), "");
}

std::map<std::string, std::string> headers_of(const codec::RecordView& record) {
  std::map<std::string, std::string> out;
  for (const codec::HeaderView& header : record.headers) out[std::string{header.key}] = as_text(header.value.value_or(Bytes{}));
  return out;
}
/// Origin offsets of what lies in the dead-letter topic, each as often as it is there, with its headers.
std::multimap<std::int64_t, std::map<std::string, std::string>> dead_letters(BrokerWorld& world) {
  std::multimap<std::int64_t, std::map<std::string, std::string>> out;
  auto topic = world.topic("jobs.dlq");
  if (!topic) return out;
  std::int64_t next = 0;
  for (;;) {
    auto reply = world.fetch(topic, 0, next);
    if (!reply || reply->batches.empty()) return out;
    for (const Slice& batch : reply->batches) {
      auto reader = codec::BatchReader::open(batch.bytes());
      codec::RecordView record;
      while (reader->next(record)) {
        auto headers = headers_of(record);
        headers["value"] = as_text(record.value.value_or(Bytes{}));
        std::int64_t offset = std::stoll(headers["tailrace-dlq-offset"]);
        out.emplace(offset, std::move(headers));
      }
    }
    next = reply->next.value();
  }
}

TEST(Queues, WhatIsRejectedOrFailsTooOftenIsADeadLetter) {
  QueueWorld world{WorldOptions{.shards = 2}};
  world.start();
  world.create("jobs", 1);
  world.jobs(3);
  queue::WorkerId a = world.open("g", {.options = {.attempts_max = 2, .backoff_min_ms = 0, .backoff_max_ms = 0}});
  ASSERT_EQ(world.lease(a, 3).size(), 3U);
  EXPECT_EQ(world.settle(a, {{How::reject, Offset{0}, 1, {}, "no such customer"}, {How::retry, Offset{1}, 1}, {How::ack, Offset{2}, 1}}), "");
  EXPECT_NE(world.settle(a, {{How::ack, Offset{0}, 1}}), "") << "it goes nowhere else any more";
  ASSERT_EQ(offsets_of(world.lease(a, 3)), (std::vector<std::int64_t>{1}));
  EXPECT_EQ(world.settle(a, {{How::retry, Offset{1}, 2}}), "");
  world.loop().run_for(1s);
  auto letters = dead_letters(world);
  ASSERT_EQ(letters.size(), 2U);
  auto& rejected = letters.find(0)->second;
  EXPECT_EQ(rejected["value"], "job 0");
  EXPECT_EQ(rejected["tailrace-dlq-topic"], "jobs");
  EXPECT_EQ(rejected["tailrace-dlq-group"], "g");
  EXPECT_EQ(rejected["tailrace-dlq-reason"], "rejected");
  EXPECT_EQ(rejected["tailrace-dlq-why"], "no such customer");
  EXPECT_EQ(rejected["tailrace-dlq-attempts"], "1");
  EXPECT_EQ(letters.find(1)->second["tailrace-dlq-reason"], "attempts");
  EXPECT_EQ(letters.find(1)->second["tailrace-dlq-attempts"], "2");
  QueueDescription end = world.describe_queue();
  EXPECT_EQ(end.live, 0U);
  EXPECT_EQ(end.counters.buried, 2U);
  EXPECT_EQ(end.counters.acked, 1U);
  EXPECT_EQ(end.standstill.why, queue::Standstill::Why::end_of_log);
}

// Other topics of its name have other records, and other queues.
TEST(Queues, AQueueGoesWithItsTopic) {
  QueueWorld world;
  world.start();
  world.create("jobs", 1);
  world.jobs(3);
  queue::WorkerId a = world.open();
  ASSERT_EQ(world.lease(a, 3).size(), 3U);
  ASSERT_TRUE(world.run(world.shard().delete_topic("jobs", false)));
  EXPECT_FALSE(world.topic("__queue.jobs"));
  EXPECT_EQ(world.try_lease(a, 1).error().code, Errc::no_such_topic);
  world.create("jobs", 1);
  EXPECT_EQ(world.try_lease(a, 1).error().code, Errc::no_such_group);
  world.jobs(1);
  queue::WorkerId b = world.open();
  EXPECT_EQ(offsets_of(world.lease(b, 3)), (std::vector<std::int64_t>{0}));
}

// What was delivered and not settled is not deleted under its worker: it leaves for the dead letters. What was not delivered is counted.
TEST(Queues, DeletionSendsWhatWasDeliveredToTheDeadLetters) {
  QueueWorld world;
  world.start();
  world.create("jobs", 1);
  world.jobs(20);
  queue::WorkerId a = world.open();
  ASSERT_EQ(world.lease(a, 8).size(), 8U);
  EXPECT_EQ(world.settle(a, {{How::ack, Offset{3}, 1}}), "");
  auto cut = world.run(world.shard().delete_records({.topic = "jobs", .before = {{PartitionIndex{0}, Offset{12}}}, .validate_only = false}));
  ASSERT_TRUE(cut);
  world.loop().run_for(2s);
  auto letters = dead_letters(world);
  EXPECT_EQ(letters.size(), 7U);
  for (auto& [offset, headers] : letters) {
    EXPECT_EQ(headers["tailrace-dlq-reason"], "retention");
    EXPECT_EQ(headers["value"], "job " + std::to_string(offset));
  }
  QueueDescription now = world.describe_queue();
  EXPECT_EQ(now.counters.expired, 4U);
  EXPECT_EQ(now.next, Offset{12});
  EXPECT_EQ(offsets_of(world.lease(a, 100)).front(), 12);
}

/// Workers that ack most, give some back, reject the poisoned, while the power fails. Each record ends as exactly one thing.
struct Outcome {
  std::uint64_t redelivered = 0, letters = 0, lives = 0, duplicates = 0;
};
constexpr int kCuts = 12;
std::string run_workers_through_cuts(std::uint64_t seeds, bool key_order, Outcome* sum = nullptr) {
  for (std::uint64_t seed = 1; seed <= seeds; ++seed) {
    Random random{seed * 7919};
    QueueWorld world{WorldOptions{.shards = 2, .seed = seed}};
    world.start();
    world.create("jobs", 1);
    constexpr int kJobs = 300;  // more than two workers do in the lives that are cut short
    auto poisoned = [](std::int64_t offset) { return offset % 10 == 7; };
    for (int i = 0; i < kJobs; ++i) {
      codec::BatchBuilder builder{{}};
      std::string key = "k" + std::to_string(i % 9), value = "job " + std::to_string(i);
      if (!builder.add({.timestamp = 1'000, .key = as_bytes(key), .value = as_bytes(value)})) return "no batch";
      auto batch = builder.finish();
      auto header = codec::validate_batch(batch->bytes(), {.message_bytes_max = limits::kMessageBytesCeiling});
      if (!header || !world.produce(world.topic("jobs"), 0, TestBatch{*batch, *header})) return "no record";
    }
    QueueSettings settings{.options = {.attempts_max = 1'000, .lease_ms = 1'000, .backoff_min_ms = 10, .backoff_max_ms = 50, .key_order = key_order}};
    std::set<std::int64_t> acked, rejected;
    std::map<std::int64_t, std::uint32_t> attempts;
    std::string wrong;
    auto worker = [&](std::uint32_t at, queue::WorkerId id, const bool& ended) -> Task<void> {
      while (!ended && wrong.empty()) {
        auto leased = co_await world.shard(at).lease_records("jobs", PartitionIndex{0}, {.group = "g", .worker = id, .credit = 1 + random.below(6), .wait_until = world.now() + 50ms});
        if (!leased) co_return;
        std::vector<SettleRecord> settles;
        for (const LeasedRecord& one : *leased) {
          std::int64_t offset = one.offset.value();
          if (acked.contains(offset)) wrong = fmt::format("offset {} is delivered again although its ack was answered", offset);
          if (rejected.contains(offset)) wrong = fmt::format("offset {} is delivered again although it was rejected", offset);
          if (one.attempt <= attempts[offset]) wrong = fmt::format("offset {}: attempt {} after attempt {}", offset, one.attempt, attempts[offset]);
          if (value_of(one) != "job " + std::to_string(offset)) wrong = "another record is delivered";
          attempts[offset] = std::max(attempts[offset], one.attempt);
          How how = poisoned(offset) ? How::reject : random.chance(1, 5) ? How::retry : How::ack;
          if (random.chance(1, 12)) continue;  // it dies with this one
          settles.push_back({how, one.offset, one.attempt, {}, "poison"});
        }
        if (settles.empty()) continue;
        std::vector<SettleRecord> sent = settles;
        auto answers = co_await world.shard(at).settle_records("jobs", PartitionIndex{0}, "g", id, std::move(sent));
        if (!answers) co_return;
        for (std::size_t i = 0; i < settles.size(); ++i) {
          if (!(*answers)[i]) continue;
          if (settles[i].how == How::ack) acked.insert(settles[i].offset.value());
          if (settles[i].how == How::reject) rejected.insert(settles[i].offset.value());
        }
      }
    };
    bool done = false;
    for (int life = 0; life < 40 && !done && wrong.empty(); ++life) {
      auto a = world.run(world.shard(0).open_queue("jobs", PartitionIndex{0}, {.group = "g", .settings = settings}));
      auto b = world.run(world.shard(1).open_queue("jobs", PartitionIndex{0}, {.group = "g", .settings = settings}));
      if (!a || !b) return fmt::format("seed {}: the queue cannot be opened: {}", seed, a ? b.error().detail : a.error().detail);
      bool ended = false;
      TaskScope scope;
      scope.spawn(worker(0, a->worker, ended));
      scope.spawn(worker(1, b->worker, ended));
      world.loop().run_for(life < kCuts ? std::chrono::microseconds{random.between(300, 6'000)} : std::chrono::microseconds{3'000'000});
      ended = true;
      for (std::uint32_t i = 0; sum && i < 2; ++i) {
        for (const TopicCounters& topic : world.shard(i).status().topics) sum->duplicates += topic.name == "jobs.dlq" ? topic.duplicates : 0;
      }
      if (life < kCuts) {
        world.power_cut(sim::CrashPlan::seeded(random.next()));
        if (sum) ++sum->lives;
        if (scope.running() != 0) return "a call was not answered";
        if (auto started = world.try_start(); !started) return started.error().detail;
      } else {
        world.loop().run_for(1s);
        QueueDescription now = world.describe_queue();
        done = now.live == 0 && now.next == Offset{kJobs};
      }
      if (scope.running() != 0) world.loop().run_for(1s);
      if (scope.running() != 0) return "a call was not answered in the end";
    }
    if (!wrong.empty()) return fmt::format("seed {}: {}", seed, wrong);
    if (!done) return fmt::format("seed {}: it does not come to an end", seed);
    auto letters = dead_letters(world);
    for (std::int64_t offset = 0; offset < kJobs; ++offset) {
      std::size_t there = letters.count(offset);
      if (there > 1) return fmt::format("seed {}: offset {} is {} times among the dead letters", seed, offset, there);
      if (poisoned(offset) && there == 0) return fmt::format("seed {}: offset {} was rejected and is not among the dead letters", seed, offset);
      if (!poisoned(offset) && there != 0) return fmt::format("seed {}: offset {} is a dead letter", seed, offset);
      if (acked.contains(offset) && there != 0) return fmt::format("seed {}: offset {} is acked and dead", seed, offset);
    }
    QueueDescription end = world.describe_queue();
    if (end.counters.acked + end.counters.buried != kJobs) return fmt::format("seed {}: {} acked and {} buried of {}", seed, end.counters.acked, end.counters.buried, kJobs);
    if (sum) {
      sum->letters += letters.size();

      for (const auto& [offset, count] : attempts) sum->redelivered += count - 1;
    }
  }
  return {};
}

TEST(Queues, EachRecordEndsAsOneThingThroughEveryCut) {
  Outcome sum;
  EXPECT_EQ(run_workers_through_cuts(12, false, &sum), "");
  EXPECT_EQ(run_workers_through_cuts(12, true, &sum), "");
  EXPECT_EQ(sum.letters, 24U * 30U);
  EXPECT_GT(sum.redelivered, 24U * 20U);
  EXPECT_EQ(sum.lives, 24U * kCuts);
  EXPECT_GT(sum.duplicates, 5U) << "no letter was ever sent twice: nothing of that was tried";
}

/// The power fails at the very moment of the answer.
std::string acks_and_cuts() {
  QueueWorld world;
  world.start();
  world.create("jobs", 1);
  for (int i = 0; i < 5; ++i) {
    if (!world.produce(world.topic("jobs"), 0, {"job"})) return "no job";
    queue::WorkerId a = world.open();
    auto leased = world.lease(a, 10, 40s);
    if (leased.size() != 1 || leased[0].offset != Offset{i}) return "something else is delivered";
    if (std::string refused = world.settle(a, {{How::ack, leased[0].offset, leased[0].attempt}}); !refused.empty()) return refused;
    world.power_cut(sim::CrashPlan::lose_all());
    world.start();
    if (world.describe_queue().counters.acked != static_cast<std::uint64_t>(i) + 1) return "an ack is lost";
  }
  return {};
}
TEST(Queues, AnAnsweredAckIsStored) { EXPECT_EQ(acks_and_cuts(), ""); }

// Years of work: the log of events is written anew, and then holds what counts.
std::string much_work() {
  QueueWorld world{WorldOptions{.wal_file_bytes = 4 * limits::kMiB}};
  world.start();
  world.create("jobs", 1);
  queue::WorkerId a = world.open("g", {.options = {.lease_ms = 600'000}});
  queue::WorkerId other = world.open("other", {.options = {.lease_ms = 86'400'000}});
  std::vector<std::string> values(200, "x");
  if (!world.produce(world.topic("jobs"), 0, values)) return "no records";
  if (world.lease(other, 7, 100ms, "other").size() != 7) return "the other group gets nothing";
  std::vector<SettleRecord> later{{How::retry, Offset{2}, 1, 80'000'000}};
  if (std::string refused = world.settle(other, later, "other"); !refused.empty()) return refused;
  std::uint64_t done = 0;
  for (int round = 0; round < 150; ++round) {
    if (round > 0 && !world.produce(world.topic("jobs"), 0, values)) return "no records";
    for (int part = 0; part < 2; ++part) {
      auto leased = world.lease(a, 100);
      std::vector<SettleRecord> acks;
      for (const LeasedRecord& one : leased) acks.push_back({How::ack, one.offset, one.attempt});
      if (std::string refused = world.settle(a, acks); !refused.empty()) return refused;
      done += acks.size();
    }
  }
  auto described = world.run(world.shard().describe_topic("__queue.jobs"));
  if (!described) return described.error().detail;
  std::int64_t start = described->partitions[0].log_start.value();
  if (start == 0) return "the log was never cut";
  for (int life = 0; life < 2; ++life) {
    QueueDescription now = world.describe_queue();
    if (now.counters.acked != done || now.live != 0) return fmt::format("{} acked of {}, {} live", now.counters.acked, done, now.live);
    QueueDescription others = world.describe_queue("other");
    if (others.live != 7 || others.next != Offset{7}) return "the other group is not as it was";
    if (!world.lease(other, 1, {}, "other").empty() && others.next == Offset{7} && world.describe_queue("other").next == Offset{7}) return "what was delayed or leased comes too early";
    world.power_cut(sim::CrashPlan::lose_all());
    world.start();
    if (life == 0) {
      // The first look above may have leased one more.
      QueueDescription again = world.describe_queue("other");
      if (again.live < 7) return "live records are lost";
      return {};
    }
  }
  return {};
}
TEST(Queues, TheLogIsWrittenAnew) { EXPECT_EQ(much_work(), ""); }

struct Planted {
  PlantedBug bug;
  std::string (*story)();
};
class PlantedInQueuePartitions : public testing::TestWithParam<Planted> {
 protected:
  void TearDown() override { plant(PlantedBug::none); }
};
std::string cuts() { return run_workers_through_cuts(12, false); }
TEST_P(PlantedInQueuePartitions, IsFound) {
  plant(GetParam().bug);
  EXPECT_NE(GetParam().story(), "") << "nothing notices " << name_of(GetParam().bug);
}
INSTANTIATE_TEST_SUITE_P(All, PlantedInQueuePartitions,
                         testing::Values(Planted{PlantedBug::queue_answer_early, acks_and_cuts}, Planted{PlantedBug::ack_before_completion, cuts},
                                         Planted{PlantedBug::queue_letter_new_producer, cuts}, Planted{PlantedBug::queue_letter_uncommitted, cuts},
                                         Planted{PlantedBug::queue_letter_not_resent, cuts}),
                         [](const auto& info) { return std::string{name_of(info.param.bug)}; });

}  // namespace
}  // namespace tailrace::broker::service
