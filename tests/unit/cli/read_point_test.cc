#include "client/cli/read_point.h"

#include <gtest/gtest.h>

namespace tailrace::cli {
namespace {

const Time kNow = parse_time("2026-02-14T12:00:00Z").value();
ReadPoint from(std::string_view text) { return parse_from(text, kNow).value(); }

// The six spellings of the issue, each to its meaning.
TEST(PositionText, EverySpellingOfFrom) {
  EXPECT_EQ(from("start"), ReadPoint{AtStart{}});
  EXPECT_EQ(from("end"), ReadPoint{AtEnd{}});
  EXPECT_EQ(from("17"), ReadPoint{AtOffset{17}});
  EXPECT_EQ(from("-10"), ReadPoint{LastRecords{10}});
  EXPECT_EQ(from("-1h"), ReadPoint{AtTime{parse_time("2026-02-14T11:00:00Z").value()}});
  EXPECT_EQ(from("2026-02-13"), ReadPoint{AtTime{parse_time("2026-02-13").value()}});
  EXPECT_EQ(from("2026-02-13T01:02:03.004Z"), ReadPoint{AtTime{parse_time("2026-02-13T01:02:03.004Z").value()}});
}

// 2026 is offset 2026, not the year: digits alone are always an offset.
TEST(PositionText, DigitsAloneAreAnOffset) { EXPECT_EQ(from("2026"), ReadPoint{AtOffset{2026}}); }

TEST(PositionText, WhatMeansNothingSaysWhatWould) {
  for (auto bad : {"", "begin", "-", "-0", "-1x", "+5", "99999999999999999999", "2026-13-01"}) {
    auto refused = parse_from(bad, kNow);
    ASSERT_FALSE(refused) << bad;
    EXPECT_FALSE(refused.error().empty());
  }
  EXPECT_FALSE(parse_until("start", kNow));
  EXPECT_FALSE(parse_until("-10", kNow));
  EXPECT_EQ(parse_until("end", kNow).value(), ReadPoint{AtEnd{}});
  EXPECT_EQ(parse_until("-30m", kNow).value(), ReadPoint{AtTime{parse_time("2026-02-14T11:30:00Z").value()}});
}

}  // namespace
}  // namespace tailrace::cli
