#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <sstream>

#include "base/random.h"
#include "tests/support/history_checker.h"

namespace tailrace::broker::history {
namespace {

Verdict judge(const std::string& lines, CheckOptions options = {}) {
  std::istringstream in{lines};
  auto history = read_json_lines(in);
  EXPECT_TRUE(history) << (history ? "" : history.error().detail);
  return history ? check(*history, options) : Verdict{};
}

/// One rule: the smallest history that breaks it and nothing else, and one that looks almost the same and is legal.
struct Case {
  Rule rule;
  const char* name;
  const char* broken;
  const char* near_miss;
};

// Lines are terse on purpose: process, type, f, invoke, done, ops.
const Case kCases[] = {
    {Rule::inconsistent_offset, "InconsistentOffset",
     R"({"process":1,"type":"ok","f":"send","invoke":0,"done":9,"ops":[["send","t",0,"1.0"]]}
{"process":2,"type":"info","f":"send","invoke":0,"ops":[["send","t",null,"2.0"]]}
{"process":3,"type":"ok","f":"poll","invoke":10,"done":11,"ops":[["poll","t",0,"1.0"]]}
{"process":4,"type":"info","f":"poll","invoke":10,"done":11,"ops":[["poll","t",0,"2.0"]]})",
     R"({"process":1,"type":"ok","f":"send","invoke":0,"done":9,"ops":[["send","t",0,"1.0"]]}
{"process":2,"type":"info","f":"send","invoke":0,"ops":[["send","t",null,"2.0"]]}
{"process":3,"type":"ok","f":"poll","invoke":10,"done":11,"ops":[["poll","t",0,"1.0"]]}
{"process":4,"type":"info","f":"poll","invoke":10,"done":11,"ops":[["poll","t",1,"2.0"]]})"},
    {Rule::duplicate, "Duplicate",
     R"({"process":1,"type":"ok","f":"send","invoke":0,"done":9,"ops":[["send","t",0,"1.0"]]}
{"process":3,"type":"ok","f":"poll","invoke":10,"done":11,"ops":[["poll","t",0,"1.0"],["poll","t",1,"1.0"]]})",
     R"({"process":1,"type":"ok","f":"send","invoke":0,"done":9,"ops":[["send","t",0,"1.0"]]}
{"process":3,"type":"ok","f":"poll","invoke":10,"done":11,"ops":[["poll","t",0,"1.0"]]}
{"process":4,"type":"ok","f":"poll","invoke":10,"done":11,"ops":[["poll","t",0,"1.0"]]})"},
    // The lost value was acknowledged and later ones were read; in the near miss its outcome is unknown.
    {Rule::lost_write, "LostWrite",
     R"({"process":1,"type":"ok","f":"send","invoke":0,"done":9,"ops":[["send","t",0,"1.0"]]}
{"process":1,"type":"ok","f":"send","invoke":10,"done":19,"ops":[["send","t",1,"1.1"]]}
{"process":3,"type":"ok","f":"poll","invoke":20,"done":21,"ops":[["poll","t",1,"1.1"]]})",
     R"({"process":1,"type":"info","f":"send","invoke":0,"ops":[["send","t",null,"1.0"]]}
{"process":1,"type":"ok","f":"send","invoke":10,"done":19,"ops":[["send","t",1,"1.1"]]}
{"process":3,"type":"ok","f":"poll","invoke":20,"done":21,"ops":[["poll","t",1,"1.1"]]})"},
    // Acknowledged at the very end and not in the drain; in the near miss nobody drained, so it may still be there.
    {Rule::unseen, "Unseen",
     R"({"process":1,"type":"ok","f":"send","invoke":0,"done":9,"ops":[["send","t",0,"1.0"]]}
{"process":1,"type":"ok","f":"send","invoke":10,"done":19,"ops":[["send","t",1,"1.1"]]}
{"process":3,"type":"ok","f":"poll","final":true,"invoke":20,"done":21,"ops":[["poll","t",0,"1.0"]]})",
     R"({"process":1,"type":"ok","f":"send","invoke":0,"done":9,"ops":[["send","t",0,"1.0"]]}
{"process":1,"type":"ok","f":"send","invoke":10,"done":19,"ops":[["send","t",1,"1.1"]]}
{"process":3,"type":"ok","f":"poll","invoke":20,"done":21,"ops":[["poll","t",0,"1.0"]]})"},
    // One byte of the value differs from what was sent; in the near miss it is the same value of an unknown outcome.
    {Rule::phantom, "Phantom",
     R"({"process":1,"type":"info","f":"send","invoke":0,"ops":[["send","t",null,"1.0.5.0000abcd"]]}
{"process":3,"type":"ok","f":"poll","invoke":10,"done":11,"ops":[["poll","t",0,"1.0.5.0000abce"]]})",
     R"({"process":1,"type":"info","f":"send","invoke":0,"ops":[["send","t",null,"1.0.5.0000abcd"]]}
{"process":3,"type":"ok","f":"poll","invoke":10,"done":11,"ops":[["poll","t",0,"1.0.5.0000abcd"]]})"},
    {Rule::aborted_read, "AbortedRead",
     R"({"process":1,"type":"fail","f":"send","invoke":0,"done":9,"ops":[["send","t",null,"1.0"]]}
{"process":3,"type":"info","f":"poll","invoke":10,"done":11,"ops":[["poll","t",0,"1.0"]]})",
     R"({"process":1,"type":"fail","f":"send","invoke":0,"done":9,"ops":[["send","t",null,"1.0"]]}
{"process":1,"type":"info","f":"send","invoke":10,"done":19,"ops":[["send","t",null,"1.0"]]}
{"process":3,"type":"ok","f":"poll","invoke":20,"done":21,"ops":[["poll","t",0,"1.0"]]})"},
    // The middle of a batch of unknown outcome is missing; in the near miss the reader has not come past its end.
    {Rule::torn_batch, "TornBatch",
     R"({"process":1,"type":"info","f":"send","batch":true,"invoke":0,"ops":[["send","t",null,"1.0"],["send","t",null,"1.1"]]}
{"process":1,"type":"ok","f":"send","invoke":10,"done":19,"ops":[["send","t",2,"1.2"]]}
{"process":3,"type":"ok","f":"poll","invoke":20,"done":21,"ops":[["poll","t",0,"1.0"],["poll","t",2,"1.2"]]})",
     R"({"process":1,"type":"info","f":"send","batch":true,"invoke":0,"ops":[["send","t",null,"1.0"],["send","t",null,"1.1"]]}
{"process":1,"type":"ok","f":"send","invoke":10,"done":19,"ops":[["send","t",2,"1.2"]]}
{"process":3,"type":"ok","f":"poll","invoke":20,"done":21,"ops":[["poll","t",0,"1.0"]]})"},
    {Rule::poll_skip_inside, "SkipInsideAPoll",
     R"({"process":1,"type":"ok","f":"send","invoke":0,"done":9,"ops":[["send","t",0,"1.0"],["send","t",1,"1.1"],["send","t",2,"1.2"]]}
{"process":3,"type":"ok","f":"poll","invoke":10,"done":11,"ops":[["poll","t",0,"1.0"],["poll","t",2,"1.2"]]}
{"process":4,"type":"ok","f":"poll","invoke":10,"done":11,"ops":[["poll","t",1,"1.1"]]})",
     R"({"process":1,"type":"ok","f":"send","invoke":0,"done":9,"ops":[["send","t",0,"1.0"],["send","t",2,"1.2"]]}
{"process":3,"type":"ok","f":"poll","invoke":10,"done":11,"ops":[["poll","t",0,"1.0"],["poll","t",2,"1.2"]]})"},
    {Rule::poll_nonmonotonic_inside, "BackInsideAPoll",
     R"({"process":1,"type":"ok","f":"send","invoke":0,"done":9,"ops":[["send","t",0,"1.0"],["send","t",1,"1.1"]]}
{"process":3,"type":"ok","f":"poll","invoke":10,"done":11,"ops":[["poll","t",0,"1.0"],["poll","t",1,"1.1"],["poll","t",1,"1.1"]]})",
     R"({"process":1,"type":"ok","f":"send","invoke":0,"done":9,"ops":[["send","t",0,"1.0"],["send","t",1,"1.1"]]}
{"process":3,"type":"ok","f":"poll","invoke":10,"done":11,"ops":[["poll","t",0,"1.0"],["poll","t",1,"1.1"]]})"},
    // A skip between two polls; the near miss deleted the skipped record before the second.
    {Rule::poll_skip, "SkipBetweenPolls",
     R"({"process":1,"type":"ok","f":"send","invoke":0,"done":9,"ops":[["send","t",0,"1.0"],["send","t",1,"1.1"],["send","t",2,"1.2"]]}
{"process":3,"type":"ok","f":"poll","invoke":10,"done":11,"ops":[["poll","t",0,"1.0"]]}
{"process":3,"type":"ok","f":"poll","invoke":12,"done":13,"ops":[["poll","t",2,"1.2"]]}
{"process":4,"type":"ok","f":"poll","invoke":10,"done":11,"ops":[["poll","t",1,"1.1"]]})",
     R"({"process":1,"type":"ok","f":"send","invoke":0,"done":9,"ops":[["send","t",0,"1.0"],["send","t",1,"1.1"],["send","t",2,"1.2"]]}
{"process":3,"type":"ok","f":"poll","invoke":10,"done":11,"ops":[["poll","t",0,"1.0"]]}
{"process":4,"type":"ok","f":"end","invoke":11,"done":12,"ops":[["end","t",3],["start","t",2]]}
{"process":3,"type":"ok","f":"poll","invoke":12,"done":13,"ops":[["poll","t",2,"1.2"]]})"},
    // Back between two polls; the near miss is another life of the process.
    {Rule::poll_nonmonotonic, "BackBetweenPolls",
     R"({"process":1,"type":"ok","f":"send","invoke":0,"done":9,"ops":[["send","t",0,"1.0"],["send","t",1,"1.1"]]}
{"process":3,"type":"ok","f":"poll","invoke":10,"done":11,"ops":[["poll","t",0,"1.0"],["poll","t",1,"1.1"]]}
{"process":3,"type":"ok","f":"poll","invoke":12,"done":13,"ops":[["poll","t",0,"1.0"]]})",
     R"({"process":1,"type":"ok","f":"send","invoke":0,"done":9,"ops":[["send","t",0,"1.0"],["send","t",1,"1.1"]]}
{"process":3,"type":"ok","f":"poll","invoke":10,"done":11,"ops":[["poll","t",0,"1.0"],["poll","t",1,"1.1"]]}
{"process":3,"type":"info","f":"crash","invoke":11,"done":11,"ops":[]}
{"process":3,"type":"ok","f":"poll","invoke":12,"done":13,"ops":[["poll","t",0,"1.0"]]})"},
    {Rule::send_nonmonotonic_inside, "BackInsideASend",
     R"({"process":1,"type":"ok","f":"send","invoke":0,"done":9,"ops":[["send","t",1,"1.0"],["send","t",0,"1.1"]]}
{"process":3,"type":"ok","f":"poll","invoke":10,"done":11,"ops":[["poll","t",0,"1.1"],["poll","t",1,"1.0"]]})",
     R"({"process":1,"type":"ok","f":"send","invoke":0,"done":9,"ops":[["send","t",0,"1.0"],["send","t",2,"1.1"]]}
{"process":3,"type":"ok","f":"poll","invoke":10,"done":11,"ops":[["poll","t",0,"1.0"],["poll","t",2,"1.1"]]})"},
    // Pipelined sends overlap, so only program order, and no real time, forbids it; two producers may.
    {Rule::send_nonmonotonic, "BackBetweenSends",
     R"({"process":1,"type":"ok","f":"send","invoke":0,"done":9,"ops":[["send","t",1,"1.0"]]}
{"process":1,"type":"ok","f":"send","invoke":1,"done":9,"ops":[["send","t",0,"1.1"]]}
{"process":3,"type":"ok","f":"poll","invoke":10,"done":11,"ops":[["poll","t",0,"1.1"],["poll","t",1,"1.0"]]})",
     R"({"process":1,"type":"ok","f":"send","invoke":0,"done":9,"ops":[["send","t",1,"1.0"]]}
{"process":2,"type":"ok","f":"send","invoke":1,"done":9,"ops":[["send","t",0,"2.1"]]}
{"process":3,"type":"ok","f":"poll","invoke":10,"done":11,"ops":[["poll","t",0,"2.1"],["poll","t",1,"1.0"]]})"},
    // An offset below one that had been acknowledged before the send began; the near miss began before.
    {Rule::offset_realtime, "OffsetAgainstRealTime",
     R"({"process":1,"type":"ok","f":"send","invoke":0,"done":5,"ops":[["send","t",1,"1.0"]]}
{"process":2,"type":"ok","f":"send","invoke":6,"done":9,"ops":[["send","t",0,"2.0"]]}
{"process":3,"type":"ok","f":"poll","invoke":10,"done":11,"ops":[["poll","t",0,"2.0"],["poll","t",1,"1.0"]]})",
     R"({"process":1,"type":"ok","f":"send","invoke":0,"done":5,"ops":[["send","t",1,"1.0"]]}
{"process":2,"type":"ok","f":"send","invoke":5,"done":9,"ops":[["send","t",0,"2.0"]]}
{"process":3,"type":"ok","f":"poll","invoke":10,"done":11,"ops":[["poll","t",0,"2.0"],["poll","t",1,"1.0"]]})"},
    {Rule::stale_tail, "StaleTail",
     R"({"process":1,"type":"ok","f":"send","invoke":0,"done":5,"ops":[["send","t",0,"1.0"]]}
{"process":2,"type":"ok","f":"end","invoke":6,"done":7,"ops":[["end","t",0]]}
{"process":3,"type":"ok","f":"poll","invoke":10,"done":11,"ops":[["poll","t",0,"1.0"]]})",
     R"({"process":1,"type":"ok","f":"send","invoke":0,"done":5,"ops":[["send","t",0,"1.0"]]}
{"process":2,"type":"ok","f":"end","invoke":4,"done":7,"ops":[["end","t",0]]}
{"process":3,"type":"ok","f":"poll","invoke":10,"done":11,"ops":[["poll","t",0,"1.0"]]})"},
    {Rule::watermark_regress, "WatermarkRegress",
     R"({"process":2,"type":"ok","f":"end","invoke":6,"done":7,"ops":[["end","t",5],["start","t",2]]}
{"process":2,"type":"ok","f":"end","invoke":8,"done":9,"ops":[["end","t",5],["start","t",1]]})",
     R"({"process":2,"type":"ok","f":"end","invoke":6,"done":7,"ops":[["end","t",5],["start","t",2]]}
{"process":3,"type":"ok","f":"end","invoke":6,"done":9,"ops":[["end","t",5],["start","t",1]]})"},
    {Rule::replay_differs, "ReplayDiffers",
     R"({"process":2,"type":"ok","f":"replay","invoke":6,"done":7,"ops":[["replay","t",0,5,"000000aa"]]}
{"process":3,"type":"ok","f":"replay","invoke":8,"done":9,"ops":[["replay","t",0,5,"000000ab"]]})",
     R"({"process":2,"type":"ok","f":"replay","invoke":6,"done":7,"ops":[["replay","t",0,5,"000000aa"]]}
{"process":3,"type":"ok","f":"replay","invoke":8,"done":9,"ops":[["replay","t",0,6,"000000ab"]]})"},
};

