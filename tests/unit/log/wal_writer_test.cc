/// The commit pipeline: how deep, how large, in which order, and what becomes of frames that come too late.
#include "log/wal_writer.h"
#include "tests/unit/log/log_world.h"

namespace tailrace::broker::log {
namespace {

/// A writer over the simulated disk with files enough; full files are freed at once.
class Pipeline {
 public:
  explicit Pipeline(std::uint64_t file_bytes = 8 * limits::kMiB)
      : options_{.wal_file_bytes = file_bytes, .wal_files = 3, .wal_mark_when_idle = false},
        files_{runtime_, {.folder = "/wal", .file_bytes = file_bytes, .files = options_.wal_files}},
        writer_{std::make_unique<WalWriter>(runtime_, files_, stats_, options_)} {
    writer_->set_hooks({.need_file = [this] { scope_.spawn(prepare()); }});
    auto start = [this]() -> Task<Result<void>> {
      TAILRACE_CO_TRY_VOID(co_await disk_.make_directory("/wal"));
      TAILRACE_CO_TRY_VOID(co_await files_.prepare({}));
      files_.activate();
      writer_->start();
      co_return co_await files_.prepare({});
    };
    EXPECT_TRUE(loop_.run(start()).value());
  }
  ~Pipeline() {
    EXPECT_TRUE(loop_.run(writer_->close()));
    EXPECT_TRUE(loop_.run_until([&] { return scope_.running() == 0; }));
    writer_.reset();
    loop_.run_until_idle();
  }
  std::uint64_t append(std::size_t stored_bytes) {
    Buffer payload = Buffer::allocate(stored_bytes - kFrameHeaderBytes);
    std::memset(payload.data(), 'x', payload.size());
    return writer_->append({.type = FrameType::batch, .partition = 1}, Slice::whole(std::move(payload)), nullptr);
  }
  Result<void> durable(std::uint64_t frame) { return loop_.run(writer_->wait_durable(frame)).value(); }
  /// The deepest queue until the frame is durable.
  std::uint64_t deepest(std::uint64_t frame) {
    std::uint64_t most = 0;
    loop_.run_until([&] { return most = std::max(most, stats_.commits_in_flight), writer_->durable() >= frame; });
    EXPECT_GE(writer_->durable(), frame);
    return most;
  }
  WalWriter& writer() { return *writer_; }
  const ShardLogStats& stats() const { return stats_; }
  sim::SimLoop& loop() { return loop_; }

