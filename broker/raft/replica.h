#pragma once
/// One partition's replicated log on one node: elections, replication, membership, commit. A value: events and the time go
/// in, actions come out. It touches no clock, file, socket or global chance, and allocates nothing for a record or a batch.
///
/// Owner    carries out the actions of each call in order before the next call (actions.h), except that entries_read() and
///          snapshot_for() may be called while it does.
/// Batches  never come here. On a leader the owner's log takes a batch first, then appended() tells its end. On a follower
///          AppendRun says which batches of the message at hand go into the log.
/// Time     `now` never goes back. tick() when deadline() has passed; earlier or later is harmless.
/// Cost     a steady append is a few comparisons for each member; an idle replica needs only its heartbeats.
/// Trust    messages may be anything: none trips a check. A member that lies on purpose can stop progress or halt a replica.
///
/// | event \ role      | follower                         | pre-candidate, candidate     | leader                       |
/// |-------------------|----------------------------------|------------------------------|------------------------------|
/// | higher term       | follows it, vote forgotten       | becomes follower             | becomes follower             |
/// | lower term        | answers with its own term        | the same                     | the same                     |
/// | VoteRequest       | grants once a term, if as long   | a pre-candidate as a follower| refuses; ignored when unforced|
/// | VoteReply         | ignored                          | counts; a quorum goes on     | ignored                      |
/// | Append, heartbeat | takes, truncates, commits        | becomes follower, takes      | ignored (cannot be)          |
/// | AppendReply       | ignored                          | ignored                      | progress, commit, next run   |
/// | Snapshot          | installs unless it has as much   | becomes follower, installs   | ignored                      |
/// | TimeoutNow        | stands at once if it is a voter  | ignored                      | ignored                      |
/// | ReportRequest     | answers with its end             | the same                     | the same                     |
/// | deadline          | pre-vote                         | pre-vote again               | steps down without a quorum  |
///
/// Files    replica.cc construction, terms, outbox; election.cc; follower.cc taking entries; leader.cc sending and committing;
///          reconfigure.cc membership, log start, hand-over; suspicion.cc R5; catch_up.cc snapshots; heartbeat.cc.
/// Spec     docs/replication.md.
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/planted.h"
#include "base/random.h"
#include "raft/actions.h"
#include "raft/log_view.h"
#include "raft/messages.h"
#include "raft/progress.h"
#include "raft/state.h"

namespace tailrace::broker::raft {

/// Terms are 31 bits on the disk; the last ones are kept out of reach.
inline constexpr LeaderEpoch kTermMax{INT32_MAX - 1};

enum class Verdict : std::uint8_t {
  ok,
  not_leader,
  transferring,        // handing over: the next leader, or this one again, in a moment
  term_not_committed,  // nothing of this term is committed yet (R3, R9)
  change_in_progress,  // another membership change is not committed yet (R9)
  not_caught_up,       // a learner that would slow commits down as a voter
  no_such_change,      // already so, unknown member, no room, the last voter
  out_of_range,        // a log start that is not committed
  log_full,            // too many entries of length zero that are not committed
};
[[nodiscard]] std::string_view name_of(Verdict verdict);

enum class ReadStatus : std::uint8_t {
  ok,
  gone,    // the log begins behind it by now
  failed,  // a read error: tried again with the next heartbeat
};
/// The owner's answer to ReadEntries: whole batches [begin, end). `begin` below what was asked: the batch that holds it
/// begins there.
struct EntriesRead {
  ReplicaId to{};
  std::uint64_t ticket = 0;
  ReadStatus status{};
  Offset begin{};
  Offset end{};
  std::uint32_t bytes = 0;
};

class Replica {
 public:
  /// `incarnation` grows with each start of this directory (never 0), so that a leader notices a member that came back with
  /// less. `recovered` must be consistent in itself: the owner's recovery checked it.
  Replica(ReplicaId self, std::uint64_t incarnation, ReplicaOptions options, Recovered recovered, Random random, Instant now);

  // Events.
  void receive(const Message& message, Instant now, Actions& out);  // an Append without batches
  void receive(const ReceivedAppend& message, Instant now, Actions& out);
  /// Hands out the answer to a heartbeat's fact; none: nothing may be said (yet). Facts name no directory: that of the batch is
  /// compared by the owner.
  [[nodiscard]] std::optional<HeartbeatReply> receive(const ReplicaId& from, const HeartbeatFact& fact, Instant now, Actions& out);
  void receive(const ReplicaId& from, std::uint64_t incarnation, const HeartbeatReply& reply, Instant now, Actions& out);
  void tick(Instant now, Actions& out);
  [[nodiscard]] Instant deadline() const;

