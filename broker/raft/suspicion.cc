// Replicas that may have lost a tail, or have (R5): how far their vote may be trusted, and when they are whole again.
#include <algorithm>

#include "base/planted.h"
#include "raft/outbox.h"

namespace tailrace::broker::raft {

bool Replica::may_vote_for(const LogEnd& last) const {
  switch (hard_.suspicion) {
    case Suspicion::none:
      return true;
    case Suspicion::cut:
      return last >= hard_.floor || planted(PlantedBug::raft_cut_forgets_floor);
    case Suspicion::lost:
      return (reports_done_ && last >= hard_.floor) || planted(PlantedBug::raft_lost_votes);
  }
  return false;
}

/// The leader of this term has answered this life's question.
bool Replica::leader_reported() const { return leader_report_.from.valid() && leader_report_.from == leader_ && leader_report_.term == hard_.term; }

bool Replica::wants_reports() const {
  return hard_.suspicion != Suspicion::none && (!reports_done_ || (leader_.valid() && !leader_reported()));
}

/// Asks again until all voters have reported, or (cut only) the wait is over; and the leader, whenever there is another.
void Replica::ask_reports(Instant now, Actions& out) {
  if (!wants_reports() || !may_be_needed()) return;
  std::size_t missing = 0;
  auto all = members().members();
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (all[i].voter && all[i].id != self_ && ((reported_ >> i) & 1U) == 0) ++missing;
  }
  if (!reports_done_ && (missing == 0 || (hard_.suspicion == Suspicion::cut && now >= report_until_))) end_reports(out);
  if (!wants_reports() || now < report_at_) return;
  report_at_ = now + options_.election_timeout_min;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (!all[i].voter || all[i].id == self_) continue;
    bool known = reports_done_ || ((reported_ >> i) & 1U) != 0;
    bool leads = all[i].id == leader_ && !leader_reported();
    if (!known || leads) send<ReportRequest>(all[i].id, out).incarnation = incarnation_;
  }
}

/// What a majority has cannot be longer than the longest log of all; what nobody else has, and we have not, is gone or was
/// never acknowledged. So from here on the longest report is the floor, and what was readable in cut frames no longer is: with
/// every tail torn by one power cut, and a disk that stays away, the others would wait for ever.
void Replica::end_reports(Actions& out) {
  reports_done_ = true;
  hard_.floor = planted(PlantedBug::raft_floor_ignores_reports) ? log_.last() : std::max(longest_reported_, log_.last());
  save_hard_state(out);
  review_suspicion(out);
}

/// Of what stays: durable here, or committed and so on a majority's disks. The asker waits for a log as long as this; what is neither,
/// a crash may take, and nobody would be left to have it. What the asker itself acknowledged counts no more from here on, so
/// nothing of the rest is committed on the strength of what it lost. While a snapshot is being installed nobody can say; it asks again.
void Replica::dispatch(const ReportRequest& m, Instant, Actions& out) {
  if (installing_) return;
  if (Progress* asker = progress_of(m.header.from)) note_life(*asker, m.incarnation);
  LogPosition stays = std::max(flushed_, commit_);
  auto& reply = send<ReportReply>(m.header.from, out);
  reply.incarnation = m.incarnation;
  reply.last = {*log_.term_at(stays), stays};
}

void Replica::dispatch(const ReportReply& m, Instant now, Actions& out) {
  if (hard_.suspicion == Suspicion::none || m.incarnation != incarnation_) return;
  if (m.header.from == leader_ && m.header.term == hard_.term) {
    leader_report_ = {m.header.from, m.header.term, m.last};
    review_suspicion(out);
  }
  if (reports_done_ || hard_.suspicion == Suspicion::none) return;
  auto all = members().members();
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (all[i].id == m.header.from) reported_ |= 1U << i;
  }
  longest_reported_ = std::max(longest_reported_, m.last);
  ask_reports(now, out);
}

/// Whole again: as long, durably, as the longest report; or caught up with a leader that a majority elected without us. Its commit in its
/// own term has all that was acknowledged in earlier ones; its report to this life has what it committed since, perhaps with what we
/// acknowledged and lost; and from the question on it counts nothing of that.
void Replica::review_suspicion(Actions& out) {
  if (hard_.suspicion == Suspicion::none) return;
  LogEnd durable{log_.term_at(flushed_).value_or(LeaderEpoch{0}), flushed_};
  bool as_long = reports_done_ && durable >= hard_.floor;
  bool led_by_others = role_ == Role::follower && leader_.valid() && hard_.vote == kNobody && log_.term_at(commit_) == hard_.term;
  bool early = planted(PlantedBug::raft_suspicion_ends_early) && leader_.valid();
  bool caught_up = led_by_others && flushed_ >= commit_ && leader_reported() && durable >= leader_report_.last;
  if (!as_long && !caught_up && !early) return;
  hard_.suspicion = Suspicion::none;
  hard_.floor = {};
  save_hard_state(out);
}

}  // namespace tailrace::broker::raft
