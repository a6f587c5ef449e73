#include <gtest/gtest.h>

#include <cstdlib>

#include "base/planted.h"
#include "tests/crash/workload.h"

namespace tailrace::broker::crash {
namespace {

/// TAILRACE_SWEEP multiplies the number of seeds; nightly runs set it to hundreds.
std::uint64_t scaled(std::uint64_t count) {
  const char* factor = std::getenv("TAILRACE_SWEEP");
  return count * (factor != nullptr ? std::strtoull(factor, nullptr, 10) : 1);
}

// The promise of the whole log, on any path through it: what was acknowledged, seen or counted as durable is there after
// every crash, whole and in order; what was not is there whole or not at all; and the generator has been everywhere.
TEST(CrashSweep, EverySeedKeepsItsPromisesAndTheSweepReachesEverything) {
  Sweep done = sweep(1, scaled(kOrdinarySeeds));
  EXPECT_TRUE(done.violations.empty()) << done.text();
  std::printf("%s\n", done.text().c_str());
  if (!done.violations.empty()) return;
  for (std::size_t i = 0; i < done.marks.size(); ++i) EXPECT_GT(done.marks[i], 0u) << name_of(static_cast<Mark>(i));
}

// Without this no seed can be replayed: two runs of one seed are the same run, event by event.
TEST(CrashSweep, ASeedToldTwiceGivesTheSameEvents) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    Story first = tell(seed), second = tell(seed);
    ASSERT_NE(first.hash, 0u);
    ASSERT_EQ(first.hash, second.hash) << "seed " << seed;
    ASSERT_EQ(first.marks, second.marks) << "seed " << seed;
  }
  EXPECT_NE(tell(1).hash, tell(2).hash);
}

}  // namespace
}  // namespace tailrace::broker::crash
