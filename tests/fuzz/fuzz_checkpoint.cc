/// A checkpoint of any content: refused, or a value that says the same when it is written again.
#include "log/checkpoint.h"

#include "tests/fuzz/log_seal.h"

namespace tailrace::fuzz {
namespace {

using namespace broker;
using namespace broker::log;

void one(Bytes bytes) {
  auto decoded = decode_checkpoint(bytes);
  if (!decoded) return;
  std::vector<std::byte> written = encode(*decoded);
  auto again = decode_checkpoint(written);
  FUZZ_ASSERT(again.has_value());
  FUZZ_ASSERT(encode(*again) == written);
}

}  // namespace

std::map<std::string, std::string> seeds() {
  std::map<std::string, std::string> out;
  Checkpoint c;
  c.sequence = 7;
  c.slots = 3;
  c.wal_file_bytes = 64 * limits::kKiB;
  auto text = [&] {
    std::vector<std::byte> bytes = encode(c);
    return std::string(as_text(bytes));
  };
  out["empty"] = text();
  PartitionCheckpoint p;
  p.id.index = PartitionIndex{2};
  p.flushed_offset = Offset{10};
  p.commit = {Offset{10}, 1};
  c.partitions.push_back(p);
  out["one"] = text();
  c.partitions[0].terms = {{LeaderEpoch{1}, Offset{0}, 0}, {LeaderEpoch{4}, Offset{6}, 1}};
  c.partitions[0].holes = {{Offset{3}, Offset{5}, false}, {Offset{8}, Offset{8}, true}};
  c.partitions[0].removed = true;
  c.partitions[0].history = {.position = {Offset{1}, 1}, .term = LeaderEpoch{1}, .members = std::vector<std::byte>(23)};
  c.partitions[0].marks = {{.begin = {Offset{6}, 1}, .term = LeaderEpoch{4}, .kind = MarkKind::members, .members = std::vector<std::byte>(44)},
                           {.begin = {Offset{7}, 0}, .term = LeaderEpoch{4}, .kind = MarkKind::log_start, .log_start = Offset{3}}};
  c.partitions.push_back(p);
  c.clean = true;
  out["terms-and-holes"] = text();
  out["padded"] = text() + std::string(100, '\0');  // as on the disk: zeros up to the block
  for (int i = 0; i < 10; ++i) c.partitions.push_back(p);
  out["many"] = text();
  return out;
}

}  // namespace tailrace::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace tailrace::fuzz;
  one(input(data, size));
  std::string copy(reinterpret_cast<const char*>(data), size);
  std::vector<std::byte> sealed(as_bytes(copy).begin(), as_bytes(copy).end());
  // The length field says where the CRC stands; where it does not fit, the whole input is taken.
  if (size >= 20) {
    auto total = load_le<std::uint64_t>(sealed.data() + 8);
    std::size_t end = total >= 20 && total <= size ? static_cast<std::size_t>(total) : size;
    seal_trailing_crc(MutableBytes{sealed}.first(end));
    one(sealed);
  }
  return 0;
}
