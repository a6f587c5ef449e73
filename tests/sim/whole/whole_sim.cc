/// whole_sim: clusters of whole brokers from seeds (world.h).
///   --seed N           one seed, twice: both runs must be the same
///   --seeds A..B       each seed of a range, once; every eighth twice
///   --soak MINUTES     seeds from --from (default 1,000,000) on, for that long
///   --mutants [NAME]   every planted bug that a whole broker can show, or one: `found` with the seeds needed and by what, or MISSED
/// A failure is shrunk, and prints one line to replay. Exit 1 when anything was found.
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <csignal>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/log.h"
#include "base/planted.h"
#include "tests/sim/planted_child.h"
#include "tests/sim/whole/world.h"

namespace tailrace::broker::sim::whole {
namespace {

std::optional<std::uint64_t> number(std::string_view text) {
  std::uint64_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

struct Sum {
  std::uint64_t seeds = 0, runs = 0, operations = 0;
  Duration virtual_time{};
  Coverage coverage{};
};

std::string flags_of(const Plan& plan) {
  Plan whole = plan_of(plan.seed);
  std::string out = fmt::format("--seed {}", plan.seed);
  if (plan.nodes != whole.nodes) out += fmt::format(" --nodes {}", plan.nodes);
  if (plan.partitions != whole.partitions) out += fmt::format(" --partitions {}", plan.partitions);
  if (plan.producers != whole.producers) out += fmt::format(" --producers {}", plan.producers);
  if (plan.ticks != whole.ticks) out += fmt::format(" --ticks {}", plan.ticks);
  if (plan.faults != whole.faults) out += fmt::format(" --faults {:#x}", plan.faults);
  return out;
}

/// The line that replays the run under way, for a check of the code under test that stops the process.
std::string under_way;

void tell_what_stopped(int) {
  if (::write(STDOUT_FILENO, under_way.data(), under_way.size()) < 0) ::_exit(3);
  std::signal(SIGABRT, SIG_DFL);  // raised again by abort()
}

Outcome run_told(const Plan& plan) {
  under_way = fmt::format("./dev sim whole {}  # a check stopped it\n", flags_of(plan));
  return run(plan);
}

/// The same failure with fewer of everything, as far as one thing at a time takes it.
Plan shrink(Plan plan, int runs_max) {
  auto fails = [&](const Plan& smaller) { return runs_max-- > 0 && !run_told(smaller).violation.empty(); };
  for (bool moved = true; moved;) {
    moved = false;
    auto attempt = [&](Plan smaller) {
      if (!fails(smaller)) return;
      plan = smaller;
      moved = true;
    };
    for (unsigned bit = 0; bit < static_cast<unsigned>(FaultClass::count_); ++bit) {
      Plan smaller = plan;
      smaller.faults &= ~(1U << bit);
      if (plan.faults == ~0U) smaller.faults &= (1U << static_cast<unsigned>(FaultClass::count_)) - 1;
      if (smaller.faults != plan.faults) attempt(smaller);
    }
    for (int producers = 1; producers < plan.producers; ++producers) {
      Plan smaller = plan;
      smaller.producers = producers;
      attempt(smaller);
    }
    if (plan.partitions > 1) {
      Plan smaller = plan;
      smaller.partitions = 1;
      attempt(smaller);
    }
    if (plan.nodes > 3) {
      Plan smaller = plan;
      smaller.nodes = 3;
      attempt(smaller);
    }
    for (int part : {2, 4, 8}) {
      Plan smaller = plan;
      smaller.ticks -= plan.ticks / part;
      if (smaller.ticks > 10) attempt(smaller);
    }
    if (runs_max <= 0) break;
  }
  return plan;
}

/// False: it printed the line that replays it.
bool holds(const Plan& plan, bool twice, bool may_shrink, Sum& sum) {
  Outcome first = run_told(plan);
  ++sum.seeds;
  ++sum.runs;
  sum.operations += first.operations;
  sum.virtual_time += first.virtual_time;
  sum.coverage += first.coverage;
  std::string wrong = first.violation;
  if (wrong.empty() && twice) {
    ++sum.runs;
    Outcome again = run_told(plan);
    if (again.hash != first.hash) wrong = fmt::format("the same seed gave another run: {:016x} and {:016x}", first.hash, again.hash);
  }
  if (wrong.empty()) return true;
  Plan least = may_shrink && !first.violation.empty() ? shrink(plan, 60) : plan;
  if (may_shrink && !first.violation.empty()) wrong = run(least).violation;
  fmt::print("./dev sim whole {}  # {}\n", flags_of(least), wrong);
  std::fflush(stdout);
  return false;
}

void report(const Sum& sum, std::chrono::steady_clock::time_point began) {
  double real = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  double seconds = std::chrono::duration<double>(sum.virtual_time).count();
  const Coverage& c = sum.coverage;
  fmt::print("{} seeds of whole nodes, {} runs: {} operations, {:.2f} virtual hours, {:.1f} s, {:.1f} runs/s, {:.0f} virtual seconds a second\n", sum.seeds,
             sum.runs, sum.operations, seconds / 3'600, real, static_cast<double>(sum.runs) / real,
             seconds * static_cast<double>(sum.runs) / static_cast<double>(sum.seeds) / real);
  fmt::print(
      "acknowledged {}, duplicates {}, polls {}, restarts {}, elections {}, truncations {}, snapshots {}, replaced {}, log starts {}, transfers {}, disk "
      "failures {}, quorums {}, rotten disks {} ({} refused to start), passing topics {}\n",
      c.acknowledged, c.duplicates, c.polls, c.restarts, c.elections, c.truncations, c.snapshots, c.replaced, c.log_starts, c.transfers, c.disk_failures,
      c.quorums, c.rotten, c.rot_found, c.topics);
}

/// Every kind of event must have happened in a sweep of some size: what is never reached is not tested.
bool reached(const Sum& sum) {
  const Coverage& c = sum.coverage;
  bool all = c.acknowledged && c.duplicates && c.polls && c.restarts && c.elections && c.truncations && c.snapshots && c.replaced && c.log_starts &&
             c.transfers && c.disk_failures && c.quorums && c.rotten && c.rot_found && c.topics;
  if (!all && sum.seeds >= 50) fmt::print("a kind of event was never reached\n");
  return all || sum.seeds < 50;
}

constexpr std::uint64_t kMutantSeeds = 300;  // as many as the ordinary check runs unmutated
constexpr unsigned kMutantSeconds = 120;

/// Tells which of the planted bugs the seeds of whole nodes notice. `only`: a name; empty: all.
int mutants(std::string_view only) {
  std::size_t all = 0;
  std::vector<std::uint64_t> needed;
  for (auto i = static_cast<std::size_t>(PlantedBug::none) + 1; i < static_cast<std::size_t>(PlantedBug::count_); ++i) {
    auto bug = static_cast<PlantedBug>(i);
    // Hostile bytes are for the fuzz targets; streams, groups and queues are not driven by a broker yet.
    if (bug == PlantedBug::decoder_length || class_of(bug) == "stream" || class_of(bug) == "group" || class_of(bug) == "queue") continue;
    continue;  // hostile bytes are for the fuzz targets; no streams and groups here yet
    if (!only.empty() && only != name_of(bug)) continue;
    ++all;
    auto found = in_child(bug, kMutantSeconds, [](const Say& say) {
      for (std::uint64_t seed = 1; seed <= kMutantSeeds; ++seed) {
        say(fmt::format("\n@{} ", seed));
        std::string violation = run(plan_of(seed)).violation;
        if (violation.empty()) continue;
        say(violation);
        return true;
      }
      return false;
    });
    if (found) {
      std::size_t space = std::min(found->find(' '), found->size());
      needed.push_back(number(std::string_view{*found}.substr(0, space)).value_or(0));
      fmt::print("{} [{}] found after {} seeds:{}\n", name_of(bug), class_of(bug), needed.back(), found->substr(space));
    } else {
      fmt::print("{} [{}] MISSED\n", name_of(bug), class_of(bug));
    }
    std::fflush(stdout);
  }
  if (all == 0) {
    fmt::print(stderr, "no planted bug has this name\n");
    return 2;
  }
  std::ranges::sort(needed);
  fmt::print("{} planted bugs: {} found by whole nodes, {} missed; median {} seeds\n", all, needed.size(), all - needed.size(),
             needed.empty() ? 0 : needed[needed.size() / 2]);
  return needed.size() == all ? 0 : 1;
}

int usage() {
  fmt::print(stderr,
             "usage: whole_sim --seed N [--nodes N] [--partitions N] [--producers N] [--ticks N] [--faults MASK] | --seeds A..B | --soak MINUTES [--from N] | "
             "--mutants [NAME]\n");
  return 2;
}

int main_of(const std::vector<std::string_view>& arguments) {
  if (!arguments.empty() && arguments[0] == "--mutants" && arguments.size() <= 2) return mutants(arguments.size() == 2 ? arguments[1] : "");
  std::optional<std::uint64_t> seed, from, to, minutes;
  std::optional<std::uint64_t> nodes, partitions, producers, ticks, faults;
  for (std::size_t i = 0; i < arguments.size(); i += 2) {
    if (i + 1 == arguments.size()) return usage();
    std::string_view name = arguments[i], text = arguments[i + 1];
    if (name == "--seeds") {
      std::size_t dots = text.find("..");
      if (dots == std::string_view::npos) return usage();
      from = number(text.substr(0, dots));
      to = number(text.substr(dots + 2));
      if (!from || !to || *from > *to) return usage();
      continue;
    }
    if (name == "--faults" && text.starts_with("0x")) {
      std::uint64_t mask = 0;
      std::from_chars(text.data() + 2, text.data() + text.size(), mask, 16);
      faults = mask;
      continue;
    }
    auto value = number(text);
    if (!value) return usage();
    if (name == "--seed")
      seed = value;
    else if (name == "--from")
      from = value;
    else if (name == "--soak")
      minutes = value;
    else if (name == "--nodes")
      nodes = value;
    else if (name == "--partitions")
      partitions = value;
    else if (name == "--producers")
      producers = value;
    else if (name == "--ticks")
      ticks = value;
    else
      return usage();
  }
  std::signal(SIGABRT, tell_what_stopped);
  auto began = std::chrono::steady_clock::now();
  Sum sum;
  bool good = true;
  if (seed) {
    Plan plan = plan_of(*seed);
    if (nodes) plan.nodes = static_cast<int>(*nodes);
    if (partitions) plan.partitions = static_cast<std::int32_t>(*partitions);
    if (producers) plan.producers = static_cast<int>(*producers);
    if (ticks) plan.ticks = static_cast<int>(*ticks);
    if (faults) plan.faults = static_cast<std::uint32_t>(*faults);
    good = holds(plan, true, false, sum);
  } else if (minutes) {
    auto end = began + std::chrono::minutes{*minutes};
    for (std::uint64_t next = from.value_or(1'000'000); std::chrono::steady_clock::now() < end; ++next)
      good = holds(plan_of(next), next % 8 == 0, true, sum) && good;
  } else if (to) {
    for (std::uint64_t next = *from; next <= *to; ++next) good = holds(plan_of(next), next % 8 == 0, true, sum) && good;
    good = reached(sum) && good;
  } else {
    return usage();
  }
  report(sum, began);
  return good ? 0 : 1;
}

}  // namespace
}  // namespace tailrace::broker::sim::whole

int main(int argc, char** argv) {
  using namespace tailrace::broker;
  if (!std::getenv("TAILRACE_TEST_LOG")) set_log_sink([](LogLevel, std::string_view, std::string_view) {}, LogLevel::error);
  return sim::whole::main_of(std::vector<std::string_view>(argv + 1, argv + argc));
}
