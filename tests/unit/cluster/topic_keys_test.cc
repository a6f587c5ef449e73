#include "cluster/topic_keys.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

namespace tailrace::broker::cluster {
namespace {

using namespace std::chrono_literals;

TopicConfig config_with(std::string_view name, std::string_view text) {
  TopicSettings settings;
  EXPECT_TRUE(add_setting(settings, name, text)) << name << "=" << text;
  auto config = effective_config({}, settings);
  EXPECT_TRUE(config);
  return *config;
}

// What people write is what the documentation shows them.
TEST(TopicKeys, ReadsTheValuesPeopleWrite) {
  EXPECT_EQ(config_with("retention_time", "7d").retention_time, std::chrono::hours{24 * 7});
  EXPECT_EQ(config_with("retention_time", "2w").retention_time, std::chrono::hours{24 * 14});
  EXPECT_EQ(config_with("retention_time", "1500ms").retention_time, 1500ms);
  EXPECT_EQ(config_with("retention_time", "unlimited").retention_time, std::nullopt);
  EXPECT_EQ(config_with("retention_bytes", "1GiB").retention_bytes, std::uint64_t{1} << 30);
  EXPECT_EQ(config_with("retention_bytes", "10MB").retention_bytes, 10'000'000u);
  EXPECT_EQ(config_with("segment_bytes_max", "8192").segment_bytes_max, 8192u);
  EXPECT_EQ(config_with("timestamp_type", "log_append_time").timestamp_type, TimestampType::log_append_time);
  EXPECT_EQ(config_with("durability", "relaxed").durability, Durability::relaxed);
  EXPECT_EQ(config_with("cleanup_policy", "delete").cleanup_policy, CleanupPolicy::remove);
}

// A wrong value must be refused with what would have been right, never rounded or guessed.
TEST(TopicKeys, RefusesWithTheAcceptedValues) {
  TopicSettings settings;
  for (auto [key, text] : std::initializer_list<std::pair<const char*, const char*>>{
           {"retention_time", "7"}, {"retention_time", "-1d"}, {"retention_time", "7 days"}, {"retention_time", "500ms"},
           {"retention_time", ""}, {"retention_time", "99999999999999999999d"}, {"retention_time", "9223372036854775807w"},
           {"retention_bytes", "1gib"}, {"retention_bytes", "many"}, {"segment_bytes_max", "4095"}, {"segment_bytes_max", "2GiB"},
           {"message_bytes_max", "0"}, {"message_bytes_max", "33MiB"}, {"timestamp_type", "CreateTime"},
           {"durability", "none"}, {"cleanup_policy", "compact"}, {"segment_bytes_max", "unlimited"}}) {
    auto added = add_setting(settings, key, text);
    ASSERT_FALSE(added) << key << "=" << text;
    EXPECT_EQ(added.error().code, Errc::invalid_argument);
    EXPECT_NE(added.error().detail.find(key), std::string::npos) << added.error().detail;
    EXPECT_NE(added.error().detail.find("expected"), std::string::npos) << added.error().detail;
  }
  EXPECT_TRUE(settings.empty());
}

// Typing errors are the common case: the answer names what was meant.
TEST(TopicKeys, SuggestsTheKeyThatWasMeant) {
  auto key = topic_key_named("retention_byte");
  ASSERT_FALSE(key);
  EXPECT_EQ(key.error().code, Errc::unknown_key);
  EXPECT_NE(key.error().detail.find("did you mean retention_bytes"), std::string::npos) << key.error().detail;
  EXPECT_NE(topic_key_named("durabilty").error().detail.find("durability"), std::string::npos);
  // Nothing is near: the list of all keys instead of a wild guess.
  EXPECT_NE(topic_key_named("replication.factor").error().detail.find("keys are retention_time"), std::string::npos);
  EXPECT_EQ(topic_key_named(std::string(100'000, 'x')).error().code, Errc::unknown_key);
}

// The table is what describe and explain show: every key has its name, range and one sentence.
TEST(TopicKeys, EveryKeyHasAMeaningAndRoundTripsItsDefault) {
  TopicConfig defaults;
  for (const TopicKeyInfo& info : topic_keys()) {
    EXPECT_EQ(topic_key_named(info.name), info.key);
    EXPECT_EQ(&info_of(info.key), &info);
    EXPECT_FALSE(info.values.empty());
    EXPECT_TRUE(info.meaning.ends_with(".")) << info.name;
    TopicSettings settings;
    ASSERT_TRUE(add_setting(settings, info.name, print_topic_key(defaults, info.key))) << info.name;
    EXPECT_EQ(settings.at(info.key), print_topic_key(defaults, info.key));
  }
}

// Metadata stores printed values: what is printed must read back as the same number.
TEST(TopicKeys, PrintedSizesAndTimesReadBack) {
  rc::check([](std::uint64_t raw) {
    std::uint64_t size = raw >> 1;
    RC_ASSERT(parse_size(print_size(size)).value() == size);
    std::chrono::milliseconds time{static_cast<std::int64_t>(size)};
    RC_ASSERT(parse_duration(print_duration(time)).value() == time);
  });
  EXPECT_EQ(print_size(1536), "1536B");
  EXPECT_EQ(print_size(256ULL << 20), "256MiB");
  EXPECT_EQ(print_duration(std::chrono::hours{36}), "36h");
  EXPECT_EQ(print_duration(std::chrono::hours{48}), "2d");
}

// A largest batch must fit a segment. The key that nobody set gives way, so that one key is enough to say what one wants.
TEST(TopicKeys, TheKeyNobodySetGivesWay) {
  EXPECT_EQ(config_with("segment_bytes_max", "64KiB").message_bytes_max, 64u * 1024);
  TopicConfig small_segments;
  small_segments.segment_bytes_max = 64 * 1024;
  TopicSettings settings;
  ASSERT_TRUE(add_setting(settings, "message_bytes_max", "1MiB"));
  auto config = effective_config(small_segments, settings);
  ASSERT_TRUE(config);
  EXPECT_EQ(config->segment_bytes_max, 1u << 20);
  ASSERT_TRUE(add_setting(settings, "segment_bytes_max", "64KiB"));
  EXPECT_EQ(effective_config({}, settings).error().code, Errc::invalid_argument);
}

}  // namespace
}  // namespace tailrace::broker::cluster
