#pragma once
/// The ordinary sweep: a node's whole life story from one seed. What exists at all, sizes, rates and latencies are drawn per
/// seed; operations are drawn step by step from the state at hand; lives end by power cut, kill or clean stop.
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "tests/crash/life.h"

namespace tailrace::broker::crash {

/// What a sweep must have reached, or it proves less than it seems to.
enum class Mark : std::uint8_t {
  appended, committed, rotated, recycled, checkpointed, rolled, remainder_copied, truncated, truncation_recovered, start_moved, segments_removed,
  hard_state, duplicate_recovered, torn, killed, stopped, power_cut, cold_read, created_late, removed, clock_jumped, count_
};
[[nodiscard]] std::string_view name_of(Mark mark);

struct Story {
  std::uint64_t seed = 0;
  std::vector<std::string> violations;
  std::array<std::uint64_t, static_cast<std::size_t>(Mark::count_)> marks{};
  std::uint64_t recoveries = 0;
  std::uint64_t hash = 0;  // of all events of all lives
  [[nodiscard]] std::uint64_t mark(Mark m) const { return marks[static_cast<std::size_t>(m)]; }
};

struct Profile {
  bool truncations = true;
  int steps = 60;
  int lives = 3;
};
[[nodiscard]] Story tell(std::uint64_t seed, const Profile& profile = {});

/// What the ordinary check tells.
inline constexpr std::uint64_t kOrdinarySeeds = 280;

/// Tells the seeds [first, first + count) and answers the first with violations, and adds all marks up.
struct Sweep {
  std::uint64_t told = 0;
  std::uint64_t recoveries = 0;
  std::uint64_t failed_seed = 0;
  std::vector<std::string> violations;  // of the failed seed
  std::array<std::uint64_t, static_cast<std::size_t>(Mark::count_)> marks{};
  double seconds = 0;
  [[nodiscard]] std::string text() const;
};
[[nodiscard]] Sweep sweep(std::uint64_t first, std::uint64_t count, const Profile& profile = {});

}  // namespace tailrace::broker::crash
