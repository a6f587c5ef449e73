/// Named after testing.md section 5: each broke an earlier draft of the design.
#include "tests/crash/histories.h"

#include <gtest/gtest.h>

#include <fmt/core.h>

namespace tailrace::broker::crash {
namespace {

std::string text(const Violations& violations) {
  std::string out;
  for (const auto& violation : violations) out += "  " + violation + "\n";
  return out;
}

void expect_none(Violations (*scene)(std::uint64_t), std::uint64_t seeds = 3) {
  for (std::uint64_t seed = 1; seed <= seeds; ++seed) {
    Violations found = scene(seed);
    EXPECT_TRUE(found.empty()) << "seed " << seed << "\n" << text(found);
    if (!found.empty()) return;
  }
}

// A node that votes twice in one term elects two leaders.
TEST(History, H01_TheVoteSurvivesTheRecyclingOfItsFile) { expect_none(vote_forgotten); }
// Rewriting a block that holds acknowledged records risks them, unless they are in the WAL too.
TEST(History, H02_ATornRewriteOfAPaddedTailLosesNothing) { expect_none(padded_tail_torn); }
// "No later frame in this file" is no proof; any later frame of the chain is.
TEST(History, H03_RotAtTheEndOfAFileIsNotATornTailWhenTheNextFileHasFrames) { expect_none(rot_at_the_end_of_a_file); }
// Else an ordinary crash looks like damage, or an unacknowledged record becomes visible.
TEST(History, H04_NoSegmentIsAheadOfTheWal) { expect_none(segment_ahead_of_the_wal); }
// applied_through: a truncation acts once.
TEST(History, H05_AnOldTruncationDoesNotCutTwice) { expect_none(old_truncation_replayed); }
// Truncation drains the writes of the partition first.
TEST(History, H06_ALateWriteDoesNotLandOverAnewTerm) { expect_none(late_write); }
TEST(History, H06_ATruncationAndAMoveOfTheStartOrTheVoteDoNotCross) { expect_none(moved_while_truncating); }
TEST(History, H06_ALateWriteDoesNotLandOverNewBytes) { expect_none(late_write_over_new_bytes); }
TEST(History, H06_AQuickRestartIsKeptOutUntilTheLastLifesWritesLanded) { expect_none(late_write_after_restart); }
// The salt: no bytes of a user ever parse as a frame.
TEST(History, H07_AFrameInsideAPayloadIsNoFrame) { expect_none(frame_inside_a_payload); }
TEST(History, H07_AFrameForgedByAUserIsNoFrame) { expect_none(forged_frame_inside_a_payload); }
// Entries of length zero.
TEST(History, H16_AnEmptyTopicHasNoEndOffsetHoweverOftenItsLeaderChanged) { expect_none(empty_topic_with_an_end_offset); }

// storage.md section 5, item 10, and what the planted bugs need besides.
TEST(Recovery, FindsSegmentsThatTheWalWasRecycledPast) { expect_none(segment_names_lost); }
TEST(Recovery, LosesNothingAroundARecycling) { expect_none(crash_around_recycling); }
TEST(Recovery, AcceptsAnySubsetOfPipelinedCommits) { expect_none(pipelined_commits); }
TEST(Recovery, IgnoresFramesOfAnEarlierUseOfTheFile) { expect_none(stale_frames_behind_the_tail); }
TEST(Recovery, KnowsTheLastFiveBatchesOfEveryProducer) { expect_none(retries_after_a_crash); }

}  // namespace
}  // namespace tailrace::broker::crash
