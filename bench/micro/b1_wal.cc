// B1: how near does a durable append come to the raw device, for large commits?
//
// Reference of both: O_DIRECT overwrites of written blocks, same size, 16 in flight, without and with DSYNC, through the same loop
// and ring, over a file as large as the WAL. Rounds take turns (raw, raw DSYNC, ours), so that a disturbance of a shared disk falls
// on all; each counter is the median of the rounds, and `of_...` the median of the rounds' own ratios, with its least and largest.
// Unit: bytes/s of payload.
//
// B1a  the WAL alone: WalWriter and WalFiles of the broker and nothing else of it. 16 frames of the given size unacknowledged at any
//      time, each appended by reference, copied and checksummed into the log's staging buffers, and acknowledged in order when
//      durable. A file that is full is free again at once: no segments, checkpoints or partitions. File headers, rotation and its
//      drain, padding and the control of the pipeline are included. `depth` is the mean number of commits in flight: less than 16,
//      since the window moves with the oldest append. `of_ordered` is against raw DSYNC writes whose window moves like that.
// B1b  the whole shard log in steady state: four partitions, default WAL (4 files of 64 MiB), batches copied in as from a socket,
//      segment writes and syncs, checkpoints, recycling; at least three turns of the WAL in all. What is allowed is the raw DSYNC
//      speed divided by the measured write amplification.
// Not measured: sockets, validation of batches.
#include <benchmark/benchmark.h>

#include "bench/micro/append_load.h"
#include "log/wal_writer.h"

namespace tailrace::bench {
namespace {

using namespace broker;

constexpr int kDepth = 16;

struct Reference {
  RawFile file{};
  std::size_t size = 0;
  std::uint64_t total = 0;
  Rounds raw{}, durable{}, ordered{};
  double raw_now = 0, durable_now = 0, ordered_now = 0;

  Task<Result<void>> round(io::Runtime& runtime) {
    TAILRACE_CO_TRY(double plain, co_await raw_writes(runtime, file, size, kDepth, total, io::Durable::no));
    TAILRACE_CO_TRY(double synced, co_await raw_writes(runtime, file, size, kDepth, total, io::Durable::yes));
    TAILRACE_CO_TRY(double in_order, co_await raw_writes(runtime, file, size, kDepth, total, io::Durable::yes, true));
    ordered.add(ordered_now = static_cast<double>(total) / in_order);
    raw.add(raw_now = static_cast<double>(total) / plain);
    durable.add(durable_now = static_cast<double>(total) / synced);
    co_return Result<void>{};
  }
};

/// A WAL without a shard: files are made ready and freed as the shard's upkeep would do it, had it nothing to settle.
class LoneWal {
 public:
  LoneWal(io::Runtime& runtime, std::string folder, std::uint64_t file_bytes)
      : runtime_{runtime},
        options_{.wal_file_bytes = file_bytes, .wal_files = 3, .wal_mark_when_idle = false},
        files_{runtime, {.folder = std::move(folder), .file_bytes = file_bytes, .files = options_.wal_files}},
        wal_{runtime, files_, stats_, options_} {
    wal_.set_hooks({.need_file = [this] { scope_.spawn(prepare()); }});
  }
  Task<Result<void>> start() {
    TAILRACE_CO_TRY_VOID(co_await runtime_.files.make_directory(files_.options().folder));
    TAILRACE_CO_TRY_VOID(co_await files_.prepare({}));
    files_.activate();
    wal_.start();
    scope_.spawn(prepare());
    co_return Result<void>{};
  }
  /// Answers seconds.
  Task<Result<double>> run(std::uint64_t appends, const std::vector<Slice>& payloads) {
    left_ = appends;
    Instant from = runtime_.clock.now();
    TaskScope places;
    for (int i = 0; i < kDepth; ++i) places.spawn(place(payloads));
    co_await places.drain();
    if (failure_) co_return std::unexpected(*failure_);
    co_return seconds(runtime_.clock.now() - from);
  }
  Task<void> stop() {
    co_await wal_.drain();
    co_await scope_.drain();
    co_await wal_.drain();
  }
  [[nodiscard]] const log::ShardLogStats& stats() const { return stats_; }

 private:
  Task<void> prepare() {
    if (preparing_ || files_.prepared()) co_return;
    preparing_ = true;
    files_.free_before(files_.active()->header.sequence);
    auto done = co_await files_.prepare({});
    preparing_ = false;
    if (done) wal_.file_ready();
    else failure_ = done.error(), wal_.fail(done.error());
  }
  Task<void> place(const std::vector<Slice>& payloads) {
    while (left_ > 0 && !failure_) {
      std::uint64_t n = --left_;
      std::uint64_t frame = wal_.append({.type = log::FrameType::batch, .partition = 1}, payloads[n % payloads.size()], nullptr);
      auto durable = co_await wal_.wait_durable(frame);
      if (!durable) failure_ = durable.error();
    }
  }

