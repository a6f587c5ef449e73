#pragma once
/// A cluster of whole brokers from one seed: simulated disks, clocks, links and processes, with clients that keep a history.
///
/// Two phases: while faults are drawn anything may be down; then all is healed, and within a bound of virtual time every partition leads,
/// every producer is answered, the replicas agree byte for byte, everything acknowledged is read, and the history passes
/// tests/support/history_checker.h.
/// Seeds    split into streams (topology, workload, network, disk, faults): a draw more in one shifts no other.
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "tests/sim/whole/clients.h"
#include "tests/sim/whole/network.h"
#include "tests/sim/whole/node.h"

namespace tailrace::broker::sim::whole {

/// Drawn for a seed; a shrunk run has fewer of them.
struct Plan {
  std::uint64_t seed = 1;
  int nodes = 3;
  std::int32_t partitions = 1;
  int producers = 2;
  int ticks = 2'000;           // of 5 ms, of the first phase
  std::uint32_t faults = ~0U;  // which classes may be drawn: a bit for each Fault::Class
};

enum class FaultClass : std::uint8_t {
  kill, power_cut, stop, pause, isolate, cut_link, lossy_links, slow_disk, failed_write, disk_full, wall_jump, transfer, log_start, replace, stalled_disk, drift, rot, topics, count_
};
[[nodiscard]] std::string_view name_of(FaultClass fault);

struct Coverage {
  std::uint64_t acknowledged = 0, restarts = 0, elections = 0, truncations = 0, snapshots = 0, replaced = 0, log_starts = 0, transfers = 0, disk_failures = 0,
                duplicates = 0, polls = 0, quorums = 0, rotten = 0, rot_found = 0, topics = 0;
  Coverage& operator+=(const Coverage& other);
};

struct Outcome {
  std::string violation{};  // empty: none
  std::uint64_t hash = 0;
  Duration virtual_time{};
  std::uint64_t operations = 0;
  Coverage coverage{};
};

/// What the seed says, before anything is shrunk.
[[nodiscard]] Plan plan_of(std::uint64_t seed);
[[nodiscard]] Outcome run(const Plan& plan);

}  // namespace tailrace::broker::sim::whole
