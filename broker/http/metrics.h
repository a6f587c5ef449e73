#pragma once
/// What /metrics says: figures gathered by the composition root, as Prometheus text.
///
/// Names    ux.md's: base units, _total on counters, histograms in seconds. Only what is really counted appears.
/// Labels   topic, protocol, code, api, shard, pool, backend; none that a client can grow without bound except topic, which
///          limits::kTopicsMax bounds.
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "service/broker_service.h"

namespace tailrace::broker::http {

struct ApiMetrics {
  std::string api;
  std::uint64_t ok = 0;
  std::map<Errc, std::uint64_t> refused;
  log::LatencyHistogram latency{};
};
/// One protocol's front end on one shard.
struct ListenerMetrics {
  std::string protocol;
  std::vector<ApiMetrics> apis;
  std::uint64_t connections_open = 0, connections_total = 0, connections_refused = 0, connections_garbage = 0;
  std::uint64_t bytes_in = 0, bytes_out = 0, frames_in = 0, frames_out = 0;
  std::uint64_t publish_streams = 0, subscriptions = 0;
  std::uint64_t reader_pauses = 0;
  std::map<std::string, std::uint64_t> closed_by_deadline;
};
struct IoMetrics {
  std::string backend;
  std::uint64_t in_flight = 0, queued = 0;
  std::uint64_t reads = 0, writes = 0, durable_writes = 0, syncs = 0, bytes_read = 0, bytes_written = 0;
  std::map<int, std::uint64_t> failures;  // by errno
};
struct LoopMetrics {
  std::uint64_t turns = 0, sleeps = 0, work = 0, mail = 0;
};
struct ShardMetrics {
  service::ShardStatus status;
  IoMetrics io;
  LoopMetrics loop;
  std::vector<std::pair<std::string, std::uint64_t>> memory_pools;
  std::vector<ListenerMetrics> listeners;
};
struct NodeMetrics {
  std::string version;
  double up_seconds = 0;
  double recovery_seconds = 0;                       // of the slowest shard at the last start
  std::uint64_t torn_tails = 0, corrupt_frames = 0, damaged_partitions = 0;  // found by it
  std::uint64_t shards_silent = 0;                   // did not answer in time; their figures are missing
  std::uint64_t config_restart_pending = 0;          // keys whose new value waits for the next start
  double cpu_seconds = 0;
  std::uint64_t resident_bytes = 0, open_descriptors = 0;
  std::vector<ShardMetrics> shards;
};

[[nodiscard]] std::string render_metrics(const NodeMetrics& node);

}  // namespace tailrace::broker::http
