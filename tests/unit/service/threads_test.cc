/// The services on real threads, files and time: what the simulator cannot show, and what the thread sanitizer looks at.
#include <gtest/gtest.h>

#include <filesystem>
#include <future>
#include <thread>

#include "server/io_backend.h"
#include "tests/unit/service/broker_world.h"

namespace tailrace::broker::service {
namespace {

using namespace std::chrono_literals;

struct TemporaryDirectory {
  TemporaryDirectory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "tailrace-service-XXXXXX").string();
    path = ::mkdtemp(pattern.data());
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  std::string path;
};

/// A node of `count` shards, each on its own thread.
class ThreadedBroker {
 public:
  ThreadedBroker(std::uint32_t count, std::string directory, server::IoBackend backend, std::uint64_t seed) {
    for (std::uint32_t i = 0; i < count; ++i) {
      threads_.push_back(std::make_unique<server::ShardThread>(ShardIndex{i}, backend, seed * count + i));
      auto started = threads_.back()->start();
      EXPECT_TRUE(started) << started.error().detail;
    }
    std::vector<shard::Endpoint> endpoints;
    std::vector<io::Runtime*> runtimes;
    for (auto& thread : threads_) {
      endpoints.push_back(thread->endpoint());
      runtimes.push_back(&thread->runtime());
    }
    shards_ = std::make_unique<shard::Shards>(std::move(endpoints));
    BrokerOptions options;
    options.data_directory = std::move(directory);
    options.log.wal_file_bytes = 1 * limits::kMiB;
    options.log.wal_files = 3;
    auto begin = [this, options, runtimes]() -> Task<Result<StartReport>> {
      broker_ = std::make_unique<BrokerService>(options, runtimes, *shards_);
      return broker_->start();
    };
    auto report = threads_[0]->ask(std::move(begin), 60s);
    EXPECT_TRUE(report && *report) << (report ? report->error().detail : "no answer");
  }
  ~ThreadedBroker() {
    auto end = [this]() -> Task<bool> {
      StopReport report = co_await broker_->stop(threads_[0]->runtime().clock.now() + 30s);
      broker_.reset();
      co_return report.clean;
    };
    auto clean = threads_[0]->ask(std::move(end), 60s);
    EXPECT_TRUE(clean && *clean);
    for (auto& thread : threads_) thread->finish();
  }
  [[nodiscard]] server::ShardThread& thread(std::uint32_t i) { return *threads_[i]; }
  [[nodiscard]] ShardService& shard(std::uint32_t i) { return broker_->shard(ShardIndex{i}); }

