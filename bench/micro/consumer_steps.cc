/// What groups, queues and event streams cost a core, without log, codec, network and index.
///   queue_lease_ack    one item = one record leased and acked; without and with key order, over 1 M keys
///   queue_retry        one item = one record leased and given back, with this many waiting; bytes = memory of one that waits
///   group_join_storm   one item = one member's join, until so many are there, with a heartbeat of each
///   stream_append      one item = one event judged against a warm head, appended, committed and given to the index
#include <benchmark/benchmark.h>
#include <malloc.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "group/group.h"
#include "queue/queue.h"
#include "stream/ledger.h"

namespace tailrace::broker {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kPrefetch = 100;

std::vector<queue::Waiting> window(Offset from, std::uint64_t keys) {
  std::vector<queue::Waiting> out;
  for (std::size_t i = 0; i < kPrefetch; ++i) {
    auto offset = static_cast<std::uint64_t>(from.value()) + i;
    out.push_back({from + static_cast<std::int64_t>(i), keys == 0 ? 0 : 1 + offset * 0x9e3779b97f4a7c15ULL % keys});
  }
  return out;
}

void queue_lease_ack(benchmark::State& state) {
  std::uint64_t keys = static_cast<std::uint64_t>(state.range(0));
  queue::Queue queue{{.key_order = keys > 0}, Offset{0}};
  queue::TimeMs now = 0;
  std::uint64_t acked = 0;
  while (state.KeepRunningBatch(static_cast<std::int64_t>(kPrefetch))) {
    auto events = queue.deliver(1, kPrefetch, window(queue.next(), keys), ++now);
    for (const queue::Event& event : events) {
      if (const auto* e = std::get_if<queue::Attempted>(&event)) acked += queue.ack(1, e->offset, e->attempt, now).has_value() ? 1 : 0;
    }
  }
  if (acked < static_cast<std::uint64_t>(state.iterations()) / 2) state.SkipWithError("what was leased is not acked");
  state.SetItemsProcessed(static_cast<std::int64_t>(acked));
}
BENCHMARK(queue_lease_ack)->Arg(0)->Arg(1'000'000);

void queue_retry(benchmark::State& state) {
  auto waiting = static_cast<std::size_t>(state.range(0));
  std::size_t before = mallinfo2().uordblks;
  queue::Queue queue{{.attempts_max = 1'000'000, .backoff_min_ms = 1, .backoff_max_ms = 1, .live_max = waiting}, Offset{0}};
  queue::TimeMs now = 0;
  auto round = [&](std::vector<queue::Event> events) {
    for (const queue::Event& event : events) {
      if (const auto* e = std::get_if<queue::Attempted>(&event)) (void)queue.retry(1, e->offset, e->attempt, std::nullopt, now);
    }
  };
  while (queue.live() < waiting) round(queue.deliver(1, kPrefetch, window(queue.next(), 0), now));
  state.counters["bytes"] = static_cast<double>(mallinfo2().uordblks - before) / static_cast<double>(waiting);
  while (state.KeepRunningBatch(static_cast<std::int64_t>(kPrefetch))) {
    ++now;
    round(queue.deliver(1, kPrefetch, {}, now));
  }
  if (queue.live() != waiting) state.SkipWithError("a record was lost");
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(queue_retry)->Arg(10'000)->Arg(1'000'000);

void group_join_storm(benchmark::State& state) {
  auto members = static_cast<std::size_t>(state.range(0));
  TopicId topic;
  topic.bytes[15] = 1;
  for (auto _ : state) {
    group::Group group;
    group.set_partitions({{topic, static_cast<std::int32_t>(2 * members)}});
    std::vector<group::Beat> beats;
    for (std::size_t i = 0; i < members; ++i) beats.push_back(*group.join({.member = "m" + std::to_string(i), .topics = {topic}, .session_timeout = 10s}, Instant{}));
    for (int round = 0; round < 3; ++round) {
      for (std::size_t i = 0; i < members; ++i) beats[i] = *group.heartbeat("m" + std::to_string(i), beats[i].generation, beats[i].assignment, Instant{});
    }
    if (!group.settled()) state.SkipWithError("it does not settle");
  }
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(members));
}
BENCHMARK(group_join_storm)->Arg(100)->Arg(1'000)->Unit(benchmark::kMillisecond);

void stream_append(benchmark::State& state) {
  auto streams = static_cast<std::size_t>(state.range(0));
  stream::WarmHeads warm{streams * 400};
  stream::Ledger ledger{Offset{0}, warm, 1};
  std::vector<std::string> names;
  for (std::size_t i = 0; i < streams; ++i) {
    names.push_back("customer-" + std::to_string(i));
    ledger.begin_lookup(names.back());
    ledger.end_lookup(names.back(), {});
  }
  Offset end{0};
  std::vector<stream::Version> versions(streams, stream::kNoVersion);
  std::size_t at = 0;
  for (auto _ : state) {
    stream::Expected expected{versions[at] < 0 ? stream::Expected::Kind::none : stream::Expected::Kind::exactly, versions[at]};
    stream::Judgement judged = ledger.judge(names[at], expected, 1);
    if (judged.kind != stream::Judgement::Kind::append) return state.SkipWithError("a right append is refused");
    ledger.appended({.stream = names[at], .base = end, .next = end + 1, .count = 1});
    end = end + 1;
    ++versions[at];
    if (end.value() % 256 == 0) {
      benchmark::DoNotOptimize(ledger.committed(end, 256));
      ledger.indexed(end);
    }
    if (++at == streams) at = 0;
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(stream_append)->Arg(1'000)->Arg(100'000);

}  // namespace
}  // namespace tailrace::broker

int main(int argc, char** argv) {
  std::vector<char*> arguments(argv, argv + argc);
  char smoke[] = "--benchmark_min_time=0.01";
  for (char*& argument : arguments) {
    if (std::string_view{argument} == "--smoke") argument = smoke;
  }
  int count = static_cast<int>(arguments.size());
  benchmark::Initialize(&count, arguments.data());
  benchmark::RunSpecifiedBenchmarks();
}
