// Entries: from a leader to a quorum's disks, and what is made of them afterwards.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/raft/cluster.h"

namespace tailrace::broker::raft::test {
namespace {

using namespace std::chrono_literals;

#define EXPECT_SOUND(world) EXPECT_EQ((world).violation(), "")

// One broker is a group of one: nothing to wait for but its own disk.
TEST(Replication, ALoneVoterLeadsAtOnceAndCommitsWithItsOwnDisk) {
  Cluster world{{.nodes = 1}};
  world.node(0).hold_flush = true;
  world.campaign(0);
  EXPECT_EQ(world.replica(0).role(), Role::leader);
  EXPECT_FALSE(world.replica(0).serving());  // its term start is not durable
  auto sent = world.produce(0);
  world.run(100ms);
  EXPECT_FALSE(world.acknowledged(sent));
  world.node(0).hold_flush = false;
  world.run(20ms);
  EXPECT_TRUE(world.acknowledged(sent));
  EXPECT_TRUE(world.replica(0).serving());
  EXPECT_SOUND(world);
}

// A majority is enough: a silent follower must not stall producers.
TEST(Replication, CommitsWithoutTheSilentFollower) {
  Cluster world{{.nodes = 3}};
  int leader = world.await_leader();
  ASSERT_GE(leader, 0);
  int silent = (leader + 1) % 3;
  world.isolate(silent);
  auto sent = world.produce(leader);
  world.run(100ms);
  EXPECT_TRUE(world.acknowledged(sent));
  world.heal();
  world.run(1s);
  EXPECT_EQ(world.replica(silent).commit(), world.replica(leader).commit());
  EXPECT_SOUND(world);
}

// R2: the leader's own disk is one of three, no more and no less.
TEST(Replication, ALeaderAheadOfItsOwnDiskCommitsWithTheOthers) {
  Cluster world{{.nodes = 3}};
  int leader = world.await_leader();
  world.node(leader).hold_flush = true;
  auto sent = world.produce(leader);
  world.run(200ms);
  EXPECT_TRUE(world.acknowledged(sent));
  EXPECT_LT(world.replica(leader).flushed(), sent->end);
  world.crash(leader);  // and loses what it had not flushed
  int next = world.await_leader();
  ASSERT_GE(next, 0);
  world.start(leader);
  world.run(2s);
  world.check_final(world.leader());
  EXPECT_SOUND(world);
}

// A leader that removes itself, and dies before that is committed, has the longest log; the others cut a tail and vote for nothing
// shorter. Unless it stands although its own log says that it is no member, nobody ever leads again (found by seed 9003).
TEST(Replication, AVoterWhoseRemovalIsNotCommittedStandsToCommitIt) {
  Cluster world{{.nodes = 3}};
  int leader = world.await_leader();
  ASSERT_GE(leader, 0);
  world.run(200ms);
  world.isolate(leader);
  ASSERT_EQ(world.change(leader, ChangeKind::remove, world.node(leader).id), Verdict::ok);
  world.run(20ms);
  for (int i = 0; i < 3; ++i) world.crash(i);
  for (int i = 0; i < 3; ++i) {
    if (i != leader) world.lose_tail(i, world.node(i).disk.end(), Suspicion::cut);
  }
  world.heal();
  for (int i = 0; i < 3; ++i) world.start(i);
  ASSERT_TRUE(world.await([&] { return world.leader() >= 0 && world.leader() != leader; }));
  auto sent = world.produce(world.leader());
  world.run(1s);
  EXPECT_TRUE(world.acknowledged(sent));
  EXPECT_FALSE(world.replica(world.leader()).members().find(world.node(leader).id));
  EXPECT_SOUND(world);
}

// The same, and its own tail is torn too: although its log says that it is no voter any more, it asks what the others have, or it
// is suspicious for ever and nobody can lead (found by seed 496).
TEST(Replication, AVoterWhoseDemotionIsNotCommittedAsksForReports) {
  Cluster world{{.nodes = 3}};
  int leader = world.await_leader();
  ASSERT_GE(leader, 0);
  world.run(200ms);
  world.isolate(leader);
  ASSERT_EQ(world.change(leader, ChangeKind::demote, world.node(leader).id), Verdict::ok);
  world.run(20ms);
  for (int i = 0; i < 3; ++i) world.crash(i);
  for (int i = 0; i < 3; ++i) world.lose_tail(i, world.node(i).disk.end(), Suspicion::cut);
  world.heal();
  for (int i = 0; i < 3; ++i) world.start(i);
  ASSERT_TRUE(world.await([&] { return world.leader() >= 0; }, 30s));
  auto sent = world.produce(world.leader());
  world.run(1s);
  EXPECT_TRUE(world.acknowledged(sent));
  EXPECT_SOUND(world);
}

struct SlowReads : testing::Test {
  Cluster world{{.nodes = 3, .slow_read_percent = 100}};
  int leader = world.await_leader();
  const Progress& to(const ReplicaId& id) { return *std::ranges::find(world.replica(leader).progress(), id, &Progress::id); }
  /// A batch that waits to be read for the first of the others.
  ReadEntries asked() {
    world.run(200ms);
    (void)world.produce(leader, 4);
    EXPECT_TRUE(world.await([&] { return !world.node(leader).reads.empty(); }));
    return world.node(leader).reads.front();
  }
  AppendReply matched(const ReplicaId& from, LogPosition at) {
    return {.header = {from, world.node(leader).id, world.replica(leader).term()}, .incarnation = to(from).incarnation, .answer = AppendAnswer::matched, .match = at, .received = at};
  }
};

// An answer to something sent twice moves a member past what is being read for it; what was read is not sent then, and is no
// reason to look for the place where the logs agree.
TEST_F(SlowReads, WhatWasReadForAnEarlierPlaceIsNotUsed) {
  ASSERT_GE(leader, 0);
  ReadEntries read = asked();
  Actions out;
  LogPosition end = world.replica(leader).log().end();
  world.replica(leader).receive(matched(read.to, end), world.now(), out);
  ASSERT_EQ(to(read.to).next, end);
  auto sent = world.replica(leader).entries_read({.to = read.to, .ticket = read.ticket, .status = ReadStatus::ok, .begin = read.from, .end = read.until, .bytes = 100}, world.now(), out);
  EXPECT_FALSE(sent);
  EXPECT_EQ(to(read.to).state, ProgressState::replicate);
  EXPECT_EQ(to(read.to).next, end);
}

// A member whose log ends inside a batch of ours, and says that all in front of it is equal, cannot be helped; it is not asked again for
// each answer that it gives.
TEST_F(SlowReads, AMemberThatEndsInsideABatchIsAskedOncePerHeartbeat) {
  ASSERT_GE(leader, 0);
  ReadEntries read = asked();
  LogPosition inside{read.from + 2, 0};
  int asked_again = 0;
  for (int i = 0; i < 20; ++i) {
    Actions out;
    world.replica(leader).receive(matched(read.to, inside), world.now(), out);
    for (const Action& action : out) {
      const auto* next = std::get_if<ReadEntries>(&action);
      if (!next || next->to != read.to) continue;
      ++asked_again;
      Actions then;
      EXPECT_FALSE(world.replica(leader).entries_read({.to = next->to, .ticket = next->ticket, .status = ReadStatus::ok, .begin = read.from, .end = read.until, .bytes = 100}, world.now(), then));
      EXPECT_TRUE(then.empty());
    }
  }
  EXPECT_EQ(asked_again, 1);
}

}  // namespace
}  // namespace tailrace::broker::raft::test
