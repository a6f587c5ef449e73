// A snapshot replaces the whole log in one step: whatever call fails and wherever the power goes, the next start has the old log whole or
// the new beginning, and the new one once it was answered.
#include <fmt/core.h>

#include "tests/unit/log/replica_world.h"

namespace tailrace::broker::log {
namespace {

struct Story {
  const char* name;
  std::int64_t to;        // where the log begins anew
  std::int64_t log_start;
  bool recycled;          // the old log lies in segments, several of them
};
constexpr Story kStories[] = {
    {"behind the end, old log in memory", 500, 520, false},
    {"behind the end, old log in segments", 500, 500, true},
    {"inside the old log", 30, 35, true},
    {"at the very begin", 0, 0, true},
};
const std::vector<std::byte> kMembers(48, std::byte{9});
const codec::ProducerStamp kProducer{ProducerId{77}, ProducerEpoch{1}, 0};

/// Producers as another replica has them: 77 sent two records.
std::vector<std::byte> foreign_producers() {
  ReplicaWorld other{99};
  EXPECT_TRUE(other.start());
  other.begin_term(8);
  EXPECT_TRUE(other.copy(8, "p", 2, kProducer));
  other.settle();
  other.partition->commit_to(other.partition->end_position());
  other.partition->apply_log_start(Offset{2});  // all is deleted: the state at the end is what a new replica begins with
  auto state = other.run(other.partition->stored_state(other.partition->end_position()));
  EXPECT_TRUE(state) << state.error().detail;
  return state ? state->producers : std::vector<std::byte>{};
}

class Installing {
 public:
  explicit Installing(const Story& story, std::uint64_t seed = 1) : story_{story}, world_{seed} {
    EXPECT_TRUE(world_.start());
    world_.begin_term(3);
    for (int i = 0; i < 40; ++i) EXPECT_TRUE(world_.copy(3, std::string(800, static_cast<char>('a' + i % 26))));
    world_.settle();
    world_.partition->commit_to({Offset{5}, 0});
    if (story.recycled) world_.recycle(4);
    old_ = world_.written;
    before_ = world_.partition->replicated();
    producers_ = foreign_producers();
  }
  Task<Result<void>> install() {
    return world_.partition->install({.position = place(), .term = LeaderEpoch{8}, .members = kMembers}, Offset{story_.log_start}, producers_);
  }
  [[nodiscard]] LogPosition place() const { return {Offset{story_.to}, 3}; }
  ReplicaWorld& world() { return world_; }

