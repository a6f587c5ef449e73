#include "service/group_coordinator.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "base/planted.h"
#include "io/wait.h"
#include "service/shard_core.h"

namespace tailrace::broker::service {
namespace {

constexpr std::size_t kRewriteRecords = 500;          // in one batch of a log that is written anew
constexpr std::size_t kRewriteAfter = 4'096;          // records at least, before it is
constexpr std::size_t kStoreBytes = 256 * limits::kKiB;  // of one batch
constexpr std::chrono::seconds kExpireEvery{60};

using group::RecordKey;

/// Of a stored offset: what it takes in memory, about.
std::size_t cost(const group::OffsetRecord& record) { return 112 + record.metadata.size(); }

std::vector<std::byte> key_of_group(const std::string& name) { return encode(RecordKey{.kind = RecordKey::Kind::group, .group = name}); }
std::vector<std::byte> key_of_member(const std::string& name, const group::MemberId& id) {
  return encode(RecordKey{.kind = RecordKey::Kind::member, .group = name, .member = id});
}
std::vector<std::byte> key_of_offset(const std::string& name, const PartitionId& id) {
  return encode(RecordKey{.kind = RecordKey::Kind::offset, .group = name, .partition = id});
}

}  // namespace

GroupCoordinator::GroupCoordinator(ShardCore& core, PartitionId partition) : core_{core}, log_{core, partition} {}

std::int64_t GroupCoordinator::now_ms() const { return core_.runtime.clock.wall().time_since_epoch().count(); }

// ---- what is stored -----------------------------------------------------------------------------------------------------

Task<Answer<void>> GroupCoordinator::load() {
  if (auto opened = co_await log_.open(); !opened) co_return opened;
  StateLog::Visit visit = [this](const codec::RecordView& record) { return take(record); };
  if (auto read = co_await log_.replay(visit); !read) co_return read;
  if (!core_.catalog) co_return refuse(Errc::shutting_down);
  for (auto& [name, entry] : groups_) {
    std::vector<group::MemberRecord> members;
    std::vector<TopicId> topics;
    for (auto& [id, record] : loading_[name]) {
      topics.insert(topics.end(), record.topics.begin(), record.topics.end());
      members.push_back(std::move(record));
    }
    if (auto restored = entry->group.restore(members, counts_for(*entry, topics), core_.runtime.clock.now()); !restored) {
      co_return refuse(restored.error().code, fmt::format("group {}: {}", name, restored.error().detail));
    }
  }
  loading_.clear();
  for (const auto& [name, entry] : groups_) {
    for (const auto& [id, record] : entry->offsets) offset_bytes_ += cost(record);
  }
  catalog_seen_ = core_.catalog->version;
  expire_at_ = core_.runtime.clock.now() + kExpireEvery;
  co_return Answer<void>{};
}

Result<void> GroupCoordinator::take(const codec::RecordView& record) {
  ++appended_;
  TAILRACE_TRY(RecordKey key, group::decode_key(record.key.value_or(Bytes{})));
  EntryPtr& entry = groups_[key.group];
  if (!entry) entry = std::make_shared<Entry>(core_.runtime.executor);
  std::vector<std::byte> bytes;
  if (record.value) bytes.assign(record.value->begin(), record.value->end());
  switch (key.kind) {
    case RecordKey::Kind::group: {
      if (!record.value) {
        groups_.erase(key.group);
        break;
      }
      TAILRACE_TRY(group::GroupRecord stored, group::decode_group(*record.value));
      entry->group = group::Group{{.assignor = stored.assignor}, stored.generation};
      entry->out_of_range = stored.out_of_range;
      entry->empty_since_ms = stored.empty_since_ms;
      entry->stored_group = std::move(bytes);
      break;
    }
    case RecordKey::Kind::member: {
      if (!record.value) {
        loading_[key.group].erase(key.member);
        entry->stored_members.erase(key.member);
        break;
      }
      TAILRACE_TRY(group::MemberRecord member, group::decode_member(key.member, *record.value));
      loading_[key.group][key.member] = std::move(member);
      entry->stored_members[key.member] = std::move(bytes);
      break;
    }
    case RecordKey::Kind::offset: {
      if (!record.value) {
        entry->offsets.erase(key.partition);
        break;
      }
      TAILRACE_TRY(entry->offsets[key.partition], group::decode_offset(*record.value));
      break;
    }
  }
  return {};
}

void GroupCoordinator::fail() {
  failed_ = true;
  for (auto& [name, entry] : groups_) entry->changed.notify_all();
}

void GroupCoordinator::stop() {
  for (auto& [name, entry] : groups_) entry->changed.notify_all();
}

Task<Answer<void>> GroupCoordinator::append(std::vector<StateRecord> records) {
  appended_ += records.size();
  auto appended = co_await log_.append(std::move(records));
  if (!appended) {
    fail();
    co_return std::unexpected(std::move(appended).error());
  }
  co_return Answer<void>{};
}

Task<Answer<void>> GroupCoordinator::settled() {
  if (failed_) co_return refuse(Errc::outcome_unknown, "the coordinator could not store what came before");
  if (planted(PlantedBug::group_answer_early)) co_return Answer<void>{};
  auto committed = co_await log_.committed(log_.end());
  if (!committed) fail();
  co_return committed;
}

/// In an order in which no partition is held by two, wherever a crash cuts it: the generation, who went or let go, then who was given something.
Task<Answer<void>> GroupCoordinator::store(std::string name, EntryPtr entry) {
  if (entry->gone) co_return refuse(Errc::unknown_member, "the group was deleted");
  if (entry->group.size() != 0) entry->empty_since_ms = 0;
  else if (entry->empty_since_ms == 0) entry->empty_since_ms = now_ms();
  std::vector<StateRecord> first, then;
  std::vector<std::byte> group_bytes = encode(group::GroupRecord{.generation = entry->group.generation(), .assignor = entry->group.assignor(),
                                                                 .out_of_range = entry->out_of_range, .empty_since_ms = entry->empty_since_ms});
  if (group_bytes != entry->stored_group) {
    first.push_back({key_of_group(name), group_bytes});
    entry->stored_group = std::move(group_bytes);
  }
  if (entry->stored_changes != entry->group.changes()) {
    entry->stored_changes = entry->group.changes();
    for (auto at = entry->stored_members.begin(); at != entry->stored_members.end();) {
      if (entry->group.has(at->first)) {
        ++at;
        continue;
      }
      first.push_back({key_of_member(name, at->first), std::nullopt});
      at = entry->stored_members.erase(at);
    }
    for (const group::MemberRecord& record : entry->group.stored()) {
      if (planted(PlantedBug::group_forget_members)) break;
      std::vector<std::byte> bytes = encode(record);
      std::vector<std::byte>& before = entry->stored_members[record.member];
      if (before == bytes) continue;
      std::size_t held = 0;
      if (!before.empty()) {
        if (auto stored = group::decode_member(record.member, before)) held = stored->granted.size();
      }
      (record.granted.size() > held ? then : first).push_back({key_of_member(name, record.member), bytes});
      before = std::move(bytes);
    }
  }
  std::ranges::move(then, std::back_inserter(first));
  std::vector<StateRecord> some;
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < first.size(); ++i) {
    bytes += first[i].key.size() + (first[i].value ? first[i].value->size() : 0);
    some.push_back(std::move(first[i]));
    if (bytes < kStoreBytes && i + 1 < first.size()) continue;
    auto appended = co_await append(std::move(some));
    if (!appended) co_return appended;
    some.clear();
    bytes = 0;
  }
  rewrite_if_due();
  co_return co_await settled();
}

