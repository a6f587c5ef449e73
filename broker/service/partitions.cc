/// What the controller and the admin calls ask of the partitions that live on a shard.
#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "codec/batch_reader.h"
#include "service/members_codec.h"
#include "service/queue_host.h"
#include "service/shard_core.h"
#include "service/stream_partition.h"

namespace tailrace::broker::service {
namespace {

std::int64_t milliseconds_of(const std::optional<WallTime>& time) { return time ? time->time_since_epoch().count() : -1; }

/// The first record of `batch` at or after `time_ms`, at an offset of at least `from`.
Result<std::optional<log::OffsetAtTime>> record_at_time(Bytes batch, Offset from, std::int64_t time_ms) {
  TAILRACE_TRY(auto reader, codec::BatchReader::open(batch, {.check_crc = false}));
  codec::RecordView record;
  while (reader.next(record)) {
    if (record.offset >= from && record.timestamp >= time_ms) {
      return std::optional<log::OffsetAtTime>{log::OffsetAtTime{.offset = record.offset, .time_ms = record.timestamp}};
    }
  }
  if (const auto& error = reader.error()) return std::unexpected(*error);
  return std::optional<log::OffsetAtTime>{};
}

}  // namespace

Task<Result<void>> ShardCore::create_partitions(TopicId topic, std::int32_t from, std::int32_t to, TopicConfig config, std::vector<raft::ReplicaId> voters) {
  auto create = [&](std::int32_t i) -> Task<Result<void>> {
    PartitionId id{topic, PartitionIndex{i}};
    if (home(id) != index) co_return Result<void>{};
    std::vector<std::byte> members;
    if (!voters.empty()) members = encode_members(raft::Membership::of_voters(voters));
    auto created = co_await log->create(id, log_options(config), log::ShardLog::Begin::empty, std::move(members));
    if (!created) co_return std::unexpected(std::move(created).error());
    co_return Result<void>{};
  };
  co_return co_await for_each_bounded(from, to, limits::kPartitionsOpeningMax, create);
}

/// Replicas of other brokers' partitions must vote and answer, used by a client or not.
Task<void> ShardCore::open_all() {
  std::shared_ptr<const cluster::Catalog> seen = catalog;
  for (const auto& [id, topic] : seen->by_id) {
    for (std::int32_t i = 0; i < topic->partitions && !stopping; ++i) {
      PartitionId partition{id, PartitionIndex{i}};
      if (id == kMetadataTopicId || home(partition) != index) continue;
      SlotUse slot{slot_of(partition, topic)};
      if (auto opened = co_await open(*slot); !opened) log_warn("partition.not_opened", "topic {} partition {}: {}", topic->name, i, opened.error().detail);
    }
  }
}

void ShardCore::receive(PeerMessage message) {
  if (stopping) return;
  if (!std::holds_alternative<raft::Message>(message.body)) {
    auto find = [this](const PartitionId& id) -> ReplicatedPartition* {
      auto slot = slots.find(id);
      return slot == slots.end() || slot->second->removing ? nullptr : slot->second->replicated.get();
    };
    return replication->receive_heartbeats(message, find);
  }
  auto at = slots.find(message.partition);
  if (at == slots.end() || at->second->removing || !at->second->replicated) return;
  at->second->replicated->receive(std::move(message));
}

Task<Result<void>> ShardCore::remove_partitions(TopicId topic, std::int32_t from, std::int32_t to) {
  // Readers and producers first: all of them leave at the same time, however many partitions there are.
  for (std::int32_t i = from; i < to; ++i) {
    auto at = slots.find({topic, PartitionIndex{i}});
    if (at == slots.end()) continue;
    turn_away(*at->second);
  }
  auto remove = [&](std::int32_t i) -> Task<Result<void>> {
    PartitionId id{topic, PartitionIndex{i}};
    if (home(id) != index) co_return Result<void>{};
    queues->forget(id);
    if (auto at = slots.find(id); at != slots.end()) {
      std::shared_ptr<PartitionSlot> slot = at->second;
      while (slot->users != 0) co_await slot->changed.wait();
      if (slot->streams) co_await slot->streams->forget();
      slot->streams.reset();
      if (slot->log) --counters.partitions_open;
      if (slot->replicated) slot->replicated->close();
      slot->replicated.reset();
      slot->log.reset();
      slots.erase(id);
    }
    auto removed = co_await log->remove(id);
    if (!removed && removed.error().code != Errc::no_such_partition) co_return removed;
    co_return Result<void>{};
  };
  Result<void> removed = co_await for_each_bounded(from, to, limits::kPartitionsOpeningMax, remove);
  bool in_use = std::ranges::any_of(slots, [&](const auto& entry) { return entry.first.topic == topic; });
  if (!in_use) topic_counters.erase(topic);
  co_return removed;
}

Task<Answer<std::vector<PartitionDescription>>> ShardCore::describe_partitions(TopicId topic) {
  if (stopping) co_return refuse(Errc::shutting_down);
  std::vector<PartitionDescription> all;
  for (std::int32_t i = 0;; ++i) {
    cluster::TopicPointer known = catalog ? catalog->find(topic) : nullptr;  // opening takes time: it may be altered or deleted meanwhile
    if (!known) co_return refuse(Errc::no_such_topic, "it was deleted");
    if (i >= known->partitions) break;
    PartitionId id{topic, PartitionIndex{i}};
    if (home(id) != index) continue;
    PartitionDescription one{.index = id.index, .leader = node.node, .replicas = {node.node}, .shard = index};
    log::PartitionPtr partition;
    const ReplicatedPartition* replicated = nullptr;
    if (topic == kMetadataTopicId) {  // the controller's
      partition = log->find(id);
    } else {
      SlotUse slot{slot_of(id, known)};
      auto opened = co_await open(*slot);
      if (opened) {
        partition = slot->log;
        replicated = slot->replicated.get();
      } else if (opened.error().code == Errc::corrupt) {
        one.damage = opened.error().detail;
      } else {
        co_return std::unexpected(std::move(opened).error());
      }
    }
    if (partition) {
      log::PartitionStats stats = partition->stats();
      one.leader_epoch = partition->term();
      one.log_start = partition->log_start();
      one.high_watermark = partition->high_watermark();
      one.log_end = partition->log_end();
      one.bytes = stats.bytes;
      one.segments = static_cast<std::uint32_t>(stats.segments);
      if (one.log_end > one.log_start) {
        one.first_time_ms = milliseconds_of(stats.first_append);
        one.last_time_ms = milliseconds_of(stats.last_append);
      }
      one.damage = stats.damage;
    }
    if (replicated && !replicated->alone()) {
      one.leader = replicated->replica().leader().node;
      one.replicas.clear();
      for (const raft::Member& member : replicated->replica().members().members()) one.replicas.push_back(member.id.node);
    }
    all.push_back(std::move(one));
  }
  co_return all;
}

Task<Answer<PartitionOffset>> ShardCore::delete_records(TopicId topic, PartitionOffset before, bool validate_only) {
  auto found = slot_for({topic, before.partition});
  if (!found) co_return std::unexpected(std::move(found).error());
  SlotUse slot{*std::move(found)};
  if (auto opened = co_await open(*slot); !opened) co_return std::unexpected(std::move(opened).error());
  if (slot->topic->config.streams) {
    co_return refuse(Errc::invalid_argument, fmt::format("topic {} keeps event streams, and versions are counted from the first event on; truncate streams instead", slot->topic->name));
  }
  log::PartitionPtr partition = slot->log;
  if (!slot->replicated->serving()) co_return std::unexpected(Refusal{slot->replicated->not_leader()});
  Offset start = before.offset == Offset{-1} ? partition->high_watermark() : before.offset;
  if (start < Offset{0} || start > partition->high_watermark()) {
    co_return refuse(Errc::offset_out_of_range,
                     fmt::format("partition {}: offset {} is outside {}..{}", before.partition.value(), start.value(),
                                 partition->log_start().value(), partition->high_watermark().value()),
                     {{"log_start", fmt::format("{}", partition->log_start().value())},
                      {"high_watermark", fmt::format("{}", partition->high_watermark().value())}});
  }
  if (validate_only) co_return PartitionOffset{before.partition, std::max(start, partition->log_start())};
  (void)co_await deletable(*slot->topic, before.partition, start);  // what queue groups hold leaves first, as far as it can
  if (auto advanced = co_await slot->replicated->advance_log_start(start); !advanced) {
    co_return std::unexpected(from_log(std::move(advanced).error()));
  }
  co_return PartitionOffset{before.partition, partition->log_start()};
}

Task<Answer<ListedOffset>> ShardCore::list_offset(TopicId topic, ListOffsetsQuery query) {
  auto found = slot_for({topic, query.partition});
  if (!found) co_return std::unexpected(std::move(found).error());
  SlotUse slot{*std::move(found)};
  if (auto opened = co_await open(*slot); !opened) co_return std::unexpected(std::move(opened).error());
  log::PartitionPtr partition = slot->log;
  // An end told by a leader that was deposed and does not know it could lie below what its successor has acknowledged.
  if (auto confirmed = co_await slot->replicated->confirm_leadership(); !confirmed) co_return std::unexpected(from_log(std::move(confirmed).error()));

  std::optional<log::OffsetAtTime> match;
  if (query.at.kind == Position::Kind::time) {
    auto batch = co_await partition->find_time(query.at.value);
    if (!batch) co_return std::unexpected(from_log(std::move(batch).error()));
    if (*batch) {
      // The index knows batches; the record is found by reading the one batch it names.
      Offset from = std::max((*batch)->offset, partition->log_start());
      auto read = co_await partition->read(from, {.bytes_max = 1, .batches_max = 1});
      if (!read && read.error().code != Errc::offset_out_of_range) co_return std::unexpected(from_log(std::move(read).error()));
      match = *batch;
      if (!read) match->time_ms = -1;  // deleted meanwhile: the new start is the answer
      if (read && !read->batches.empty()) {
        auto record = record_at_time(read->batches.front().bytes(), from, query.at.value);
        if (!record) co_return std::unexpected(from_log(std::move(record).error()));
        if (*record) match = *record;
      }
    }
  }
  Offset start = partition->log_start();
  Offset end = partition->high_watermark();
  ListedOffset listed{.partition = query.partition, .offset = end, .leader_epoch = partition->term(), .log_start = start, .high_watermark = end};
  switch (query.at.kind) {
    case Position::Kind::start: listed.offset = start; break;
    case Position::Kind::end: break;
    case Position::Kind::last:
      listed.offset = query.at.value <= 0 ? end : std::max(start, Offset{end.value() - std::min(query.at.value, end.value())});
      break;
    case Position::Kind::time:
      if (match) {
        listed.offset = std::max(match->offset, start);
        listed.time_ms = match->time_ms;
      }
      break;
    case Position::Kind::exact: {
      Offset wanted{query.at.value};
      if (wanted < start || (wanted > partition->log_end() && !partition->lost(wanted))) {
        co_return refuse(Errc::offset_out_of_range,
                         fmt::format("partition {}: offset {} is outside {}..{}", query.partition.value(), wanted.value(), start.value(), end.value()),
                         {{"log_start", fmt::format("{}", start.value())}, {"high_watermark", fmt::format("{}", end.value())},
                          {"log_end", fmt::format("{}", partition->log_end().value())}});
      }
      listed.offset = wanted;
      break;
    }
  }
  co_return listed;
}

Task<Answer<void>> ShardCore::skip_damage(TopicId topic, PartitionIndex partition) {
  auto found = slot_for({topic, partition});
  if (!found) co_return std::unexpected(std::move(found).error());
  SlotUse slot{*std::move(found)};
  if (auto opened = co_await open(*slot); !opened) co_return opened;
  log_warn("partition.skip_damage", "an operator accepts the damage of topic {} partition {}", slot->topic->name, partition.value());
  if (auto skipped = co_await slot->replicated->skip_damage(); !skipped) co_return std::unexpected(from_log(std::move(skipped).error()));
  co_return Answer<void>{};
}

}  // namespace tailrace::broker::service
