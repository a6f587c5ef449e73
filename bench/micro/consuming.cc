// What consuming costs a broker with its log, durable, on one shard and without a network.
//   lease_ack   one queue group: 8 workers lease 100 records and ack them, state stored before each answer. Unit: records/s. Reference of the same run: 8 readers
//               that fetch the same records and store a group's offset behind each 100.
//   commits     so many groups, one offset a commit, stored before each answer. Unit: commits/s. Reference: as many publishers of one record at a time.
//   joins       so many members that join at once, on two partitions each, from nothing to stable. Unit: s. Reference: the time in which as many
//               publishers that begin at once have stored one record each.
#include <benchmark/benchmark.h>

#include <atomic>

#include "bench/micro/rig.h"
#include "codec/batch_builder.h"
#include "codec/validate.h"
#include "io/wait.h"
#include "io_asio/loop.h"
#include "service/broker_service.h"
#include "shard/shards.h"

namespace tailrace::bench {
namespace {

using namespace broker;
using namespace std::chrono_literals;
using service::ShardService;

constexpr std::size_t kPrefetch = 100;
constexpr int kWorkers = 8;

double seconds_between(Instant from, Instant to) { return std::chrono::duration<double>(to - from).count(); }

/// A broker of one shard in the rig's folder, for as long as `body` runs.
void with_broker(const std::function<Task<Result<void>>(io::Runtime&, ShardService&)>& body) {
  Rig rig;
  rig.run([&](io::Runtime& runtime) -> Task<Result<void>> {
    shard::Shards shards{{{rig.loop().inbox(), runtime.executor}}};
    service::BrokerOptions options;
    options.data_directory = rig.folder() + "/broker";
    options.log.wal_file_bytes = 64 << 20;
    service::BrokerService broker{std::move(options), {&runtime}, shards};
    TAILRACE_CO_TRY_VOID(co_await broker.start());
    Result<void> done = co_await body(runtime, broker.shard(ShardIndex{0}));
    service::StopReport stopped = co_await broker.stop(runtime.clock.now() + 30s);
    if (done && !stopped.clean) done = fail(Errc::internal, "the broker does not stop");
    co_return done;
  });
}

template <class T>
Result<T> plain(service::Answer<T> answer) {
  if (!answer) return std::unexpected(Error{answer.error()});
  if constexpr (std::is_void_v<T>) return {};
  else return *std::move(answer);
}

/// `count` records of 100 bytes with one of `keys` keys, 100 to a batch.
Task<Result<void>> fill(ShardService& shard, const std::string& topic, std::uint64_t count, std::uint64_t keys) {
  TAILRACE_CO_TRY(auto made, plain(co_await shard.create_topic({.name = topic, .partitions = 1})));
  std::string value(100, 'v');
  Result<void> failed;
  TaskScope scope;
  auto send = [&](service::ProduceRequest request) -> Task<void> {
    auto stored = plain(co_await shard.produce(std::move(request)));
    if (!stored) failed = std::unexpected(std::move(stored).error());
  };
  for (std::uint64_t i = 0; i < count && failed;) {
    codec::BatchBuilder builder{{}};
    for (int n = 0; n < 100; ++n, ++i) {
      std::string key = std::to_string(i * 0x9e3779b97f4a7c15ULL % std::max<std::uint64_t>(keys, 1));
      codec::RecordInput record{.timestamp = 1, .value = as_bytes(value)};
      if (keys > 0) record.key = as_bytes(key);
      TAILRACE_CO_TRY_VOID(builder.add(record));
    }
    TAILRACE_CO_TRY(Slice batch, builder.finish());
    TAILRACE_CO_TRY(BatchHeader header, read_batch_header(batch.bytes(), batch.length));
    scope.spawn(send({.topic = made->id, .partition = PartitionIndex{0}, .batch = batch, .header = header}));
    if (scope.running() >= 64) co_await scope.drain();
  }
  co_await scope.drain();
  co_return failed;
}

Task<Result<double>> lease_and_ack(io::Runtime& runtime, ShardService& shard, std::uint64_t count, bool key_order) {
  service::QueueSettings settings{.options = {.lease_ms = 600'000, .key_order = key_order}};
  std::uint64_t acked = 0;
  Result<void> failed;
  auto worker = [&](queue::WorkerId id) -> Task<void> {
    while (acked < count && failed) {
      auto leased = plain(co_await shard.lease_records("jobs", PartitionIndex{0}, {.group = "g", .worker = id, .credit = kPrefetch, .wait_until = runtime.clock.now() + 20ms}));
      if (!leased) {
        failed = std::unexpected(std::move(leased).error());
        break;
      }
      std::vector<service::SettleRecord> acks;
      for (const service::LeasedRecord& one : *leased) acks.push_back({.offset = one.offset, .attempt = one.attempt});
      if (acks.empty()) continue;
      std::size_t asked = acks.size();
      auto settled = plain(co_await shard.settle_records("jobs", PartitionIndex{0}, "g", id, std::move(acks)));
      if (!settled) failed = std::unexpected(std::move(settled).error());
      else acked += asked;
    }
  };
  TaskScope scope;
  Instant from = runtime.clock.now();
  for (int i = 0; i < kWorkers; ++i) {
    TAILRACE_CO_TRY(auto opened, plain(co_await shard.open_queue("jobs", PartitionIndex{0}, {.group = "g", .settings = settings})));
    scope.spawn(worker(opened.worker));
  }
  co_await scope.drain();
  double took = seconds_between(from, runtime.clock.now());
  if (!failed) co_return std::unexpected(failed.error());
  TAILRACE_CO_TRY(auto described, plain(co_await shard.describe_queue("jobs", PartitionIndex{0}, "g")));
  if (described.counters.acked != count || described.live != 0) co_return fail(Errc::internal, "not every record was acked once");
  TAILRACE_CO_TRY_VOID(plain(co_await shard.delete_queue("jobs", PartitionIndex{0}, "g")));
  co_return static_cast<double>(count) / took;
}

/// The same records by readers that store an offset behind each hundred: what a log group does.
Task<Result<double>> fetch_and_commit(io::Runtime& runtime, ShardService& shard, std::uint64_t count) {
  TopicId topic = shard.catalog()->find("jobs")->id;
  std::uint64_t read = 0;
  Result<void> failed;
  auto reader = [&](int number) -> Task<void> {
    service::Fetcher fetcher{shard};
    auto share = static_cast<std::int64_t>(count) / kWorkers;
    std::int64_t at = share * number, end = share * (number + 1);
    while (at < end && failed) {
      auto fetched = plain(co_await fetcher.fetch({.topic = topic, .partition = PartitionIndex{0}, .from = Offset{at}, .bytes_max = 1, .records_max = kPrefetch}));
      if (!fetched) {
        failed = std::unexpected(std::move(fetched).error());
        break;
      }
      read += static_cast<std::uint64_t>(fetched->next.value() - at);
      at = fetched->next.value();
      std::vector<service::PartitionCommit> offset{{.topic = "jobs", .partition = PartitionIndex{0}, .offset = Offset{at}}};
      auto stored = plain(co_await shard.commit_offsets({.group = "reader-" + std::to_string(number), .offsets = std::move(offset)}));
      if (!stored) failed = std::unexpected(std::move(stored).error());
    }
  };
  TaskScope scope;
  Instant from = runtime.clock.now();
  for (int i = 0; i < kWorkers; ++i) scope.spawn(reader(i));
  co_await scope.drain();
  double took = seconds_between(from, runtime.clock.now());
  if (!failed) co_return std::unexpected(failed.error());
  co_return static_cast<double>(read) / took;
}

void lease_ack(benchmark::State& state) {
  auto keys = static_cast<std::uint64_t>(state.range(0));
  std::uint64_t count = smoke() ? 8'000 : 800'000;
  for (auto _ : state) {
    double queue = 0, log = 0;
    with_broker([&](io::Runtime& runtime, ShardService& shard) -> Task<Result<void>> {
      TAILRACE_CO_TRY_VOID(co_await fill(shard, "jobs", count, keys));
      for (int turn = 0; turn < 3; ++turn) {  // in turn, so that a disturbance falls on both
        TAILRACE_CO_TRY(double ours, co_await lease_and_ack(runtime, shard, count, keys > 0));
        TAILRACE_CO_TRY(double reference, co_await fetch_and_commit(runtime, shard, count));
        queue = std::max(queue, ours);
        log = std::max(log, reference);
      }
      co_return Result<void>{};
    });
    state.SetIterationTime(static_cast<double>(count) / queue);
    state.counters["records/s"] = queue;
    state.counters["fetch+commit/s"] = log;
    state.counters["ratio"] = queue / log;
  }
}
BENCHMARK(lease_ack)->Name("consuming_lease_ack/keys")->Arg(0)->Arg(1'000'000)->Iterations(1)->UseManualTime()->Unit(benchmark::kMillisecond);

/// `publishers` at once, each one record after the other, until `count` are stored. Records/s.
Task<Result<double>> publish_singly(io::Runtime& runtime, ShardService& shard, int publishers, std::uint64_t count) {
  TopicId topic = shard.catalog()->find("jobs")->id;
  std::uint64_t begun = 0;
  Result<void> failed;
  auto publish = [&]() -> Task<void> {
    while (begun < count && failed) {
      ++begun;
      codec::BatchBuilder builder{{}};
      Result<Slice> batch = fail(Errc::internal, "");
      if (builder.add({.timestamp = 1, .value = as_bytes(std::string_view{"a value as long as an offset is"})})) batch = builder.finish();
      auto header = batch ? read_batch_header(batch->bytes(), batch->length) : std::unexpected(batch.error());
      if (!header) {
        failed = std::unexpected(header.error());
        break;
      }
      auto stored = plain(co_await shard.produce({.topic = topic, .partition = PartitionIndex{0}, .batch = *batch, .header = *header}));
      if (!stored) failed = std::unexpected(std::move(stored).error());
    }
  };
  TaskScope scope;
  Instant from = runtime.clock.now();
  for (int i = 0; i < publishers; ++i) scope.spawn(publish());
  co_await scope.drain();
  if (!failed) co_return std::unexpected(failed.error());
  co_return static_cast<double>(count) / seconds_between(from, runtime.clock.now());
}

void commits(benchmark::State& state) {
  auto committers = static_cast<int>(state.range(0));
  std::uint64_t count = smoke() ? 500 : 100'000;
  for (auto _ : state) {
    double rate = 0, reference = 0;
    with_broker([&](io::Runtime& runtime, ShardService& shard) -> Task<Result<void>> {
      TAILRACE_CO_TRY_VOID(co_await fill(shard, "jobs", 100, 0));
      std::uint64_t done = 0;
      Result<void> failed;
      auto commit = [&](int number) -> Task<void> {
        for (std::int64_t i = 1; done < count && failed; ++i) {
          std::vector<service::PartitionCommit> offset{{.topic = "jobs", .partition = PartitionIndex{0}, .offset = Offset{i}}};
          auto stored = plain(co_await shard.commit_offsets({.group = "g" + std::to_string(number), .offsets = std::move(offset)}));
          if (!stored) failed = std::unexpected(std::move(stored).error());
          ++done;
        }
      };
      TaskScope scope;
      Instant from = runtime.clock.now();
      for (int i = 0; i < committers; ++i) scope.spawn(commit(i));
      co_await scope.drain();
      rate = static_cast<double>(done) / seconds_between(from, runtime.clock.now());
      if (!failed) co_return failed;
      TAILRACE_CO_TRY(reference, co_await publish_singly(runtime, shard, committers, count));
      co_return failed;
    });
    state.SetIterationTime(static_cast<double>(count) / rate);
    state.counters["commits/s"] = rate;
    state.counters["publishes/s"] = reference;
    state.counters["ratio"] = rate / reference;
  }
}
BENCHMARK(commits)->Name("consuming_commits/committers")->Arg(1)->Arg(32)->Arg(256)->Iterations(1)->UseManualTime()->Unit(benchmark::kMillisecond);

void joins(benchmark::State& state) {
  auto members = static_cast<std::size_t>(smoke() ? 20 : state.range(0));
  for (auto _ : state) {
    double took = 0, reference = 0;
    with_broker([&](io::Runtime& runtime, ShardService& shard) -> Task<Result<void>> {
      TAILRACE_CO_TRY(auto made, plain(co_await shard.create_topic({.name = "jobs", .partitions = static_cast<std::int32_t>(2 * members)})));
      benchmark::DoNotOptimize(made);
      Result<void> failed;
      std::size_t settled = 0;
      auto member = [&](std::size_t number) -> Task<void> {
        auto beat = plain(co_await shard.join_group({.group = "g", .instance = "i" + std::to_string(number), .topics = {"jobs"}, .session_timeout = 60s}));
        bool counted = false;
        while (beat && failed && settled < members) {
          std::size_t reads = 0;
          for (const auto& some : beat->assignment) reads += some.partitions.size();
          if (reads == 2 && !counted) {
            counted = true;
            ++settled;
          }
          if (reads != 2 && counted) {
            counted = false;
            --settled;
          }
          std::string id = beat->member;
          beat = plain(co_await shard.group_heartbeat({.group = "g", .member = id, .generation = beat->generation, .owned = beat->assignment, .wait_until = runtime.clock.now() + 500ms}));
          if (beat) beat->member = id;
        }
        if (!beat) failed = std::unexpected(std::move(beat).error());
      };
      TaskScope scope;
      Instant from = runtime.clock.now();
      for (std::size_t i = 0; i < members; ++i) scope.spawn(member(i));
      while (failed && settled < members) co_await io::SleepUntil{runtime, runtime.clock.now() + 5ms};
      took = seconds_between(from, runtime.clock.now());
      co_await scope.drain();
      if (!failed) co_return failed;
      TAILRACE_CO_TRY(double rate, co_await publish_singly(runtime, shard, static_cast<int>(members), members));
      reference = static_cast<double>(members) / rate;
      co_return failed;
    });
    state.SetIterationTime(took);
    state.counters["seconds"] = took;
    state.counters["reference"] = reference;
  }
}
BENCHMARK(joins)->Name("consuming_join_storm/members")->Arg(100)->Arg(1'000)->Iterations(1)->UseManualTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace tailrace::bench

int main(int argc, char** argv) { return tailrace::bench::bench_main(argc, argv); }
