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
};

/// `check_replicas` off: only what the cluster sees from outside counts (planted bugs, so that no check stops the process).
[[nodiscard]] ChaosResult run_chaos(std::uint64_t seed, bool check_replicas = true);

}  // namespace tailrace::broker::raft::test
