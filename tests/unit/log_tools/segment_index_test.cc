// Look-ups in a segment's index against a plain list of what was added.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>

#include "base/crc32c.h"
#include "log/segment_index.h"

namespace tailrace::broker::log {
namespace {

struct Added {
  Offset base{};
  Offset next{};
  std::uint32_t position = 0;
  std::uint32_t bytes = 0;
  std::int64_t max_time = 0;
  std::int64_t append_ms = 0;
};

struct Model {
  Offset base{};
  std::vector<Added> batches{};
  std::vector<std::byte> log{};
  SegmentIndex index{};
};

/// A segment of random batches: sizes around the index interval and far above, timestamps that go back and are far ahead.
Model make_model(Offset base, std::size_t count) {
  Model m{.base = base, .index = SegmentIndex{base}};
  Offset next = base;
  for (std::size_t i = 0; i < count; ++i) {
    auto bytes = *rc::gen::weightedOneOf<std::uint32_t>({{6, rc::gen::inRange<std::uint32_t>(61, 2'000)},
                                                         {3, rc::gen::inRange<std::uint32_t>(2'000, 20'000)},
                                                         {1, rc::gen::inRange<std::uint32_t>(20'000, 60'000)}});
    auto time = *rc::gen::weightedOneOf<std::int64_t>({{8, rc::gen::inRange<std::int64_t>(1'000'000, 1'100'000)},
                                                       {1, rc::gen::just<std::int64_t>(-1)},
                                                       {1, rc::gen::just<std::int64_t>(10'000'000'000'000)}});
    auto records = *rc::gen::inRange<std::int32_t>(1, 50);
    BatchHeader header;
    header.base_offset = next;
    header.last_offset_delta = records - 1;
    header.max_timestamp = time;
    std::vector<std::byte> body(bytes);
    for (std::size_t at = 0; at < body.size(); at += 97) body[at] = static_cast<std::byte>(at + i);
    Added added{next, header.next_offset(), static_cast<std::uint32_t>(m.log.size()), bytes, time, 1'000 + static_cast<std::int64_t>(i)};
    m.index.add(header, body, added.append_ms);
    m.log.insert(m.log.end(), body.begin(), body.end());
    m.batches.push_back(added);
    next = header.next_offset();
  }
  return m;
}

/// The position of the batch that holds `offset`.
std::uint32_t place_of(const Model& m, Offset offset) {
  auto after = std::upper_bound(m.batches.begin(), m.batches.end(), offset, [](Offset o, const Added& a) { return o < a.base; });
  return std::prev(after)->position;
}

bool is_batch_start(const Model& m, std::uint32_t position) {
  auto found = std::ranges::lower_bound(m.batches, position, {}, &Added::position);
  return found != m.batches.end() && found->position == position;
}

// A look-up by offset never lands behind the batch, always on a batch's first byte, and near enough that a reader scans one
// interval at most: batches before the last one of a block fit the interval, so the distance is less than interval + a batch.
RC_GTEST_PROP(SegmentIndexProperty, ALookUpByOffsetLandsBeforeTheBatchAndNear, ()) {
  Model m = make_model(Offset{*rc::gen::inRange<std::int64_t>(0, 1'000'000)}, *rc::gen::inRange<std::size_t>(1, 60));
  for (int i = 0; i < 20; ++i) {
    Offset wanted = m.base + *rc::gen::inRange<std::int64_t>(0, m.batches.back().next - m.base);
    std::uint32_t position = m.index.block(m.index.block_of(wanted)).begin;
    std::uint32_t place = place_of(m, wanted);
    RC_ASSERT(position <= place);
    RC_ASSERT(is_batch_start(m, position));
    RC_ASSERT(place - position < limits::kIndexInterval);
  }
}

// The first batch that reaches a time lies at or behind the look-up's answer, and less than an interval behind it; where no
// batch reaches it there is no answer. Timestamps go back, so only a running maximum may be searched.
RC_GTEST_PROP(SegmentIndexProperty, ALookUpByTimeLandsBeforeTheFirstBatchThatReachesIt, ()) {
  Model m = make_model(Offset{0}, *rc::gen::inRange<std::size_t>(1, 60));
  for (int i = 0; i < 20; ++i) {
    auto wanted = *rc::gen::weightedOneOf<std::int64_t>({{8, rc::gen::inRange<std::int64_t>(999'000, 1'101'000)}, {1, rc::gen::just<std::int64_t>(10'000'000'000'000)},
                                                         {1, rc::gen::just<std::int64_t>(10'000'000'000'001)}, {1, rc::gen::just<std::int64_t>(0)}});
    auto first = std::ranges::find_if(m.batches, [&](const Added& a) { return a.max_time >= wanted; });
    auto block = m.index.block_at_time(wanted);
    RC_ASSERT(block.has_value() == (first != m.batches.end()));
    if (!block) continue;
    std::uint32_t position = m.index.block(*block).begin;
    RC_ASSERT(is_batch_start(m, position));
    RC_ASSERT(position <= first->position);
    // A maximum is stored from the first batch's timestamp on, in 32 bits: below it and above what saturates, blocks cannot be
    // told apart, and a scan goes on from the first of them.
    std::int64_t from = std::max<std::int64_t>(m.batches.front().max_time, 0);
    bool told_apart = wanted > from && first->max_time - from < std::int64_t{0xffffffff};
    RC_ASSERT(!told_apart || first->position - position < limits::kIndexInterval);
  }
}

// Every block's checksum is that of the log's bytes from its entry to the next one's, or the scrubber would cry wolf.
RC_GTEST_PROP(SegmentIndexProperty, BlockChecksumsAddUpToTheLog, ()) {
  Model m = make_model(Offset{0}, *rc::gen::inRange<std::size_t>(1, 60));
  RC_ASSERT(m.index.covered() == m.log.size());
  std::uint32_t at = 0;
  Offset first = m.base;
  for (std::size_t i = 0; i < m.index.blocks(); ++i) {
    SegmentIndex::Block block = m.index.block(i);
    RC_ASSERT(block.begin == at);
    auto found = std::ranges::find(m.batches, block.begin, &Added::position);
    RC_ASSERT(found != m.batches.end() && found->base == block.first);
    RC_ASSERT(i == 0 || block.first > first);
    RC_ASSERT(block.crc == crc32c(Bytes{m.log}.subspan(block.begin, block.end - block.begin)));
    at = block.end;
    first = block.first;
  }
  RC_ASSERT(at == m.log.size());
}

// What was written is what is read, sealed or not, with the snapshot that goes along; one changed bit is always refused,
// since nothing else stands between a rotten index and a wrong answer.
RC_GTEST_PROP(SegmentIndexProperty, ARoundTripKeepsEverythingAndABitFlipIsRefused, ()) {
  Model m = make_model(Offset{*rc::gen::inRange<std::int64_t>(0, 1'000)}, *rc::gen::inRange<std::size_t>(0, 40));
  bool sealed = *rc::gen::arbitrary<bool>();
  auto extra = *rc::gen::container<std::vector<std::uint8_t>>(rc::gen::arbitrary<std::uint8_t>());
  std::vector<std::byte> bytes = m.index.encode(sealed, std::as_bytes(std::span{extra}));
  auto decoded = SegmentIndex::decode(bytes);
  RC_ASSERT(decoded.has_value());
  RC_ASSERT(decoded->sealed == sealed);
  RC_ASSERT(std::ranges::equal(decoded->extra, std::as_bytes(std::span{extra})));
  RC_ASSERT(decoded->index.entries() == m.index.entries());
  RC_ASSERT(decoded->index.base() == m.index.base());
  RC_ASSERT(decoded->index.next() == m.index.next());
  RC_ASSERT(decoded->index.covered() == m.index.covered());
  RC_ASSERT(decoded->index.max_time() == m.index.max_time());
  RC_ASSERT(decoded->index.first_append_ms() == m.index.first_append_ms());
  RC_ASSERT(decoded->index.last_append_ms() == m.index.last_append_ms());
  RC_ASSERT(decoded->index.encode(sealed, decoded->extra) == bytes);
  auto bit = *rc::gen::inRange<std::size_t>(0, bytes.size() * 8);
  bytes[bit / 8] ^= static_cast<std::byte>(1 << (bit % 8));
  RC_ASSERT(!SegmentIndex::decode(bytes).has_value());
  auto length = *rc::gen::inRange<std::size_t>(0, bytes.size());
  bytes[bit / 8] ^= static_cast<std::byte>(1 << (bit % 8));
  RC_ASSERT(!SegmentIndex::decode(Bytes{bytes}.first(length)).has_value());
}

// An empty index answers every question as a segment without records must.
TEST(SegmentIndex, AnEmptyOneKnowsNothing) {
  SegmentIndex index{Offset{40}};
  EXPECT_EQ(index.blocks(), 0U);
  EXPECT_FALSE(index.block_at_time(0).has_value());
  EXPECT_FALSE(index.max_time().has_value());
  auto decoded = SegmentIndex::decode(index.encode(false, {}));
  ASSERT_TRUE(decoded);
  EXPECT_EQ(decoded->index.base(), Offset{40});
  EXPECT_EQ(decoded->index.next(), Offset{40});
}

}  // namespace
}  // namespace tailrace::broker::log