  // Durability.
  void hard_state_saved(std::uint64_t generation, Instant now, Actions& out);
  /// Everything up to `end` is durable; `term` is that of the entry before it, so that a report about entries that were cut
  /// and replaced in the meantime is recognised.
  void persisted(LogPosition end, LeaderEpoch term, Instant now, Actions& out);
  void snapshot_installed(LogPosition position, Instant now, Actions& out);
  /// The local log begins at `start` now (at most the commit): entries before it cannot be read any more.
  void trimmed(LogPosition start);

  // Leading.
  [[nodiscard]] Verdict can_append() const;
  /// The log took a batch that ends at `next` in this term; can_append() was ok.
  void appended(Offset next);
  /// Sends what was appended: once for all appends of a turn.
  void replicate(Instant now, Actions& out);
  /// The message to send with the batches read; none: drop them.
  [[nodiscard]] std::optional<Append> entries_read(const EntriesRead& read, Instant now, Actions& out);
  /// A snapshot at `position`, which lies in [log().start(), commit()] at an entry's end. None: not wanted any more.
  [[nodiscard]] std::optional<Snapshot> snapshot_for(const ReplicaId& to, LogPosition position);
  void snapshot_failed(const ReplicaId& to);
  /// The facts for all members go out in the coalesced heartbeats, every heartbeat interval; none unless it leads.
  [[nodiscard]] std::optional<HeartbeatFact> heartbeat(std::uint64_t group, Instant now, Actions& out);
  [[nodiscard]] Verdict change_members(const MembershipChange& change, Instant now, Actions& out);
  [[nodiscard]] Verdict advance_log_start(Offset start, Instant now, Actions& out);
  [[nodiscard]] Verdict transfer(const ReplicaId& to, Instant now, Actions& out);
  /// Answered by LeadershipConfirmed with this round or a later one: what the leader knew at the call was the newest then.
  /// Lost when leadership is. None: not serving.
  [[nodiscard]] std::optional<std::uint64_t> confirm_leadership(Actions& out);

  // Owner's decisions.
  /// Stands without waiting for a timeout, by the same rules; a lone voter leads when it returns.
  void campaign(Instant now, Actions& out);
  /// Gives leadership up (a failing disk, a stop).
  void step_down(Instant now, Actions& out);

  [[nodiscard]] const ReplicaId& self() const { return self_; }
  [[nodiscard]] Role role() const { return role_; }
  [[nodiscard]] LeaderEpoch term() const { return hard_.term; }
  [[nodiscard]] const ReplicaId& leader() const { return leader_; }
  [[nodiscard]] const HardState& hard_state() const { return hard_; }
  [[nodiscard]] const LogView& log() const { return log_; }
  [[nodiscard]] const Membership& members() const { return log_.members(); }
  [[nodiscard]] LogPosition commit() const { return commit_; }
  [[nodiscard]] LogPosition flushed() const { return flushed_; }
  [[nodiscard]] Offset log_start() const { return log_start_told_; }
  [[nodiscard]] bool halted() const { return halted_; }
  /// It leads and its term start is committed: end offsets and coordinator state may be served (R3).
  [[nodiscard]] bool serving() const {
    return role_ == Role::leader && (commit_ >= term_start_end_ || planted(PlantedBug::raft_serve_before_term_start));
  }
  [[nodiscard]] std::span<const Progress> progress() const { return progress_; }
  [[nodiscard]] std::uint64_t incarnation() const { return incarnation_; }
  /// TAILRACE_CHECKs what must always hold; tests and the simulator call it after every step.
  void check_invariants() const;

 private:
  // replica.cc
  template <class M>
  M& send(const ReplicaId& to, Actions& out);
  [[nodiscard]] bool hard_state_pending() const { return saved_generation_ < hard_generation_; }
  void save_hard_state(Actions& out);
  void become_follower(LeaderEpoch term, const ReplicaId& leader, Instant now, Actions& out);
  void set_role(Role role, Actions& out);
  [[nodiscard]] bool follow(const Header& header, Instant now, Actions& out);
  void halt(HaltReason reason, LogPosition at, Actions& out);
  void reset_election_timer(Instant now);
  void dispatch(const VoteRequest& m, Instant now, Actions& out);
  void dispatch(const VoteReply& m, Instant now, Actions& out);
  void dispatch(const ReportRequest& m, Instant now, Actions& out);
  void dispatch(const ReportReply& m, Instant now, Actions& out);
  void dispatch(const Append& m, Instant now, Actions& out);
  void dispatch(const AppendReply& m, Instant now, Actions& out);
  void dispatch(const Snapshot& m, Instant now, Actions& out);
  void dispatch(const TimeoutNow& m, Instant now, Actions& out);