  enum class Which { either, old, anew };
  /// What a start from `image` finds. True: the new beginning.
  bool judge(const sim::DiskImage& image, Which allowed, const std::string& what) {
    ReplicaWorld after{31, image};
    auto started = after.start();
    EXPECT_TRUE(started) << what << ": " << (started ? "" : started.error().detail);
    if (!started) return false;
    bool anew = judge_log(after, allowed, what);
    // It goes on, and stands after another cut.
    std::int32_t term = anew ? 9 : 4;
    after.written.clear();
    after.begin_term(term);
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(after.copy(term, "more")) << what;
    after.settle();
    auto more = after.written;
    after.cut_power();
    if (!after.partition) return anew;
    auto found = after.read(more.begin()->first);
    EXPECT_TRUE(found) << what << ": " << (found ? "" : found.error().detail);
    if (found) EXPECT_EQ(*found, more) << what;
    return anew;
  }
  bool judge_log(ReplicaWorld& at, Which allowed, const std::string& what) {
    Partition& log = *at.partition;
    ReplicatedState state = log.replicated();
    bool anew = state.start.position == place() && state.start.members == kMembers;
    EXPECT_TRUE(allowed == Which::either || anew == (allowed == Which::anew)) << what << (anew ? ": the new beginning" : ": the old log");
    EXPECT_EQ(log.stats().damage, "") << what;
    EXPECT_EQ(state.hard.term, before_.hard.term) << what;
    EXPECT_EQ(state.hard.vote_node, before_.hard.vote_node) << what;
    if (anew) {
      EXPECT_EQ(state.start.term, LeaderEpoch{8}) << what;
      EXPECT_EQ(log.end_position(), place()) << what;
      EXPECT_EQ(log.high_watermark(), Offset{story_.to}) << what;
      EXPECT_EQ(log.log_start(), Offset{story_.to}) << what << ": as far as there is a log; the rest comes with the entries";
      EXPECT_TRUE(state.marks.empty()) << what;
      auto read = at.run(log.read_replica(Offset{0}, Offset{story_.to}, 1'000));
      EXPECT_TRUE(story_.to == 0 || !read) << what << ": the old log can still be read";
      EXPECT_EQ(answer(log), ProducerAnswer::duplicate) << what << ": producers came with it";
    } else {
      EXPECT_EQ(state.start, before_.start) << what;
      EXPECT_EQ(state.marks, before_.marks) << what;
      EXPECT_EQ(log.end_position(), before_.end) << what;
      auto found = at.read(Offset{0});
      EXPECT_TRUE(found) << what << ": " << (found ? "" : found.error().detail);
      if (found) EXPECT_EQ(*found, old_) << what;
      EXPECT_EQ(answer(log), ProducerAnswer::accept) << what << ": producers of a snapshot that is not there";
    }
    return anew;
  }

 private:
  static ProducerAnswer answer(const Partition& log) {
    Slice again = make_batch("p", 2, kProducer);
    return log.judge(*read_batch_header(again.bytes(), again.length)).answer;
  }
  Story story_;
  ReplicaWorld world_;
  std::map<Offset, std::string> old_;
  ReplicatedState before_;
  std::vector<std::byte> producers_;
};
using Which = Installing::Which;

class Install : public testing::TestWithParam<Story> {};

TEST_P(Install, IsInForceWhenItAnswersAndAfterAnyRestart) {
  Installing now{GetParam()};
  auto done = now.world().run(now.install());
  ASSERT_TRUE(done) << done.error().detail;
  EXPECT_TRUE(now.judge_log(now.world(), Which::anew, "at once"));
  for (const auto& plan : {sim::CrashPlan::lose_all(), sim::CrashPlan::keep_all(), sim::CrashPlan::seeded(5)}) {
    EXPECT_TRUE(now.judge(now.world().disk().crash_image(plan), Which::anew, "a power cut"));
  }
  now.world().restart();
  EXPECT_TRUE(now.judge_log(now.world(), Which::anew, "a restart"));
  now.world().recycle(4);  // its frame is gone
  EXPECT_TRUE(now.judge(now.world().disk().crash_image(sim::CrashPlan::lose_all()), Which::anew, "recycled"));
  // No file of the old log is left.
  now.world().restart();
  sim::DiskImage image = now.world().disk().visible_image();
  for (const auto& path : image.paths("/topics/")) {
    if (path.find("0001/0/") == std::string::npos || !path.ends_with(".log")) continue;
    std::int64_t base = std::stoll(path.substr(path.rfind('/') + 1));
    EXPECT_GE(base, GetParam().to) << path;
  }
}

// Item "crash after each write": the disk at the start and the end of every call of it, with four fates of what was not flushed.
TEST_P(Install, APowerCutAtAnyCallLeavesTheOldLogOrTheNewBeginning) {
  Installing now{GetParam()};
  std::vector<std::pair<sim::DiskImage, std::string>> images;
  auto take = [&](sim::DiskOp op, const std::string& path, const char* when) {
    std::uint64_t seed = images.size();
    for (const auto& plan : {sim::CrashPlan::lose_all(), sim::CrashPlan::keep_all(), sim::CrashPlan::seeded(seed), sim::CrashPlan::seeded(seed + 1'000)}) {
      images.emplace_back(now.world().disk().crash_image(plan), fmt::format("{} {} {} (image {})", when, sim::name_of(op), path, images.size()));
    }
  };
  now.world().disk().on_start = [&](sim::DiskOp op, const std::string& path, std::uint64_t, Bytes) { take(op, path, "at the start of"); };
  now.world().disk().on_done = [&](sim::DiskOp op, const std::string& path, std::uint64_t, std::int64_t) { take(op, path, "after"); };
  auto done = now.world().run(now.install());
  now.world().disk().on_start = nullptr;
  now.world().disk().on_done = nullptr;
  ASSERT_TRUE(done) << done.error().detail;
  std::size_t anew = 0;
  for (const auto& [image, what] : images) anew += now.judge(image, Which::either, what) ? 1 : 0;
  EXPECT_GT(anew, 0u);
  EXPECT_LT(anew, images.size());
}

TEST_P(Install, AnyCallOfItMayFail) {
  std::size_t refused = 0, answered = 0;
  for (std::uint64_t number = 0;; ++number) {
    Installing now{GetParam(), 3};
    sim::Fault& fault = now.world().disk().inject({.after = number, .error = number % 2 == 0 ? 5 : 28, .to_path = {}});
    auto done = now.world().run(now.install());
    bool struck = fault.struck > 0;
    now.world().disk().clear_faults();
    std::string what = fmt::format("call {} fails", number);
    if (!now.world().log().failed()) now.judge_log(now.world(), done ? Which::anew : Which::old, what);
    (done ? answered : refused) += 1;
    for (const auto& plan : {sim::CrashPlan::lose_all(), sim::CrashPlan::keep_all()}) {
      now.judge(now.world().disk().crash_image(plan), done ? Which::anew : Which::either, what);
    }
    if (!struck) break;
  }
  EXPECT_GT(refused, 0u);
  EXPECT_GT(answered, 0u);
}

TEST_P(Install, APowerCutInTheRecoveryAfterItChangesNothing) {
  Installing now{GetParam()};
  ASSERT_TRUE(now.world().run(now.install()));
  sim::DiskImage image = now.world().disk().crash_image(sim::CrashPlan::lose_all());
  for (std::uint64_t operations = 1;; ++operations) {
    bool cut = false;
    sim::DiskImage left;
    {
      ReplicaWorld first{17, image};
      first.disk().on_done = [&, done = std::uint64_t{0}](sim::DiskOp, const std::string&, std::uint64_t, std::int64_t) mutable {
        if (++done == operations) {
          cut = true;
          left = first.disk().crash_image(sim::CrashPlan::seeded(operations));
        }
      };
      ASSERT_TRUE(first.start());
      first.disk().on_done = nullptr;
    }
    if (!cut) break;
    EXPECT_TRUE(now.judge(left, Which::anew, fmt::format("power cut after operation {} of the recovery", operations)));
  }
}

INSTANTIATE_TEST_SUITE_P(Stories, Install, testing::ValuesIn(kStories), [](const auto& info) { return fmt::format("{}", info.index); });

TEST(InstallBadInput, ProducersThatCannotBeReadChangeNothing) {
  Installing now{kStories[1]};
  std::vector<std::byte> garbage(100, std::byte{0});
  auto done = now.world().run(now.world().partition->install({.position = now.place(), .term = LeaderEpoch{8}, .members = kMembers}, Offset{500}, garbage));
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, Errc::corrupt);
  EXPECT_FALSE(now.judge_log(now.world(), Which::old, "refused"));
}

TEST(InstallBadInput, ABeginningAboveTheLogStartIsRefused) {
  Installing now{kStories[1]};
  auto done = now.world().run(now.world().partition->install({.position = now.place(), .term = LeaderEpoch{8}, .members = kMembers}, Offset{499}, foreign_producers()));
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, Errc::invalid_argument);
  EXPECT_FALSE(now.judge_log(now.world(), Which::old, "refused"));
}

}  // namespace
}  // namespace tailrace::broker::log
