#include "tests/unit/raft/stories.h"

#include <fmt/format.h>

#include <array>
#include <vector>

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

/// R5: acknowledged by A and B of three. B loses it, A is away: C, which never had it, must not be elected by B.
std::string acknowledged_by_two_one_rots_the_other_is_away() {
  Cluster world{{.nodes = 3}};
  int a = world.await_leader();
  MUST(a >= 0);
  int b = (a + 1) % 3, c = (a + 2) % 3;
  world.run(500ms);
  world.isolate(c);
  auto sent = world.produce(a);
  world.run(100ms);
  MUST(world.acknowledged(sent));
  world.crash(b);
  world.lose_tail(b, {Offset{0}, 1}, Suspicion::lost);
  world.heal();
  world.isolate(a);
  world.start(b);
  world.run(5s);
  MUST(world.leader() < 0);
  world.heal();
  MUST(world.await_leader() >= 0);
  world.run(1s);
  world.check_final(world.leader());
  return world.violation();
}

/// R4: who reaches nobody leads nobody, and says so.
std::string a_leader_that_is_cut_off_steps_down() {
  Cluster world{{.nodes = 3}};
  int old = world.await_leader();
  MUST(old >= 0);
  world.isolate(old);
  world.run(3s);
  MUST(world.replica(old).role() != Role::leader);
  MUST(world.leader() >= 0);
  return world.violation();
}

/// R1: one vote a term, also across a restart. C voted for A, restarts, and hears only then that B asks for the same term.
std::string a_vote_outlives_a_restart() {
  Cluster world{{.nodes = 3}};
  int a = 0, b = 1, c = 2;
  world.cut(a, b);
  world.cut(b, a);
  world.campaign(a);
  world.campaign(b);
  std::vector<Packet> late;
  for (int i = 0; i < 10; ++i) {
    std::erase_if(world.packets(), [&](const Packet& packet) {
      const Message* message = std::get_if<Message>(&packet.body);
      if (message && std::holds_alternative<Append>(*message)) return true;  // C's log stays as short as B's
      const VoteRequest* asks = message ? std::get_if<VoteRequest>(message) : nullptr;
      if (!asks || asks->pre_vote || packet.from != world.node(b).id || packet.to != world.node(c).id) return false;
      late.push_back(packet);
      return true;
    });
    world.step();
  }
  MUST(world.replica(a).role() == Role::leader);
  MUST(late.size() == 1);
  MUST(std::get<VoteRequest>(std::get<Message>(late[0].body)).ballot == world.replica(a).term());
  world.crash(c);
  world.start(c);
  world.deliver(late[0]);
  world.run(50ms);
  MUST(world.replica(b).role() != Role::leader);
  return world.violation();
}