std::size_t GroupCoordinator::live() const {
  std::size_t records = 0;
  for (const auto& [name, entry] : groups_) records += 1 + entry->stored_members.size() + entry->offsets.size();
  return records;
}

void GroupCoordinator::rewrite_if_due() {
  if (rewriting_ || failed_ || appended_ < kRewriteAfter || appended_ < 2 * live()) return;
  rewriting_ = true;
  core_.background.spawn(rewrite(shared_from_this()));
}

/// Everything that counts is appended once more, as it is when its turn comes; what lies before is not needed then. Changes that come between are
/// behind what they change, as ever.
Task<void> GroupCoordinator::rewrite([[maybe_unused]] std::shared_ptr<GroupCoordinator> self) {
  appended_ = 0;
  Offset begin = log_.end();
  std::vector<std::string> names;
  for (const auto& [name, entry] : groups_) names.push_back(name);
  for (const std::string& name : names) {
    auto found = groups_.find(name);
    if (found == groups_.end()) continue;
    EntryPtr entry = found->second;
    std::vector<StateRecord> records;
    if (!entry->stored_group.empty()) records.push_back({key_of_group(name), entry->stored_group});
    for (const auto& [id, bytes] : entry->stored_members) records.push_back({key_of_member(name, id), bytes});
    if (!records.empty() && !co_await append(std::move(records))) co_return;
    std::optional<PartitionId> after;
    for (;;) {
      std::vector<StateRecord> some;
      if (entry->gone) break;
      auto at = after ? entry->offsets.upper_bound(*after) : entry->offsets.begin();
      for (; at != entry->offsets.end() && some.size() < kRewriteRecords; ++at) {
        if (planted(PlantedBug::group_rewrite_loses) && std::next(at) == entry->offsets.end()) break;
        some.push_back({key_of_offset(name, at->first), encode(at->second)});
        after = at->first;
      }
      if (some.empty()) break;
      if (!co_await append(std::move(some))) co_return;
    }
  }
  if (auto all = co_await settled(); !all) co_return;
  if (auto cut = co_await log_.cut(begin); !cut) log_warn("group.rewrite", "the log before {} stays: {}", begin.value(), cut.error().detail);
  rewriting_ = false;
}

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
    std::size_t more = cost(out.back().second), less = before == entry->offsets.end() ? 0 : cost(before->second);
    bytes += more > less ? more - less : 0;
  }
  if (bytes > 0 && offset_bytes_ + bytes > limits::kOffsetsBytesMax) return refuse(Errc::too_many, "stored offsets of the groups on this coordinator");
  if (entry->offsets.size() + fresh > limits::kGroupPartitionsMax) return refuse(Errc::too_many, "partitions of one group");
  return out;
}

