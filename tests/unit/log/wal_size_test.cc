/// The size of the WAL files is a setting, and a setting may change while frames of the old size are still needed.
#include <cerrno>

#include "tests/unit/log/log_world.h"

namespace tailrace::broker::log {
namespace {

constexpr std::uint64_t kOld = 64 * limits::kKiB;

class WalSize : public testing::TestWithParam<std::uint64_t> {
 protected:
  /// A killed broker whose frames all lie in the WAL, with a file made ready behind the active one.
  void fill(LogWorld& world) {
    ASSERT_TRUE(world.start());
    auto partition = world.create(partition_id(1));
    for (int i = 0; i < 10; ++i) world.publish(*partition, "v" + std::to_string(i));
    before_ = *world.read_all(*partition, Offset{0});
    partition.reset();
    world.crash(sim::CrashPlan::lose_all());
  }
  void expect_whole(LogWorld& world) {
    ASSERT_TRUE(world.start());
    EXPECT_EQ(world.log().recovery().corrupt, 0U);
    auto partition = world.open(partition_id(1));
    ASSERT_TRUE(partition);
    EXPECT_EQ(partition->stats().damage, "");
    auto after = world.read_all(*partition, Offset{0});
    ASSERT_TRUE(after) << after.error().detail;
    EXPECT_EQ(*after, before_);
    world.publish(*partition, "more");
  }
  std::vector<std::string> before_;
};

// The files change their size as they are recycled, and keep what they hold until then.
TEST_P(WalSize, ChangesWithoutALoss) {
  LogWorld world;
  fill(world);
  world.options().wal_file_bytes = GetParam();
  expect_whole(world);
  auto partition = world.open(partition_id(1));
  for (int i = 0; i < 400; ++i) world.publish(*partition, std::string(1500, 'x'));
  EXPECT_GT(world.log().stats().wal_recycles, 0U);
  before_ = *world.read_all(*partition, Offset{0});
  partition.reset();
  world.crash(sim::CrashPlan::lose_all());
  expect_whole(world);
}

// A start with the new size that fails or dies at any write, sync or size change leaves the next start all it needs: a file
// that a frame names was emptied for its new size, and its absence then looked like lost data.
TEST_P(WalSize, AStartThatFailsAtAnyCallHarmsNothing) {
  std::uint64_t struck = 0;
  for (auto op : {sim::DiskOp::write, sim::DiskOp::write_durable, sim::DiskOp::sync, sim::DiskOp::truncate, sim::DiskOp::allocate}) {
    for (std::uint64_t call = 0; call < 12; ++call) {
      SCOPED_TRACE(std::string{sim::name_of(op)} + " call " + std::to_string(call));
      LogWorld world;
      fill(world);
      world.options().wal_file_bytes = GetParam();
      sim::Fault& fault = world.disk().inject({.op = op, .after = call, .sticky = true, .error = call % 2 == 0 ? ENOSPC : EIO});
      if (auto started = world.start()) world.loop().run_until_idle();
      struck += fault.struck > 0 ? 1 : 0;
      world.crash(sim::CrashPlan::seeded(call));
      world.options().wal_file_bytes = kOld;
      expect_whole(world);
      if (HasFatalFailure()) return;
    }
  }
  EXPECT_GT(struck, 10U);
}

INSTANTIATE_TEST_SUITE_P(Sizes, WalSize, testing::Values(kOld / 2 * 3, kOld * 4, kOld));

}  // namespace
}  // namespace tailrace::broker::log
