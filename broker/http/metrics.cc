#include "http/metrics.h"

#include <fmt/format.h>
#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <initializer_list>
#include <limits>
#include <map>
#include <set>

namespace tailrace::broker::http {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::vector<ClientMetric::Label>;

/// Families in the order of their first use; a family's samples are gathered from all shards.
class Page {
 public:
  void counter(const char* name, const char* help, Labels labels, double value) {
    sample(name, help, MetricType::Counter, std::move(labels)).counter.value = value;
  }
  void gauge(const char* name, const char* help, Labels labels, double value) {
    sample(name, help, MetricType::Gauge, std::move(labels)).gauge.value = value;
  }
  /// Buckets from 2^7 us = 128 us to 2^24 us = 16.8 s; those below and above are in the first and in +Inf.
  void histogram(const char* name, const char* help, Labels labels, const log::LatencyHistogram& source) {
    ClientMetric::Histogram& out = sample(name, help, MetricType::Histogram, std::move(labels)).histogram;
    out.sample_count = source.count;
    out.sample_sum = static_cast<double>(source.sum_us) / 1e6;
    std::uint64_t cumulative = 0;
    for (std::size_t i = 0; i < source.buckets.size(); ++i) {
      cumulative += source.buckets[i];
      // Bucket i ends at 2^(i+1) us.
      if (i >= 6 && i <= 23) out.bucket.push_back({cumulative, static_cast<double>(std::uint64_t{1} << (i + 1)) / 1e6});
    }
    out.bucket.push_back({source.count, std::numeric_limits<double>::infinity()});
  }
  [[nodiscard]] std::string text() const {
    prometheus::TextSerializer serializer;
    return serializer.prometheus::Serializer::Serialize(families_);
  }

