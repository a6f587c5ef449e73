#pragma once
/// One simulated node with one shard log, killed and restarted at will; what was acknowledged is remembered.
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "codec/batch_builder.h"
#include "log/data_directory.h"
#include "log/shard_log.h"
#include "tests/support/lone_log.h"
#include "tests/support/sim_disk.h"
#include "tests/support/sim_runtime.h"

namespace tailrace::broker::log {

inline PartitionId partition_id(std::uint8_t topic, std::int32_t index = 0) {
  PartitionId id;
  id.topic.bytes[0] = 7;
  id.topic.bytes[15] = topic;
  id.index = PartitionIndex{index};
  return id;
}

/// One batch of `records` records; `text` begins each value.
inline Slice make_batch(std::string_view text, int records = 1, codec::ProducerStamp stamp = {}, std::int64_t time = 1'000) {
  codec::BatchBuilder builder{codec::BatchOptions{.bytes_max = 8 * limits::kMiB}};
  for (int i = 0; i < records; ++i) {
    std::string value = std::string{text} + "/" + std::to_string(i);
    EXPECT_TRUE(builder.add(codec::RecordInput{.timestamp = time, .value = as_bytes(value)}));
  }
  return *builder.finish(stamp);
}

class LogWorld {
 public:
  explicit LogWorld(std::uint64_t seed = 1, ShardLogOptions options = small()) : seed_{seed}, options_{std::move(options)} { boot({}); }
  ~LogWorld() { close(); }
  static ShardLogOptions small() {
    return {.data_directory = "/data", .wal_file_bytes = 64 * limits::kKiB, .wal_files = 3,
            .hot_tail_bytes = 4 * limits::kMiB, .read_pool_bytes = 2 * limits::kMiB};
  }

  void boot(sim::DiskImage image) {
    loop_ = std::make_unique<sim::SimLoop>(seed_ + 1000 * ++lives_);
    disk_ = std::make_unique<sim::SimDisk>(*loop_, std::move(image));
    runtime_ = std::make_unique<io::Runtime>(io::Runtime{*disk_, *loop_, *loop_, *loop_, loop_->random()});
  }
  [[nodiscard]] Result<void> start() {
    auto made = run(disk_->make_directory("/data"));
    if (!made) return made;
    if (auto synced = run(disk_->sync_directory("/")); !synced) return synced;
    auto directory = run(DataDirectory::open(*runtime_, options_.data_directory, 1));
    if (!directory) return std::unexpected(directory.error());
    directory_ = *std::move(directory);
    options_.directory_id = directory_->identity().directory_id;
    auto opened = run(LoneShardLog::open(*runtime_, options_));
    if (!opened) return std::unexpected(opened.error());
    log_ = *std::move(opened);
    return {};
  }
  void close() {
    if (log_) {
      bool ended = loop_->run(log_->close());
      const ShardLogStats& s = log_->stats();
      EXPECT_TRUE(ended) << "close hangs: in flight " << s.commits_in_flight << ", pending " << s.pending_bytes << ", stalls " << s.wal_stalls
                         << ", recycles " << s.wal_recycles << ", rotations " << s.wal_rotations << ", frames " << s.frames << ", failed " << log_->failed();
      if (!ended) std::abort();
    }
    log_.reset();
    directory_.reset();
    if (loop_) loop_->run_until_idle();
  }
  /// Stops without closing; what `plan` leaves is there for the next start().
  void crash(const sim::CrashPlan& plan) {
    sim::DiskImage image = disk_->crash(plan);
    if (log_) EXPECT_TRUE(loop_->run(log_->close()));
    log_.reset();
    directory_.reset();
    loop_->run_until_idle();
    boot(std::move(image));
  }
  /// The death of the process alone.
  void kill() {
    sim::DiskImage image = disk_->kill();
    if (log_) EXPECT_TRUE(loop_->run(log_->close()));
    log_.reset();
    directory_.reset();
    loop_->run_until_idle();
    boot(std::move(image));
  }
  void reboot() {
    close();
    boot(disk_->visible_image());
  }

  template <class T>
  T run(Task<T> task) {
    auto value = loop_->run(std::move(task));
    if (!value) {
      const ShardLogStats& st = log_->stats();
      throw std::runtime_error("a task never ended: in flight " + std::to_string(st.commits_in_flight) + ", pending " + std::to_string(st.pending_bytes) +
                               ", stalls " + std::to_string(st.wal_stalls) + ", recycles " + std::to_string(st.wal_recycles) + ", disk full " +
                               std::to_string(log_->disk_full()));
    }
    return *std::move(value);
  }
  PartitionPtr create(PartitionId id, PartitionOptions options = {}) {
    auto made = run(log_->create(id, options));
    EXPECT_TRUE(made) << (made ? "" : made.error().detail);
    return made ? *made : nullptr;
  }
  PartitionPtr open(PartitionId id, PartitionOptions options = {}) {
    auto opened = run(log_->open_partition(id, options));
    EXPECT_TRUE(opened) << (opened ? "" : opened.error().detail);
    return opened ? *opened : nullptr;
  }
  Result<Appended> append(Partition& partition, Slice batch) {
    auto header = read_batch_header(batch.bytes(), batch.length);
    return partition.append(std::move(batch), *header, loop_->wall());
  }
  /// Appends and waits until it is durable.
  Appended publish(Partition& partition, std::string_view text, int records = 1) {
    auto appended = append(partition, make_batch(text, records));
    EXPECT_TRUE(appended) << (appended ? "" : appended.error().detail);
    if (!appended) return {};
    auto done = run(partition.committed(appended->next_offset));
    EXPECT_TRUE(done) << (done ? "" : done.error().detail);
    return *appended;
  }
  /// All batches from `from` to the high watermark, as bytes.
  Result<std::vector<std::string>> read_all(Partition& partition, Offset from) {
    std::vector<std::string> out;
    for (Offset at = from; at < partition.high_watermark();) {
      auto read = run(partition.read(at, ReadLimits{.bytes_max = 64 * limits::kKiB}));
      if (!read) return std::unexpected(read.error());
      if (read->batches.empty() && read->next <= at) return fail(Errc::internal, "a read below the high watermark was empty");
      for (const Slice& b : read->batches) out.emplace_back(as_text(b.bytes()));
      at = read->next;
    }
    return out;
  }

  sim::SimLoop& loop() { return *loop_; }
  sim::SimDisk& disk() { return *disk_; }
  io::Runtime& runtime() { return *runtime_; }
  ShardLog& log() { return *log_; }
  ShardLogOptions& options() { return options_; }

 private:
  std::uint64_t seed_;
  std::uint64_t lives_ = 0;
  ShardLogOptions options_;
  std::unique_ptr<sim::SimLoop> loop_;
  std::unique_ptr<sim::SimDisk> disk_;
  std::unique_ptr<io::Runtime> runtime_;
  std::unique_ptr<DataDirectory> directory_;  // its lock, as long as the log is open
  std::unique_ptr<ShardLog> log_;
};

}  // namespace tailrace::broker::log
