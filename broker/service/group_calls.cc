/// Calls about consumer groups: carried to the shard where the group's coordinator lives, and what is said of lag gathered from the partitions' shards.
#include <fmt/format.h>

#include <algorithm>

#include "codec/batch_reader.h"
#include "service/group_host.h"
#include "service/queue_host.h"
#include "service/shard_core.h"

namespace tailrace::broker::service {
namespace {

Answer<void> check_group_name(std::string_view name) {
  if (name.empty() || name.size() > limits::kGroupNameBytesMax) {
    return refuse(Errc::invalid_argument, fmt::format("a group's name has 1 to {} bytes, not {}", limits::kGroupNameBytesMax, name.size()));
  }
  for (unsigned char c : name) {
    if (c < 0x20 || c == 0x7f) return refuse(Errc::invalid_argument, "a group's name has no control characters");
  }
  return {};
}

/// Runs `ask(coordinator)` where the group's coordinator lives. `make`: `__offsets` is made if it is not there.
template <class T, class F>
Task<Answer<T>> at_coordinator(ShardCore& core, PartitionIndex partition, bool make, F ask) {
  cluster::TopicPointer topic = core.catalog->find(kOffsetsTopic);
  if (!topic) {
    if (!make) co_return refuse(Errc::no_such_group, "no group was ever stored");
    auto made = co_await core.ensure_internal(std::string{kOffsetsTopic}, limits::kOffsetsPartitions, std::nullopt);
    if (!made) co_return std::unexpected(std::move(made).error());
    topic = *made;
  }
  auto find = [partition](ShardCore& there) { return there.groups->coordinator(partition); };
  co_return co_await ask_there<T>(core, core.home({topic->id, partition}), std::move(find), std::move(ask));
}

}  // namespace

Task<Answer<GroupBeat>> ShardService::join_group(JoinGroup request) {
  ShardCore& core = *core_;
  CallGuard guard{core};
  if (auto fine = guard.admitted(); !fine) co_return std::unexpected(std::move(fine).error());
  if (auto fine = check_group_name(request.group); !fine) co_return counted(core, Answer<GroupBeat>{std::unexpected(std::move(fine).error())});
  std::vector<TopicId> topics;
  for (const std::string& name : request.topics) {
    auto topic = core.topic_named(name);
    if (topic && (*topic)->internal) topic = refuse(Errc::unauthorized, fmt::format("{} belongs to the broker", name));
    if (!topic) co_return counted(core, Answer<GroupBeat>{std::unexpected(std::move(topic).error())});
    topics.push_back((*topic)->id);
  }
  PartitionIndex at = coordinator_of(request.group);
  auto ask = [&](GroupCoordinator& there) { return there.join(std::move(request), std::move(topics)); };
  co_return counted(core, co_await at_coordinator<GroupBeat>(core, at, true, ask));
}

Task<Answer<GroupBeat>> ShardService::group_heartbeat(GroupHeartbeat request) {
  ShardCore& core = *core_;
  CallGuard guard{core, &ShardCore::fetches};
  if (auto fine = guard.admitted(); !fine) co_return std::unexpected(std::move(fine).error());
  PartitionIndex at = coordinator_of(request.group);
  auto ask = [&](GroupCoordinator& there) { return there.heartbeat(std::move(request)); };
  co_return counted(core, co_await at_coordinator<GroupBeat>(core, at, false, ask));
}

void ShardService::end_waits() {
  core_->waits_end = true;
  if (core_->groups) core_->groups->stop();
  if (core_->queues) core_->queues->stop();
}

Task<Answer<void>> ShardService::leave_group(std::string group, std::string member) {
  ShardCore& core = *core_;
  CallGuard guard{core};
  if (auto fine = guard.admitted(); !fine) co_return fine;
  PartitionIndex at = coordinator_of(group);
  auto ask = [&](GroupCoordinator& there) { return there.leave(std::move(group), std::move(member)); };
  co_return counted(core, co_await at_coordinator<void>(core, at, false, ask));
}

Task<Answer<void>> ShardService::commit_offsets(CommitOffsets request) {
  ShardCore& core = *core_;
  CallGuard guard{core};
  if (auto fine = guard.admitted(); !fine) co_return fine;
  if (auto fine = check_group_name(request.group); !fine) co_return counted(core, std::move(fine));
  PartitionIndex at = coordinator_of(request.group);
  bool outside = request.member.empty();
  auto ask = [&](GroupCoordinator& there) { return there.commit(std::move(request)); };
  co_return counted(core, co_await at_coordinator<void>(core, at, outside, ask));
}

Task<Answer<std::vector<StoredOffset>>> ShardService::stored_offsets(std::string group, std::vector<TopicPartitions> of) {
  using Reply = std::vector<StoredOffset>;
  ShardCore& core = *core_;
  CallGuard guard{core};
  if (auto fine = guard.admitted(); !fine) co_return std::unexpected(std::move(fine).error());
  PartitionIndex at = coordinator_of(group);
  auto ask = [&](GroupCoordinator& there) { return there.offsets(std::move(group), std::move(of)); };
  auto answer = co_await at_coordinator<Reply>(core, at, false, ask);
  if (!answer && answer.error().code == Errc::no_such_group) co_return Reply{};
  co_return counted(core, std::move(answer));
}

Task<Answer<std::vector<GroupSummary>>> ShardService::list_groups() {
  using Reply = std::vector<GroupSummary>;
  ShardCore& core = *core_;
  CallGuard guard{core};
  if (auto fine = guard.admitted(); !fine) co_return std::unexpected(std::move(fine).error());
  Reply all;
  for (std::int32_t i = 0; i < limits::kOffsetsPartitions; ++i) {
    auto ask = [](GroupCoordinator& there) { return there.list(); };
    auto some = co_await at_coordinator<Reply>(core, PartitionIndex{i}, false, ask);
    if (!some && some.error().code == Errc::no_such_group) co_return all;
    if (!some) co_return counted(core, std::move(some));
    std::ranges::move(*some, std::back_inserter(all));
  }
  std::ranges::sort(all, {}, &GroupSummary::group);
  co_return all;
}

Task<Answer<GroupDescription>> ShardService::describe_group(std::string group) {
  ShardCore& core = *core_;
  CallGuard guard{core};
  if (auto fine = guard.admitted(); !fine) co_return std::unexpected(std::move(fine).error());
  PartitionIndex at = coordinator_of(group);
  auto ask = [&](GroupCoordinator& there) { return there.describe(std::move(group)); };
  auto described = co_await at_coordinator<GroupDescription>(core, at, false, ask);
  if (!described) co_return counted(core, std::move(described));
  co_await core.measure(*described);
  co_return described;
}

/// Fills in what the partitions' shards know.
Task<void> ShardCore::measure(GroupDescription& group, const KnownUnread* known, KnownUnread* found) {
  std::int64_t now = runtime.clock.wall().time_since_epoch().count();
  auto look = [&](std::int32_t i) -> Task<Result<void>> {
    GroupLag& lag = group.partitions[static_cast<std::size_t>(i)];
    cluster::TopicPointer topic = catalog ? catalog->find(lag.topic) : nullptr;
    if (!topic) co_return Result<void>{};
    ShardCore& there = core_of(home({topic->id, lag.partition}));
    // `known` is only read, and not changed before this answer is there.
    auto ask = [&there, id = topic->id, partition = lag.partition, from = lag.committed, known] { return there.unread(id, partition, Offset{from}, known); };
    auto answer = co_await port.call_on(there.index, std::move(ask));
    if (!answer) co_return Result<void>{};  // shown as not known
    lag.log_start = answer->log_start.value();
    lag.high_watermark = answer->high_watermark.value();
    lag.records = answer->records;
    if (found && answer->oldest_ms >= 0) (*found)[{{topic->id, lag.partition}, answer->first}] = answer->oldest_ms;
    if (answer->oldest_ms >= 0 || answer->records == 0) lag.behind_ms = answer->records == 0 ? 0 : std::max<std::int64_t>(now - answer->oldest_ms, 0);
    co_return Result<void>{};
  };
  (void)co_await for_each_bounded(0, static_cast<std::int32_t>(group.partitions.size()), limits::kPartitionsOpeningMax, look);
}

Task<Answer<void>> ShardService::reset_offsets(std::string group, std::vector<PartitionCommit> offsets, bool kick) {
  ShardCore& core = *core_;
  CallGuard guard{core};
  if (auto fine = guard.admitted(); !fine) co_return fine;
  if (auto fine = check_group_name(group); !fine) co_return counted(core, std::move(fine));
  PartitionIndex at = coordinator_of(group);
  auto ask = [&](GroupCoordinator& there) { return there.reset(std::move(group), std::move(offsets), kick); };
  co_return counted(core, co_await at_coordinator<void>(core, at, true, ask));
}

Task<Answer<void>> ShardService::delete_group(std::string group) {
  ShardCore& core = *core_;
  CallGuard guard{core};
  if (auto fine = guard.admitted(); !fine) co_return fine;
  PartitionIndex at = coordinator_of(group);
  auto ask = [&](GroupCoordinator& there) { return there.remove(std::move(group)); };
  co_return counted(core, co_await at_coordinator<void>(core, at, false, ask));
}

/// What a reader that would go on at `from` has not read; below the log start nothing can be read any more.
Task<Answer<Unread>> ShardCore::unread(TopicId topic, PartitionIndex partition, Offset from, const KnownUnread* known) {
  auto found = slot_for({topic, partition});
  if (!found) co_return std::unexpected(std::move(found).error());
  SlotUse slot{*std::move(found)};
  if (auto opened = co_await open(*slot); !opened) co_return std::unexpected(std::move(opened).error());
  log::PartitionPtr log = slot->log;
  if (!slot->replicated->serving()) co_return std::unexpected(Refusal{slot->replicated->not_leader()});
  Unread out{.log_start = log->log_start(), .high_watermark = log->high_watermark()};
  Offset next = std::max(from, out.log_start);
  out.records = std::max<std::int64_t>(out.high_watermark - next, 0);
  out.first = next;
  if (out.records == 0) co_return out;
  if (known) {
    if (auto at = known->find({{topic, partition}, next}); at != known->end()) {
      out.oldest_ms = at->second;
      co_return out;
    }
  }
  auto read = co_await log->read(next, {.bytes_max = 1, .batches_max = 1});
  if (!read || read->batches.empty()) co_return out;
  auto reader = codec::BatchReader::open(read->batches.front().bytes(), {.check_crc = false});
  if (!reader) co_return out;
  codec::RecordView record;
  while (reader->next(record)) {
    if (record.offset < next) continue;
    out.oldest_ms = record.timestamp;
    break;
  }
  co_return out;
}

}  // namespace tailrace::broker::service
