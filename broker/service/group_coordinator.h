#pragma once
/// The groups of one partition of `__offsets`: drives the pure groups, stores what they say, and answers when it is stored. Private to `service`.
///
///   call -> group changes in memory -> what differs is appended -> committed -> answered
///
/// A heartbeat with nothing new waits for a change, so that a move takes as long as its messages and not as long as heartbeats are apart.
/// Where something cannot be stored, memory is ahead of the log: failed() from then on, waiters are answered, and whoever comes next makes another
/// coordinator, which reads the log anew.
///
/// Shard    the partition's. Bounds: limits::kGroupsMax groups; the log is written anew when most of it counts no more.
/// Spec     docs/groups.md.
#include <map>
#include <memory>
#include <set>
#include <string>

#include "service/groups.h"
#include "service/state_log.h"

namespace tailrace::broker::service {

class GroupCoordinator : public std::enable_shared_from_this<GroupCoordinator> {
 public:
  GroupCoordinator(ShardCore& core, PartitionId partition);
  GroupCoordinator(const GroupCoordinator&) = delete;
  GroupCoordinator& operator=(const GroupCoordinator&) = delete;

  /// Reads what is stored. Before anything else. Errors: of StateLog::replay().
  [[nodiscard]] Task<Answer<void>> load();
  [[nodiscard]] bool failed() const { return failed_; }

  // Errors: of group::Group, too_many (groups, offsets), and where it could not be stored those of StateLog.
  [[nodiscard]] Task<Answer<GroupBeat>> join(JoinGroup request, std::vector<TopicId> topics);
  [[nodiscard]] Task<Answer<GroupBeat>> heartbeat(GroupHeartbeat request);
  [[nodiscard]] Task<Answer<void>> leave(std::string group, std::string member);
  [[nodiscard]] Task<Answer<void>> commit(CommitOffsets request);
  /// None named: all. What was never stored is not in the answer.
  [[nodiscard]] Task<Answer<std::vector<StoredOffset>>> offsets(std::string group, std::vector<TopicPartitions> of);
  [[nodiscard]] Task<Answer<std::vector<GroupSummary>>> list();
  /// Without lag: that is of other shards. Errors: no_such_group.
  [[nodiscard]] Task<Answer<GroupDescription>> describe(std::string group);
  /// Sets offsets from outside. Errors: group_not_empty; `kick`: its members are removed first.
  [[nodiscard]] Task<Answer<void>> reset(std::string group, std::vector<PartitionCommit> offsets, bool kick);
  /// Forgets it, offsets and all. Errors: no_such_group, group_not_empty.
  [[nodiscard]] Task<Answer<void>> remove(std::string group);

  /// Silent members go, groups hear of new partitions, what nobody needs any more is forgotten. Now and then.
  [[nodiscard]] Task<void> tick();
  /// Everybody who waits is answered.
  void stop();

 private:
  struct Entry {
    explicit Entry(Executor& executor) : changed{executor} {}
    group::Group group{};
    group::OutOfRange out_of_range = group::OutOfRange::earliest;
    std::int64_t empty_since_ms = 0;
    std::map<PartitionId, group::OffsetRecord> offsets{};
    std::vector<std::byte> stored_group{};                          // as it was appended
    std::map<group::MemberId, std::vector<std::byte>> stored_members{};
    std::uint64_t stored_changes = 0;  // of the group, as far as they were appended
    bool gone = false;  // removed: whoever waited looks no further
    Notifier changed;
  };
  using EntryPtr = std::shared_ptr<Entry>;

  [[nodiscard]] Answer<EntryPtr> entry_of(const std::string& group, bool make);
  [[nodiscard]] Answer<EntryPtr> known(const std::string& group) const;
  /// Appends what differs from what is stored, and answers when all of the group that was appended is committed.
  [[nodiscard]] Task<Answer<void>> store(std::string name, EntryPtr entry);
  [[nodiscard]] Task<Answer<void>> append(std::vector<StateRecord> records);
  [[nodiscard]] Task<Answer<void>> settled();
  [[nodiscard]] Task<Answer<void>> put_offsets(std::string name, EntryPtr entry, std::vector<std::pair<PartitionId, group::OffsetRecord>> offsets);
  [[nodiscard]] Answer<std::vector<std::pair<PartitionId, group::OffsetRecord>>> checked(const EntryPtr& entry, const std::vector<PartitionCommit>& offsets) const;
  [[nodiscard]] group::PartitionCounts counts_for(const Entry& entry, const std::vector<TopicId>& more) const;
  [[nodiscard]] GroupBeat beat_of(const Entry& entry, const std::string& member, const group::Beat& beat) const;
  [[nodiscard]] std::vector<TopicPartitions> named(const std::vector<PartitionId>& partitions) const;
  [[nodiscard]] Answer<std::vector<PartitionId>> ids_of(const std::vector<TopicPartitions>& partitions) const;
  [[nodiscard]] static std::set<TopicId> topics_of(const Entry& entry);
  [[nodiscard]] GroupState state_of(const Entry& entry) const;
  void forget_if_empty(const std::string& name);
  void fail();
  [[nodiscard]] Result<void> take(const codec::RecordView& record);
  [[nodiscard]] Task<void> expire();
  void rewrite_if_due();
  [[nodiscard]] Task<void> rewrite(std::shared_ptr<GroupCoordinator> self);
  [[nodiscard]] std::size_t live() const;
  [[nodiscard]] std::int64_t now_ms() const;

  ShardCore& core_;
  StateLog log_;
  std::map<std::string, EntryPtr> groups_{};
  // While it loads: members by group, until all are known.
  std::map<std::string, std::map<group::MemberId, group::MemberRecord>> loading_{};
  std::uint64_t catalog_seen_ = 0;
  std::size_t appended_ = 0;  // records since the log was written anew
  std::size_t offset_bytes_ = 0;  // of all groups; limits::kOffsetsBytesMax
  bool rewriting_ = false;
  Instant expire_at_{};
  static constexpr std::chrono::seconds kExpireEvery{60};
  bool failed_ = false;
};

}  // namespace tailrace::broker::service
