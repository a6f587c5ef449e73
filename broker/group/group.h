#pragma once
/// One consumer group: its members, what each should read, and who may commit. A pure value: events and the time go in, answers come out.
///
///   join -> member -> heartbeat ... -> leave, or silence past its session timeout -> gone
///
/// A change of members, subscriptions or partition counts begins a new generation, with a target for each member. A partition moves in two
/// steps: its owner hears in a heartbeat that it is not its any more, lets go, and says so with the next one; then the new owner gets it. So
/// no two members that follow the protocol read one partition at a time; one that does not is refused when it commits.
///
/// Spec     docs/groups.md. Thread: its shard's. Bounds: limits::kGroupMembersMax, kGroupTopicsMax, kGroupPartitionsMax.
#include <optional>
#include <set>

#include "base/result.h"
#include "base/time.h"
#include "group/records.h"

namespace tailrace::broker::group {

struct GroupOptions {
  Assignor assignor = Assignor::sticky;
};

struct Join {
  MemberId member{};       // of the coordinator's choice, never used before; of somebody known: a new subscription
  std::string instance{};  // empty: none. Known: takes the place of the member that has it, which is fenced
  std::vector<TopicId> topics{};
  Duration session_timeout{};  // kSessionTimeoutMin to kSessionTimeoutMax
};
struct Beat {
  Generation generation = 0;
  std::vector<PartitionId> assignment{};  // ascending; what is not in it must be let go
};
struct MemberView {
  MemberId member{};
  std::string instance{};
  std::vector<TopicId> topics{};
  std::vector<PartitionId> granted{};  // may be reading
  std::vector<PartitionId> target{};   // should be
  Instant deadline{};
};

class Group {
 public:
  /// `generation`: the newest that was ever stored.
  explicit Group(GroupOptions options = {}, Generation generation = 0) : options_{options}, generation_{generation} {}

  /// Errors: invalid_argument (timeout, topics), too_many. Nothing has changed then.
  [[nodiscard]] Result<Beat> join(const Join& request, Instant now);
  /// `owned`: all that the member still reads. The answer says what it may read from now on. Of an older generation than it was told nothing
  /// is taken: the answer is given again.
  /// Errors: unknown_member (join again), invalid_argument (a generation to come, or what it was never given).
  [[nodiscard]] Result<Beat> heartbeat(const MemberId& member, Generation generation, const std::vector<PartitionId>& owned, Instant now);
  /// Errors: unknown_member.
  [[nodiscard]] Result<void> leave(const MemberId& member);
  /// Whether this member, as of this generation, may store an offset of the partition. Errors: unknown_member, fenced.
  [[nodiscard]] Result<void> may_commit(const MemberId& member, Generation generation, const PartitionId& partition) const;
  /// Topics were made, deleted or have grown. Only those that members subscribe to matter.
  void set_partitions(PartitionCounts counts);
  /// Who was silent for too long goes. When to call it next; none: nobody is there.
  std::optional<Instant> tick(Instant now);

  /// What is to be stored of each member, in the order of their ids. All of it, with the generation, before anything is told that rests on it.
  [[nodiscard]] std::vector<MemberRecord> stored() const;
  /// As it was stored, into a group that has no members: a coordinator that begins anew changes nothing for those who are there. `counts` as for
  /// set_partitions(). Errors: corrupt (two members hold one partition, or it was told of a generation to come); nothing has changed then.
  [[nodiscard]] Result<void> restore(const std::vector<MemberRecord>& members, PartitionCounts counts, Instant now);
  /// For the next change. Of a group without members.
  void set_assignor(Assignor assignor) { options_.assignor = assignor; }
  [[nodiscard]] Assignor assignor() const { return options_.assignor; }
  [[nodiscard]] bool has(const MemberId& member) const { return members_.contains(member); }
  /// Rises with whatever changes stored(), or the generation.
  [[nodiscard]] std::uint64_t changes() const { return changes_; }
  /// Errors: unknown_member.
  [[nodiscard]] Result<Duration> session_timeout(const MemberId& member) const;
  /// All that members subscribe to, ascending.
  [[nodiscard]] std::vector<TopicId> topics() const;

  [[nodiscard]] Generation generation() const { return generation_; }
  [[nodiscard]] std::size_t size() const { return members_.size(); }
  [[nodiscard]] std::vector<MemberView> members() const;
  /// Every member reads its target, and nothing else.
  [[nodiscard]] bool settled() const;
  void check_invariants() const;

 private:
  struct Member {
    std::string instance{};
    std::vector<TopicId> topics{};
    Duration session_timeout{};
    Instant deadline{};
    Generation told = 0;
    std::set<PartitionId> granted{};
  };
  void remove(const MemberId& member);
  void regroup();
  [[nodiscard]] Assignment assign() const;
  static PartitionCounts bounded(PartitionCounts counts);
  [[nodiscard]] Beat answer(const MemberId& id, Member& member);

  GroupOptions options_;
  Generation generation_;
  std::map<MemberId, Member> members_{};
  PartitionCounts counts_{};
  std::uint64_t changes_ = 0;
  Assignment target_{};
  std::map<PartitionId, MemberId> holder_{};  // of everything granted
};

}  // namespace tailrace::broker::group
