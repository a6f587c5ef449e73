/// What the edge refuses. Every batch here has a good CRC unless the test is about the CRC: a liar computes it too.
#include <gtest/gtest.h>
#include <lz4frame.h>
#include <rapidcheck/gtest.h>
#include <zstd.h>

#include <functional>
#include <string>
#include <vector>

#include "codec/batch_builder.h"
#include "codec/batch_reader.h"
#include "codec/validate.h"
#include "tests/unit/codec/sample.h"

namespace tailrace::broker::codec {
namespace {

namespace layout = batch_layout;
using Raw = std::string;

MutableBytes bytes_of(Raw& raw) { return {reinterpret_cast<std::byte*>(raw.data()), raw.size()}; }

/// Makes length and CRC agree with the bytes again.
void reseal(Raw& raw) {
  store_be(bytes_of(raw).data() + layout::kLength, static_cast<std::int32_t>(raw.size() - layout::kLengthPrefix));
  store_be(bytes_of(raw).data() + layout::kCrc, batch_crc(bytes_of(raw)));
}

Raw good_batch(Compression codec = Compression::none, int records = 3) {
  BatchBuilder builder{{.compression = codec}};
  std::string value(100, 'v');
  HeaderView header{.key = "h", .value = as_bytes("x")};
  for (int i = 0; i < records; ++i) {
    EXPECT_TRUE(builder.add({.timestamp = 1000 + i, .key = as_bytes("key"), .value = as_bytes(value), .headers = {&header, 1}}));
  }
  auto batch = builder.finish({.producer_id = ProducerId{5}, .producer_epoch = ProducerEpoch{0}, .base_sequence = 10});
  EXPECT_TRUE(batch);
  EXPECT_EQ(load_be<std::int16_t>(batch->bytes().data() + layout::kAttributes), static_cast<std::int16_t>(codec));
  return Raw{as_text(batch->bytes())};
}

template <class T>
Raw with_field(std::size_t at, T value, Raw raw = good_batch()) {
  store_be(bytes_of(raw).data() + at, value);
  store_be(bytes_of(raw).data() + layout::kCrc, batch_crc(bytes_of(raw)));
  return raw;
}

/// A good header over these records, given as they would lie after byte 61.
Raw with_records(std::string_view records, std::int32_t count, Compression codec = Compression::none) {
  Raw raw = good_batch().substr(0, layout::kHeaderBytes);
  raw += records;
  std::byte* p = bytes_of(raw).data();
  store_be(p + layout::kAttributes, static_cast<std::int16_t>(codec));
  store_be(p + layout::kRecordCount, count);
  store_be(p + layout::kLastOffsetDelta, count - 1);
  store_be(p + layout::kMaxTimestamp, std::int64_t{1000});
  reseal(raw);
  return raw;
}

/// Puts a record's length in front of its body.
Raw record(std::string_view body) {
  std::byte length[kVarint64BytesMax];
  std::byte* end = write_varint(length, static_cast<std::int64_t>(body.size()));
  return Raw(reinterpret_cast<char*>(length), static_cast<std::size_t>(end - length)).append(body);
}

struct Outcome {
  Errc code{};
  std::string detail{};
};

Outcome outcome(std::string_view raw, BatchLimits limits = {}) {
  // An exact heap copy, so that a sanitizer sees a read beyond the end.
  std::vector<std::byte> copy(as_bytes(raw).begin(), as_bytes(raw).end());
  auto header = validate_batch(copy, limits);
  EXPECT_FALSE(header.has_value()) << "accepted: " << hex(as_bytes(raw).first(std::min<std::size_t>(raw.size(), 200)));
  return header ? Outcome{} : Outcome{header.error().code, header.error().detail};
}

void expect_refused(std::string_view raw, Errc code, std::string_view field, BatchLimits limits = {}) {
  Outcome got = outcome(raw, limits);
  EXPECT_EQ(static_cast<int>(got.code), static_cast<int>(code)) << field << ": " << got.detail;
  EXPECT_NE(got.detail.find(field), std::string::npos) << "wanted the field '" << field << "' named in: " << got.detail;
}

// The base must be good, or every refusal below proves nothing.
TEST(LyingBatch, TheHonestOnesPass) {
  for (Compression codec : {Compression::none, Compression::lz4, Compression::zstd}) {
    Raw raw = good_batch(codec);
    auto header = validate_batch(as_bytes(raw), {});
    EXPECT_TRUE(header) << header.error().detail;
  }
  Raw raw = with_records(record(Raw("\0\0\0\x01\x01\0", 6)), 1);
  EXPECT_TRUE(validate_batch(as_bytes(raw), {}));
}

// Each header field alone, mutated with a fresh CRC: the refusal names it, so that whoever wrote the client can mend it.
TEST(LyingBatch, EachHeaderFieldIsChecked) {
  expect_refused(with_field<std::int8_t>(layout::kMagic, 1), Errc::invalid_record, "magic");
  expect_refused(with_field<std::int8_t>(layout::kMagic, 3), Errc::invalid_record, "magic");
  Raw crc = good_batch();
  crc[layout::kCrc] = static_cast<char>(crc[layout::kCrc] ^ 1);
  expect_refused(crc, Errc::corrupt_message, "crc");
  auto size = static_cast<std::int32_t>(good_batch().size() - layout::kLengthPrefix);
  for (std::int32_t length : {INT32_MIN, -1, 0, 48, 49, size - 1, size + 1, INT32_MAX}) {
    expect_refused(with_field<std::int32_t>(layout::kLength, length), Errc::invalid_record, "length");
  }
  expect_refused(with_field<std::int16_t>(layout::kAttributes, layout::kControl), Errc::invalid_record, "control");
  expect_refused(with_field<std::int16_t>(layout::kAttributes, layout::kTransactional), Errc::invalid_record, "transactional");
  expect_refused(with_field<std::int16_t>(layout::kAttributes, layout::kLogAppendTime), Errc::invalid_record, "append time");
  expect_refused(with_field<std::int16_t>(layout::kAttributes, layout::kDeleteHorizon), Errc::invalid_record, "attributes");
  for (int bit = 7; bit < 16; ++bit) {
    expect_refused(with_field<std::int16_t>(layout::kAttributes, static_cast<std::int16_t>(1u << bit)), Errc::invalid_record, "attributes");
  }
  for (std::int16_t codec : {1, 2, 5, 6, 7}) {
    expect_refused(with_field<std::int16_t>(layout::kAttributes, codec), Errc::unsupported_compression, "compression");
  }
  for (std::int32_t delta : {INT32_MIN, -1, 0, 1, 3, INT32_MAX}) {
    expect_refused(with_field<std::int32_t>(layout::kLastOffsetDelta, delta), Errc::invalid_record, "last offset delta");
  }
  expect_refused(with_field<std::int64_t>(layout::kBaseTimestamp, -2), Errc::invalid_record, "base timestamp");
  expect_refused(with_field<std::int64_t>(layout::kBaseTimestamp, 999), Errc::invalid_record, "max timestamp");
  expect_refused(with_field<std::int64_t>(layout::kBaseTimestamp, INT64_MAX), Errc::invalid_record, "timestamp delta");
  for (std::int64_t timestamp : {INT64_MIN, std::int64_t{-1}, std::int64_t{1001}, std::int64_t{1003}, INT64_MAX}) {
    expect_refused(with_field<std::int64_t>(layout::kMaxTimestamp, timestamp), Errc::invalid_record, "max timestamp");
  }
  for (std::int32_t count : {INT32_MIN, -1, 0, limits::kBatchRecordsMax + 1, INT32_MAX}) {
    expect_refused(with_field<std::int32_t>(layout::kRecordCount, count), Errc::invalid_record, "record count");
  }
}

// A count that its own delta supports still has to be the truth about the records.
TEST(LyingBatch, CountsAreComparedWithTheRecordsFound) {
  for (std::int32_t count : {1, 2}) {
    Raw raw = with_field<std::int32_t>(layout::kRecordCount, count, with_field<std::int32_t>(layout::kLastOffsetDelta, count - 1));
    expect_refused(raw, Errc::invalid_record, "record count");
  }
  for (std::int32_t count : {4, 1000, limits::kBatchRecordsMax}) {
    Raw raw = with_field<std::int32_t>(layout::kRecordCount, count, with_field<std::int32_t>(layout::kLastOffsetDelta, count - 1));
    expect_refused(raw, Errc::invalid_record, "record 3: record length");
  }
}

// Half an identity cannot be deduplicated; accepting it would silently switch idempotence off.
TEST(LyingBatch, ProducerFieldsAreAllSetOrAllAbsent) {
  for (std::int64_t id : {std::int64_t{-2}, INT64_MIN, std::int64_t{-1}}) expect_refused(with_field(layout::kProducerId, id), Errc::invalid_record, "producer id");
  for (std::int16_t epoch : {-1, -2, INT16_MIN}) expect_refused(with_field(layout::kProducerEpoch, epoch), Errc::invalid_record, "producer epoch");
  for (std::int32_t sequence : {-1, -2, INT32_MIN}) expect_refused(with_field(layout::kBaseSequence, sequence), Errc::invalid_record, "base sequence");
  Raw none = with_field(layout::kProducerId, std::int64_t{-1},
                        with_field(layout::kProducerEpoch, std::int16_t{-1}, with_field(layout::kBaseSequence, std::int32_t{-1})));
  EXPECT_TRUE(validate_batch(as_bytes(none), {}));
}

// Inside the records: every length, every count, every reserved byte.
TEST(LyingBatch, EachRecordFieldIsChecked) {
  struct Case {
    const char* field;
    Raw body;
  };
  auto raw = [](const char* text, std::size_t size) { return Raw(text, size); };
  const Case cases[] = {
      {"record attributes", raw("\x01\0\0\x01\x01\0", 6)},
      {"record attributes", raw("", 0)},
      {"timestamp delta", raw("\0\x80", 2)},
      {"timestamp delta", raw("\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02\0\x01\x01\0", 15)},   // 65 bits
      {"timestamp delta", raw("\0\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01\0\x01\x01\0", 15)},   // base + 2^63-1 overflows
      {"timestamp delta", raw("\0\xd3\x0f\0\x01\x01\0", 7)},                                     // 1000 - 1002 = -2
      {"offset delta", raw("\0\0\x02\x01\x01\0", 6)},
      {"offset delta", raw("\0\0\x01\x01\x01\0", 6)},
      {"offset delta", raw("\0\0\x80\x80\x80\x80\x80\0\x01\x01\0", 11)},                        // 6 bytes
      {"offset delta", raw("\0\0\x80\x80\x80\x80\x10\x01\x01\0", 10)},                          // 33 bits
      {"key length", raw("\0\0\0\x03\x01\0", 6)},                                               // -2
      {"key length", raw("\0\0\0\x06\x01\0", 6)},                                               // one more than is left
      {"key length", raw("\0\0\0\xfe\xff\xff\xff\x0f\x01\0", 10)},                              // 2^31-1
      {"key length", raw("\0\0\0\x80\x80\x80\x80\x80\x01\x01\0", 11)},                          // 6 bytes
      {"key length", raw("\0\0\0", 3)},
      {"value length", raw("\0\0\0\x01\x03\0", 6)},
      {"value length", raw("\0\0\0\x01\x04\0", 6)},
      {"value length", raw("\0\0\0\x01\xfe\xff\xff\xff\x0f\0", 10)},
      {"value length", raw("\0\0\0\x01", 4)},
      {"header count", raw("\0\0\0\x01\x01\x01", 6)},
      {"header count", raw("\0\0\0\x01\x01", 5)},
      {"header count", raw("\0\0\0\x01\x01\x02", 6)},                                           // one, and no byte is left
      {"header count", raw("\0\0\0\x01\x01\xfe\xff\xff\xff\x0f", 10)},
      {"header key length", raw("\0\0\0\x01\x01\x02\x01\x01", 8)},                              // null key
      {"header key length", raw("\0\0\0\x01\x01\x02\x04\x01", 8)},
      {"header value length", raw("\0\0\0\x01\x01\x02\0\x03", 8)},
      {"header value length", raw("\0\0\0\x01\x01\x02\0\x02", 8)},
      {"record length", raw("\0\0\0\x01\x01\0\0", 7)},                                          // a byte too many
  };
  for (const Case& c : cases) {
    expect_refused(with_records(record(c.body), 1), Errc::invalid_record, c.field);
    // The same record in the middle of good ones must not be judged by luck of the bytes that follow.
    Raw good = record(Raw("\0\0\0\x01\x01\0", 6));
    expect_refused(with_records(record(c.body) + good + good, 3), Errc::invalid_record, c.field);
  }
  expect_refused(with_records(Raw("\x01", 1), 1), Errc::invalid_record, "record length");                       // -1
  expect_refused(with_records(Raw("\xfe\xff\xff\xff\x0f", 5), 1), Errc::invalid_record, "record length");       // 2^31-1
  expect_refused(with_records(Raw("\x80\x80\x80\x80\x80\x80", 6), 1), Errc::invalid_record, "record length");
  expect_refused(with_records("", 1), Errc::invalid_record, "record length");
}

// Header counts are bounded by our limit even where the bytes are there.
TEST(LyingBatch, TooManyHeadersAreRefused) {
  auto with_headers = [](std::int64_t count) {
    Raw body("\0\0\0\x01\x01", 5);
    std::byte varint[kVarint64BytesMax];
    body.append(reinterpret_cast<char*>(varint), static_cast<std::size_t>(write_varint(varint, count) - varint));
    for (std::int64_t i = 0; i < count; ++i) body += Raw("\0\x01", 2);
    return with_records(record(body), 1);
  };
  Raw most = with_headers(static_cast<std::int64_t>(limits::kHeadersPerRecordMax));
  EXPECT_TRUE(validate_batch(as_bytes(most), {}));
  expect_refused(with_headers(static_cast<std::int64_t>(limits::kHeadersPerRecordMax) + 1), Errc::invalid_record, "header count");
}

// The topic's bound is looked at first: nothing is computed over what is too large.
TEST(LyingBatch, TheTopicsBoundIsExact) {
  Raw raw = good_batch();
  EXPECT_TRUE(validate_batch(as_bytes(raw), {.message_bytes_max = raw.size()}));
  expect_refused(raw, Errc::too_large, "message_bytes_max", {.message_bytes_max = raw.size() - 1});
}

// A connection can end anywhere. No prefix is a batch, whether the length is left as it was or made to agree.
TEST(LyingBatch, EveryTruncationIsRefused) {
  for (Compression codec : {Compression::none, Compression::lz4, Compression::zstd}) {
    Raw whole = good_batch(codec);
    for (std::size_t size = 0; size < whole.size(); ++size) {
      Outcome cut = outcome(std::string_view(whole).substr(0, size));
      EXPECT_EQ(static_cast<int>(cut.code), static_cast<int>(Errc::invalid_record)) << size << ": " << cut.detail;
      if (size < layout::kHeaderBytes) continue;
      Raw resealed = whole.substr(0, size);
      reseal(resealed);
      Outcome agreed = outcome(resealed);
      EXPECT_EQ(static_cast<int>(agreed.code), static_cast<int>(Errc::invalid_record)) << size << ": " << agreed.detail;
    }
    Raw longer = whole + '\0';
    EXPECT_EQ(static_cast<int>(outcome(longer).code), static_cast<int>(Errc::invalid_record));
    reseal(longer);
    EXPECT_EQ(static_cast<int>(outcome(longer).code), static_cast<int>(Errc::invalid_record));
  }
}

// CRC-32C finds every error of up to 32 bits in a row, so no flipped byte may pass, beyond the two fields outside it.
RC_GTEST_PROP(LyingBatchProperty, NoFlippedByteIsAccepted, ()) {
  auto codec = *rc::gen::element(Compression::none, Compression::lz4, Compression::zstd);
  Raw raw = good_batch(codec, *rc::gen::inRange(1, 40));
  auto outside_crc = [](std::size_t at) { return at < layout::kLength || (at >= layout::kLeaderEpoch && at < layout::kMagic); };
  auto at = *rc::gen::suchThat(rc::gen::inRange<std::size_t>(0, raw.size()), [&](std::size_t i) { return !outside_crc(i); });
  raw[at] = static_cast<char>(raw[at] ^ *rc::gen::inRange(1, 256));
  RC_ASSERT(!validate_batch(as_bytes(raw), {}).has_value());
}

// Base offset and epoch are the broker's to write: whatever a client left there changes nothing.
TEST(LyingBatch, BaseOffsetAndEpochAreNotTheClientsToSay) {
  Raw raw = good_batch();
  assign_batch(bytes_of(raw), Offset{INT64_MAX}, LeaderEpoch{-7});
  EXPECT_TRUE(validate_batch(as_bytes(raw), {}));
}

// What is accepted is also readable, and a mutated record either fails both or neither: two walks, one opinion.
RC_GTEST_PROP(LyingBatchProperty, ReaderAndValidatorAgreeOnMutatedRecords, ()) {
  Raw raw = good_batch(Compression::none, *rc::gen::inRange(1, 6));
  auto changes = *rc::gen::inRange(1, 4);
  for (int i = 0; i < changes; ++i) {
    auto at = *rc::gen::inRange<std::size_t>(layout::kHeaderBytes, raw.size());
    raw[at] = static_cast<char>(*rc::gen::oneOf(rc::gen::inRange(0, 256), rc::gen::element(0, 1, 2, 0x7f, 0x80, 0xff)));
  }
  reseal(raw);
  auto header = validate_batch(as_bytes(raw), {});
  auto reader = BatchReader::open(as_bytes(raw));
  RC_ASSERT(reader.has_value());
  RecordView record;
  std::int32_t found = 0;
  std::int64_t newest = -1;
  bool timestamps_good = true;
  while (reader->next(record)) {
    ++found;
    newest = std::max(newest, record.timestamp);
    timestamps_good = timestamps_good && record.timestamp >= -1;
  }
  bool readable = !reader->error() && found == reader->header().record_count && timestamps_good && newest == reader->header().max_timestamp;
  RC_ASSERT(header.has_value() == readable);
}

std::string zstd_frame(std::string_view from, int window_log = 0, bool with_size = true) {
  ZSTD_CCtx* context = ZSTD_createCCtx();
  if (window_log) ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, window_log);
  ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, with_size ? 1 : 0);
  std::string out(ZSTD_compressBound(from.size()), '\0');
  ZSTD_inBuffer in{from.data(), from.size(), 0};
  ZSTD_outBuffer to{out.data(), out.size(), 0};
  // Streaming without a pledged size keeps the window as asked.
  if (with_size) {
    to.pos = ZSTD_compress2(context, out.data(), out.size(), from.data(), from.size());
  } else {
    while (ZSTD_compressStream2(context, &to, &in, ZSTD_e_continue) > 0 && in.pos < in.size) {
    }
    while (ZSTD_compressStream2(context, &to, &in, ZSTD_e_end) > 0) {
    }
  }
  ZSTD_freeCCtx(context);
  out.resize(to.pos);
  return out;
}

