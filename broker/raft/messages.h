#pragma once
/// What replicas of one log say to each other. Plain values: the owner adds which log is meant, encodes and sends. Every
/// message may be lost, delayed, duplicated and overtaken.
///
/// `header.term` is always the sender's own term, never an echo of the asker's: a rejected candidate must learn how far
/// behind its term is (R4). Messages for another directory than the receiver's are dropped.
/// Spec     docs/replication.md, "Messages".
#include <cstdint>
#include <span>
#include <variant>

#include "raft/log_view.h"
#include "raft/membership.h"

namespace tailrace::broker::raft {

struct Header {
  ReplicaId from{};
  ReplicaId to{};
  LeaderEpoch term{};
};

/// May I (pre-vote: could I) lead in `ballot`?
struct VoteRequest {
  Header header{};
  LeaderEpoch ballot{};  // the term asked for; header.term for a vote, header.term + 1 for a pre-vote
  LogEnd last{};
  bool pre_vote = false;
  bool forced = false;   // a leader handed over: do not protect it
};
struct VoteReply {
  Header header{};
  LeaderEpoch ballot{};  // which question this answers
  bool pre_vote = false;
  bool granted = false;
};

/// A replica that may have lost a tail asks what the others have (R5).
struct ReportRequest {
  Header header{};
  std::uint64_t incarnation = 0;  // of the asker, so that an answer to its earlier life is not taken
};
struct ReportReply {
  Header header{};
  std::uint64_t incarnation = 0;
  LogEnd last{};  // durable or committed: the asker waits for a log as long as this
  /// In force at the reporter's end: the asker may have lost the entry that says so.
  Membership members{};
  LogPosition members_begin{};  // where that entry stands; the log's start when it is older
  bool members_committed = false;
};

enum class RunKind : std::uint8_t {
  nothing,  // only asks whether `previous` matches, and tells the commit
  batches,  // whole batches of one term, without a mark between them
  mark,     // one entry of length zero
};
/// One batch of a run as its receiver decoded it.
struct BatchRef {
  Offset next{};            // its exclusive end
  std::uint32_t bytes = 0;  // encoded
};
/// Entries of one term that stand behind `previous`.
struct Append {
  Header header{};
  LogPosition previous{};
  LeaderEpoch previous_term{};
  LogPosition commit{};
  std::uint64_t round = 0;       // of leadership confirmation; echoed
  RunKind kind{};
  bool tentative = false;        // `previous` may lie inside an entry of the leader's: never counts as a match
  LeaderEpoch entry_term{};
  LogPosition end{};             // behind the run; `previous` for nothing
  std::uint32_t bytes = 0;       // of the batches
  Mark mark{};                   // of kind mark
  Membership members{};          // of a mark of kind members
};
/// An Append with its batches: `ends` is what the receiver decoded, valid during the call. Empty for other kinds.
struct ReceivedAppend {
  Append append{};
  std::span<const BatchRef> batches{};
};
enum class AppendAnswer : std::uint8_t {
  matched,    // durable here and equal to the leader's log up to `match`
  tentative,  // a tentative `previous` is here; go on behind it
  rejected,   // `previous` is not here; `hint` is where the logs may agree at best
};
struct AppendReply {
  Header header{};
  std::uint64_t incarnation = 0;  // of the replica: grows with each start of its directory
  AppendAnswer answer{};
  LogPosition match{};            // durable and equal
  LogPosition received{};         // equal, perhaps not durable yet
  LogPosition previous{};         // of the append that was answered (tentative, rejected)
  LogEnd hint{};                  // of a rejection
  std::uint64_t round = 0;
};

/// Restart at this place: the leader's log begins behind what you need (R8). The state there (producers, a state machine's
/// own) travels beside it, moved by the owners.
struct Snapshot {
  Header header{};
  LogPosition position{};
  LeaderEpoch position_term{};
  Membership members{};           // in force there
  Offset log_start{};             // committed, so that it cannot go back
};

/// You are caught up and I hand over: stand at once.
struct TimeoutNow {
  Header header{};
};

using Message = std::variant<VoteRequest, VoteReply, ReportRequest, ReportReply, Append, AppendReply, Snapshot, TimeoutNow>;

/// One group's part of a coalesced heartbeat (R10); what is common to all groups of a pair of nodes is in the batch.
struct HeartbeatFact {
  std::uint64_t group = 0;
  LeaderEpoch term{};
  LogPosition commit{};
  std::uint64_t round = 0;
};
struct HeartbeatReply {
  std::uint64_t group = 0;
  LeaderEpoch term{};
  LogPosition match{};
  LogPosition received{};
  std::uint64_t round = 0;
};

}  // namespace tailrace::broker::raft
