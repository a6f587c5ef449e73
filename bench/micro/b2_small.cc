// B2 and B14: small durable appends over few and many partitions; what the log costs over its own device writes, and how many
// bytes the device gets per byte of payload.
// Unit: appends/s (one record, one batch each). Reference of the same run: the durable writes that the log made, recorded with size
// and depth, replayed on a raw file through the same loop and ring. At least three full turns of the WAL each.
#include <benchmark/benchmark.h>

#include <map>

#include "bench/micro/append_load.h"

namespace tailrace::bench {
namespace {

using namespace broker;

void b2(benchmark::State& state) {
  int partitions = static_cast<int>(state.range(0));
  auto value = static_cast<std::size_t>(state.range(1));
  std::uint64_t file_bytes = smoke() ? 1ull << 20 : 64ull << 20;
  int files = 4;
  if (smoke()) partitions = std::min(partitions, 64);
  for (auto _ : state) {
    Rig rig;
    LoadResult ours;
    log::ShardLogStats stats;
    double replayed = 0;
    rig.run([&](io::Runtime& runtime) -> Task<Result<void>> {
      TAILRACE_CO_TRY(auto log, co_await open_log(runtime, rig.folder(), {.wal_file_bytes = file_bytes, .wal_files = files}));
      std::uint64_t batch_bytes = make_batch(1, value).length;
      LoadPlan plan{.partitions = partitions, .window = 4'096, .appends = 0, .records = 1, .value_bytes = value};
      // Once around the WAL: its files are filled with zeros before their first use, and every partition has its folder and file.
      plan.appends = (file_bytes * static_cast<std::uint64_t>(files + 1)) / (batch_bytes + 80);
      TAILRACE_CO_TRY(LoadResult warm, co_await append_load(runtime, *log, plan));
      benchmark::DoNotOptimize(warm.checksum);
      plan.appends = (file_bytes * static_cast<std::uint64_t>(files) * 7 / 2) / (batch_bytes + 64);
      log::ShardLogStats before = log->stats();
      rig.record(true);
      TAILRACE_CO_TRY(ours, co_await append_load(runtime, *log, plan));
      rig.record(false);
      stats = log->stats();
      stats.commit_bytes -= before.commit_bytes, stats.segment_bytes -= before.segment_bytes, stats.checkpoint_bytes -= before.checkpoint_bytes;
      stats.append_bytes -= before.append_bytes, stats.wal_recycles -= before.wal_recycles, stats.commits -= before.commits;
      stats.commit_padding_bytes -= before.commit_padding_bytes;
      stats.segment_syncs -= before.segment_syncs, stats.wal_stalls -= before.wal_stalls;
      co_await log->close();
      TAILRACE_CO_TRY(RawFile file, co_await make_raw_file(runtime, rig.folder() + "/raw", file_bytes * 2));
      TAILRACE_CO_TRY(replayed, co_await replay_writes(runtime, file, rig.recorded()));
      co_return Result<void>{};
    });
    double rate = static_cast<double>(ours.appends) / ours.seconds;
    static std::map<std::size_t, double> with_one;  // by size of value
    if (partitions == 1) with_one[value] = rate;
    if (with_one.contains(value)) state.counters["of_one"] = rate / with_one[value];
    state.SetIterationTime(ours.seconds);
    state.counters["appends/s"] = rate;
    state.counters["replay_appends/s"] = static_cast<double>(ours.appends) / replayed;
    state.counters["of_replay"] = replayed / ours.seconds;
    state.counters["commits"] = static_cast<double>(stats.commits);
    state.counters["padding"] = static_cast<double>(stats.commit_padding_bytes) / static_cast<double>(stats.commit_bytes);
    state.counters["amplification"] =
        static_cast<double>(stats.commit_bytes + stats.segment_bytes + stats.checkpoint_bytes) / static_cast<double>(stats.append_bytes);
    state.counters["syncs"] = static_cast<double>(stats.segment_syncs);
    state.counters["stalls"] = static_cast<double>(stats.wal_stalls);
    state.counters["recycles"] = static_cast<double>(stats.wal_recycles);
    state.counters["checksum"] = static_cast<double>(ours.checksum % 1'000'000'007);
  }
}
BENCHMARK(b2)->Name("B2_small/partitions/value")->ArgsProduct({{1, 8, 64, 1000, 10000}, {100, 1024}})->Iterations(1)->UseManualTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace tailrace::bench

int main(int argc, char** argv) { return tailrace::bench::bench_main(argc, argv); }
