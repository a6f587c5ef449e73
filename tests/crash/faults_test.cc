#include "tests/crash/faults.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <cstdlib>

namespace tailrace::broker::crash {
namespace {

using sim::DiskOp;

std::string text(const std::vector<std::string>& violations) {
  std::string out;
  for (const auto& violation : violations) out += "  " + violation + "\n";
  return out;
}

struct Kind {
  DiskOp op;
  bool sticky;
};
class EveryCall : public testing::TestWithParam<Kind> {};

// Item 4: each operation, each call number, once and for good. After a failed sync nothing is acknowledged that a restart
// does not find; after any other failure likewise.
TEST_P(EveryCall, MayFailWithoutALoss) {
  bool many = GetParam().op == DiskOp::read || GetParam().op == DiskOp::write || GetParam().op == DiskOp::write_durable || GetParam().op == DiskOp::open;
  // TAILRACE_SWEEP: every call of six stories.
  bool thorough = std::getenv("TAILRACE_SWEEP") != nullptr;
  for (std::uint64_t seed = 1; seed <= (thorough ? 6 : 1); ++seed) {
    FaultSweep sweep = fail_every_call(seed, GetParam().op, GetParam().sticky, EIO, many && !thorough ? 3 : 1);
    EXPECT_TRUE(sweep.violations.empty()) << "seed " << seed << "\n" << text(sweep.violations);
    EXPECT_GT(sweep.struck, 0u) << "the script has such calls";
  }
}

std::vector<Kind> kinds() {
  std::vector<Kind> out;
  for (auto op : {DiskOp::open, DiskOp::read, DiskOp::write_durable, DiskOp::allocate, DiskOp::remove, DiskOp::make_directory, DiskOp::rename,
                  DiskOp::sync_directory, DiskOp::list}) {
    out.push_back({op, false});
    out.push_back({op, true});
  }
  return out;
}
INSTANTIATE_TEST_SUITE_P(Item4, EveryCall, testing::ValuesIn(kinds()), [](const auto& info) {
  return fmt::format("{}_{}", sim::name_of(info.param.op), info.param.sticky ? "for_good" : "once");
});

// The first writes of a directory: neither copy of a checkpoint may be left half written, nor a WAL file that lasts only until
// the next power cut.
TEST(Faults, NoWriteOrSyncOfTheFirstStartLeavesLastingDamage) {
  for (auto op : {DiskOp::write, DiskOp::sync}) {
    for (bool sticky : {false, true}) {
      for (std::uint64_t number = 0; number < 8; ++number) {
        FaultRun run = run_script(1, sim::Fault{.op = op, .after = number, .sticky = sticky, .error = EIO});
        EXPECT_TRUE(run.violations.empty()) << sim::name_of(op) << " call " << number << (sticky ? " for good" : "") << "\n" << text(run.violations);
        EXPECT_GT(run.struck, 0u);
      }
    }
  }
}

// A segment's file is given up, and what was durable in it is written to a new one; if that fails too, nothing is acknowledged
// any more. Either way the next start finds all that was.
TEST(Faults, AnyWriteSyncOrCutOfASegmentMayFail) {
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    for (auto op : {DiskOp::write, DiskOp::sync, DiskOp::truncate}) {
      for (bool sticky : {false, true}) {
        FaultSweep sweep = fail_every_call(seed, op, sticky, EIO);
        EXPECT_TRUE(sweep.violations.empty()) << text(sweep.violations);
        EXPECT_GT(sweep.struck, 20u) << sim::name_of(op);
      }
    }
  }
}

// Item 9: no allocation that fails may fail the log, and it goes on by itself.
TEST(Faults, EveryAllocationMayFindTheDiskFull) {
  for (auto op : {DiskOp::allocate, DiskOp::write}) {
    FaultSweep sweep = fail_every_call(2, op, false, ENOSPC, op == DiskOp::write ? 5 : 1);
    EXPECT_TRUE(sweep.violations.empty()) << text(sweep.violations);
    EXPECT_GT(sweep.struck, 0u);
  }
}

// Item 9: it refuses, reads and votes go on, a crash then starts in the file kept back, and all goes on when space returns.
TEST(Faults, AFullDiskRefusesAndGoesOnWhenSpaceReturns) {
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    auto found = disk_full_and_freed(seed);
    EXPECT_TRUE(found.empty()) << "seed " << seed << "\n" << text(found);
  }
}

