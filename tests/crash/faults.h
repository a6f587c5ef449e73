#pragma once
/// Items 4, 5, 9, 12, 13 and 14 of storage.md section 5: every call of a short script fails once or for good, transfers are
/// cut short, the disk fills, calls take a minute, the power goes during recovery. After each the disk is read by a healthy
/// node, and the oracle judges.
#include <array>
#include <optional>

#include "tests/crash/scene.h"

namespace tailrace::broker::crash {

struct FaultRun {
  std::vector<std::string> violations;
  std::array<std::uint64_t, static_cast<std::size_t>(sim::DiskOp::count_)> calls{};  // of the script
  std::uint64_t struck = 0;
  bool started = false;
  bool failed = false;   // the log said that it failed
  std::uint64_t refused = 0;  // appends without an offset
  std::uint64_t recycles = 0, rolls = 0;
};

/// Creates, appends, votes, truncates, moves starts, reads, removes, rolls, recycles. With a fault injected before it starts.
[[nodiscard]] FaultRun run_script(std::uint64_t seed, const std::optional<sim::Fault>& fault);

/// The calls of `op` in the fault-free script, each failing in turn: once, or from there on. Answers violations with the
/// number of the call, and how many runs there were.
struct FaultSweep {
  std::vector<std::string> violations;
  std::uint64_t runs = 0, struck = 0;
};
[[nodiscard]] FaultSweep fail_every_call(std::uint64_t seed, sim::DiskOp op, bool sticky, int error, std::uint64_t stride = 1);

/// A power cut after each operation of a recovery, and a recovery after that; and each call of it failing.
[[nodiscard]] FaultSweep crash_during_recovery(std::uint64_t seed);
[[nodiscard]] FaultSweep fail_during_recovery(std::uint64_t seed);
/// Fills the disk, then frees it: refused, and on again without a restart.
[[nodiscard]] std::vector<std::string> disk_full_and_freed(std::uint64_t seed);

}  // namespace tailrace::broker::crash
