#include "service/shard_core.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "io/wait.h"
#include "log/data_directory.h"
#include "service/controller.h"
#include "service/group_host.h"
#include "service/queue_host.h"

namespace tailrace::broker::service {

log::PartitionOptions log_options(const TopicConfig& config) {
  return {.segment_bytes_max = config.segment_bytes_max, .retention_time = config.retention_time, .retention_bytes = config.retention_bytes};
}

Refusal from_log(Error error) {
  if (error.code == Errc::closed) return {Errc::shutting_down, std::move(error.detail)};
  // Front ends are only let in where metadata knows the partition: if its log is gone, so is the topic.
  if (error.code == Errc::no_such_partition) return {Errc::no_such_topic, "it was deleted"};
  return {std::move(error)};
}

TopicCounters& TopicCounters::operator+=(const TopicCounters& other) {
  if (name.empty()) name = other.name;
  records_in += other.records_in;
  bytes_in += other.bytes_in;
  batches_in += other.batches_in;
  duplicates += other.duplicates;
  records_out += other.records_out;
  bytes_out += other.bytes_out;
  return *this;
}

ShardCore::ShardCore(NodeContext& its_node, ShardIndex its_index, io::Runtime& its_runtime)
    : node{its_node},
      index{its_index},
      runtime{its_runtime},
      port{its_node.shards->port(its_index)},
      memory{its_node.options.memory_bytes, limits::kMemoryWaitersMax},
      stop_signal{its_runtime.executor},
      calls_changed{its_runtime.executor},
      window_changed{its_runtime.executor},
      ensured{its_runtime.executor},
      producer_ids_changed{its_runtime.executor},
      stream_indexes_changed{its_runtime.executor} {
  groups = std::make_unique<GroupHost>(*this);
  queues = std::make_unique<QueueHost>(*this);
  counters.shard = index;
  counters.producer_window_bytes = limits::kProducerWindowMax;
}

ShardCore::~ShardCore() { TAILRACE_CHECK(calls == 0, "calls end before their shard's service goes away"); }

ShardIndex ShardCore::home(const PartitionId& id) const {
  return log::home_of(id, static_cast<std::uint32_t>(node.cores.size()));
}

Answer<cluster::TopicPointer> ShardCore::topic_of(const TopicId& id, PartitionIndex partition) const {
  if (stopping || !catalog) return refuse(Errc::shutting_down);
  cluster::TopicPointer topic = catalog->find(id);
  if (!topic) return refuse(Errc::no_such_topic, fmt::format("no topic has the id {}", id.to_string()));
  if (topic->internal) return refuse(Errc::unauthorized, fmt::format("{} belongs to the broker", topic->name));
  if (!topic->has(partition)) {
    return refuse(Errc::no_such_partition, fmt::format("topic {} has partitions 0 to {}, not {}", topic->name, topic->partitions - 1, partition.value()));
  }
  return topic;
}

Answer<cluster::TopicPointer> ShardCore::topic_named(std::string_view name) const {
  if (stopping || !catalog) return refuse(Errc::shutting_down);
  cluster::TopicPointer topic = catalog->find(name);
  if (!topic) return refuse(Errc::no_such_topic, fmt::format("topic {}", name.substr(0, limits::kTopicNameMax)));
  return topic;
}

Task<Answer<cluster::TopicPointer>> ShardCore::ensure_internal(std::string name, std::int32_t partitions, std::optional<TopicId> beside) {
  for (;;) {
    if (stopping || !catalog) co_return refuse(Errc::shutting_down);
    if (cluster::TopicPointer there = catalog->find(name)) co_return there;
    if (!ensuring.contains(name)) break;
    co_await ensured.wait();
  }
  ensuring.insert(name);
  auto ensure = [this, &name, partitions, beside] { return node.controller->ensure_internal(name, partitions, beside); };
  auto made = co_await port.call_on(kControllerShard, std::move(ensure));
  ensuring.erase(name);
  ensured.notify_all();
  co_return made;
}

Answer<std::shared_ptr<PartitionSlot>> ShardCore::slot_for(const PartitionId& id) {
  if (stopping) return refuse(Errc::shutting_down);
  if (auto at = slots.find(id); at != slots.end()) {
    if (at->second->removing) return refuse(Errc::no_such_topic, "it was deleted");
    return at->second;
  }
  auto topic = topic_of(id.topic, id.index);
  if (!topic) return std::unexpected(std::move(topic).error());
  return slot_of(id, *topic);
}

std::shared_ptr<PartitionSlot> ShardCore::slot_of(const PartitionId& id, const cluster::TopicPointer& topic) {
  std::shared_ptr<PartitionSlot>& slot = slots[id];
  if (!slot) {
    slot = std::make_shared<PartitionSlot>(id, runtime.executor);
    std::unique_ptr<TopicCounters>& counted = topic_counters[id.topic];
    if (!counted) counted = std::make_unique<TopicCounters>(TopicCounters{.name = topic->name});
    slot->counters = counted.get();
    slot->topic = topic;
  }
  return slot;
}

Answer<void> ShardCore::admit(const PartitionSlot& slot) const {
  if (stopping) return refuse(Errc::shutting_down);
  if (slot.removing) return refuse(Errc::no_such_topic, "it was deleted");
  return {};
}

Task<Answer<void>> ShardCore::open(PartitionSlot& slot) {
  for (;;) {
    if (auto fine = admit(slot); !fine) co_return fine;
    if (slot.log) co_return Answer<void>{};
    if (slot.opening) {
      co_await slot.changed.wait();
      if (!slot.log && !slot.opening && slot.open_error) co_return std::unexpected(from_log(*slot.open_error));
      continue;
    }
    slot.opening = true;
    slot.open_error.reset();
    auto opened = co_await log->open_partition(slot.id, log_options(slot.topic->config));
    if (opened) (*opened)->configure(log_options(slot.topic->config));  // it may have been altered meanwhile
    slot.opening = false;
    auto replicated = opened ? ReplicatedPartition::open(*replication, *opened) : std::unexpected(std::move(opened).error());
    if (replicated) {
      slot.log = *std::move(opened);
      slot.replicated = *std::move(replicated);
      ++counters.partitions_open;
    } else {
      slot.open_error = std::move(replicated).error();
    }
    slot.changed.notify_all();
    if (!slot.log) co_return std::unexpected(from_log(*slot.open_error));
  }
}

void ShardCore::set_catalog(std::shared_ptr<const cluster::Catalog> fresh, std::optional<TopicId> changed) {
  cluster::TopicPointer before = changed && catalog ? catalog->find(*changed) : nullptr;
  bool first = !catalog;
  catalog = std::move(fresh);
  if (first) background.spawn(groups->load_all());
  if (replication && replication->options().peers) background.spawn(open_all());
  if (!before) return;
  cluster::TopicPointer after = catalog->find(*changed);
  for (std::int32_t i = 0; i < before->partitions; ++i) {
    auto at = slots.find({*changed, PartitionIndex{i}});
    if (at == slots.end()) continue;
    PartitionSlot& slot = *at->second;
    if (!after) {
      turn_away(slot);
      continue;
    }
    slot.topic = after;
    if (slot.log) slot.log->configure(log_options(after->config));
  }
}

void ShardCore::turn_away(PartitionSlot& slot) {
  slot.removing = true;
  slot.changed.notify_all();
  if (slot.log) slot.log->advanced().notify_all();  // long polls look again, and leave
}

// ---- background ---------------------------------------------------------------------------------------------------------

void ShardCore::start_background() {
  background.spawn(retention_task());
  background.spawn(pressure_task());
  background.spawn(groups->ticks());
  background.spawn(groups->measure());
  if (replication->options().peers) background.spawn(replication->clock_task());
}

void ShardCore::begin_stop() {
  if (stopping) return;
  stopping = true;
  memory.close();
  stop_signal.notify_all();
  if (replication) replication->stop();
  groups->stop();
  queues->stop();
  window_changed.notify_all();
  for (auto& [id, slot] : slots) {
    slot->changed.notify_all();
    if (slot->log) slot->log->advanced().notify_all();  // long polls look again, and leave
  }
  producer_ids_changed.notify_all();
  ensured.notify_all();
  if (log) log->pressure().notify_all();
  calls_changed.notify_all();
}

Task<void> ShardCore::retention_task() {
  while (!stopping) {
    Instant next = runtime.clock.now() + node.options.retention_interval;
    while (!stopping && runtime.clock.now() < next) {
      bool signalled = co_await io::WaitUntil{stop_signal, runtime, next};
      (void)signalled;
    }
    if (!stopping) co_await retention_sweep();
  }
}

Task<void> ShardCore::retention_sweep() {
  ++counters.retention_runs;
  std::shared_ptr<const cluster::Catalog> seen = catalog;
  for (const auto& [id, listed] : seen->by_id) {
    if (listed->internal || (!listed->config.retention_time && !listed->config.retention_bytes)) continue;
    for (std::int32_t i = 0; i < listed->partitions && !stopping; ++i) {
      PartitionId partition{id, PartitionIndex{i}};
      if (home(partition) != index) continue;
      cluster::TopicPointer topic = catalog->find(id);  // as it is now: the sweep takes time
      if (!topic) break;
      SlotUse slot{slot_of(partition, topic)};
      if (auto opened = co_await open(*slot); !opened) continue;  // whoever uses it hears why
      if (!slot->replicated->leads()) continue;  // the leader decides, for all replicas
      auto outcome = co_await slot->log->plan_retention(runtime.clock.wall());
      if (outcome && outcome->log_start > slot->log->log_start()) {
        // What queue groups hold leaves first. Where it has not yet, as much goes as may, and the segments with a later sweep.
        Offset may_go = co_await deletable(*topic, PartitionIndex{i}, outcome->log_start);
        if (may_go < outcome->log_start) outcome = log::RetentionOutcome{.log_start = may_go};
      }
      if (outcome && outcome->log_start > slot->log->log_start()) {
        if (auto advanced = co_await slot->replicated->advance_log_start(outcome->log_start); !advanced) outcome = std::unexpected(std::move(advanced).error());
      }
      if (!outcome) {
        log_warn("retention.failed", "topic {} partition {}: {}", topic->name, i, outcome.error().detail);
        continue;
      }
      counters.retention_segments += outcome->segments_removed;
      counters.retention_bytes += outcome->bytes_removed;
      co_await yield_to(runtime.executor);
    }
  }
}

Task<void> ShardCore::pressure_task() {
  while (!stopping) {
    refresh_window();
    co_await log->pressure().wait();
  }
}

void ShardCore::refresh_window() {
  const log::ShardLogStats& stats = log->stats();
  std::uint64_t window = limits::kProducerWindowMax;
  std::uint64_t queue = std::max<std::uint64_t>(node.options.log.pending_bytes_max, 1);
  const flow::MemoryPool& requests = memory.pool(flow::Pool::requests);
  // Half full: a quarter of the window. Above three quarters, or when nothing can be stored: the least that keeps a stream alive.
  auto fullness = [](std::uint64_t used, std::uint64_t limit) { return static_cast<double>(used) / static_cast<double>(std::max<std::uint64_t>(limit, 1)); };
  double worst = std::max(fullness(stats.pending_bytes, queue), fullness(requests.used(), requests.limit()));
  if (worst > 0.5) window /= 4;
  if (worst > 0.75 || log->failed() || log->disk_full()) window = limits::kProducerWindowMin;
  std::uint64_t before = counters.producer_window_bytes;
  if (window == before) return;
  counters.producer_window_bytes = window;
  if (window <= before / 2 || window >= before * 2) window_changed.notify_all();
}

ShardStatus ShardCore::status() const {
  ShardStatus now = counters;
  now.topics.reserve(topic_counters.size());
  for (const auto& [id, topic] : topic_counters) now.topics.push_back(*topic);
  now.calls_in_flight = calls;
  now.waits_in_flight = waits;
  now.memory_used = memory.used();
  now.memory_limit = memory.limit();
  if (groups) {
    now.groups = groups->figures();
    now.groups_left_out = groups->figures_left_out();
  }
  if (log) {
    now.partitions_owned = log->partition_count();
    now.storage_failed = log->failed();
    now.disk_full = log->disk_full();
    now.log = log->stats();
  }
  return now;
}

}  // namespace tailrace::broker::service
