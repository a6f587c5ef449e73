#pragma once
/// Who belongs to a replicated log, and how that changes: one member at a time (R9).
///
/// A voter is (node id, directory id). A replaced or emptied directory is another voter, which has to join; so a node can
/// never vote twice in a term by losing what its first vote was written on.
#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "model/ids.h"

namespace tailrace::broker::raft {

/// 128 random bits of data/node.toml, drawn when the directory was made.
struct DirectoryId {
  std::array<std::uint8_t, 16> bytes{};
  friend auto operator<=>(const DirectoryId&, const DirectoryId&) = default;
};

struct ReplicaId {
  NodeId node{-1};
  DirectoryId directory{};
  friend auto operator<=>(const ReplicaId&, const ReplicaId&) = default;
  [[nodiscard]] bool valid() const { return node.value() >= 0; }
};
inline constexpr ReplicaId kNobody{};

/// Seven voters survive three losses; two places are left for the learners that replace members.
inline constexpr std::size_t kVotersMax = 7;
inline constexpr std::size_t kMembersMax = 9;

struct Member {
  ReplicaId id{};
  bool voter = false;
  friend bool operator==(const Member&, const Member&) = default;
};

enum class ChangeKind : std::uint8_t {
  add_learner,  // receives the log, counts for nothing
  promote,      // a learner becomes a voter
  demote,       // a voter becomes a learner
  remove,       // voter or learner
};
struct MembershipChange {
  ChangeKind kind{};
  ReplicaId id{};
};

/// A value of fixed size: it is copied into entries and messages without allocation.
class Membership {
 public:
  Membership() = default;
  /// The first members of a group, all voters; at most kVotersMax of them, without repetition (others are left out).
  [[nodiscard]] static Membership of_voters(std::span<const ReplicaId> voters);

  [[nodiscard]] std::span<const Member> members() const { return {members_.data(), count_}; }
  [[nodiscard]] bool empty() const { return count_ == 0; }
  [[nodiscard]] const Member* find(const ReplicaId& id) const;
  [[nodiscard]] bool is_voter(const ReplicaId& id) const;
  [[nodiscard]] std::size_t voter_count() const;
  [[nodiscard]] std::size_t quorum() const { return voter_count() / 2 + 1; }
  /// None when the change makes no sense here: already so, unknown, no room, or the last voter would go.
  [[nodiscard]] std::optional<Membership> with(const MembershipChange& change) const;
  /// For decoders and tests: appends one member; false when full or known already.
  [[nodiscard]] bool add(const Member& member);
  friend bool operator==(const Membership& a, const Membership& b);

 private:
  std::array<Member, kMembersMax> members_{};
  std::uint8_t count_ = 0;
};

}  // namespace tailrace::broker::raft
