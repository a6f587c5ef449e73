#include "tests/crash/damage.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace tailrace::broker::crash {
namespace {

template <class Sweep>
std::string text(const Sweep& sweep) {
  std::string out;
  for (const auto& violation : sweep.violations) out += "  " + violation + "\n";
  return out;
}
std::string text(const std::vector<std::string>& violations) {
  std::string out;
  for (const auto& violation : violations) out += "  " + violation + "\n";
  return out;
}
/// Every byte of every file, and every bit of a partition's; torn commits of six logs. The ordinary check looks at some, and at one log.
bool thorough() { return std::getenv("TAILRACE_SWEEP") != nullptr; }
std::vector<std::uint64_t> seeds(std::uint64_t usual) {
  if (!thorough()) return {usual};
  return {1, 2, 3, 4, 5, 6};
}

// Item 1, small: a commit cut at every byte, over zeros as in a new file and over frames of an earlier use; and at every
// eleventh over noise, and one of two blocks.
TEST(TornCommit, CutAtEveryByteIsWholeOrGone) {
  for (std::uint64_t seed : seeds(1)) {
    for (bool recycled : {false, true}) {
      TornSweep every = tear_at_every_byte(seed, 1, sim::Fate::Rest::old, recycled);
      EXPECT_TRUE(every.violations.empty()) << "seed " << seed << "\n" << text(every);
      EXPECT_EQ(every.judged, limits::kWalBlock + 1);
      EXPECT_GT(every.torn, 0u) << "a cut commit is counted as torn";
      TornSweep noise = tear_at_every_byte(seed, 1, sim::Fate::Rest::noise, recycled, thorough() ? 1 : 11);
      EXPECT_TRUE(noise.violations.empty()) << "seed " << seed << "\n" << text(noise);
      TornSweep two = tear_at_every_byte(seed, 2, sim::Fate::Rest::old, recycled, thorough() ? 1 : 11);
      EXPECT_TRUE(two.violations.empty()) << "seed " << seed << "\n" << text(two);
    }
  }
}
// Item 1: shorn, with holes, with old contents, with zeros.
TEST(TornCommit, AnySubsetOfItsBlocksIsWholeOrGone) {
  for (std::uint64_t seed : seeds(2)) {
    for (bool recycled : {false, true}) {
      for (auto rest : {sim::Fate::Rest::old, sim::Fate::Rest::zeros, sim::Fate::Rest::noise}) {
        for (std::size_t blocks = 2; blocks <= 6; ++blocks) {
          TornSweep sweep = tear_every_subset(seed, blocks, rest, recycled);
          EXPECT_TRUE(sweep.violations.empty()) << "seed " << seed << ", " << blocks << " blocks\n" << text(sweep);
          EXPECT_EQ(sweep.judged, std::uint64_t{1} << blocks);
        }
      }
    }
  }
}
TEST(TornCommit, TenThousandSeededSubsetsOfItsSectorsAreWholeOrGone) {
  for (std::uint64_t seed : seeds(2)) {
    TornSweep sweep = tear_by_seeds(seed, 6, 10'000, true);
    EXPECT_TRUE(sweep.violations.empty()) << "seed " << seed << "\n" << text(sweep);
    EXPECT_EQ(sweep.judged, 10'000u);
  }
}

// Item 6. On a quiet log nothing is exempt: not one record may be missing without a word.
TEST(Damage, OneBitInTheWalOrACheckpointIsNoticedOrHarmless) {
  for (auto rest : {Rest::quiet, Rest::stopped}) {
    AtRest log = small_log(1, rest);
    ASSERT_TRUE(log.oracle.violations.empty()) << text(log.oracle.violations);
    DamageSweep wal = flip_bits(log, "/wal/", thorough() ? 1 : 61, 1);
    EXPECT_TRUE(wal.violations.empty()) << text(wal);
    for (const char* part : {"/checkpoint", "/node.toml"}) {
      DamageSweep rest_of = flip_bits(log, part, thorough() ? 1 : 5, 1);
      EXPECT_TRUE(rest_of.violations.empty()) << part << "\n" << text(rest_of);
      EXPECT_GT(rest_of.noticed, 0u) << part;
    }
  }
}
// Sealed segments, the one still written to, their indexes and snapshots. A batch's front, the leader epoch among it, lies
// outside its checksum: every bit of it is tried.
TEST(Damage, OneBitInAPartitionsFilesIsNoticedOrHarmless) {
  for (auto rest : {Rest::quiet, Rest::stopped}) {
    AtRest log = small_log(1, rest);
    ASSERT_TRUE(log.oracle.violations.empty()) << text(log.oracle.violations);
    DamageSweep fronts = flip_batch_fronts(log, thorough() ? 1 : 5, 1);
    EXPECT_TRUE(fronts.violations.empty()) << text(fronts);
    EXPECT_GE(fronts.judged, 3 * 8 * batch_layout::kCrc);
    EXPECT_GT(fronts.noticed, 0u);
    DamageSweep files = flip_bits(log, "/topics/", thorough() ? 1 : 29, 2, thorough() ? Bits::every : Bits::one);
    EXPECT_TRUE(files.violations.empty()) << text(files);
    EXPECT_GT(files.noticed, 0u);
  }
}
// And right after a crash the newest commits may be cut, if that is counted.
TEST(Damage, OneBitInALogCutInMidCommitIsNoticedCountedOrHarmless) {
  AtRest log = small_log(2, Rest::cut);
  ASSERT_TRUE(log.oracle.violations.empty()) << text(log.oracle.violations);
  DamageSweep sweep = flip_bits(log, "/wal/", thorough() ? 1 : 61, 3);
  EXPECT_TRUE(sweep.violations.empty()) << text(sweep);
}
// Item 7.
TEST(Damage, LostSectorsAreNoticedOrHarmless) {
  AtRest log = small_log(3, Rest::quiet);
  ASSERT_TRUE(log.oracle.violations.empty()) << text(log.oracle.violations);
  DamageSweep sweep = lose_sectors(log, 1);
  EXPECT_TRUE(sweep.violations.empty()) << text(sweep);
  EXPECT_GT(sweep.noticed, 0u);
}
// Item 7: files cut short, gone, or of some time before; the folder of a shard that is gone is not a shard that is new.
TEST(Damage, LostCutAndOldFilesAreNoticedOrHarmless) {
  for (auto rest : {Rest::quiet, Rest::stopped}) {
    AtRest log = small_log(4, rest);
    ASSERT_TRUE(log.oracle.violations.empty()) << text(log.oracle.violations);
    DamageSweep sweep = lose_files(log, 1);
    EXPECT_TRUE(sweep.violations.empty()) << text(sweep);
    EXPECT_GT(sweep.noticed, 0u);
  }
}
// Item 3: a lying disk must be detected through the watermark, and reported.
TEST(Damage, ALyingFlushIsReportedNotHidden) {
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    auto found = lying_flush(seed);
    EXPECT_TRUE(found.empty()) << text(found);
  }
}
// Item 8.
TEST(Damage, MisdirectedWritesAreNoticed) {
  auto found = misdirected_writes(1);
  EXPECT_TRUE(found.empty()) << text(found);
}

}  // namespace
}  // namespace tailrace::broker::crash
