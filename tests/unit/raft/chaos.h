#pragma once
/// One seed's run: faults drawn for it, producers that resend, members that come and go; then everything is healed and must
/// work again. What is wrong comes back as a sentence.
#include <cstdint>
#include <string>

#include "tests/unit/raft/cluster.h"

namespace tailrace::broker::raft::test {

struct ChaosResult {
  std::string violation{};  // empty: none
  Cluster::Counters counters{};
  std::uint64_t acknowledgements = 0;
  std::uint64_t hash = 0;        // of all that happened: the same seed is the same run
  Duration virtual_time{};
};

[[nodiscard]] ChaosResult run_chaos(std::uint64_t seed, Checks checks = Checks::all);

}  // namespace tailrace::broker::raft::test
