#include "client/cli/tail_plan.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>

#include "client/cli/ack_tracker.h"

namespace tailrace::cli {
namespace {

const Time kNow = parse_time("2026-02-14T12:00:00Z").value();
const std::vector<Bounds> kTwo = {{0, 10, 100}, {1, 0, 50}};

TailRequest request(const std::string& from, const std::string& until = {}, std::vector<std::int32_t> partitions = {}) {
  TailFlags flags;
  flags.from = from;
  flags.until = until;
  flags.partitions = std::move(partitions);
  return tail_request(flags, false, kNow).value();
}

// Like tail -f on a terminal; like cat in a pipe.
TEST(TailRequest, DefaultsDependOnTheTerminal) {
  TailFlags flags;
  auto terminal = tail_request(flags, true, kNow).value();
  EXPECT_EQ(terminal.from, ReadPoint{LastRecords{10}});
  EXPECT_TRUE(terminal.follow);
  auto pipe = tail_request(flags, false, kNow).value();
  EXPECT_EQ(pipe.from, ReadPoint{AtStart{}});
  EXPECT_FALSE(pipe.follow);
  EXPECT_TRUE(pipe.by_default);
  flags.count = 3;
  auto three = tail_request(flags, true, kNow).value();
  EXPECT_EQ(three.from, ReadPoint{LastRecords{3}});
  EXPECT_FALSE(three.follow);
  // Reading from the end and stopping there would always be empty.
  EXPECT_TRUE(request("end").follow);
}

TEST(TailRequest, FollowingAndStoppingExcludeEachOther) {
  TailFlags flags;
  flags.follow = true;
  flags.until = "end";
  auto refused = tail_request(flags, false, kNow);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().exit(), kUsage);
}

TEST(TailPlan, StartToEndIsWhatIsThereNow) {
  auto plan = tail_plan("t", request("start", "end"), kTwo, {}, {}).value();
  ASSERT_EQ(plan.ranges.size(), 2u);
  EXPECT_EQ(plan.ranges[0].from, 10);
  EXPECT_EQ(plan.ranges[0].until, 100);
  EXPECT_EQ(plan.records(), 140u);
}

// An offset says nothing about several partitions: refusing beats reading the wrong thing.
TEST(TailPlan, AnOffsetNeedsOnePartition) {
  auto refused = tail_plan("t", request("5"), kTwo, {}, {});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().exit(), kUsage);
  auto plan = tail_plan("t", request("20", "30", {0}), kTwo, {}, {}).value();
  EXPECT_EQ(plan.ranges[0].from, 20);
  EXPECT_EQ(plan.ranges[0].until, 30);
  EXPECT_EQ(tail_plan("t", request("start", {}, {7}), kTwo, {}, {}).error().exit(), kNotFound);
}

TEST(TailPlan, OutOfRangeSaysTheRangeOrFollowsThePolicy) {
  auto refused = tail_plan("t", request("5", {}, {0}), kTwo, {}, {});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::offset_out_of_range);
  EXPECT_NE(refused.error().message.find("10 to 100"), std::string::npos);
  auto earliest = request("5", {}, {0});
  earliest.out_of_range = OutOfRange::earliest;
  EXPECT_EQ(tail_plan("t", earliest, kTwo, {}, {}).value().ranges[0].from, 10);
  auto latest = request("500", {}, {0});
  latest.out_of_range = OutOfRange::latest;
  EXPECT_EQ(tail_plan("t", latest, kTwo, {}, {}).value().ranges[0].from, 100);
  // The end itself is a valid place to begin.
  EXPECT_TRUE(tail_plan("t", request("100", {}, {0}), kTwo, {}, {}));
}

