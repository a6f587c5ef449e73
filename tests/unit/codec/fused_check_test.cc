/// The fast way through a batch against the plain one: it may know less, never something else.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <memory>

#include "codec/record_check.h"
#include "tests/unit/codec/sample.h"

namespace tailrace::broker::codec {
namespace {

namespace layout = batch_layout;

constexpr std::int64_t kNow = 1'700'000'000'000;

FusedCheck fused(Bytes batch) {
  auto header = read_batch_header(batch, batch.size());
  if (!header) return {};
  return fused_check(batch, header->record_count, header->base_timestamp, header->max_timestamp);
}

/// Widths of every field change within one batch: offsets pass 64 and 8192, keys and values grow, time jumps.
Slice batch_of(int records, bool headers) {
  BatchBuilder builder{{.bytes_max = 4 * limits::kMiB}};
  const HeaderView header{.key = "h", .value = std::nullopt};
  std::string text(20'000, 't');
  Random random{static_cast<std::uint64_t>(records)};
  for (int i = 0; i < records; ++i) {
    RecordInput record{.timestamp = kNow + i, .key = {}, .value = {}, .headers = {}};
    if (i % 5 != 0) record.key = as_bytes(text).first(random.below(i % 11 == 0 ? 300 : 20));
    if (i % 9 != 0) record.value = as_bytes(text).first(random.below(i % 50 == 0 ? 20'000 : 200));
    if (i % 13 == 0) record.timestamp = kNow + static_cast<std::int64_t>(random.below(100'000'000));
    if (headers && i % 3 == 0) record.headers = {&header, 1};
    EXPECT_TRUE(builder.add(record));
  }
  auto batch = builder.finish();
  EXPECT_TRUE(batch);
  return *batch;
}

// Every length modulo the block, each in an exact heap block so that a sanitizer sees a read outside it.
TEST(FusedCheck, ComputesTheSameCrcAtEveryLength) {
  if (!fused_check_available()) GTEST_SKIP() << "this processor has no AVX-512 and VPCLMULQDQ";
  Random random{5};
  for (std::size_t size = layout::kHeaderBytes; size < 1600; ++size) {
    auto bytes = std::make_unique<std::byte[]>(size);
    for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(random.next());
    Bytes batch{bytes.get(), size};
    ASSERT_EQ(fused_check(batch, 0, 0, 0).crc, batch_crc(batch)) << size;
  }
}

// Knowing nothing would always be right and never fast: ordinary batches are recognised, with and without headers.
TEST(FusedCheck, RecognisesGoodBatches) {
  if (!fused_check_available()) GTEST_SKIP() << "this processor has no AVX-512 and VPCLMULQDQ";
  // Sizes on both sides of 64 bytes, where the lengths of record and value change their width from one to the next.
  BatchBuilder builder{{.bytes_max = limits::kMiB}};
  Random random{9};
  std::string text(200, 't');
  for (int i = 0; i < 3000; ++i) {
    ASSERT_TRUE(builder.add({.timestamp = kNow + i, .key = as_bytes(text).first(8), .value = as_bytes(text).first(random.between(40, 140)), .headers = {}}));
  }
  auto varied = builder.finish();
  ASSERT_TRUE(varied);
  EXPECT_TRUE(fused(varied->bytes()).records_good);

  for (int records : {1, 2, 3, 40, 63, 64, 65, 66, 500, 8300}) {
    for (bool headers : {false, true}) {
      Slice batch = batch_of(records, headers);
      FusedCheck found = fused(batch.bytes());
      EXPECT_TRUE(found.records_good) << records << " records, headers " << headers;
      EXPECT_EQ(found.crc, batch_crc(batch.bytes()));
    }
  }
}

// The whole point of a check: a byte changed anywhere among the records gets the same verdict on both ways.
RC_GTEST_PROP(FusedCheckProperty, NeverAcceptsWhatThePlainWayRefuses, ()) {
  if (!fused_check_available()) return;
  Slice batch = batch_of(*rc::gen::inRange(1, 90), *rc::gen::arbitrary<bool>());
  MutableBytes bytes = batch.mutable_bytes();
  auto changes = *rc::gen::inRange(1, 3);
  for (int i = 0; i < changes; ++i) {
    auto at = *rc::gen::inRange<std::size_t>(layout::kHeaderBytes, bytes.size());
    bytes[at] = static_cast<std::byte>(*rc::gen::oneOf(rc::gen::inRange(0, 256), rc::gen::element(0, 1, 2, 3, 0x7f, 0x80, 0xff)));
  }
  auto header = read_batch_header(bytes, bytes.size());
  RC_ASSERT(header.has_value());
  bool plain = check_records(*header, Bytes{bytes}.subspan(layout::kHeaderBytes)).has_value();
  RC_ASSERT(!fused(bytes).records_good || plain);
  RC_CLASSIFY(plain);
}

// One changed byte of each kind, so that the property above does not depend on luck: every byte of a small batch, every value.
TEST(FusedCheck, AgreesOnEveryByteOfASmallBatch) {
  if (!fused_check_available()) GTEST_SKIP() << "this processor has no AVX-512 and VPCLMULQDQ";
  BatchBuilder builder{{}};
  for (int i = 0; i < 3; ++i) {
    RecordInput record{.timestamp = kNow + i, .key = as_bytes("key"), .value = as_bytes("a value of some bytes"), .headers = {}};
    if (i == 1) record.key.reset();
    ASSERT_TRUE(builder.add(record));
  }
  auto built = builder.finish();
  ASSERT_TRUE(built);
  auto header = read_batch_header(built->bytes(), built->length);
  ASSERT_TRUE(header);
  int refused = 0;
  for (std::size_t at = layout::kHeaderBytes; at < built->length; ++at) {
    for (int value = 0; value < 256; ++value) {
      Buffer copy = Buffer::copy_of(built->bytes());
      copy.bytes()[at] = static_cast<std::byte>(value);
      bool plain = check_records(*header, Bytes{copy.bytes()}.subspan(layout::kHeaderBytes)).has_value();
      refused += plain ? 0 : 1;
      ASSERT_EQ(fused(copy.bytes()).records_good, plain) << "byte " << at << " = " << value;
    }
  }
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace tailrace::broker::codec
