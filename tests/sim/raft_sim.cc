/// raft_sim: replicas of one log in memory, from seeds (tests/unit/raft/chaos.h).
///   --seed N           one seed, twice: both runs must be the same
///   --seeds A..B       each seed of a range, twice
///   --soak MINUTES     seeds from --from (default 1,000,000) on, for that long
///   --mutants          every planted bug of replication: `found` with the seeds needed and by what, or MISSED
///   --mutants-fast     the same without asking what the history alone finds
/// A failure prints one line to replay. Exit 1 when anything was found, or a planted bug was missed.
#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/planted.h"
#include "tests/sim/planted_child.h"
#include "tests/unit/raft/chaos.h"
#include "tests/unit/raft/stories.h"

namespace tailrace::broker::raft::test {
namespace {

constexpr std::uint64_t kMutantSeeds = 2'000;  // as many as the ordinary check runs unmutated
constexpr unsigned kMutantSeconds = 120;       // a bug that loops for ever counts as missed

/// What no seed shows, but a script of the raft reference (tests/interop/raft_reference).
struct Script {
  PlantedBug bug;
  std::string_view name;
};
constexpr std::array kScripts{
    Script{PlantedBug::raft_commit_old_term, "figure-8"},
    Script{PlantedBug::raft_late_persist_counts, "late-report"},
    Script{PlantedBug::raft_old_reply_counts, "old-answers"},
};

std::optional<std::uint64_t> number(std::string_view text) {
  std::uint64_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

struct Sum {
  std::uint64_t seeds = 0, acknowledgements = 0;
  Duration virtual_time{};
};

/// Runs a seed twice. False: it printed the line that replays it.
bool holds(std::uint64_t seed, Sum& sum) {
  ChaosResult first = run_chaos(seed), again = run_chaos(seed);
  std::string wrong = first.violation;
  if (wrong.empty() && first.hash != again.hash) wrong = fmt::format("the same seed gave another run: {:016x} and {:016x}", first.hash, again.hash);
  ++sum.seeds;
  sum.acknowledgements += first.acknowledgements;
  sum.virtual_time += first.virtual_time;
  if (wrong.empty()) return true;
  fmt::print("./dev sim --seed {}  # {}\n", seed, wrong);
  return false;
}

void report(const Sum& sum, std::chrono::steady_clock::time_point began) {
  double real = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  double seconds = std::chrono::duration<double>(sum.virtual_time).count();
  fmt::print("{} seeds, each twice: {} acknowledged, {:.2f} virtual hours, {:.1f} s, {:.0f} seeds/s, {:.0f} virtual seconds a second\n", sum.seeds,
             sum.acknowledgements, seconds / 3'600, real, 2 * static_cast<double>(sum.seeds) / real, 2 * seconds / real);
}

std::optional<std::string> by_seeds(PlantedBug bug, Checks checks, std::uint64_t seeds = kMutantSeeds) {
  return sim::in_child(bug, kMutantSeconds, [checks, seeds](const sim::Say& say) {
    for (std::uint64_t seed = 1; seed <= seeds; ++seed) {
      say(fmt::format("\n@{} ", seed));
      std::string violation = run_chaos(seed, checks).violation;
      if (violation.empty()) continue;
      say(violation);
      return true;
    }
    return false;
  });
}

std::optional<std::string> by_story(PlantedBug bug) {
  for (const Story& story : stories()) {
    if (story.bug != bug) continue;
    auto found = sim::in_child(bug, kMutantSeconds, [&](const sim::Say& say) {
      say(fmt::format("\n@{}: ", story.name));
      std::string wrong = story.run();
      say(wrong);
      return !wrong.empty();
    });
    if (found) return found;
  }
  return std::nullopt;
}

/// The script's own program says whether it notices; it lies beside this one.
std::optional<std::string> by_script(PlantedBug bug) {
  for (const Script& script : kScripts) {
    if (script.bug != bug) continue;
    std::string program = (std::filesystem::read_symlink("/proc/self/exe").parent_path() / "raft_reference_ours").string();
    std::string file = fmt::format("{}/tests/interop/raft_reference/scripts/{}.txt", TAILRACE_SOURCE_DIR, script.name);
    std::string command = fmt::format("'{}' --notices {} '{}' > /dev/null 2>&1", program, name_of(bug), file);
    if (std::system(command.c_str()) == 0) return fmt::format("raft_reference {}", script.name);
  }
  return std::nullopt;
}

/// `fast`: any check may find it, so that few seeds are needed.
int mutants(bool fast) {
  std::size_t all = 0, missed = 0, history = 0, told = 0;
  std::vector<std::uint64_t> needed;
  for (auto i = static_cast<std::size_t>(PlantedBug::raft_send_before_hard_state); i < static_cast<std::size_t>(PlantedBug::count_); ++i) {
    auto bug = static_cast<PlantedBug>(i);
    if (class_of(bug) == "stream") break;  // behind replication's
    ++all;
    std::string by = "history";
    auto found = fast ? std::nullopt : by_seeds(bug, Checks::history);
    if (found) {
      ++history;
    } else if (found = by_seeds(bug, Checks::all); found) {
      by = "invariants";
    } else if (found = by_story(bug); found) {
      by = "story";
      ++told;
    } else if (found = by_script(bug); found) {
      by = "story";
      ++told;
    }
    if (!found) {
      ++missed;
      fmt::print("{} [{}] MISSED\n", name_of(bug), class_of(bug));
    } else if (by == "story") {
      fmt::print("{} [{}] found by a story: {}\n", name_of(bug), class_of(bug), *found);
    } else {
      std::size_t space = found->find(' ');
      needed.push_back(number(std::string_view{*found}.substr(0, space)).value_or(0));
      fmt::print("{} [{}] found after {} seeds by {}: {}\n", name_of(bug), class_of(bug), needed.back(), by, space == std::string::npos ? "" : found->substr(space + 1));
    }
    std::fflush(stdout);
  }
  std::ranges::sort(needed);
  fmt::print("{} planted bugs: {} found by the history alone, {} by invariants, {} only by a story, {} missed; median {} seeds\n", all, history,
             needed.size() - history, told, missed, needed.empty() ? 0 : needed[needed.size() / 2]);
  return missed == 0 && told <= 8 && (fast || history * 2 >= all) ? 0 : 1;
}

int usage() {
  fmt::print(stderr, "usage: raft_sim --seed N | --seeds A..B | --soak MINUTES [--from N] | --mutants | --mutants-fast\n");
  return 2;
}

int run(const std::vector<std::string_view>& arguments) {
  if (arguments.size() == 1 && arguments[0] == "--mutants") return mutants(false);
  if (arguments.size() == 1 && arguments[0] == "--mutants-fast") return mutants(true);
  auto began = std::chrono::steady_clock::now();
  Sum sum;
  if (arguments.size() < 2) return usage();
  auto count = number(arguments[1]);
  if (arguments[0] == "--seed" && count) {
    if (!holds(*count, sum)) return 1;
  } else if (arguments[0] == "--seeds") {
    std::size_t dots = arguments[1].find("..");
    if (dots == std::string_view::npos) return usage();
    auto first = number(arguments[1].substr(0, dots)), last = number(arguments[1].substr(dots + 2));
    if (!first || !last) return usage();
    for (std::uint64_t seed = *first; seed <= *last; ++seed) {
      if (!holds(seed, sum)) return 1;
    }
  } else if (arguments[0] == "--soak" && count) {
    std::uint64_t seed = 1'000'000;
    if (arguments.size() == 4 && arguments[2] == "--from") {
      auto from = number(arguments[3]);
      if (!from) return usage();
      seed = *from;
    }
    while (std::chrono::steady_clock::now() - began < std::chrono::minutes{*count}) {
      if (!holds(seed++, sum)) return 1;
    }
  } else {
    return usage();
  }
  report(sum, began);
  return 0;
}

}  // namespace
}  // namespace tailrace::broker::raft::test

int main(int argc, char** argv) { return tailrace::broker::raft::test::run({argv + 1, argv + argc}); }
