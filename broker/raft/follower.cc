// Taking entries from a leader: does what it says fit, what is new of it, what must go, what is committed.
#include <algorithm>

#include "base/planted.h"
#include "raft/outbox.h"

namespace tailrace::broker::raft {

void Replica::take(const ReceivedAppend& received, Instant now, Actions& out) {
  const Append& m = received.append;
  if (m.previous < LogPosition{} || m.previous.offset < Offset{0} || m.end < m.previous || m.entry_term > m.header.term) return;
  if (m.header.term < hard_.term && !planted(PlantedBug::raft_take_stale_term)) {
    // Its sender still thinks that it leads: our term tells it.
    auto& reply = send<AppendReply>(m.header.from, out);
    reply.incarnation = incarnation_;
    reply.answer = AppendAnswer::rejected;
    reply.previous = m.previous;
    reply.hint = log_.last();
    return;
  }
  bool stale = planted(PlantedBug::raft_take_stale_term) && m.header.term < hard_.term && role_ == Role::follower;
  if ((!stale && !follow(m.header, now, out)) || installing_) return;

  LogPosition from = m.previous;
  bool not_compared = (planted(PlantedBug::raft_previous_not_compared) && from <= log_.end()) ||
                      (planted(PlantedBug::raft_accept_gone_prefix) && from < log_.start());
  if (from < commit_ && !planted(PlantedBug::raft_accept_gone_prefix)) {
    // What is committed here is in every later leader's log (R6): a term that differs is a bug or a lie. Where the log no
    // longer reaches back that far there is nothing to compare and nothing to take.
    bool known = from >= log_.start();
    bool differs = known && !m.tentative && !log_.matches(from, m.previous_term);
    LogPosition overlap = std::min(m.end, commit_);
    if (!differs && m.kind != RunKind::nothing && overlap > std::max(from, log_.start())) differs = log_.term_at(overlap) != m.entry_term;
    if (differs && !planted(PlantedBug::raft_truncate_below_commit)) return halt(HaltReason::truncation_below_commit, from, out);
    if (!differs) from = std::min(m.end, commit_);
  } else if (!log_.matches(from, m.previous_term) && !not_compared) {
    auto& reply = send<AppendReply>(m.header.from, out);
    reply.incarnation = incarnation_;
    reply.answer = AppendAnswer::rejected;
    reply.previous = m.previous;
    reply.round = m.round;
    LogPosition best = log_.highest_with_term(m.previous, m.previous_term);
    reply.hint = {*log_.term_at(best), best};
    return;
  }
  if (m.tentative) {
    // Here, but perhaps inside an entry of the leader's: no match may come of it.
    auto& reply = send<AppendReply>(m.header.from, out);
    reply.incarnation = incarnation_;
    reply.answer = AppendAnswer::tentative;
    reply.previous = m.previous;
    reply.match = std::min(flushed_, matched_);
    reply.received = matched_;
    reply.round = m.round;
    return;
  }
  matched_ = std::max(matched_, from);
  switch (m.kind) {
    case RunKind::nothing:
      break;
    case RunKind::mark:
      if (from < m.end) take_mark(m, from, now, out);
      break;
    case RunKind::batches:
      if (from < m.end) take_batches(received, from, out);
      break;
  }
  if (halted_) return;
  follow_commit(m.commit, now, out);
  // An append is answered when it is durable; a question at once.
  reply_due_ = true;
  reply_round_ = std::max(reply_round_, m.round);
  bool ack_unflushed = planted(PlantedBug::raft_ack_before_flush);
  if (m.kind == RunKind::nothing || flushed_ >= matched_ || ack_unflushed) reply_matched(m.header.from, reply_round_, out);
}

void Replica::take_mark(const Append& m, LogPosition from, Instant now, Actions& out) {
  if (m.mark.begin != from || m.end != m.mark.end() || m.mark.term != m.entry_term) return;
  if (m.mark.kind == MarkKind::members && m.members.empty()) return;
  if (from < log_.end()) {
    const Mark* mine = log_.mark_from(from);
    bool same = mine && mine->begin == from && (mine->term == m.entry_term || planted(PlantedBug::raft_keep_conflict));
    if (same) {
      matched_ = std::max(matched_, m.end);
      return;
    }
    if (!cut(from, out)) return;
  }
  bool term_starts = m.mark.kind == MarkKind::term_start;
  // A term's first entry is its term start, and only that.
  if (m.entry_term < log_.last_term() || term_starts != (m.entry_term > log_.last_term())) return;
  if (!log_.append_mark(m.mark.kind, m.entry_term, m.mark.log_start, m.members, commit_)) return;
  out.add(AppendMark{m.mark, m.members});
  matched_ = m.end;
  if (m.mark.kind != MarkKind::members) return;
  out.add(MembersChanged{m.members, false});
  if (role_ == Role::follower) reset_election_timer(now);
}

/// `from` is where the message's entries begin to matter: behind it, what of them is here already is skipped, and the first
/// that differs cuts the log.
void Replica::take_batches(const ReceivedAppend& received, LogPosition from, Actions& out) {
  const Append& m = received.append;
  if (received.batches.empty() || m.end != LogPosition{received.batches.back().next, 0}) return;
  LogPosition here = from;  // up to here, the log has these entries
  if (from < log_.end()) {
    const Mark* mark = log_.mark_from(from);
    LogPosition same_term_until = mark ? mark->begin : log_.end();
    bool same = log_.term_at(std::min(same_term_until, log_.end())) == m.entry_term;
    if (same) here = std::min(same_term_until, m.end);
  }
  if (here >= m.end) {
    matched_ = std::max(matched_, m.end);
    return;
  }
  if (planted(PlantedBug::raft_accept_gone_prefix) && from < log_.start()) here = log_.start();
  // The message must have a batch that begins where ours ends.
  std::size_t first = 0;
  Offset begin = m.previous.offset;
  while (first < received.batches.size() && begin < here.offset) begin = received.batches[first++].next;
  if ((begin != here.offset && !planted(PlantedBug::raft_accept_gone_prefix)) || first == received.batches.size()) return;
  for (std::size_t i = first; i < received.batches.size(); ++i) {
    if (received.batches[i].next <= begin) return;
    begin = received.batches[i].next;
  }
  if (here < log_.end() && !cut(here, out)) return;
  if (m.entry_term != log_.last_term()) return;  // a term's first entry is its term start
  out.add(AppendRun{here, m.end, m.entry_term, first});
  log_.append_batches(m.end);
  matched_ = m.end;
}

/// False: it must not be (R6), and this replica has halted.
bool Replica::cut(LogPosition to, Actions& out) {
  if (to < commit_ && !planted(PlantedBug::raft_truncate_below_commit) && !planted(PlantedBug::raft_accept_gone_prefix)) {
    halt(HaltReason::truncation_below_commit, to, out);
    return false;
  }
  LogPosition old_members = log_.members_begin();
  if (to < log_.start()) to = log_.start();  // only planted bugs come here
  log_.truncate(to);
  flushed_ = std::min(flushed_, to);
  matched_ = std::min(matched_, to);
  commit_ = std::min(commit_, to);
  out.add(Truncate{to});
  if (log_.members_begin() != old_members) {
    out.add(MembersChanged{log_.members(), !log_.members_pending(commit_)});
  }
  return true;
}

void Replica::reply_matched(const ReplicaId& to, std::uint64_t round, Actions& out) {
  LogPosition durable = planted(PlantedBug::raft_ack_before_flush) ? matched_ : std::min(flushed_, matched_);
  if (planted(PlantedBug::raft_report_whole_log)) durable = flushed_;
  auto& reply = send<AppendReply>(to, out);
  reply.incarnation = incarnation_;
  reply.answer = AppendAnswer::matched;
  reply.match = durable;
  reply.received = std::max(durable, matched_);
  reply.round = round;
  reply_due_ = durable < matched_;
}

void Replica::follow_commit(LogPosition leader_commit, Instant now, Actions& out) {
  LogPosition to = std::min(leader_commit, planted(PlantedBug::raft_commit_unmatched) ? log_.end() : matched_);
  if (to > commit_) advance_commit(to, now, out);
  review_suspicion(out);
}

void Replica::advance_commit(LogPosition to, Instant now, Actions& out) {
  LogPosition before = commit_;
  commit_ = to;
  out.add(CommitAdvanced{to});
  bool members_moved = false;
  for (const Mark* mark = log_.mark_from(before); mark && mark < log_.marks().data() + log_.marks().size() && mark->begin < to; ++mark) {
    if (mark->kind == MarkKind::log_start) log_start_ = std::max(log_start_, mark->log_start);
    if (mark->kind == MarkKind::members) {
      members_moved = true;
      out.add(MembersChanged{*log_.members_of(*mark), true});
    }
  }
  tell_log_start(out);
  if (members_moved && role_ == Role::leader) members_committed(now, out);
}

/// After a snapshot the log start may lie ahead of what is here: it is told as the log gets there.
void Replica::tell_log_start(Actions& out) {
  Offset reached = std::min(log_start_, commit_.offset);
  if (reached <= log_start_told_) return;
  log_start_told_ = reached;
  out.add(LogStartAdvanced{reached});
}

}  // namespace tailrace::broker::raft