std::string lz4_frame(std::string_view from, LZ4F_frameInfo_t info = {}) {
  LZ4F_preferences_t preferences{};
  preferences.frameInfo = info;
  std::string out(LZ4F_compressFrameBound(from.size(), &preferences), '\0');
  out.resize(LZ4F_compressFrame(out.data(), out.size(), from.data(), from.size(), &preferences));
  return out;
}

LZ4F_frameInfo_t independent() {
  LZ4F_frameInfo_t info{};
  info.blockMode = LZ4F_blockIndependent;
  return info;
}

Raw plain_records() { return record(Raw("\0\0\0\x01\x01\0", 6)); }

// Frames as other clients may write them: with content size, checksums, large blocks. All are one good frame.
TEST(CompressedBatch, TakesFramesOfOtherWriters) {
  Raw records = plain_records();
  LZ4F_frameInfo_t rich = independent();
  rich.contentChecksumFlag = LZ4F_contentChecksumEnabled;
  rich.blockChecksumFlag = LZ4F_blockChecksumEnabled;
  rich.contentSize = records.size();
  rich.blockSizeID = LZ4F_max4MB;
  for (const auto& [codec, frame] : {std::pair{Compression::lz4, lz4_frame(records, rich)}, {Compression::lz4, lz4_frame(records, independent())},
                                     {Compression::zstd, zstd_frame(records)}, {Compression::zstd, zstd_frame(records, 23, false)}}) {
    Raw raw = with_records(frame, 1, codec);
    auto header = validate_batch(as_bytes(raw), {});
    EXPECT_TRUE(header) << header.error().detail;
  }
}

