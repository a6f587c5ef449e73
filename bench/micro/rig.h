#pragma once
/// A shard without a broker: one loop, one ring, one folder on the disk under test. Benches of the log run inside it, and so do
/// their references, so that both sides pay for the same loop.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/task.h"
#include "io/runtime.h"
#include "log/data_directory.h"
#include "log/shard_log.h"

namespace tailrace::broker::io_asio {
class Loop;
}

namespace tailrace::bench {

/// Sizes shrink with --smoke: such a run shows that the bench works, its figures mean nothing.
[[nodiscard]] bool smoke();
/// Takes --smoke from the arguments and runs the registered benchmarks.
[[nodiscard]] int bench_main(int argc, char** argv);

/// Where benches put their files: TAILRACE_BENCH_DIR, else the system's temporary folder. It must be a real file system.
[[nodiscard]] std::string bench_folder();

/// One recorded durable write: its size, and how many were in flight when it was submitted (itself included).
struct RecordedWrite {
  std::uint32_t bytes = 0;
  std::uint32_t depth = 0;
};

class Rig {
 public:
  Rig();
  ~Rig();
  Rig(const Rig&) = delete;
  Rig& operator=(const Rig&) = delete;

  /// Runs the body to its end on a fresh loop and ring. A failed Result ends the process with its text: a bench has no fallback.
  void run(std::function<broker::Task<broker::Result<void>>(broker::io::Runtime&)> body);
  /// The loop of the run under way, for benches that need sockets.
  [[nodiscard]] broker::io_asio::Loop& loop() { return *loop_; }
  /// Fresh for each rig, removed with it.
  [[nodiscard]] const std::string& folder() const { return folder_; }
  /// With true, durable writes are recorded from now on.
  void record(bool on);
  [[nodiscard]] const std::vector<RecordedWrite>& recorded() const;

 private:
  struct Recorder;
  std::string folder_;
  std::unique_ptr<Recorder> recorder_;
  broker::io_asio::Loop* loop_ = nullptr;
};

struct Latencies {
  std::vector<std::int64_t> ns;
  void add(broker::Duration d) { ns.push_back(d.count()); }
  /// Sorts on first use. `per_mille` 500 = median.
  [[nodiscard]] double us(int per_mille);
  [[nodiscard]] double us_9999();

 private:
  bool sorted_ = false;
};

/// One figure of several rounds.
struct Rounds {
  std::vector<double> values{};
  void add(double value) { values.push_back(value); }
  [[nodiscard]] double median() const;
  /// Counters NAME (the median), NAME_min and NAME_max.
  void report(benchmark::State& state, const std::string& name) const;
};
/// How many rounds a figure has: an odd number.
[[nodiscard]] int rounds();

// ---- references: the same device, loop and ring, no log ---------------------------------------------------------------------

struct RawFile {
  std::string path;
  std::uint64_t bytes = 0;
};
/// A file whose blocks are all written, as the WAL's are.
[[nodiscard]] broker::Task<broker::Result<RawFile>> make_raw_file(broker::io::Runtime& runtime, std::string path, std::uint64_t bytes);
/// Overwrites it in order, `bytes` a write, `depth` in flight, `total` bytes in all, from pinned memory as the log's. With `in_order`, a
/// write counts as in flight until all before it completed: what nobody can beat who acknowledges in order. Answers seconds.
[[nodiscard]] broker::Task<broker::Result<double>> raw_writes(broker::io::Runtime& runtime, RawFile file, std::size_t bytes, int depth,
                                                              std::uint64_t total, broker::io::Durable durable, bool in_order = false);
/// Replays recorded durable writes: same sizes in the same order, never more in flight than recorded. Answers seconds.
[[nodiscard]] broker::Task<broker::Result<double>> replay_writes(broker::io::Runtime& runtime, RawFile file,
                                                                 const std::vector<RecordedWrite>& writes);
/// Reads the files in order with O_DIRECT. Answers seconds.
[[nodiscard]] broker::Task<broker::Result<double>> raw_reads(broker::io::Runtime& runtime, std::vector<RawFile> files, std::size_t bytes, int depth);

// ---- small helpers ------------------------------------------------------------------------------------------------------------

/// One valid batch of `records` records with `value_bytes` bytes each, not idempotent.
[[nodiscard]] broker::Slice make_batch(int records, std::size_t value_bytes);
[[nodiscard]] broker::PartitionId partition_id(int n);
/// Bytes that no compiler or device can guess; the same for the same seed.
[[nodiscard]] broker::Slice random_bytes(std::size_t count, std::uint64_t seed);
/// Answers when the log has written nothing for a while, so that a reference has the device for itself.
[[nodiscard]] broker::Task<void> settled(broker::io::Runtime& runtime, const broker::log::ShardLog& log);
/// What the log gave to the device between two looks: WAL, segments and checkpoints.
[[nodiscard]] double device_bytes(const broker::log::ShardLogStats& now, const broker::log::ShardLogStats& before);
/// Opens (or recovers) shard 0 of the rig's folder.
[[nodiscard]] broker::Task<broker::Result<std::unique_ptr<broker::log::ShardLog>>> open_log(broker::io::Runtime& runtime, std::string folder,
                                                                                            broker::log::ShardLogOptions options);
/// Files below `folder` whose name ends with `suffix`, sorted by path.
[[nodiscard]] std::vector<RawFile> files_below(const std::string& folder, const std::string& suffix);
[[nodiscard]] double seconds(broker::Duration d);

}  // namespace tailrace::bench
