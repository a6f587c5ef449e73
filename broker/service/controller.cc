#include "service/controller.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "base/log.h"
#include "codec/batch_builder.h"
#include "codec/batch_reader.h"
#include "io/wait.h"
#include "log/data_directory.h"

namespace tailrace::broker::service {
namespace {

constexpr PartitionId kMetadataPartition{kMetadataTopicId, PartitionIndex{0}};
/// Small segments, so that what a snapshot replaced can go.
constexpr log::PartitionOptions kMetadataOptions{.segment_bytes_max = 1 * limits::kMiB, .retention_time = {}, .retention_bytes = {}};
constexpr std::size_t kReplayBytes = 1 * limits::kMiB;
/// Of the broker's own topics. Whatever the broker's defaults are: nothing goes but by whoever keeps state there.
const cluster::TopicSettings kInternalSettings{{cluster::TopicKey::retention_time, "unlimited"}, {cluster::TopicKey::retention_bytes, "unlimited"},
                                               {cluster::TopicKey::segment_bytes_max, "16MiB"}, {cluster::TopicKey::message_bytes_max, "1MiB"},
                                               {cluster::TopicKey::timestamp_type, "create_time"}, {cluster::TopicKey::durability, "quorum"}};

Answer<cluster::TopicSettings> settings_of(const std::vector<KeyValue>& pairs) {
  cluster::TopicSettings settings;
  for (const KeyValue& pair : pairs) {
    std::size_t before = settings.size();
    if (auto added = cluster::add_setting(settings, pair.key, pair.value); !added) return std::unexpected(Refusal{std::move(added).error()});
    if (settings.size() == before) return refuse(Errc::invalid_argument, fmt::format("{} is given twice", pair.key));
  }
  return settings;
}

/// A stream's partition follows from its name and their number, and its versions from all events there are.
Answer<void> check_streams(const cluster::Topic& topic, const cluster::AlterTopic& command) {
  bool named = command.set.contains(cluster::TopicKey::streams) || std::ranges::find(command.unset, cluster::TopicKey::streams) != command.unset.end();
  if (named) return refuse(Errc::invalid_argument, "streams: a topic is made for event streams or not, and stays so");
  if (topic.config.streams && command.partitions > topic.partitions) {
    return refuse(Errc::invalid_argument, fmt::format("topic {} keeps event streams: its {} partitions do not become more", topic.name, topic.partitions));
  }
  return {};
}

}  // namespace

Controller::Controller(ShardCore& core)
    : core_{core}, state_{core.node.options.topic_defaults}, door_{core.runtime.executor} {}

// ---- start --------------------------------------------------------------------------------------------------------------

Task<Result<void>> Controller::load(bool is_new) {
  std::vector<PartitionId> stored = core_.log->stored_partitions();
  bool there = std::ranges::find(stored, kMetadataPartition) != stored.end();
  if (!there) {
    // A crash during the very first start leaves a directory without anything, and nothing lost.
    Traces traces = co_await traces_of_use();
    if (!is_new && (traces.partitions > 0 || traces.lost > 0)) {
      // The logs close cleanly behind a refused start, and the next one would find nothing lost any more.
      auto noted = co_await core_.log->create(kMetadataPartition, kMetadataOptions, log::ShardLog::Begin::lost);
      if (!noted) log_warn("metadata.lost", "not noted: {}", noted.error().detail);
      co_return fail(Errc::corrupt, fmt::format("the metadata partition is missing, and so is every topic: {} partitions are stored, {} places of write-ahead logs "
                                                "are lost; restore the data directory from a copy, or begin with another one",
                                                traces.partitions, traces.lost));
    }
    TAILRACE_CO_TRY(log_, co_await core_.log->create(kMetadataPartition, kMetadataOptions));
  }
  TAILRACE_CO_TRY(log_, co_await core_.log->open_partition(kMetadataPartition, kMetadataOptions));
  TAILRACE_CO_TRY(replicated_, ReplicatedPartition::open(*core_.replication, log_));
  if (std::string damage = log_->stats().damage; !damage.empty()) {
    co_return fail(Errc::corrupt, fmt::format("the metadata partition is damaged: {}", damage));
  }
  Offset at = log_->log_start();
  while (at < log_->high_watermark()) {
    TAILRACE_CO_TRY(log::ReadResult read, co_await log_->read(at, {.bytes_max = kReplayBytes}));
    if (read.batches.empty()) co_return fail(Errc::corrupt, fmt::format("metadata offset {} cannot be read", at.value()));
    for (const Slice& batch : read.batches) {
      TAILRACE_CO_TRY(auto reader, codec::BatchReader::open(batch.bytes()));
      codec::RecordView record;
      while (reader.next(record)) {
        if (record.offset < at) continue;
        auto applied = state_.apply(record.value.value_or(Bytes{}));
        if (applied) continue;
        std::string where = fmt::format("metadata offset {}: {}", record.offset.value(), applied.error().detail);
        if (cluster::MetadataState::is_fatal(applied.error())) co_return fail(applied.error().code, std::move(where));
        log_warn("metadata.refused", "{}", where);
      }
      if (const auto& error = reader.error()) co_return fail(Errc::corrupt, fmt::format("metadata batch at {}: {}", reader.header().base_offset.value(), error->detail));
    }
    at = read.next;
  }
  state_.check_invariants();
  co_return Result<void>{};
}

Task<Controller::Traces> Controller::traces_of_use() {
  Traces all;
  for (std::uint32_t i = 0; i < core_.node.cores.size(); ++i) {
    ShardCore& there = core_.core_of(ShardIndex{i});
    auto look = [&there] { return Traces{there.log->partition_count(), there.log->recovery().corrupt}; };
    Traces one = co_await core_.port.call_on(ShardIndex{i}, std::move(look));
    all.partitions += one.partitions;
    all.lost += one.lost;
  }
  co_return all;
}

Task<Result<void>> Controller::reconcile(StartReport& report) {
  // Deletions that were interrupted.
  std::vector<std::pair<TopicId, cluster::Removing>> removing{state_.removing().begin(), state_.removing().end()};
  for (const auto& [id, topic] : removing) {
    log_info("topic.removal_resumed", "topic {}: its {} partitions are being removed", topic.name, topic.partitions);
    TAILRACE_CO_TRY_VOID(co_await finish_removal(id, topic.partitions));
    report.partitions_removed += static_cast<std::uint64_t>(topic.partitions);
  }
  std::shared_ptr<const cluster::Catalog> catalog = state_.catalog();
  auto count = static_cast<std::uint32_t>(core_.node.cores.size());
  for (std::uint32_t i = 0; i < count; ++i) {
    struct Outcome {
      Result<void> result{};
      std::uint64_t lost = 0, removed = 0, kept = 0;
    };
    ShardCore& there = core_.core_of(ShardIndex{i});
    auto reconcile_shard = [&there, &catalog, count]() -> Task<Outcome> {
      Outcome outcome;
      std::vector<PartitionId> stored = there.log->stored_partitions();
      std::set<PartitionId> known{stored.begin(), stored.end()};
      for (const auto& [id, topic] : catalog->by_id) {
        if (id == kMetadataTopicId) continue;
        for (std::int32_t p = 0; p < topic->partitions; ++p) {
          PartitionId partition{id, PartitionIndex{p}};
          if (log::home_of(partition, count) != there.index || known.contains(partition)) continue;
          // Its creation was durable before metadata named it: whoever lost that may have lost records, whatever else is known.
          log_error("partition.lost", "topic {} partition {}: shard {} knows nothing of it any more, and it may have held records; reads and "
                    "appends are refused until `tailrace topic skip-damage` accepts the loss, or the topic is deleted",
                    topic->name, p, there.index.value());
          auto created = co_await there.log->create(partition, log_options(topic->config), log::ShardLog::Begin::lost);
          if (!created) {
            outcome.result = std::unexpected(std::move(created).error());
            co_return outcome;
          }
          ++outcome.lost;
        }
      }
      for (const PartitionId& partition : stored) {
        cluster::TopicPointer topic = catalog->find(partition.topic);
        if (topic && topic->has(partition.index)) continue;
        auto opened = co_await there.log->open_partition(partition, {});
        bool empty = opened && (*opened)->log_end() == Offset{0} && (*opened)->stats().damage.empty();
        if (!empty) {
          log_warn("partition.unknown", "{}-{} holds records and metadata does not know it: kept, not served",
                   partition.topic.to_string(), partition.index.value());
          ++outcome.kept;
          continue;
        }
        opened->reset();
        if (auto removed = co_await there.log->remove(partition); !removed) {
          outcome.result = removed;
          co_return outcome;
        }
        ++outcome.removed;
      }
      co_return outcome;
    };
    Outcome outcome = co_await core_.port.call_on(ShardIndex{i}, std::move(reconcile_shard));
    if (!outcome.result) co_return outcome.result;
    report.partitions_lost += outcome.lost;
    report.partitions_removed += outcome.removed;
    report.partitions_kept += outcome.kept;
  }
  for (const auto& [id, topic] : state_.catalog()->by_id) {
    if (topic->internal) continue;
    ++report.topics;
    report.partitions += static_cast<std::uint64_t>(topic->partitions);
  }
  co_return Result<void>{};
}

Task<void> Controller::publish(std::optional<TopicId> changed) {
  std::shared_ptr<const cluster::Catalog> fresh = state_.catalog();
  for (std::uint32_t i = 0; i < core_.node.cores.size(); ++i) {
    ShardCore& there = core_.core_of(ShardIndex{i});
    auto replace = [&there, &fresh, &changed] { there.set_catalog(fresh, changed); };
    co_await core_.port.call_on(ShardIndex{i}, std::move(replace));
  }
}

// ---- the log of commands ------------------------------------------------------------------------------------------------

Task<Result<Offset>> Controller::append(const cluster::Command& command) {
  std::vector<std::byte> bytes = cluster::encode(command);
  WallTime now = core_.runtime.clock.wall();
  codec::BatchBuilder builder{{.bytes_max = cluster::kCommandBytesMax + 1 * limits::kKiB}};
  codec::RecordInput record{.timestamp = std::max<std::int64_t>(now.time_since_epoch().count(), 0), .value = Bytes{bytes}};
  TAILRACE_CO_TRY_VOID(builder.add(record));
  TAILRACE_CO_TRY(Slice batch, builder.finish());
  TAILRACE_CO_TRY(BatchHeader header, read_batch_header(batch.bytes(), batch.length));
  Instant give_up = core_.runtime.clock.now() + limits::kAppendWaitMax;
  for (;;) {
    auto appended = replicated_->append(batch, header, now);
    if (appended) co_return appended->next_offset;
    if (appended.error().code != Errc::no_credit || core_.runtime.clock.now() >= give_up) co_return std::unexpected(std::move(appended).error());
    bool room = co_await io::WaitUntil{core_.log->pressure(), core_.runtime, give_up};
    (void)room;  // tried once more either way
  }
}

Task<Controller::Proposed> Controller::propose(cluster::Command command) {
  if (auto fine = state_.check(command); !fine) co_return Proposed{std::unexpected(std::move(fine).error()), false};
  auto end = co_await append(command);
  if (!end) co_return Proposed{std::unexpected(std::move(end).error()), false};
  if (auto durable = co_await replicated_->committed(*end); !durable) co_return Proposed{std::unexpected(std::move(durable).error()), true};
  co_return Proposed{state_.apply(cluster::encode(command)), true};
}

/// Replaces the log so far by the state it led to. What fails here is tried again after the next command: the log is only longer.
Task<void> Controller::snapshot_if_due() {
  if (state_.commands_since_snapshot() < core_.node.options.metadata_snapshot_commands) co_return;
  std::vector<cluster::Command> commands = state_.snapshot();
  Offset begin = log_->log_end();
  Offset end = begin;
  for (const cluster::Command& command : commands) {
    auto appended = co_await append(command);
    if (!appended) co_return;
    end = *appended;
  }
  if (auto durable = co_await replicated_->committed(end); !durable) co_return;
  for (const cluster::Command& command : commands) {
    auto applied = state_.apply(cluster::encode(command));
    TAILRACE_CHECK(applied.has_value(), "a snapshot of a state can be applied to that state");
  }
  if (auto cut = co_await replicated_->advance_log_start(begin); !cut) {
    log_warn("metadata.snapshot", "the log before the snapshot at {} stays: {}", begin.value(), cut.error().detail);
    co_return;
  }
  log_info("metadata.snapshot", "the metadata log begins at {} now", begin.value());
}

void Controller::close() {
  if (replicated_) replicated_->close();
  replicated_.reset();
  log_.reset();
}

// ---- changes ------------------------------------------------------------------------------------------------------------

Answer<void> Controller::enter() const {
  if (core_.stopping) return refuse(Errc::shutting_down);
  if (door_.waiting() >= limits::kAdminCallsMax) return refuse(Errc::too_many, "changes of topics under way");
  return {};
}

TopicId Controller::draw_id() {
  for (;;) {
    TopicId id;
    std::uint64_t high = core_.runtime.random.next();
    std::uint64_t low = core_.runtime.random.next();
    std::memcpy(id.bytes.data(), &high, 8);
    std::memcpy(id.bytes.data() + 8, &low, 8);
    if (!state_.catalog()->find(id) && !state_.removing().contains(id)) return id;
  }
}

/// Its partitions have the same homes, as long as the number of shards stays; nobody relies on it.
TopicId Controller::draw_id_like(TopicId other) {
  for (;;) {
    TopicId id = draw_id();
    if (core_.home({id, PartitionIndex{0}}) == core_.home({other, PartitionIndex{0}})) return id;
  }
}

Answer<cluster::TopicPointer> Controller::preview(const cluster::Command& command, TopicId topic) const {
  cluster::MetadataState copy = state_;
  if (auto applied = copy.apply(cluster::encode(command)); !applied) return std::unexpected(Refusal{std::move(applied).error()});
  return copy.catalog()->find(topic);
}

Answer<void> Controller::check_wal(const cluster::TopicSettings& settings, const TopicConfig& config) const {
  std::size_t most = core_.log->batch_bytes_max();
  if (settings.contains(cluster::TopicKey::message_bytes_max) && config.message_bytes_max > most) {
    return refuse(Errc::invalid_argument, fmt::format("message_bytes_max: the write-ahead log of this broker takes batches of at most {}; its wal.file_bytes would have to be larger",
                                                      cluster::print_size(most)));
  }
  return {};
}

Task<Result<void>> Controller::on_all_shards_create(TopicId topic, std::int32_t from, std::int32_t to, TopicConfig config, std::vector<raft::ReplicaId> voters) {
  auto create = [&](std::int32_t i) -> Task<Result<void>> {
    ShardCore& there = core_.core_of(ShardIndex{static_cast<std::uint32_t>(i)});
    auto on_shard = [&]() -> Task<Result<void>> { return there.create_partitions(topic, from, to, config, voters); };
    co_return co_await core_.port.call_on(there.index, std::move(on_shard));
  };
  co_return co_await for_each_bounded(0, static_cast<std::int32_t>(core_.node.cores.size()), core_.node.cores.size(), create);
}

Task<Result<void>> Controller::on_all_shards_remove(TopicId topic, std::int32_t from, std::int32_t to) {
  auto remove = [&](std::int32_t i) -> Task<Result<void>> {
    ShardCore& there = core_.core_of(ShardIndex{static_cast<std::uint32_t>(i)});
    auto on_shard = [&]() -> Task<Result<void>> { return there.remove_partitions(topic, from, to); };
    co_return co_await core_.port.call_on(there.index, std::move(on_shard));
  };
  co_return co_await for_each_bounded(0, static_cast<std::int32_t>(core_.node.cores.size()), core_.node.cores.size(), remove);
}

Task<Result<void>> Controller::finish_removal(TopicId topic, std::int32_t partitions) {
  TAILRACE_CO_TRY_VOID(co_await on_all_shards_remove(topic, 0, partitions));
  Proposed proposed = co_await propose(cluster::TopicRemoved{.id = topic});
  co_return proposed.result;
}

Task<Answer<cluster::TopicPointer>> Controller::create(CreateTopicRequest request) {
  if (auto fine = enter(); !fine) co_return std::unexpected(std::move(fine).error());
  DoorTicket ticket{door_};
  while (!ticket.my_turn()) co_await ticket.moved();
  if (core_.stopping) co_return refuse(Errc::shutting_down);

  auto settings = settings_of(request.config);
  if (!settings) co_return std::unexpected(std::move(settings).error());
  if (request.replicas < 0 || request.replicas > 1) {
    co_return refuse(Errc::invalid_argument, fmt::format("replicas: {} are asked for, and there is one broker", request.replicas));
  }
  if (auto fine = check_topic_name(request.name); !fine) co_return std::unexpected(Refusal{std::move(fine).error()});
  cluster::CreateTopic command{.id = request.id.value_or(draw_id()), .name = request.name, .partitions = request.partitions, .settings = *settings};
  if (auto fine = state_.check(command); !fine) co_return std::unexpected(Refusal{std::move(fine).error()});
  auto config = cluster::effective_config(core_.node.options.topic_defaults, *settings);
  if (!config) co_return std::unexpected(Refusal{std::move(config).error()});
  if (auto fine = check_wal(*settings, *config); !fine) co_return std::unexpected(std::move(fine).error());
  if (config->streams && !core_.node.options.stream_indexes) co_return refuse(Errc::unsupported, "this broker keeps no event streams");
  if (request.validate_only) co_return preview(command, command.id);
  co_return co_await create_checked(std::move(command), std::move(request.voters));
}

Task<Answer<cluster::TopicPointer>> Controller::ensure_internal(std::string name, std::int32_t partitions, std::optional<TopicId> beside) {
  if (auto fine = enter(); !fine) co_return std::unexpected(std::move(fine).error());
  DoorTicket ticket{door_};
  while (!ticket.my_turn()) co_await ticket.moved();
  if (core_.stopping) co_return refuse(Errc::shutting_down);
  cluster::CreateTopic command{.id = {}, .name = std::move(name), .partitions = partitions, .settings = kInternalSettings};
  if (cluster::TopicPointer there = state_.catalog()->find(command.name)) co_return there;
  if (beside) {
    cluster::TopicPointer topic = state_.catalog()->find(*beside);
    if (!topic) co_return refuse(Errc::no_such_topic, "it was deleted");
    command.partitions = topic->partitions;
  }
  command.id = beside ? draw_id_like(*beside) : draw_id();
  if (auto fine = state_.check(command); !fine) co_return std::unexpected(Refusal{std::move(fine).error()});
  co_return co_await create_checked(std::move(command), {});
}

Task<Answer<cluster::TopicPointer>> Controller::create_checked(cluster::CreateTopic command, std::vector<raft::ReplicaId> voters) {
  auto config = cluster::effective_config(core_.node.options.topic_defaults, command.settings);
  if (!config) co_return std::unexpected(Refusal{std::move(config).error()});
  auto created = co_await on_all_shards_create(command.id, 0, command.partitions, *config, std::move(voters));
  Proposed proposed{created, false};
  if (created) proposed = co_await propose(command);
  if (!proposed.result) {
    // Nothing was committed: what was created is empty and goes again, now or at the next start.
    if (!proposed.appended) (void)co_await on_all_shards_remove(command.id, 0, command.partitions);
    co_return std::unexpected(from_log(std::move(proposed.result).error()));
  }
  co_await publish(command.id);
  log_info("topic.created", "topic {} with {} partitions, id {}", command.name, command.partitions, command.id.to_string());
  cluster::TopicPointer topic = state_.catalog()->find(command.id);
  co_await snapshot_if_due();
  co_return topic;
}

Task<Answer<cluster::TopicPointer>> Controller::alter(AlterTopicRequest request) {
  if (auto fine = enter(); !fine) co_return std::unexpected(std::move(fine).error());
  DoorTicket ticket{door_};
  while (!ticket.my_turn()) co_await ticket.moved();
  auto old = core_.topic_named(request.name);
  if (!old) co_return std::unexpected(std::move(old).error());

  auto set = settings_of(request.set);
  if (!set) co_return std::unexpected(std::move(set).error());
  cluster::AlterTopic command{.id = (*old)->id, .partitions = request.partitions, .set = *set};
  for (const std::string& name : request.unset) {
    auto key = cluster::topic_key_named(name);
    if (!key) co_return std::unexpected(Refusal{std::move(key).error()});
    if (std::ranges::find(command.unset, *key) == command.unset.end()) command.unset.push_back(*key);
  }
  if (auto fine = check_streams(**old, command); !fine) co_return std::unexpected(std::move(fine).error());
  if (auto fine = state_.check(command); !fine) co_return std::unexpected(Refusal{std::move(fine).error()});
  auto after = preview(command, command.id);
  if (!after) co_return after;
  if (auto fine = check_wal(command.set, (*after)->config); !fine) co_return std::unexpected(std::move(fine).error());
  if (request.validate_only) co_return after;

  std::int32_t before = (*old)->partitions;
  std::vector<TopicId> growing{command.id};
  if ((*after)->partitions > before) {
    for (const cluster::TopicPointer& beside : state_.catalog()->beside((*old)->name)) growing.push_back(beside->id);
  }
  Proposed proposed;
  for (const TopicId& id : growing) {
    proposed.result = co_await on_all_shards_create(id, before, (*after)->partitions, id == command.id ? (*after)->config : TopicConfig{}, {});
    if (!proposed.result) break;
  }
  if (proposed.result) proposed = co_await propose(command);
  if (!proposed.result) {
    for (const TopicId& id : growing) {
      if (!proposed.appended) (void)co_await on_all_shards_remove(id, before, (*after)->partitions);
    }
    co_return std::unexpected(from_log(std::move(proposed.result).error()));
  }
  co_await publish(command.id);
  log_info("topic.altered", "topic {}, {} partitions", (*old)->name, (*after)->partitions);
  cluster::TopicPointer topic = state_.catalog()->find(command.id);
  co_await snapshot_if_due();
  co_return topic;
}

Task<Answer<void>> Controller::remove(std::string name, bool validate_only) {
  if (auto fine = enter(); !fine) co_return fine;
  DoorTicket ticket{door_};
  while (!ticket.my_turn()) co_await ticket.moved();
  auto topic = core_.topic_named(name);
  if (!topic) co_return std::unexpected(std::move(topic).error());
  cluster::DeleteTopic command{.id = (*topic)->id};
  if (auto fine = state_.check(command); !fine) co_return std::unexpected(Refusal{std::move(fine).error()});
  if (validate_only) co_return Answer<void>{};

  Proposed proposed = co_await propose(command);
  if (!proposed.result) co_return std::unexpected(from_log(std::move(proposed.result).error()));
  co_await publish(command.id);
  Result<void> removed;
  std::map<TopicId, cluster::Removing> removing = state_.removing();  // what stood beside it too
  for (const auto& [id, gone] : removing) {
    if (removed) removed = co_await finish_removal(id, gone.partitions);
  }
  if (!removed) {
    log_warn("topic.removal_failed", "topic {} is gone, its files are not: {}; the next start goes on", name, removed.error().detail);
    co_return std::unexpected(from_log(std::move(removed).error()));
  }
  log_info("topic.deleted", "topic {} with {} partitions", name, (*topic)->partitions);
  co_await snapshot_if_due();
  co_return Answer<void>{};
}

Task<Answer<std::int64_t>> Controller::allocate_producer_ids() {
  if (auto fine = enter(); !fine) co_return std::unexpected(std::move(fine).error());
  DoorTicket ticket{door_};
  while (!ticket.my_turn()) co_await ticket.moved();
  if (core_.stopping) co_return refuse(Errc::shutting_down);
  std::int64_t first = state_.next_producer_id();
  Proposed proposed = co_await propose(cluster::AllocateProducerIds{
      .node = core_.node.node, .first = first, .count = static_cast<std::int32_t>(limits::kProducerIdBlock)});
  if (!proposed.result) co_return std::unexpected(from_log(std::move(proposed.result).error()));
  co_await snapshot_if_due();
  co_return first;
}

}  // namespace tailrace::broker::service
