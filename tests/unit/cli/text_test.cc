#include "client/cli/text.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

namespace tailrace::cli {
namespace {

using namespace std::chrono_literals;

// Sizes are what people write in other tools: bare bytes, binary units, and decimal ones only when spelled so.
TEST(Text, SizesInTheUnitsPeopleWrite) {
  EXPECT_EQ(parse_size("0"), 0u);
  EXPECT_EQ(parse_size("512"), 512u);
  EXPECT_EQ(parse_size("1K"), 1024u);
  EXPECT_EQ(parse_size("64KiB"), 65'536u);
  EXPECT_EQ(parse_size("1.5 MiB"), 1'572'864u);
  EXPECT_EQ(parse_size("10MB"), 10'000'000u);
  EXPECT_EQ(parse_size("2GiB"), std::uint64_t{2} << 30);
  EXPECT_EQ(parse_size("9223372036854775807"), 9'223'372'036'854'775'807u);
  for (auto bad : {"", "K", "-1", "1KiBs", "1..5K", "0x10", "9223372036854775808", "99999999TiB", "1 2"}) EXPECT_FALSE(parse_size(bad)) << bad;
}

TEST(Text, DurationsNeedAUnitAndAdd) {
  EXPECT_EQ(parse_duration("0"), 0ns);
  EXPECT_EQ(parse_duration("250ms"), 250ms);
  EXPECT_EQ(parse_duration("1h30m"), 90min);
  EXPECT_EQ(parse_duration("1.5s"), 1500ms);
  EXPECT_EQ(parse_duration("7d"), 168h);
  EXPECT_EQ(parse_duration("100us"), 100us);
  for (auto bad : {"", "5", "s", "-1s", "5 minutes", "1h30", "5300w", "1e9s"}) EXPECT_FALSE(parse_duration(bad)) << bad;
}

TEST(Text, TimesAreRfc3339WithTheDateAloneAsMidnight) {
  EXPECT_EQ(format_time(parse_time("2026-02-14").value()), "2026-02-14T00:00:00.000Z");
  EXPECT_EQ(format_time(parse_time("2026-02-14T08:30Z").value()), "2026-02-14T08:30:00.000Z");
  EXPECT_EQ(format_time(parse_time("2026-02-14T08:30:05.1239+02:00").value()), "2026-02-14T06:30:05.123Z");
  EXPECT_EQ(format_time(parse_time("2026-02-14 23:30:00-05:30").value()), "2026-02-15T05:00:00.000Z");
  EXPECT_EQ(format_time(parse_time("2024-02-29").value()), "2024-02-29T00:00:00.000Z");
  for (auto bad : {"", "2026", "2026-02-30", "2025-02-29", "2026-2-1", "2026-02-14T", "2026-02-14T24:00", "2026-02-14T08:60", "2026-02-14T08:30:05.", "2026-02-14T08:30:05+2", "2026-02-14x", "0000-01-01"}) {
    EXPECT_FALSE(parse_time(bad)) << bad;
  }
}

// Timestamps survive tail | pub: every millisecond of four-digit years is written and read back as itself.
RC_GTEST_PROP(Text, EveryMillisecondSurvivesItsText, ()) {
  const auto ms = *rc::gen::inRange<std::int64_t>(-62'135'596'800'000, 253'402'300'800'000);
  const Time time{std::chrono::milliseconds{ms}};
  const auto back = parse_time(format_time(time));
  RC_ASSERT(back.has_value());
  RC_ASSERT(*back == time);
}

RC_GTEST_PROP(Text, Base64ComesBack, (const std::string& bytes)) {
  std::string text;
  append_base64(text, bytes);
  RC_ASSERT(decode_base64(text) == bytes);
}

// One text per value and nothing silently dropped: otherwise a damaged file would publish other bytes without a word.
TEST(Text, Base64RefusesWhatItWouldNotWrite) {
  EXPECT_EQ(decode_base64(""), "");
  EXPECT_EQ(decode_base64("/w=="), "\xff");
  for (auto bad : {"/w", "/w=", "/x==", "/w==AAAA", "A===", "====", "Zm9v\n", "Zm-v", "Zm9="}) EXPECT_FALSE(decode_base64(bad)) << bad;
}

// RFC 3629: what is called UTF-8 here must be readable by every JSON parser.
TEST(Text, Utf8AsTheStandardSaysIt) {
  for (std::string good : {"", "plain", "\xC3\xA4", "\xE2\x82\xAC", "\xF0\x9F\x98\x80", "\xED\x9F\xBF", "\xF4\x8F\xBF\xBF"}) EXPECT_TRUE(is_utf8(good)) << good;
  EXPECT_TRUE(is_utf8(std::string_view("\0", 1)));
  for (std::string bad : {"\x80", "\xC3", "\xC0\xAF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xE2\x82", "\xFF", "a\xC3(b"}) {
    EXPECT_FALSE(is_utf8(bad));
  }
}

TEST(Text, PeopleReadUnits) {
  EXPECT_EQ(human_bytes(8), "8 B");
  EXPECT_EQ(human_bytes(1536), "1.5 KiB");
  EXPECT_EQ(human_bytes(300u << 20), "300 MiB");
  EXPECT_EQ(human_duration(3200ms), "3.2 s");
  EXPECT_EQ(human_duration(12ms), "12 ms");
  EXPECT_EQ(human_duration(2h + 5min), "2 h 5 min");
  EXPECT_EQ(counted(1, "record"), "1 record");
  EXPECT_EQ(counted(1'234'567, "record"), "1,234,567 records");
}

TEST(Text, CloseNamesAreFewAndClosestFirst) {
  const std::vector<std::string> topics = {"orders-dlq", "orders", "payments", "odrers", "x"};
  EXPECT_EQ(close_names("order", topics).front(), "orders");
  EXPECT_EQ(close_names("payment", topics), std::vector<std::string>{"payments"});
  EXPECT_EQ(close_names("oders", topics).front(), "orders");
  EXPECT_TRUE(close_names("completely-else", topics).empty());
  EXPECT_TRUE(close_names("", topics).empty());
  EXPECT_EQ(edit_distance("ab", "ba"), 1u);
}

// A bound is part of the sentence, and a missing one is not invented.
TEST(Numbers, BoundsAreToldPlainly) {
  EXPECT_EQ(parse_integer("0", 1, kNoLimit).error(), "0 is not 1 or more");
  EXPECT_EQ(parse_integer("10001", 1, 10'000).error(), "10001 is not between 1 and 10,000");
  EXPECT_EQ(parse_integer("99999999999999999999", 0, kNoLimit).error(), "99999999999999999999 is too large");
  EXPECT_EQ(parse_integer("010", 0, 100).value(), 10);  // decimal, whatever C would say
  EXPECT_FALSE(parse_integer("0x10", 0, 100));
  EXPECT_EQ(parse_duration("0s", std::chrono::milliseconds{1}).error(), "\"0s\" is too short, at least 1.0 ms");
  EXPECT_TRUE(parse_duration("0"));
}

TEST(Numbers, RatesArePositiveAndFinite) {
  EXPECT_EQ(parse_rate("20k").value(), 20e3);
  EXPECT_EQ(parse_rate("0.5").value(), 0.5);
  EXPECT_EQ(parse_rate("1.5M").value(), 1.5e6);
  for (auto bad : {"", "0", "-1", "nan", "inf", "1e3", "1G", "101M", "5 /s"}) EXPECT_FALSE(parse_rate(bad)) << bad;
}

TEST(Choices, AreListedWithTheCloseOne) {
  const std::vector<std::string> words{"lines", "jsonl", "raw"};
  EXPECT_EQ(not_a_choice("json", words), "\"json\" is none of lines, jsonl and raw; did you mean jsonl?");
  EXPECT_EQ(not_a_choice("1", words), "\"1\" is none of lines, jsonl and raw");
}

}  // namespace
}  // namespace tailrace::cli
