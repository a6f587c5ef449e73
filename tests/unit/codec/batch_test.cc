#include "codec/batch_builder.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <string>
#include <vector>

#include "codec/batch_reader.h"
#include "codec/validate.h"
#include "tests/unit/codec/sample.h"

namespace tailrace::broker::codec {
namespace {

constexpr Compression kCodecs[] = {Compression::none, Compression::lz4, Compression::zstd};

Slice build(const std::vector<OwnedRecord>& records, BatchOptions options, ProducerStamp stamp = {}) {
  BatchBuilder builder{options};
  for (const OwnedRecord& record : records) {
    RecordWithHeaders input{record};
    std::size_t expected = builder.bytes_with(input.record);
    EXPECT_TRUE(builder.fits(input.record));
    EXPECT_TRUE(builder.add(input.record).has_value());
    EXPECT_EQ(builder.bytes(), expected);
  }
  std::size_t bound = builder.bytes();
  auto batch = builder.finish(stamp);
  EXPECT_TRUE(batch.has_value());
  EXPECT_LE(batch->length, bound);
  if (options.compression == Compression::none) EXPECT_EQ(batch->length, bound);
  return *batch;
}

std::vector<OwnedRecord> read_all(Bytes batch) {
  std::vector<OwnedRecord> out;
  auto reader = BatchReader::open(batch);
  EXPECT_TRUE(reader.has_value());
  if (!reader) return out;
  RecordView record;
  while (reader->next(record)) {
    EXPECT_EQ(record.offset, reader->header().base_offset + std::int64_t{record.offset_delta});
    out.push_back(owned(record));
  }
  EXPECT_FALSE(reader->error().has_value());
  return out;
}

// The format has three states for a value, and order and repeats of headers mean something: all must survive.
TEST(Batch, KeepsNullEmptyAndBinaryAndTheOrderOfHeaders) {
  std::vector<OwnedRecord> records = {
      {.timestamp = 1700000000000, .key = std::nullopt, .value = std::nullopt, .headers = {}},
      {.timestamp = 1700000000005, .key = "", .value = "", .headers = {}},
      {.timestamp = 1699999999990, .key = std::string("\0\xff\n", 3), .value = std::string(300, '\x80'),
       .headers = {{"b", "2"}, {"a", "1"}, {"b", std::nullopt}, {"", ""}, {"b", "2"}}},
  };
  for (Compression codec : kCodecs) {
    Slice batch = build(records, {.compression = codec});
    auto header = validate_batch(batch.bytes(), {});
    ASSERT_TRUE(header.has_value()) << header.error().detail;
    EXPECT_EQ(header->record_count, 3);
    EXPECT_EQ(header->last_offset_delta, 2);
    EXPECT_EQ(header->base_timestamp, 1700000000000);
    EXPECT_EQ(header->max_timestamp, 1700000000005);
    EXPECT_EQ(header->producer_id, kNoProducer);
    EXPECT_EQ(read_all(batch.bytes()), records);
  }
}

// What the builder writes is what Kafka documents, byte for byte: this is the worked example of the storage format.
TEST(Batch, WritesTheDocumentedBytes) {
  Slice batch = build({{.timestamp = 1000, .key = "k", .value = "hello", .headers = {{"h", std::nullopt}}}}, {},
                      {.producer_id = ProducerId{7}, .producer_epoch = ProducerEpoch{1}, .base_sequence = 42});
  EXPECT_EQ(hex(batch.bytes().first(17)), "0000000000000000" "00000041" "ffffffff" "02");
  EXPECT_EQ(hex(batch.bytes().subspan(21)),
            "0000" "00000000" "00000000000003e8" "00000000000003e8" "0000000000000007" "0001" "0000002a" "00000001"
            "1e" "00" "00" "00" "02" "6b" "0a" "68656c6c6f" "02" "02" "68" "01");
  EXPECT_EQ(load_be<std::uint32_t>(batch.bytes().data() + batch_layout::kCrc), batch_crc(batch.bytes()));
}

// Compression that does not help costs the consumer and saves nothing.
TEST(Batch, SendsIncompressibleRecordsUncompressed) {
  Random random{1};
  OwnedRecord record{.timestamp = 1, .key = std::nullopt, .value = random_text(random, 2000), .headers = {}};
  for (Compression codec : kCodecs) {
    Slice batch = build({record}, {.compression = codec});
    auto header = validate_batch(batch.bytes(), {});
    ASSERT_TRUE(header.has_value());
    EXPECT_EQ(header->compression(), Compression::none);
  }
}

// A batch whose ratio the broker would call a bomb must still be publishable.
TEST(Batch, SendsWhatWouldBeABombUncompressed) {
  OwnedRecord record{.timestamp = 1, .key = std::nullopt, .value = std::string(8 << 20, 'x'), .headers = {}};
  Slice batch = build({record}, {.compression = Compression::zstd, .bytes_max = 16 << 20});
  auto header = validate_batch(batch.bytes(), {.message_bytes_max = 16 << 20});
  ASSERT_TRUE(header.has_value()) << header.error().detail;
  EXPECT_EQ(header->compression(), Compression::none);
}

// A sealed batch goes out under a new identity after the client got one; nothing but the three fields may change.
TEST(Batch, TakesAnotherProducerIdentity) {
  Slice batch = build({{.timestamp = 1, .key = "k", .value = "v", .headers = {}}}, {.compression = Compression::none});
  stamp_producer(batch.mutable_bytes(), {.producer_id = ProducerId{9}, .producer_epoch = ProducerEpoch{2}, .base_sequence = 5});
  auto header = validate_batch(batch.bytes(), {});
  ASSERT_TRUE(header.has_value()) << header.error().detail;
  EXPECT_EQ(header->producer_id, ProducerId{9});
  EXPECT_EQ(header->producer_epoch, ProducerEpoch{2});
  EXPECT_EQ(header->base_sequence, 5);
}

// The bound is a promise to the queue in front: the record that does not fit is refused and the batch stays as it was.
TEST(BatchBuilder, RefusesWhatDoesNotFitAndKeepsTheRest) {
  BatchBuilder builder{{.compression = Compression::none, .bytes_max = 200}};
  std::string value(60, 'v');
  RecordInput record{.timestamp = 5, .key = {}, .value = as_bytes(value), .headers = {}};
  ASSERT_TRUE(builder.add(record));
  ASSERT_TRUE(builder.add(record));
  std::size_t before = builder.bytes();
  EXPECT_FALSE(builder.fits(record));
  auto added = builder.add(record);
  ASSERT_FALSE(added);
  EXPECT_EQ(added.error().code, Errc::too_large);
  EXPECT_EQ(builder.bytes(), before);
  auto batch = builder.finish();
  ASSERT_TRUE(batch);
  EXPECT_EQ(read_all(batch->bytes()).size(), 2u);
}

// The builder may not make what the broker refuses, and must say so at once, not when the batch comes back.
TEST(BatchBuilder, RefusesWhatTheBrokerWould) {
  BatchBuilder builder{{}};
  EXPECT_EQ(builder.finish().error().code, Errc::invalid_argument);
  EXPECT_EQ(builder.add({.timestamp = -2}).error().code, Errc::invalid_argument);
  std::vector<HeaderView> headers(limits::kHeadersPerRecordMax + 1);
  EXPECT_EQ(builder.add({.timestamp = 0, .key = {}, .value = {}, .headers = headers}).error().code, Errc::invalid_argument);
  EXPECT_TRUE(builder.empty());
  headers.pop_back();
  EXPECT_TRUE(builder.add({.timestamp = 0, .key = {}, .value = {}, .headers = headers}));
  EXPECT_TRUE(builder.add({.timestamp = INT64_MAX}));
  auto batch = builder.finish();
  ASSERT_TRUE(batch);
  auto header = validate_batch(batch->bytes(), {});
  ASSERT_TRUE(header) << header.error().detail;
  // From -1 the largest timestamp is 2^63 away, which no delta can say.
  ASSERT_TRUE(builder.add({.timestamp = -1}));
  EXPECT_EQ(builder.add({.timestamp = INT64_MAX}).error().code, Errc::invalid_argument);
}

// LogAppendTime is stamped after the batch was built: every record then carries the broker's time.
TEST(BatchReader, GivesTheAppendTimeOnceStamped) {
  Slice batch = build({{.timestamp = 5, .key = "k", .value = "v", .headers = {}}, {.timestamp = 9, .key = "k", .value = "w", .headers = {}}},
                      {.compression = Compression::lz4});
  stamp_log_append_time(batch.mutable_bytes(), WallTime{std::chrono::milliseconds{777}});
  for (const OwnedRecord& record : read_all(batch.bytes())) EXPECT_EQ(record.timestamp, 777);
}

// A fetch answer is batches end to end; the reader must know where the first one ends.
TEST(BatchReader, StopsAtTheEndOfItsBatch) {
  Slice one = build({{.timestamp = 5, .key = "k", .value = "v", .headers = {}}}, {});
  std::vector<std::byte> two(one.bytes().begin(), one.bytes().end());
  two.insert(two.end(), one.bytes().begin(), one.bytes().end());
  auto reader = BatchReader::open(two);
  ASSERT_TRUE(reader);
  EXPECT_EQ(reader->batch_bytes(), one.length);
  RecordView record;
  EXPECT_TRUE(reader->next(record));
  EXPECT_FALSE(reader->next(record));
  EXPECT_FALSE(reader->error());
}

// What goes in comes out, for any records and every codec, and the edge accepts it on the way.
RC_GTEST_PROP(BatchRoundTrip, AnyRecordsSurviveEveryCodec, ()) {
  auto records = *rc::gen::nonEmpty(rc::gen::container<std::vector<OwnedRecord>>(any_record()));
  auto codec = *rc::gen::elementOf(std::vector<Compression>(std::begin(kCodecs), std::end(kCodecs)));
  auto sequence = *rc::gen::inRange<std::int32_t>(0, INT32_MAX);
  Slice batch = build(records, {.compression = codec, .bytes_max = 16 << 20},
                      {.producer_id = ProducerId{sequence}, .producer_epoch = ProducerEpoch{3}, .base_sequence = sequence});
  auto header = validate_batch(batch.bytes(), {.message_bytes_max = 16 << 20});
  RC_ASSERT(header.has_value());
  RC_ASSERT(header->base_sequence == sequence);
  RC_ASSERT(read_all(batch.bytes()) == records);
}

}  // namespace
}  // namespace tailrace::broker::codec
