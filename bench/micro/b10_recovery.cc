// B10: how long is a broker's log not ready after a crash?
// Unit: seconds to open a shard whose process died without closing, with a WAL of about 1 GiB or with 10,000 partitions, and after a
// clean stop. Reference of the same run: sequential O_DIRECT reads of the same WAL files, 1 MiB at depth 8. Not measured: opening
// partitions, which happens at their first use.
#include <benchmark/benchmark.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/micro/append_load.h"

namespace tailrace::bench {
namespace {

using namespace broker;

void recovery(benchmark::State& state, int partitions, std::uint64_t total, std::size_t value, bool clean) {
  std::uint64_t file_bytes = smoke() ? 2ull << 20 : 128ull << 20;
  if (smoke()) partitions = std::min(partitions, 100), total = std::min<std::uint64_t>(total, 4ull << 20);
  log::ShardLogOptions options{.wal_file_bytes = file_bytes, .wal_files = 9};
  for (auto _ : state) {
    Rig rig;
    // The writer is a child that ends without closing anything, as a killed broker does.
    std::fflush(nullptr);
    pid_t child = ::fork();
    if (child == 0) {
      rig.run([&](io::Runtime& runtime) -> Task<Result<void>> {
        TAILRACE_CO_TRY(auto log, co_await open_log(runtime, rig.folder(), options));
        LoadPlan plan{.partitions = partitions, .window = 1'024, .appends = 0, .records = 1, .value_bytes = value};
        plan.appends = std::max<std::uint64_t>(total / (make_batch(1, value).length + 64), static_cast<std::uint64_t>(partitions));
        TAILRACE_CO_TRY(LoadResult load, co_await append_load(runtime, *log, plan));
        benchmark::DoNotOptimize(load.checksum);
        if (clean) co_await log->close();
        ::_exit(0);
        co_return Result<void>{};
      });
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
      state.SkipWithError("the writer failed");
      return;
    }
    double ours = 0, raw = 0;
    log::RecoveryReport report;
    std::uint64_t wal_bytes = 0;
    rig.run([&](io::Runtime& runtime) -> Task<Result<void>> {
      auto wal = files_below(rig.folder(), ".log");
      std::erase_if(wal, [](const RawFile& f) { return f.path.find("/wal/") == std::string::npos; });
      for (const auto& w : wal) wal_bytes += w.bytes;
      TAILRACE_CO_TRY(raw, co_await raw_reads(runtime, wal, 1 << 20, 8));
      Instant from = runtime.clock.now();
      TAILRACE_CO_TRY(auto log, co_await open_log(runtime, rig.folder(), options));
      ours = seconds(runtime.clock.now() - from);
      report = log->recovery();
      co_await log->close();
      co_return Result<void>{};
    });
    state.SetIterationTime(ours);
    state.counters["open_s"] = ours;
    state.counters["scan_s"] = report.seconds;  // of it: reading and checking the WAL; the rest makes the next file and checkpoint
    state.counters["wal_MB"] = static_cast<double>(wal_bytes) / 1e6;
    state.counters["frames"] = static_cast<double>(report.frames);
    // Only the files that recovery had to read are a fair reference: each is read to its end, since what lies behind a bad place
    // decides what it is. After a clean stop that is none.
    double read_share = wal_bytes == 0 ? 0 : std::min(1.0, static_cast<double>(report.wal_files * file_bytes) / static_cast<double>(wal_bytes));
    state.counters["read_s"] = raw * read_share;
    if (read_share > 0) state.counters["ratio"] = ours / (raw * read_share);
  }
}
void wal_1gib(benchmark::State& state) { recovery(state, 4, 1000ull << 20, 16 << 10, false); }
void many_partitions(benchmark::State& state) { recovery(state, 10'000, 64ull << 20, 1'024, false); }
void clean_start(benchmark::State& state) { recovery(state, 10'000, 64ull << 20, 1'024, true); }
BENCHMARK(wal_1gib)->Name("B10_recovery/wal_1GiB")->Iterations(1)->UseManualTime()->Unit(benchmark::kMillisecond);
BENCHMARK(many_partitions)->Name("B10_recovery/10000_partitions")->Iterations(1)->UseManualTime()->Unit(benchmark::kMillisecond);
BENCHMARK(clean_start)->Name("B10_recovery/10000_partitions_clean")->Iterations(1)->UseManualTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace tailrace::bench

int main(int argc, char** argv) { return tailrace::bench::bench_main(argc, argv); }
