#pragma once
/// What the micro-benchmarks share: one line per result, and pairs of "ours" and "the best known" measured in turns within
/// one run, so that a noisy machine disturbs both alike.
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tailrace::bench {

/// One result. `ratio` is ours against the reference, turned so that more is better.
struct Line {
  std::string name{};        // b8_validate
  std::string parameters{};  // batch=16KiB record=100B
  double ours = 0;
  double reference = 0;
  std::string unit{};        // GB/s, us, ...
  double ratio = 0;
  double target = 0;         // of the ratio; 0: none stated
  std::string spread{};      // of ours over the repetitions
  std::uint64_t checksum = 0;  // of the work: the optimiser took nothing away, and two runs did the same
};

inline void print(const Line& line) {
  std::string verdict = line.target == 0 ? "" : fmt::format(" target={:.2f} {}", line.target, line.ratio >= line.target ? "met" : "MISSED");
  fmt::print("{} {} ours={:.2f} reference={:.2f} {} ratio={:.3f}{}{} checksum={:016x}\n", line.name, line.parameters, line.ours,
             line.reference, line.unit, line.ratio, verdict, line.spread.empty() ? "" : " spread=" + line.spread, line.checksum);
  std::fflush(stdout);
}

/// True, and removed from the arguments, when --smoke was given.
inline bool take_smoke(int& argc, char** argv) {
  auto* end = std::remove_if(argv + 1, argv + argc, [](const char* a) { return std::string_view(a) == "--smoke"; });
  bool smoke = end != argv + argc;
  argc = static_cast<int>(end - argv);
  return smoke;
}

/// Two ways to do the same work over the same bytes. Each call does all of `bytes_per_call` once and answers a checksum
/// that the work cannot do without; both must do their work on every call.
struct Pair {
  std::string parameters{};
  std::size_t bytes_per_call = 0;
  std::function<std::uint64_t()> ours{};
  std::function<std::uint64_t()> reference{};
};

/// Runs all pairs, the repetitions of all of them interleaved, and prints medians in GB/s of thread CPU time.
/// Answers 0, or 1 when a result is missing.
inline int run_pairs(std::string name, double target, const std::vector<Pair>& pairs, bool smoke) {
  struct Samples : benchmark::BenchmarkReporter {
    std::map<std::string, std::vector<double>> gigabytes{};
    bool ReportContext(const Context&) override { return true; }
    void ReportRuns(const std::vector<Run>& runs) override {
      for (const Run& run : runs) {
        if (run.run_type != Run::RT_Iteration || run.error_occurred) continue;
        gigabytes[run.run_name.function_name].push_back(run.counters.at("bytes_per_second") / 1e9);
      }
    }
  } samples;
  std::map<std::string, std::uint64_t> checksums;
  auto add = [&](const std::string& id, std::size_t bytes, const std::function<std::uint64_t()>& work) {
    benchmark::RegisterBenchmark(id.c_str(), [&checksums, id, bytes, &work](benchmark::State& state) {
      std::uint64_t checksum = 0;
      for (auto _ : state) benchmark::DoNotOptimize(checksum = work());
      checksums[id] = checksum;
      state.SetBytesProcessed(static_cast<std::int64_t>(bytes) * static_cast<std::int64_t>(state.iterations()));
    })->Repetitions(smoke ? 1 : 15)->MinTime(smoke ? 0.002 : 0.05);
  };
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    add(fmt::format("ours {}", i), pairs[i].bytes_per_call, pairs[i].ours);
    add(fmt::format("reference {}", i), pairs[i].bytes_per_call, pairs[i].reference);
  }
  char program[] = "bench", interleave[] = "--benchmark_enable_random_interleaving=true";
  char* arguments[] = {program, interleave, nullptr};
  int count = smoke ? 1 : 2;
  benchmark::Initialize(&count, arguments);
  benchmark::RunSpecifiedBenchmarks(&samples);

  int missing = 0;
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    auto& ours = samples.gigabytes[fmt::format("ours {}", i)];
    auto& reference = samples.gigabytes[fmt::format("reference {}", i)];
    if (ours.empty() || reference.empty()) {
      fmt::print(stderr, "error: no result for {}\n", pairs[i].parameters);
      missing = 1;
      continue;
    }
    auto median = [](std::vector<double>& v) {
      std::sort(v.begin(), v.end());
      return v[v.size() / 2];
    };
    double mine = median(ours), best = median(reference);
    print({.name = name, .parameters = pairs[i].parameters, .ours = mine, .reference = best, .unit = "GB/s", .ratio = mine / best,
           .target = target, .spread = fmt::format("{:.2f}..{:.2f}", ours.front(), ours.back()),
           .checksum = checksums[fmt::format("ours {}", i)]});
  }
  return missing;
}

}  // namespace tailrace::bench
