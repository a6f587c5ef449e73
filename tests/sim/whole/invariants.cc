// What holds in every step.
#include "tests/sim/whole/cluster.h"

namespace tailrace::broker::sim::whole {

void World::look() {
  for (auto& node : nodes_) {
    if (node->up() && !node->machine().disk.violations().empty()) violate(fmt::format("node {}: {}", node->index(), node->machine().disk.violations().front()));
    for (std::int32_t p = 0; p < plan_.partitions && fine(); ++p) {
      service::ReplicatedPartition* replicated = node->replica(partition(p));
      if (replicated) look_at(*node, p, *replicated);
    }
  }
  for (std::int32_t p = 0; p < plan_.partitions && fine(); ++p) {
    for (auto& node : nodes_) {
      if (service::ReplicatedPartition* replicated = node->replica(partition(p))) look_at_quorum(*node, p, replicated->replica());
    }
  }
}

void World::note_durable(Node& node, const PartitionId& of) {
  service::ReplicatedPartition* replicated = node.replica(of);
  if (!replicated || of.topic != clients_.topic) return;
  raft::ReplicaId id = node.id();
  LogPosition& known = durable_[{of.index.value(), id.node.value(), id.directory}];
  // What rot took from a disk had been there when it counted.
  known = node.index() == rotten_ ? std::max(known, replicated->replica().flushed()) : replicated->replica().flushed();
}

void World::look_at_quorum(const Node& node, std::int32_t p, const raft::Replica& leading) {
  if (rotten_ >= 0) return;  // what its disk had is not known
  if (!leading.serving() || leading.log().members_pending(leading.commit())) return;
  std::size_t voters = 0, have = 0;
  for (const raft::Member& member : leading.members().members()) {
    if (!member.voter) continue;
    ++voters;
    auto known = durable_.find({p, member.id.node.value(), member.id.directory});
    if (known != durable_.end() && known->second >= leading.commit()) ++have;
  }
  if (2 * have <= voters) {
    violate(fmt::format("node {} leads term {} and {} of partition {} is committed, but on the disks of {} of {} voters", node.index(), leading.term().value(),
                        text(leading.commit()), p, have, voters));
  }
  ++out_.coverage.quorums;
}

void World::look_at(Node& node, std::int32_t p, const service::ReplicatedPartition& replicated) {
  const raft::Replica& replica = replicated.replica();
  replica.check_invariants();
  if (replica.halted()) violate(fmt::format("node {}: the replica of partition {} has halted", node.index(), p));
  note_durable(node, partition(p));
  Seen& seen = seen_[{node.index(), node.life(), p}];
  const log::Partition& log = *replicated.log();
  if (log.high_watermark() < seen.high_watermark) violate(fmt::format("node {}: the high watermark of partition {} goes back", node.index(), p));
  if (log.log_start() < seen.log_start) violate(fmt::format("node {}: the log start of partition {} goes back", node.index(), p));
  seen = {log.high_watermark(), log.log_start()};
  // A leader that finds its log damaged takes nothing any more: another has to.
  auto fine = log.writable(0);
  if (replica.role() == raft::Role::leader && !replicated.failed() && !replicated.alone() && !fine && fine.error().code == Errc::corrupt) {
    auto [since, begun] = leads_damaged_.emplace(std::tuple{node.index(), node.life(), p}, now_);
    if (!begun && now_ > since->second + 300ms) violate(fmt::format("node {} leads partition {} with a log that takes nothing", node.index(), p));
  }
  // A lone voter leads before its vote is durable, and may do so in the same term again after a crash: nobody heard of it.
  if (replica.role() != raft::Role::leader || replicated.alone()) return;
  std::pair who{node.index(), node.life()};
  auto [known, fresh] = leaders_.emplace(std::pair{p, replica.term()}, who);
  if (fresh) ++out_.coverage.elections;
  if (!fresh && known->second != who) violate(fmt::format("two leaders of partition {} in term {}: node {} in life {} and node {} in life {}", p, replica.term().value(), known->second.first, known->second.second, who.first, who.second));
}

void World::count_lost_life(Node& node) {
  if (!node.serving()) return;
  for (std::uint32_t s = 0; s < node.service().core().node.cores.size(); ++s) {
    const service::ReplicationCounters& counters = node.service(s).core().replication->counters;
    out_.coverage.truncations += counters.truncations;
    out_.coverage.snapshots += counters.snapshots_installed;
  }
}

}  // namespace tailrace::broker::sim::whole
