#include "tests/unit/raft/stories.h"

#include <fmt/format.h>

#include <array>

#include "tests/unit/raft/cluster.h"

namespace tailrace::broker::raft::test {
namespace {

using namespace std::chrono_literals;

#define MUST(condition)                                                            \
  do {                                                                             \
    if (!(condition)) return fmt::format("line {}: not {}", __LINE__, #condition); \
  } while (false)

/// R6: a leader whose log differs from what is committed here is a lie or a bug. The replica halts and keeps what it has.
std::string a_lie_about_committed_entries() {
  Cluster world{{.nodes = 3}};
  int leader = world.await_leader();
  MUST(leader >= 0);
  auto sent = world.produce(leader, 5);
  world.run(500ms);
  MUST(world.acknowledged(sent));
  int follower = (leader + 1) % 3;
  world.expect_halt(follower);
  LogPosition before = world.replica(follower).commit();
  Append lie;
  lie.header = {world.node(leader).id, world.node(follower).id, world.replica(follower).term() + 1};
  lie.previous = lie.end = {};
  lie.previous_term = LeaderEpoch{0};
  lie.kind = RunKind::mark;
  lie.entry_term = lie.header.term;
  lie.mark = {.begin = {}, .term = lie.entry_term, .kind = MarkKind::term_start, .log_start = {}};
  lie.end = lie.mark.end();
  world.inject(follower, lie);
  MUST(world.replica(follower).halted());
  MUST(world.replica(follower).commit() == before);
  return world.violation();
}

constexpr std::array kStories{
    Story{"ALieAboutCommittedEntriesHaltsTheReplica", PlantedBug::raft_truncate_below_commit, a_lie_about_committed_entries},
};

}  // namespace

std::span<const Story> stories() { return kStories; }

}  // namespace tailrace::broker::raft::test