  io::Runtime& runtime_;
  log::ShardLogOptions options_;
  log::ShardLogStats stats_{};
  log::WalFiles files_;
  log::WalWriter wal_;
  TaskScope scope_{};
  std::uint64_t left_ = 0;
  bool preparing_ = false;
  std::optional<Error> failure_{};
};

void report(benchmark::State& state, const Reference& reference, const Rounds& ours) {
  state.counters["MB/s"] = ours.median() / 1e6;
  state.counters["raw_MB/s"] = reference.raw.median() / 1e6;
  state.counters["raw_dsync_MB/s"] = reference.durable.median() / 1e6;
  state.counters["raw_ordered_MB/s"] = reference.ordered.median() / 1e6;
}

void b1a(benchmark::State& state) {
  auto size = static_cast<std::size_t>(state.range(0)) * 1024;
  std::uint64_t file_bytes = smoke() ? 4ull << 20 : 64ull << 20;
  std::uint64_t total = smoke() ? file_bytes : 512ull << 20;
  for (auto _ : state) {
    Rig rig;
    Reference reference{.size = size, .total = total};
    Rounds ours, of_raw, of_durable, of_ordered;
    log::ShardLogStats stats;
    rig.run([&](io::Runtime& runtime) -> Task<Result<void>> {
      TAILRACE_CO_TRY(reference.file, co_await make_raw_file(runtime, rig.folder() + "/raw", file_bytes * 3));
      // Frames of exactly `size` bytes with their header, from 32 MiB of different payloads: no cache holds them all.
      std::vector<Slice> payloads;
      std::size_t payload = size - log::kFrameHeaderBytes;
      for (std::size_t i = 0; i < std::max<std::size_t>((32ull << 20) / size, 2); ++i) payloads.push_back(random_bytes(payload, i));
      LoneWal wal{runtime, rig.folder() + "/wal", file_bytes};
      TAILRACE_CO_TRY_VOID(co_await wal.start());
      // Once around: files are filled with zeros before their first use, which is not what is asked about.
      TAILRACE_CO_TRY(double warm, co_await wal.run(file_bytes * 4 / size, payloads));
      benchmark::DoNotOptimize(warm);
      log::ShardLogStats before = wal.stats();
      double in_flight = 0, measured = 0;
      for (int r = 0; r < rounds(); ++r) {
        TAILRACE_CO_TRY_VOID(co_await reference.round(runtime));
        std::uint64_t latency = wal.stats().commit_latency.sum_us;
        TAILRACE_CO_TRY(double took, co_await wal.run(total / size, payloads));
        double speed = static_cast<double>(total / size * payload) / took;
        ours.add(speed), of_raw.add(speed / reference.raw_now), of_durable.add(speed / reference.durable_now);
        of_ordered.add(speed / reference.ordered_now);
        in_flight += static_cast<double>(wal.stats().commit_latency.sum_us - latency) / 1e6, measured += took;
      }
      stats = wal.stats();
      co_await wal.stop();
      double commits = static_cast<double>(stats.commits - before.commits);
      state.counters["depth"] = in_flight / measured;
      state.counters["commit_KiB"] = static_cast<double>(stats.commit_bytes - before.commit_bytes) / commits / 1024;
      co_return Result<void>{};
    });
    state.SetIterationTime(static_cast<double>(total) / ours.median());
    report(state, reference, ours);
    of_raw.report(state, "of_raw");
    of_durable.report(state, "of_dsync");
    of_ordered.report(state, "of_ordered");
  }
}

void b1b(benchmark::State& state) {
  auto size = static_cast<std::size_t>(state.range(0)) * 1024;
  std::uint64_t file_bytes = smoke() ? 4ull << 20 : 64ull << 20;
  int files = 4;
  std::uint64_t turn = file_bytes * static_cast<std::uint64_t>(files);
  std::uint64_t total = smoke() ? turn : turn * 2;
  for (auto _ : state) {
    Rig rig;
    Reference reference{.size = size, .total = std::min<std::uint64_t>(total, 512ull << 20)};
    Rounds ours, of_durable, of_allowed, amplifications;
    std::uint64_t recycles = 0;
    rig.run([&](io::Runtime& runtime) -> Task<Result<void>> {
      TAILRACE_CO_TRY(reference.file, co_await make_raw_file(runtime, rig.folder() + "/raw", turn));
      TAILRACE_CO_TRY(auto log, co_await open_log(runtime, rig.folder(), {.wal_file_bytes = file_bytes, .wal_files = files}));
      LoadPlan plan{.partitions = 4, .window = kDepth, .appends = (turn + file_bytes) / size, .records = 1, .value_bytes = size - 160};
      TAILRACE_CO_TRY(LoadResult warmed, co_await append_load(runtime, *log, plan));
      benchmark::DoNotOptimize(warmed.checksum);
      plan.appends = total / size;
      std::uint64_t recycled = log->stats().wal_recycles;
      for (int r = 0; r < rounds(); ++r) {
        co_await settled(runtime, *log);
        TAILRACE_CO_TRY_VOID(co_await reference.round(runtime));
        log::ShardLogStats before = log->stats();
        TAILRACE_CO_TRY(LoadResult load, co_await append_load(runtime, *log, plan));
        double speed = static_cast<double>(load.bytes) / load.seconds;
        double amplification = device_bytes(log->stats(), before) / static_cast<double>(load.bytes);
        ours.add(speed), of_durable.add(speed / reference.durable_now), amplifications.add(amplification);
        of_allowed.add(speed / (reference.durable_now / amplification));
      }
      recycles = log->stats().wal_recycles - recycled;
      co_await log->close();
      co_return Result<void>{};
    });
    state.SetIterationTime(static_cast<double>(total) / ours.median());
    report(state, reference, ours);
    of_durable.report(state, "of_dsync");
    of_allowed.report(state, "of_allowed");
    state.counters["amplification"] = amplifications.median();
    state.counters["recycles"] = static_cast<double>(recycles);
  }
}
BENCHMARK(b1a)->Name("B1a_wal_alone/KiB")->Arg(64)->Arg(256)->Arg(1024)->Iterations(1)->UseManualTime()->Unit(benchmark::kMillisecond);
BENCHMARK(b1b)->Name("B1b_steady_state/KiB")->Arg(64)->Arg(256)->Arg(1024)->Iterations(1)->UseManualTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace tailrace::bench

int main(int argc, char** argv) { return tailrace::bench::bench_main(argc, argv); }