// A few kilobytes that become gigabytes: refused at the budget, having allocated no more than it.
TEST(CompressedBatch, BombsStopAtTheBudget) {
  std::string zeros(std::size_t{80} << 20, '\0');
  std::string bomb = zstd_frame(zeros);
  ASSERT_LT(bomb.size(), 64u << 10);
  expect_refused(with_records(bomb, 1, Compression::zstd), Errc::too_large, "inflate");
  std::string slow_bomb = lz4_frame(zeros, independent());
  ASSERT_LT(slow_bomb.size(), 512u << 10);
  expect_refused(with_records(slow_bomb, 1, Compression::lz4), Errc::too_large, "inflate");
  // Nested: the outer frame is small, and its content is only bytes, never inflated again.
  expect_refused(with_records(zstd_frame(bomb), 1, Compression::zstd), Errc::invalid_record, "record");
  EXPECT_EQ(inflated_budget(bomb.size(), limits::kInflatedBytesMax), std::max<std::size_t>(4 << 20, bomb.size() * 256));
  EXPECT_EQ(inflated_budget(SIZE_MAX, limits::kInflatedBytesMax), limits::kInflatedBytesMax);
}

// Exactly at the budget is fine, one byte more is not; the spare byte at the edge is where this goes wrong.
TEST(CompressedBatch, TheInflatedBoundIsExact) {
  Raw body("\0\0\0\x01", 4);
  std::byte varint[kVarint64BytesMax];
  std::string value(200'000, 'a');
  body.append(reinterpret_cast<char*>(varint), static_cast<std::size_t>(write_varint(varint, std::int64_t{200'000}) - varint));
  body += value + Raw("\0", 1);
  Raw records = record(body);
  for (const auto& [codec, frame] : {std::pair{Compression::lz4, lz4_frame(records, independent())}, {Compression::zstd, zstd_frame(records)},
                                     {Compression::zstd, zstd_frame(records, 20, false)}}) {
    Raw raw = with_records(frame, 1, codec);
    auto exact = validate_batch(as_bytes(raw), {.inflated_bytes_max = records.size()});
    EXPECT_TRUE(exact) << exact.error().detail;
    expect_refused(raw, Errc::too_large, "inflate", {.inflated_bytes_max = records.size() - 1});
  }
}

// One frame, no more: what follows it would be stored and read by nobody, or read differently by another client.
TEST(CompressedBatch, OnlyOneWholeFrameIsAccepted) {
  Raw records = plain_records();
  std::string lz4 = lz4_frame(records, independent()), zstd = zstd_frame(records);
  std::string skippable("\x50\x2a\x4d\x18\x04\0\0\0abcd", 12);
  struct Case {
    Compression codec;
    std::string frame;
    const char* why;
  };
  LZ4F_frameInfo_t dictionary = independent();
  dictionary.dictID = 7;
  LZ4F_frameInfo_t linking{};
  linking.blockMode = LZ4F_blockLinked;
  linking.blockSizeID = LZ4F_max64KB;
  std::string linked = lz4_frame(std::string(200'000, 'a'), linking);  // a single block would be called independent
  const Case cases[] = {
      {Compression::lz4, lz4 + lz4, "followed"},   {Compression::zstd, zstd + zstd, "followed"},
      {Compression::lz4, lz4 + skippable, "followed"}, {Compression::zstd, zstd + skippable, "followed"},
      {Compression::lz4, skippable + lz4, "magic"}, {Compression::zstd, skippable + zstd, "magic"},
      {Compression::lz4, zstd, "magic"},           {Compression::zstd, lz4, "magic"},
      {Compression::lz4, "", "magic"},             {Compression::zstd, "", "magic"},
      {Compression::lz4, linked, "linked"}, {Compression::lz4, lz4_frame(records, dictionary), "dictionary"},
      {Compression::zstd, zstd_frame(records, 24, false), "damaged"},   // a window of 16 MiB
      {Compression::zstd, zstd_frame(records, 27, false), "damaged"},
  };
  for (const Case& c : cases) expect_refused(with_records(c.frame, 1, c.codec), Errc::invalid_record, c.why);
}

// A frame that names a dictionary must not be guessed at. In RFC 8878 the low two bits of the descriptor (byte 4) say how
// wide the dictionary id is that follows it.
TEST(CompressedBatch, ZstdDictionariesAreRefused) {
  std::string frame = zstd_frame(plain_records());
  frame[4] = static_cast<char>(frame[4] | 1);
  frame.insert(5, 1, '\x2a');
  ASSERT_EQ(ZSTD_getDictID_fromFrame(frame.data(), frame.size()), 0x2au);
  expect_refused(with_records(frame, 1, Compression::zstd), Errc::invalid_record, "damaged");
}

// Whatever bytes stand where a frame should be, both codecs answer; nothing is accepted that does not hold the records.
RC_GTEST_PROP(CompressedBatchProperty, MutatedFramesNeverCrashAndNeverLie, ()) {
  auto codec = *rc::gen::element(Compression::lz4, Compression::zstd);
  Raw honest = good_batch(codec, 20);
  Raw raw = honest;
  auto changes = *rc::gen::inRange(1, 5);
  for (int i = 0; i < changes; ++i) {
    auto at = *rc::gen::inRange<std::size_t>(layout::kHeaderBytes, raw.size());
    raw[at] = static_cast<char>(*rc::gen::inRange(0, 256));
  }
  reseal(raw);
  if (auto header = validate_batch(as_bytes(raw), {})) {
    // A flipped literal is another honest batch: it must then read as one.
    auto reader = BatchReader::open(as_bytes(raw));
    RC_ASSERT(reader.has_value());
    RecordView record;
    std::int32_t found = 0;
    while (reader->next(record)) ++found;
    RC_ASSERT(!reader->error().has_value());
    RC_ASSERT(found == header->record_count);
  }
}

}  // namespace
}  // namespace tailrace::broker::codec