 private:
  ClientMetric& sample(const char* name, const char* help, MetricType type, Labels labels) {
    auto [at, fresh] = places_.try_emplace(name, families_.size());
    if (fresh) families_.push_back(MetricFamily{name, help, type, {}});
    ClientMetric metric;
    metric.label = std::move(labels);
    return families_[at->second].metric.emplace_back(std::move(metric));
  }
  std::vector<MetricFamily> families_;
  std::map<std::string, std::size_t, std::less<>> places_;
};

void add(log::LatencyHistogram& to, const log::LatencyHistogram& from) {
  for (std::size_t i = 0; i < to.buckets.size(); ++i) to.buckets[i] += from.buckets[i];
  to.count += from.count;
  to.sum_us += from.sum_us;
}

std::string code_text(Errc code) { return std::string{describe(code).name}; }

void render_node(Page& page, const NodeMetrics& node) {
  page.gauge("tailrace_build_info", "Always 1; the version is a label.", {{"version", node.version}}, 1);
  page.gauge("tailrace_up_seconds", "Since the broker's start.", {}, node.up_seconds);
  page.gauge("tailrace_shards", "Shards that answered.", {}, static_cast<double>(node.shards.size()));
  page.gauge("tailrace_shards_silent", "Shards that did not answer in time; their figures are missing here.", {}, static_cast<double>(node.shards_silent));
  page.gauge("tailrace_config_restart_pending", "Configuration keys that a reload left for the next start.", {}, static_cast<double>(node.config_restart_pending));
  page.gauge("tailrace_recovery_seconds", "Recovery of the slowest shard at the last start.", {}, node.recovery_seconds);
  page.gauge("tailrace_recovery_torn_tails", "WAL tails cut at the last start.", {}, static_cast<double>(node.torn_tails));
  page.gauge("tailrace_recovery_corrupt_frames", "Damage found in the WAL at the last start.", {}, static_cast<double>(node.corrupt_frames));
  std::uint64_t damaged = node.damaged_partitions;
  for (const ShardMetrics& shard : node.shards) damaged += shard.status.log.found_damaged;
  page.gauge("tailrace_partitions_damaged", "Partitions with a hole, found by the last start or when they were opened since.", {},
             static_cast<double>(damaged));
  page.counter("process_cpu_seconds_total", "User and system time of the process.", {}, node.cpu_seconds);
  page.gauge("process_resident_memory_bytes", "Resident memory of the process.", {}, static_cast<double>(node.resident_bytes));
  page.gauge("process_open_fds", "Open file descriptors of the process.", {}, static_cast<double>(node.open_descriptors));
}

std::string_view name_of(service::GroupState state) {
  switch (state) {
    case service::GroupState::empty: return "empty";
    case service::GroupState::moving: return "moving";
    case service::GroupState::stable: return "stable";
  }
  return "";
}

void render_groups(Page& page, const NodeMetrics& node) {
  std::uint64_t left_out = 0;
  std::set<std::string_view> told;  // of a group once, whatever it reads
  for (const ShardMetrics& shard : node.shards) {
    left_out += shard.status.groups_left_out;
    for (const service::GroupFigures& one : shard.status.groups) {
      Labels labels{{"group", one.group}, {"topic", one.topic}};
      page.gauge("tailrace_group_lag_records", "Records that the group has not read, of all partitions of the topic.", labels, static_cast<double>(one.lag_records));
      page.gauge("tailrace_group_lag_seconds", "Age of the oldest record that the group has not read, in the partition that is furthest behind.", labels, static_cast<double>(one.behind_ms) / 1e3);
      page.gauge("tailrace_group_last_commit_timestamp_seconds", "When the group stored an offset of the topic last; 0: never.", labels, static_cast<double>(one.last_commit_ms) / 1e3);
      if (!told.insert(one.group).second) continue;
      page.gauge("tailrace_group_members", "Members of the group.", {{"group", one.group}}, static_cast<double>(one.members));
      page.gauge("tailrace_group_generation", "Rises with each change of members, subscriptions or partitions.", {{"group", one.group}}, static_cast<double>(one.generation));
      page.gauge("tailrace_group_state", "Always 1; the state is a label.", {{"group", one.group}, {"state", std::string{name_of(one.state)}}}, 1);
    }
  }
  page.gauge("tailrace_group_figures_left_out", "Groups on topics beyond the first thousand of a shard, of which no figures are here.", {}, static_cast<double>(left_out));
}

void render_topics(Page& page, const NodeMetrics& node) {
  std::map<std::string, service::TopicCounters> topics;
  for (const ShardMetrics& shard : node.shards) {
    for (const service::TopicCounters& topic : shard.status.topics) topics[topic.name] += topic;
  }
  for (const auto& [name, topic] : topics) {
    Labels labels{{"topic", name}};
    page.counter("tailrace_produce_records_total", "Records stored.", labels, static_cast<double>(topic.records_in));
    page.counter("tailrace_produce_bytes_total", "Bytes of batches stored, as sent.", labels, static_cast<double>(topic.bytes_in));
    page.counter("tailrace_produce_batches_total", "Batches stored.", labels, static_cast<double>(topic.batches_in));
    page.counter("tailrace_produce_duplicates_total", "Batches answered with their earlier offset.", labels, static_cast<double>(topic.duplicates));
    page.counter("tailrace_fetch_records_total", "Records handed to readers.", labels, static_cast<double>(topic.records_out));
    page.counter("tailrace_fetch_bytes_total", "Bytes of batches handed to readers.", labels, static_cast<double>(topic.bytes_out));
  }
}

void render_service(Page& page, const NodeMetrics& node) {
  log::LatencyHistogram produce, fetch, commit, sync;
  std::map<Errc, std::uint64_t> refusals;
  std::uint64_t partitions = 0, open = 0, waits = 0, calls = 0, retention_bytes = 0, retention_segments = 0;
  bool disk_full = false, failed = false;
  std::uint64_t free_bytes = std::numeric_limits<std::uint64_t>::max();
  for (const ShardMetrics& shard : node.shards) {
    const service::ShardStatus& status = shard.status;
    add(produce, status.produce_latency);
    add(fetch, status.fetch_latency);
    add(commit, status.log.commit_latency);
    add(sync, status.log.sync_latency);
    for (const auto& [code, count] : status.refusals) refusals[code] += count;
    partitions += status.partitions_owned;
    open += status.partitions_open;
    waits += status.waits_in_flight;
    calls += status.calls_in_flight;
    retention_bytes += status.retention_bytes;
    retention_segments += status.retention_segments;
    disk_full = disk_full || status.disk_full;
    failed = failed || status.storage_failed;
    free_bytes = std::min(free_bytes, status.log.free_bytes);
  }
  page.histogram("tailrace_produce_seconds", "A produce from its arrival at the service to its acknowledgement.", {{"stage", "total"}}, produce);
  page.histogram("tailrace_produce_seconds", "", {{"stage", "fsync"}}, commit);
  page.histogram("tailrace_fetch_seconds", "A fetch without its wait for data.", {}, fetch);
  page.histogram("tailrace_fsync_seconds", "Durable writes: WAL commits, and syncs of segments.", {{"what", "wal"}}, commit);
  page.histogram("tailrace_fsync_seconds", "", {{"what", "segment"}}, sync);
  for (const auto& [code, count] : refusals)
    page.counter("tailrace_refusals_total", "Calls that the service refused.", {{"code", code_text(code)}}, static_cast<double>(count));
  page.gauge("tailrace_partitions", "Partitions that live here.", {}, static_cast<double>(partitions));
  page.gauge("tailrace_leaders", "Partitions led here.", {}, static_cast<double>(partitions));
  page.gauge("tailrace_partitions_open", "Partitions opened since the start.", {}, static_cast<double>(open));
  page.gauge("tailrace_fetch_waiting", "Fetches that wait for data.", {}, static_cast<double>(waits));
  page.gauge("tailrace_calls_in_flight", "Calls of the service under way.", {}, static_cast<double>(calls));
  page.counter("tailrace_retention_deleted_bytes_total", "Deleted by retention.", {}, static_cast<double>(retention_bytes));
  page.counter("tailrace_retention_deleted_segments_total", "Deleted by retention.", {}, static_cast<double>(retention_segments));
  page.gauge("tailrace_disk_full_state", "1 while records are refused for lack of space.", {}, disk_full ? 1 : 0);
  page.gauge("tailrace_storage_failed", "1 after a failed WAL write: nothing is acknowledged until a restart.", {}, failed ? 1 : 0);
  if (!node.shards.empty()) page.gauge("tailrace_disk_free_bytes", "Of the data directory's file system.", {}, static_cast<double>(free_bytes));
}

void render_log(Page& page, const ShardMetrics& shard) {
  const log::ShardLogStats& log = shard.status.log;
  Labels labels{{"shard", fmt::format("{}", shard.status.shard.value())}};
  auto count = [&](const char* name, const char* help, std::uint64_t value) { page.counter(name, help, labels, static_cast<double>(value)); };
  auto now = [&](const char* name, const char* help, std::uint64_t value) { page.gauge(name, help, labels, static_cast<double>(value)); };
  count("tailrace_wal_commits_total", "WAL writes completed.", log.commits);
  count("tailrace_wal_commit_bytes_total", "Bytes of them, padding included.", log.commit_bytes);
  count("tailrace_wal_padding_bytes_total", "Padding in them.", log.commit_padding_bytes);
  count("tailrace_wal_frames_total", "Frames in them.", log.frames);
  count("tailrace_wal_rotations_total", "WAL files filled.", log.wal_rotations);
  count("tailrace_wal_recycles_total", "WAL files used again.", log.wal_recycles);
  count("tailrace_wal_stalls_total", "Commits that waited for a free WAL file.", log.wal_stalls);
  now("tailrace_wal_commits_in_flight", "WAL writes under way.", log.commits_in_flight);
  now("tailrace_wal_pending_bytes", "Appended, not yet submitted.", log.pending_bytes);
  count("tailrace_segment_writes_total", "Writes to segments.", log.segment_writes);
  count("tailrace_segment_bytes_total", "Bytes written to segments.", log.segment_bytes);
  count("tailrace_segments_created_total", "Segments begun.", log.segments_created);
  count("tailrace_segments_removed_total", "Segments deleted.", log.segments_removed);
  count("tailrace_checkpoints_total", "Checkpoints written.", log.checkpoints);
  now("tailrace_hot_tail_bytes", "Newest records kept in memory.", log.hot_bytes);
  count("tailrace_hot_reads_total", "Reads served from memory.", log.hot_reads);
  count("tailrace_cold_reads_total", "Reads from segments.", log.cold_reads);
  count("tailrace_cold_read_bytes_total", "Bytes read from segments.", log.cold_read_bytes);
  count("tailrace_refused_blocks_total", "Blocks of segments that the device did not read.", log.refused_blocks);
  count("tailrace_crc_failures_total", "Damage met while reading.", log.corrupt_reads);
  now("tailrace_producer_window_bytes", "Bytes that a publish stream may have unanswered.", shard.status.producer_window_bytes);
}

void render_io(Page& page, const ShardMetrics& shard) {
  std::string index = fmt::format("{}", shard.status.shard.value());
  Labels labels{{"shard", index}};
  page.gauge("tailrace_io_backend", "Always 1; how files are written is a label.", {{"shard", index}, {"name", shard.io.backend}}, 1);
  if (shard.io.backend == "io_uring") {
    page.gauge("tailrace_uring_inflight", "File operations under way.", labels, static_cast<double>(shard.io.in_flight));
    for (const auto& [number, count] : shard.io.failures)
      page.counter("tailrace_uring_cqe_errors_total", "File operations that failed.", {{"shard", index}, {"errno", fmt::format("{}", number)}}, static_cast<double>(count));
  }
  page.gauge("tailrace_io_in_flight", "File operations under way.", labels, static_cast<double>(shard.io.in_flight));
  page.gauge("tailrace_io_queued", "File operations that wait for a place.", labels, static_cast<double>(shard.io.queued));
  for (const auto& [kind, value] : std::initializer_list<std::pair<const char*, std::uint64_t>>{
           {"read", shard.io.reads}, {"write", shard.io.writes}, {"durable_write", shard.io.durable_writes}, {"sync", shard.io.syncs}})
    page.counter("tailrace_io_operations_total", "File operations started.", {{"shard", index}, {"kind", kind}}, static_cast<double>(value));
  page.counter("tailrace_io_read_bytes_total", "Read from files.", labels, static_cast<double>(shard.io.bytes_read));
  page.counter("tailrace_io_written_bytes_total", "Written to files.", labels, static_cast<double>(shard.io.bytes_written));
  page.counter("tailrace_loop_turns_total", "Turns of the event loop.", labels, static_cast<double>(shard.loop.turns));
  page.counter("tailrace_loop_sleeps_total", "Turns that slept first.", labels, static_cast<double>(shard.loop.sleeps));
  page.gauge("tailrace_memory_limit_bytes", "Of all pools.", labels, static_cast<double>(shard.status.memory_limit));
  for (const auto& [pool, bytes] : shard.memory_pools)
    page.gauge("tailrace_memory_bytes", "In use; receiving is a part of requests.", {{"shard", index}, {"pool", pool}}, static_cast<double>(bytes));
}

void render_listeners(Page& page, const NodeMetrics& node) {
  std::map<std::string, ListenerMetrics> all;
  for (const ShardMetrics& shard : node.shards) {
    for (const ListenerMetrics& listener : shard.listeners) {
      ListenerMetrics& sum = all[listener.protocol];
      if (sum.apis.empty()) sum.apis.resize(listener.apis.size());
      for (std::size_t i = 0; i < listener.apis.size(); ++i) {
        sum.apis[i].api = listener.apis[i].api;
        sum.apis[i].ok += listener.apis[i].ok;
        for (const auto& [code, count] : listener.apis[i].refused) sum.apis[i].refused[code] += count;
        add(sum.apis[i].latency, listener.apis[i].latency);
      }
      sum.connections_open += listener.connections_open;
      sum.connections_total += listener.connections_total;
      sum.connections_refused += listener.connections_refused;
      sum.connections_garbage += listener.connections_garbage;
      sum.bytes_in += listener.bytes_in;
      sum.bytes_out += listener.bytes_out;
      sum.frames_in += listener.frames_in;
      sum.frames_out += listener.frames_out;
      sum.publish_streams += listener.publish_streams;
      sum.subscriptions += listener.subscriptions;
      sum.reader_pauses += listener.reader_pauses;
      for (const auto& [deadline, count] : listener.closed_by_deadline) sum.closed_by_deadline[deadline] += count;
    }
  }
  for (const auto& [protocol, sum] : all) {
    Labels listener{{"listener", protocol}};
    page.gauge("tailrace_connections", "Open connections.", listener, static_cast<double>(sum.connections_open));
    page.counter("tailrace_connections_total", "Connections accepted.", listener, static_cast<double>(sum.connections_total));
    page.counter("tailrace_connections_refused_total", "Connections closed at once because of a limit.", listener, static_cast<double>(sum.connections_refused));
    page.counter("tailrace_connections_garbage_total", "Connections closed because they did not speak the protocol.", listener, static_cast<double>(sum.connections_garbage));
    for (const auto& [deadline, count] : sum.closed_by_deadline)
      page.counter("tailrace_connections_expired_total", "Connections closed by a deadline.", {{"listener", protocol}, {"deadline", deadline}}, static_cast<double>(count));
    page.counter("tailrace_received_bytes_total", "Bytes received.", listener, static_cast<double>(sum.bytes_in));
    page.counter("tailrace_sent_bytes_total", "Bytes sent.", listener, static_cast<double>(sum.bytes_out));
    page.counter("tailrace_received_frames_total", "Frames received.", listener, static_cast<double>(sum.frames_in));
    page.counter("tailrace_sent_frames_total", "Frames sent.", listener, static_cast<double>(sum.frames_out));
    page.gauge("tailrace_publish_streams", "Open publish streams.", listener, static_cast<double>(sum.publish_streams));
    page.gauge("tailrace_subscriptions", "Open subscriptions.", listener, static_cast<double>(sum.subscriptions));
    page.counter("tailrace_reader_pauses_total", "Times a socket was left unread because of a limit.", listener, static_cast<double>(sum.reader_pauses));
    for (const ApiMetrics& api : sum.apis) {
      if (api.ok == 0 && api.refused.empty()) continue;
      page.counter("tailrace_requests_total", "Requests answered.", {{"api", api.api}, {"protocol", protocol}, {"code", "ok"}}, static_cast<double>(api.ok));
      for (const auto& [code, count] : api.refused) {
        page.counter("tailrace_requests_total", "", {{"api", api.api}, {"protocol", protocol}, {"code", code_text(code)}}, static_cast<double>(count));
        if (api.api == "publish")
          page.counter("tailrace_produce_errors_total", "Publishes refused.", {{"code", code_text(code)}}, static_cast<double>(count));
      }
      if (api.latency.count > 0)
        page.histogram("tailrace_request_seconds", "Receipt of a request to its reply.", {{"api", api.api}, {"protocol", protocol}}, api.latency);
    }
  }
}

}  // namespace

std::string render_metrics(const NodeMetrics& node) {
  Page page;
  render_node(page, node);
  render_topics(page, node);
  render_groups(page, node);
  render_service(page, node);
  render_listeners(page, node);
  for (const ShardMetrics& shard : node.shards) {
    render_log(page, shard);
    render_io(page, shard);
  }
  return page.text();
}

}  // namespace tailrace::broker::http
