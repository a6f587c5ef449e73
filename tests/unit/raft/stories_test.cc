// The stories of stories.cc: true code survives each; tests/sim/raft_sim.cc tells them again with their planted bug.
#include <gtest/gtest.h>

#include "tests/unit/raft/stories.h"

namespace tailrace::broker::raft::test {
namespace {

class Stories : public testing::TestWithParam<Story> {};
TEST_P(Stories, IsSurvived) { EXPECT_EQ(GetParam().run(), ""); }
INSTANTIATE_TEST_SUITE_P(Replication, Stories, testing::ValuesIn(stories().begin(), stories().end()),
                         [](const auto& info) { return std::string{info.param.name}; });

}  // namespace
}  // namespace tailrace::broker::raft::test
