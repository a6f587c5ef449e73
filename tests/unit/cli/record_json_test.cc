#include "client/cli/record_json.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

namespace tailrace::cli {
namespace {

std::string write(const JsonRecord& record, const std::vector<ParsedHeader>& headers) {
  std::string out;
  append_record_json(out, record, headers);
  return out;
}

// The contract of ux: field names, their order, null, and no second spelling.
TEST(RecordJson, TheContractByteForByte) {
  JsonRecord record{.topic = "orders", .partition = 3, .offset = 17, .timestamp = parse_time("2026-02-14T08:30:05.123Z").value(), .key = "alice", .value = "{\"id\":1}\n"};
  EXPECT_EQ(write(record, {{"source", "cli"}, {"source", std::nullopt}}),
            R"({"schema":"tailrace.record.v1","topic":"orders","partition":3,"offset":17,"timestamp":"2026-02-14T08:30:05.123Z","key":"alice","value":"{\"id\":1}\n","headers":[{"key":"source","value":"cli"},{"key":"source","value":null}]})");
  record.key = std::nullopt;
  record.value = "\xff\x00z";
  record.value = std::string_view("\xff\x00z", 3);
  EXPECT_EQ(write(record, {}),
            R"({"schema":"tailrace.record.v1","topic":"orders","partition":3,"offset":17,"timestamp":"2026-02-14T08:30:05.123Z","key":null,"value":{"base64":"/wB6"},"headers":[]})");
  record.with_value = false;
  EXPECT_EQ(write(record, {}).find("value"), std::string::npos);
}

// tail -o jsonl | pub -f jsonl is a faithful copy: any bytes, null apart from empty, header order and repeats.
RC_GTEST_PROP(RecordJson, WhatIsWrittenComesBack, ()) {
  auto bytes = rc::gen::container<std::string>(rc::gen::arbitrary<char>());
  auto optional_bytes = [&]() -> std::optional<std::string> { return *rc::gen::arbitrary<bool>() ? std::optional{*bytes} : std::nullopt; };
  const auto key = optional_bytes(), value = optional_bytes();
  std::vector<ParsedHeader> headers;
  for (int i = *rc::gen::inRange(0, 4); i > 0; --i) headers.push_back({*bytes, optional_bytes()});
  JsonRecord record;
  record.topic = "t";
  record.partition = *rc::gen::inRange(0, 1000);
  record.timestamp = Time{std::chrono::milliseconds{*rc::gen::inRange<std::int64_t>(-1, 4'000'000'000'000)}};
  if (key) record.key = *key;
  if (value) record.value = *value;
  const auto line = write(record, headers);
  RC_ASSERT(line.find('\n') == std::string::npos);
  auto back = parse_record_json(line);
  RC_ASSERT(back.has_value());
  RC_ASSERT(back->key == key);
  RC_ASSERT(back->value == value);
  RC_ASSERT(back->headers == headers);
  RC_ASSERT(back->timestamp == record.timestamp);
  RC_ASSERT(back->partition == record.partition);
}

// A line without "value" comes from --no-value; publishing it as null would delete the key's record in a compacted topic.
TEST(RecordJson, AMissingValueIsNotATombstone) {
  EXPECT_FALSE(parse_record_json(R"({"key":"a"})"));
  EXPECT_EQ(parse_record_json(R"({"key":"a","value":null})")->value, std::nullopt);
}

TEST(RecordJson, MalformedLinesAreRefusedWithAReason) {
  for (auto bad : {"", "{", "hello", "[]", "1", R"({"value":1})", R"({"value":{}})", R"({"value":{"base64":"!"}})", R"({"value":{"base64":"AA==","x":1}})", R"({"value":"x","headers":{}})",
                   R"({"value":"x","headers":[{}]})", R"({"value":"x","headers":[{"key":null}]})", R"({"value":"x","timestamp":5})", R"({"value":"x","timestamp":"soon"})", R"({"value":"x","partition":-1})",
                   R"({"value":"x","partition":"0"})", R"({"value":"x","partition":3000000000})", "{\"value\":\"\xff\"}"}) {
    auto parsed = parse_record_json(bad);
    ASSERT_FALSE(parsed) << bad;
    EXPECT_FALSE(parsed.error().empty());
  }
  // Never the payload: the reason may end up in a log.
  EXPECT_EQ(parse_record_json(R"({"value":"secret-word)").error().find("secret"), std::string::npos);
}

TEST(RecordJson, UnknownFieldsAreIgnored) {
  auto parsed = parse_record_json(R"({"schema":"other","offset":99,"extra":[1,{"a":null}],"value":"v"})");
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->value, "v");
  EXPECT_EQ(parsed->timestamp, std::nullopt);
}

}  // namespace
}  // namespace tailrace::cli
