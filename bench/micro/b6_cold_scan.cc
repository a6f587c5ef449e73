// B6: how near does reading a log from the disk come to reading its files?
// Unit: bytes/s over all consumers. Reference of the same run: O_DIRECT sequential reads of the same segment files, 256 KiB at depth 8,
// through the same loop and ring. Checks are on. Every consumer reads the whole partition; with several, all start together.
#include <benchmark/benchmark.h>

#include "bench/micro/append_load.h"

namespace tailrace::bench {
namespace {

using namespace broker;

Task<void> consumer(log::PartitionPtr partition, std::uint64_t* bytes, std::uint64_t* records, std::optional<Error>* failure) {
  Offset at = partition->log_start(), end = partition->high_watermark();
  while (at < end) {
    auto read = co_await partition->read(at, {.bytes_max = limits::kMiB});
    if (!read || read->batches.empty()) {
      *failure = read ? Error{Errc::unexpected_end, "an empty read below the high watermark"} : read.error();
      co_return;
    }
    for (const auto& batch : read->batches) *bytes += batch.length;
    *records += static_cast<std::uint64_t>(read->next - at);
    at = read->next;
  }
}

void b6(benchmark::State& state) {
  int consumers = static_cast<int>(state.range(0));
  std::uint64_t total = smoke() ? 16ull << 20 : 1024ull << 20;
  for (auto _ : state) {
    Rig rig;
    double raw = 0, ours_seconds = 0;
    std::uint64_t bytes = 0, records = 0;
    log::ShardLogOptions options{.wal_file_bytes = smoke() ? 4ull << 20 : 64ull << 20, .wal_files = 4, .hot_tail_bytes = 16ull << 20};
    rig.run([&](io::Runtime& runtime) -> Task<Result<void>> {
      TAILRACE_CO_TRY(auto log, co_await open_log(runtime, rig.folder(), options));
      LoadPlan plan{.partitions = 1, .window = 64, .appends = 0, .records = 16, .value_bytes = 1024};
      plan.appends = total / make_batch(plan.records, plan.value_bytes).length;
      TAILRACE_CO_TRY(LoadResult load, co_await append_load(runtime, *log, plan));
      benchmark::DoNotOptimize(load.checksum);
      co_await log->close();
      co_return Result<void>{};
    });
    rig.run([&](io::Runtime& runtime) -> Task<Result<void>> {
      auto segments = files_below(rig.folder(), ".log");
      std::erase_if(segments, [](const RawFile& f) { return f.path.find("/topics/") == std::string::npos; });
      std::uint64_t segment_bytes = 0;
      for (const auto& s : segments) segment_bytes += s.bytes;
      TAILRACE_CO_TRY(double raw_seconds, co_await raw_reads(runtime, segments, 256 << 10, 8));
      raw = static_cast<double>(segment_bytes) / raw_seconds;
      TAILRACE_CO_TRY(auto log, co_await open_log(runtime, rig.folder(), options));
      TAILRACE_CO_TRY(auto partition, co_await log->open_partition(partition_id(0), {}));
      std::optional<Error> failure;
      Instant from = runtime.clock.now();
      TaskScope scope;
      for (int c = 0; c < consumers; ++c) scope.spawn(consumer(partition, &bytes, &records, &failure));
      co_await scope.drain();
      ours_seconds = seconds(runtime.clock.now() - from);
      if (failure) co_return std::unexpected(*failure);
      partition.reset();
      co_await log->close();
      co_return Result<void>{};
    });
    double speed = static_cast<double>(bytes) / ours_seconds;
    state.SetIterationTime(ours_seconds);
    state.counters["MB/s"] = speed / 1e6;
    state.counters["raw_MB/s"] = raw / 1e6;
    state.counters["of_raw"] = speed / raw;
    state.counters["records"] = static_cast<double>(records);
  }
}
BENCHMARK(b6)->Name("B6_cold_scan/consumers")->Arg(1)->Arg(8)->Arg(64)->Iterations(1)->UseManualTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace tailrace::bench

int main(int argc, char** argv) { return tailrace::bench::bench_main(argc, argv); }