class HistoryRule : public testing::TestWithParam<Case> {};

// A checker that cannot fail is no checker: each rule alone condemns its smallest history, once.
TEST_P(HistoryRule, CondemnsTheSmallestBrokenHistory) {
  Verdict verdict = judge(GetParam().broken);
  EXPECT_EQ(verdict.count(GetParam().rule), 1u) << verdict.summary();
  EXPECT_EQ(verdict.fatal(), 1u) << verdict.summary();
  EXPECT_EQ(verdict.examples.size(), 1u);
}

// And one that cries at anything is none either.
TEST_P(HistoryRule, AcceptsTheNearMiss) {
  Verdict verdict = judge(GetParam().near_miss);
  EXPECT_EQ(verdict.fatal(), 0u) << verdict.summary();
}

INSTANTIATE_TEST_SUITE_P(All, HistoryRule, testing::ValuesIn(kCases), [](const auto& info) { return std::string{info.param.name}; });

// Every fatal rule has its case above.
TEST(History, EveryRuleHasACase) {
  for (std::size_t i = 0; i < static_cast<std::size_t>(Rule::count_); ++i) {
    auto rule = static_cast<Rule>(i);
    if (!is_fatal(rule)) continue;
    EXPECT_TRUE(std::ranges::any_of(kCases, [&](const Case& c) { return c.rule == rule; })) << name_of(rule);
  }
}

