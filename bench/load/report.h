#pragma once
/// What one run measured, and its three forms: a line for people, JSON, and a picture of latency against offered load.
#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "bench/load/histogram.h"

namespace tailrace::load {

/// Everything a reader needs to judge or repeat the figures.
struct Conditions {
  std::string kind;         ///< pub, sub or e2e
  std::string durability;   ///< of the topic, as the broker's open reply says
  std::string compression;
  std::string commit;       ///< of the source tree this binary was built from
  std::string kernel;
  std::string servers;
  std::string topic;
  std::uint64_t record_bytes = 0;
  int partitions = 0;
  int producers = 0;
  bool open_loop = true;    ///< false: --max, as fast as acknowledgements come; its latencies say nothing about a given load
};

struct RunResult {
  double offered_per_second = 0;  ///< 0 with --max
  std::uint64_t records = 0;      ///< acknowledged (pub), received (sub, e2e)
  std::uint64_t failed = 0;
  std::uint64_t bytes = 0;
  std::chrono::nanoseconds elapsed{};
  std::uint64_t checksum = 0;     ///< of the work: XOR over hash(partition, offset) or of the payloads read
  /// By how much sends were late against the schedule because the client itself was too slow or the window was full.
  Histogram send_delay;
  Histogram latency;              ///< from the intended send time to the acknowledgement (pub) or delivery (e2e)
  [[nodiscard]] double records_per_second() const;
  [[nodiscard]] double megabytes_per_second() const;
};

[[nodiscard]] std::string text_report(const Conditions& conditions, std::span<const RunResult> runs);
/// {"schema":"tailrace.bench.v1",...}; durations in nanoseconds, sizes in bytes. Ends with a newline.
[[nodiscard]] std::string json_report(const Conditions& conditions, std::span<const RunResult> runs);
/// p50, p99 and p99.9 (logarithmic) against offered load; a single run is drawn as its percentile curve.
[[nodiscard]] std::string svg_report(const Conditions& conditions, std::span<const RunResult> runs);

}  // namespace tailrace::load
