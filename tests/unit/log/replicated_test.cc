// What replication asks of the log: copies, marks, hard states, what is told when, reads for other replicas.
#include <fmt/core.h>

#include <algorithm>
#include <limits>
#include <set>

#include "log/wal_format.h"
#include "tests/unit/log/replica_world.h"

namespace tailrace::broker::log {
namespace {

constexpr Offset kEnd{std::numeric_limits<std::int64_t>::max()};

struct Replicated : testing::Test {
  ReplicaWorld world;
  void SetUp() override {
    auto started = world.start();
    ASSERT_TRUE(started) << started.error().detail;
  }
  Partition& log() { return *world.partition; }
};

TEST_F(Replicated, CopiesStandByteForByteAfterEveryKindOfRestart) {
  world.begin_term(4);
  for (int i = 0; i < 30; ++i) ASSERT_TRUE(world.copy(4, std::string(900, static_cast<char>('a' + i % 26)), i % 3 + 1));
  world.settle();
  world.recycle(4);
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(world.copy(4, "hot"));
  world.settle();
  for (bool power : {false, true}) {
    power ? world.cut_power() : world.restart();
    EXPECT_EQ(log().term(), LeaderEpoch{4});
    auto found = world.read(Offset{0});
    ASSERT_TRUE(found) << found.error().detail;
    EXPECT_EQ(*found, world.written);
  }
}

TEST_F(Replicated, ACopyThatIsNotTheNextIsRefusedAndChangesNothing) {
  world.begin_term(2);
  ASSERT_TRUE(world.copy(2, "one", 3));
  auto with = [&](std::int64_t base, std::int32_t term) -> std::optional<Errc> {
    Slice batch = make_batch("x");
    assign_batch(batch.mutable_bytes(), Offset{base}, LeaderEpoch{term});
    auto header = read_batch_header(batch.bytes(), batch.length);
    auto done = log().append_copy(std::move(batch), *header, world.loop().wall());
    return done ? std::nullopt : std::optional{done.error().code};
  };
  EXPECT_EQ(with(2, 2), Errc::invalid_argument) << "below the end";
  EXPECT_EQ(with(4, 2), Errc::invalid_argument) << "a gap";
  EXPECT_EQ(with(3, 1), Errc::invalid_argument) << "an older term";
  EXPECT_EQ(with(3, 3), Errc::invalid_argument) << "a term that did not begin";
  Slice cut = make_batch("x");
  assign_batch(cut.mutable_bytes(), Offset{3}, LeaderEpoch{2});
  auto header = read_batch_header(cut.bytes(), cut.length);
  EXPECT_FALSE(log().append_copy(cut.part(0, static_cast<std::uint32_t>(cut.length - 1)), *header, world.loop().wall())) << "not whole";
  EXPECT_EQ(log().log_end(), Offset{3});
  EXPECT_EQ(with(3, 2), std::nullopt);
}

TEST_F(Replicated, AMarkStandsAtTheEndOnly) {
  world.begin_term(2);
  ASSERT_TRUE(world.copy(2, "one"));
  LogPosition end = log().end_position();
  for (LogPosition wrong : {LogPosition{end.offset, end.sub + 1}, LogPosition{end.offset - 1, 0}, LogPosition{end.offset + 1, 0}}) {
    auto done = log().append_mark({.begin = wrong, .term = LeaderEpoch{2}, .kind = MarkKind::members, .log_start = {}, .members = {}});
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code, Errc::invalid_argument);
  }
  EXPECT_EQ(log().end_position(), end);
}

// What it says is durable survives a power cut at that very moment, entry by entry, and so do hard states.
TEST_F(Replicated, TheListenerHearsOnlyOfWhatAPowerCutLeaves) {
  struct Told {
    LogPosition end;
    LeaderEpoch term;
    std::uint64_t generation;
    sim::DiskImage image;
  };
  std::vector<Told> told;
  std::map<std::uint64_t, HardState> saved;
  world.on_durable = [&](LogPosition end, LeaderEpoch term, std::uint64_t generation) {
    told.push_back({end, term, generation, world.disk().crash_image(sim::CrashPlan::lose_all())});
  };
  world.disk().set_latency(std::chrono::microseconds{20}, std::chrono::milliseconds{4});
  for (std::int32_t term = 1; term <= 12; ++term) {
    world.begin_term(term);
    saved[world.generation] = log().replicated().hard;
    for (int i = 0; i < term % 4; ++i) ASSERT_TRUE(world.copy(term, std::string(700, 'v')));
    if (term % 3 == 0)
      ASSERT_TRUE(world.mark({.term = LeaderEpoch{term}, .kind = MarkKind::members, .log_start = {}, .members = std::vector<std::byte>(8, std::byte{7})}));
    world.loop().run_for(std::chrono::microseconds{300 * term});
  }
  world.settle();
  ASSERT_GT(told.size(), 6u);
  LogPosition last{};
  std::uint64_t last_generation = 0;
  for (const Told& t : told) {
    EXPECT_GE(t.end, last);
    EXPECT_GE(t.generation, last_generation);
    last = t.end;
    last_generation = t.generation;
    ReplicaWorld after{7, t.image};
    ASSERT_TRUE(after.start());
    ReplicatedState found = after.partition->replicated();
    EXPECT_GE(found.end, t.end);
    EXPECT_GE(found.hard.term, saved[t.generation].term);
    if (found.hard.term == saved[t.generation].term) EXPECT_EQ(found.hard, saved[t.generation]);
    EXPECT_GE(found.hard.term, t.term) << "an entry of a term that is not known";
  }
  EXPECT_EQ(last, log().end_position());
  EXPECT_EQ(last_generation, world.generation);
}

TEST_F(Replicated, MarksSurviveRecyclingAndAreCutByPosition) {
  world.begin_term(1);
  std::vector<std::byte> three(24, std::byte{3}), five(40, std::byte{5});
  ASSERT_TRUE(world.mark({.term = LeaderEpoch{1}, .kind = MarkKind::members, .log_start = {}, .members = three}));
  ASSERT_TRUE(world.copy(1, "a", 2));
  ASSERT_TRUE(world.mark({.term = LeaderEpoch{1}, .kind = MarkKind::members, .log_start = {}, .members = five}));
  LogPosition before_start = log().end_position();
  ASSERT_TRUE(world.mark({.term = LeaderEpoch{1}, .kind = MarkKind::log_start, .log_start = Offset{1}, .members = {}}));
  world.begin_term(2);
  world.settle();
  ReplicatedState whole = log().replicated();
  ASSERT_EQ(whole.marks.size(), 5u);
  world.recycle(4);
  world.cut_power();
  EXPECT_EQ(log().replicated().marks, whole.marks);
  EXPECT_EQ(log().end_position(), (LogPosition{Offset{2}, 3}));
  // Between two entries at one offset.
  ASSERT_TRUE(world.run(log().truncate_suffix(before_start)));
  auto check = [&] {
    EXPECT_EQ(log().end_position(), before_start);
    EXPECT_EQ(log().replicated().marks, (std::vector<Mark>{whole.marks.begin(), whole.marks.begin() + 3}));
    EXPECT_EQ(log().replicated().hard, whole.hard) << "a cut takes no vote with it";
  };
  check();
  world.cut_power();
  check();
  world.recycle(4);
  world.cut_power();
  check();
  ASSERT_TRUE(world.mark({.term = LeaderEpoch{2}, .kind = MarkKind::term_start, .log_start = {}, .members = {}}));
  ASSERT_TRUE(world.copy(2, "b"));
}

TEST_F(Replicated, ReplicasReadWhatIsNotCommittedFromMemoryAndFromDisk) {
  world.begin_term(3);
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(world.copy(3, std::string(700, 'r'), 2));
  world.settle();
  world.recycle(4);  // out of memory
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(world.copy(3, std::string(700, 's'), 2));
  EXPECT_EQ(log().high_watermark(), Offset{0}) << "nobody said that it is committed";
  for (std::size_t bytes : {std::size_t{1}, std::size_t{5'000}, std::size_t{100'000}}) {
    auto found = world.read(Offset{0}, bytes);
    ASSERT_TRUE(found) << found.error().detail;
    EXPECT_EQ(*found, world.written) << bytes;
  }
  for (std::int64_t from : {std::int64_t{7}, std::int64_t{91}}) {  // the middle of a batch, cold and hot
    auto got = world.run(log().read_replica(Offset{from}, Offset{from + 3}, 100'000));
    ASSERT_TRUE(got) << got.error().detail;
    EXPECT_EQ(got->begin, Offset{from - 1});
    EXPECT_EQ(got->end, Offset{from + 3}) << "whole batches below the end that was asked for";
    EXPECT_EQ(got->batches.size(), 2u);
    for (const ReplicaBatch& batch : got->batches) EXPECT_GE(batch.append_time.time_since_epoch().count(), 50'000);
  }
  log().commit_to(log().end_position());
  log().apply_log_start(Offset{30});
  ASSERT_TRUE(world.run(log().drop_deleted()));
  auto gone = world.run(log().read_replica(Offset{0}, kEnd, 1'000));
  ASSERT_FALSE(gone);
  EXPECT_EQ(gone.error().code, Errc::offset_out_of_range);
}

// A quorum elsewhere commits, and deletes, what is not durable here yet. A checkpoint that says so ahead of the entries would leave, after a
// crash, a log whose end is no entry's: nobody's entries fit behind it (found by a seed of whole brokers: the leader and this replica
// asked each other for ever).
TEST_F(Replicated, ALogStartAheadOfTheDiskMakesNoEndInsideABatch) {
  std::size_t behind = 0;
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    ReplicaWorld slow{seed * 100};
    ASSERT_TRUE(slow.start());
    slow.disk().set_latency(std::chrono::microseconds{50}, std::chrono::milliseconds{8});
    Random random{seed};
    slow.begin_term(1);
    std::set<Offset> ends{Offset{0}};
    for (int i = 0; i < 250; ++i) {
      if (!slow.copy(1, std::string(300, 'q'), 4)) {
        slow.loop().run_for(std::chrono::milliseconds{20});
        continue;
      }
      Offset end = slow.partition->log_end();
      ends.insert(end);
      slow.partition->commit_to(slow.partition->end_position());
      if (random.chance(1, 4)) {
        slow.partition->apply_log_start(end - static_cast<std::int64_t>(random.between(1, 3)));
        behind += slow.partition->flushed() < slow.partition->log_start() ? 1 : 0;
      }
      slow.loop().run_for(std::chrono::microseconds{random.below(4'000)});
      if (i % 5 != 0) continue;
      ReplicaWorld after{seed, slow.disk().crash_image(sim::CrashPlan::lose_all())};
      ASSERT_TRUE(after.start());
      EXPECT_TRUE(ends.contains(after.partition->log_end()))
          << "seed " << seed << ": the log ends at " << after.partition->log_end().value() << ", inside a batch";
      EXPECT_LE(after.partition->log_start(), after.partition->log_end());
      EXPECT_EQ(after.partition->stats().damage, "");
    }
  }
  EXPECT_GT(behind, 100u);
}

// A vote is one block of the WAL: every prefix of it, over zeros, over an earlier use of the file and over noise, leaves the old vote or the
// new one whole.
TEST_F(Replicated, ACrashAtEveryByteOfAHardStateLeavesTheOldOneOrTheNewOne) {
  world.begin_term(5);
  ASSERT_TRUE(world.copy(5, "before"));
  world.settle();
  for (bool recycled : {false, true}) {
    if (recycled) world.recycle(4);
    world.loop().run_for(std::chrono::seconds{5});
    HardState old = log().replicated().hard;
    HardState now = old;
    now.term = old.term + 3;
    now.vote_node = NodeId{2};
    now.vote_directory.fill(0xab);
    now.suspicion = kCut;
    now.floor_term = LeaderEpoch{5};
    now.floor = {Offset{1}, 2};
    ASSERT_TRUE(log().save_hard_state(now, ++world.generation));
    auto in_flight = [&] {
      return std::ranges::any_of(world.disk().writes_in_flight(), [](const auto& w) { return w.write.path.find("/wal/") != std::string::npos; });
    };
    ASSERT_TRUE(world.loop().run_until(in_flight));
    ASSERT_LT(world.durable_generation, world.generation);
    std::size_t olds = 0, news = 0;
    for (auto rest : {sim::Fate::Rest::old, sim::Fate::Rest::zeros, sim::Fate::Rest::noise}) {
      for (std::uint64_t bytes = 0; bytes <= limits::kWalBlock; bytes += bytes < 200 || bytes > limits::kWalBlock - 8 ? 1 : 37) {
        sim::CrashPlan plan = sim::CrashPlan::lose_all();
        plan.fate = [&](const sim::UnflushedWrite& write) {
          return write.in_flight && write.path.find("/wal/") != std::string::npos ? sim::Fate{sim::Fate::Keep::prefix, bytes, rest}
                                                                                  : sim::Fate{sim::Fate::Keep::none};
        };
        ReplicaWorld after{11, world.disk().crash_image(plan)};
        ASSERT_TRUE(after.start());
        HardState found = after.partition->replicated().hard;
        // What recovery itself finds out about a torn tail is added to it.
        found.suspicion = found.suspicion == kCut && old.suspicion == kWhole && found.term == old.term ? kWhole : found.suspicion;
        if (found.term == old.term) found.floor_term = old.floor_term, found.floor = old.floor;
        EXPECT_TRUE(found == old || found == now) << fmt::format("{} bytes: term {} vote {}", bytes, found.term.value(), found.vote_node.value());
        (found == now ? news : olds) += 1;
        EXPECT_EQ(after.partition->log_end(), Offset{1}) << bytes;
      }
    }
    EXPECT_GT(olds, 100u);
    EXPECT_GT(news, 100u);
    world.settle();
    ASSERT_TRUE(world.loop().run_until([&] { return world.durable_generation == world.generation; }));
    // Whole again, for the second round.
    now.suspicion = kWhole;
    now.floor_term = LeaderEpoch{0};
    now.floor = {};
    ASSERT_TRUE(log().save_hard_state(now, ++world.generation));
    ASSERT_TRUE(world.loop().run_until([&] { return world.durable_generation == world.generation; }));
  }
}

// What a start found out, and what was newer than some frames that are read again, is not undone by reading them again: a cut tail would be
// trusted after a second crash, and a term go back behind entries of it.
TEST_F(Replicated, NoFrameThatIsReadAgainTakesBackWhatACheckpointKnows) {
  world.begin_term(5);
  ASSERT_TRUE(world.copy(5, "not in a segment yet"));
  HardState hard = log().replicated().hard;
  hard.vote_node = NodeId{3};
  ASSERT_TRUE(log().save_hard_state(hard, ++world.generation));
  world.settle();
  ASSERT_TRUE(world.loop().run_until([&] { return world.durable_generation == world.generation; }));
  ASSERT_TRUE(world.copy(5, std::string(3'000, 't')));
  ASSERT_TRUE(world.loop().run_until([&] { return !world.disk().writes_in_flight().empty(); }));
  sim::CrashPlan torn = sim::CrashPlan::lose_all();
  torn.fate = [](const sim::UnflushedWrite& write) { return write.in_flight ? sim::Fate{sim::Fate::Keep::prefix, 700} : sim::Fate{sim::Fate::Keep::none}; };
  world.cut_power(torn);
  EXPECT_EQ(log().replicated().hard.suspicion, kCut);
  for (int crashes = 0; crashes < 3; ++crashes) {
    world.cut_power();
    EXPECT_EQ(log().replicated().hard.suspicion, kCut) << "after " << crashes + 1 << " more";
    EXPECT_EQ(log().replicated().hard.vote_node, NodeId{3});
  }
}

// The same for the checkpoint, which is where the vote lives once its WAL file was recycled.
TEST_F(Replicated, ACrashInACheckpointOfAHardStateLosesNoVote) {
  world.begin_term(6);
  world.settle();
  HardState voted = log().replicated().hard;
  std::size_t crashes = 0;
  std::vector<std::pair<sim::DiskImage, HardState>> images;
  world.disk().on_start = [&](sim::DiskOp, const std::string& path, std::uint64_t, Bytes bytes) {
    if (path.find("checkpoint") == std::string::npos || bytes.empty() || images.size() > 600) return;
    for (std::uint64_t at = 0; at <= bytes.size(); at += at < 300 ? 3 : 129) {
      sim::CrashPlan plan = sim::CrashPlan::lose_all();
      plan.fate = [at](const sim::UnflushedWrite& write) {
        return write.in_flight && write.path.find("checkpoint") != std::string::npos ? sim::Fate{sim::Fate::Keep::prefix, at, sim::Fate::Rest::noise}
                                                                                     : sim::Fate{sim::Fate::Keep::none};
      };
      images.emplace_back(world.disk().crash_image(plan), voted);
    }
  };
  world.recycle(4);
  world.disk().on_start = nullptr;
  for (const auto& [image, hard] : images) {
    ReplicaWorld after{13, image};
    ASSERT_TRUE(after.start());
    EXPECT_EQ(after.partition->replicated().hard, hard);
    ++crashes;
  }
  EXPECT_GT(crashes, 100u);
}

}  // namespace
}  // namespace tailrace::broker::log
