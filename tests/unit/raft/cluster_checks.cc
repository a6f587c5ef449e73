// What must hold in every step of a cluster, and in the end.
#include <algorithm>
#include <utility>

#include "tests/unit/raft/cluster.h"
#include "tests/unit/raft/cluster_text.h"

namespace tailrace::broker::raft::test {

void Cluster::note_append(const Entry& entry) {
  auto [known, fresh] = chains_.emplace(std::pair{entry.term, entry.end}, entry.chain);
  if (!fresh && known->second != entry.chain) suspect(fmt::format("two logs differ before {} of term {}", text(entry.end), entry.term.value()));
}

/// What one replica says is committed is so for ever and for all, and a majority has it on its disk.
void Cluster::note_commit(int i) {
  Node& n = node(i);
  LogPosition to = n.replica->commit();
  auto mine = n.seen.chain_at(to);
  if (!mine) return violate(fmt::format("node {}: the commit {} is no entry's end", i, text(to)));
  for (const Entry& entry : n.seen.entries) {
    if (entry.end > to) break;
    auto [known, fresh] = committed_.emplace(entry.end, entry.chain);
    if (fresh) committed_in_[n.replica->term()] = entry.end;
    if (!fresh && known->second != entry.chain) return violate(fmt::format("node {}: committed entries differ at {}", i, text(entry.end)));
  }
  if (auto known = committed_.find(to); known != committed_.end() && known->second != *mine) violate(fmt::format("node {}: committed logs differ at {}", i, text(to)));
  if (n.replica->role() != Role::leader) return;
  std::size_t durable = 0;
  const Membership& members = n.replica->members();
  for (const Member& member : members.members()) {
    if (!member.voter) continue;
    for (const Node& other : nodes_) {
      if (other.id != member.id) continue;
      if (other.disk.start >= to || other.disk.chain_at(to) == mine || other.disk.hard.suspicion != Suspicion::none) ++durable;
    }
  }
  // A member whose directory is gone had it once; it is counted as having it.
  for (const Member& member : members.members()) {
    if (member.voter && std::ranges::none_of(nodes_, [&](const Node& o) { return o.id == member.id; })) ++durable;
  }
  if (durable < members.quorum()) suspect(fmt::format("node {}: {} is committed and {} of {} voters have it on disk", i, text(to), durable, members.voter_count()));
}

void Cluster::look_after(int i) {
  Node& n = node(i);
  if (!n.up) return;
  note(static_cast<std::uint64_t>(n.seen.end().offset.value()) * 256 + n.seen.end().sub);
  if (options_.checks == Checks::all) n.replica->check_invariants();
  if (n.replica->log().end() != n.seen.end()) suspect(fmt::format("node {}: the replica's log ends at {}, its owner's at {}", i, text(n.replica->log().end()), text(n.seen.end())));
  // The membership in force is that of the log, committed or not.
  const Membership* mine = &n.seen.start_members;
  for (auto e = n.seen.entries.rbegin(); e != n.seen.entries.rend(); ++e) {
    if (!e->is_mark || e->mark.kind != MarkKind::members) continue;
    mine = &e->members;
    break;
  }
  if (n.replica->members() != *mine) suspect(fmt::format("node {}: members{} are in force, its log says{}", i, text(n.replica->members()), text(*mine)));
}

/// Before a message leaves, what it depends on is on the disk (R1).
void Cluster::check_send(int i, const Message& message) {
  const HardState& disk = node(i).disk.hard;
  const Header& header = std::visit([](const auto& m) -> const Header& { return m.header; }, message);
  if (header.term > disk.term) suspect(fmt::format("node {} speaks in term {} and its disk knows {}", i, header.term.value(), disk.term.value()));
  auto* vote = std::get_if<VoteReply>(&message);
  if (vote && vote->granted && !vote->pre_vote && disk.term == header.term && disk.vote != header.to) {
    suspect(fmt::format("node {} votes in term {} and its disk does not know for whom", i, header.term.value()));
  }
}

// Reads and snapshots.

void Cluster::check_final(int leader) {
  if (leader < 0) return violate("nobody serves");
  const Image& log = node(leader).seen;
  std::map<std::pair<int, int>, LogPosition> found;
  for (const Entry& entry : log.entries) {
    if (entry.producer < 0 || entry.end > replica(leader).commit()) continue;
    auto [known, fresh] = found.emplace(std::pair{entry.producer, entry.sequence}, entry.end);
    if (!fresh) violate(fmt::format("batch {} of producer {} is stored twice, at {} and {}", entry.sequence, entry.producer, text(known->second), text(entry.end)));
  }
  for (const auto& [batch, end] : acknowledged_) {
    auto at = found.find(batch);
    if (at == found.end() && end <= log.start) continue;  // deleted; but a second copy would not be
    if (at == found.end()) violate(fmt::format("batch {} of producer {}, acknowledged at {}, is gone", batch.second, batch.first, text(end)));
    else if (at->second != end) violate(fmt::format("batch {} of producer {} moved", batch.second, batch.first));
  }
  for (int i = 0; i < size(); ++i) {
    if (node(i).up && replica(i).hard_state().suspicion != Suspicion::none && replica(i).members().is_voter(node(i).id) &&
        replica(leader).members().is_voter(node(i).id)) {
      violate(fmt::format("node {} is suspicious for ever", i));
    }
  }
}

}  // namespace tailrace::broker::raft::test
