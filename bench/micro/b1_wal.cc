// B1: how near does a durable append come to the raw device, for large commits?
// Unit: bytes/s. Reference of the same run: O_DIRECT overwrites of the same size and depth, without and with DSYNC, through the
// same loop and ring. (a) fewer bytes than the WAL holds, (b) at least three times the WAL, so that segments, checkpoints and
// recycling are included. Not measured: sockets, validation.
#include <benchmark/benchmark.h>

#include "bench/micro/append_load.h"

namespace tailrace::bench {
namespace {

using namespace broker;

constexpr int kDepth = 16;

void b1(benchmark::State& state, bool steady) {
  auto size = static_cast<std::size_t>(state.range(0)) * 1024;
  std::uint64_t file_bytes = smoke() ? 4ull << 20 : 64ull << 20;
  int files = 8;
  std::uint64_t total = steady ? file_bytes * static_cast<std::uint64_t>(files) * 3 + file_bytes : file_bytes * 3;
  for (auto _ : state) {
    Rig rig;
    LoadResult ours;
    log::ShardLogStats stats;
    double raw = 0, raw_durable = 0;
    rig.run([&](io::Runtime& runtime) -> Task<Result<void>> {
      TAILRACE_CO_TRY(RawFile file, co_await make_raw_file(runtime, rig.folder() + "/raw", file_bytes * 2));
      std::uint64_t raw_total = std::min<std::uint64_t>(total, 512ull << 20);
      TAILRACE_CO_TRY(double raw_seconds, co_await raw_writes(runtime, file, size, kDepth, raw_total, io::Durable::no));
      TAILRACE_CO_TRY(double durable_seconds, co_await raw_writes(runtime, file, size, kDepth, raw_total, io::Durable::yes));
      raw = static_cast<double>(raw_total) / raw_seconds;
      raw_durable = static_cast<double>(raw_total) / durable_seconds;
      TAILRACE_CO_TRY(auto log, co_await open_log(runtime, rig.folder(), {.wal_file_bytes = file_bytes, .wal_files = files}));
      // Once around the WAL: files are filled with zeros before their first use, which is not what is asked about.
      LoadPlan warm{.partitions = 4, .window = kDepth, .appends = file_bytes * static_cast<std::uint64_t>(files + 1) / size, .records = 1, .value_bytes = size - 160};
      TAILRACE_CO_TRY(LoadResult warmed, co_await append_load(runtime, *log, warm));
      benchmark::DoNotOptimize(warmed.checksum);
      LoadPlan plan = warm;
      plan.appends = total / size;
      log::ShardLogStats before = log->stats();
      TAILRACE_CO_TRY(ours, co_await append_load(runtime, *log, plan));
      stats = log->stats();
      stats.commit_bytes -= before.commit_bytes, stats.segment_bytes -= before.segment_bytes, stats.checkpoint_bytes -= before.checkpoint_bytes;
      stats.append_bytes -= before.append_bytes, stats.wal_recycles -= before.wal_recycles;
      co_await log->close();
      co_return Result<void>{};
    });
    double speed = static_cast<double>(ours.bytes) / ours.seconds;
    state.SetIterationTime(ours.seconds);
    state.counters["MB/s"] = speed / 1e6;
    state.counters["raw_MB/s"] = raw / 1e6;
    state.counters["raw_dsync_MB/s"] = raw_durable / 1e6;
    state.counters["of_raw"] = speed / raw;
    state.counters["of_dsync"] = speed / raw_durable;
    double written = static_cast<double>(stats.commit_bytes + stats.segment_bytes + stats.checkpoint_bytes);
    double amplification = written / static_cast<double>(stats.append_bytes);
    state.counters["amplification"] = amplification;
    // What is left of the raw speed when every byte is written `amplification` times; storage.md's target for (b).
    if (steady) state.counters["of_allowed"] = speed / (raw_durable / amplification);
    state.counters["recycles"] = static_cast<double>(stats.wal_recycles);
    state.counters["checksum"] = static_cast<double>(ours.checksum % 1'000'000'007);
  }
}

void b1a(benchmark::State& state) { b1(state, false); }
void b1b(benchmark::State& state) { b1(state, true); }
BENCHMARK(b1a)->Name("B1a_wal_alone/KiB")->Arg(64)->Arg(256)->Arg(1024)->Iterations(1)->UseManualTime()->Unit(benchmark::kMillisecond);
BENCHMARK(b1b)->Name("B1b_steady_state/KiB")->Arg(64)->Arg(256)->Arg(1024)->Iterations(1)->UseManualTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace tailrace::bench

int main(int argc, char** argv) { return tailrace::bench::bench_main(argc, argv); }
