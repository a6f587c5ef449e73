#include "group/group.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "base/planted.h"
#include "model/limits.h"

namespace tailrace::broker::group {

Result<Beat> Group::join(const Join& request, Instant now) {
  std::vector<TopicId> topics = request.topics;
  std::ranges::sort(topics);
  bool twice = std::ranges::adjacent_find(topics) != topics.end();
  if (topics.empty() || twice || topics.size() > limits::kGroupTopicsMax)
    return fail(Errc::invalid_argument, fmt::format("{} topics; 1 to {}, none twice", topics.size(), limits::kGroupTopicsMax));
  if (request.session_timeout < limits::kSessionTimeoutMin || request.session_timeout > limits::kSessionTimeoutMax)
    return fail(Errc::invalid_argument, "session timeout");
  if (request.member.empty() || request.member.size() > limits::kMemberIdBytesMax || request.instance.size() > limits::kMemberIdBytesMax)
    return fail(Errc::invalid_argument, "a member's name");
  // The one whose place it takes: whatever that process does from here on is refused.
  std::optional<MemberId> replaced;
  for (const auto& [id, member] : members_) {
    if (!request.instance.empty() && member.instance == request.instance && id != request.member) replaced = id;
  }
  if (!members_.contains(request.member) && !replaced && members_.size() >= limits::kGroupMembersMax)
    return fail(Errc::too_many, fmt::format("a group has at most {} members", limits::kGroupMembersMax));
  if (replaced) {
    // The target goes over as it is, so that a restart moves nothing.
    if (auto known = target_.find(*replaced); known != target_.end()) target_[request.member] = known->second;
    remove(*replaced);
  }
  Member& member = members_[request.member];
  bool changed = replaced || member.topics != topics;
  member.instance = request.instance;
  member.topics = std::move(topics);
  member.session_timeout = request.session_timeout;
  member.deadline = now + member.session_timeout;
  ++changes_;
  if (changed) regroup();
  return answer(request.member, member);
}

Result<Beat> Group::heartbeat(const MemberId& id, Generation generation, const std::vector<PartitionId>& owned, Instant now) {
  auto found = members_.find(id);
  if (found == members_.end()) return fail(Errc::unknown_member, "join again");
  Member& member = found->second;
  if (generation < member.told && !planted(PlantedBug::group_skip_fencing)) {
    // The answer was lost, or this is an old one come late: what it says that it reads is no news. Told again.
    member.deadline = now + member.session_timeout;
    return answer(id, member);
  }
  if (generation > member.told) return fail(Errc::invalid_argument, fmt::format("generation {}; it was told {}", generation, member.told));
  std::set<PartitionId> still{owned.begin(), owned.end()};
  for (const PartitionId& partition : still) {
    if (!member.granted.contains(partition)) return fail(Errc::invalid_argument, "a partition that it was not given");
  }
  member.deadline = now + member.session_timeout;
  for (const PartitionId& partition : member.granted) {
    if (!still.contains(partition)) holder_.erase(partition);
  }
  if (member.granted != still) ++changes_;
  member.granted = std::move(still);
  return answer(id, member);
}

/// What it may read: of its target what it has, and what nobody holds any more.
Beat Group::answer(const MemberId& id, Member& member) {
  Beat out{.generation = generation_, .assignment = {}};
  for (const PartitionId& partition : target_[id]) {
    auto holder = holder_.find(partition);
    bool free = holder == holder_.end() || planted(PlantedBug::group_two_owners);
    if (!free && holder->second != id) continue;
    holder_[partition] = id;
    if (member.granted.insert(partition).second) ++changes_;
    out.assignment.push_back(partition);
  }
  if (member.told != generation_) ++changes_;
  member.told = generation_;
  return out;
}

Result<void> Group::leave(const MemberId& member) {
  if (!members_.contains(member)) return fail(Errc::unknown_member, "it is not there");
  remove(member);
  regroup();
  return {};
}

void Group::remove(const MemberId& id) {
  auto found = members_.find(id);
  for (const PartitionId& partition : found->second.granted) {
    if (auto holder = holder_.find(partition); holder != holder_.end() && holder->second == id) holder_.erase(holder);
  }
  members_.erase(found);
  target_.erase(id);
}

void Group::regroup() {
  ++changes_;
  ++generation_;
  target_ = assign();
}

Assignment Group::assign() const {
  std::vector<Subscription> subscriptions;
  for (const auto& [id, member] : members_) subscriptions.push_back({id, member.topics});
  return options_.assignor == Assignor::range ? assign_range(subscriptions, counts_) : assign_sticky(subscriptions, counts_, target_);
}

std::vector<MemberRecord> Group::stored() const {
  std::vector<MemberRecord> out;
  out.reserve(members_.size());
  for (const auto& [id, member] : members_) {
    auto target = target_.find(id);
    out.push_back({.member = id,
                   .instance = member.instance,
                   .topics = member.topics,
                   .session_timeout_ms = std::chrono::ceil<std::chrono::milliseconds>(member.session_timeout).count(),
                   .told = member.told,
                   .granted = {member.granted.begin(), member.granted.end()},
                   .target = target == target_.end() ? std::vector<PartitionId>{} : target->second});
  }
  return out;
}

Result<void> Group::restore(const std::vector<MemberRecord>& members, PartitionCounts counts, Instant now) {
  Group fresh{options_, generation_};
  fresh.counts_ = bounded(std::move(counts));
  for (const MemberRecord& record : members) {
    if (record.told > generation_) return fail(Errc::corrupt, "a stored member was told of a generation that its group never had");
    Member& member = fresh.members_[record.member];
    member = {.instance = record.instance, .topics = record.topics, .session_timeout = std::chrono::milliseconds{record.session_timeout_ms}, .deadline = {}, .told = record.told, .granted = {record.granted.begin(), record.granted.end()}};
    member.deadline = now + member.session_timeout;
    for (const PartitionId& partition : record.granted) {
      if (!fresh.holder_.emplace(partition, record.member).second) return fail(Errc::corrupt, "two stored members hold one partition");
    }
    fresh.target_[record.member] = record.target;
  }
  // Partitions may have come meanwhile.
  if (fresh.assign() != fresh.target_) fresh.regroup();
  fresh.changes_ = changes_ + 1;
  *this = std::move(fresh);
  return {};
}

Result<Duration> Group::session_timeout(const MemberId& id) const {
  auto found = members_.find(id);
  if (found == members_.end()) return fail(Errc::unknown_member, "join again");
  return found->second.session_timeout;
}

std::vector<TopicId> Group::topics() const {
  std::set<TopicId> all;
  for (const auto& [id, member] : members_) all.insert(member.topics.begin(), member.topics.end());
  return {all.begin(), all.end()};
}

Result<void> Group::may_commit(const MemberId& id, Generation generation, const PartitionId& partition) const {
  if (planted(PlantedBug::group_commit_unfenced)) return {};
  auto found = members_.find(id);
  if (found == members_.end()) return fail(Errc::unknown_member, "join again");
  if (generation != found->second.told) return fail(Errc::fenced, fmt::format("generation {}; it was told {}", generation, found->second.told));
  if (!found->second.granted.contains(partition)) return fail(Errc::fenced, "the partition is not its");
  return {};
}

PartitionCounts Group::bounded(PartitionCounts counts) {
  std::size_t total = 0;
  for (auto& [topic, count] : counts) {
    count = std::clamp<std::int32_t>(count, 0, static_cast<std::int32_t>(limits::kGroupPartitionsMax - total));
    total += static_cast<std::size_t>(count);
  }
  return counts;
}

void Group::set_partitions(PartitionCounts counts) {
  counts = bounded(std::move(counts));
  if (counts == counts_) return;
  counts_ = std::move(counts);
  regroup();
}

std::optional<Instant> Group::tick(Instant now) {
  std::vector<MemberId> gone;
  std::optional<Instant> next;
  for (const auto& [id, member] : members_) {
    if (member.deadline <= now && !planted(PlantedBug::group_forgets_to_expire))
      gone.push_back(id);
    else
      next = next ? std::min(*next, member.deadline) : member.deadline;
  }
  for (const MemberId& id : gone) remove(id);
  if (!gone.empty()) regroup();
  return next;
}

std::vector<MemberView> Group::members() const {
  std::vector<MemberView> out;
  for (const auto& [id, member] : members_) {
    auto target = target_.find(id);
    out.push_back({id,
                   member.instance,
                   member.topics,
                   {member.granted.begin(), member.granted.end()},
                   target == target_.end() ? std::vector<PartitionId>{} : target->second,
                   member.deadline});
  }
  return out;
}

bool Group::settled() const {
  return std::ranges::all_of(members_, [&](const auto& entry) {
    auto target = target_.find(entry.first);
    return target != target_.end() && std::ranges::equal(entry.second.granted, target->second) && entry.second.told == generation_;
  });
}

void Group::check_invariants() const {
  std::size_t granted = 0;
  for (const auto& [id, member] : members_) {
    granted += member.granted.size();
    for (const PartitionId& partition : member.granted) {
      auto holder = holder_.find(partition);
      TAILRACE_CHECK(holder != holder_.end() && holder->second == id, "what is granted is held, by one");
    }
    TAILRACE_CHECK(member.told <= generation_, "nobody was told of a generation to come");
  }
  TAILRACE_CHECK(granted == holder_.size(), "what is held was granted");
}

}  // namespace tailrace::broker::group
