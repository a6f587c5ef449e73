/// crash_sweep [--seed N] [--count N] [--plant BUG] [--log] [--all]: tells stories of seeds on the simulated disk; exit 1 with the first one
/// whose recovery breaks a promise; --all goes on and lists one line a failed seed; --log shows the node's own log. `--seed N` alone tells one, twice, and compares the hashes of all events.
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "base/log.h"
#include "base/planted.h"
#include "tests/crash/workload.h"

int main(int argc, char** argv) {
  using namespace tailrace::broker;
  std::uint64_t seed = 1, count = 1;
  bool loud = false, all = false;
  for (int i = 1; i < argc; ++i) {
    std::string_view argument = argv[i];
    const char* value = i + 1 < argc ? argv[i + 1] : nullptr;
    if (argument == "--log") {
      loud = true;
    } else if (argument == "--all") {
      all = true;
    } else if (value != nullptr && argument == "--seed") {
      seed = std::strtoull(argv[++i], nullptr, 10);
    } else if (value != nullptr && argument == "--count") {
      count = std::strtoull(argv[++i], nullptr, 10);
    } else if (value != nullptr && argument == "--plant" && planted_bug_named(value) != PlantedBug::none) {
      plant(planted_bug_named(argv[++i]));
    } else {
      std::fprintf(stderr, "usage: crash_sweep [--seed N] [--count N] [--plant BUG] [--log] [--all]\n");
      return 2;
    }
  }
  if (!loud) set_log_sink([](LogLevel, std::string_view, std::string_view) {}, LogLevel::error);
  if (all) {
    std::uint64_t failed = 0;
    for (std::uint64_t i = seed; i < seed + count; ++i) {
      crash::Story story = crash::tell(i);
      if (story.violations.empty()) continue;
      ++failed;
      std::printf("seed %lu: %s\n", static_cast<unsigned long>(i), story.violations[0].c_str());
    }
    std::printf("%lu of %lu seeds failed\n", static_cast<unsigned long>(failed), static_cast<unsigned long>(count));
    return failed == 0 ? 0 : 1;
  }
  crash::Sweep done = crash::sweep(seed, count);
  std::printf("%s\n", done.text().c_str());
  if (count == 1) {
    std::uint64_t first = crash::tell(seed).hash, second = crash::tell(seed).hash;
    std::printf("events %016lx%s\n", first, first == second ? "" : ", and another run differs");
    if (first != second) return 1;
  }
  return done.violations.empty() ? 0 : 1;
}