 private:
  std::vector<std::unique_ptr<server::ShardThread>> threads_;
  std::unique_ptr<shard::Shards> shards_;
  std::unique_ptr<BrokerService> broker_;
};

constexpr std::int32_t kPartitions = 6;
constexpr int kBatches = 60;

/// One producer with five batches in flight to every partition; answers how many records it had acknowledged.
Task<int> produce_everywhere(ShardService& shard, int who) {
  auto topic = shard.catalog()->find("orders");
  auto opened = co_await shard.open_producer({.topic = "orders"});
  if (!opened) co_return -1;
  ProducerId id = opened->producer_id;
  int acknowledged = 0;
  bool failed = false;
  auto one = [&](std::int32_t partition, int sequence) -> Task<void> {
    TestBatch batch = batch_of({fmt::format("{}:{}", who, sequence)}, {.producer_id = id, .producer_epoch = ProducerEpoch{0}, .base_sequence = sequence});
    auto answer = co_await shard.produce(BrokerWorld::request(topic, partition, std::move(batch)));
    if (answer && !answer->duplicate) ++acknowledged;
    else failed = true;
  };
  for (int first = 0; first < kBatches; first += 5) {
    TaskScope scope;
    for (int i = 0; i < 5; ++i) {
      for (std::int32_t p = 0; p < kPartitions; ++p) scope.spawn(one(p, first + i));
    }
    co_await scope.drain();
  }
  co_return failed ? -1 : acknowledged;
}

/// Reads one partition by long polls until it has seen `wanted` records; answers their values.
Task<std::vector<std::string>> tail(ShardService& shard, std::int32_t partition, std::size_t wanted, Instant until) {
  std::vector<std::string> values;
  auto topic = shard.catalog()->find("orders");
  Fetcher fetcher{shard};
  Offset next{};
  while (values.size() < wanted) {
    auto reply = co_await fetcher.fetch({.topic = topic->id, .partition = PartitionIndex{partition}, .from = next, .bytes_max = 4'096, .wait_until = until});
    if (!reply || reply->batches.empty()) break;
    for (auto& [offset, value] : BrokerWorld::records_of(*reply)) {
      if (offset >= next.value()) values.push_back(value);
    }
    next = reply->next;
  }
  co_return values;
}

void run_on_threads(server::IoBackend backend) {
  TemporaryDirectory directory;
  for (int life = 0; life < 2; ++life) {
    ThreadedBroker broker{2, directory.path, backend, static_cast<std::uint64_t>(life)};
    if (life == 0) {
      auto created = broker.thread(1).ask([&] { return broker.shard(1).create_topic({.name = "orders", .partitions = kPartitions}); }, 30s);
      ASSERT_TRUE(created && *created);
    }
    const std::size_t wanted = static_cast<std::size_t>((life + 1) * 2 * kBatches);
    std::vector<std::future<std::optional<std::vector<std::string>>>> tails;
    for (std::int32_t p = 0; p < kPartitions; ++p) {
      for (std::uint32_t at = 0; at < 2; ++at) {
        tails.push_back(std::async(std::launch::async, [&broker, p, at, wanted] {
          return broker.thread(at).ask([&broker, p, at, wanted] {
            return tail(broker.shard(at), p, wanted, broker.thread(at).runtime().clock.now() + 60s);
          }, 90s);
        }));
      }
    }
    std::vector<std::future<std::optional<int>>> producers;
    for (std::uint32_t at = 0; at < 2; ++at) {
      producers.push_back(std::async(std::launch::async, [&broker, at, life] {
        return broker.thread(at).ask([&broker, at, life] { return produce_everywhere(broker.shard(at), life * 2 + static_cast<int>(at)); }, 90s);
      }));
    }
    // Meanwhile topics come and go, so that catalogs change under the traffic.
    for (int i = 0; i < 8; ++i) {
      auto at = static_cast<std::uint32_t>(i % 2);
      auto name = fmt::format("t{}-{}", life, i);
      auto created = broker.thread(at).ask([&] { return broker.shard(at).create_topic({.name = name, .partitions = 3}); }, 30s);
      ASSERT_TRUE(created && *created) << (created ? created->error().detail : "no answer");
      auto deleted = broker.thread(1 - at).ask([&] { return broker.shard(1 - at).delete_topic(name, false); }, 30s);
      ASSERT_TRUE(deleted && *deleted);
    }
    for (auto& producer : producers) {
      auto acknowledged = producer.get();
      ASSERT_TRUE(acknowledged);
      EXPECT_EQ(*acknowledged, kPartitions * kBatches);
    }
    std::vector<std::vector<std::string>> seen;
    for (auto& one : tails) {
      auto values = one.get();
      ASSERT_TRUE(values);
      ASSERT_EQ(values->size(), wanted);
      std::map<std::string, int> next;  // of each producer: its own records come in its own order
      for (const std::string& value : *values) {
        auto colon = value.find(':');
        EXPECT_EQ(std::stoi(value.substr(colon + 1)), next[value.substr(0, colon)]++) << value;
      }
      seen.push_back(*std::move(values));
    }
    for (std::size_t i = 0; i + 1 < seen.size(); i += 2) EXPECT_EQ(seen[i], seen[i + 1]);  // both shards read one log
  }
}

// Shards share nothing but messages: under real concurrency nothing is lost, doubled or reordered, now or after a restart.
TEST(Threads, TwoShardsServeTheSamePartitionsOverThreadPoolFiles) { run_on_threads(server::IoBackend::threads); }
TEST(Threads, TwoShardsServeTheSamePartitionsOverTheBestBackend) { run_on_threads(server::IoBackend::automatic); }

}  // namespace
}  // namespace tailrace::broker::service
