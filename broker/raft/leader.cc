// Leading: what to send to whom, what their answers mean, what is committed (R2, R3, R7).
#include <algorithm>
#include <array>

#include "base/check.h"
#include "base/planted.h"
#include "raft/outbox.h"

namespace tailrace::broker::raft {

Progress* Replica::progress_of(const ReplicaId& id) {
  auto found = std::ranges::find(progress_, id, &Progress::id);
  return found == progress_.end() ? nullptr : &*found;
}

/// Members that stay keep what is known of them.
void Replica::rebuild_progress() {
  std::erase_if(progress_, [&](const Progress& p) { return !members().find(p.id); });
  for (const Member& member : members().members()) {
    if (member.id == self_ || progress_of(member.id)) continue;
    Progress& added = progress_.emplace_back();
    added.id = member.id;
    added.probe(log_.end(), true);
  }
}

Verdict Replica::can_append() const {
  if (role_ != Role::leader) return Verdict::not_leader;
  if (transfer_to_.valid()) return Verdict::transferring;
  return Verdict::ok;
}

void Replica::appended(Offset next) {
  TAILRACE_CHECK(role_ == Role::leader, "only a leader appends by itself");
  TAILRACE_CHECK(next > log_.end().offset, "a batch holds records");
  log_.append_batches({next, 0});
}

void Replica::replicate(Instant, Actions& out) {
  if (role_ != Role::leader || hard_state_pending()) return;
  for (Progress& member : progress_) advance(member, out);
}

Verdict Replica::append_mark(MarkKind kind, Offset log_start, const Membership& members, Actions& out) {
  LogPosition at = log_.end();
  if (!log_.append_mark(kind, hard_.term, log_start, members, commit_)) return Verdict::log_full;
  out.add(AppendMark{{at, hard_.term, kind, log_start}, members});
  return Verdict::ok;
}

/// A message about the entries behind `previous`, with all but those filled in.
Append& Replica::fill_append(Append& append, LogPosition previous) {
  append.previous = append.end = previous;
  append.previous_term = append.entry_term = *log_.term_at(previous);
  append.commit = commit_;
  append.round = round_;
  return append;
}

/// Sends what may be sent now: at most one run while probing, as many as the window takes while replicating.
void Replica::advance(Progress& member, Actions& out) {
  while (!member.paused && !member.reading && member.state != ProgressState::snapshot) {
    if (member.next < log_.start()) {
      member.wait_for_snapshot(log_.start());
      out.add(SendSnapshot{member.id});
      return;
    }
    bool probing = member.state == ProgressState::probe;
    if (member.next == log_.end() || !member.boundary) {
      if (!probing) return;
      Append& append = fill_append(send<Append>(member.id, out), member.next);
      append.tentative = !member.boundary;
      member.paused = true;
      return;
    }
    if (!probing && member.window.bytes() >= options_.window_bytes) return;
    const Mark* mark = log_.mark_from(member.next);
    if (mark && mark->begin == member.next) {
      send_mark(member, *mark, out);
      continue;
    }
    member.reading = true;
    ReadEntries& read = out.add<ReadEntries>();
    read.to = member.id;
    read.ticket = ++member.ticket;
    read.from = member.next.offset;
    read.until = mark ? mark->begin.offset : log_.end().offset;
    read.bytes_max = options_.run_bytes_max;
  }
}

void Replica::send_mark(Progress& member, const Mark& mark, Actions& out) {
  Append& append = fill_append(send<Append>(member.id, out), member.next);
  append.kind = RunKind::mark;
  append.entry_term = mark.term;
  append.mark = mark;
  append.end = mark.end();
  if (mark.kind == MarkKind::members) append.members = *log_.members_of(mark);
  if (member.state == ProgressState::probe) {
    member.paused = true;
  } else {
    member.next = append.end;
  }
}

std::optional<Append> Replica::entries_read(const EntriesRead& read, Instant, Actions& out) {
  Progress* member = role_ == Role::leader ? progress_of(read.to) : nullptr;
  if (!member || !member->reading || member->ticket != read.ticket) return std::nullopt;
  member->reading = false;
  LogPosition from = member->next;
  const Mark* mark = log_.mark_from(from);
  Offset until = mark ? mark->begin.offset : log_.end().offset;
  if (read.status == ReadStatus::gone) {
    member->wait_for_snapshot(log_.start());
    out.add(SendSnapshot{member->id});
    return std::nullopt;
  }
  // Where a member's log equals ours an entry of ours ends; one that claims otherwise is asked again, but not at once and for ever.
  if (read.status == ReadStatus::ok && read.begin < from.offset && from > member->match) {
    // The place lies inside a batch of ours: its begin is a boundary, behind the marks that stand there.
    LogPosition begin{read.begin, 0};
    for (const Mark* at = log_.mark_from(begin); at && at < log_.marks().data() + log_.marks().size() && at->begin == begin; ++at) begin = at->end();
    if (begin < log_.start()) begin = log_.start();
    member->probe(begin, true);
    advance(*member, out);
    return std::nullopt;
  }
  if (read.status != ReadStatus::ok || read.begin != from.offset || read.end <= read.begin || read.end > until) {
    member->paused = true;  // until the next heartbeat
    return std::nullopt;
  }
  std::optional<Append> message{std::in_place};
  message->header = {self_, member->id, hard_.term};
  fill_append(*message, from);
  message->kind = RunKind::batches;
  message->entry_term = *log_.term_at({read.end, 0});
  message->end = {read.end, 0};
  message->bytes = read.bytes;
  if (member->state == ProgressState::probe) {
    member->paused = true;
  } else {
    member->next = message->end;
    member->window.sent(message->end, read.bytes);
    advance(*member, out);
  }
  return message;
}

/// A member that came back may have lost what it once acknowledged: nothing of that counts any more.
void Replica::note_life(Progress& member, std::uint64_t incarnation) {
  if (incarnation <= member.incarnation) return;
  bool returned = member.incarnation != 0 && !planted(PlantedBug::raft_trust_old_life);
  member.incarnation = incarnation;
  if (!returned) return;
  member.match = member.received = {};
  member.probe(log_.end(), true);
}

/// What every answer brings: life, the round, and whether the member came back with less than it had. False: not to be used.
bool Replica::heard(Progress& member, std::uint64_t incarnation, std::uint64_t round, Actions& out) {
  if (incarnation < member.incarnation || round > round_) return false;  // from an earlier life of that directory
  note_life(member, incarnation);
  member.heard_since_check = true;
  if (round > member.round) {
    member.round = round;
    confirm_rounds(out);
  }
  return true;
}

void Replica::dispatch(const AppendReply& m, Instant now, Actions& out) {
  if (m.header.term > hard_.term) return become_follower(m.header.term, kNobody, now, out);
  bool in_term = m.header.term == hard_.term || planted(PlantedBug::raft_old_reply_counts);
  Progress* member = role_ == Role::leader && in_term ? progress_of(m.header.from) : nullptr;
  if (!member || m.match > log_.end() || m.received > log_.end() || !heard(*member, m.incarnation, m.round, out)) return;
  switch (m.answer) {
    case AppendAnswer::matched:
      matched(*member, m.match, m.received, now, out);
      break;
    case AppendAnswer::tentative:
      if (member->state == ProgressState::probe && !member->boundary && m.previous == member->next) {
        // The owner's read finds the batch that begins at or before it.
        member->boundary = true;
        member->paused = false;
      }
      break;
    case AppendAnswer::rejected:
      rejected(*member, m, out);
      break;
  }
  // The answer may have cost the leadership (a leader that removed itself, by this commit).
  if (role_ != Role::leader) return;
  if (Progress* still = progress_of(m.header.from)) advance(*still, out);
  continue_transfer(out);
}

void Replica::matched(Progress& member, LogPosition match, LogPosition received, Instant now, Actions& out) {
  received = std::max(received, match);
  bool further = match > member.match;
  member.match = std::max(member.match, match);
  member.received = std::max(member.received, received);
  if (!planted(PlantedBug::raft_window_never_frees)) member.window.durable(member.match);
  switch (member.state) {
    case ProgressState::probe:
      member.replicate(member.received);  // before the log's start: advance() offers a snapshot
      break;
    case ProgressState::replicate:
      if (member.received > member.next) {
        member.next = member.received;
        member.reading = false;  // what is being read begins in front of it
      }
      break;
    case ProgressState::snapshot:
      if (match >= member.snapshot_at) member.replicate(member.received);
      break;
  }
  if (further) count_commit(now, out);
}

void Replica::rejected(Progress& member, const AppendReply& m, Actions& out) {
  if (member.state == ProgressState::snapshot || planted(PlantedBug::raft_ignore_rejection)) return;
  // An answer to an earlier question: what was learnt since stands.
  if (m.previous <= member.match && member.match > LogPosition{}) return;
  if (member.state == ProgressState::probe && m.previous != member.next) return;
  LogPosition hint = std::min(m.hint.position, m.previous);
  if (hint < log_.start()) {
    member.wait_for_snapshot(log_.start());
    out.add(SendSnapshot{member.id});
    return;
  }
  LogPosition at = log_.highest_with_term(hint, m.hint.term);
  LeaderEpoch term = *log_.term_at(at);
  if (term > m.hint.term) {  // nothing that we still have can agree
    member.wait_for_snapshot(log_.start());
    out.add(SendSnapshot{member.id});
    return;
  }
  // A place where both have the same term, or where a term of ours begins, is an entry's end. Others are asked about first.
  bool boundary = at != hint || term == m.hint.term || at == log_.end() || at == log_.start();
  member.probe(std::max(at, member.match), boundary || at <= member.match);
}

/// The largest position that a quorum has durably, if it is of this term (R3). The leader counts itself only as far as its own
/// disk is (R2), and not at all when it is no voter.
void Replica::count_commit(Instant now, Actions& out) {
  std::array<LogPosition, kMembersMax> durable;
  std::size_t count = 0;
  const Membership& members = log_.members();
  auto insert = [&](LogPosition at) {  // descending
    std::size_t i = count++;
    for (; i > 0 && durable[i - 1] < at; --i) durable[i] = durable[i - 1];
    durable[i] = at;
  };
  std::size_t voters = 0;
  for (const Member& member : members.members()) {
    if (!member.voter && !planted(PlantedBug::raft_learner_counts)) continue;
    ++voters;
    if (member.id == self_) insert(planted(PlantedBug::raft_count_own_unflushed) ? log_.end() : flushed_);
  }
  if (!members.is_voter(self_) && planted(PlantedBug::raft_removed_leader_counts)) insert(flushed_);
  for (const Progress& member : progress_) {
    const Member* known = members.find(member.id);
    if (known && (known->voter || planted(PlantedBug::raft_learner_counts))) {
      insert(planted(PlantedBug::raft_count_received) ? member.received : member.match);
    }
  }
  std::size_t quorum = voters / 2 + 1;
  if (planted(PlantedBug::raft_quorum_of_half) && voters > 1) quorum = (voters + 1) / 2;
  if (count < quorum) return;
  LogPosition to = durable[quorum - 1];
  if (to <= commit_) return;
  if (to < term_start_end_ && !planted(PlantedBug::raft_commit_old_term)) return;
  advance_commit(to, now, out);
}

void Replica::confirm_rounds(Actions& out) {
  if (awaited_round_ == 0) return;
  std::array<std::uint64_t, kMembersMax> rounds;
  std::size_t count = 0;
  auto insert = [&](std::uint64_t round) {
    std::size_t i = count++;
    for (; i > 0 && rounds[i - 1] < round; --i) rounds[i] = rounds[i - 1];
    rounds[i] = round;
  };
  const Membership& members = log_.members();
  if (members.is_voter(self_)) insert(round_);
  for (const Progress& member : progress_) {
    if (members.is_voter(member.id)) insert(member.round);
  }
  if (count < members.quorum()) return;
  confirmed_round_ = std::max(confirmed_round_, rounds[members.quorum() - 1]);
  if (confirmed_round_ < awaited_round_) return;
  awaited_round_ = 0;
  out.add(LeadershipConfirmed{confirmed_round_});
}

std::optional<std::uint64_t> Replica::confirm_leadership(Actions& out) {
  if (!serving()) return std::nullopt;
  std::uint64_t wanted = ++round_;
  awaited_round_ = wanted;
  if (planted(PlantedBug::raft_confirm_without_quorum)) {
    awaited_round_ = 0;
    out.add(LeadershipConfirmed{wanted});
    return wanted;
  }
  confirm_rounds(out);
  return wanted;
}

}  // namespace tailrace::broker::raft
