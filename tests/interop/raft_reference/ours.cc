/// raft_reference_ours: plays scripts of events on broker/raft and prints each event with the state that it left, for
/// the Go program beside it to compare.
///   --seeds A..B [--events N]   scripts from seeds, of about N events each (default 60)
///   FILE...                     scripts that were written by hand: events (world.h), `alone` (below), comments after #, and what
///                               must be so, a line that begins a line of the state: `= 2 leads term 3 vote 2 commit 4`
///   --notices BUG FILE...       with that bug planted (broker/base/planted.h) some script must say what is not so: exit 1 when none does
/// Exit 1 when a script says what is not so, 2 when it cannot be read.
#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <optional>
#include <span>
#include <sstream>
#include <string>
#include <string_view>

#include "base/planted.h"
#include "tests/interop/raft_reference/world.h"

namespace tailrace::broker::raft::interop {
namespace {

std::optional<std::uint64_t> number(std::string_view text) {
  std::uint64_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

int seeds(std::string_view range, std::uint64_t events) {
  auto dots = range.find("..");
  auto first = number(range.substr(0, dots));
  auto last = dots == std::string_view::npos ? first : number(range.substr(dots + 2));
  if (!first || !last || events == 0 || events > 10'000) {
    fmt::print(stderr, "error: seeds are A..B, events 1 to 10000\n");
    return 2;
  }
  for (std::uint64_t seed = *first; seed <= *last; ++seed) {
    std::string out;
    generate(seed, static_cast<int>(events), out);
    fmt::print("{}", out);
  }
  return 0;
}

/// `alone N V...`: N is elected by its own vote and those of V, and nothing that it appends then reaches anybody. In events that
/// the other side has as well.
std::vector<std::string> alone(const World& world, const std::vector<int>& words) {
  std::vector<std::string> out;
  int n = words[0];
  std::span<const int> voters = std::span{words}.subspan(1);
  auto each = [&](const char* verb, bool to) {
    for (int v : voters) out.push_back(to ? fmt::format("{} {} {}", verb, n, v) : fmt::format("{} {} {}", verb, v, n));
  };
  for (int m = 1; m <= world.size(); ++m) {
    if (m == n) continue;
    bool votes = std::ranges::find(voters, m) != voters.end();
    out.push_back(fmt::format("{} {} {}", votes ? "join" : "cut", n, m));
    if (votes) out.push_back(fmt::format("age {}", m));
  }
  each("hold", false);
  out.push_back(fmt::format("timeout {}", n));
  for (int asked = 0; asked < 2; ++asked) {  // the pre-vote, then the vote
    each("hold", true);
    each("release", false);
    if (asked == 1) break;
    each("hold", false);
    each("release", true);
  }
  for (int v : voters) out.push_back(fmt::format("cut {} {}", n, v));
  return out;
}

int file(const std::string& path) {
  std::ifstream in{path};
  std::string line;
  std::optional<World> world;
  std::string state;
  int result = 0;
  for (int number = 1; std::getline(in, line); ++number) {
    if (line.empty() || line[0] == '#') continue;
    int nodes = 0, voters = 0;
    if (std::sscanf(line.c_str(), "nodes %d voters %d", &nodes, &voters) == 2 && nodes >= voters && voters > 0 && nodes <= 7) {
      world.emplace(nodes, voters);
      fmt::print("script {} nodes {} voters {}\n", std::filesystem::path{path}.stem().string(), nodes, voters);
      state = world->state();
    } else if (world && line[0] == '=') {
      bool found = state.starts_with(line) || state.find('\n' + line) != std::string::npos;
      if (!found) {
        fmt::print(stderr, "{}:{}: not so: {}\n{}", path, number, line, state);
        result = 1;
      }
    } else if (world && line.starts_with("alone ")) {
      std::istringstream rest{line.substr(6)};
      std::vector<int> words;
      for (int n = 0; rest >> n && n >= 1 && n <= world->size();) words.push_back(n);
      if (words.size() < 2 || !rest.eof()) {
        fmt::print(stderr, "{}:{}: whose votes?\n", path, number);
        return 2;
      }
      for (const std::string& event : alone(*world, words)) {
        world->apply(event);
        state = world->state();
        fmt::print("> {}\n{}", event, state);
      }
    } else if (world && world->apply(line)) {
      state = world->state();
      fmt::print("> {}\n{}", line, state);
    } else {
      fmt::print(stderr, "{}:{}: not an event: {}\n", path, number, line);
      return 2;
    }
  }
  if (!world) {
    fmt::print(stderr, "{}: no script\n", path);
    return 2;
  }
  fmt::print("end\n");
  return result;
}

int run(int argc, char** argv) {
  std::string_view range;
  std::uint64_t events = 60;
  bool notices = false;
  int result = 0;
  for (int i = 1; i < argc; ++i) {
    std::string_view word{argv[i]};
    if (word == "--seeds" && i + 1 < argc) {
      range = argv[++i];
    } else if (word == "--notices" && i + 1 < argc) {
      PlantedBug bug = planted_bug_named(argv[++i]);
      if (bug == PlantedBug::none) return 2;
      plant(bug);
      notices = true;
    } else if (word == "--events" && i + 1 < argc) {
      events = number(argv[++i]).value_or(0);
    } else {
      result = std::max(result, file(argv[i]));
    }
  }
  if (!range.empty()) result = std::max(result, seeds(range, events));
  return notices && result < 2 ? 1 - result : result;
}

}  // namespace
}  // namespace tailrace::broker::raft::interop

int main(int argc, char** argv) { return tailrace::broker::raft::interop::run(argc, argv); }