/// R9: of four voters, A adds a fifth and reaches only that one. B, elected by the other three, must not change members before an entry of its term is
/// committed: the two changes would make majorities that do not meet, and A's could elect a log without what B's had acknowledged.
std::string two_changes_by_two_leaders() {
  Cluster world{{.nodes = 5, .voters = 4}};
  int a = 0, b = 1, c = 2, d = 3, e = 4;
  world.run(10ms);
  world.campaign(a);
  MUST(world.await([&] { return world.leader() == a; }));
  MUST(world.change(a, ChangeKind::add_learner, world.node(e).id) == Verdict::ok);
  MUST(world.await([&] { return world.replica(e).commit() == world.replica(a).log().end(); }));
  world.run(500ms);
  for (int other : {b, c, d}) world.isolate(other);
  MUST(world.change(a, ChangeKind::promote, world.node(e).id) == Verdict::ok);
  MUST(world.await([&] { return world.replica(a).role() != Role::leader; }));
  for (int from : {b, c, d}) {
    for (int to : {b, c, d}) world.cut(from, to, false);
  }
  // B, whoever it is, is elected by the other two, and from then on D hears nothing.
  auto elected = [&] {
    for (int other : {1, 2, 3}) {
      if (world.replica(other).role() == Role::leader) b = other;
    }
    return world.replica(b).role() == Role::leader;
  };
  MUST(world.await(elected));
  c = b == 1 ? 2 : 1;
  d = 6 - b - c;
  world.packets().clear();
  world.cut(b, d);
  Verdict early = world.change(b, ChangeKind::remove, world.node(a).id);
  MUST(world.violation().empty());
  world.run(300ms);
  auto sent = world.produce(b);
  world.run(300ms);
  bool acknowledged = world.acknowledged(sent);
  // B and C away; A, D and the new one are a majority of A's five.
  world.heal();
  world.isolate(b);
  world.isolate(c);
  world.campaign(a);
  world.run(3s);
  if (!world.violation().empty()) return world.violation();
  world.heal();
  MUST(world.await_leader() >= 0);
  world.run(1s);
  if (acknowledged) world.check_final(world.leader());
  if (!world.violation().empty()) return world.violation();
  if (early != Verdict::term_not_committed) return fmt::format("a leader of an uncommitted term changes members: {}", name_of(early));
  return {};
}

/// R5: B and C joined A, and D left. B and C alone have what is acknowledged last. B loses its log back to where A and D were all voters, C is away: B must
/// not learn from A and D alone how long a log it may vote for.
std::string lost_with_the_entry_that_made_a_voter() {
  Cluster world{{.nodes = 4, .voters = 2}};
  int a = world.await_leader();
  MUST(a == 0 || a == 1);
  int d = 1 - a, b = 2, c = 3;
  auto change = [&](ChangeKind kind, int node) {
    return world.await([&] { return world.change(a, kind, world.node(node).id) == Verdict::ok; }) &&
           world.await([&] { return world.replica(a).commit() == world.replica(a).log().end(); });
  };
  MUST(change(ChangeKind::add_learner, b));
  LogPosition before = world.replica(a).log().end();
  MUST(change(ChangeKind::promote, b) && change(ChangeKind::add_learner, c) && change(ChangeKind::promote, c));
  MUST(change(ChangeKind::remove, d));
  world.run(500ms);
  MUST(world.transfer(a, c) == Verdict::ok);
  MUST(world.await([&] { return world.leader() == c; }));
  world.run(300ms);
  world.isolate(a);
  world.isolate(d);
  auto sent = world.produce(c);
  world.run(300ms);
  MUST(world.acknowledged(sent));
  world.crash(b);
  world.lose_tail(b, before, Suspicion::lost);
  world.heal();
  world.isolate(c);
  world.start(b);
  world.run(5s);
  MUST(world.leader() < 0);
  world.heal();
  MUST(world.await_leader() >= 0);
  world.run(1s);
  world.check_final(world.leader());
  return world.violation();
}

constexpr std::array kStories{
    Story{"LostWithTheEntryThatMadeAVoter", PlantedBug::raft_ask_old_members, lost_with_the_entry_that_made_a_voter},
    Story{"TwoChangesByTwoLeaders", PlantedBug::raft_change_before_term_start, two_changes_by_two_leaders},
    Story{"AVoteOutlivesARestart", PlantedBug::raft_forget_vote, a_vote_outlives_a_restart},
    Story{"AcknowledgedByTwoOneRotsTheOtherIsAway", PlantedBug::raft_lost_votes, acknowledged_by_two_one_rots_the_other_is_away},
    Story{"ALeaderThatIsCutOffStepsDown", PlantedBug::raft_lead_without_quorum, a_leader_that_is_cut_off_steps_down},
    Story{"ALieAboutCommittedEntriesHaltsTheReplica", PlantedBug::raft_truncate_below_commit, a_lie_about_committed_entries},
};

}  // namespace

std::span<const Story> stories() { return kStories; }

}  // namespace tailrace::broker::raft::test