// Where producers are not idempotent a retry may store a value twice: counted then, not fatal.
TEST(History, DuplicatesMayBeAllowed) {
  Verdict verdict = judge(kCases[1].broken, {.duplicates_are_fatal = false});
  EXPECT_EQ(verdict.fatal(), 0u);
  EXPECT_EQ(verdict.count(Rule::duplicate_allowed), 1u);
}

// Seeking and a new assignment are how a reader goes back on purpose.
TEST(History, ASeekOrAnotherAssignmentForgetsThePlace) {
  std::string head = R"({"process":1,"type":"ok","f":"send","invoke":0,"done":9,"ops":[["send","t",0,"1.0"],["send","t",1,"1.1"]]}
{"process":3,"type":"ok","f":"poll","invoke":10,"done":11,"ops":[["poll","t",0,"1.0"],["poll","t",1,"1.1"]]}
)";
  std::string tail = R"({"process":3,"type":"ok","f":"poll","invoke":12,"done":13,"ops":[["poll","t",0,"1.0"]]})";
  EXPECT_EQ(judge(head + R"({"process":3,"type":"ok","f":"seek","invoke":11,"done":11,"ops":[["seek","t"]]})" + "\n" + tail).fatal(), 0u);
  EXPECT_EQ(judge(head + R"({"process":3,"type":"ok","f":"assign","invoke":11,"done":11,"ops":[["assign","u"]]})" + "\n" + tail).fatal(), 0u);
  EXPECT_EQ(judge(head + R"({"process":3,"type":"ok","f":"assign","invoke":11,"done":11,"ops":[["assign","t"]]})" + "\n" + tail).count(Rule::poll_nonmonotonic), 1u);
}

