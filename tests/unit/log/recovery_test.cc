/// Recovery in bounded memory, and no recovery where there is nothing to recover.
#include "log/recovery.h"

#include "tests/unit/log/log_world.h"

namespace tailrace::broker::log {
namespace {

ShardLogOptions roomy() {
  ShardLogOptions o = LogWorld::small();
  o.wal_file_bytes = limits::kMiB;
  o.wal_files = 4;
  return o;
}

void fill(LogWorld& world, int partitions, int batches) {
  std::vector<PartitionPtr> open;
  for (int i = 0; i < partitions; ++i) open.push_back(world.create(partition_id(static_cast<std::uint8_t>(i))));
  for (int b = 0; b < batches; ++b) {
    for (int i = 0; i < partitions; ++i) {
      world.publish(*open[static_cast<std::size_t>(i)], std::to_string(i) + "." + std::to_string(b) + std::string(4'000 + 977 * static_cast<std::size_t>(b % 7), 'r'));
    }
  }
}

// What does not fit the hot tail stays in the WAL, and is read when its partition is opened.
TEST(Recovery, KeepsWhatFitsAndReadsTheRestWhenItIsAskedFor) {
  LogWorld world{1, roomy()};
  ASSERT_TRUE(world.start());
  fill(world, 3, 60);
  world.crash(sim::CrashPlan::lose_all());
  constexpr std::uint64_t kBudget = 300'000;
  world.options().hot_tail_bytes = kBudget;

  RecoveredShard found;
  ASSERT_TRUE(world.run(recover(world.runtime(), world.options(), found)));
  std::uint64_t held = 0, left = 0;
  for (const auto& [number, p] : found.partitions) {
    for (const TailFrame& t : p.tail) {
      held += t.bytes.length;
      left += t.bytes.length == 0 ? t.length : 0;
    }
  }
  EXPECT_LE(held, kBudget);
  EXPECT_GT(held, kBudget / 2);
  EXPECT_GT(left, held);

  ASSERT_TRUE(world.start());
  for (int i = 0; i < 3; ++i) {
    auto p = world.open(partition_id(static_cast<std::uint8_t>(i)));
    ASSERT_TRUE(p);
    auto read = world.read_all(*p, Offset{0});
    ASSERT_TRUE(read);
    ASSERT_EQ(read->size(), 60U);
    for (int b = 0; b < 60; ++b) EXPECT_NE((*read)[static_cast<std::size_t>(b)].find(std::to_string(i) + "." + std::to_string(b) + "rrr"), std::string::npos);
  }
}

// A frame that rots between recovery and the opening fails the opening, and only that.
TEST(Recovery, AFrameThatChangesAfterwardsIsNotLaid) {
  LogWorld world{2, roomy()};
  ASSERT_TRUE(world.start());
  fill(world, 2, 30);
  world.crash(sim::CrashPlan::lose_all());
  world.options().hot_tail_bytes = 1;
  ASSERT_TRUE(world.start());
  auto file = world.run(world.runtime().files.open("/data/shard-0/wal/00.log", {.write = true}));
  ASSERT_TRUE(file);
  std::vector<std::byte> wrong(50'000, std::byte{0x11});
  ASSERT_TRUE(world.run(io::write_all(**file, wrong, 200'000, io::Durable::yes)));
  auto opened = world.run(world.log().open_partition(partition_id(0), {}));
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, Errc::corrupt);
}

// One frame larger than a read of the scanner, and frames over the edges of its reads.
TEST(Recovery, FramesMayCrossTheReads) {
  ShardLogOptions o = roomy();
  o.wal_file_bytes = 8 * limits::kMiB;
  LogWorld world{3, o};
  ASSERT_TRUE(world.start());
  auto p = world.create(partition_id(0));
  std::vector<std::size_t> sizes;
  Random random{9};
  for (int i = 0; i < 40; ++i) sizes.push_back(i % 10 == 3 ? 2'500'000 : random.between(10, 200'000));
  for (std::size_t size : sizes) world.publish(*p, std::string(size, 'c'));
  p.reset();
  world.crash(sim::CrashPlan::lose_all());
  world.options().hot_tail_bytes = limits::kMiB;
  ASSERT_TRUE(world.start());
  EXPECT_EQ(world.log().recovery().corrupt, 0U);
  p = world.open(partition_id(0));
  auto read = world.read_all(*p, Offset{0});
  ASSERT_TRUE(read);
  ASSERT_EQ(read->size(), sizes.size());
  for (std::size_t i = 0; i < sizes.size(); ++i) EXPECT_GT((*read)[i].size(), sizes[i]);
}

// The checkpoint still names a segment that the log start has passed, and that is removed: nothing is missing.
TEST(Recovery, ADeletedSegmentIsNoHole) {
  constexpr PartitionOptions kSmall{.segment_bytes_max = 8'000};
  LogWorld world{5, roomy()};
  ASSERT_TRUE(world.start());
  auto p = world.create(partition_id(1), kSmall);
  for (int i = 0; i < 4; ++i) world.publish(*p, std::string(1'500, 'a'));
  p.reset();
  world.reboot();
  ASSERT_TRUE(world.start());  // its checkpoint: four batches of the first segment
  p = world.open(partition_id(1), kSmall);
  while (p->stats().segments == 1) world.publish(*p, std::string(1'500, 'b'));
  Offset second = p->log_end() + -1;
  world.publish(*p, "c");
  world.loop().run_for(std::chrono::seconds{2});
  ASSERT_TRUE(world.run(lone(*p).advance_log_start(second)));
  ASSERT_EQ(p->stats().segments, 1U) << "the first one is gone";
  p.reset();
  world.crash(sim::CrashPlan::keep_all());
  ASSERT_TRUE(world.start());
  p = world.open(partition_id(1), kSmall);
  EXPECT_EQ(p->stats().damage, "");
  EXPECT_EQ(p->log_start(), second);
  auto read = world.read_all(*p, second);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->size(), 2U);
  world.publish(*p, "d");
}

TEST(Recovery, ReadsNoFrameAfterACleanStop) {
  LogWorld world{4, roomy()};
  ASSERT_TRUE(world.start());
  fill(world, 2, 20);
  world.reboot();
  std::uint64_t frames_read = 0;
  world.disk().on_start = [&](sim::DiskOp op, const std::string& path, std::uint64_t position, Bytes) {
    bool header = position == 0 || position == limits::kMiB - limits::kWalBlock;
    if (op == sim::DiskOp::read && path.find("/wal/") != std::string::npos && !header) ++frames_read;
  };
  ASSERT_TRUE(world.start());
  EXPECT_EQ(frames_read, 0U);
  EXPECT_EQ(world.log().recovery().frames, 0U);
  EXPECT_EQ(world.log().recovery().corrupt, 0U);
  auto p = world.open(partition_id(1));
  EXPECT_EQ(p->high_watermark(), Offset{20});
  world.publish(*p, "more");
  p.reset();
  world.crash(sim::CrashPlan::lose_all());
  world.disk().on_start = nullptr;
  ASSERT_TRUE(world.start());
  EXPECT_EQ(world.open(partition_id(1))->high_watermark(), Offset{21});
}

// A checkpoint that was copied from elsewhere is whole in itself and says nothing about this shard: the other copy counts,
// and without one the start is refused. It was believed, and its unknown partitions were created empty.
TEST(Recovery, ACheckpointOfAnotherPlaceIsNotBelieved) {
  LogWorld other{2};
  ASSERT_TRUE(other.start());
  auto theirs = other.create(partition_id(9));
  for (int i = 0; i < 300; ++i) other.publish(*theirs, std::string(1'500, 'o'));
  theirs.reset();
  other.close();
  sim::DiskImage foreign = other.disk().visible_image();
  for (int copies : {1, 2, 3}) {
    SCOPED_TRACE(copies);
    LogWorld world;
    ASSERT_TRUE(world.start());
    world.publish(*world.create(partition_id(1)), "mine");
    world.close();
    sim::DiskImage image = world.disk().visible_image();
    for (int copy : {0, 1}) {
      std::string path = "/data/shard-0/checkpoint-" + std::to_string(copy);
      ASSERT_TRUE(foreign.files.contains(path));
      if (copies & (1 << copy)) image.files[path] = foreign.files.at(path);
    }
    world.boot(std::move(image));
    auto started = world.start();
    if (copies == 3) {
      ASSERT_FALSE(started);
      EXPECT_EQ(started.error().code, Errc::corrupt);
    } else {
      ASSERT_TRUE(started) << started.error().detail;
      EXPECT_EQ(world.open(partition_id(1))->high_watermark(), Offset{1});
    }
  }
}

}  // namespace
}  // namespace tailrace::broker::log
