/// A change of the shard count, cut off after each of its disk operations, and with each of them failing: whatever count the
/// next start wants, every partition is on the shard that owns it, with all its records.
#include <cerrno>

#include "tests/support/lone_log.h"
#include "tests/unit/log/log_world.h"

namespace tailrace::broker::log {
namespace {

constexpr int kPartitions = 7;
constexpr int kBatches = 6;

std::string text_of(int partition, int batch) { return "p" + std::to_string(partition) + "b" + std::to_string(batch) + std::string(1'500, 'x'); }

/// One start of a node with `shards` shards, by hand: the directory, the move, the shard logs.
class Node {
 public:
  Node(std::uint64_t seed, sim::DiskImage image) : machine{seed, std::move(image)} {
    if (machine.disk.visible_image().directories.contains("/data")) return;
    EXPECT_TRUE(*machine.loop.run(machine.disk.make_directory("/data")));
    EXPECT_TRUE(*machine.loop.run(machine.disk.sync_directory("/")));
  }
  ~Node() { close(); }
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  Result<void> start(std::uint32_t shards) {
    TAILRACE_TRY_VOID(move_to(shards));
    for (std::uint32_t k = 0; k < shards; ++k) {
      ShardLogOptions mine = options();
      mine.shard = ShardIndex{k};
      TAILRACE_TRY(auto log, *machine.loop.run(LoneShardLog::open(machine.runtime, mine)));
      logs.push_back(std::move(log));
    }
    return {};
  }
  Result<void> move_to(std::uint32_t shards) {
    TAILRACE_TRY(directory, *machine.loop.run(DataDirectory::open(machine.runtime, "/data", shards)));
    return *machine.loop.run(rehome(machine.runtime, *directory, options()));
  }
  [[nodiscard]] ShardLogOptions options() const {
    ShardLogOptions o = LogWorld::small();
    o.directory_id = directory->identity().directory_id;
    return o;
  }
  void close() {
    for (auto& log : logs) EXPECT_TRUE(machine.loop.run(log->close()));
    logs.clear();
    directory.reset();
    machine.loop.run_until_idle();
  }
  ShardLog& home(int partition) { return *logs[home_of(id(partition), static_cast<std::uint32_t>(logs.size())).value()]; }
  static PartitionId id(int partition) { return partition_id(static_cast<std::uint8_t>(partition)); }

  sim::SimMachine machine;
  std::unique_ptr<DataDirectory> directory;
  std::vector<std::unique_ptr<ShardLog>> logs;
};

void write_all(Node& node) {
  for (int p = 0; p < kPartitions; ++p) {
    auto made = node.machine.loop.run(node.home(p).create(Node::id(p), {.segment_bytes_max = 8'000}));
    ASSERT_TRUE(made && *made);
    for (int b = 0; b < kBatches; ++b) {
      Slice batch = make_batch(text_of(p, b));
      auto header = read_batch_header(batch.bytes(), batch.length);
      auto appended = (**made)->append(batch, *header, node.machine.loop.wall());
      ASSERT_TRUE(appended);
      ASSERT_TRUE(*node.machine.loop.run((**made)->committed(appended->next_offset)));
    }
  }
}

/// Empty: all is there.
std::string missing(Node& node) {
  for (int p = 0; p < kPartitions; ++p) {
    auto opened = node.machine.loop.run(node.home(p).open_partition(Node::id(p), {}));
    if (!opened || !*opened) return "partition " + std::to_string(p) + ": " + (opened ? opened->error().detail : "hangs");
    Partition& partition = ***opened;
    if (!partition.stats().damage.empty()) return "partition " + std::to_string(p) + " is called damaged: " + partition.stats().damage;
    if (partition.high_watermark() != Offset{kBatches}) return "partition " + std::to_string(p) + " ends at " + std::to_string(partition.high_watermark().value());
    for (Offset at{0}; at < partition.high_watermark();) {
      auto read = node.machine.loop.run(partition.read(at, ReadLimits{.bytes_max = 64 * limits::kKiB}));
      if (!read || !*read || (*read)->batches.empty()) return "partition " + std::to_string(p) + " cannot be read";
      for (const Slice& batch : (*read)->batches) {
        if (as_text(batch.bytes()).find(text_of(p, static_cast<int>(at.value()))) == std::string_view::npos) return "partition " + std::to_string(p) + " holds another record";
        ++at;
      }
    }
  }
  std::size_t stored = 0;
  for (auto& log : node.logs) stored += log->stored_partitions().size();
  return stored == kPartitions ? "" : std::to_string(stored) + " partitions are stored";
}

/// A node with one shard that was killed; nothing of it is in segments yet, or some of it is.
sim::DiskImage killed(std::uint64_t seed) {
  Node node{seed, {}};
  EXPECT_TRUE(node.start(1));
  write_all(node);
  return node.machine.disk.crash(sim::CrashPlan::seeded(seed));
}

std::string judge(const sim::DiskImage& image, std::uint64_t seed, std::uint32_t shards) {
  Node node{seed, image};
  auto started = node.start(shards);
  if (!started) return "the node does not start with " + std::to_string(shards) + " shards: " + started.error().detail;
  return missing(node);
}

// storage.md section 5, item 14.
TEST(Rehome, MayBeCutOffAfterEachOfItsOperations) {
  sim::DiskImage image = killed(1);
  std::uint64_t operations = 1;
  for (bool finished = false; !finished; ++operations) {
    sim::DiskImage left;
    {
      Node node{2, image};
      node.machine.disk.on_done = [&, done = std::uint64_t{0}](sim::DiskOp, const std::string&, std::uint64_t, std::int64_t) mutable {
        if (++done == operations) left = node.machine.disk.crash(sim::CrashPlan::seeded(operations));
      };
      finished = node.move_to(3).has_value() && !node.machine.disk.dead();
      node.machine.disk.on_done = nullptr;
      if (!node.machine.disk.dead()) left = node.machine.disk.kill();
    }
    // The next start wants the old count, the new one, or a third.
    std::uint32_t wanted = static_cast<std::uint32_t>(operations % 3) + 1;
    ASSERT_EQ(judge(left, 3, wanted), "") << "after operation " << operations;
  }
  EXPECT_GT(operations, 50U);
}

TEST(Rehome, EachOfItsCallsMayFail) {
  sim::DiskImage image = killed(4);
  std::uint64_t number = 0;
  for (;; ++number) {
    sim::DiskImage left;
    std::uint64_t struck = 0;
    {
      Node node{5, image};
      sim::Fault& fault = node.machine.disk.inject({.after = number, .error = number % 4 == 0 ? EMFILE : EIO});
      auto moved = node.move_to(2);
      struck = fault.struck;
      EXPECT_TRUE(moved || moved.error().code != Errc::corrupt) << "call " << number << ": " << moved.error().detail;
      left = node.machine.disk.kill();
    }
    if (struck == 0) break;
    ASSERT_EQ(judge(left, 6, static_cast<std::uint32_t>(number % 3) + 1), "") << "after call " << number << " failed";
  }
  EXPECT_GT(number, 50U);
}

// Fewer shards than before, then more again: what was left of the old ones does not come back.
TEST(Rehome, GoesThereAndBack) {
  sim::DiskImage image = killed(7);
  for (std::uint32_t shards : {4U, 1U, 3U, 2U, 5U}) {
    Node node{8 + shards, image};
    ASSERT_TRUE(node.start(shards));
    ASSERT_EQ(missing(node), "") << shards << " shards";
    image = node.machine.disk.crash(sim::CrashPlan::seeded(shards));
  }
}

}  // namespace
}  // namespace tailrace::broker::log
