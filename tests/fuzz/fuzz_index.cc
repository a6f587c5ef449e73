/// Segment index and snapshot files of any content. What is accepted is looked up and written again.
#include "log/segment_index.h"

#include "log/producer_state.h"
#include "log/segment_files.h"
#include "tests/fuzz/log_seal.h"

namespace tailrace::fuzz {
namespace {

using namespace broker;
using namespace broker::log;

void one_index(Bytes bytes) {
  auto decoded = SegmentIndex::decode(bytes);
  if (!decoded) return;
  SegmentIndex& index = decoded->index;
  consume(decoded->extra);
  std::vector<std::byte> written = index.encode(decoded->sealed, decoded->extra);
  FUZZ_ASSERT(as_text(written) == as_text(bytes) || SegmentIndex::decode(written).has_value());
  for (std::int64_t by : {std::int64_t{0}, std::int64_t{1}, std::int64_t{1} << 31}) {
    if (index.blocks() == 0) break;
    Offset wanted{index.base().value() > INT64_MAX - by ? INT64_MAX : index.base().value() + by};
    FUZZ_ASSERT(index.block_of(wanted) < index.blocks());
  }
  for (std::int64_t time : {INT64_MIN, std::int64_t{-1}, std::int64_t{0}, std::int64_t{1'700'000'000'000}, INT64_MAX}) {
    if (auto block = index.block_at_time(time)) FUZZ_ASSERT(*block < index.blocks());
  }
  std::uint32_t at = 0;
  for (std::size_t i = 0; i < index.blocks(); ++i) {
    SegmentIndex::Block block = index.block(i);
    FUZZ_ASSERT(block.begin == at && block.end > at);
    FUZZ_ASSERT(block.first >= index.base() && block.first < index.next());
    at = block.end;
  }
  FUZZ_ASSERT(at == index.covered());
}

void one_snapshot(Bytes bytes) {
  auto decoded = decode_snapshot(bytes);
  if (!decoded) return;
  consume(decoded->state);
  ProducerState producers;
  if (!producers.load(decoded->state)) return;
  // Sets have no order on the disk: the second writing is of what the first one said.
  ProducerState again;
  FUZZ_ASSERT(again.load(producers.snapshot()).has_value());
  FUZZ_ASSERT(again.size() == producers.size());
  static_cast<void>(producers.roll_back(Offset{5}));
}

}  // namespace

std::map<std::string, std::string> seeds() {
  std::map<std::string, std::string> out;
  std::string payload(3'000, 'p');
  auto index_of = [&](int batches, bool sealed, Bytes extra) {
    SegmentIndex index{Offset{100}};
    for (int i = 0; i < batches; ++i) {
      BatchHeader header{.base_offset = Offset{100 + 3 * i}, .length = static_cast<std::int32_t>(payload.size() - 12), .last_offset_delta = 2,
                         .max_timestamp = 1'700'000'000'000 + i * 1'000};
      index.add(header, as_bytes(payload), 1'700'000'000'000 + i * 1'000);
    }
    return std::string(as_text(index.encode(sealed, extra)));
  };
  out["index-empty"] = index_of(0, false, {});
  out["index-one"] = index_of(1, false, {});
  out["index-sealed"] = index_of(40, true, {});
  ProducerState producers;
  for (int i = 0; i < 20; ++i) {
    BatchHeader header{.base_offset = Offset{3 * i}, .last_offset_delta = 2, .producer_id = ProducerId{i % 3}, .producer_epoch = ProducerEpoch{0},
                       .base_sequence = i / 3 * 3, .record_count = 3};
    producers.apply(header, {}, WallTime{std::chrono::milliseconds{1'700'000'000'000 + i}});
  }
  out["index-with-producers"] = index_of(10, false, producers.snapshot());
  out["snapshot"] = std::string(as_text(encode_snapshot(Offset{60}, producers.snapshot())));
  out["snapshot-empty"] = std::string(as_text(encode_snapshot(Offset{0}, ProducerState{}.snapshot())));
  return out;
}

}  // namespace tailrace::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace tailrace::fuzz;
  one_index(input(data, size));
  one_snapshot(input(data, size));
  std::vector<std::byte> sealed(input(data, size).begin(), input(data, size).end());
  seal_trailing_crc(sealed);
  one_index(sealed);
  one_snapshot(sealed);
  return 0;
}
