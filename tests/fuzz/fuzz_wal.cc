/// A WAL file of any content on a simulated disk: recovery answers, and what it says of each partition can be written into
/// a checkpoint and read back.
///
/// Input: one byte of options, then the file's data from the first frame on. Options: 1 the checksums are put right,
/// 2 frames are also made to follow each other, 4 the file's header comes from the input too (its first 104 bytes).
#include "log/recovery.h"

#include "codec/batch_builder.h"
#include "log/segment_files.h"
#include "tests/fuzz/log_seal.h"
#include "tests/support/sim_disk.h"

namespace tailrace::fuzz {
namespace {

using namespace broker;
using namespace broker::log;

constexpr std::uint64_t kFileBytes = limits::kWalFileBytesMin;
constexpr std::uint64_t kSalt = 0x5a17;

WalFileHeader file_header() {
  return {.shard = 0, .slot = 0, .sequence = 1, .file_bytes = kFileBytes, .salt = kSalt, .previous_end = 0, .first_frame = 1, .previous_header_crc = 0, .directory_id = {}};
}

void recover_from(Bytes data, std::string header) {
  sim::DiskImage image;
  std::string folder = shard_folder("/data", ShardIndex{0});
  std::string wal = folder + "/wal";
  for (const char* directory : {"/", "/data"}) image.directories.insert(directory);
  image.directories.insert(folder);
  image.directories.insert(wal);
  std::vector<std::byte> first = encode(Checkpoint{});
  image.files[checkpoint_path(folder, 0)].write(first, 0);
  sim::Content& file = image.files[wal_slot_path(wal, 0)];
  file.resize(kFileBytes);
  file.write(as_bytes(header), 0);
  file.write(as_bytes(header), kFileBytes - limits::kWalBlock);
  file.write(data.first(std::min<std::size_t>(data.size(), kFileBytes - 2 * limits::kWalBlock)), kWalDataStart);

  sim::SimMachine machine{1, std::move(image)};
  ShardLogOptions options{.data_directory = "/data", .shard = {}, .directory_id = {}, .wal_file_bytes = kFileBytes, .wal_files = 2};
  RecoveredShard shard;
  auto done = machine.loop.run(recover(machine.runtime, options, shard));
  FUZZ_ASSERT(done.has_value());  // it ends
  if (!*done) return;
  FUZZ_ASSERT(shard.next_frame > 0);
  Checkpoint checkpoint = shard.checkpoint;
  for (auto& [number, partition] : shard.partitions) {
    FUZZ_ASSERT(partition.state.number == number);
    bool fetched = machine.loop.run(fetch_tail(partition.tail, [](std::uint64_t) { return WalSource{}; })).has_value();
    FUZZ_ASSERT(fetched);  // it ends, with an error for what recovery did not keep
    for (const TailFrame& frame : partition.tail) {
      consume(frame.bytes.bytes());
      FUZZ_ASSERT(frame.base <= frame.next);
    }
    checkpoint.partitions.push_back(partition.state);
  }
  std::vector<std::byte> written = encode(checkpoint);
  consume(written);
}

/// Frames one after the other, as one commit.
class Frames {
 public:
  void add(FrameType type, std::string_view payload, FrameHeader h = {}) {
    h.type = type;
    h.length = static_cast<std::uint32_t>(payload.size());
    h.payload_crc = crc32c(as_bytes(payload));
    h.sequence = ++sequence_;
    h.file_sequence = 1;
    h.previous_crc = previous_;
    h.durable_lag = 1;
    std::string stored(h.stored_bytes(), '\0');
    encode(h, kSalt, bytes_of(stored));
    std::copy(payload.begin(), payload.end(), stored.begin() + kFrameHeaderBytes);
    previous_ = h.header_crc;
    text_ += stored;
  }
  /// Ends the commit: what follows begins at a block.
  void commit() { text_.resize(static_cast<std::size_t>(align_up(text_.size()))); }
  [[nodiscard]] std::string with(char options) const { return std::string(1, options) + text_; }

