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

}  // namespace
}  // namespace tailrace::broker::crash
