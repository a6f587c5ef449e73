#pragma once
/// What replication has to know of a log, in memory that does not grow with its records: where it begins and ends, and its
/// entries of length zero, which are also its history of terms and of members.
///
///   position   (offset, sub): the place between two entries. `start`, `end` and every bound here are such places.
///   batch      from (o, s) to (o + records, 0)
///   mark       from (o, s) to (o, s + 1): an entry of length zero. Each term's first entry is a mark of kind term_start
///
///     start=(0,0)  T1  [0..9]  [10..14]  T2  C  [15..19]   end=(20,0)
///                  |   (0,1)   (10,0)    |   |  (15,2)
///                  (0,0)                 |   (15,1)
///                                        (15,0)
///
/// Two logs that both have an entry of one term ending at one position are equal up to it: only one leader writes in a term,
/// and it only appends. So a position and the term of the entry before it say all that "matching" needs; no index of batches
/// is kept, and any position at which both sides have the same term is an entry's end in both.
///
/// Bounds   kMarksMax marks; when full the oldest are dropped by raising `start`: a follower further behind restarts from
///          a snapshot.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "model/ids.h"
#include "raft/membership.h"

namespace tailrace::broker::raft {

enum class MarkKind : std::uint8_t {
  term_start,  // first entry of a term; nothing of an older term commits before it does (R3)
  members,     // a membership, in force from its append on
  log_start,   // records below an offset are deleted, once this is committed
};

struct Mark {
  LogPosition begin{};
  LeaderEpoch term{};
  MarkKind kind{};
  Offset log_start{};  // of kind log_start
  [[nodiscard]] LogPosition end() const { return {begin.offset, begin.sub + 1}; }
  friend bool operator==(const Mark&, const Mark&) = default;
};

/// The last entry's term and the position behind it: what votes compare (R5). Ordered by term, then position.
struct LogEnd {
  LeaderEpoch term{};
  LogPosition position{};
  friend auto operator<=>(const LogEnd&, const LogEnd&) = default;
};

struct MembersAt {
  LogPosition begin{};
  Membership members{};
};

inline constexpr std::size_t kMarksMax = 4'096;

class LogView {
 public:
  /// An empty log at `start`; the entry before it had `start_term`, and `members` were in force there.
  LogView(LogPosition start, LeaderEpoch start_term, const Membership& members);

  [[nodiscard]] LogPosition start() const { return start_; }
  [[nodiscard]] LeaderEpoch start_term() const { return start_term_; }
  [[nodiscard]] LogPosition end() const { return end_; }
  [[nodiscard]] LogEnd last() const { return {last_term(), end_}; }
  [[nodiscard]] LeaderEpoch last_term() const { return marks_.empty() ? start_term_ : marks_.back().term; }
  /// Of the entry that ends at or spans up to `at`. None outside [start, end].
  [[nodiscard]] std::optional<LeaderEpoch> term_at(LogPosition at) const;
  [[nodiscard]] bool matches(LogPosition at, LeaderEpoch term) const;
  /// The highest position at or below `at` whose term is at most `term`; where the two logs may agree at best. At least start.
  [[nodiscard]] LogPosition highest_with_term(LogPosition at, LeaderEpoch term) const;
  /// First mark that begins at or after `at`.
  [[nodiscard]] const Mark* mark_from(LogPosition at) const;
  [[nodiscard]] const std::vector<Mark>& marks() const { return marks_; }

  /// In force at the end of the log, committed or not.
  [[nodiscard]] const Membership& members() const { return members_.back().members; }
  /// Where they were appended; the log's start when they are older.
  [[nodiscard]] LogPosition members_begin() const { return members_.back().begin; }
  /// An entry that changed them is not committed yet.
  [[nodiscard]] bool members_pending(LogPosition committed) const { return members_.size() > 1 && members_.back().begin >= committed; }
  [[nodiscard]] const Membership& members_at(LogPosition at) const;
  /// Of the `members` mark that begins there.
  [[nodiscard]] const Membership* members_of(const Mark& mark) const;

  /// `end` is (offset, 0), above the current end.
  void append_batches(LogPosition end) { end_ = end; }
  /// Begins at the current end. False: full, and nothing below `committed` can be dropped to make room.
  [[nodiscard]] bool append_mark(MarkKind kind, LeaderEpoch term, Offset log_start, const Membership& members, LogPosition committed);
  /// Everything at or after `to` goes, memberships too. `to` lies in [start, end].
  void truncate(LogPosition to);
  /// Forgets what lies before `to`, which lies in [start, end].
  void trim(LogPosition to);
  void check_invariants() const;

 private:
  LogPosition start_{};
  LeaderEpoch start_term_{};
  LogPosition end_{};
  std::vector<Mark> marks_{};         // ascending
  std::vector<MembersAt> members_{};  // ascending; the first is the one in force at `start`
};

}  // namespace tailrace::broker::raft
