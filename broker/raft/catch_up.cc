// Members that are further behind than the log reaches back (R8).
#include <algorithm>

#include "base/planted.h"
#include "raft/outbox.h"

namespace tailrace::broker::raft {

std::optional<Snapshot> Replica::snapshot_for(const ReplicaId& to, LogPosition position) {
  Progress* member = role_ == Role::leader ? progress_of(to) : nullptr;
  if (!member || member->state != ProgressState::snapshot) return std::nullopt;
  auto term = log_.term_at(position);
  if (!term || position > commit_) return std::nullopt;
  member->snapshot_at = position;
  std::optional<Snapshot> out{std::in_place};
  out->header = {self_, to, hard_.term};
  out->position = position;
  out->position_term = *term;
  out->members = log_.members_at(position);
  out->log_start = log_start_;
  return out;
}

void Replica::snapshot_failed(const ReplicaId& to) {
  Progress* member = role_ == Role::leader ? progress_of(to) : nullptr;
  if (!member || member->state != ProgressState::snapshot) return;
  member->probe(log_.end(), true);
  member->paused = true;  // asked again with the next heartbeat
}

void Replica::dispatch(const Snapshot& m, Instant now, Actions& out) {
  if (m.position < LogPosition{} || m.position.offset < Offset{0} || m.position_term > m.header.term || m.position_term < LeaderEpoch{0} ||
      m.members.empty() || m.log_start < Offset{0}) {
    return;
  }
  if (m.header.term < hard_.term) {
    auto& reply = send<AppendReply>(m.header.from, out);
    reply.incarnation = incarnation_;
    reply.answer = AppendAnswer::rejected;
    reply.hint = log_.last();
    return;
  }
  if (!follow(m.header, now, out) || installing_) return;
  bool stale = m.position <= commit_ && !planted(PlantedBug::raft_snapshot_over_newer);
  if (stale || (log_.matches(m.position, m.position_term) && !planted(PlantedBug::raft_snapshot_over_newer))) {
    // It is here already, entry by entry; what lies behind it stays.
    matched_ = std::max(matched_, m.position);
    log_start_ = std::max(log_start_, m.log_start);
    follow_commit(m.position, now, out);
    tell_log_start(out);
    reply_matched(m.header.from, reply_round_, out);
    return;
  }
  installing_ = true;
  log_ = LogView{m.position, m.position_term, planted(PlantedBug::raft_snapshot_old_members) ? Membership{members()} : m.members};
  log_start_ = std::max(log_start_, m.log_start);
  flushed_ = m.position;  // nothing is said of it before it is installed
  matched_ = m.position;
  commit_ = m.position;
  reply_due_ = false;
  out.add(InstallSnapshot{m});
}

void Replica::snapshot_installed(LogPosition position, Instant, Actions& out) {
  if (!installing_ || position != log_.start()) return;
  installing_ = false;
  out.add(CommitAdvanced{commit_});
  out.add(MembersChanged{members(), true});
  tell_log_start(out);
  if (leader_.valid() && role_ == Role::follower) reply_matched(leader_, reply_round_, out);
  review_suspicion(out);
}

}  // namespace tailrace::broker::raft
