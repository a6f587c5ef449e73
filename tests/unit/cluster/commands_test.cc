#include "cluster/commands.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

namespace tailrace::broker::cluster {
namespace {

TopicId id_of(std::uint8_t n) {
  TopicId id;
  id.bytes.fill(n);
  return id;
}

std::vector<Command> samples() {
  return {CreateTopic{.id = id_of(1), .name = "orders", .partitions = 12,
                      .settings = {{TopicKey::retention_time, "7d"}, {TopicKey::durability, "relaxed"}}},
          AlterTopic{.id = id_of(2), .partitions = 24, .set = {{TopicKey::retention_bytes, "1GiB"}}, .unset = {TopicKey::durability}},
          DeleteTopic{.id = id_of(3)},
          TopicRemoved{.id = id_of(4)},
          AllocateProducerIds{.node = NodeId{1}, .first = 5'000, .count = 1'000},
          SnapshotBegin{.parts = 2, .bytes = 20'000, .crc = 0xdeadbeef},
          SnapshotPart{.index = 1, .bytes = {std::byte{1}, std::byte{2}}}};
}

// What a broker writes today it must read after any restart.
TEST(Commands, EveryCommandRoundTrips) {
  for (const Command& command : samples()) {
    auto bytes = encode(command);
    auto back = decode_command(bytes);
    ASSERT_TRUE(back) << back.error().detail;
    EXPECT_EQ(*back, command);
  }
}

// The example of docs/metadata.md, so that document and code cannot drift apart.
TEST(Commands, TheDocumentedExampleHolds) {
  TopicId id{{0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef}};
  auto bytes = encode(DeleteTopic{.id = id});
  ASSERT_EQ(bytes.size(), 18u);
  EXPECT_EQ(bytes[0], std::byte{3});
  EXPECT_EQ(bytes[1], std::byte{1});
  EXPECT_EQ(std::memcmp(bytes.data() + 2, id.bytes.data(), 16), 0);
}

// A stored command that is not understood whole must stop the reader: skipping it would build on a state that never was.
TEST(Commands, CutLongUnknownAndNewerAreRefused) {
  for (const Command& command : samples()) {
    auto bytes = encode(command);
    for (std::size_t cut = 0; cut < bytes.size(); ++cut) {
      EXPECT_FALSE(decode_command(Bytes{bytes}.first(cut))) << "cut at " << cut;
    }
    auto longer = bytes;
    longer.push_back(std::byte{0});
    EXPECT_EQ(decode_command(longer).error().code, Errc::corrupt);
    auto newer = bytes;
    newer[1] = std::byte{2};
    EXPECT_EQ(decode_command(newer).error().code, Errc::newer_format);
    auto unknown = bytes;
    unknown[0] = std::byte{200};
    EXPECT_EQ(decode_command(unknown).error().code, Errc::newer_format);
  }
  EXPECT_EQ(decode_command(std::vector<std::byte>(kCommandBytesMax + 1)).error().code, Errc::corrupt);
}

// A key that only a newer version knows must not be dropped silently by an older one.
TEST(Commands, AnUnknownStoredKeyIsANewerFormat) {
  auto bytes = encode(CreateTopic{.id = id_of(1), .name = "t", .partitions = 1, .settings = {{TopicKey::durability, "quorum"}}});
  std::string text{as_text(bytes)};
  auto at = text.find("durability");
  ASSERT_NE(at, std::string::npos);
  bytes[at] = std::byte{'X'};
  EXPECT_EQ(decode_command(bytes).error().code, Errc::newer_format);
}

// The disk may hand back anything: no input may crash the decoder or make it allocate by a declared length.
TEST(Commands, AnyBytesAreSafe) {
  rc::check([](std::vector<std::uint8_t> raw, std::uint8_t type) {
    std::vector<std::byte> bytes{std::byte{static_cast<unsigned char>(1 + type % 7)}, std::byte{1}};
    for (auto b : raw) bytes.push_back(std::byte{b});
    auto command = decode_command(bytes);
    if (command) RC_ASSERT(encode(*command).size() <= bytes.size());
  });
}

}  // namespace
}  // namespace tailrace::broker::cluster
