// B4: what does one durable record cost on an idle disk?
// Unit: microseconds from append to commit. Reference of the same run: one 4 KiB O_DIRECT|DSYNC overwrite through the same loop and
// ring, in turn with ours, so that a disturbance of the shared disk falls on both.
#include <benchmark/benchmark.h>

#include "bench/micro/append_load.h"
#include "io/wait.h"

namespace tailrace::bench {
namespace {

using namespace broker;

void b4(benchmark::State& state) {
  int rounds = smoke() ? 20 : 200, per_round = smoke() ? 10 : 100;
  for (auto _ : state) {
    Rig rig;
    Latencies ours, raw;
    std::uint64_t checksum = 0;
    rig.run([&](io::Runtime& runtime) -> Task<Result<void>> {
      std::uint64_t raw_bytes = 64ull << 20;
      TAILRACE_CO_TRY(RawFile raw_file, co_await make_raw_file(runtime, rig.folder() + "/raw", raw_bytes));
      TAILRACE_CO_TRY(auto file, co_await runtime.files.open(raw_file.path, {.write = true, .direct = true}));
      Buffer block = Buffer::allocate(4096, io::kDirectAlignment);
      std::memset(block.data(), 0x5a, block.size());
      TAILRACE_CO_TRY(auto log, co_await open_log(runtime, rig.folder(), {.wal_file_bytes = 64ull << 20, .wal_files = 4}));
      TAILRACE_CO_TRY(auto partition, co_await log->create(partition_id(0), {}));
      Slice pattern = make_batch(1, 100);
      TAILRACE_CO_TRY(BatchHeader header, read_batch_header(pattern.bytes(), limits::kMessageBytesCeiling));
      std::uint64_t at = 0;
      for (int r = 0; r < rounds; ++r) {
        for (int i = 0; i < per_round; ++i) {
          Instant from = runtime.clock.now();
          TAILRACE_CO_TRY(auto appended, partition->append(Slice::whole(Buffer::copy_of(pattern.bytes())), header, runtime.clock.wall()));
          TAILRACE_CO_TRY_VOID(co_await partition->committed(appended.next_offset));
          ours.add(runtime.clock.now() - from);
          checksum += static_cast<std::uint64_t>(appended.base_offset.value());
        }
        // The idle mark of the log must not fall into the reference.
        co_await io::SleepUntil{runtime, runtime.clock.now() + 15ms};
        for (int i = 0; i < per_round; ++i) {
          Instant from = runtime.clock.now();
          TAILRACE_CO_TRY_VOID(co_await io::write_all(*file, block.bytes(), at, io::Durable::yes));
          raw.add(runtime.clock.now() - from);
          at = (at + 4096) % raw_bytes;
        }
      }
      co_await log->close();
      co_return Result<void>{};
    });
    state.SetIterationTime(ours.us(500) / 1e6);
    for (auto [name, per_mille] : {std::pair{"p50", 500}, {"p99", 990}, {"p99.9", 999}}) {
      state.counters[std::string{name} + "_us"] = ours.us(per_mille);
      state.counters[std::string{"raw_"} + name + "_us"] = raw.us(per_mille);
      state.counters[std::string{name} + "_ratio"] = ours.us(per_mille) / raw.us(per_mille);
    }
    state.counters["checksum"] = static_cast<double>(checksum % 1'000'000'007);
  }
}
BENCHMARK(b4)->Name("B4_one_record")->Iterations(1)->UseManualTime()->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace tailrace::bench

int main(int argc, char** argv) { return tailrace::bench::bench_main(argc, argv); }
