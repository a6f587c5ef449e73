#include "tests/unit/log/log_world.h"

namespace tailrace::broker::log {
namespace {

// The main promise, in its shortest form.
TEST(ShardLog, WhatWasAcknowledgedIsReadBackAfterAPowerCut) {
  LogWorld world;
  ASSERT_TRUE(world.start());
  auto partition = world.create(partition_id(1));
  for (int i = 0; i < 10; ++i) world.publish(*partition, "v" + std::to_string(i));
  auto before = world.read_all(*partition, Offset{0});
  ASSERT_TRUE(before);
  partition.reset();
  world.crash(sim::CrashPlan::lose_all());
  ASSERT_TRUE(world.start());
  partition = world.open(partition_id(1));
  ASSERT_TRUE(partition);
  EXPECT_EQ(partition->high_watermark(), Offset{10});
  auto after = world.read_all(*partition, Offset{0});
  ASSERT_TRUE(after);
  EXPECT_EQ(*before, *after);
}

// Many laps around the WAL: files are recycled, segments hold the rest, and nothing is lost in either.
TEST(ShardLog, LapsAroundTheWalLoseNothing) {
  LogWorld world;
  ASSERT_TRUE(world.start());
  std::vector<PartitionPtr> partitions;
  for (std::uint8_t i = 0; i < 5; ++i) partitions.push_back(world.create(partition_id(i), {.segment_bytes_max = 100'000}));
  for (int i = 0; i < 600; ++i) world.publish(*partitions[static_cast<std::size_t>(i) % 5], std::string(1500, 'x') + std::to_string(i));
  EXPECT_GT(world.log().stats().wal_recycles, 6U);
  std::vector<std::vector<std::string>> before;
  for (auto& p : partitions) before.push_back(*world.read_all(*p, Offset{0}));
  partitions.clear();
  for (int life = 0; life < 4; ++life) {
    if (life % 2 == 0) world.crash(sim::CrashPlan::seeded(static_cast<std::uint64_t>(life)));
    else world.reboot();
    ASSERT_TRUE(world.start());
    EXPECT_EQ(world.log().recovery().corrupt, 0U);
    for (std::uint8_t i = 0; i < 5; ++i) {
      auto p = world.open(partition_id(i), {.segment_bytes_max = 100'000});
      ASSERT_TRUE(p);
      EXPECT_EQ(p->stats().damage, "");
      auto after = world.read_all(*p, Offset{0});
      ASSERT_TRUE(after) << after.error().detail;
      EXPECT_EQ(after->size(), before[i].size());
      EXPECT_EQ(*after, before[i]);
      world.publish(*p, "more");
      before[i] = *world.read_all(*p, Offset{0});
    }
  }
}

// Whoever still holds a partition when the log is gone has a shell that answers closed, or that it was deleted; the address
// sanitizer sees what it touches.
TEST(ShardLog, APartitionMayBeHeldLongerThanItsLog) {
  LogWorld world;
  ASSERT_TRUE(world.start());
  auto kept = world.create(partition_id(1)), deleted = world.create(partition_id(2));
  world.publish(*kept, "kept");
  world.publish(*deleted, "deleted");
  ASSERT_TRUE(world.run(world.log().remove(partition_id(2))));
  world.close();
  EXPECT_EQ(kept->stats().hot_bytes, 0u);
  kept.reset();
  deleted.reset();
}

// A clean stop leaves nothing to replay.
TEST(ShardLog, AfterACleanStopNoFrameIsApplied) {
  LogWorld world;
  ASSERT_TRUE(world.start());
  auto partition = world.create(partition_id(1));
  for (int i = 0; i < 30; ++i) world.publish(*partition, std::string(700, 'y'));
  partition.reset();
  world.reboot();
  ASSERT_TRUE(world.start());
  EXPECT_EQ(world.log().recovery().frames_applied, 0U);
  EXPECT_EQ(world.open(partition_id(1))->high_watermark(), Offset{30});
}

// History 1 of testing.md section 5: the checkpoint carries term and vote when the WAL file that held them is recycled.
TEST(ShardLog, AVoteSurvivesTheRecyclingOfItsFile) {
  LogWorld world;
  ASSERT_TRUE(world.start());
  auto voter = world.create(partition_id(1));
  ASSERT_TRUE(world.run(lone(*voter).set_hard_state(LeaderEpoch{7}, NodeId{2})));
  auto other = world.create(partition_id(2));
  for (int i = 0; i < 300; ++i) world.publish(*other, std::string(1500, 'z'));
  EXPECT_GT(world.log().stats().wal_recycles, 3U);
  voter.reset();
  other.reset();
  world.crash(sim::CrashPlan::lose_all());
  ASSERT_TRUE(world.start());
  voter = world.open(partition_id(1));
  auto again = world.run(lone(*voter).set_hard_state(LeaderEpoch{7}, NodeId{3}));
  EXPECT_FALSE(again);
  EXPECT_EQ(voter->term(), LeaderEpoch{7});
  EXPECT_EQ(lone(*voter).vote(), NodeId{2});
}

// History 5: a truncation at or below applied_through is history, and its offset means something else by now.
TEST(ShardLog, AnOldTruncationIsNotReplayed) {
  LogWorld world;
  ASSERT_TRUE(world.start());
  auto p = world.create(partition_id(1));
  for (int i = 0; i < 60; ++i) world.publish(*p, std::string(400, 'a') + std::to_string(i));
  ASSERT_TRUE(world.run(p->truncate_suffix({Offset{50}, 0})));
  EXPECT_EQ(p->log_end(), Offset{50});
  for (int i = 50; i < 90; ++i) world.publish(*p, std::string(400, 'b') + std::to_string(i));
  auto before = world.read_all(*p, Offset{0});
  p.reset();
  for (int life = 0; life < 3; ++life) {
    world.crash(sim::CrashPlan::seeded(static_cast<std::uint64_t>(life)));
    ASSERT_TRUE(world.start());
    p = world.open(partition_id(1));
    EXPECT_EQ(p->high_watermark(), Offset{90});
    auto after = world.read_all(*p, Offset{0});
    ASSERT_TRUE(after);
    EXPECT_EQ(*before, *after);
    p.reset();
    if (life == 1) {
      world.reboot();
      ASSERT_TRUE(world.start());
    }
  }
}

// Where the log ends is (offset, sub): what two replicas compare. A cut that kept an entry of length zero, or made one up, would
// let logs match that do not.
TEST(ShardLog, ATruncationCutsEntriesOfLengthZeroToo) {
  LogWorld world;
  ASSERT_TRUE(world.start());
  auto p = world.create(partition_id(1));
  auto ends_at = [&](std::int64_t offset, std::uint32_t sub) {
    LogPosition expected{Offset{offset}, sub};
    EXPECT_EQ(p->end_position(), expected);
    p.reset();
    world.crash(sim::CrashPlan::seeded(static_cast<std::uint64_t>(offset) * 8 + sub));
    ASSERT_TRUE(world.start());
    p = world.open(partition_id(1));
    EXPECT_EQ(p->end_position(), expected) << "after a crash";
  };
  auto next_term = [&] { ASSERT_TRUE(world.run(lone(*p).start_term(p->term() + 1))); };
  auto cut = [&](std::int64_t offset, std::uint32_t sub) { ASSERT_TRUE(world.run(p->truncate_suffix({Offset{offset}, sub}))); };
  for (int i = 0; i < 3; ++i) world.publish(*p, "a" + std::to_string(i));
  next_term();
  next_term();
  next_term();
  ends_at(3, 3);
  cut(3, 3);  // nothing is behind it
  ends_at(3, 3);
  cut(3, 2);
  ends_at(3, 2);
  for (int i = 3; i < 6; ++i) world.publish(*p, "b" + std::to_string(i));  // the first, in a new life, begins a term
  ends_at(6, 0);
  next_term();
  cut(4, 0);  // between two batches
  ends_at(4, 0);
  cut(3, 7);  // in front of the batch at 3; no more than three are there
  ends_at(3, 3);
  cut(3, 1);
  ends_at(3, 1);
  cut(3, 0);
  ends_at(3, 0);
  cut(0, 0);  // not even the first term start
  ends_at(0, 0);
  for (int i = 0; i < 3; ++i) world.publish(*p, "c" + std::to_string(i));
  auto before = world.read_all(*p, Offset{0});
  ASSERT_TRUE(before);
  ends_at(3, 0);
  auto after = world.read_all(*p, Offset{0});
  ASSERT_TRUE(after);
  EXPECT_EQ(*before, *after);
}

TEST(ShardLog, ADuplicateIsKnownAcrossACrash) {
  LogWorld world;
  ASSERT_TRUE(world.start());
  auto p = world.create(partition_id(1));
  for (int i = 0; i < 7; ++i) {
    auto appended = world.append(*p, make_batch("d", 1, {ProducerId{9}, ProducerEpoch{0}, i}));
    ASSERT_TRUE(appended);
    ASSERT_TRUE(world.run(p->committed(appended->next_offset)));
  }
  p.reset();
  world.crash(sim::CrashPlan::lose_all());
  ASSERT_TRUE(world.start());
  p = world.open(partition_id(1));
  Slice again = make_batch("d", 1, {ProducerId{9}, ProducerEpoch{0}, 4});
  auto verdict = p->judge(*read_batch_header(again.bytes(), again.length));
  EXPECT_EQ(verdict.answer, ProducerAnswer::duplicate);
  EXPECT_EQ(verdict.base_offset, Offset{4});
}

TEST(ShardLog, DeletedRecordsStayDeletedAndThePartitionCanGo) {
  LogWorld world;
  ASSERT_TRUE(world.start());
  auto p = world.create(partition_id(1), {.segment_bytes_max = 20'000});
  for (int i = 0; i < 100; ++i) world.publish(*p, std::string(1000, 'c'));
  ASSERT_TRUE(world.run(lone(*p).advance_log_start(Offset{77})));
  EXPECT_FALSE(world.run(p->read(Offset{76}, {})));
  p.reset();
  world.crash(sim::CrashPlan::lose_all());
  ASSERT_TRUE(world.start());
  p = world.open(partition_id(1));
  EXPECT_EQ(p->log_start(), Offset{77});
  EXPECT_EQ(world.read_all(*p, Offset{77})->size(), 23U);
  auto waiting = p;
  ASSERT_TRUE(world.run(world.log().remove(partition_id(1))));
  EXPECT_EQ(world.run(waiting->read(Offset{80}, {})).error().code, Errc::no_such_partition);
  world.loop().run_until_idle();
  p.reset();
  waiting.reset();
  world.crash(sim::CrashPlan::lose_all());
  ASSERT_TRUE(world.start());
  EXPECT_TRUE(world.log().stored_partitions().empty());
}

// One record at a time on an idle log: a mark follows within 5 ms, and then the log is still.
TEST(ShardLog, AnIdleLogWritesOneMarkAndFallsSilent) {
  LogWorld world;
  ASSERT_TRUE(world.start());
  auto p = world.create(partition_id(1));
  world.publish(*p, "one");
  auto marks = world.log().stats().marks;
  world.loop().run_for(std::chrono::milliseconds{5});
  EXPECT_EQ(world.log().stats().marks, marks + 1);
  auto commits = world.log().stats().commits;
  world.loop().run_for(std::chrono::seconds{1});
  EXPECT_LE(world.log().stats().commits, commits + 1);
  EXPECT_EQ(world.log().stats().marks, marks + 1);
}

// What is deleted gives its space back, also where it lay in the segment that is written to.
TEST(ShardLog, DeletingEverythingFreesTheActiveSegmentToo) {
  LogWorld w;
  ASSERT_TRUE(w.start());
  auto partition = *w.run(w.log().create(partition_id(1), {}));
  for (int i = 0; i < 20; ++i) w.publish(*partition, std::string(10'000, 'x'));
  Offset end = partition->log_end();
  ASSERT_TRUE(w.run(lone(*partition).advance_log_start(end)));
  EXPECT_EQ(partition->stats().bytes, 0u);
  for (const std::string& path : w.disk().visible_image().paths("/topics/")) EXPECT_FALSE(path.ends_with(".log")) << path;
  w.publish(*partition, "next");
  partition.reset();
  w.close();
  w.boot(w.disk().visible_image());
  ASSERT_TRUE(w.start());
  partition = *w.run(w.log().open_partition(partition_id(1), {}));
  EXPECT_EQ(partition->log_start(), end);
  auto all = w.read_all(*partition, end);
  ASSERT_TRUE(all);
  EXPECT_EQ(all->size(), 1u);
}

// A stop is not held up by ten thousand tails: what is not in segments in time stays in the WAL, and the next start has it.
TEST(ShardLog, AStopLeavesToTheWalWhatTakesTooLong) {
  LogWorld w;
  ASSERT_TRUE(w.start());
  constexpr int kPartitions = 300;
  for (int i = 0; i < kPartitions; ++i) {
    auto partition = w.run(w.log().create(partition_id(1, i), {}));
    ASSERT_TRUE(partition);
    w.publish(**partition, "kept");
  }
  w.disk().inject({.path_part = "/topics/", .sticky = true, .effect = sim::Fault::Effect::stall, .stall = 200ms});
  Instant began = w.loop().now();
  w.close();
  EXPECT_LT(w.loop().now() - began, 8s);
  w.boot(w.disk().visible_image());
  ASSERT_TRUE(w.start());
  EXPECT_GT(w.log().recovery().frames, 0u) << "the WAL is read";
  for (int i = 0; i < kPartitions; ++i) {
    auto partition = w.run(w.log().open_partition(partition_id(1, i), {}));
    ASSERT_TRUE(partition);
    auto all = w.read_all(**partition, Offset{0});
    ASSERT_TRUE(all && all->size() == 1) << i;
  }
}

// With a full disk the WAL may have no file to go on in, and nothing can free one. Whoever waits for it waits for space, but not into a stop:
// what a broker does in the background ends before its log is closed (found by a seed of whole brokers: a stop that did not end).
TEST(ShardLogStop, NobodyWaitsForAFullDiskAnyMore) {
  std::size_t left = 0;
  for (std::uint64_t room : {std::uint64_t{0}, std::uint64_t{8}, std::uint64_t{40}}) {
    LogWorld world{3};
    ASSERT_TRUE(world.start());
    PartitionPtr partition = world.create(partition_id(1));
    for (int i = 0; i < 100; ++i) world.publish(*partition, std::string(3'000, 'a'));  // every file of the WAL is there
    world.disk().set_capacity(world.disk().used_bytes() + room * limits::kKiB);
    TaskScope waiting;
    auto wait = [](PartitionPtr log, Offset end) -> Task<void> { (void)co_await log->committed(end); };
    for (int i = 0; i < 400; ++i) {
      auto appended = world.append(*partition, make_batch(std::string(3'000, 'w')));
      if (appended) waiting.spawn(wait(partition, appended->next_offset));
      if (i % 8 == 0) world.loop().run_for(std::chrono::milliseconds{1});
    }
    world.loop().run_for(std::chrono::seconds{60});
    left += waiting.running();
    world.log().begin_close();
    EXPECT_TRUE(world.loop().run_until([&] { return waiting.running() == 0; }, std::chrono::seconds{10})) << waiting.running() << " wait for a disk with " << room << " KiB";
    if (waiting.running() > 0) world.disk().set_capacity(std::uint64_t{1} << 40);
    world.loop().run_for(std::chrono::seconds{10});
    world.close();
  }
  EXPECT_GT(left, 0u) << "nothing had to wait: the test shows nothing";
}

}  // namespace
}  // namespace tailrace::broker::log