Task<Answer<void>> GroupCoordinator::put_offsets(std::string name, EntryPtr entry, std::vector<std::pair<PartitionId, group::OffsetRecord>> offsets) {
  // Memory and log change in one step: neither this nor append() up to its place in the log suspends before.
  std::vector<StateRecord> records;
  std::vector<std::vector<StateRecord>> batches;
  std::size_t bytes = 0;
  for (auto& [id, record] : offsets) {
    records.push_back({key_of_offset(name, id), encode(record)});
    bytes += records.back().key.size() + records.back().value->size();
    auto [at, fresh] = entry->offsets.try_emplace(id);
    if (!fresh) offset_bytes_ -= cost(at->second);
    at->second = std::move(record);
    offset_bytes_ += cost(at->second);
    if (bytes < kStoreBytes) continue;
    batches.push_back(std::exchange(records, {}));
    bytes = 0;
  }
  if (!records.empty()) batches.push_back(std::move(records));
  for (auto& batch : batches) {
    if (auto appended = co_await append(std::move(batch)); !appended) co_return appended;
  }
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
    records.push_back({key_of_offset(name, id), std::nullopt});
    offset_bytes_ -= cost(record);
  }
  for (const auto& [id, bytes] : entry->stored_members) records.push_back({key_of_member(name, id), std::nullopt});
  records.push_back({key_of_group(name), std::nullopt});
  for (std::size_t at = 0; at < records.size(); at += kRewriteRecords) {
    std::size_t end = std::min(at + kRewriteRecords, records.size());
    std::vector<StateRecord> some(std::make_move_iterator(records.begin() + static_cast<std::ptrdiff_t>(at)),
                                  std::make_move_iterator(records.begin() + static_cast<std::ptrdiff_t>(end)));
    if (auto appended = co_await append(std::move(some)); !appended) co_return appended;
  }
  co_return co_await settled();
}

// ---- looking ------------------------------------------------------------------------------------------------------------

Task<Answer<std::vector<GroupSummary>>> GroupCoordinator::list() {
  std::vector<GroupSummary> out;
  for (const auto& [name, entry] : groups_) {
    GroupSummary one{.group = name, .state = state_of(*entry), .members = entry->group.size()};
    std::vector<TopicId> topics = entry->group.topics();
    for (const auto& [id, record] : entry->offsets) {
      if (topics.empty() || topics.back() != id.topic) topics.push_back(id.topic);
    }
    std::ranges::sort(topics);
    topics.erase(std::ranges::unique(topics).begin(), topics.end());
    for (const TopicId& id : topics) {
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
  std::vector<TopicId> topics = entry.group.topics();
  for (const auto& [id, record] : entry.offsets) {
    if (topics.empty() || topics.back() != id.topic) topics.push_back(id.topic);
  }
  for (const TopicId& id : topics) {
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

/// A group that was left alone for the retention time is forgotten, and so are offsets of topics that are gone.
Task<void> GroupCoordinator::expire() {
  std::int64_t before = now_ms() - core_.node.options.group_retention.count();
  std::vector<std::string> forgotten;
  std::vector<StateRecord> records;
  for (auto& [name, entry] : groups_) {
    bool old = entry->group.size() == 0 && entry->empty_since_ms != 0 && entry->empty_since_ms <= before;
    if (old && std::ranges::all_of(entry->offsets, [&](const auto& one) { return one.second.time_ms <= before; })) {
      forgotten.push_back(name);
      continue;
    }
    for (auto at = entry->offsets.begin(); at != entry->offsets.end();) {
      if (core_.catalog->find(at->first.topic) || records.size() >= kRewriteRecords) {
        ++at;
        continue;
      }
      records.push_back({key_of_offset(name, at->first), std::nullopt});
      offset_bytes_ -= cost(at->second);
      at = entry->offsets.erase(at);
    }
  }
  if (!records.empty() && !co_await append(std::move(records))) co_return;
  for (const std::string& name : forgotten) {
    auto found = known(name);
    if (!found || (*found)->group.size() != 0) continue;
    log_info("group.expired", "group {}: nobody was in it and nothing was committed for {} h", name, core_.node.options.group_retention.count() / 3'600'000);
    if (auto removed = co_await remove(name); !removed) co_return;
  }
}

}  // namespace tailrace::broker::service
