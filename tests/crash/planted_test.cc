/// A check that cannot fail is no check: every planted bug must be found by the sweep and scenes that the ordinary check runs,
/// within the seeds that it runs; and the same seeds find nothing without it (the other tests of this folder).
#include <fmt/core.h>
#include <gtest/gtest.h>

#include "base/planted.h"
#include "tests/crash/histories.h"
#include "tests/crash/workload.h"

namespace tailrace::broker::crash {
namespace {

struct Case {
  PlantedBug bug;
  std::vector<Violations (*)(std::uint64_t)> scenes;
};

class Planted : public testing::TestWithParam<Case> {
 protected:
  void TearDown() override { plant(PlantedBug::none); }
};

TEST_P(Planted, IsFound) {
  plant(GetParam().bug);
  std::string by;
  for (std::size_t i = 0; i < GetParam().scenes.size(); ++i) {
    for (std::uint64_t seed = 1; seed <= 3 && by.empty(); ++seed) {
      Violations found = GetParam().scenes[i](seed);
      if (!found.empty()) by = fmt::format("scene {} with seed {}: {}", i, seed, found[0]);
    }
  }
  if (by.empty()) {  // the scene is quicker than the sweep
    Sweep ordinary = sweep(1, kOrdinarySeeds);
    if (!ordinary.violations.empty()) by = fmt::format("seed {} of the sweep: {}", ordinary.failed_seed, ordinary.violations[0]);
  }
  EXPECT_FALSE(by.empty()) << "nothing notices " << name_of(GetParam().bug);
  std::printf("%s is found by\n  %s\n", std::string{name_of(GetParam().bug)}.c_str(), by.c_str());
}

// Not here: decoder_length is the fuzz targets' to find.
INSTANTIATE_TEST_SUITE_P(All, Planted,
                         testing::Values(Case{PlantedBug::no_dsync, {crash_around_recycling}},
                                         Case{PlantedBug::ack_before_completion, {pipelined_commits}},
                                         Case{PlantedBug::ack_out_of_order, {pipelined_commits}},
                                         Case{PlantedBug::recycle_too_early, {crash_around_recycling}},
                                         Case{PlantedBug::checkpoint_without_term, {vote_forgotten}},
                                         Case{PlantedBug::accept_stale_frame, {forged_frame_inside_a_payload}},
                                         Case{PlantedBug::segment_before_wal, {segment_ahead_of_the_wal}},
                                         Case{PlantedBug::replay_old_truncation, {old_truncation_replayed}},
                                         Case{PlantedBug::remainder_not_copied, {padded_tail_torn}},
                                         Case{PlantedBug::directory_not_synced, {segment_names_lost}},
                                         Case{PlantedBug::cut_despite_proof, {rot_at_the_end_of_a_file}},
                                         Case{PlantedBug::forget_dedup_window, {retries_after_a_crash}},
                                         Case{PlantedBug::reuse_buffer_early, {pipelined_commits}},
                                         Case{PlantedBug::late_segment_write, {late_write_over_new_bytes}}),
                         [](const auto& info) { return std::string{name_of(info.param.bug)}; });

}  // namespace
}  // namespace tailrace::broker::crash
