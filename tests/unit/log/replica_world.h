#pragma once
/// One replica's log on a simulated disk, driven as replication drives it: batches of another leader, marks, hard states. Nothing is
/// appended or committed by itself.
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "log/data_directory.h"
#include "log/shard_log.h"
#include "tests/support/sim_disk.h"
#include "tests/support/sim_runtime.h"
#include "tests/unit/log/log_world.h"

namespace tailrace::broker::log {

class ReplicaWorld final : DurabilityListener {
 public:
  static ShardLogOptions small() {
    return {.data_directory = "/data", .wal_file_bytes = 64 * limits::kKiB, .wal_files = 3, .hot_tail_bytes = 64 * limits::kKiB,
            .read_pool_bytes = limits::kMiB};
  }
  explicit ReplicaWorld(std::uint64_t seed = 1, sim::DiskImage image = {}) : seed_{seed} { boot(std::move(image)); }
  ~ReplicaWorld() { end(); }
  ReplicaWorld(const ReplicaWorld&) = delete;

  [[nodiscard]] Result<void> start() {
    TAILRACE_TRY_VOID(run(disk().make_directory("/data")));
    TAILRACE_TRY_VOID(run(disk().sync_directory("/")));
    TAILRACE_TRY(directory_, run(DataDirectory::open(machine_->runtime, "/data", 1)));
    ShardLogOptions options = small();
    options.directory_id = directory_->identity().directory_id;
    TAILRACE_TRY(log_, run(ShardLog::open(machine_->runtime, options)));
    TAILRACE_TRY(partition, run(existing() ? log_->open_partition(partition_id(1), segments()) : log_->create(partition_id(1), segments())));
    partition->set_listener(this);
    return {};
  }
  [[nodiscard]] bool existing() { return !log_->stored_partitions().empty(); }
  static PartitionOptions segments() { return {.segment_bytes_max = 16 * limits::kKiB}; }
  /// The log goes away; the disk stays.
  void end() {
    if (partition) partition->set_listener(nullptr);
    partition.reset();
    if (log_) EXPECT_TRUE(loop().run(log_->close()));
    log_.reset();
    directory_.reset();
    loop().run_until_idle();
  }
  void restart() {
    end();
    boot(disk().visible_image());
    auto started = start();
    ASSERT_TRUE(started) << started.error().detail;
  }
  void cut_power(const sim::CrashPlan& plan = sim::CrashPlan::lose_all()) {
    sim::DiskImage image = disk().crash(plan);
    end();
    boot(std::move(image));
    auto started = start();
    ASSERT_TRUE(started) << started.error().detail;
  }

  void begin_term(std::int32_t term) {
    HardState hard = partition->replicated().hard;
    hard.term = LeaderEpoch{term};
    hard.vote_node = NodeId{term % 3 + 1};
    ASSERT_TRUE(partition->save_hard_state(hard, ++generation));
    ASSERT_TRUE(mark({.term = LeaderEpoch{term}, .kind = MarkKind::term_start, .log_start = {}, .members = {}}));
  }
  Result<void> mark(Mark mark) {
    mark.begin = partition->end_position();
    return partition->append_mark(mark);
  }
  /// A batch as a leader of `term` sent it, for the end of this log.
  Result<void> copy(std::int32_t term, std::string_view text, int records = 1, codec::ProducerStamp stamp = {}) {
    Slice batch = make_batch(text, records, stamp);
    assign_batch(batch.mutable_bytes(), partition->log_end(), LeaderEpoch{term});
    auto header = read_batch_header(batch.bytes(), batch.length);
    std::string bytes{as_text(batch.bytes())};
    Offset base = header->base_offset;
    auto done = partition->append_copy(std::move(batch), *header, WallTime{std::chrono::milliseconds{50'000 + base.value()}});
    if (done) written[base] = std::move(bytes);
    return done;
  }
  void settle() { ASSERT_TRUE(loop().run_until([&] { return durable_end >= partition->end_position() || log_->failed(); })); }
  /// Other partitions' records until the WAL was recycled `times` more often.
  void recycle(int times) {
    auto other = run(log_->create(partition_id(9), {}));
    if (!other) other = run(log_->open_partition(partition_id(9), {}));
    ASSERT_TRUE(other);
    ASSERT_TRUE((*other)->save_hard_state({.term = LeaderEpoch{1}}, 1));
    ASSERT_TRUE((*other)->append_mark({.begin = (*other)->end_position(), .term = LeaderEpoch{1}, .kind = MarkKind::term_start, .log_start = {}, .members = {}}));
    std::uint64_t aim = log_->stats().wal_recycles + static_cast<std::uint64_t>(times);
    for (int i = 0; i < 2'000 && log_->stats().wal_recycles < aim; ++i) {
      Slice batch = make_batch(std::string(3'000, 'f'));
      auto header = read_batch_header(batch.bytes(), batch.length);
      (void)(*other)->append(std::move(batch), *header, loop().wall());
      loop().run_for(std::chrono::milliseconds{5});
    }
    ASSERT_GE(log_->stats().wal_recycles, aim);
  }
  /// Everything from `from` on, through read_replica; `written` says what it should be.
  Result<std::map<Offset, std::string>> read(Offset from, std::size_t bytes = 20'000) {
    std::map<Offset, std::string> out;
    for (Offset at = from; at < partition->log_end();) {
      TAILRACE_TRY(auto got, run(partition->read_replica(at, partition->log_end(), bytes)));
      if (got.batches.empty() || got.end <= at) return fail(Errc::internal, "a read below the end answers nothing");
      for (const ReplicaBatch& batch : got.batches) {
        auto header = read_batch_header(batch.bytes.bytes(), batch.bytes.length);
        out[header->base_offset] = std::string{as_text(batch.bytes.bytes())};
      }
      at = got.end;
    }
    return out;
  }

  template <class T>
  T run(Task<T> task) {
    auto value = loop().run(std::move(task));
    if (!value) throw std::runtime_error("a task never ended");
    return *std::move(value);
  }
  sim::SimLoop& loop() { return machine_->loop; }
  sim::SimDisk& disk() { return machine_->disk; }
  ShardLog& log() { return *log_; }

  PartitionPtr partition{};
  std::map<Offset, std::string> written{};  // what was appended, by base offset
  std::uint64_t generation = 0;
  LogPosition durable_end{};
  std::uint64_t durable_generation = 0;
  std::function<void(LogPosition, LeaderEpoch, std::uint64_t)> on_durable{};

 private:
  void durable(LogPosition end, LeaderEpoch term, std::uint64_t hard_generation) noexcept override {
    durable_end = end;
    durable_generation = hard_generation;
    if (on_durable) on_durable(end, term, hard_generation);
  }
  void boot(sim::DiskImage image) {
    machine_ = std::make_unique<sim::SimMachine>(seed_ + 1'000 * ++lives_, std::move(image));
    durable_end = {};
    durable_generation = 0;
  }

  std::uint64_t seed_;
  std::uint64_t lives_ = 0;
  std::unique_ptr<sim::SimMachine> machine_;
  std::unique_ptr<DataDirectory> directory_;
  std::unique_ptr<ShardLog> log_;
};

}  // namespace tailrace::broker::log