// Item 12: no descriptor left is an error of one call, never a lost record.
TEST(Faults, NoDescriptorLeftLosesNothing) {
  FaultSweep sweep = fail_every_call(3, DiskOp::open, false, EMFILE, 2);
  EXPECT_TRUE(sweep.violations.empty()) << text(sweep.violations);
  EXPECT_GT(sweep.struck, 0u);
}

// Item 5: transfers of any length, and calls that want to be made again, are ordinary.
TEST(Faults, ShortAndInterruptedTransfersChangeNothing) {
  for (std::size_t bytes : {std::size_t{1}, std::size_t{511}, std::size_t{4'096}, std::size_t{9'000}}) {
    for (auto op : {DiskOp::read, DiskOp::write, DiskOp::write_durable}) {
      FaultRun run = run_script(4, sim::Fault{.op = op, .sticky = true, .effect = sim::Fault::Effect::shorten, .bytes = bytes});
      EXPECT_TRUE(run.violations.empty()) << sim::name_of(op) << " of at most " << bytes << "\n" << text(run.violations);
      EXPECT_TRUE(run.started && !run.failed && run.refused == 0) << sim::name_of(op) << " of at most " << bytes;
      EXPECT_GT(run.struck, 0u);
    }
  }
  for (int error : {EINTR, EAGAIN}) {
    for (auto op : {DiskOp::read, DiskOp::write, DiskOp::write_durable}) {
      for (std::uint64_t number = 0; number < 40; number += 5) {
        FaultRun run = run_script(4, sim::Fault{.op = op, .after = number, .error = error});
        EXPECT_TRUE(run.violations.empty()) << text(run.violations);
        EXPECT_TRUE(run.started && !run.failed && run.refused == 0) << sim::name_of(op) << " call " << number << " answers " << error;
      }
    }
  }
}

// Item 13: a call of 10 to 60 s delays answers, and brings none forward.
TEST(Faults, AStalledCallDelaysAndBreaksNothing) {
  for (auto op : {DiskOp::write_durable, DiskOp::write, DiskOp::sync, DiskOp::allocate}) {
    for (std::uint64_t number : {std::uint64_t{2}, std::uint64_t{9}, std::uint64_t{30}}) {
      auto stall = std::chrono::seconds{10 + 10 * static_cast<int>(number % 6)};
      FaultRun run = run_script(5, sim::Fault{.op = op, .after = number, .effect = sim::Fault::Effect::stall, .stall = stall});
      EXPECT_TRUE(run.violations.empty()) << sim::name_of(op) << " " << number << "\n" << text(run.violations);
      EXPECT_TRUE(run.started && !run.failed);
    }
  }
}

// Item 14: what cannot be read while the log starts proves nothing about it. The start or the opening fails, and a later one
// finds everything.
TEST(Faults, AnyCallOfARecoveryMayFail) {
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    FaultSweep sweep = fail_during_recovery(seed);
    EXPECT_TRUE(sweep.violations.empty()) << text(sweep.violations);
    EXPECT_GT(sweep.struck, 20u);
  }
}

// Item 14: recovery of a recovery, at each of its operations.
TEST(Faults, APowerCutAtAnyPointOfARecoveryLosesNothing) {
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    FaultSweep sweep = crash_during_recovery(seed);
    EXPECT_TRUE(sweep.violations.empty()) << text(sweep.violations);
    EXPECT_GT(sweep.runs, 20u);
  }
}

}  // namespace
}  // namespace tailrace::broker::crash
