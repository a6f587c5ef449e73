#include "client/cli/pub_input.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace tailrace::cli {
namespace {

class PubInputTest : public testing::Test {
 protected:
  void SetUp() override {
    auto pattern = (std::filesystem::temp_directory_path() / "pub_input_test.XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  std::string file(const std::string& name, std::string_view content) {
    const auto path = directory_ / name;
    std::ofstream{path, std::ios::binary} << content;
    return path.string();
  }
  struct Got {
    std::optional<std::string> key, value;
    std::uint64_t index;
    std::optional<std::int32_t> partition;
    friend bool operator==(const Got&, const Got&) = default;
  };
  std::vector<Got> all(const PubFlags& flags) {
    std::vector<Got> got;
    auto input = PubInput::open(flags, -1);
    EXPECT_TRUE(input) << input.error().message;
    for (;;) {
      auto next = input->next(-1);
      EXPECT_TRUE(next) << next.error().message;
      if (!next || *next != PubInput::Next::record) return got;
      const auto& r = input->record();
      got.push_back({r.key ? std::optional<std::string>{*r.key} : std::nullopt, r.value ? std::optional<std::string>{*r.value} : std::nullopt, input->index(), r.partition});
    }
  }
  std::filesystem::path directory_;
};

// The index counts the whole input, so that --skip of one run fits the next, whatever was skipped and however many files.
TEST_F(PubInputTest, SkipAndCountSpeakOfTheWholeInput) {
  PubFlags flags;
  flags.files = {file("a", "1\n2\n3"), file("empty", ""), file("b", "4\n\n")};
  EXPECT_EQ(all(flags), (std::vector<Got>{{{}, "1", 0, {}}, {{}, "2", 1, {}}, {{}, "3", 2, {}}, {{}, "4", 3, {}}, {{}, "", 4, {}}}));
  flags.skip = 2;
  flags.count = 2;
  EXPECT_EQ(all(flags), (std::vector<Got>{{{}, "3", 2, {}}, {{}, "4", 3, {}}}));
}

TEST_F(PubInputTest, RawIsOneRecordAFile) {
  PubFlags flags;
  flags.format = InputFormat::raw;
  flags.files = {file("a", "x\ny\n"), file("b", "")};
  EXPECT_EQ(all(flags), (std::vector<Got>{{{}, "x\ny\n", 0, {}}, {{}, "", 1, {}}}));
}

TEST_F(PubInputTest, ArgumentsRepeatUpToCount) {
  PubFlags flags;
  flags.bodies = {"a", "b"};
  flags.key = "k";
  flags.partition = 3;
  EXPECT_EQ(all(flags).size(), 2u);
  flags.count = 3;
  EXPECT_EQ(all(flags), (std::vector<Got>{{"k", "a", 0, 3}, {"k", "b", 1, 3}, {"k", "a", 2, 3}}));
}

TEST_F(PubInputTest, ATombstoneHasAKeyAndNoValue) {
  PubFlags flags;
  flags.tombstone = true;
  EXPECT_FALSE(PubInput::open(flags, -1));
  flags.key = "";
  EXPECT_EQ(all(flags), (std::vector<Got>{{"", std::nullopt, 0, {}}}));
}

TEST_F(PubInputTest, JsonLinesKeepNullsAndPartitionsWhenAsked) {
  PubFlags flags;
  flags.format = InputFormat::jsonl;
  flags.files = {file("a", "{\"key\":null,\"value\":null,\"partition\":2}\n{\"key\":\"k\",\"value\":{\"base64\":\"/w==\"}}\n")};
  EXPECT_EQ(all(flags), (std::vector<Got>{{std::nullopt, std::nullopt, 0, {}}, {"k", "\xff", 1, {}}}));
  flags.keep_partition = true;
  EXPECT_EQ(all(flags)[0].partition, 2);
  flags.key = "x";
  EXPECT_FALSE(PubInput::open(flags, -1));
}

// A line that does not match its key rule is an error with the line's number: publishing it without a key would break the
// order the key was meant to give.
TEST_F(PubInputTest, ALineWithoutItsKeyIsNamed) {
  PubFlags flags;
  flags.key_separator = ":";
  flags.files = {file("a", "k:v:w\nplain\n")};
  auto input = PubInput::open(flags, -1);
  ASSERT_TRUE(input);
  ASSERT_EQ(input->next(-1).value(), PubInput::Next::record);
  EXPECT_EQ(input->record().key, "k");
  EXPECT_EQ(input->record().value, "v:w");
  auto refused = input->next(-1);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("line 2"), std::string::npos);
  flags.allow_no_key = true;
  EXPECT_EQ(all(flags)[1], (Got{std::nullopt, "plain", 1, {}}));
}

TEST_F(PubInputTest, KeysByExpression) {
  PubFlags flags;
  flags.key_regex = "^[^ ]+";
  auto rule = KeyRule::make(flags).value();
  EXPECT_EQ(rule.apply("1.2.3.4 - - x")->key, "1.2.3.4");
  EXPECT_EQ(rule.apply("1.2.3.4 - - x")->value, "1.2.3.4 - - x");
  EXPECT_FALSE(rule.apply(""));
  EXPECT_FALSE(rule.apply(" x"));
  flags.key_regex = "user=([a-z]+)";
  EXPECT_EQ(KeyRule::make(flags)->apply("a user=bob b")->key, "bob");
  // A line with a NUL is matched beyond it, and a long one does not exhaust the stack.
  EXPECT_EQ(KeyRule::make(flags)->apply(std::string_view("\0 user=eve", 10))->key, "eve");
  flags.key_regex = "^(a|b)*c";
  EXPECT_FALSE(KeyRule::make(flags)->apply(std::string(1u << 20, 'a')));
  flags.key_regex = "(";
  EXPECT_EQ(KeyRule::make(flags).error().exit(), kUsage);
  flags.key = "both";
  EXPECT_FALSE(KeyRule::make(flags));
}

TEST_F(PubInputTest, AMissingFileIsSaidBeforeAnythingIsRead) {
  PubFlags flags;
  flags.files = {file("a", "1\n"), (directory_ / "missing").string()};
  auto refused = PubInput::open(flags, -1);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().exit(), kNotFound);
  flags.files = {directory_.string()};
  EXPECT_EQ(PubInput::open(flags, -1).error().exit(), kUsage);
}

TEST_F(PubInputTest, HeadersKeepOrderAndRepeats) {
  auto headers = parse_headers({"a=1", "a=2=3", "b="}).value();
  ASSERT_EQ(headers.size(), 3u);
  EXPECT_EQ(headers[1].value, "2=3");
  EXPECT_EQ(headers[2].value, "");
  EXPECT_FALSE(parse_headers({"novalue"}));
  EXPECT_FALSE(parse_headers({"=x"}));
}

}  // namespace
}  // namespace tailrace::cli
