#pragma once
/// A whole broker on simulated time and disk: several shards on one loop, started, stopped, killed and started again.
///
///   BrokerWorld world{{.shards = 2}};
///   world.start();
///   auto topic = world.create("orders", 4);
///   auto reply = world.produce(topic, 0, {"a", "b"});
///   world.power_cut(sim::CrashPlan::lose_all());
///   world.start();
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "base/log.h"
#include "codec/batch_builder.h"
#include "codec/batch_reader.h"
#include "codec/validate.h"
#include "service/broker_service.h"
#include "tests/support/sim_disk.h"
#include "tests/support/sim_runtime.h"
#include "tests/support/sim_shards.h"

namespace tailrace::broker::service {

struct WorldOptions {
  std::uint64_t memory_bytes = 8 * limits::kMiB;
  std::uint32_t shards = 1;
  std::uint64_t seed = 1;
  TopicConfig topic_defaults{};
  std::uint64_t wal_file_bytes = 1 * limits::kMiB;
  std::uint64_t pending_bytes_max = 4 * limits::kMiB;
  std::uint64_t metadata_snapshot_commands = 4'096;
  std::chrono::milliseconds retention_interval{60'000};
  OpenStreamIndexes stream_indexes{};
};

/// One record batch, as an SDK would send it, and its header as the edge would have read it.
struct TestBatch {
  Slice batch;
  BatchHeader header;
};
inline TestBatch batch_of(const std::vector<std::string>& values, codec::ProducerStamp stamp = {}, std::int64_t first_time_ms = 1'000,
                          Compression compression = Compression::none) {
  codec::BatchBuilder builder{{.compression = compression, .bytes_max = limits::kMessageBytesCeiling}};
  std::int64_t time = first_time_ms;
  for (const std::string& value : values) {
    auto added = builder.add({.timestamp = time++, .value = as_bytes(value)});
    EXPECT_TRUE(added) << added.error().detail;
  }
  auto batch = builder.finish(stamp);
  EXPECT_TRUE(batch);
  auto header = codec::validate_batch(batch->bytes(), {.message_bytes_max = limits::kMessageBytesCeiling});
  EXPECT_TRUE(header) << header.error().detail;
  return {*batch, *header};
}

class BrokerWorld {
 public:
  explicit BrokerWorld(WorldOptions options = {}) : options_{std::move(options)} {
    // Crashes are the daily bread here, and the broker logs each of them; TAILRACE_TEST_LOG=1 shows it.
    if (!std::getenv("TAILRACE_TEST_LOG")) set_log_sink([](LogLevel, std::string_view, std::string_view) {}, LogLevel::error);
    boot({});
  }
  ~BrokerWorld() {
    if (broker_ && broker_->state() == BrokerState::serving) stop();
    broker_.reset();
  }

  [[nodiscard]] sim::SimLoop& loop() { return machine_->loop; }
  [[nodiscard]] sim::SimDisk& disk() { return machine_->disk; }
  [[nodiscard]] BrokerService& broker() { return *broker_; }
  [[nodiscard]] ShardService& shard(std::uint32_t i = 0) { return broker_->shard(ShardIndex{i}); }
  [[nodiscard]] WorldOptions& options() { return options_; }
  [[nodiscard]] io::Runtime& runtime() { return machine_->runtime; }
  [[nodiscard]] log::ShardLogOptions log_options() const {
    log::ShardLogOptions log;
    log.data_directory = "/data";
    log.wal_file_bytes = options_.wal_file_bytes;
    log.wal_files = 3;
    log.pending_bytes_max = options_.pending_bytes_max;
    log.hot_tail_bytes = 8 * limits::kMiB;
    return log;
  }
  [[nodiscard]] Instant now() { return loop().now(); }

  Result<StartReport> try_start() {
    auto report = run(broker_->start());
    return report;
  }
  StartReport start() {
    auto report = try_start();
    EXPECT_TRUE(report) << report.error().detail;
    return report ? *report : StartReport{};
  }
  StopReport stop(Duration within = std::chrono::seconds{10}) {
    StopReport report = run(broker_->stop(now() + within));
    next_image_ = disk().visible_image();
    return report;
  }
  /// Ends this life of the broker; start() begins the next with what the disk kept.
  void restart() {
    stop();
    boot(next_image_);
  }
  void power_cut(const sim::CrashPlan& plan) { die(disk().crash(plan)); }
  void kill() { die(disk().kill()); }
  void boot(sim::DiskImage image) {
    broker_.reset();
    links_.reset();
    machine_ = std::make_unique<sim::SimMachine>(options_.seed + lives_++, std::move(image));
    links_ = std::make_unique<sim::SimShards>(machine_->loop, options_.shards);
    broker_ = make_broker(*links_);
  }
  /// What a second process on the same directory would hear. Nothing of it stays.
  Result<StartReport> try_start_second() {
    sim::SimShards links{machine_->loop, options_.shards};
    auto second = make_broker(links);
    auto report = run(second->start());
    if (report) run(second->stop(now() + std::chrono::seconds{10}));
    return report;
  }

