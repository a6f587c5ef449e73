// Who leads: pre-vote, vote, check-quorum (R4, R5).
#include <algorithm>

#include "base/planted.h"
#include "raft/outbox.h"

namespace tailrace::broker::raft {

bool Replica::may_stand() const {
  if (halted_ || installing_ || !may_be_needed()) return false;
  if (hard_.suspicion == Suspicion::cut && planted(PlantedBug::raft_cut_leads_at_once)) return true;
  return hard_.suspicion == Suspicion::none;
}

/// A voter; or one whose removal is not committed: its log may be the only one long enough to commit that (thesis, 4.2.2). It
/// does not count its own vote.
bool Replica::may_be_needed() const {
  if (members().is_voter(self_)) return true;
  return log_.members_pending(commit_) && log_.members_at(log_.members_begin()).is_voter(self_);
}

/// A leader that was heard of within the shortest timeout is alive: nobody else could know better already.
bool Replica::leader_is_fresh(Instant now) const {
  if (role_ == Role::leader) return true;  // check-quorum sees to it that this is not kept up alone
  return leader_.valid() && now < leader_heard_ + options_.election_timeout_min;
}

bool Replica::may_grant(const VoteRequest& m) const {
  if (installing_) return false;  // what this log will be is not durable yet
  if (m.last < log_.last() && !planted(PlantedBug::raft_vote_for_shorter_log)) return false;
  return may_vote_for(m.last);
}

void Replica::campaign(Instant now, Actions& out) {
  if (role_ == Role::leader || halted_) return;
  if (hard_.suspicion != Suspicion::none) ask_reports(now, out);
  if (!may_stand()) return;
  reset_election_timer(now);
  stand(true, false, now, out);
}

/// Asks all other voters. The own vote counts at once: requests leave only when it is durable, so no other vote comes before
/// that; and a lone voter's entries follow it in the same WAL.
void Replica::stand(bool pre_vote, bool forced, Instant now, Actions& out) {
  if (hard_.term >= kTermMax) return halt(HaltReason::term_exhausted, log_.end(), out);
  leader_ = kNobody;
  forced_ = forced;
  granted_ = 0;
  if (pre_vote) {
    ballot_ = hard_.term + 1;
    set_role(Role::pre_candidate, out);
  } else {
    hard_.term = ballot_ = hard_.term + 1;
    hard_.vote = self_;
    matched_ = commit_;
    reply_due_ = false;
    reply_round_ = 0;
    save_hard_state(out);
    set_role(Role::candidate, out);
  }
  const Membership& members = log_.members();
  for (std::size_t i = 0; i < members.members().size(); ++i) {
    const Member& member = members.members()[i];
    if (!member.voter) continue;
    if (member.id == self_) {
      granted_ |= 1U << i;
      continue;
    }
    auto& request = send<VoteRequest>(member.id, out);
    request.ballot = ballot_;
    request.last = log_.last();
    request.pre_vote = pre_vote;
    request.forced = forced;
  }
  if (members.quorum() > 1 || granted_ == 0) return;
  if (pre_vote) return stand(false, forced, now, out);
  become_leader(now, out);
}

void Replica::dispatch(const VoteRequest& m, Instant now, Actions& out) {
  bool higher = m.ballot > hard_.term && m.ballot <= kTermMax;
  if (m.pre_vote) {
    bool grant = higher && !leader_is_fresh(now) && may_grant(m);
    auto& reply = send<VoteReply>(m.header.from, out);
    reply.ballot = m.ballot;
    reply.pre_vote = true;
    reply.granted = grant;
    if (!grant && planted(PlantedBug::raft_pre_vote_echoes_term)) reply.header.term = m.header.term;
    return;
  }
  if (m.ballot != m.header.term) return;  // nobody of ours sends this
  // A leader that works is not overthrown by somebody who came back from a partition, or was removed.
  if (higher && !m.forced && leader_is_fresh(now)) return;
  if (higher) become_follower(m.ballot, kNobody, now, out);
  bool vote_free = hard_.vote == kNobody || hard_.vote == m.header.from || planted(PlantedBug::raft_vote_twice);
  // A pre-candidate has only asked: its vote in this term is as free as a follower's.
  bool may_vote = role_ == Role::follower || role_ == Role::pre_candidate;
  bool grant = m.ballot == hard_.term && may_vote && !leader_.valid() && vote_free && may_grant(m);
  if (grant) {
    if (hard_.vote != m.header.from) {
      hard_.vote = m.header.from;
      save_hard_state(out);
    }
    reset_election_timer(now);
  }
  auto& reply = send<VoteReply>(m.header.from, out);
  reply.ballot = m.ballot;
  reply.granted = grant;
}

void Replica::dispatch(const VoteReply& m, Instant now, Actions& out) {
  if (m.header.term > hard_.term && !(m.pre_vote && m.granted)) return become_follower(m.header.term, kNobody, now, out);
  bool counting = m.pre_vote ? role_ == Role::pre_candidate : role_ == Role::candidate;
  if (planted(PlantedBug::raft_pre_vote_counts)) counting |= role_ == Role::candidate;
  if (!counting || m.ballot != ballot_ || !m.granted) return;
  auto all = log_.members().members();
  std::size_t votes = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    bool from = all[i].id == m.header.from || (planted(PlantedBug::raft_ignore_directory) && all[i].id.node == m.header.from.node);
    if (from && all[i].voter) granted_ |= 1U << i;
    votes += (granted_ >> i) & 1U;
  }
  if (votes < log_.members().quorum()) return;
  reset_election_timer(now);
  if (m.pre_vote && role_ == Role::pre_candidate) return stand(false, forced_, now, out);
  become_leader(now, out);
}

void Replica::dispatch(const TimeoutNow& m, Instant now, Actions& out) {
  // Only the leader of our term sends it; one that we did not hear from yet, after a restart, is one too.
  bool other = leader_.valid() && leader_ != m.header.from;
  if (m.header.term != hard_.term || role_ != Role::follower || other || !may_stand()) return;
  reset_election_timer(now);
  stand(false, true, now, out);
  if (planted(PlantedBug::raft_transfer_crowns) && role_ == Role::candidate) become_leader(now, out);
}

void Replica::become_leader(Instant now, Actions& out) {
  leader_ = self_;
  rebuild_progress();
  round_ = confirmed_round_ = awaited_round_ = 0;
  transfer_to_ = kNobody;
  quorum_check_at_ = now + options_.election_timeout_max;
  set_role(Role::leader, out);
  if (append_mark(MarkKind::term_start, log_start_, Membership{}, out) != Verdict::ok) return step_down(now, out);
  term_start_end_ = log_.end();
  replicate(now, out);
}

/// A leader that cannot reach a quorum leads nobody; it must not go on answering as if it did.
void Replica::check_quorum(Instant now, Actions& out) {
  quorum_check_at_ = now + options_.election_timeout_max;
  std::size_t active = members().is_voter(self_) ? 1 : 0;
  for (Progress& member : progress_) {
    if (member.heard_since_check && members().is_voter(member.id)) ++active;
    member.heard_since_check = false;
  }
  if (active < members().quorum() && !planted(PlantedBug::raft_lead_without_quorum)) step_down(now, out);
}

}  // namespace tailrace::broker::raft
