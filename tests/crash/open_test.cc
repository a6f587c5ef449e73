/// What the log does not keep yet: crash_open fails, and is not part of the check. A test that passes moves to its place in
/// faults_test.cc or damage_test.cc.
#include <gtest/gtest.h>

#include <cerrno>

#include "tests/crash/damage.h"
#include "tests/crash/faults.h"

namespace tailrace::broker::crash {
namespace {

std::string text(const std::vector<std::string>& violations) {
  std::string out;
  for (const auto& violation : violations) out += "  " + violation + "\n";
  return out;
}
template <class Sweep>
std::string text(const Sweep& sweep) {
  return text(sweep.violations);
}

// Item 9.
TEST(Open, AFullDiskRefusesAndGoesOnWhenSpaceReturns) {
  for (std::uint64_t seed = 1; seed <= 2; ++seed) {
    auto found = disk_full_and_freed(seed);
    EXPECT_TRUE(found.empty()) << "seed " << seed << "\n" << text(found);
  }
}

// Item 6: the leader epoch of a batch lies outside its checksum.
TEST(Open, OneBitInASegmentIsNoticedOrHarmless) {
  for (auto rest : {Rest::quiet, Rest::stopped}) {
    AtRest log = small_log(1, rest);
    ASSERT_TRUE(log.oracle.violations.empty()) << text(log.oracle.violations);
    for (const char* part : {"/topics/"}) {
      DamageSweep rest_of = flip_bits(log, part, 23, 1);
      EXPECT_TRUE(rest_of.violations.empty()) << part << "\n" << text(rest_of);
      EXPECT_GT(rest_of.judged, 0u) << part;
      EXPECT_GT(rest_of.noticed, 0u) << part;
    }
  }
}
}  // namespace
}  // namespace tailrace::broker::crash
