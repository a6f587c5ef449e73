#include "bench/load/histogram.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <cmath>

#include "bench/load/schedule.h"

namespace tailrace::load {
namespace {

using std::chrono::nanoseconds;

// A quantile is read off as if the samples were sorted: the step width (1/128) is the only error allowed.
RC_GTEST_PROP(Histogram, QuantilesAgreeWithTheSortedSamples, ()) {
  auto exponents = *rc::gen::nonEmpty(rc::gen::container<std::vector<int>>(rc::gen::inRange(0, 60)));
  std::vector<std::int64_t> values;
  Histogram h;
  for (int e : exponents) {
    const auto low = std::int64_t{1} << e;
    values.push_back(*rc::gen::inRange<std::int64_t>(low - 1, 2 * low));
    h.record(nanoseconds{values.back()});
  }
  std::ranges::sort(values);
  RC_ASSERT(h.count() == values.size());
  RC_ASSERT(h.max().count() == values.back());
  RC_ASSERT(h.min().count() == values.front());
  for (double q : {0.0, 0.5, 0.9, 0.99, 0.999, 1.0}) {
    const auto rank = std::clamp<std::size_t>(static_cast<std::size_t>(std::ceil(q * static_cast<double>(values.size()))), 1, values.size());
    const auto exact = static_cast<double>(values[rank - 1]);
    const auto read = static_cast<double>(h.at(q).count());
    RC_ASSERT(read >= exact);
    RC_ASSERT(read <= exact * (1 + 1.0 / 128) + 1);
  }
}

// Threads keep their own and merge: the sum must be what one would have recorded.
TEST(Histogram, MergedEqualsRecordedTogether) {
  Histogram a, b, both;
  for (int i = 0; i < 1000; ++i) {
    const nanoseconds value{i * i * 37};
    (i % 3 == 0 ? a : b).record(value);
    both.record(value);
  }
  a.merge(b);
  for (double q : {0.01, 0.5, 0.99, 1.0}) EXPECT_EQ(a.at(q), both.at(q));
  EXPECT_EQ(a.mean(), both.mean());
  EXPECT_EQ(a.min(), both.min());
}

// No samples is an ordinary outcome of a run in which everything failed; it must not read as a number from nowhere.
TEST(Histogram, EmptyIsZero) {
  Histogram h;
  EXPECT_EQ(h.at(0.99), nanoseconds{0});
  EXPECT_EQ(h.min(), nanoseconds{0});
  EXPECT_EQ(h.mean(), nanoseconds{0});
}

// The largest representable latency has a bucket too.
TEST(Histogram, TakesTheLargestValue) {
  Histogram h;
  h.record(nanoseconds::max());
  EXPECT_EQ(h.at(1), nanoseconds::max());
  h.record(nanoseconds{-5});
  EXPECT_EQ(h.min(), nanoseconds{0});
}

// A late sender catches up at once and each record keeps its own intended time.
TEST(Schedule, CountsWhatIsDueAndWhenItWasMeant) {
  const Schedule::Clock::time_point start{std::chrono::seconds{5}};
  Schedule schedule{start, 1'000};
  EXPECT_EQ(schedule.due(start - std::chrono::milliseconds{1}), 0u);
  EXPECT_EQ(schedule.due(start), 1u);
  EXPECT_EQ(schedule.due(start + std::chrono::microseconds{10'500}), 11u);
  EXPECT_EQ(schedule.intended(10), start + std::chrono::milliseconds{10});
}

}  // namespace
}  // namespace tailrace::load
