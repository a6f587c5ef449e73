#include <gtest/gtest.h>

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "base/crc32c.h"
#include "log/checkpoint.h"
#include "log/producer_state.h"
#include "log/segment_files.h"
#include "log/segment_index.h"
#include "log/verify.h"
#include "log/wal_format.h"
#include "tests/unit/log/log_world.h"

namespace tailrace::broker::log {
namespace {

std::string hex_lines(Bytes bytes) {
  std::string out;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (i % 16 == 0) out += i == 0 ? "    " : "\n    ";
    else out += " ";
    out += fmt::format("{:02x}", std::to_integer<int>(bytes[i]));
  }
  return out;
}

// The document is what others write readers from; its example comes from the writer's own encoder.
TEST(WalFormat, TheWorkedExampleIsWhatTheWriterWrites) {
  std::array<std::byte, kFrameHeaderBytes + kHardStateBytes> bytes{};
  encode(HardState{.term = LeaderEpoch{1}}, MutableBytes{bytes}.subspan(kFrameHeaderBytes));
  FrameHeader header{.type = FrameType::hard_state, .payload_crc = crc32c(Bytes{bytes}.subspan(kFrameHeaderBytes)), .length = kHardStateBytes, .sequence = 3,
                     .file_sequence = 1, .previous_crc = 0x11223344, .durable_lag = 1, .partition = 0, .term = LeaderEpoch{1}, .append_time_ms = -1};
  encode(header, 0x0102030405060708ULL, MutableBytes{bytes}.first(kFrameHeaderBytes));
  std::ifstream file{std::string{TAILRACE_SOURCE_DIR} + "/docs/storage-format.md"};
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_NE(text.str().find(hex_lines(bytes)), std::string::npos) << "the example should read\n" << hex_lines(bytes);
  auto back = decode_frame_header(bytes, 0x0102030405060708ULL);
  ASSERT_TRUE(back);
  EXPECT_EQ(back->durable_up_to(), 2U);
  // Another use of the slot has another salt: the same bytes are no frame there.
  EXPECT_FALSE(decode_frame_header(bytes, 0x0102030405060709ULL));
}

// One flipped bit anywhere in a header must never be read as another header.
TEST(WalFormat, EveryBitOfAHeaderCounts) {
  std::array<std::byte, kWalFileHeaderBytes> file{};
  encode(WalFileHeader{.shard = 1, .slot = 2, .sequence = 3, .file_bytes = 65536, .salt = 4}, file);
  ASSERT_TRUE(decode_wal_file_header(file));
  for (std::size_t bit = 0; bit < file.size() * 8; ++bit) {
    auto broken = file;
    broken[bit / 8] ^= std::byte{1} << (bit % 8);
    EXPECT_FALSE(decode_wal_file_header(broken)) << bit;
  }
  Checkpoint checkpoint{.sequence = 9, .slots = 2, .wal_file_bytes = 65536};
  checkpoint.partitions.push_back({.number = 1,
                                   .hard = {.term = LeaderEpoch{7}, .vote_node = NodeId{2}, .vote_directory = {1, 2}, .suspicion = kCut, .floor_term = LeaderEpoch{6}, .floor = {Offset{9}, 1}},
                                   .commit = {Offset{2}, 3},
                                   .history = {.position = {Offset{1}, 2}, .term = LeaderEpoch{5}, .members = std::vector<std::byte>(23)},
                                   .terms = {{LeaderEpoch{7}, Offset{0}, 1}},
                                   .marks = {{.begin = {Offset{4}, 0}, .term = LeaderEpoch{7}, .kind = MarkKind::members, .members = std::vector<std::byte>(44)},
                                             {.begin = {Offset{4}, 1}, .term = LeaderEpoch{7}, .kind = MarkKind::log_start, .log_start = Offset{3}}},
                                   .holes = {{Offset{3}, Offset{5}, true}}});
  auto bytes = encode(checkpoint);
  auto back = decode_checkpoint(bytes);
  ASSERT_TRUE(back);
  EXPECT_EQ(encode(*back), bytes);
  for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    auto broken = bytes;
    broken[bit / 8] ^= std::byte{1} << (bit % 8);
    EXPECT_FALSE(decode_checkpoint(broken)) << bit;
  }
}

