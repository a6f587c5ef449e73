#pragma once
/// What a replica wants its owner to do. The owner carries actions out in order after each event, and always all of them.
///
/// Durability   SaveHardState, AppendMark, AppendRun, Truncate and InstallSnapshot become durable in the order in which they
///              were handed out, as frames of one WAL do; so a report about a later one covers the earlier ones. A Send never
///              waits for anything: the replica keeps a message back until what it depends on was reported durable.
#include <cstdint>
#include <string_view>
#include <variant>
#include <vector>

#include "raft/messages.h"
#include "raft/state.h"

namespace tailrace::broker::raft {

/// Answered by hard_state_saved(generation).
struct SaveHardState {
  HardState state{};
  std::uint64_t generation = 0;
};
/// An entry of length zero, at the log's end. Answered by persisted().
struct AppendMark {
  Mark mark{};
  Membership members{};  // of kind members
};
/// Batches of the ReceivedAppend just handed in, from index `first` on, go to the log's end. Answered by persisted().
struct AppendRun {
  LogPosition begin{};
  LogPosition end{};
  LeaderEpoch term{};
  std::size_t first = 0;
};
/// Everything at or after `to` goes from the log, and derived state rolls back to it (R12).
struct Truncate {
  LogPosition to{};
};
/// Drop the whole log and begin anew at the snapshot's place with the state that came beside it; atomically. Answered by
/// snapshot_installed(position).
struct InstallSnapshot {
  Snapshot snapshot{};
};

/// The high watermark moved; never back.
struct CommitAdvanced {
  LogPosition commit{};
};
/// A committed log start: records below it are deleted for readers, and may be for the disk.
struct LogStartAdvanced {
  Offset log_start{};
};
/// In force from now on; `committed` once it cannot be rolled back any more.
struct MembersChanged {
  Membership members{};
  bool committed = false;
};
struct RoleChanged {
  Role role{};
  LeaderEpoch term{};
  ReplicaId leader{};  // kNobody: not known
};

struct Send {
  Message message{};
};
/// Read whole batches [from, until) of the own log, run_bytes_max of them, at least one; answer with entries_read(). Nothing
/// else is asked for this follower before that.
struct ReadEntries {
  ReplicaId to{};
  std::uint64_t ticket = 0;
  Offset from{};
  Offset until{};
  std::uint32_t bytes_max = 0;
};
/// The follower needs entries before the log's start. Send it Replica::snapshot_for(to, position), or answer snapshot_failed().
struct SendSnapshot {
  ReplicaId to{};
};
/// Leadership was confirmed by a quorum in a round begun after confirm_leadership() was called.
struct LeadershipConfirmed {
  std::uint64_t round = 0;
};
/// The leader gave up handing over to `to`: it did not catch up, or did not stand, in time. It accepts appends again.
struct TransferFailed {
  ReplicaId to{};
};

enum class HaltReason : std::uint8_t {
  truncation_below_commit,  // R6: the leader's log differs from what is known to be committed
  term_exhausted,           // terms are 31 bits
};
/// This replica takes part no more, until an operator decides: answering would spread a divergence.
struct Halted {
  HaltReason reason{};
  LogPosition at{};
};

using Action = std::variant<SaveHardState, AppendMark, AppendRun, Truncate, InstallSnapshot, CommitAdvanced, LogStartAdvanced,
                            MembersChanged, RoleChanged, Send, ReadEntries, SendSnapshot, LeadershipConfirmed, TransferFailed, Halted>;

/// Owns     the actions of one event; one per shard is enough, cleared and used again, so that its memory is allocated once.
/// Bound    of one event: a dozen, and a few for each member.
class Actions {
 public:
  template <class T>
  T& add() {
    return std::get<T>(list_.emplace_back(std::in_place_type<T>));
  }
  template <class T>
  void add(const T& action) {
    list_.emplace_back(std::in_place_type<T>, action);
  }
  [[nodiscard]] bool empty() const { return list_.empty(); }
  [[nodiscard]] std::size_t size() const { return list_.size(); }
  [[nodiscard]] const Action& operator[](std::size_t i) const { return list_[i]; }
  [[nodiscard]] auto begin() const { return list_.begin(); }
  [[nodiscard]] auto end() const { return list_.end(); }
  void clear() { list_.clear(); }

 private:
  std::vector<Action> list_{};
};

}  // namespace tailrace::broker::raft