  // election.cc
  void stand(bool pre_vote, bool forced, Instant now, Actions& out);
  void become_leader(Instant now, Actions& out);
  [[nodiscard]] bool may_stand() const;
  [[nodiscard]] bool may_be_needed() const;
  [[nodiscard]] bool leader_is_fresh(Instant now) const;
  [[nodiscard]] bool may_grant(const VoteRequest& m) const;
  void check_quorum(Instant now, Actions& out);

  // follower.cc
  void take(const ReceivedAppend& m, Instant now, Actions& out);
  void take_mark(const Append& m, LogPosition from, Instant now, Actions& out);
  void take_batches(const ReceivedAppend& m, LogPosition from, Actions& out);
  [[nodiscard]] bool cut(LogPosition to, Actions& out);
  void reply_matched(const ReplicaId& to, std::uint64_t round, Actions& out);
  void follow_commit(LogPosition leader_commit, Instant now, Actions& out);
  void advance_commit(LogPosition to, Instant now, Actions& out);
  void tell_log_start(Actions& out);

  // leader.cc
  [[nodiscard]] Progress* progress_of(const ReplicaId& id);
  void rebuild_progress();
  void advance(Progress& member, Actions& out);
  void send_mark(Progress& member, const Mark& mark, Actions& out);
  Append& fill_append(Append& append, LogPosition previous);
  void note_life(Progress& member, std::uint64_t incarnation);
  [[nodiscard]] bool heard(Progress& member, std::uint64_t incarnation, std::uint64_t round, Actions& out);
  void matched(Progress& member, LogPosition match, LogPosition received, Instant now, Actions& out);
  void rejected(Progress& member, const AppendReply& reply, Actions& out);
  void count_commit(Instant now, Actions& out);
  void confirm_rounds(Actions& out);
  [[nodiscard]] Verdict append_mark(MarkKind kind, Offset log_start, const Membership& members, Actions& out);

  // reconfigure.cc
  void continue_transfer(Actions& out);
  void end_transfer(bool failed, Actions& out);
  void members_committed(Instant now, Actions& out);

  // suspicion.cc
  [[nodiscard]] std::vector<ReplicaId> asked_voters() const;
  [[nodiscard]] bool may_vote_for(const LogEnd& last) const;
  [[nodiscard]] bool leader_reported() const;
  [[nodiscard]] bool wants_reports() const;
  void ask_reports(Instant now, Actions& out);
  void review_suspicion(Actions& out);
  void end_reports(Actions& out);

  ReplicaId self_;
  std::uint64_t incarnation_;
  ReplicaOptions options_;
  Random random_;

  HardState hard_{};
  std::uint64_t hard_generation_ = 0;   // newest handed out
  std::uint64_t saved_generation_ = 0;  // newest known durable
  LogView log_;
  LogPosition commit_{};
  LogPosition flushed_{};
  LogPosition matched_{};  // following: up to here the log equals the leader's of this term
  Offset log_start_{};       // committed, possibly ahead of what is here
  Offset log_start_told_{};  // and of it what the owner knows
  Role role_ = Role::follower;
  ReplicaId leader_{};
  bool halted_ = false;
  bool installing_ = false;  // a snapshot; `log_` is what will be there
  Instant leader_heard_{};
  Instant election_at_{};

  // Following: one answer is due once more is durable.
  bool reply_due_ = false;
  std::uint64_t reply_round_ = 0;

  // Standing.
  LeaderEpoch ballot_{};
  bool forced_ = false;
  std::uint32_t granted_ = 0;  // a bit for each member, by its place in members()

  // Suspicious.
  Instant report_at_{};
  Instant report_until_{};
  bool reports_done_ = false;
  /// What was heard in answer to ReportRequests.
  struct Reports {
    static constexpr std::size_t kMax = 4 * kMembersMax;  // more than changes one at a time can name; a liar gets no further
    struct Report {
      ReplicaId from{};
      LogEnd last{};
    };
    std::vector<Report> reports{};  // the newest of each
    std::vector<MembersAt> memberships{};
    LogPosition committed_from{};  // memberships that begin before it are history
  };
  std::unique_ptr<Reports> reports_{};  // from a start with suspicion until all is heard
  struct LeaderReport {
    ReplicaId from{};
    LeaderEpoch term{};
    LogEnd last{};
  };
  LeaderReport leader_report_{};

  // Leading.
  LogPosition term_start_end_{};
  std::vector<Progress> progress_{};  // all members but this one
  std::uint64_t round_ = 0;
  std::uint64_t confirmed_round_ = 0;
  std::uint64_t awaited_round_ = 0;   // 0: nobody waits
  Instant quorum_check_at_{};
  ReplicaId transfer_to_{};
  bool transfer_sent_ = false;
  Instant transfer_until_{};

  static constexpr std::size_t kHeldMax = 16;
  std::vector<Message> held_{};  // until the hard state is durable; past the bound they are lost, as on a network
};

}  // namespace tailrace::broker::raft