 private:
  Task<void> prepare() {
    if (preparing_ || files_.prepared()) co_return;
    preparing_ = true;
    files_.free_before(files_.active()->header.sequence);
    auto done = co_await files_.prepare({});
    preparing_ = false;
    EXPECT_TRUE(done) << done.error().detail;
    writer_->file_ready();
  }
  sim::SimLoop loop_{1};
  sim::SimDisk disk_{loop_, {}};
  io::Runtime runtime_{disk_, loop_, loop_, loop_, loop_.random()};
  ShardLogOptions options_;
  ShardLogStats stats_{};
  WalFiles files_;
  std::unique_ptr<WalWriter> writer_;
  bool preparing_ = false;
  TaskScope scope_{};
};

TEST(WalWriter, LargeAppendsKeepTheDeviceDeep) {
  Pipeline wal;
  std::uint64_t last = 0;
  for (int i = 0; i < 32; ++i) last = wal.append(64 * limits::kKiB);
  EXPECT_EQ(wal.deepest(last), static_cast<std::uint64_t>(limits::kWalCommitsInFlightMax));
}

TEST(WalWriter, ABurstOfSmallAppendsIsCutIntoWritesInFlightTogether) {
  Pipeline wal;
  std::uint64_t last = 0;
  for (int i = 0; i < 4'096; ++i) last = wal.append(256);
  EXPECT_GE(wal.deepest(last), 8u);
  EXPECT_LT(wal.stats().commit_padding_bytes * 10, wal.stats().commit_bytes);
}

TEST(WalWriter, AFewSmallAppendsShareACommit) {
  Pipeline wal;
  std::uint64_t last = 0;
  for (int i = 0; i < 16; ++i) last = wal.append(256);
  EXPECT_EQ(wal.deepest(last), 1u);
  EXPECT_EQ(wal.stats().commits, 1u);
}

TEST(WalWriter, WhatWaitsForAPlaceGathersIntoOneWrite) {
  Pipeline wal{32 * limits::kMiB};
  std::uint64_t last = 0;
  for (int i = 0; i < 16; ++i) last = wal.append(64 * limits::kKiB);
  for (int i = 0; i < 4'000; ++i) last = wal.append(1 * limits::kKiB);  // 4 MiB behind a full queue
  EXPECT_TRUE(wal.durable(last));
  EXPECT_LE(wal.stats().commits, 16u + 8u);
}

TEST(WalWriter, ABurstOfManyTimesTheWalPassesThroughIt) {
  Pipeline wal{256 * limits::kKiB};
  std::uint64_t last = 0;
  for (int i = 0; i < 200; ++i) last = wal.append(i % 3 == 0 ? 100 * limits::kKiB : 8 * limits::kKiB);
  EXPECT_TRUE(wal.durable(last));
  EXPECT_GT(wal.stats().wal_rotations, 20u);
}

TEST(WalWriter, WhoComesAfterCloseIsAnsweredAndLeavesNothingBehind) {
  Pipeline wal;
  EXPECT_TRUE(wal.durable(wal.append(256)));
  EXPECT_TRUE(wal.loop().run(wal.writer().close()));
  std::uint64_t late = wal.append(256);
  auto answer = wal.durable(late);
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, Errc::closed);
  EXPECT_FALSE(wal.writer().failed()) << "to be closed is no failure of the disk";
}

// A call under way may come to its frame only after the log drained: whatever the moment, it is answered, and close ends.
TEST(ShardLog, ATruncationIsAnsweredWheneverTheLogCloses) {
  for (int steps = 0; steps < 60; ++steps) {
    LogWorld world;
    ASSERT_TRUE(world.start());
    auto p = world.create(partition_id(1));
    for (int i = 0; i < 8; ++i) world.publish(*p, std::string(400, 'a'));
    auto unacknowledged = world.append(*p, make_batch("late"));
    ASSERT_TRUE(unacknowledged);
    TaskScope scope;
    bool answered = false;
    auto cut = [&]() -> Task<void> {
      auto done = co_await p->truncate_suffix({Offset{5}, 0});
      answered = true;
      if (!done) EXPECT_EQ(done.error().code, Errc::closed) << done.error().detail;
    };
    scope.spawn(cut());
    for (int i = 0; i < steps; ++i) world.loop().step();
    world.close();
    EXPECT_TRUE(answered) << "after " << steps << " steps";
    EXPECT_EQ(scope.running(), 0u);
  }
}

// Appends that nobody waits for, twenty times what the WAL holds, over many partitions: recycling has to make its way through them.
TEST(ShardLog, ABurstOfManyTimesTheWalIsDurableInTheEnd) {
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    ShardLogOptions options = LogWorld::small();
    options.wal_files = seed % 2 == 0 ? limits::kWalFilesMin : 4;
    LogWorld world{seed, options};
    ASSERT_TRUE(world.start());
    std::vector<PartitionPtr> partitions;
    for (int i = 0; i < 20; ++i) partitions.push_back(world.create(partition_id(1, i)));
    Random random{seed};
    std::vector<Offset> ends(partitions.size());
    for (std::uint64_t bytes = 0; bytes < 20 * options.wal_file_bytes * static_cast<std::uint64_t>(options.wal_files);) {
      std::size_t which = random.below(partitions.size());
      Slice batch = make_batch(std::string(random.below(10) == 0 ? 30'000 + random.below(20'000) : random.below(3'000), 'b'));
      bytes += batch.length;
      auto appended = world.append(*partitions[which], std::move(batch));
      ASSERT_TRUE(appended) << appended.error().detail;
      ends[which] = appended->next_offset;
    }
    for (std::size_t i = 0; i < partitions.size(); ++i) {
      EXPECT_TRUE(world.run(partitions[i]->committed(ends[i]))) << "seed " << seed << " partition " << i;
      EXPECT_EQ(partitions[i]->high_watermark(), ends[i]);
    }
    partitions.clear();
  }
}

}  // namespace
}  // namespace tailrace::broker::log
