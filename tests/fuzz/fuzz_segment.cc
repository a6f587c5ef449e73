/// A segment file of any content under a whole shard log on a simulated disk: opened, scanned, read to its end. Whatever
/// the file holds, what a reader gets are whole batches under their checksum, at the offsets it asked for.
///
/// Input: one byte of options, then the segment file. Options: 1 each batch's checksum is put right, 2 offsets are also made
/// to follow each other, 4 there is no index, 8 it is the segment still written to instead of the sealed one before it.
#include "codec/batch_builder.h"
#include "log/segment_files.h"
#include "log/data_directory.h"
#include "log/shard_log.h"
#include "tests/fuzz/log_seal.h"
#include "tests/support/lone_log.h"
#include "tests/support/sim_disk.h"

namespace tailrace::fuzz {
namespace {

using namespace broker;
using namespace broker::log;
namespace layout = broker::batch_layout;

constexpr int kBatches = 7;
constexpr std::size_t kValueBytes = 700;  // a segment of the smallest size is full after five

ShardLogOptions options() {
  // No directory id: the image was made under the id that its directory gave itself.
  return {.data_directory = "/data", .shard = {}, .directory_id = {}, .wal_file_bytes = limits::kWalFileBytesMin, .wal_files = 2,
          .hot_tail_bytes = limits::kMiB, .read_pool_bytes = limits::kMiB};
}
const PartitionOptions kPartition{.segment_bytes_max = limits::kSegmentBytesMin};
PartitionId partition() {
  PartitionId id;
  id.topic.bytes[15] = 9;
  return id;
}

Slice batch_of(int records) {
  codec::BatchBuilder builder{{}};
  std::string value(kValueBytes, 'v');
  for (int i = 0; i < records; ++i) {
    FUZZ_ASSERT(builder.add({.timestamp = 1'700'000'000'000 + i, .key = as_bytes("key"), .value = as_bytes(value), .headers = {}}).has_value());
  }
  auto batch = builder.finish({.producer_id = ProducerId{4}, .producer_epoch = ProducerEpoch{0}, .base_sequence = 0});
  FUZZ_ASSERT(batch.has_value());
  return *batch;
}

/// A disk on which a shard log with one partition was closed in good order.
const sim::DiskImage& good_image() {
  static const sim::DiskImage image = [] {
    sim::SimMachine machine{1};
    FUZZ_ASSERT(machine.loop.run(machine.disk.make_directory("/data")).has_value());
    FUZZ_ASSERT(machine.loop.run(machine.disk.sync_directory("/")).has_value());
    auto directory = machine.loop.run(DataDirectory::open(machine.runtime, "/data", 1));
    FUZZ_ASSERT(directory && *directory);
    auto opened = machine.loop.run(LoneShardLog::open(machine.runtime, options()));
    FUZZ_ASSERT(opened && *opened);
    auto made = machine.loop.run((**opened)->create(partition(), kPartition));
    FUZZ_ASSERT(made && *made);
    Partition& p = ***made;
    for (int i = 0; i < kBatches; ++i) {
      Slice batch = batch_of(1);
      auto header = read_batch_header(batch.bytes(), batch.length);
      FUZZ_ASSERT(header.has_value());
      auto appended = p.append(batch, *header, machine.loop.wall());
      FUZZ_ASSERT(appended.has_value());
      FUZZ_ASSERT(machine.loop.run(p.committed(appended->next_offset)).has_value());
    }
    made->value().reset();
    FUZZ_ASSERT(machine.loop.run((**opened)->close()));
    opened->value().reset();
    machine.loop.run_until_idle();
    return machine.disk.visible_image();
  }();
  return image;
}

/// Without its extension: the sealed segment, or the one that was still written to.
std::string segment_file(bool active) {
  std::vector<std::string> found = good_image().paths(partition_folder("/data", partition()));
  std::erase_if(found, [](const std::string& path) { return !path.ends_with(".log"); });
  FUZZ_ASSERT(found.size() >= 2);
  std::string path = active ? found.back() : found.front();
  return path.substr(0, path.size() - 4);
}

void open_and_read(Bytes segment, bool without_index, bool active) {
  sim::DiskImage image = good_image();
  std::string stem = segment_file(active);
  sim::Content& file = image.file(stem + ".log");
  // As long as the checkpoint says, or longer: a file cut short is one kind of damage, and most inputs would be that one.
  std::uint64_t size = std::max<std::uint64_t>(file.size(), segment.size());
  file.resize(0);
  file.resize(size);
  file.write(segment, 0);
  if (without_index) image.files.erase(stem + ".idx");

  sim::SimMachine machine{2, std::move(image)};
  auto opened = machine.loop.run(LoneShardLog::open(machine.runtime, options()));
  FUZZ_ASSERT(opened.has_value());
  if (!*opened) return;
  std::unique_ptr<ShardLog> log = std::move(**opened);
  {
    auto found = machine.loop.run(log->open_partition(partition(), kPartition));
    FUZZ_ASSERT(found.has_value());
    if (*found) {
      Partition& p = ***found;
      for (Offset at = p.log_start(); at < p.high_watermark();) {
        auto read = machine.loop.run(p.read(at, ReadLimits{.bytes_max = 64 * limits::kKiB}));
        FUZZ_ASSERT(read.has_value());
        if (!*read) break;
        FUZZ_ASSERT((*read)->next > at);  // or a reader would ask for ever
        for (const Slice& batch : (*read)->batches) {
          auto header = read_batch_header(batch.bytes(), limits::kMessageBytesCeiling);
          FUZZ_ASSERT(header.has_value() && header->total_bytes() == batch.length);
          FUZZ_ASSERT(header->next_offset() > at);
          FUZZ_ASSERT(batch_crc(batch.bytes()) == header->crc);
        }
        at = (*read)->next;
      }
      auto time = machine.loop.run(p.find_time(1'700'000'000'000));
      FUZZ_ASSERT(time.has_value());
    }
  }
  FUZZ_ASSERT(machine.loop.run(log->close()));
  log.reset();
  machine.loop.run_until_idle();
}

void seal_batches(MutableBytes bytes, bool chained, std::int64_t first) {
  std::int64_t next = 0;
  for (std::size_t at = 0; at + layout::kHeaderBytes <= bytes.size();) {
    std::byte* p = bytes.data() + at;
    auto length = load_be<std::int32_t>(p + layout::kLength);
    std::size_t left = bytes.size() - at;
    if (length < static_cast<std::int32_t>(layout::kHeaderBytes - layout::kLengthPrefix) || static_cast<std::size_t>(length) + layout::kLengthPrefix > left) return;
    MutableBytes batch = bytes.subspan(at, static_cast<std::size_t>(length) + layout::kLengthPrefix);
    if (chained) {
      store_be(p + layout::kBaseOffset, first + next);
      next += std::int64_t{std::max(load_be<std::int32_t>(p + layout::kLastOffsetDelta), 0)} + 1;
    }
    store_be(p + layout::kCrc, batch_crc(batch));
    at += batch.size();
  }
}

}  // namespace

std::map<std::string, std::string> seeds() {
  std::map<std::string, std::string> out;
  for (bool active : {false, true}) {
    std::vector<std::byte> bytes = good_image().file(segment_file(active) + ".log").bytes();
    std::string file(as_text(bytes));
    std::string whole = file.substr(0, file.find_last_not_of('\0') + 1), name = active ? "active" : "sealed";
    char segment = active ? 8 : 0;
    auto with = [&](int options, const std::string& content) { return std::string(1, static_cast<char>(segment | options)) + content; };
    out[name + "-as-written"] = with(0, whole);
    out[name + "-without-index"] = with(4, whole);
    out[name + "-put-right"] = with(7, whole);
    out[name + "-cut"] = with(4, whole.substr(0, whole.size() / 2));
  }
  out["sealed-small"] = std::string(1, '\7') + std::string(as_text(batch_of(1).bytes()));
  out["active-zeros"] = std::string(1, '\14') + std::string(200, '\0');
  return out;
}

}  // namespace tailrace::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace tailrace::fuzz;
  be_quiet();
  if (size == 0) return 0;
  std::string segment(reinterpret_cast<const char*>(data) + 1, size - 1);
  bool active = (data[0] & 8) != 0;
  if ((data[0] & 1) != 0) {
    auto base = parse_segment_name(segment_file(active).substr(partition_folder("/data", partition()).size() + 1) + ".log", "log");
    FUZZ_ASSERT(base.has_value());
    seal_batches(bytes_of(segment), (data[0] & 2) != 0, base->value());
  }
  open_and_read(as_bytes(segment), (data[0] & 4) != 0, active);
  return 0;
}
