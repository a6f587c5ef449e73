/// Crashes in the middle of traffic, with producers that resend as the SDK does: every record exactly once, in order.
#include <gtest/gtest.h>

#include "base/planted.h"
#include "base/random.h"
#include "tests/unit/service/broker_world.h"

namespace tailrace::broker::service {
namespace {

constexpr int kWindow = 5;  // batches of one producer in flight to a partition (R12)

/// One idempotent producer of one partition. It sends in windows of five and, after a crash, again from the first batch it
/// has no answer for.
struct Sender {
  std::uint32_t at = 0;          // the shard its connection is on
  std::int32_t partition = 0;
  ProducerId id = kNoProducer;
  int first_unanswered = 0;
  std::map<int, std::int64_t> acknowledged{};  // sequence -> offset

  [[nodiscard]] std::string value(int sequence) const { return fmt::format("{}:{}:{}", id.value(), sequence, std::string(static_cast<std::size_t>(sequence * 37 % 900), 'x')); }
};

Task<void> send_one(BrokerWorld& world, Sender& sender, cluster::TopicPointer topic, int sequence, bool& failed) {
  TestBatch batch = batch_of({sender.value(sequence)}, {.producer_id = sender.id, .producer_epoch = ProducerEpoch{0}, .base_sequence = sequence});
  auto answer = co_await world.shard(sender.at).produce(BrokerWorld::request(topic, sender.partition, std::move(batch)));
  if (!answer) {
    failed = true;  // the broker is dying: nothing is known about this batch
    EXPECT_NE(answer.error().code, Errc::out_of_order_sequence) << answer.error().detail;
    EXPECT_NE(answer.error().code, Errc::unknown_producer) << answer.error().detail;
    EXPECT_NE(answer.error().code, Errc::duplicate_sequence) << answer.error().detail;
    co_return;
  }
  auto [known, fresh] = sender.acknowledged.emplace(sequence, answer->base_offset.value());
  EXPECT_EQ(known->second, answer->base_offset.value()) << "a duplicate is answered with its original offset";
}

Task<void> run_sender(BrokerWorld& world, Sender& sender, bool& ended) {
  auto topic = world.topic("orders", sender.at);
  bool failed = !topic;
  while (!failed && !ended) {
    TaskScope window;
    for (int i = 0; i < kWindow; ++i) window.spawn(send_one(world, sender, topic, sender.first_unanswered + i, failed));
    co_await window.drain();
    while (sender.acknowledged.contains(sender.first_unanswered)) ++sender.first_unanswered;
  }
}

/// Topics that come and go beside the traffic.
Task<void> churn(BrokerWorld& world, std::uint32_t at, int& serial, bool& ended) {
  while (!ended) {
    std::string name = fmt::format("churn-{}", serial++);
    auto created = co_await world.shard(at).create_topic({.name = name, .partitions = 3});
    if (!created) co_return;
    auto deleted = co_await world.shard(at).delete_topic(name, false);
    if (!deleted) co_return;
  }
}

void check_partitions(BrokerWorld& world, std::vector<Sender>& senders, std::uint64_t seed) {
  auto topic = world.topic("orders");
  ASSERT_TRUE(topic);
  for (std::int32_t p = 0; p < topic->partitions; ++p) {
    std::vector<std::string> stored = world.read_all(topic, p);
    for (Sender& sender : senders) {
      if (sender.partition != p) continue;
      int next = 0;
      std::string mine = fmt::format("{}:", sender.id.value());
      for (std::size_t offset = 0; offset < stored.size(); ++offset) {
        if (!stored[offset].starts_with(mine)) continue;
        ASSERT_EQ(stored[offset], sender.value(next)) << "seed " << seed << ": producer " << sender.id.value() << " out of order at " << offset;
        if (auto known = sender.acknowledged.find(next); known != sender.acknowledged.end()) {
          EXPECT_EQ(known->second, static_cast<std::int64_t>(offset)) << "seed " << seed;
        }
        ++next;
      }
      EXPECT_GE(next, sender.first_unanswered) << "seed " << seed << ": acknowledged records of producer " << sender.id.value() << " are lost";
    }
  }
}

std::uint64_t run_crashes(std::uint64_t seed) {
  Random random{seed};
  auto shards = static_cast<std::uint32_t>(1 + random.below(3));
  BrokerWorld world{{.shards = shards, .seed = seed * 100, .wal_file_bytes = 64 * 1024 * (1 + random.below(4)), .metadata_snapshot_commands = 1 + random.below(12)}};
  world.start();
  world.create("orders", 3, {{"segment_bytes_max", "16KiB"}});
  std::vector<Sender> senders(6);
  for (std::size_t i = 0; i < senders.size(); ++i) {
    senders[i].at = static_cast<std::uint32_t>(i) % shards;
    senders[i].partition = static_cast<std::int32_t>(i % 3);
    senders[i].id = world.producer_id("orders", senders[i].at);
  }
  int serial = 0;
  for (int life = 0; life < 5; ++life) {
    {
      bool ended = false;
      TaskScope traffic;
      for (Sender& sender : senders) traffic.spawn(run_sender(world, sender, ended));
      traffic.spawn(churn(world, static_cast<std::uint32_t>(random.below(shards)), serial, ended));
      world.loop().run_for(std::chrono::microseconds{random.between(50, 60'000)});
      ended = true;
      switch (random.below(4)) {
        case 0: world.kill(); break;
        case 1: world.restart(); break;
        case 2: world.power_cut(sim::CrashPlan::lose_all()); break;
        default: world.power_cut(sim::CrashPlan::seeded(random.next()));
      }
      EXPECT_EQ(traffic.running(), 0u) << "seed " << seed << ": every call has an answer once the broker is gone";
    }
    if (random.chance(1, 2)) {  // and the recovery crashes too
      std::uint64_t at = random.below(120), operations = 0;
      std::optional<sim::DiskImage> image;
      world.disk().on_start = [&](sim::DiskOp, const std::string&, std::uint64_t, Bytes) {
        if (operations++ == at) image = world.disk().crash_image(sim::CrashPlan::seeded(seed + at));
      };
      world.start();
      world.disk().on_start = nullptr;
      if (image) {
        world.stop();
        world.boot(*image);
        world.start();
      }
    } else {
      auto report = world.start();
      EXPECT_EQ(report.partitions_kept + report.partitions_lost, 0u) << "seed " << seed;
    }
    check_partitions(world, senders, seed);
    if (::testing::Test::HasFailure()) break;
  }
  // The last life is left alone: what was sent before is answered in the end.
  for (Sender& sender : senders) {
    auto topic = world.topic("orders", sender.at);
    for (int i = 0; i < kWindow; ++i) {
      bool failed = false;
      auto once = [&]() -> Task<bool> {
        co_await send_one(world, sender, topic, sender.first_unanswered, failed);
        co_return true;
      };
      world.run(once());
      EXPECT_FALSE(failed) << "seed " << seed;
      ++sender.first_unanswered;
    }
  }
  check_partitions(world, senders, seed);
  EXPECT_TRUE(world.disk().violations().empty()) << world.disk().violations().front();
  return world.loop().hash();
}

// Whenever the broker dies, a producer that resends ends up with each record stored once, in its order, at the offset it was told.
TEST(Crash, ProducersThatResendGetEveryRecordExactlyOnceWheneverTheBrokerDies) {
  for (std::uint64_t seed = 1; seed <= 40 && !::testing::Test::HasFailure(); ++seed) run_crashes(seed);
}

// The same with everything in it: two runs of one seed are the same run.
TEST(Crash, TheSameSeedGivesTheSameRun) { EXPECT_EQ(run_crashes(21), run_crashes(21)); }

// The proof that the check above can fail: a broker that forgets its producers at a restart stores a resent batch twice or refuses it.
TEST(Crash, AForgottenDedupWindowIsFound) {
  BrokerWorld world;
  world.start();
  auto topic = world.create("orders", 1, {{"segment_bytes_max", "4KiB"}});
  ProducerId id = world.producer_id("orders");
  auto batch = [&] { return batch_of({"once"}, {.producer_id = id, .producer_epoch = ProducerEpoch{0}, .base_sequence = 0}); };
  ASSERT_TRUE(world.produce(topic, 0, batch()));
  // Others fill several segments: what is known of the producer comes from a snapshot then, no longer from its batch.
  for (int i = 0; i < 12; ++i) ASSERT_TRUE(world.produce(topic, 0, {std::string(1'500, 'f')}));
  world.loop().run_for(std::chrono::seconds{1});
  world.restart();
  plant(PlantedBug::forget_dedup_window);
  world.start();
  auto again = world.produce(world.topic("orders"), 0, batch());
  plant(PlantedBug::none);
  EXPECT_FALSE(again && again->duplicate);
  EXPECT_EQ(world.read_all(world.topic("orders"), 0).size(), 14u);
}

// More is waiting than all WAL files hold together, of many partitions whose tails all need copying forward: recycling must never
// wait for room that only recycling can make.
TEST(Crash, ABurstLargerThanTheWholeWalGoesThrough) {
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    BrokerWorld world{{.shards = 1, .seed = seed, .wal_file_bytes = 64 * 1024, .pending_bytes_max = 4 * limits::kMiB}};
    world.start();
    auto topic = world.create("orders", 24);
    Random random{seed};
    TaskScope burst;
    int stored = 0;
    auto one = [&](std::int32_t p, std::size_t bytes) -> Task<void> {
      auto answer = co_await world.shard().produce(BrokerWorld::request(topic, p, batch_of({std::string(bytes, 'b')})));
      if (answer) ++stored;
      else ADD_FAILURE() << "seed " << seed << ": " << answer.error().detail;
    };
    for (int i = 0; i < 400; ++i) burst.spawn(one(static_cast<std::int32_t>(random.below(24)), random.between(1, random.chance(1, 4) ? 30'000 : 600)));
    ASSERT_TRUE(world.loop().run_until([&] { return burst.running() == 0; }, std::chrono::minutes{5})) << "seed " << seed << ": " << stored << " of 400 stored, then nothing moved";
    EXPECT_EQ(stored, 400);
  }
}

// A disk that hangs must not make the stop hang past its deadline, and nobody who waits may be left without an answer.
TEST(Crash, AStopKeepsItsDeadlineWhenTheDiskHangs) {
  BrokerWorld world;
  world.start();
  auto topic = world.create("orders");
  ASSERT_TRUE(world.produce(topic, 0, {"first"}));
  world.loop().run_for(std::chrono::seconds{1});
  sim::Fault stall{.op = sim::DiskOp::write_durable, .effect = sim::Fault::Effect::stall};
  stall.stall = std::chrono::seconds{5};
  world.disk().inject(stall);
  TaskScope scope;
  std::optional<Answer<ProduceReply>> answer;
  auto send = [&]() -> Task<void> { answer = co_await world.shard().produce(BrokerWorld::request(topic, 0, batch_of({"slow"}))); };
  scope.spawn(send());
  world.loop().run_for(std::chrono::milliseconds{1});
  Instant begun = world.now();
  StopReport report = world.stop(std::chrono::seconds{1});
  EXPECT_EQ(report.calls_left, 1u);
  EXPECT_LT(world.now() - begun, std::chrono::seconds{7});  // the write itself cannot be taken back: the log waits for it
  ASSERT_EQ(scope.running(), 0u);
  ASSERT_TRUE(answer);
  // The write came through in the end, so an acknowledgement would be true; anything else must say that it is not known.
  if (!*answer) EXPECT_TRUE(tailrace::describe(answer->error().code).maybe_applied) << answer->error().detail;
}

}  // namespace
}  // namespace tailrace::broker::service
