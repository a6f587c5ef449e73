// One group's part of the coalesced heartbeats (R10).
#include <algorithm>

#include "base/planted.h"
#include "raft/outbox.h"

namespace tailrace::broker::raft {

/// Also what makes a leader ask again: answers to probes, and reads that failed, are waited for no longer than an interval.
std::optional<HeartbeatFact> Replica::heartbeat(std::uint64_t group, Instant, Actions& out) {
  if (halted_ || role_ != Role::leader || hard_state_pending()) return std::nullopt;
  ++round_;
  for (Progress& member : progress_) {
    member.caught_up_mark = commit_;
    if (!member.paused) continue;
    member.paused = false;
    advance(member, out);
  }
  if (awaited_round_ != 0) confirm_rounds(out);
  return HeartbeatFact{group, hard_.term, commit_, round_};
}

std::optional<HeartbeatReply> Replica::receive(const ReplicaId& from, const HeartbeatFact& fact, Instant now, Actions& out) {
  if (halted_ || !from.valid() || from == self_ || fact.term < LeaderEpoch{0} || fact.term > kTermMax) return std::nullopt;
  if (fact.term >= hard_.term) {
    if (!follow({from, self_, fact.term}, now, out)) return std::nullopt;
    if (!installing_) follow_commit(fact.commit, now, out);
  }
  if (hard_state_pending() || installing_) return std::nullopt;
  LogPosition durable = planted(PlantedBug::raft_report_whole_log) ? flushed_ : std::min(flushed_, matched_);
  return HeartbeatReply{fact.group, hard_.term, durable, matched_, fact.round};
}

void Replica::receive(const ReplicaId& from, std::uint64_t incarnation, const HeartbeatReply& reply, Instant now, Actions& out) {
  if (halted_ || reply.term < LeaderEpoch{0} || reply.term > kTermMax) return;
  if (reply.term > hard_.term) return become_follower(reply.term, kNobody, now, out);
  Progress* member = role_ == Role::leader && reply.term == hard_.term ? progress_of(from) : nullptr;
  if (!member || reply.match > log_.end() || reply.received > log_.end() || !heard(*member, incarnation, reply.round, out)) return;
  bool more = reply.match > member->match || reply.received > member->received;
  bool agreed = member->state != ProgressState::probe || reply.received >= member->next;
  if (more && agreed) matched(*member, reply.match, reply.received, now, out);
  if (role_ != Role::leader || !(member = progress_of(from))) return;
  // Sent long ago and still not there: it was lost, and nothing that followed would tell.
  bool behind = member->state == ProgressState::replicate && reply.received < member->next;
  bool lost = behind && member->behind_at_heartbeat && !more && !planted(PlantedBug::raft_lost_run_not_sent_again);
  if (lost) member->probe(std::max(member->received, log_.start()), true);
  member->behind_at_heartbeat = behind;
  advance(*member, out);
  continue_transfer(out);
}

}  // namespace tailrace::broker::raft
