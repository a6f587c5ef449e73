#include "server/config.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "server/config_values.h"
#include "tests/support/scratch_directory.h"

namespace tailrace::broker::server {
namespace {

LoadedConfig load(std::string_view toml, ConfigSources others = {}) {
  auto loaded = load_config_text(toml, "test.toml", others);
  if (!loaded) {
    for (const auto& problem : loaded.error()) ADD_FAILURE() << problem.message;
    return LoadedConfig{};
  }
  return *std::move(loaded);
}

std::vector<std::string> problems(std::string_view toml, ConfigSources others = {}) {
  auto loaded = load_config_text(toml, "test.toml", others);
  std::vector<std::string> out;
  if (loaded) return out;
  for (const auto& problem : loaded.error()) {
    EXPECT_EQ(problem.code, Errc::bad_config);
    out.push_back(problem.message);
  }
  return out;
}

bool says(const std::vector<std::string>& all, std::string_view what) {
  return std::ranges::any_of(all, [&](const std::string& one) { return one.find(what) != std::string::npos; });
}

// A default that its own key refuses would stop every start.
TEST(Config, EveryDefaultIsAccepted) {
  LoadedConfig server = load("");
  EXPECT_EQ(server.values.size(), settings().size());
  EXPECT_EQ(server.options.listen_native.to_string(), "127.0.0.1:7070");
  EXPECT_EQ(server.options.listen_http.to_string(), "127.0.0.1:7080");
  EXPECT_EQ(server.options.wal_file_bytes, 64u << 20);
  EXPECT_GE(server.options.shards, 1u);
  LoadedConfig dev = load("", {.dev = true});
  EXPECT_EQ(dev.options.wal_file_bytes, 8u << 20);
  EXPECT_EQ(dev.options.data_directory, ".tailrace");
}

// The precedence is a promise: file < environment < flags, later flags over earlier ones.
TEST(Config, FlagsWinOverEnvironmentOverFile) {
  ConfigSources others;
  others.environment = {{"TAILRACE_WAL__FILES", "6"}, {"TAILRACE_LOG__LEVEL", "warn"}, {"TAILRACE_SERVERS", "not:the:brokers"}};
  others.flags = {{"wal.files", "7", "--set wal.files"}, {"wal.files", "8", "--set wal.files"}};
  LoadedConfig config = load("[wal]\nfiles = 5\nfile_bytes = \"1MiB\"\n[log]\nlevel = \"debug\"\n", others);
  EXPECT_EQ(config.options.wal_files, 8);
  EXPECT_EQ(config.options.log_level, LogLevel::warn);
  EXPECT_EQ(config.options.wal_file_bytes, 1u << 20);
  EXPECT_EQ(config.values["wal.files"].origin.to_string(), "--set wal.files");
  EXPECT_EQ(config.values["log.level"].origin.to_string(), "TAILRACE_LOG__LEVEL");
  EXPECT_EQ(config.values["wal.file_bytes"].origin.to_string(), "test.toml:3:1");
  EXPECT_EQ(config.values["shards"].origin.to_string(), "default");
}

TEST(Config, AKeyWithoutASectionHasAVariableToo) {
  LoadedConfig config = load("", {.environment = {{"TAILRACE__ALLOW_UNAUTHENTICATED", "true"}, {"TAILRACE_LISTEN__NATIVE", "0.0.0.0:0"}}});
  EXPECT_TRUE(config.options.allow_unauthenticated);
  EXPECT_EQ(config.options.listen_native.host, "0.0.0.0");
}

// A misspelt key that is silently ignored is the worst kind of configuration error.
TEST(Config, AnUnknownKeyStopsTheStartWithPlaceAndSuggestion) {
  auto all = problems("[wal]\nfile_byte = \"1MiB\"\n");
  ASSERT_EQ(all.size(), 1u);
  EXPECT_EQ(all[0], "unknown key \"wal.file_byte\" at test.toml:2:1. Did you mean \"wal.file_bytes\"? See: tailrace config explain wal");
  EXPECT_TRUE(says(problems("", {.environment = {{"TAILRACE_WAL__FILEZ", "1"}}}), "TAILRACE_WAL__FILEZ. Did you mean \"wal.files\"?"));
  EXPECT_TRUE(says(problems("", {.flags = {{"level", "info", "--set level"}}}), "Did you mean \"log.level\"?"));
}

TEST(Config, UnknownKeysCanBeAllowedForARollBack) {
  auto loaded = load_config_text("[config]\nunknown_keys = \"warn\"\n[future]\nkey = 1\n", "test.toml", {});
  ASSERT_TRUE(loaded.has_value());
  ASSERT_EQ(loaded->warnings.size(), 1u);
  EXPECT_NE(loaded->warnings[0].message.find("future.key"), std::string::npos);
}

// "retention = 7" was seconds in one system and days in the next: sizes and durations carry units.
TEST(Config, BareNumbersAreRefusedForSizesAndDurations) {
  auto all = problems("[wal]\nfile_bytes = 67108864\n[shutdown]\ndeadline = 10\n[log]\nlevel = 3\n[memory]\nhot_tail_bytes = \"64\"\n");
  EXPECT_EQ(all.size(), 4u);
  EXPECT_TRUE(says(all, "\"wal.file_bytes\" at test.toml:2:1 takes a size with its unit, from \"64KiB\" to \"256MiB\", not 67108864"));
  EXPECT_TRUE(says(all, "\"shutdown.deadline\" at test.toml:4:1 takes a duration"));
  EXPECT_TRUE(says(all, "\"log.level\" at test.toml:6:1 takes one of debug|info|warn|error"));
  EXPECT_TRUE(says(all, "\"memory.hot_tail_bytes\" at test.toml:8:1"));
}

TEST(Config, ValuesOutsideTheirBoundsAreRefused) {
  EXPECT_TRUE(says(problems("[wal]\nfile_bytes = \"1KiB\"\n"), "64KiB"));
  EXPECT_TRUE(says(problems("[wal]\nfile_bytes = \"1GiB\"\n"), "256MiB"));
  EXPECT_TRUE(says(problems("[wal]\nfiles = 1\n"), "from 2 to 16"));
  EXPECT_TRUE(says(problems("[wal]\nfiles = -3\n"), "from 2 to 16"));
  EXPECT_TRUE(says(problems("shards = \"two\"\n"), "whole number"));
  EXPECT_TRUE(says(problems("[listen]\nnative = \"127.0.0.1:99999\"\n"), "host:port"));
  EXPECT_TRUE(says(problems("[listen]\nnative = \"::1:7070\"\n"), "host:port"));
}

// The newcomer's first remote try must say what to do, not fail later with a refused connection.
TEST(Config, OtherAddressesThanLoopbackNeedTheExplicitWord) {
  EXPECT_TRUE(says(problems("[listen]\nnative = \"0.0.0.0:7070\"\n"), "allow_unauthenticated = true"));
  EXPECT_TRUE(says(problems("[listen]\nhttp = \":7080\"\n"), "allow_unauthenticated = true"));
  EXPECT_EQ(load("allow_unauthenticated = true\n[listen]\nnative = \"0.0.0.0:7070\"\n").options.listen_native.port, 7070);
  EXPECT_TRUE(problems("[listen]\nnative = \"[::1]:7070\"\nhttp = \"localhost:0\"\n").empty());
  EXPECT_TRUE(says(problems("[listen]\nnative = \"127.0.0.1:7080\"\n"), "Give each its own port"));
}

TEST(Config, BrokenTomlNamesLineAndColumn) {
  EXPECT_TRUE(says(problems("[wal\nfiles = 4\n"), "test.toml:1:"));
  EXPECT_TRUE(says(problems("a = 1\na = 2\n"), "test.toml:2:"));
  EXPECT_TRUE(says(problems("wal = 3\n"), "unknown key \"wal\""));
  EXPECT_TRUE(says(problems("[wal.files]\nx = 1\n"), "unknown key \"wal.files.x\""));
  EXPECT_TRUE(says(problems("[wal]\nfiles = [1]\n"), "wal.files"));
}

TEST(Config, AllProblemsAreReportedAtOnce) {
  EXPECT_EQ(problems("[wal]\nfilez = 1\nfiles = 99\n[log]\nformat = \"xml\"\n").size(), 3u);
}

// Packages and operators each have files of their own: conf.d is read after the file beside it, by name, and says where a value is from.
TEST(Config, FragmentsComeAfterTheFileByName) {
  testing_support::ScratchDirectory scratch;
  std::string file = scratch.path() + "/tailrace.toml";
  std::ofstream{file} << "[wal]\nfiles = 3\n[log]\nlevel = \"warn\"\n";
  EXPECT_TRUE(load_config({.file = file}).has_value()) << "no folder: no fragments";
  std::filesystem::create_directory(scratch.path() + "/conf.d");
  std::ofstream{scratch.path() + "/conf.d/20-local.toml"} << "[wal]\nfiles = 5\n";
  std::ofstream{scratch.path() + "/conf.d/10-site.toml"} << "[wal]\nfiles = 4\nfile_bytes = \"1MiB\"\n";
  std::ofstream{scratch.path() + "/conf.d/notes.txt"} << "not read";
  auto loaded = load_config({.file = file, .flags = {{"log.level", "error", "--set log.level"}}});
  ASSERT_TRUE(loaded.has_value());
  EXPECT_EQ(loaded->options.wal_files, 5);
  EXPECT_EQ(loaded->options.wal_file_bytes, 1u << 20);
  EXPECT_EQ(loaded->options.log_level, LogLevel::error);
  EXPECT_EQ(loaded->values["wal.files"].origin.to_string(), scratch.path() + "/conf.d/20-local.toml:2:1");
  std::ofstream{scratch.path() + "/conf.d/30-bad.toml"} << "[wal]\nfilez = 5\n";
  auto bad = load_config({.file = file});
  ASSERT_FALSE(bad.has_value());
  EXPECT_NE(bad.error()[0].message.find("conf.d/30-bad.toml:2:1"), std::string::npos) << bad.error()[0].message;
}

TEST(Config, ChangesAreToldApartByWhenTheyApply) {
  LoadedConfig before = load("[wal]\nfiles = 3\n");
  LoadedConfig after = load("[wal]\nfiles = 4\n[log]\nlevel = \"debug\"\n");
  ConfigChanges changes = changes_between(before, after);
  EXPECT_EQ(changes.live, std::vector<std::string>{"log.level = debug"});
  EXPECT_EQ(changes.restart, std::vector<std::string>{"wal.files = 4"});
  EXPECT_NE(explain_config("log.level").text->find("at a reload"), std::string::npos);
  EXPECT_NE(explain_config("wal.files").text->find("at the next start"), std::string::npos);
}

TEST(Config, AMissingFileIsOneClearMessage) {
  auto loaded = load_config({.file = "/nonexistent/tailrace.toml"});
  ASSERT_FALSE(loaded.has_value());
  ASSERT_EQ(loaded.error().size(), 1u);
  EXPECT_NE(loaded.error()[0].message.find("/nonexistent/tailrace.toml: No such file"), std::string::npos);
}

// What show prints is the way to move a configuration elsewhere, so it must load and mean the same.
TEST(Config, WhatShowPrintsLoadsToTheSameDigest) {
  LoadedConfig first = load("[wal]\nfiles = 5\n[data]\ndirectory = \"/a \\\"b\\\" \\\\ c\"\n", {.flags = {{"shutdown.deadline", "90s", "--set shutdown.deadline"}}});
  std::string shown = show_config(first, true);
  EXPECT_NE(shown.find("# test.toml:2:1"), std::string::npos);
  EXPECT_NE(shown.find("# --set shutdown.deadline"), std::string::npos);
  LoadedConfig second = load(shown);
  EXPECT_EQ(first.digest, second.digest);
  EXPECT_EQ(second.options.data_directory, "/a \"b\" \\ c");
  EXPECT_NE(first.digest, load("").digest);
}

TEST(Config, ExplainKnowsKeysSectionsAndCloseNames) {
  EXPECT_NE(explain_config("wal.files").text->find("TAILRACE_WAL__FILES=..."), std::string::npos);
  EXPECT_NE(explain_config("allow_unauthenticated").text->find("TAILRACE__ALLOW_UNAUTHENTICATED"), std::string::npos);
  EXPECT_NE(explain_config("wal").text->find("wal.file_bytes"), std::string::npos);
  auto unknown = explain_config("wal.fils");
  EXPECT_FALSE(unknown.text.has_value());
  EXPECT_EQ(unknown.close_names, std::vector<std::string>{"wal.files"});
}

TEST(Config, SizesAndDurationsRoundTrip) {
  EXPECT_EQ(parse_size("64KiB"), 65'536u);
  EXPECT_EQ(parse_size("10kB"), 10'000u);
  EXPECT_EQ(parse_size("16777216TiB"), std::nullopt);
  EXPECT_EQ(parse_size("-1KiB"), std::nullopt);
  EXPECT_EQ(parse_size("1.5MiB"), std::nullopt);
  EXPECT_EQ(parse_size("KiB"), std::nullopt);
  EXPECT_EQ(parse_duration("90s"), std::chrono::seconds{90});
  EXPECT_EQ(parse_duration("9223372036854775807d"), std::nullopt);
  for (std::uint64_t bytes : {0ULL, 1ULL, 1023ULL, 1024ULL, 1000ULL, 5ULL << 20, 1ULL << 40}) EXPECT_EQ(parse_size(format_size(bytes)), bytes);
  for (int ms : {0, 1, 999, 1000, 60'000, 90'000, 86'400'000}) EXPECT_EQ(parse_duration(format_duration(std::chrono::milliseconds{ms})), std::chrono::milliseconds{ms});
}

}  // namespace
}  // namespace tailrace::broker::server
