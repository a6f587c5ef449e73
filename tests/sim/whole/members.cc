// What an operator and a controller do: nodes are started again, and exactly the directories that are there vote.
#include "tests/sim/whole/cluster.h"

namespace tailrace::broker::sim::whole {

void World::manage_nodes() {
  for (int i = 0; i < count(); ++i) {
    Node& n = node(i);
    if (!n.up()) {
      if (healed_ || faults_.chance(1, 60)) boot(i, n.take_image());
      continue;
    }
    if (n.start_error()) {
      Errc code = n.start_error()->code;
      bool of_the_moment = code == Errc::io_error || code == Errc::storage_full;
      if (!of_the_moment && i == rotten_) {
        ++out_.coverage.rot_found;
        repair();
        continue;
      }
      if (!of_the_moment) violate(fmt::format("node {} does not start: {} {}", i, describe(code).name, n.start_error()->detail));
      die(i, Death::kill);
      continue;
    }
    if (!n.serving()) continue;
    bool failed = false;
    for (std::uint32_t s = 0; s < n.service().core().node.cores.size(); ++s) failed = failed || n.service(s).core().log->failed();
    if (failed) {
      // An operator starts it again; the disk is well by then.
      ++out_.coverage.disk_failures;
      die(i, faults_.chance(1, 2) ? Death::kill : Death::power_cut);
      continue;
    }
    if (!joined_.contains(i) && !hosting_.contains(i)) {
      if (n.service().catalog()->find(kTopic)) joined_.insert(i);
      else host(i);
    }
  }
}

bool World::is_current(const raft::ReplicaId& id) {
  int i = id.node.value() - 1;
  return i >= 0 && i < count() && node(i).serving() && node(i).id() == id;
}

Node* World::leader_of(std::int32_t p) {
  Node* best = nullptr;
  LeaderEpoch term{-1};
  for (auto& node : nodes_) {
    if (node->paused) continue;
    service::ReplicatedPartition* replica = node->replica(partition(p));
    if (!replica || !replica->serving() || replica->replica().term() < term) continue;
    best = node.get();
    term = replica->replica().term();
  }
  return best;
}

std::optional<raft::MembershipChange> World::next_change(std::int32_t p) {
  Node* leader = leader_of(p);
  if (!leader) return std::nullopt;
  const raft::Membership& members = leader->replica(partition(p))->replica().members();
  for (int i = 0; i < count(); ++i) {
    if (!node(i).serving() || !joined_.contains(i)) continue;
    raft::ReplicaId id = node(i).id();
    const raft::Member* member = members.find(id);
    if (!member) return raft::MembershipChange{raft::ChangeKind::add_learner, id};
    if (!member->voter) return raft::MembershipChange{raft::ChangeKind::promote, id};
  }
  for (const raft::Member& member : members.members()) {
    bool replaced = node(member.id.node.value() - 1).serving() && !is_current(member.id);
    if (replaced) return raft::MembershipChange{raft::ChangeKind::remove, member.id};
  }
  return std::nullopt;
}

bool World::members_settled() {
  if (joined_.size() != nodes_.size()) return false;  // one that knows of no topic yet is no member either
  for (std::int32_t p = 0; p < plan_.partitions; ++p) {
    Node* leader = leader_of(p);
    if (!leader || next_change(p)) return false;
    const raft::Replica& replica = leader->replica(partition(p))->replica();
    if (replica.log().members_pending(replica.commit())) return false;  // it may be rolled back
    // Who waits for a log as long as another one's waits for ever when that disk goes (docs/replication.md, "a floor that came from a report").
    for (auto& node : nodes_) {
      service::ReplicatedPartition* other = node->replica(partition(p));
      if (!other || other->replica().hard_state().suspicion != raft::Suspicion::none) return false;
    }
  }
  return std::ranges::all_of(nodes_, [&](const auto& n) { return n->serving(); });
}

void World::manage_members() {
  if (!healed_ && !faults_.chance(1, 20)) return;
  for (std::int32_t p = 0; p < plan_.partitions; ++p) {
    auto change = next_change(p);
    if (!change) continue;
    Node* leader = leader_of(p);
    struct Ask {
      static Task<void> run(Node* node, TopicId topic, std::int32_t p, raft::MembershipChange change) {
        (void)co_await node->service().change_members(topic, PartitionIndex{p}, change);
      }
    };
    leader->spawn(Ask::run(leader, clients_.topic, p, *change));
  }
}

}  // namespace tailrace::broker::sim::whole
