// Construction, terms, roles, and the messages that wait for the hard state.
#include <algorithm>

#include "base/check.h"
#include "base/planted.h"
#include "raft/outbox.h"

namespace tailrace::broker::raft {

std::string_view name_of(Role role) {
  switch (role) {
    case Role::follower: return "follower";
    case Role::pre_candidate: return "pre_candidate";
    case Role::candidate: return "candidate";
    case Role::leader: return "leader";
  }
  return "?";
}

std::string_view name_of(Verdict verdict) {
  switch (verdict) {
    case Verdict::ok: return "ok";
    case Verdict::not_leader: return "not_leader";
    case Verdict::transferring: return "transferring";
    case Verdict::term_not_committed: return "term_not_committed";
    case Verdict::change_in_progress: return "change_in_progress";
    case Verdict::not_caught_up: return "not_caught_up";
    case Verdict::no_such_change: return "no_such_change";
    case Verdict::out_of_range: return "out_of_range";
    case Verdict::log_full: return "log_full";
  }
  return "?";
}

Replica::Replica(ReplicaId self, std::uint64_t incarnation, ReplicaOptions options, Recovered recovered, Random random, Instant now)
    : self_{self}, incarnation_{incarnation}, options_{options}, random_{random}, hard_{recovered.hard},
      log_{recovered.start, recovered.start_term, recovered.members} {
  TAILRACE_CHECK(incarnation > 0, "0 means that a member was not heard of");
  TAILRACE_CHECK(options.election_timeout_min > Duration::zero() && options.election_timeout_min <= options.election_timeout_max,
                 "an election timeout has a range");
  if (planted(PlantedBug::raft_forget_vote)) hard_.vote = kNobody;
  std::size_t next_members = 0;
  for (const Mark& mark : recovered.marks) {
    bool members = mark.kind == MarkKind::members;
    TAILRACE_CHECK(!members || next_members < recovered.members_after.size(), "each membership mark comes with its members");
    if (mark.begin > log_.end()) log_.append_batches(mark.begin);
    // More marks than the view holds: the oldest committed ones make room.
    bool kept = log_.append_mark(mark.kind, mark.term, mark.log_start,
                                 members ? recovered.members_after[next_members++].members : Membership{}, recovered.commit);
    TAILRACE_CHECK(kept, "a log holds no more marks than replication let it");
  }
  if (recovered.end > log_.end()) log_.append_batches(recovered.end);
  commit_ = matched_ = std::clamp(recovered.commit, log_.start(), log_.end());
  flushed_ = log_.end();
  if (planted(PlantedBug::raft_forget_term)) hard_.term = log_.last_term(), hard_.vote = kNobody;
  log_start_ = log_start_told_ = planted(PlantedBug::raft_log_start_goes_back) ? Offset{0} : recovered.log_start;
  if (hard_.suspicion != Suspicion::none) {
    hard_.floor = std::max(hard_.floor, log_.last());
    reports_ = std::make_unique<Reports>();
    report_at_ = now;
    report_until_ = now + options_.report_wait_max;
  }
  reset_election_timer(now);
}

void Replica::save_hard_state(Actions& out) { out.add(SaveHardState{hard_, ++hard_generation_}); }

void Replica::hard_state_saved(std::uint64_t generation, Instant now, Actions& out) {
  saved_generation_ = std::max(saved_generation_, std::min(generation, hard_generation_));
  if (hard_state_pending()) return;
  for (const Message& message : held_) {
    // What was said in an older term means nothing any more, and a vote of this one was decided after it.
    LeaderEpoch term = std::visit([](const auto& m) { return m.header.term; }, message);
    if (term == hard_.term) out.add<Send>().message = message;
  }
  held_.clear();
  if (role_ == Role::leader) replicate(now, out);
}

void Replica::set_role(Role role, Actions& out) {
  role_ = role;
  out.add(RoleChanged{role_, hard_.term, leader_});
}

/// A step into `term`, or out of another role within it. The log agrees with the new leader's only as far as it is
/// committed, until appends have shown more.
void Replica::become_follower(LeaderEpoch term, const ReplicaId& leader, Instant now, Actions& out) {
  bool new_term = term > hard_.term;
  if (new_term) {
    hard_.term = term;
    hard_.vote = kNobody;
    save_hard_state(out);
  }
  if (new_term || role_ == Role::leader) {
    if (!planted(PlantedBug::raft_matched_survives_term)) matched_ = commit_;
    reply_due_ = false;
    reply_round_ = 0;
  }
  bool changed = new_term || role_ != Role::follower || leader_ != leader;
  progress_.clear();
  transfer_to_ = kNobody;
  awaited_round_ = 0;
  leader_ = leader;
  if (changed) {
    reset_election_timer(now);
    set_role(Role::follower, out);
  }
}

/// For what only a term's leader sends. False: it is not from the leader of our term, and was answered if that helps.
bool Replica::follow(const Header& header, Instant now, Actions& out) {
  if (header.term < hard_.term || (header.term == hard_.term && role_ == Role::leader)) return false;
  if (header.term == hard_.term && leader_.valid() && leader_ != header.from) return false;  // one leader in a term
  if (header.term > hard_.term || role_ != Role::follower || leader_ != header.from) become_follower(header.term, header.from, now, out);
  leader_heard_ = now;
  reset_election_timer(now);
  return true;
}

void Replica::halt(HaltReason reason, LogPosition at, Actions& out) {
  if (halted_) return;
  halted_ = true;
  held_.clear();
  progress_.clear();
  leader_ = kNobody;
  set_role(Role::follower, out);
  out.add(Halted{reason, at});
}

void Replica::reset_election_timer(Instant now) {
  auto spread = static_cast<std::uint64_t>((options_.election_timeout_max - options_.election_timeout_min).count());
  election_at_ = now + options_.election_timeout_min + Duration{static_cast<Duration::rep>(random_.below(spread + 1))};
}

void Replica::receive(const Message& message, Instant now, Actions& out) {
  if (halted_) return;
  const Header& header = std::visit([](const auto& m) -> const Header& { return m.header; }, message);
  bool mine = header.to == self_ || (planted(PlantedBug::raft_ignore_directory) && header.to.node == self_.node);
  if (!mine || header.from == self_ || !header.from.valid()) return;
  if (header.term < LeaderEpoch{0} || header.term > kTermMax) return;
  std::visit([&](const auto& m) { dispatch(m, now, out); }, message);
}

void Replica::receive(const ReceivedAppend& message, Instant now, Actions& out) {
  const Header& header = message.append.header;
  if (halted_ || header.to != self_ || header.from == self_ || !header.from.valid()) return;
  if (header.term < LeaderEpoch{0} || header.term > kTermMax) return;
  take(message, now, out);
}

void Replica::dispatch(const Append& m, Instant now, Actions& out) { take({m, {}}, now, out); }

void Replica::tick(Instant now, Actions& out) {
  if (halted_) return;
  if (role_ == Role::leader) {
    if (transfer_to_.valid() && now >= transfer_until_) end_transfer(true, out);
    if (now >= quorum_check_at_) check_quorum(now, out);
    return;
  }
  if (hard_.suspicion != Suspicion::none) ask_reports(now, out);
  if (now < election_at_) return;
  reset_election_timer(now);
  if (may_stand()) stand(true, false, now, out);
}

Instant Replica::deadline() const {
  if (halted_) return Instant::max();
  if (role_ == Role::leader) return transfer_to_.valid() ? std::min(quorum_check_at_, transfer_until_) : quorum_check_at_;
  if (!may_be_needed()) return wants_reports() ? report_at_ : Instant::max();
  return wants_reports() ? std::min(election_at_, report_at_) : election_at_;
}

void Replica::persisted(LogPosition end, LeaderEpoch term, Instant now, Actions& out) {
  if (halted_ || end <= flushed_ || end > log_.end()) return;
  if (!log_.matches(end, term) && !planted(PlantedBug::raft_late_persist_counts)) return;  // of entries that were cut since
  flushed_ = end;
  if (role_ == Role::leader) {
    count_commit(now, out);
    return;
  }
  if (reply_due_ && leader_.valid()) reply_matched(leader_, reply_round_, out);
  review_suspicion(out);
}

void Replica::trimmed(LogPosition start) {
  TAILRACE_CHECK(start <= commit_, "only what is committed is given up");
  if (start > log_.start()) log_.trim(start);
}

void Replica::step_down(Instant now, Actions& out) {
  if (role_ != Role::follower) become_follower(hard_.term, kNobody, now, out);
}

void Replica::check_invariants() const {
  log_.check_invariants();
  TAILRACE_CHECK(log_.start() <= commit_ && commit_ <= log_.end(), "the commit lies inside the log");
  TAILRACE_CHECK(flushed_ <= log_.end(), "what is durable was appended");
  TAILRACE_CHECK(matched_ <= log_.end(), "what agrees with the leader was appended");
  TAILRACE_CHECK(role_ == Role::leader || commit_ <= matched_, "what is committed is known to agree with the leader");
  TAILRACE_CHECK(log_.last_term() <= hard_.term, "no entry is of a term to come");
  TAILRACE_CHECK(saved_generation_ <= hard_generation_, "nothing is durable before it was handed out");
  if (role_ == Role::leader) {
    TAILRACE_CHECK(leader_ == self_ && log_.last_term() == hard_.term, "a leader's log ends in its own term");
    for (const Progress& member : progress_) {
      TAILRACE_CHECK(member.match <= log_.end() && member.received <= log_.end(), "nobody has more than the leader");
      TAILRACE_CHECK(member.next <= log_.end(), "nothing is sent that was not appended");
    }
  } else {
    TAILRACE_CHECK(progress_.empty(), "only a leader follows others");
  }
}

}  // namespace tailrace::broker::raft