 private:
  std::string text_{};
  std::uint64_t sequence_ = 0;
  std::uint32_t previous_ = 0;
};

std::string little_endian(std::initializer_list<std::int64_t> numbers, std::size_t width) {
  std::string out;
  for (std::int64_t number : numbers) {
    for (std::size_t i = 0; i < width; ++i) out.push_back(static_cast<char>(static_cast<std::uint64_t>(number) >> (8 * i)));
  }
  return out;
}

std::string batch_at(std::int64_t offset) {
  codec::BatchBuilder builder{{}};
  bool added = builder.add({.timestamp = 1'700'000'000'000, .key = as_bytes("k"), .value = as_bytes("a value"), .headers = {}}).has_value();
  FUZZ_ASSERT(added);
  auto batch = builder.finish();
  FUZZ_ASSERT(batch.has_value());
  assign_batch(batch->mutable_bytes(), Offset{offset}, LeaderEpoch{1});
  return std::string(as_text(batch->bytes()));
}

void create(Frames& frames, std::uint32_t number) {
  frames.add(FrameType::partition_create, std::string(16, static_cast<char>('a' + number)) + little_endian({0}, 4), {.partition = number});
}

}  // namespace

std::map<std::string, std::string> seeds() {
  std::map<std::string, std::string> out;
  Frames frames;
  out["empty"] = frames.with(0);
  create(frames, 0);
  out["create"] = frames.with(1);
  frames.add(FrameType::hard_state, std::string(kHardStateBytes, '\0'), {.partition = 0, .term = LeaderEpoch{2}});
  frames.add(FrameType::term_start, "", {.partition = 0, .term = LeaderEpoch{2}, .sub = 1});
  std::uint32_t position = 0;
  for (int i = 0; i < 3; ++i) {
    std::string batch = batch_at(i);
    frames.add(FrameType::batch, batch, {.partition = 0, .base_offset = Offset{i}, .position = position, .term = LeaderEpoch{2}});
    position += static_cast<std::uint32_t>(batch.size());
  }
  out["batches"] = frames.with(3);
  Frames marks = frames;
  marks.add(FrameType::members, std::string(23, '\1'), {.partition = 0, .base_offset = Offset{3}, .position = position, .term = LeaderEpoch{2}, .sub = 1});
  marks.add(FrameType::log_start_entry, little_endian({1, 0}, 4), {.partition = 0, .base_offset = Offset{3}, .position = position, .term = LeaderEpoch{2}, .sub = 2});
  out["marks"] = marks.with(4);
  marks.add(FrameType::install, little_endian({1, 0, 0, 0}, 4), {.partition = 0, .base_offset = Offset{7}, .segment_base = Offset{7}, .term = LeaderEpoch{2}, .sub = 1});
  out["install"] = marks.with(5);
  Frames cut = frames;
  cut.add(FrameType::truncate, "", {.partition = 0, .base_offset = Offset{1}, .position = position / 3});
  cut.add(FrameType::batch, batch_at(1), {.partition = 0, .base_offset = Offset{1}, .position = position / 3});
  cut.add(FrameType::log_start, "", {.partition = 0, .base_offset = Offset{1}});
  out["truncate"] = cut.with(3);
  Frames more = frames;
  more.commit();
  more.add(FrameType::remainder, batch_at(0), {.partition = 0, .base_offset = Offset{3}, .position = 0});
  more.add(FrameType::mark, "");
  more.add(FrameType::skip_damage, little_endian({1, 2, 5, 9}, 8), {.partition = 0});
  more.add(FrameType::file_prepared, little_endian({2, 99}, 8) + little_endian({1, 0}, 4));
  out["remainder"] = more.with(3);
  create(more, 1);
  more.add(FrameType::partition_delete, "", {.partition = 0});
  out["delete"] = more.with(1);
  std::string header(kWalFileHeaderBytes, '\0');
  encode(file_header(), bytes_of(header));
  out["own-header"] = frames.with(7).insert(1, header);
  return out;
}

}  // namespace tailrace::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace tailrace::fuzz;
  be_quiet();
  if (size == 0) return 0;
  unsigned options = data[0];
  std::string rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  std::string header(kWalFileHeaderBytes, '\0');
  encode(file_header(), bytes_of(header));
  std::uint64_t salt = kSalt;
  std::uint32_t file_sequence = 1;
  if ((options & 4) != 0 && rest.size() >= kWalFileHeaderBytes) {
    header = rest.substr(0, kWalFileHeaderBytes);
    rest.erase(0, kWalFileHeaderBytes);
    seal_trailing_crc(bytes_of(header));
    auto decoded = decode_wal_file_header(as_bytes(header));
    // A file of another size than the disk gave it reads as zeros behind its end: true, slow, and nothing to find.
    if (!decoded || decoded->file_bytes != kFileBytes) return 0;
    salt = decoded->salt;
    file_sequence = static_cast<std::uint32_t>(decoded->sequence);
  }
  if ((options & 1) != 0) seal_frames(bytes_of(rest), salt, file_sequence, (options & 2) != 0);
  recover_from(as_bytes(rest), header);
  return 0;
}
