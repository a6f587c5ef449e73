#include "group/records.h"

#include <gtest/gtest.h>

#include "base/random.h"
#include "group/group.h"

namespace tailrace::broker::group {
namespace {

TopicId topic(std::uint8_t n) {
  TopicId id;
  id.bytes[15] = n;
  return id;
}

std::vector<std::byte> bytes_of(std::initializer_list<int> values) {
  std::vector<std::byte> out;
  for (int value : values) out.push_back(static_cast<std::byte>(value));
  return out;
}

MemberRecord a_member() {
  return {.member = "m1", .instance = "i", .topics = {topic(1), topic(2)}, .session_timeout_ms = 10'000, .told = 7,
          .granted = {{topic(1), PartitionIndex{0}}, {topic(1), PartitionIndex{3}}, {topic(2), PartitionIndex{1}}}, .target = {{topic(2), PartitionIndex{1}}}};
}

// The examples of docs/groups.md.
TEST(GroupRecords, TheBytesAreThoseOfTheDocument) {
  EXPECT_EQ(encode(RecordKey{.kind = RecordKey::Kind::group, .group = "g"}), bytes_of({1, 1, 0, 'g'}));
  EXPECT_EQ(encode(GroupRecord{.generation = 3, .assignor = Assignor::sticky, .empty_since_ms = 0}),
            bytes_of({1, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(encode(OffsetRecord{.offset = Offset{42}, .leader_epoch = LeaderEpoch{2}, .time_ms = 1, .metadata = "x"}),
            bytes_of({1, 0, 42, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 'x'}));
}

TEST(GroupRecords, WhatIsWrittenIsRead) {
  for (RecordKey key : {RecordKey{.kind = RecordKey::Kind::group, .group = "g"}, RecordKey{.kind = RecordKey::Kind::member, .group = "g", .member = "m"},
                        RecordKey{.kind = RecordKey::Kind::offset, .group = "g", .partition = {topic(9), PartitionIndex{4}}}}) {
    EXPECT_EQ(decode_key(encode(key)).value(), key);
  }
  EXPECT_EQ(decode_member("m1", encode(a_member())).value(), a_member());
  GroupRecord group{.generation = 12, .assignor = Assignor::range, .empty_since_ms = 5};
  EXPECT_EQ(decode_group(encode(group)).value(), group);
}

// Nothing that a disk hands back may be believed by half: cut short, longer, or of another version it is an error.
TEST(GroupRecords, DamageIsAnError) {
  std::vector<std::byte> member = encode(a_member());
  for (std::size_t n = 0; n < member.size(); ++n) EXPECT_FALSE(decode_member("m1", Bytes{member}.first(n))) << n;
  std::vector<std::byte> longer = member;
  longer.push_back(std::byte{0});
  EXPECT_EQ(decode_member("m1", longer).error().code, Errc::corrupt);
  std::vector<std::byte> newer = member;
  newer[0] = std::byte{2};
  EXPECT_EQ(decode_member("m1", newer).error().code, Errc::newer_format);
  EXPECT_EQ(decode_key(bytes_of({9, 1, 0, 'g'})).error().code, Errc::newer_format);
  EXPECT_EQ(decode_key(bytes_of({1, 0, 0})).error().code, Errc::corrupt);
  Random random{1};
  for (int i = 0; i < 20'000; ++i) {
    std::vector<std::byte> noisy = member;
    noisy[random.below(noisy.size())] = static_cast<std::byte>(random.below(256));
    auto read = decode_member("m1", noisy);
    if (read) EXPECT_EQ(encode(*read), noisy);
  }
}

TEST(GroupRecords, TwoStoredHoldersOfOnePartitionAreDamage) {
  Group group{{}, 7};
  MemberRecord one = a_member();
  MemberRecord two = a_member();
  two.member = "m2";
  two.instance = "other";
  auto restored = group.restore({one, two}, {{topic(1), 4}, {topic(2), 2}}, Instant{});
  ASSERT_FALSE(restored);
  EXPECT_EQ(restored.error().code, Errc::corrupt);
  EXPECT_EQ(group.size(), 0U);
}

}  // namespace
}  // namespace tailrace::broker::group
