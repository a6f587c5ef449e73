/// Segments that the disk refuses, cuts under readers, and what retention goes by.
#include <cerrno>

#include "tests/unit/log/log_world.h"

namespace tailrace::broker::log {
namespace {

const char* const kSegments = "/topics/";

/// Enough to recycle the WAL several times, so that segments are written and synced.
void fill(LogWorld& world, Partition& partition, int batches) {
  for (int i = 0; i < batches; ++i) world.publish(partition, std::string(1'500, 'x') + std::to_string(i));
}
void drain(LogWorld& world, TaskScope& scope) {
  auto drained = [&]() -> Task<void> { co_await scope.drain(); };
  EXPECT_TRUE(world.loop().run(drained())) << "a reader hangs";
}
void expect_all(LogWorld& world, const std::vector<std::string>& before) {
  auto partition = world.open(partition_id(1));
  ASSERT_TRUE(partition);
  EXPECT_EQ(partition->stats().damage, "");
  auto after = world.read_all(*partition, Offset{0});
  ASSERT_TRUE(after) << after.error().detail;
  EXPECT_EQ(*after, before);
}

// One write or sync that fails costs a file, not the log and not a record.
TEST(SegmentFaults, AFailedWriteOrSyncMovesWhatIsDurableToANewFile) {
  for (auto op : {sim::DiskOp::write, sim::DiskOp::sync}) {
    LogWorld world;
    ASSERT_TRUE(world.start());
    auto partition = world.create(partition_id(1));
    fill(world, *partition, 100);
    sim::Fault& fault = world.disk().inject({.op = op, .path_part = kSegments});
    fill(world, *partition, 200);
    EXPECT_EQ(fault.struck, 1U);
    EXPECT_FALSE(world.log().failed());
    EXPECT_EQ(world.log().stats().segment_retirements, 1U);
    auto before = *world.read_all(*partition, Offset{0});
    EXPECT_EQ(before.size(), 300U);
    partition.reset();
    world.crash(sim::CrashPlan::lose_all());
    ASSERT_TRUE(world.start());
    expect_all(world, before);
  }
}

// A file that says EIO for ever is left alone; the log goes on beside it.
TEST(SegmentFaults, AFileThatFailsForGoodIsGivenUpAlone) {
  LogWorld world;
  ASSERT_TRUE(world.start());
  auto partition = world.create(partition_id(1));
  fill(world, *partition, 150);
  sim::Fault& write = world.disk().inject({.op = sim::DiskOp::write, .path_part = "/00000000000000000000.log", .sticky = true});
  world.disk().inject({.op = sim::DiskOp::sync, .path_part = "/00000000000000000000.log", .sticky = true});
  world.disk().inject({.op = sim::DiskOp::truncate, .path_part = "/00000000000000000000.log", .sticky = true});
  fill(world, *partition, 300);
  EXPECT_GT(write.struck, 0U);
  EXPECT_FALSE(world.log().failed());
  auto before = *world.read_all(*partition, Offset{0});
  EXPECT_EQ(before.size(), 450U);
  partition.reset();
  world.reboot();
  ASSERT_TRUE(world.start());
  expect_all(world, before);
}

// A disk that refuses every file fails the directory; nothing is acknowledged any more, and nothing acknowledged is lost.
TEST(SegmentFaults, ADiskThatFailsForGoodFailsTheLog) {
  LogWorld world;
  ASSERT_TRUE(world.start());
  auto partition = world.create(partition_id(1));
  fill(world, *partition, 100);
  world.disk().inject({.op = sim::DiskOp::write, .path_part = kSegments, .sticky = true});
  std::size_t acknowledged = 100;
  for (; acknowledged < 1'000; ++acknowledged) {
    auto appended = world.append(*partition, make_batch(std::string(1'500, 'y')));
    if (!appended || !world.run(partition->committed(appended->next_offset))) break;
  }
  EXPECT_LT(acknowledged, 1'000U);
  EXPECT_TRUE(world.log().failed());
  partition.reset();
  world.crash(sim::CrashPlan::lose_all());
  ASSERT_TRUE(world.start());
  partition = world.open(partition_id(1));
  ASSERT_TRUE(partition);
  EXPECT_GE(partition->high_watermark().value(), static_cast<std::int64_t>(acknowledged));
  auto read = world.read_all(*partition, Offset{0});
  ASSERT_TRUE(read) << read.error().detail;
  EXPECT_GE(read->size(), acknowledged);
}

// Retention goes by the leader's clock: a client that dates its records ten years ahead pins nothing.
TEST(Retention, GoesByLeaderAppendTimeAndByBytes) {
  LogWorld world;
  ASSERT_TRUE(world.start());
  PartitionOptions options{.segment_bytes_max = 20'000};
  auto partition = world.create(partition_id(1), options);
  auto publish_dated = [&](int count) {
    for (int i = 0; i < count; ++i) {
      auto time = (world.loop().wall() + std::chrono::years{10}).time_since_epoch();
      auto batch = make_batch(std::string(1'500, 'z'), 1, {}, std::chrono::duration_cast<std::chrono::milliseconds>(time).count());
      auto appended = world.append(*partition, std::move(batch));
      ASSERT_TRUE(appended);
      ASSERT_TRUE(world.run(partition->committed(appended->next_offset)));
    }
  };
  publish_dated(100);
  world.loop().run_for(std::chrono::hours{2});
  publish_dated(100);
  auto nothing = world.run(lone(*partition).enforce_retention(world.loop().wall()));
  ASSERT_TRUE(nothing);
  EXPECT_EQ(nothing->log_start, Offset{0});
  options.retention_time = std::chrono::hours{1};
  partition->configure(options);
  auto by_time = world.run(lone(*partition).enforce_retention(world.loop().wall()));
  ASSERT_TRUE(by_time);
  EXPECT_GT(by_time->log_start, Offset{50});
  EXPECT_LE(by_time->log_start, Offset{100});
  options.retention_time.reset();
  options.retention_bytes = 60'000;
  partition->configure(options);
  auto by_bytes = world.run(lone(*partition).enforce_retention(world.loop().wall()));
  ASSERT_TRUE(by_bytes);
  EXPECT_GT(by_bytes->log_start, Offset{130});
  EXPECT_GE(partition->stats().bytes, 60'000U);
  Offset start = partition->log_start();
  partition.reset();
  world.crash(sim::CrashPlan::lose_all());
  ASSERT_TRUE(world.start());
  partition = world.open(partition_id(1), options);
  ASSERT_TRUE(partition);
  EXPECT_EQ(partition->log_start(), start);
  EXPECT_TRUE(world.read_all(*partition, start));
}

// A reader whose records go away under it is told so; it never gets another record, and nothing crashes.
TEST(Readers, AreToldWhenTheStartOrThePartitionMovesUnderThem) {
  LogWorld world;
  world.options().hot_tail_bytes = 32 * limits::kKiB;
  ASSERT_TRUE(world.start());
  auto partition = world.create(partition_id(1), {.segment_bytes_max = 20'000});
  fill(world, *partition, 200);
  std::vector<Errc> answers;
  auto reader = [&](PartitionPtr from, Offset at) -> Task<void> {
    auto read = co_await from->read(at, {.bytes_max = 64 * limits::kKiB});
    if (!read) answers.push_back(read.error().code);
    else if (!read->batches.empty()) EXPECT_EQ(read_batch_header(read->batches[0].bytes(), read->batches[0].length)->base_offset, at);
  };
  {
    TaskScope scope;
    for (std::int64_t at = 0; at < 40; at += 4) scope.spawn(reader(partition, Offset{at}));
    EXPECT_TRUE(world.run(lone(*partition).advance_log_start(Offset{100})));
    drain(world, scope);
  }
  for (Errc code : answers) EXPECT_EQ(code, Errc::offset_out_of_range);
  answers.clear();
  {
    TaskScope scope;
    for (std::int64_t at = 100; at < 140; at += 4) scope.spawn(reader(partition, Offset{at}));
    EXPECT_TRUE(world.run(world.log().remove(partition_id(1))));
    drain(world, scope);
    scope.spawn(reader(partition, Offset{150}));
    drain(world, scope);
  }
  ASSERT_FALSE(answers.empty());
  for (Errc code : answers) EXPECT_EQ(code, Errc::no_such_partition);
}

// A directory under the name of a file that can be made anew is no reason to stop: the start said "I/O error" for ever.
TEST(DirectoryForAFile, TheCleanMarkAndASnapshotAreDoneWithout) {
  LogWorld w{31};
  ASSERT_TRUE(w.start());
  PartitionId id = partition_id(1);
  PartitionOptions small_segments{.segment_bytes_max = 16 * limits::kKiB};
  auto p = w.create(id, small_segments);
  for (int i = 0; i < 60; ++i) w.publish(*p, std::string(900, 'x'));
  w.loop().run_for(std::chrono::seconds{5});
  w.close();
  sim::DiskImage image = w.disk().visible_image();
  std::vector<std::string> snapshots = image.paths(".snap");
  ASSERT_FALSE(snapshots.empty());
  for (const std::string& path : snapshots) {
    image.remove(path);
    image.directories.insert(path);
  }
  image.files.erase("/data/clean");
  image.directories.insert("/data/clean");
  w.boot(std::move(image));
  ASSERT_TRUE(w.start());
  auto directory_open = w.open(id, small_segments);
  ASSERT_TRUE(directory_open);
  EXPECT_EQ(directory_open->stats().damage, "");
  auto all = w.read_all(*directory_open, Offset{0});
  ASSERT_TRUE(all) << all.error().detail;
  EXPECT_EQ(all->size(), 60U);
}

TEST(DirectoryForAFile, ACleanMarkWithSomethingInItIsNamed) {
  for (bool empty : {true, false}) {
    sim::SimMachine m{3};
    auto mark = [&]() -> Task<Result<void>> {
      TAILRACE_CO_TRY_VOID(co_await m.runtime.files.make_directory("/data"));
      { TAILRACE_CO_TRY(auto first, co_await DataDirectory::open(m.runtime, "/data", 1)); }
      TAILRACE_CO_TRY_VOID(co_await m.runtime.files.make_directory("/data/clean"));
      if (!empty) TAILRACE_CO_TRY_VOID(co_await m.runtime.files.make_directory("/data/clean/mine"));
      TAILRACE_CO_TRY(auto again, co_await DataDirectory::open(m.runtime, "/data", 1));
      EXPECT_FALSE(again->was_clean());
      co_return co_await again->mark_dirty();
    };
    auto done = m.loop.run(mark());
    ASSERT_TRUE(done);
    EXPECT_EQ(done->has_value(), empty);
    if (*done) continue;
    EXPECT_EQ(done->error().code, Errc::corrupt);
    EXPECT_NE(done->error().detail.find("/data/clean"), std::string::npos) << done->error().detail;
  }
}

}  // namespace
}  // namespace tailrace::broker::log
