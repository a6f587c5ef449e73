#include "server/node_metrics.h"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>

#include "flow/memory_budget.h"

namespace tailrace::broker::server {

http::ShardMetrics gather(ShardHost& shard, service::ShardService& service) {
  http::ShardMetrics out;
  out.status = service.status();
  const io::FileCounters& files = shard.thread().files().counters();
  out.io = {.backend = std::string{shard.thread().files().name()},
            .in_flight = files.in_flight.value(),
            .queued = files.queued.value(),
            .reads = files.reads.value(),
            .writes = files.writes.value(),
            .durable_writes = files.durable_writes.value(),
            .syncs = files.syncs.value(),
            .bytes_read = files.bytes_read.value(),
            .bytes_written = files.bytes_written.value(),
            .failures = {}};
  for (std::size_t i = 0; i < files.failures_by_errno.size(); ++i) {
    if (std::uint64_t count = files.failures_by_errno[i].value(); count > 0) out.io.failures[static_cast<int>(i)] = count;
  }
  const io_asio::Loop::Counters& loop = shard.loop().counters();
  out.loop = {loop.turns.value(), loop.sleeps.value(), loop.work.value(), loop.mail.value()};
  for (flow::Pool which : {flow::Pool::requests, flow::Pool::replies, flow::Pool::control, flow::Pool::streams, flow::Pool::receiving}) {
    const flow::MemoryPool& pool = service.memory().pool(which);
    out.memory_pools.emplace_back(std::string{pool.name()}, pool.used());
  }
  if (!shard.front) return out;
  native::FrontCounters front = shard.front->counters();
  http::ListenerMetrics native;
  native.protocol = "native";
  for (std::size_t i = 0; i < native::kApiCount; ++i)
    native.apis.push_back({std::string{native::name_of(static_cast<native::Api>(i))}, front.apis[i].ok, front.apis[i].refused, front.apis[i].latency});
  native.connections_open = front.connections_open;
  native.connections_total = front.connections_total;
  native.connections_refused = front.connections_refused;
  native.connections_garbage = front.connections_garbage;
  native.bytes_in = front.bytes_in;
  native.bytes_out = front.bytes_out;
  native.frames_in = front.frames_in;
  native.frames_out = front.frames_out;
  native.publish_streams = front.streams_publish;
  native.subscriptions = front.streams_subscribe;
  native.reader_pauses = front.reader_pauses;
  native.closed_by_deadline = {{"hello", front.closed_hello}, {"frame", front.closed_frame}, {"idle", front.closed_idle}, {"write", front.closed_write}, {"stalled", front.closed_stalled}};
  out.listeners.push_back(std::move(native));
  return out;
}

void gather_process(http::NodeMetrics& into) {
  rusage usage{};
  if (::getrusage(RUSAGE_SELF, &usage) == 0) {
    auto seconds = [](const timeval& time) { return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6; };
    into.cpu_seconds = seconds(usage.ru_utime) + seconds(usage.ru_stime);
  }
  std::uint64_t total = 0, resident = 0;
  if (std::ifstream statm{"/proc/self/statm"}; statm >> total >> resident) into.resident_bytes = resident * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  if (DIR* folder = ::opendir("/proc/self/fd")) {
    while (const dirent* entry = ::readdir(folder)) into.open_descriptors += entry->d_name[0] != '.';
    ::closedir(folder);
  }
}

}  // namespace tailrace::broker::server
