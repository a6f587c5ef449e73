#include "service/group_coordinator.h"

#include <fmt/format.h>

#include <algorithm>

#include "io/wait.h"
#include "service/shard_core.h"

namespace tailrace::broker::service {
GroupCoordinator::GroupCoordinator(ShardCore& core, PartitionId partition) : core_{core}, log_{core, partition} {}

std::int64_t GroupCoordinator::now_ms() const { return core_.runtime.clock.wall().time_since_epoch().count(); }

// ---- names and ids ------------------------------------------------------------------------------------------------------

std::vector<TopicPartitions> GroupCoordinator::named(const std::vector<PartitionId>& partitions) const {
  std::vector<TopicPartitions> out;
  TopicId last{};
  bool there = false;
  for (const PartitionId& id : partitions) {
    if (out.empty() || id.topic != last || !there) {
      cluster::TopicPointer topic = core_.catalog ? core_.catalog->find(id.topic) : nullptr;
      last = id.topic;
      there = topic != nullptr;
      if (!there) continue;
      if (out.empty() || out.back().topic != topic->name) out.push_back({topic->name, {}});
    }
    if (there) out.back().partitions.push_back(id.index);
  }
  return out;
}

Answer<std::vector<PartitionId>> GroupCoordinator::ids_of(const std::vector<TopicPartitions>& partitions) const {
  std::vector<PartitionId> out;
  for (const TopicPartitions& some : partitions) {
    cluster::TopicPointer topic = core_.catalog ? core_.catalog->find(some.topic) : nullptr;
    if (!topic) continue;  // deleted: nobody has it
    for (PartitionIndex index : some.partitions) out.push_back({topic->id, index});
  }
  if (out.size() > limits::kGroupPartitionsMax) return refuse(Errc::too_many, "partitions");
  std::ranges::sort(out);
  return out;
}

group::PartitionCounts GroupCoordinator::counts_for(const Entry& entry, const std::vector<TopicId>& more) const {
  group::PartitionCounts counts;
  std::vector<TopicId> all = entry.group.topics();
  all.insert(all.end(), more.begin(), more.end());
  for (const TopicId& id : all) {
    if (cluster::TopicPointer topic = core_.catalog->find(id)) counts[id] = topic->partitions;
  }
  return counts;
}

GroupBeat GroupCoordinator::beat_of(const Entry& entry, const std::string& member, const group::Beat& beat) const {
  return {.member = member, .generation = beat.generation, .assignment = named(beat.assignment), .out_of_range = entry.out_of_range};
}

Answer<GroupCoordinator::EntryPtr> GroupCoordinator::known(const std::string& name) const {
  auto found = groups_.find(name);
  if (found == groups_.end()) return refuse(Errc::no_such_group, name);
  return found->second;
}

Answer<GroupCoordinator::EntryPtr> GroupCoordinator::entry_of(const std::string& name, bool make) {
  auto found = groups_.find(name);
  if (found != groups_.end()) return found->second;
  if (!make) return refuse(Errc::unknown_member, "there is no such group: join again");
  if (groups_.size() >= limits::kGroupsMax) return refuse(Errc::too_many, fmt::format("{} groups on one coordinator", groups_.size()));
  return groups_[name] = std::make_shared<Entry>(core_.runtime.executor);
}

/// Whoever was refused leaves no group behind.
void GroupCoordinator::forget_if_empty(const std::string& name) {
  auto found = groups_.find(name);
  if (found == groups_.end()) return;
  const Entry& entry = *found->second;
  if (entry.group.size() == 0 && entry.offsets.empty() && entry.stored_group.empty()) groups_.erase(found);
}

GroupState GroupCoordinator::state_of(const Entry& entry) const {
  if (entry.group.size() == 0) return GroupState::empty;
  return entry.group.settled() ? GroupState::stable : GroupState::moving;
}

// ---- members ------------------------------------------------------------------------------------------------------------

Task<Answer<GroupBeat>> GroupCoordinator::join(JoinGroup request, std::vector<TopicId> topics) {
  if (!core_.catalog) co_return refuse(Errc::shutting_down);
  auto found = entry_of(request.group, request.member.empty());
  if (!found) co_return std::unexpected(std::move(found).error());
  EntryPtr entry = *std::move(found);
  Instant now = core_.runtime.clock.now();
  if (!request.member.empty() && !entry->group.has(request.member)) co_return refuse(Errc::unknown_member, "join again, as a new one");
  if (request.member.empty()) {
    do request.member = fmt::format("m-{:016x}", core_.runtime.random.next());
    while (entry->group.has(request.member));
  }
  if (entry->group.size() == 0) {
    entry->group.set_assignor(request.assignor);
    entry->out_of_range = request.out_of_range;
  }
  entry->group.set_partitions(counts_for(*entry, topics));
  auto beat = entry->group.join({.member = request.member, .instance = request.instance, .topics = std::move(topics), .session_timeout = request.session_timeout}, now);
  if (!beat) {
    forget_if_empty(request.group);
    co_return std::unexpected(Refusal{std::move(beat).error()});
  }
  entry->changed.notify_all();
  if (auto stored = co_await store(request.group, entry); !stored) co_return std::unexpected(std::move(stored).error());
  co_return beat_of(*entry, request.member, *beat);
}

Task<Answer<GroupBeat>> GroupCoordinator::heartbeat(GroupHeartbeat request) {
  for (;;) {
    if (core_.stopping || core_.waits_end || !core_.catalog) co_return refuse(Errc::shutting_down);
    if (failed_) co_return refuse(Errc::not_leader, "the coordinator begins anew");
    auto found = entry_of(request.group, false);
    if (!found) co_return std::unexpected(std::move(found).error());
    EntryPtr entry = *std::move(found);
    auto owned = ids_of(request.owned);
    if (!owned) co_return std::unexpected(std::move(owned).error());
    Instant now = core_.runtime.clock.now();
    std::uint64_t before = entry->group.changes();
    auto beat = entry->group.heartbeat(request.member, request.generation, *owned, now);
    if (!beat) co_return std::unexpected(Refusal{std::move(beat).error()});
    if (entry->group.changes() != before) entry->changed.notify_all();
    bool changed = entry->stored_changes != entry->group.changes();
    if (changed) {
      if (auto stored = co_await store(request.group, entry); !stored) co_return std::unexpected(std::move(stored).error());
    }
    bool news = beat->generation != request.generation || beat->assignment != *owned;
    if (news && !changed) {  // what it hears was appended by somebody else's call
      if (auto all = co_await settled(); !all) co_return std::unexpected(std::move(all).error());
    }
    if (!news && !changed) {
      // A member that hangs up while it waits must not look alive for long.
      auto session = entry->group.session_timeout(request.member);
      request.wait_until = std::min(request.wait_until, session ? now + *session / 2 : now);
    }
    if (news || core_.runtime.clock.now() >= request.wait_until) co_return beat_of(*entry, request.member, *beat);
    if (changed) continue;  // storing took time: others may have come
    bool notified = co_await io::WaitUntil{entry->changed, core_.runtime, request.wait_until};
    if (!notified) request.wait_until = core_.runtime.clock.now();
  }
}

Task<Answer<void>> GroupCoordinator::leave(std::string name, std::string member) {
  auto found = entry_of(name, false);
  if (!found) co_return std::unexpected(std::move(found).error());
  EntryPtr entry = *std::move(found);
  if (auto left = entry->group.leave(member); !left) co_return std::unexpected(Refusal{std::move(left).error()});
  entry->changed.notify_all();
  co_return co_await store(std::move(name), std::move(entry));
}

// ---- offsets ------------------------------------------------------------------------------------------------------------

Answer<std::vector<std::pair<PartitionId, group::OffsetRecord>>> GroupCoordinator::checked(const EntryPtr& entry, const std::vector<PartitionCommit>& offsets) const {
  if (!core_.catalog) return refuse(Errc::shutting_down);
  if (offsets.size() > limits::kOffsetsPerCommitMax) return refuse(Errc::too_many, fmt::format("{} offsets in one commit", offsets.size()));
  std::vector<std::pair<PartitionId, group::OffsetRecord>> out;
  std::size_t fresh = 0, bytes = 0;
  for (const PartitionCommit& one : offsets) {
    cluster::TopicPointer topic = core_.catalog->find(one.topic);
    if (!topic || topic->internal) return refuse(Errc::no_such_topic, one.topic);
    if (!topic->has(one.partition)) return refuse(Errc::no_such_partition, fmt::format("topic {} partition {}", one.topic, one.partition.value()));
    if (one.offset < Offset{0}) return refuse(Errc::invalid_argument, fmt::format("offset {}: an offset is not negative", one.offset.value()));
    if (one.metadata.size() > limits::kOffsetMetadataBytesMax) return refuse(Errc::too_large, fmt::format("{} bytes beside an offset", one.metadata.size()));
    PartitionId id{topic->id, one.partition};
    fresh += entry->offsets.contains(id) ? 0 : 1;
    out.emplace_back(id, group::OffsetRecord{.offset = one.offset, .leader_epoch = one.leader_epoch, .time_ms = now_ms(), .metadata = one.metadata});
    auto before = entry->offsets.find(id);
    std::size_t more = out.back().second.bytes(), less = before == entry->offsets.end() ? 0 : before->second.bytes();
    bytes += more > less ? more - less : 0;
  }
  if (bytes > 0 && offset_bytes_ + bytes > limits::kOffsetsBytesMax) return refuse(Errc::too_many, "stored offsets of the groups on this coordinator");
  if (entry->offsets.size() + fresh > limits::kGroupPartitionsMax) return refuse(Errc::too_many, "partitions of one group");
  return out;
}

Task<Answer<void>> GroupCoordinator::put_offsets(std::string name, EntryPtr entry, std::vector<std::pair<PartitionId, group::OffsetRecord>> offsets) {
  // Memory and log change in one step: nothing suspends before all of it has its place in the log.
  std::vector<StateRecord> records;
  for (auto& [id, record] : offsets) {
    records.push_back({group::key_of_offset(name, id), encode(record)});
    auto [at, fresh] = entry->offsets.try_emplace(id);
    if (!fresh) offset_bytes_ -= at->second.bytes();
    at->second = std::move(record);
    offset_bytes_ += at->second.bytes();
  }
  if (auto appended = co_await append(std::move(records)); !appended) co_return appended;
  rewrite_if_due();
  co_return co_await settled();
}

Task<Answer<void>> GroupCoordinator::commit(CommitOffsets request) {
  bool outside = request.member.empty();
  auto found = entry_of(request.group, outside);
  if (!found) co_return std::unexpected(std::move(found).error());
  EntryPtr entry = *std::move(found);
  auto offsets = checked(entry, request.offsets);
  if (!offsets) {
    forget_if_empty(request.group);
    co_return std::unexpected(std::move(offsets).error());
  }
  if (outside && entry->group.size() != 0) co_return refuse(Errc::group_not_empty, fmt::format("{} members; only they commit", entry->group.size()));
  for (const auto& [id, record] : *offsets) {
    if (outside) break;
    if (auto may = entry->group.may_commit(request.member, request.generation, id); !may) co_return std::unexpected(Refusal{std::move(may).error()});
  }
  if (outside && entry->stored_group.empty()) {
    if (auto stored = co_await store(request.group, entry); !stored) co_return stored;
    if (entry->gone || entry->group.size() != 0) co_return refuse(Errc::group_not_empty, "somebody joined meanwhile");
  }
  co_return co_await put_offsets(std::move(request.group), std::move(entry), *std::move(offsets));
}

Task<Answer<std::vector<StoredOffset>>> GroupCoordinator::offsets(std::string name, std::vector<TopicPartitions> of) {
  auto found = known(name);
  if (!found) co_return std::vector<StoredOffset>{};
  auto ids = ids_of(of);
  if (!ids) co_return std::unexpected(std::move(ids).error());
  std::vector<StoredOffset> out;
  for (const auto& [id, record] : (*found)->offsets) {
    if (!of.empty() && !std::ranges::binary_search(*ids, id)) continue;
    cluster::TopicPointer topic = core_.catalog ? core_.catalog->find(id.topic) : nullptr;
    if (topic) out.push_back({topic->name, id.index, record});
  }
  // What was read is stored for good before it is told.
  if (auto all = co_await settled(); !all) co_return std::unexpected(std::move(all).error());
  co_return out;
}

Task<Answer<void>> GroupCoordinator::reset(std::string name, std::vector<PartitionCommit> offsets, bool kick) {
  auto found = entry_of(name, true);
  if (!found) co_return std::unexpected(std::move(found).error());
  EntryPtr entry = *std::move(found);
  auto fine = checked(entry, offsets);
  if (!fine) {
    forget_if_empty(name);
    co_return std::unexpected(std::move(fine).error());
  }
  if (entry->group.size() != 0 && !kick) co_return refuse(Errc::group_not_empty, fmt::format("{} members", entry->group.size()));
  for (const group::MemberRecord& member : entry->group.stored()) (void)entry->group.leave(member.member);
  entry->changed.notify_all();
  if (auto stored = co_await store(name, entry); !stored) co_return stored;
  if (entry->gone || entry->group.size() != 0) co_return refuse(Errc::group_not_empty, "somebody joined meanwhile");
  co_return co_await put_offsets(std::move(name), std::move(entry), *std::move(fine));
}

Task<Answer<void>> GroupCoordinator::remove(std::string name) {
  auto found = known(name);
  if (!found) co_return std::unexpected(std::move(found).error());
  EntryPtr entry = *std::move(found);
  if (entry->group.size() != 0) co_return refuse(Errc::group_not_empty, fmt::format("{} members", entry->group.size()));
  entry->gone = true;
  groups_.erase(name);
  entry->changed.notify_all();
  std::vector<StateRecord> records;
  for (const auto& [id, record] : entry->offsets) {
    records.push_back({group::key_of_offset(name, id), std::nullopt});
    offset_bytes_ -= record.bytes();
  }
  for (const auto& [id, bytes] : entry->stored_members) records.push_back({group::key_of_member(name, id), std::nullopt});
  records.push_back({group::key_of_group(name), std::nullopt});
  if (auto appended = co_await append(std::move(records)); !appended) co_return appended;
  co_return co_await settled();
}

/// That members subscribe to, or of which offsets are stored.
std::set<TopicId> GroupCoordinator::topics_of(const Entry& entry) {
  std::set<TopicId> topics;
  for (const TopicId& id : entry.group.topics()) topics.insert(id);
  for (const auto& [id, record] : entry.offsets) topics.insert(id.topic);
  return topics;
}

// ---- looking ------------------------------------------------------------------------------------------------------------

Task<Answer<std::vector<GroupSummary>>> GroupCoordinator::list() {
  std::vector<GroupSummary> out;
  for (const auto& [name, entry] : groups_) {
    GroupSummary one{.group = name, .state = state_of(*entry), .members = entry->group.size()};
    for (const TopicId& id : topics_of(*entry)) {
      if (cluster::TopicPointer topic = core_.catalog ? core_.catalog->find(id) : nullptr) one.topics.push_back(topic->name);
    }
    std::ranges::sort(one.topics);
    out.push_back(std::move(one));
  }
  if (auto all = co_await settled(); !all) co_return std::unexpected(std::move(all).error());
  co_return out;
}

Task<Answer<GroupDescription>> GroupCoordinator::describe(std::string name) {
  auto found = known(name);
  if (!found) co_return std::unexpected(std::move(found).error());
  const Entry& entry = **found;
  GroupDescription out{.group = name, .state = state_of(entry), .generation = entry.group.generation(), .assignor = entry.group.assignor(),
                       .out_of_range = entry.out_of_range, .empty_since_ms = entry.empty_since_ms};
  std::map<PartitionId, GroupLag> partitions;
  Instant now = core_.runtime.clock.now();
  for (const group::MemberView& member : entry.group.members()) {
    auto session = entry.group.session_timeout(member.member);
    out.members.push_back({.member = member.member, .instance = member.instance, .granted = named(member.granted), .target = named(member.target),
                           .session_timeout = std::chrono::duration_cast<std::chrono::milliseconds>(session.value_or(Duration{})),
                           .silent_after = std::chrono::duration_cast<std::chrono::milliseconds>(std::max(member.deadline - now, Duration{}))});
    for (const PartitionId& id : member.granted) partitions[id].member = member.member;
  }
  for (const auto& [id, record] : entry.offsets) {
    GroupLag& lag = partitions[id];
    lag.committed = record.offset.value();
    lag.committed_time_ms = record.time_ms;
    lag.metadata = record.metadata;
  }
  // What nobody has begun is behind too, and counts.
  for (const TopicId& id : topics_of(entry)) {
    cluster::TopicPointer topic = core_.catalog ? core_.catalog->find(id) : nullptr;
    for (std::int32_t i = 0; topic && i < topic->partitions && partitions.size() < limits::kGroupPartitionsMax; ++i) partitions.try_emplace({id, PartitionIndex{i}});
  }
  for (auto& [id, lag] : partitions) {
    cluster::TopicPointer topic = core_.catalog ? core_.catalog->find(id.topic) : nullptr;
    if (!topic || !topic->has(id.index)) continue;
    lag.topic = topic->name;
    lag.partition = id.index;
    out.partitions.push_back(std::move(lag));
  }
  std::ranges::sort(out.partitions, {}, [](const GroupLag& one) { return std::pair{std::string_view{one.topic}, one.partition}; });
  if (auto all = co_await settled(); !all) co_return std::unexpected(std::move(all).error());
  co_return out;
}

// ---- now and then -------------------------------------------------------------------------------------------------------

Task<void> GroupCoordinator::tick() {
  if (failed_ || core_.stopping || !core_.catalog) co_return;
  Instant now = core_.runtime.clock.now();
  bool topics_changed = catalog_seen_ != core_.catalog->version;
  catalog_seen_ = core_.catalog->version;
  std::vector<std::pair<std::string, EntryPtr>> changed;
  for (auto& [name, entry] : groups_) {
    if (entry->group.size() == 0) continue;
    (void)entry->group.tick(now);
    if (topics_changed) entry->group.set_partitions(counts_for(*entry, {}));
    if (entry->stored_changes == entry->group.changes()) continue;
    entry->changed.notify_all();
    changed.emplace_back(name, entry);
  }
  for (auto& [name, entry] : changed) {
    if (auto stored = co_await store(name, entry); !stored) co_return;
  }
  if (now >= expire_at_) {
    expire_at_ = now + kExpireEvery;
    co_await expire();
  }
}

}  // namespace tailrace::broker::service
