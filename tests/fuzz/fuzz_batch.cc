/// The edge's check of a producer's batch, and the reader of what it let through.
#include <cstring>
#include <memory>

#include "codec/batch_builder.h"
#include "codec/batch_reader.h"
#include "codec/record_check.h"
#include "codec/validate.h"
#include "tests/fuzz/fuzz.h"

namespace tailrace::fuzz {
namespace {

using namespace broker;
using namespace broker::codec;
namespace layout = broker::batch_layout;

constexpr BatchLimits kLimits{.message_bytes_max = 64 * limits::kKiB, .inflated_bytes_max = limits::kMiB};

/// Reads to the end or to the first bad record. Answers how many records were good.
std::int32_t read_all(Bytes batch, bool check_crc, bool& whole) {
  whole = false;
  auto reader = BatchReader::open(batch, {.check_crc = check_crc, .inflated_bytes_max = kLimits.inflated_bytes_max});
  if (!reader) return 0;
  RecordView record;
  std::int32_t count = 0;
  for (; reader->next(record); ++count) {
    FUZZ_ASSERT(record.offset_delta <= reader->header().last_offset_delta);
    if (record.key) consume(*record.key);
    if (record.value) consume(*record.value);
    std::size_t headers = 0;
    for (const HeaderView& header : record.headers) {
      consume(header.key);
      if (header.value) consume(*header.value);
      ++headers;
    }
    FUZZ_ASSERT(headers == record.headers.size());
  }
  whole = !reader->error();
  return count;
}

/// The fast way through the records may know less than the plain one, never something else.
void compare_ways(Bytes batch) {
  auto header = read_batch_header(batch, batch.size());
  if (!header || header->total_bytes() != batch.size() || !fused_check_available()) return;
  FusedCheck found = fused_check(batch, header->record_count, header->base_timestamp, header->max_timestamp);
  FUZZ_ASSERT(found.crc == batch_crc(batch));
  if (found.records_good) FUZZ_ASSERT(check_records(*header, batch.subspan(layout::kHeaderBytes)).has_value());
}

void one_batch(Bytes batch) {
  compare_ways(batch);
  auto header = validate_batch(batch, kLimits);
  bool whole = false;
  std::int32_t count = read_all(batch, true, whole);
  if (!header) return;
  FUZZ_ASSERT(header->total_bytes() == batch.size());
  FUZZ_ASSERT(whole && count == header->record_count);  // what the edge accepts, every consumer can read
}

std::string built(Compression compression, int records, std::size_t value_bytes, bool headers) {
  BatchBuilder builder{{.compression = compression}};
  std::string value(value_bytes, 'v');
  const HeaderView header_list[] = {{"trace", as_bytes("0123456789abcdef")}, {"", std::nullopt}, {"trace", Bytes{}}};
  for (int i = 0; i < records; ++i) {
    RecordInput record{.timestamp = 1'700'000'000'000 + i * 7 % 5, .key = {}, .value = as_bytes(value), .headers = {}};
    if (i % 3 != 0) record.key = as_bytes(std::string_view("order-1234").substr(0, static_cast<std::size_t>(i % 10)));
    if (i % 7 == 6) record.value.reset();
    if (headers) record.headers = header_list;
    if (!builder.add(record)) break;
  }
  auto batch = builder.finish({.producer_id = ProducerId{77}, .producer_epoch = ProducerEpoch{1}, .base_sequence = 3});
  return batch ? std::string(as_text(batch->bytes())) : std::string();
}

}  // namespace

std::map<std::string, std::string> seeds() {
  std::map<std::string, std::string> out;
  for (Compression compression : {Compression::none, Compression::lz4, Compression::zstd}) {
    std::string codec(name_of(compression));
    out[codec + "-one"] = built(compression, 1, 40, false);
    out[codec + "-headers"] = built(compression, 4, 30, true);
    out[codec + "-many"] = built(compression, 40, 20, false);
    out[codec + "-long"] = built(compression, 2, 900, true);
  }
  return out;
}

}  // namespace tailrace::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace tailrace::fuzz;
  tailrace::broker::Bytes bytes = input(data, size);
  one_batch(bytes);
  if (size < layout::kHeaderBytes) return 0;
  bool whole = false;
  read_all(bytes, false, whole);
  // A liar computes length and CRC too: make them agree, or nearly every input would end there.
  auto copy = std::make_unique<std::byte[]>(size);
  std::memcpy(copy.get(), data, size);
  tailrace::broker::MutableBytes sealed{copy.get(), size};
  store_be(sealed.data() + layout::kLength, static_cast<std::int32_t>(size - layout::kLengthPrefix));
  store_be(sealed.data() + layout::kMagic, layout::kMagicValue);
  store_be(sealed.data() + layout::kCrc, tailrace::broker::batch_crc(sealed));
  one_batch(sealed);
  return 0;
}