// One flipped bit is damage, wherever it is; a higher version is one only where the checksum says that it was written so. (A reader was
// refused with newer_format, and the broker would have been: found by a seed of whole brokers.)
TEST(Formats, NoFlippedBitIsTakenForANewerVersion) {
  SegmentIndex index{Offset{7}};
  Slice batch = make_batch("v", 3);
  assign_batch(batch.mutable_bytes(), Offset{7}, LeaderEpoch{1});
  index.add(*read_batch_header(batch.bytes(), batch.length), batch.bytes(), 5);
  Checkpoint checkpoint;
  checkpoint.partitions.emplace_back().number = 1;
  auto judged = [](std::vector<std::byte> bytes, auto decode, const char* what) {
    ASSERT_TRUE(decode(bytes)) << what;
    for (std::size_t at = 0; at < bytes.size(); ++at) {
      for (int bit = 0; bit < 8; ++bit) {
        auto flipped = bytes;
        flipped[at] ^= std::byte{static_cast<std::uint8_t>(1 << bit)};
        auto read = decode(flipped);
        ASSERT_FALSE(read) << what << " byte " << at;
        EXPECT_EQ(read.error().code, Errc::corrupt) << what << " byte " << at << " bit " << bit;
      }
    }
    bytes[4] = std::byte{99};
    store_le(bytes.data() + bytes.size() - 4, crc32c(Bytes{bytes}.first(bytes.size() - 4)));
    auto newer = decode(bytes);
    ASSERT_FALSE(newer);
    EXPECT_EQ(newer.error().code, Errc::newer_format) << what;
  };
  judged(index.encode(true, {}), [](Bytes b) { return SegmentIndex::decode(b); }, "index");
  judged(encode_snapshot(Offset{7}, ProducerState{}.snapshot()), [](Bytes b) { return decode_snapshot(b); }, "snapshot");
  judged(encode(checkpoint), [](Bytes b) { return decode_checkpoint(b); }, "checkpoint");
}

// A binary search over a running maximum finds what a scan of all batches finds, whatever the clocks did.
TEST(SegmentIndex, LookUpsAgreeWithAScan) {
  Random random{5};
  SegmentIndex index{Offset{100}};
  std::vector<std::pair<BatchHeader, std::uint32_t>> batches;
  Offset at{100};
  for (int i = 0; i < 500; ++i) {
    Slice batch = make_batch(std::string(random.below(2'000), 'q'), 1 + static_cast<int>(random.below(5)), {}, static_cast<std::int64_t>(random.below(1'000'000)));
    assign_batch(batch.mutable_bytes(), at, LeaderEpoch{0});
    auto header = *read_batch_header(batch.bytes(), batch.length);
    batches.emplace_back(header, index.covered());
    index.add(header, batch.bytes(), i);
    at = header.next_offset();
  }
  auto decoded = SegmentIndex::decode(index.encode(true, {}));
  ASSERT_TRUE(decoded);
  for (int i = 0; i < 2'000; ++i) {
    Offset offset{100 + static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(at.value() - 100)))};
    auto holder = std::ranges::find_if(batches, [&](const auto& b) { return b.first.next_offset() > offset; });
    SegmentIndex::Block block = decoded->index.block(decoded->index.block_of(offset));
    EXPECT_LE(block.begin, holder->second);
    EXPECT_GT(block.end, holder->second);
    auto time = static_cast<std::int64_t>(random.below(1'100'000));
    auto first = std::ranges::find_if(batches, [&](const auto& b) { return b.first.max_timestamp >= time; });
    auto at_time = decoded->index.block_at_time(time);
    EXPECT_EQ(at_time.has_value(), first != batches.end());
    if (at_time) EXPECT_LE(decoded->index.block(*at_time).begin, first->second);
  }
}

// What nobody damaged is reported clean; one flipped bit of a sealed segment is found, and its file is named.
TEST(Verify, FindsAFlippedBitAndNothingElse) {
  struct Lines : LineSink {
    void line(std::string_view json) override { text += std::string{json} + "\n"; }
    std::string text;
  };
  LogWorld world;
  ASSERT_TRUE(world.start());
  auto p = world.create(partition_id(1), {.segment_bytes_max = 20'000});
  for (int i = 0; i < 60; ++i) world.publish(*p, std::string(1'000, 'v'));
  p.reset();
  world.close();
  Lines clean;
  auto counts = world.run(verify_directory(world.runtime(), "/data", clean));
  ASSERT_TRUE(counts) << counts.error().detail;
  EXPECT_EQ(counts->damaged, 0U) << clean.text;
  EXPECT_EQ(counts->records, 60U);
  std::string path = "/data/topics/07000000000000000000000000000001/0/00000000000000000000.log";
  auto file = world.run(world.runtime().files.open(path, {.write = true}));
  ASSERT_TRUE(file);
  std::byte wrong{0x5a};
  ASSERT_TRUE(world.run(io::write_all(**file, Bytes{&wrong, 1}, 5'000, io::Durable::yes)));
  Lines broken;
  counts = world.run(verify_directory(world.runtime(), "/data", broken));
  ASSERT_TRUE(counts);
  EXPECT_EQ(counts->damaged, 1U) << broken.text;
  EXPECT_NE(broken.text.find(path), std::string::npos);
}

}  // namespace
}  // namespace tailrace::broker::log
