// R5: what a replica that cut a tail hears from the others binds its votes, so it has to be true for good.
#include <gtest/gtest.h>

#include "tests/unit/raft/cluster.h"

namespace tailrace::broker::raft::test {
namespace {

using namespace std::chrono_literals;

// Two voters. One cut a tail and asks the other, which has entries that are on no disk yet, and then loses them in a crash. Were they
// reported, the first would wait for ever for a log that nobody has.
TEST(Suspicion, AReportIsOfWhatIsDurable) {
  Cluster world{{.nodes = 2}};
  int leader = world.await_leader();
  ASSERT_GE(leader, 0);
  int asks = 1 - leader;
  auto sent = world.produce(leader);
  world.run(500ms);
  ASSERT_TRUE(world.acknowledged(sent));
  world.crash(asks);
  world.lose_tail(asks, world.node(asks).disk.end(), Suspicion::cut);
  world.node(leader).hold_flush = true;
  ASSERT_TRUE(world.produce(leader));
  world.start(asks);
  // Only the report gets through.
  auto lost = [&](const Packet& packet) {
    const Message* message = std::get_if<Message>(&packet.body);
    return packet.to == world.node(asks).id && !(message && std::holds_alternative<ReportReply>(*message));
  };
  int reports = 0;
  for (int i = 0; i < 20; ++i) {
    std::erase_if(world.packets(), lost);
    for (const Packet& packet : world.packets()) reports += packet.to == world.node(asks).id ? 1 : 0;
    world.step();
  }
  ASSERT_GT(reports, 0);
  world.crash(leader);
  world.start(leader);
  world.node(leader).hold_flush = false;
  ASSERT_GE(world.await_leader(), 0) << world.violation();
  world.run(1s);
  auto again = world.produce(world.leader());
  world.run(500ms);
  EXPECT_TRUE(world.acknowledged(again));
  world.check_final(world.leader());
  EXPECT_EQ(world.violation(), "");
}

// Acknowledged by A and B of three; B loses it, with proof, and A is away. What A had told B of the commit before that arrives late, and
// says nothing of what was acknowledged since: B is not whole, or it would elect C without the record.
TEST(Suspicion, WhatALeaderSaidBeforeTheLossDoesNotEndIt) {
  Cluster world{{.nodes = 3}};
  int b = 2;
  world.isolate(b);
  int a = world.await_leader();
  ASSERT_GE(a, 0);
  int c = 1 - a;
  world.heal();  // B follows a leader for which it did not vote
  auto before = world.produce(a);
  world.run(500ms);
  ASSERT_TRUE(world.acknowledged(before));
  ASSERT_EQ(world.node(b).disk.hard.vote, kNobody);
  LogPosition early = world.node(b).disk.end();
  Append late;
  late.header = {world.node(a).id, world.node(b).id, world.replica(a).term()};
  late.previous = late.end = late.commit = early;
  late.previous_term = late.entry_term = world.replica(a).term();
  world.isolate(c);
  auto sent = world.produce(a);
  world.run(100ms);
  ASSERT_TRUE(world.acknowledged(sent));
  world.crash(b);
  world.lose_tail(b, early, Suspicion::lost);
  world.heal();
  world.isolate(a);
  world.start(b);
  world.cut(a, b, false);
  world.inject(b, late);
  world.cut(a, b);
  world.run(5s);
  EXPECT_LT(world.leader() == a ? -1 : world.leader(), 0);
  world.heal();
  ASSERT_GE(world.await_leader(), 0) << world.violation();
  world.run(1s);
  world.check_final(world.leader());
  EXPECT_EQ(world.violation(), "");
}

}  // namespace
}  // namespace tailrace::broker::raft::test
