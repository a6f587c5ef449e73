// Directed tests told as stories: who is where, what is on which disk, and what must not happen. Names of histories are those of the design's list
// of what broke its earlier drafts; docs/replication.md names the rules.
#include <gtest/gtest.h>

#include "tests/unit/raft/cluster.h"

namespace tailrace::broker::raft::test {
namespace {

using namespace std::chrono_literals;

struct Three {
  Cluster world;
  int a = world.await_leader(), b = (a + 1) % 3, c = (a + 2) % 3;
  explicit Three(std::uint64_t seed = 1) : world{{.nodes = 3, .seed = seed}} { world.run(500ms); }
  void ends_well() {
    world.heal();
    for (int i = 0; i < 3; ++i) {
      world.pause(i, false);
      world.node(i).hold_flush = false;
      world.start(i);
    }
    ASSERT_GE(world.await_leader(), 0) << world.violation();
    world.run(2s);
    world.check_final(world.leader());
    EXPECT_EQ(world.violation(), "");
  }
};

// History 8, "Cut, reported, lost" (R5). Acknowledged by A and B. B's disk rots so that it looks like a torn tail; all report; A pauses. B must not elect C,
// which never had the record, nor stand itself.
TEST(Histories, CutReportedLost) {
  Three t;
  t.world.isolate(t.c);
  auto sent = t.world.produce(t.a);
  t.world.run(200ms);
  ASSERT_TRUE(t.world.acknowledged(sent));
  LogEnd had{t.world.node(t.b).disk.last_term(), t.world.node(t.b).disk.end()};
  LogPosition cut = t.world.node(t.b).disk.entries.back().begin;
  t.world.heal();
  t.world.crash(t.b);
  t.world.lose_tail(t.b, cut, Suspicion::cut, had);
  t.world.cut(t.a, t.b);  // A answers nobody but by its report
  t.world.start(t.b);
  t.world.cut(t.a, t.b, false);
  t.world.run(20ms);
  t.world.pause(t.a, true);
  t.world.run(15s);  // longer than a cut replica waits for reports
  EXPECT_LT(t.world.leader(), 0);
  t.ends_well();
}

// History 10, "One disk dead after an ordinary power cut" (R5). All three tear their tails; one never returns. The other two are a majority and lead, without
// waiting for ever for a log as long as what could once be read.
TEST(Histories, OneDiskDeadAfterAnOrdinaryPowerCut) {
  Three t;
  auto sent = t.world.produce(t.a);
  t.world.run(300ms);
  ASSERT_TRUE(t.world.acknowledged(sent));
  for (int i = 0; i < 3; ++i) t.world.node(i).hold_flush = true;
  ASSERT_TRUE(t.world.produce(t.a));  // on no disk when the power goes
  t.world.run(20ms);
  for (int i = 0; i < 3; ++i) {
    LogEnd readable{t.world.node(i).seen.last_term(), t.world.node(i).seen.end()};
    t.world.crash(i);
    t.world.lose_tail(i, t.world.node(i).disk.end(), Suspicion::cut, readable);
    t.world.node(i).hold_flush = false;
  }
  t.world.start(t.b);
  t.world.start(t.c);
  ASSERT_GE(t.world.await_leader(30s), 0);
  EXPECT_TRUE(t.world.acknowledged(sent));
  t.world.check_final(t.world.leader());
  EXPECT_EQ(t.world.violation(), "");
}

// History 9, "Voted, replaced, voted again" (R9). C votes for A; its directory is replaced. What stands in its place is another replica: it has no vote in that
// term, nor in any, until it was made a member.
TEST(Histories, VotedReplacedVotedAgain) {
  Three t;
  LeaderEpoch term = t.world.replica(t.a).term();
  t.world.isolate(t.a);
  t.world.replace_directory(t.c);
  t.world.run(5s);
  EXPECT_LT(t.world.leader(), 0);  // B alone is no majority of {A, B, old C}
  EXPECT_FALSE(t.world.replica(t.b).members().is_voter(t.world.node(t.c).id));
  t.world.heal();
  ASSERT_GE(t.world.await_leader(), 0);
  EXPECT_GE(t.world.replica(t.world.leader()).term(), term);
  EXPECT_EQ(t.world.violation(), "");
}

// History 11, "Caught up without producers" (R12). C restarts at the leader's log start, leads, and hears a batch once more that is stored: it is known.
TEST(Histories, CaughtUpWithoutProducers) {
  std::uint64_t snapshots = 0;
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {  // a log start frees the disk in some of them only
    Three t{seed};
    t.world.isolate(t.c);
    for (int i = 0; i < 4; ++i) {
      auto sent = t.world.produce_as(t.a, 1, i);
      t.world.run(100ms);
      ASSERT_TRUE(t.world.acknowledged(sent));
    }
    Offset end = t.world.replica(t.a).commit().offset;  // all of it: what is known of the producer is beside the log
    ASSERT_EQ(t.world.advance_log_start(t.a, end), Verdict::ok);
    ASSERT_TRUE(t.world.await([&] { return t.world.replica(t.a).log_start() == end; }));
    t.world.run(1s);
    t.world.heal();
    ASSERT_TRUE(t.world.await([&] { return t.world.replica(t.c).commit() == t.world.replica(t.a).commit(); }));
    snapshots += t.world.counters.snapshots;
    ASSERT_EQ(t.world.transfer(t.a, t.c), Verdict::ok);
    ASSERT_TRUE(t.world.await([&] { return t.world.leader() == t.c; }));
    static_cast<void>(t.world.produce_as(t.c, 1, 3));
    t.world.run(500ms);
    t.ends_well();  // nothing is in the log twice
  }
  EXPECT_GT(snapshots, 0U);
}

// History 12, "Log start goes back" (R8): after a hand-over to a replica that deleted less. A reader was shown the later start.
TEST(Histories, LogStartGoesBack) {
  Three t;
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(t.world.produce(t.a, 5));
    t.world.run(100ms);
  }
  t.world.isolate(t.c);
  ASSERT_EQ(t.world.advance_log_start(t.a, Offset{10}), Verdict::ok);
  ASSERT_TRUE(t.world.await([&] { return t.world.replica(t.a).log_start() == Offset{10}; }));
  t.world.confirm(t.a);
  t.world.run(200ms);
  t.world.heal();
  t.world.run(200ms);
  t.world.isolate(t.a);
  ASSERT_TRUE(t.world.await([&] { return t.world.leader() >= 0 && t.world.leader() != t.a; }));
  EXPECT_EQ(t.world.replica(t.world.leader()).log_start(), Offset{10});
  t.world.confirm(t.world.leader());
  t.world.run(200ms);
  t.ends_well();
}

// A candidate whose own entries are not on its disk yet (R1, R2). It may lead; what it had before its crash counts for nothing it did not flush.
TEST(Histories, ACandidateWithUnpersistedEntries) {
  Three t;
  t.world.node(t.b).hold_flush = true;
  auto sent = t.world.produce(t.a);
  t.world.run(200ms);
  ASSERT_TRUE(t.world.acknowledged(sent));  // by A and C
  t.world.isolate(t.a);
  t.world.campaign(t.b);
  t.world.run(100ms);
  t.world.crash(t.b);
  t.world.node(t.b).hold_flush = false;
  t.world.start(t.b);
  ASSERT_TRUE(t.world.await([&] { return t.world.leader() >= 0 && t.world.leader() != t.a; }));
  EXPECT_EQ(t.world.leader(), t.c);  // B's log is shorter than what was acknowledged
  t.ends_well();
}

// A leader that removes itself leads until that is committed, does not count itself, and hands over (R9). Returned, it disturbs nobody.
TEST(Histories, ALeaderRemovesItselfAndReturns) {
  Three t;
  ASSERT_EQ(t.world.change(t.a, ChangeKind::remove, t.world.node(t.a).id), Verdict::ok);
  ASSERT_TRUE(t.world.await([&] { return t.world.leader() >= 0 && t.world.leader() != t.a; }));
  int next = t.world.leader();
  EXPECT_FALSE(t.world.replica(next).members().is_voter(t.world.node(t.a).id));
  LeaderEpoch term = t.world.replica(next).term();
  t.world.isolate(t.a);
  t.world.run(3s);
  t.world.crash(t.a);
  t.world.heal();
  t.world.start(t.a);
  t.world.campaign(t.a);
  t.world.run(3s);
  EXPECT_EQ(t.world.leader(), next);
  EXPECT_EQ(t.world.replica(next).term(), term);
  EXPECT_EQ(t.world.violation(), "");
}

// A bridge: A and C do not hear each other, B hears both (R4). Somebody leads, records are acknowledged, and terms do not run away.
TEST(Histories, ABridgePartition) {
  Three t;
  t.world.cut(t.a, t.c);
  t.world.cut(t.c, t.a);
  t.world.run(5s);
  ASSERT_GE(t.world.leader(), 0);
  LeaderEpoch term = t.world.replica(t.world.leader()).term();
  t.world.run(10s);
  ASSERT_GE(t.world.leader(), 0);
  auto sent = t.world.produce(t.world.leader());
  t.world.run(500ms);
  EXPECT_TRUE(t.world.acknowledged(sent));
  EXPECT_LE(t.world.replica(t.world.leader()).term(), term + 1);
  t.ends_well();
}

// One way only: nobody hears A, A hears everybody (R4). A steps down; another leads.
TEST(Histories, ALeaderThatNobodyHears) {
  Three t;
  t.world.cut(t.a, t.b);
  t.world.cut(t.a, t.c);
  ASSERT_TRUE(t.world.await([&] { return t.world.leader() >= 0 && t.world.leader() != t.a; }));
  EXPECT_NE(t.world.replica(t.a).role(), Role::leader);
  t.ends_well();
}

// A hand-over to one that is behind waits for it, takes nothing meanwhile, and is given up in time (R11).
TEST(Histories, TransferToALaggingTarget) {
  Three t;
  t.world.isolate(t.c);
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(t.world.produce(t.a, 3));
  t.world.run(200ms);
  ASSERT_EQ(t.world.transfer(t.a, t.c), Verdict::ok);
  EXPECT_EQ(t.world.replica(t.a).can_append(), Verdict::transferring);
  t.world.run(1s);
  EXPECT_EQ(t.world.replica(t.a).can_append(), Verdict::ok);
  EXPECT_EQ(t.world.leader(), t.a);
  t.world.heal();
  ASSERT_TRUE(t.world.await([&] { return t.world.replica(t.c).commit() == t.world.replica(t.a).commit(); }));
  ASSERT_EQ(t.world.transfer(t.a, t.c), Verdict::ok);
  ASSERT_TRUE(t.world.await([&] { return t.world.leader() == t.c; }));
  t.ends_well();
}

// A pause is a clock that jumps: A wakes up, thinks it still leads, and is told otherwise before it acknowledges anything (R3, R4).
TEST(Histories, APausedLeaderWakesUp) {
  Three t;
  t.world.pause(t.a, true);
  ASSERT_TRUE(t.world.await([&] { return t.world.leader() >= 0 && t.world.leader() != t.a; }));
  auto mine = t.world.produce(t.world.leader());
  t.world.run(300ms);
  EXPECT_TRUE(t.world.acknowledged(mine));
  auto late = t.world.produce_as(t.a, 7, 0);  // before it hears of anything
  t.world.pause(t.a, false);
  t.world.run(1s);
  EXPECT_FALSE(t.world.acknowledged(late));
  t.ends_well();
}

// A disk stalls. The leader's: the others' disks acknowledge (R2). Two of three: nothing is, until one of them is well again.
TEST(Histories, FlushesStall) {
  Three t;
  t.world.node(t.a).hold_flush = true;
  auto by_the_others = t.world.produce(t.a);
  t.world.run(300ms);
  EXPECT_TRUE(t.world.acknowledged(by_the_others));
  t.world.node(t.b).hold_flush = true;
  auto by_one = t.world.produce(t.a);
  t.world.run(300ms);
  EXPECT_FALSE(t.world.acknowledged(by_one));
  t.world.node(t.b).hold_flush = false;
  t.world.run(300ms);
  EXPECT_TRUE(t.world.acknowledged(by_one));
  t.ends_well();
}

// The power goes at every write of a term with its vote (R1): before it, between the writes, after them. Whatever is kept, C never votes for two in one term, and
// the group leads again.
TEST(Histories, PowerCutsAtEveryWriteOfAHardState) {
  for (std::size_t kept = 0; kept < 6; ++kept) {
    Three t;
    t.world.isolate(t.a);
    t.world.node(t.c).hold_flush = true;
    t.world.campaign(t.b);
    t.world.run(100ms);
    t.world.crash(t.c, std::min(kept, t.world.node(t.c).queue.size()));
    t.world.node(t.c).hold_flush = false;
    t.world.start(t.c);
    t.world.campaign(t.c);
    t.world.run(2s);
    t.ends_well();
    ASSERT_EQ(t.world.violation(), "") << kept;
  }
}

// A bit of one disk flips, in front of what it acknowledged; it has proof that entries are gone. Then it is the first whose patience ends, while
// the leader pauses: it neither leads nor lets somebody lead without the record, and the two whole ones are enough.
TEST(Histories, AFlippedBitOnAMinorityThatThenTriesToLead) {
  for (bool leader_stays_away : {false, true}) {
    Three t;
    auto first = t.world.produce(t.a);
    t.world.run(200ms);
    ASSERT_TRUE(t.world.acknowledged(first));
    LogPosition before = t.world.node(t.b).disk.entries.back().begin;
    auto second = t.world.produce(t.a);
    t.world.run(200ms);
    ASSERT_TRUE(t.world.acknowledged(second));
    t.world.crash(t.b);
    t.world.lose_tail(t.b, before, Suspicion::lost);
    t.world.pause(t.a, true);
    t.world.start(t.b);
    for (int i = 0; i < 40; ++i) {
      t.world.campaign(t.b);
      t.world.run(20ms);
      ASSERT_NE(t.world.replica(t.b).role(), Role::leader) << "with a record missing that was acknowledged";
    }
    if (!leader_stays_away) t.world.pause(t.a, false);
    bool led = t.world.await([&] { return t.world.leader() >= 0 && t.world.leader() != t.b; }, 30s);
    // While the only other one that may have acknowledged what is gone cannot be asked, nobody leads: better than without the record.
    EXPECT_EQ(led, !leader_stays_away);
    t.ends_well();
  }
}

// Appends that were under way when their entries were deleted everywhere come late, doubled and in the wrong order, to a member that has begun behind
// them: nothing of it changes.
TEST(Histories, LateAppendsBehindACompactedLog) {
  Cluster world{{.nodes = 3, .delay_max = 20ms}};
  int a = world.await_leader(), c = (a + 1) % 3;
  ASSERT_GE(a, 0);
  world.run(500ms);
  std::vector<Packet> late;
  for (int i = 0; i < 12; ++i) {
    (void)world.produce(a, 2);
    for (int step = 0; step < 8; ++step) {
      world.step();
      std::erase_if(world.packets(), [&](const Packet& packet) {
        bool held = packet.to == world.node(c).id && !packet.batches.empty();
        if (held) late.push_back(packet);
        return held;
      });
    }
  }
  ASSERT_GT(late.size(), 5u);
  LogPosition end = world.replica(a).commit();
  world.isolate(c);
  ASSERT_EQ(world.advance_log_start(a, end.offset), Verdict::ok);
  world.run(1s);
  world.heal();
  ASSERT_TRUE(world.await([&] { return world.replica(c).commit() >= end; }));
  LogPosition caught_up = world.replica(c).log().end();
  EXPECT_GE(world.replica(c).log().start(), late.back().batches.back().begin) << "it began behind them";
  for (int round = 0; round < 2; ++round) {
    for (std::size_t i = late.size(); i-- > 0;) {
      world.deliver(late[i]);
      if (i % 3 == 0) world.deliver(late[i]);
      world.step();
      ASSERT_GE(world.replica(c).log().end(), caught_up);
    }
  }
  world.run(1s);
  world.check_final(world.leader());
  EXPECT_EQ(world.violation(), "");
}

}  // namespace
}  // namespace tailrace::broker::raft::test
