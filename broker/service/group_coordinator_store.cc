/// What a coordinator of groups reads and writes: its log at the start, what differs after each change, all of it anew now and then, what nobody needs any more.
#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "base/planted.h"
#include "service/group_coordinator.h"
#include "service/shard_core.h"

namespace tailrace::broker::service {
namespace {

constexpr std::size_t kRewriteAfter = 4'096;             // records at least, before the log is written anew
constexpr std::size_t kBatchBytes = 256 * limits::kKiB;  // of one batch, about
constexpr std::size_t kBatchRecords = 500;

using group::RecordKey;

}  // namespace

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
    for (const auto& [id, record] : entry->offsets) offset_bytes_ += record.bytes();
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

/// In the order of the calls, as many batches as it takes: all of them have their places in the log before anything suspends.
Task<Answer<void>> GroupCoordinator::append(std::vector<StateRecord> records) {
  appended_ += records.size();
  Answer<void> all;
  auto append_one = [&](std::vector<StateRecord> batch) -> Task<void> {
    auto appended = co_await log_.append(std::move(batch));
    if (!appended && all) all = std::unexpected(std::move(appended).error());
  };
  TaskScope scope;
  std::vector<StateRecord> batch;
  std::size_t bytes = 0;
  for (StateRecord& record : records) {
    bytes += record.key.size() + (record.value ? record.value->size() : 0);
    batch.push_back(std::move(record));
    if (bytes < kBatchBytes && batch.size() < kBatchRecords) continue;
    scope.spawn(append_one(std::exchange(batch, {})));
    bytes = 0;
  }
  if (!batch.empty()) scope.spawn(append_one(std::move(batch)));
  co_await scope.drain();
  if (!all) fail();
  co_return all;
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
    first.push_back({group::key_of_group(name), group_bytes});
    entry->stored_group = std::move(group_bytes);
  }
  if (entry->stored_changes != entry->group.changes()) {
    entry->stored_changes = entry->group.changes();
    for (auto at = entry->stored_members.begin(); at != entry->stored_members.end();) {
      if (entry->group.has(at->first)) {
        ++at;
        continue;
      }
      first.push_back({group::key_of_member(name, at->first), std::nullopt});
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
      (record.granted.size() > held ? then : first).push_back({group::key_of_member(name, record.member), bytes});
      before = std::move(bytes);
    }
  }
  std::ranges::move(then, std::back_inserter(first));
  if (auto appended = co_await append(std::move(first)); !appended) co_return appended;
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
    if (!entry->stored_group.empty()) records.push_back({group::key_of_group(name), entry->stored_group});
    for (const auto& [id, bytes] : entry->stored_members) records.push_back({group::key_of_member(name, id), bytes});
    if (!records.empty() && !co_await append(std::move(records))) co_return;
    std::optional<PartitionId> after;
    while (!entry->gone) {
      std::vector<StateRecord> some;
      auto at = after ? entry->offsets.upper_bound(*after) : entry->offsets.begin();
      for (; at != entry->offsets.end() && some.size() < kBatchRecords; ++at) {
        if (planted(PlantedBug::group_rewrite_loses) && std::next(at) == entry->offsets.end()) break;
        some.push_back({group::key_of_offset(name, at->first), encode(at->second)});
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
      if (core_.catalog->find(at->first.topic) || records.size() >= kBatchRecords) {
        ++at;
        continue;
      }
      records.push_back({group::key_of_offset(name, at->first), std::nullopt});
      offset_bytes_ -= at->second.bytes();
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
