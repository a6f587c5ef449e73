/// B8. Question: what does the whole check of a batch at the edge cost, against the CRC that no check can do without?
/// Ours: codec::validate_batch over whole batches. Reference: isa-l's CRC-32C alone over the bytes it covers. Unit: GB/s of
/// thread CPU time. Each call goes over about 1 MiB of different batches, so they come from the second-level cache.
/// Not measured: receiving the bytes, inflating, and memory that is colder than that.
#include <isa-l/crc.h>

#include <cstdlib>
#include <vector>

#include "base/random.h"
#include "bench/micro/bench_support.h"
#include "codec/batch_builder.h"
#include "codec/validate.h"

namespace {

using namespace tailrace;
using namespace tailrace::broker;

constexpr std::size_t kWorkingSet = limits::kMiB;

/// Batches that hold at most `batch_bytes`. Keys of 8 bytes; values of `value_bytes`, or between half and three halves of it.
std::vector<Slice> make_batches(std::size_t batch_bytes, std::size_t value_bytes, bool varied) {
  Random random{batch_bytes * 31 + value_bytes};
  std::vector<Slice> batches;
  std::string value(2 * value_bytes, 'v');
  for (char& c : value) c = static_cast<char>(random.next());
  std::int64_t clock = 1'700'000'000'000;
  for (std::size_t total = 0; total < kWorkingSet;) {
    codec::BatchBuilder builder{{.compression = Compression::none, .bytes_max = batch_bytes}};
    for (;;) {
      std::uint64_t key = random.next();
      std::size_t bytes = varied ? random.between(value_bytes / 2, value_bytes * 3 / 2) : value_bytes;
      codec::RecordInput record{.timestamp = clock += static_cast<std::int64_t>(random.below(3)),
                                .key = Bytes{reinterpret_cast<const std::byte*>(&key), sizeof key},
                                .value = as_bytes(value).first(bytes), .headers = {}};
      if (!builder.fits(record)) {
        if (!builder.empty()) break;
        record.value = record.value->first(batch_bytes - 100);  // one record fills the smallest batch
      }
      if (!builder.add(record)) std::abort();
    }
    auto batch = builder.finish({.producer_id = ProducerId{1}, .producer_epoch = ProducerEpoch{0}, .base_sequence = 0});
    if (!batch) std::abort();
    total += batch->length;
    batches.push_back(*batch);
  }
  return batches;
}

}  // namespace

int main(int argc, char** argv) {
  bool smoke = bench::take_smoke(argc, argv);
  std::vector<bench::Pair> pairs;
  struct Shape {
    std::size_t value_bytes;
    bool varied;
  };
  for (Shape shape : {Shape{1024, false}, Shape{100, false}, Shape{100, true}}) {
    for (std::size_t kib : {1, 4, 16, 64}) {
      auto batches = make_batches(kib * limits::kKiB, shape.value_bytes, shape.varied);
      std::size_t bytes = 0, records = 0;
      for (const Slice& batch : batches) {
        auto header = codec::validate_batch(batch.bytes(), {});
        if (!header) {
          fmt::print(stderr, "error: a batch of the benchmark is not valid: {}\n", header.error().detail);
          return 1;
        }
        bytes += batch.length;
        records += static_cast<std::size_t>(header->record_count);
      }
      auto ours = [batches] {
        std::uint64_t sum = 0;
        for (const Slice& batch : batches) {
          auto header = codec::validate_batch(batch.bytes(), {});
          sum = sum * 31 + (header ? header->crc : 0);
        }
        return sum;
      };
      auto reference = [batches] {
        std::uint64_t sum = 0;
        for (const Slice& batch : batches) {
          Bytes covered = batch.bytes().subspan(batch_layout::kAttributes);
          auto* data = const_cast<unsigned char*>(reinterpret_cast<const unsigned char*>(covered.data()));
          sum = sum * 31 + static_cast<std::uint32_t>(~crc32_iscsi(data, static_cast<int>(covered.size()), ~0u));
        }
        return sum;
      };
      if (ours() != reference()) {
        fmt::print(stderr, "error: the two do not compute the same CRCs\n");
        return 1;
      }
      pairs.push_back({fmt::format("batch={}KiB value={}{}B records/batch={}", kib, shape.varied ? "~" : "", shape.value_bytes,
                                   records / batches.size()),
                       bytes, ours, reference});
    }
  }
  return bench::run_pairs("b8_validate", 0.90, pairs, smoke);
}
