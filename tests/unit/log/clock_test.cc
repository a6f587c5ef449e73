/// storage.md section 5, item 11: clocks that jump and clocks that stop. Records are found by offset and time, retention takes
/// nothing that is not old by the leader's time, and a start after it all finds what was there.
#include "tests/unit/log/log_world.h"

namespace tailrace::broker::log {
namespace {

using namespace std::chrono_literals;

constexpr PartitionOptions kHourly{.segment_bytes_max = 8'000, .retention_time = std::chrono::milliseconds{1h}};

void publish(LogWorld& world, Partition& p, int count) {
  for (int i = 0; i < count; ++i) world.publish(p, std::string(1'500, 't'));
}

void settle_and_check(LogWorld& world, PartitionPtr& p, Offset end) {
  Offset start = p->log_start();
  auto read = world.read_all(*p, start);
  ASSERT_TRUE(read) << read.error().detail;
  ASSERT_EQ(static_cast<std::int64_t>(read->size()), end - start);
  p.reset();
  world.crash(sim::CrashPlan::seeded(3));
  ASSERT_TRUE(world.start());
  EXPECT_EQ(world.log().recovery().corrupt + world.log().recovery().damaged_partitions, 0U);
  p = world.open(partition_id(1), kHourly);
  EXPECT_EQ(p->high_watermark(), end);
  EXPECT_GE(p->log_start(), start);
}

TEST(Clock, AJumpBackTakesNothingEarly) {
  LogWorld world;
  ASSERT_TRUE(world.start());
  auto p = world.create(partition_id(1), kHourly);
  publish(world, *p, 20);
  world.loop().jump_wall(-10h);
  publish(world, *p, 20);
  auto kept = world.run(lone(*p).enforce_retention(world.loop().wall()));
  ASSERT_TRUE(kept);
  EXPECT_EQ(kept->segments_removed, 0U);
  settle_and_check(world, p, Offset{40});
  publish(world, *p, 5);
  EXPECT_EQ(p->high_watermark(), Offset{45});
}

TEST(Clock, AJumpAheadOnlyAgesWhatWasWrittenBefore) {
  LogWorld world;
  ASSERT_TRUE(world.start());
  auto p = world.create(partition_id(1), kHourly);
  publish(world, *p, 20);
  world.loop().jump_wall(3h);
  publish(world, *p, 20);
  world.loop().run_for(2s);  // what was rolled is sealed
  auto cut = world.run(lone(*p).enforce_retention(world.loop().wall()));
  ASSERT_TRUE(cut);
  EXPECT_GT(cut->segments_removed, 0U);
  EXPECT_LE(p->log_start(), Offset{20}) << "records of this moment are not old";
  settle_and_check(world, p, Offset{40});
}

// Ten years ahead and back: later records must be kept, found and followed by others.
TEST(Clock, AHugeJumpAndItsReturnLoseNothing) {
  LogWorld world;
  ASSERT_TRUE(world.start());
  auto p = world.create(partition_id(1), kHourly);
  publish(world, *p, 10);
  world.loop().jump_wall(24h * 3'650);
  publish(world, *p, 10);
  world.loop().jump_wall(-24h * 3'650);
  publish(world, *p, 10);
  auto cut = world.run(lone(*p).enforce_retention(world.loop().wall()));
  ASSERT_TRUE(cut);
  EXPECT_EQ(cut->segments_removed, 0U);
  settle_and_check(world, p, Offset{30});
  auto at = world.run(p->find_time(1'000));
  ASSERT_TRUE(at && *at);
  EXPECT_EQ((*at)->offset, Offset{0});
}

// A disk that takes no time, and so a monotonic clock that stands still: no timer fires, and everything still completes.
TEST(Clock, AMonotonicClockThatStandsStillHoldsNothingUp) {
  LogWorld world;
  ASSERT_TRUE(world.start());
  auto p = world.create(partition_id(1), kHourly);
  Instant before = world.loop().now();
  world.disk().set_latency({}, {});
  for (int i = 0; i < 100; ++i) world.publish(*p, std::string(1'500, 's'));
  EXPECT_LT(world.loop().now() - before, 1ms);  // less than any timer waits
  settle_and_check(world, p, Offset{100});
}

}  // namespace
}  // namespace tailrace::broker::log