  template <class T>
  T run(Task<T> task) {
    auto value = loop().run(std::move(task), std::chrono::minutes{30});
    if (!value) {
      ADD_FAILURE() << "the task did not end";
      std::abort();  // its frame still refers to this world
    }
    return *std::move(value);
  }

  // ---- the domain's verbs ----
  cluster::TopicPointer create(std::string name, std::int32_t partitions = 1, std::vector<KeyValue> config = {}, std::uint32_t at = 0) {
    auto topic = run(shard(at).create_topic({.name = std::move(name), .partitions = partitions, .config = std::move(config)}));
    EXPECT_TRUE(topic) << topic.error().detail;
    return topic ? *topic : nullptr;
  }
  cluster::TopicPointer topic(std::string_view name, std::uint32_t at = 0) { return shard(at).catalog()->find(name); }
  static ProduceRequest request(const cluster::TopicPointer& topic, std::int32_t partition, TestBatch batch) {
    return {.topic = topic->id, .partition = PartitionIndex{partition}, .batch = batch.batch, .header = batch.header};
  }
  Answer<ProduceReply> produce(const cluster::TopicPointer& topic, std::int32_t partition, TestBatch batch, std::uint32_t at = 0) {
    return run(shard(at).produce(request(topic, partition, std::move(batch))));
  }
  Answer<ProduceReply> produce(const cluster::TopicPointer& topic, std::int32_t partition, std::vector<std::string> values, std::uint32_t at = 0) {
    return produce(topic, partition, batch_of(values), at);
  }
  Answer<FetchReply> fetch(const cluster::TopicPointer& topic, std::int32_t partition, std::int64_t from, std::uint32_t at = 0) {
    Fetcher fetcher{shard(at)};
    return run(fetcher.fetch({.topic = topic->id, .partition = PartitionIndex{partition}, .from = Offset{from}, .bytes_max = limits::kMiB}));
  }
  /// Values of all records from `from` to the high watermark.
  std::vector<std::string> read_all(const cluster::TopicPointer& topic, std::int32_t partition, std::int64_t from = 0, std::uint32_t at = 0) {
    std::vector<std::string> values;
    Offset next{from};
    for (;;) {
      auto reply = fetch(topic, partition, next.value(), at);
      if (!reply) {
        ADD_FAILURE() << reply.error().detail;
        return values;
      }
      for (auto& [offset, value] : records_of(*reply)) {
        if (offset >= next.value()) values.push_back(value);
      }
      if (reply->batches.empty() || reply->next == next) return values;
      next = reply->next;
    }
  }
  static std::vector<std::pair<std::int64_t, std::string>> records_of(const FetchReply& reply) {
    std::vector<std::pair<std::int64_t, std::string>> records;
    for (const Slice& batch : reply.batches) {
      auto reader = codec::BatchReader::open(batch.bytes());
      EXPECT_TRUE(reader) << reader.error().detail;
      if (!reader) continue;
      codec::RecordView record;
      while (reader->next(record)) records.emplace_back(record.offset.value(), std::string{as_text(record.value.value_or(Bytes{}))});
      EXPECT_FALSE(reader->error());
    }
    return records;
  }
  ProducerId producer_id(std::string topic, std::uint32_t at = 0) {
    auto opened = run(shard(at).open_producer({.topic = std::move(topic)}));
    EXPECT_TRUE(opened) << opened.error().detail;
    return opened ? opened->producer_id : kNoProducer;
  }

 private:
  std::unique_ptr<BrokerService> make_broker(sim::SimShards& links) {
    BrokerOptions broker_options;
    broker_options.data_directory = "/data";
    broker_options.topic_defaults = options_.topic_defaults;
    broker_options.log = log_options();
    broker_options.memory_bytes = options_.memory_bytes;
    broker_options.metadata_snapshot_commands = options_.metadata_snapshot_commands;
    broker_options.retention_interval = options_.retention_interval;
    broker_options.stream_indexes = options_.stream_indexes;
    std::vector<io::Runtime*> runtimes(options_.shards, &machine_->runtime);
    return std::make_unique<BrokerService>(broker_options, runtimes, links.shards());
  }

  /// The disk is dead: let the code under test unwind, then boot from what was kept.
  void die(sim::DiskImage image) {
    if (broker_->state() == BrokerState::serving) (void)run(broker_->stop(now() + std::chrono::seconds{10}));
    boot(std::move(image));
  }

  WorldOptions options_;
  std::uint64_t lives_ = 0;
  std::unique_ptr<sim::SimMachine> machine_;
  std::unique_ptr<sim::SimShards> links_;
  std::unique_ptr<BrokerService> broker_;
  sim::DiskImage next_image_;
};

}  // namespace tailrace::broker::service
