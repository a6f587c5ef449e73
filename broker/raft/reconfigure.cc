// What an operator or a controller asks of a leader: other members (R9), a later log start (R8), a hand-over (R11).
#include <algorithm>

#include "base/planted.h"
#include "raft/outbox.h"

namespace tailrace::broker::raft {

Verdict Replica::change_members(const MembershipChange& change, Instant now, Actions& out) {
  if (Verdict verdict = can_append(); verdict != Verdict::ok) return verdict;
  // Without an entry of its own term committed, a leader may not know of its predecessor's change, and the two would make
  // majorities that do not meet.
  if (!serving() && !planted(PlantedBug::raft_change_before_term_start)) return Verdict::term_not_committed;
  if (log_.members_pending(commit_) && !planted(PlantedBug::raft_two_changes)) return Verdict::change_in_progress;
  auto changed = members().with(change);
  if (!changed) return Verdict::no_such_change;
  if (change.kind == ChangeKind::promote) {
    const Progress* member = progress_of(change.id);
    if (!member || member->state != ProgressState::replicate || member->match < member->caught_up_mark ||
        member->caught_up_mark < term_start_end_) {
      return Verdict::not_caught_up;
    }
  }
  if (Verdict verdict = append_mark(MarkKind::members, log_start_, *changed, out); verdict != Verdict::ok) return verdict;
  out.add(MembersChanged{*changed, false});
  rebuild_progress();
  replicate(now, out);
  count_commit(now, out);
  return Verdict::ok;
}

/// A leader that is no member any more has done its last duty by committing that.
void Replica::members_committed(Instant now, Actions& out) {
  if (members().is_voter(self_) || log_.members_pending(commit_)) return;
  if (planted(PlantedBug::raft_removed_leader_counts)) return;
  const Progress* best = nullptr;
  for (const Progress& member : progress_) {
    if (members().is_voter(member.id) && (!best || member.match > best->match)) best = &member;
  }
  if (best && best->match == log_.end()) send<TimeoutNow>(best->id, out);
  become_follower(hard_.term, kNobody, now, out);
}

Verdict Replica::advance_log_start(Offset start, Instant now, Actions& out) {
  if (Verdict verdict = can_append(); verdict != Verdict::ok) return verdict;
  if (!serving()) return Verdict::term_not_committed;
  if (start > commit_.offset) return Verdict::out_of_range;
  if (start <= log_start_) return Verdict::ok;  // it never goes back
  if (Verdict verdict = append_mark(MarkKind::log_start, start, Membership{}, out); verdict != Verdict::ok) return verdict;
  if (planted(PlantedBug::raft_log_start_uncommitted)) {
    log_start_ = start;
    tell_log_start(out);
  }
  replicate(now, out);
  return Verdict::ok;
}

Verdict Replica::transfer(const ReplicaId& to, Instant now, Actions& out) {
  if (role_ != Role::leader) return Verdict::not_leader;
  if (to == self_) return Verdict::ok;
  if (!members().is_voter(to) || !progress_of(to)) return Verdict::no_such_change;
  if (transfer_to_.valid()) return transfer_to_ == to ? Verdict::ok : Verdict::transferring;
  transfer_to_ = to;
  transfer_sent_ = false;
  transfer_until_ = now + options_.election_timeout_min;
  continue_transfer(out);
  return Verdict::ok;
}

/// The target stands only with all that the leader has: no append is taken meanwhile, so it gets there or time runs out.
void Replica::continue_transfer(Actions& out) {
  if (!transfer_to_.valid() || transfer_sent_) return;
  const Progress* target = progress_of(transfer_to_);
  if (!target || !members().is_voter(transfer_to_)) return end_transfer(true, out);
  if (target->match != log_.end()) return;
  transfer_sent_ = true;
  send<TimeoutNow>(transfer_to_, out);
}

void Replica::end_transfer(bool failed, Actions& out) {
  if (failed) out.add(TransferFailed{transfer_to_});
  transfer_to_ = kNobody;
  transfer_sent_ = false;
}

}  // namespace tailrace::broker::raft