// A purge between the look at the bounds and the subscription ended `tail --from start` with an error about an offset nobody had named.
TEST(TailRequest, OnlyAnOffsetThatWasNamedMustBeThere) {
  auto policy = [](const std::string& from, const std::string& flag) {
    TailFlags flags;
    flags.from = from;
    flags.out_of_range = flag;
    return tail_request(flags, false, kNow).value().out_of_range;
  };
  for (const char* from : {"", "start", "end", "-10", "-1h", "2026-01-01"}) {
    EXPECT_EQ(policy(from, ""), OutOfRange::earliest) << from;
    EXPECT_EQ(policy(from, "error"), OutOfRange::error) << from;
    EXPECT_EQ(policy(from, "end"), OutOfRange::latest) << from;
  }
  EXPECT_EQ(policy("5", ""), OutOfRange::error);
  EXPECT_EQ(policy("5", "start"), OutOfRange::earliest);
}

TEST(TailPlan, TimesBecomeOffsetsOfEachPartition) {
  auto plan = tail_plan("t", request("-1h", "-1m"), kTwo, {{0, 40}, {1, 45}}, {{0, 60}, {1, 44}}).value();
  EXPECT_EQ(plan.ranges[0].from, 40);
  EXPECT_EQ(plan.ranges[0].until, 60);
  EXPECT_EQ(plan.ranges[1].from, 45);
  EXPECT_EQ(plan.ranges[1].until, 45);  // nothing, rather than backwards
}

TEST(LastByTime, MergesTheNewestOfAllPartitions) {
  EXPECT_EQ(last_by_time({{1, 4, 6}, {2, 3, 5}}, 3), (std::vector<Pick>{{0, 1}, {1, 2}, {0, 2}}));
  EXPECT_EQ(last_by_time({{}, {2}}, 3), (std::vector<Pick>{{1, 0}}));
  EXPECT_TRUE(last_by_time({}, 3).empty());
}

// Whatever the clocks of producers say, a partition's order is never changed and no record in its middle is left out.
RC_GTEST_PROP(LastByTime, KeepsTheOrderWithinAPartition, ()) {
  const auto times = *rc::gen::container<std::vector<std::vector<std::int64_t>>>(rc::gen::container<std::vector<std::int64_t>>(rc::gen::inRange<std::int64_t>(0, 20)));
  const auto count = *rc::gen::inRange<std::uint64_t>(0, 30);
  std::uint64_t total = 0;
  for (const auto& list : times) total += list.size();
  const auto picks = last_by_time(times, count);
  RC_ASSERT(picks.size() == std::min(count, total));
  std::vector<std::size_t> next(times.size(), 0), taken(times.size(), 0);
  for (const auto& pick : picks) ++taken[pick.list];
  for (std::size_t i = 0; i < times.size(); ++i) next[i] = times[i].size() - taken[i];
  for (const auto& pick : picks) RC_ASSERT(pick.index == next[pick.list]++);
}

// --skip must never jump over a record that was not acknowledged, in whatever order acknowledgements come.
RC_GTEST_PROP(AckTracker, ThePrefixHasNoGap, ()) {
  const auto size = *rc::gen::inRange<std::uint64_t>(1, 60);
  const auto first = *rc::gen::inRange<std::uint64_t>(0, 10);
  std::vector<std::uint64_t> order;
  for (std::uint64_t i = 0; i < size; ++i) order.push_back(first + i);
  const auto swaps = *rc::gen::container<std::vector<std::pair<std::uint64_t, std::uint64_t>>>(rc::gen::pair(rc::gen::inRange<std::uint64_t>(0, size), rc::gen::inRange<std::uint64_t>(0, size)));
  for (const auto& [a, b] : swaps) std::swap(order[a], order[b]);
  AckTracker tracker{first};
  std::vector<bool> seen(first + size, false);
  for (std::uint64_t i = 0; i < first; ++i) seen[i] = true;
  for (auto index : order) {
    tracker.acknowledged(index);
    seen[index] = true;
    const auto gap = static_cast<std::uint64_t>(std::ranges::find(seen, false) - seen.begin());
    RC_ASSERT(tracker.prefix() == gap);
    RC_ASSERT(tracker.beyond_prefix() == static_cast<std::uint64_t>(std::count(seen.begin() + static_cast<std::ptrdiff_t>(gap), seen.end(), true)));
  }
  RC_ASSERT(tracker.count() == size);
}

}  // namespace
}  // namespace tailrace::cli