// What one tool writes another must read: out and in again changes nothing, and damage is named by its line.
TEST(History, GoesThroughJsonLinesUnchanged) {
  for (const Case& c : kCases) {
    std::istringstream in{c.broken};
    auto first = read_json_lines(in);
    ASSERT_TRUE(first);
    std::ostringstream out;
    write_json_lines(*first, out);
    std::istringstream again{out.str()};
    auto second = read_json_lines(again);
    ASSERT_TRUE(second) << second.error().detail << out.str();
    std::ostringstream twice;
    write_json_lines(*second, twice);
    EXPECT_EQ(out.str(), twice.str());
    EXPECT_EQ(check(*second).counts, check(*first).counts);
  }
  for (std::string bad : {"{", "[]", R"({"process":1})", R"({"process":1,"type":"ok","f":"send","invoke":1,"ops":[["send","t",0,"x"]]})"}) {
    std::istringstream in{std::string{R"({"process":3,"type":"info","f":"crash","invoke":1,"ops":[]})"} + "\n" + bad};
    auto read = read_json_lines(in);
    ASSERT_FALSE(read) << bad;
    EXPECT_TRUE(read.error().detail.starts_with("line 2:")) << read.error().detail;
  }
}

/// A legal history of `count` sends and as many reads over 16 keys, recorded through the same calls that tests use.
History legal(std::size_t count) {
  History history;
  Random random{1};
  std::vector<std::uint32_t> keys;
  std::vector<std::int64_t> ends(16, 0);
  std::vector<std::vector<History::Read>> stored(16);
  for (int i = 0; i < 16; ++i) keys.push_back(history.key("topic-" + std::to_string(i)));
  std::int64_t now = 0;
  for (std::size_t done = 0; done < count;) {
    std::size_t k = random.below(16);
    std::vector<Value> values;
    for (std::uint64_t n = random.between(1, 100); n > 0; --n) {
      values.push_back({static_cast<std::uint32_t>(k), 100, done++, static_cast<std::uint32_t>(random.next())});
      stored[k].push_back({ends[k] + static_cast<std::int64_t>(values.size()) - 1, values.back()});
    }
    std::size_t event = history.send(static_cast<std::uint32_t>(k), now++, keys[k], values, true);
    history.sent(event, Type::ok, now++, ends[k]);
    ends[k] += static_cast<std::int64_t>(values.size());
  }
  for (std::size_t k = 0; k < 16; ++k) history.poll(99, now, now + 1, keys[k], stored[k], true);
  return history;
}

// Large histories are judged whole. The goal is 10 M micro-ops in a minute on one core: TAILRACE_HISTORY_SENDS=5000000 prints
// what this machine takes; a time is no assertion.
TEST(History, JudgesAMillionMicroOps) {
  const char* wanted = std::getenv("TAILRACE_HISTORY_SENDS");
  std::size_t count = wanted != nullptr ? std::stoul(wanted) : 500'000;
  History history = legal(count);
  auto began = std::chrono::steady_clock::now();
  Verdict verdict = check(history);
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  EXPECT_EQ(verdict.fatal(), 0u) << verdict.summary();
  EXPECT_GE(verdict.micro_ops, 2 * count);
  std::printf("%zu micro-ops judged in %.2f s\n", static_cast<std::size_t>(verdict.micro_ops), seconds);
}

}  // namespace
}  // namespace tailrace::broker::history
