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
  if (!wants_reports()) return;
  std::vector<ReplicaId> missing;
  if (!reports_done_) {
    missing = asked_voters();
    std::erase_if(missing, [&](const ReplicaId& id) { return std::ranges::find(reports_->reports, id, &Reports::Report::from) != reports_->reports.end(); });
    // A log without any membership knows nobody to ask: until a leader's report names them, not even its own silence says something.
    bool all_in = missing.empty() && !(members().empty() && reports_->memberships.empty());
    if (all_in || (hard_.suspicion == Suspicion::cut && now >= report_until_)) {
      end_reports(out);
      missing.clear();
    }
  }
  if (!wants_reports() || now < report_at_) return;
  report_at_ = now + options_.election_timeout_min;
  bool ask_leader = leader_.valid() && !leader_reported() && std::ranges::find(missing, leader_) == missing.end();
  if (ask_leader) missing.push_back(leader_);
  for (const ReplicaId& id : missing) send<ReportRequest>(id, out).incarnation = incarnation_;
}

/// Whose disks may have what this one acknowledged and lost: the other voters of the membership in force here, and of later ones that reports
/// name, since what was lost may include the entry that made a voter, this replica or another one. All before the entry of the one in force here is
/// here again, so earlier ones do not count; nor do those that a committed one is known to have followed. One that is not committed
/// counts beside its predecessor: a majority of either may have acknowledged what was lost.
std::vector<ReplicaId> Replica::asked_voters() const {
  std::vector<ReplicaId> asked;
  auto add = [&](const Membership& members) {
    for (const Member& member : members.members()) {
      if (member.voter && member.id != self_ && std::ranges::find(asked, member.id) == asked.end()) asked.push_back(member.id);
    }
  };
  bool old_only = planted(PlantedBug::raft_ask_old_members);
  if (log_.members_begin() >= reports_->committed_from || old_only) add(log_.members());
  for (const MembersAt& heard : reports_->memberships) {
    if (heard.begin > log_.members_begin() && heard.begin >= reports_->committed_from && !old_only) add(heard.members);
  }
  return asked;
}

/// What a majority has cannot be longer than the longest log of all; what nobody else has, and we have not, is gone or was
/// never acknowledged. So from here on the longest report is the floor, and what was readable in cut frames no longer is: with
/// every tail torn by one power cut, and a disk that stays away, the others would wait for ever.
void Replica::end_reports(Actions& out) {
  reports_done_ = true;
  hard_.floor = log_.last();
  // One that is no voter any more may have entries that nobody else ever gets.
  std::vector<ReplicaId> asked = asked_voters();
  for (const Reports::Report& report : reports_->reports) {
    bool counts = std::ranges::find(asked, report.from) != asked.end() && !planted(PlantedBug::raft_floor_ignores_reports);
    if (counts) hard_.floor = std::max(hard_.floor, report.last);
  }
  reports_.reset();
  save_hard_state(out);
  review_suspicion(out);
}

/// Of what stays: durable here, or committed and so on a majority's disks. The asker waits for a log as long as this; what is neither,
/// a crash may take, and nobody would be left to have it. What the asker itself acknowledged counts no more from here on, so
/// nothing of the rest is committed on the strength of what it lost. While a snapshot is being installed nobody can say; it asks again.
void Replica::dispatch(const ReportRequest& m, Instant, Actions& out) {
  if (installing_) return;
  if (Progress* asker = progress_of(m.header.from)) note_life(*asker, m.incarnation);
  LogPosition own = flushed_;
  // Where it is no voter its own disk counts for nothing, and a log as long as this one may never be elected.
  LogPosition mark = log_.members_begin();
  if (!members().is_voter(self_)) own = std::min(own, LogPosition{mark.offset, mark.sub + 1});
  LogPosition stays = std::max({own, commit_, log_.start()});
  auto& reply = send<ReportReply>(m.header.from, out);
  reply.incarnation = m.incarnation;
  reply.last = {*log_.term_at(stays), stays};
  reply.members = log_.members();
  reply.members_begin = log_.members_begin();
  reply.members_committed = !log_.members_pending(commit_);
}

void Replica::dispatch(const ReportReply& m, Instant now, Actions& out) {
  if (hard_.suspicion == Suspicion::none || m.incarnation != incarnation_) return;
  if (m.header.from == leader_ && m.header.term == hard_.term) {
    leader_report_ = {m.header.from, m.header.term, m.last};
    review_suspicion(out);
  }
  if (reports_done_ || hard_.suspicion == Suspicion::none) return;
  Reports& heard = *reports_;
  auto before = std::ranges::find(heard.reports, m.header.from, &Reports::Report::from);
  if (before == heard.reports.end()) {
    if (heard.reports.size() == Reports::kMax) return;
    before = heard.reports.insert(before, {m.header.from, {}});
  }
  before->last = std::max(before->last, m.last);
  bool known = std::ranges::any_of(heard.memberships, [&](const MembersAt& at) { return at.begin == m.members_begin && at.members == m.members; });
  if (!known && !m.members.empty() && heard.memberships.size() < Reports::kMax) {
    heard.memberships.push_back({m.members_begin, m.members});
    report_at_ = now;  // it may name somebody who was not asked yet
  }
  if (m.members_committed) heard.committed_from = std::max(heard.committed_from, m.members_begin);
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
