#include "log/checkpoint.h"

#include <fmt/format.h>

#include <optional>
#include <utility>

#include "base/buffer.h"
#include "base/crc32c.h"
#include "base/planted.h"
#include "log/segment_files.h"
#include "log/wal_format.h"

namespace tailrace::broker::log {
namespace {

constexpr std::uint32_t kMagic = 0x50435254;  // "TRCP"
constexpr std::uint16_t kVersion = 1;
constexpr std::size_t kHistoryBytes = 24;
constexpr std::size_t kMarkBytes = 32;
constexpr std::size_t kHeader = 104;
constexpr std::size_t kPartitionBytes = 160 + kHistoryBytes;  // without lists
constexpr std::size_t kTermBytes = 16;
constexpr std::size_t kHoleBytes = 24;

/// Appends fields front to back.
class Writer {
 public:
  explicit Writer(std::vector<std::byte>& out) : out_{out} {}
  template <class T>
  void le(T value) {
    out_.resize(out_.size() + sizeof value);
    store_le(out_.data() + out_.size() - sizeof value, value);
  }
  template <std::size_t N>
  void raw(const std::array<std::uint8_t, N>& bytes) {
    for (auto b : bytes) out_.push_back(std::byte{b});
  }
  void bytes(Bytes bytes) { out_.insert(out_.end(), bytes.begin(), bytes.end()); }

 private:
  std::vector<std::byte>& out_;
};

void encode_history(const PartitionCheckpoint& p, Writer& w) {
  w.le(p.history.position.offset.value());
  w.le(p.history.position.sub);
  w.le(p.history.term.value());
  w.le(static_cast<std::uint32_t>(p.history.members.size()));
  w.le(static_cast<std::uint32_t>(p.marks.size()));
  w.bytes(p.history.members);
  for (const Mark& m : p.marks) {
    w.le(m.begin.offset.value());
    w.le(m.begin.sub);
    w.le(m.term.value());
    w.le(static_cast<std::uint32_t>(m.kind));
    w.le(static_cast<std::uint32_t>(m.members.size()));
    w.le(m.log_start.value());
    w.bytes(m.members);
  }
}

bool take_members(ByteReader& in, std::uint32_t size, std::vector<std::byte>& into) {
  if (size > kMembersBytesMax || size > in.remaining()) return false;
  Bytes bytes = in.take(size);
  into.assign(bytes.begin(), bytes.end());
  return true;
}

bool decode_history(ByteReader& in, PartitionCheckpoint& p) {
  if (in.remaining() < kHistoryBytes) return false;
  p.history.position.offset = Offset{in.le<std::int64_t>()};
  p.history.position.sub = in.le<std::uint32_t>();
  p.history.term = LeaderEpoch{in.le<std::int32_t>()};
  auto members = in.le<std::uint32_t>();
  auto marks = in.le<std::uint32_t>();
  if (p.history.position.offset.value() < 0 || !take_members(in, members, p.history.members) || marks > in.remaining() / kMarkBytes) return false;
  p.marks.reserve(marks);
  for (std::uint32_t i = 0; i < marks; ++i) {
    if (in.remaining() < kMarkBytes) return false;
    Mark m;
    m.begin.offset = Offset{in.le<std::int64_t>()};
    m.begin.sub = in.le<std::uint32_t>();
    m.term = LeaderEpoch{in.le<std::int32_t>()};
    auto kind = in.le<std::uint32_t>();
    auto size = in.le<std::uint32_t>();
    m.log_start = Offset{in.le<std::int64_t>()};
    bool known = kind == static_cast<std::uint32_t>(MarkKind::members) || kind == static_cast<std::uint32_t>(MarkKind::log_start);
    if (!known || m.begin.offset.value() < 0 || !take_members(in, size, m.members)) return false;
    m.kind = static_cast<MarkKind>(kind);
    if (!p.marks.empty() && m.begin <= p.marks.back().begin) return false;
    p.marks.push_back(std::move(m));
  }
  return true;
}

void encode_partition(const PartitionCheckpoint& p, Writer& w) {
  HardState hard = planted(PlantedBug::checkpoint_without_term) ? HardState{} : p.hard;
  std::array<std::byte, kHardStateBytes> state{};
  encode(hard, state);
  w.le(p.number);
  w.le(p.id.index.value());
  w.raw(p.id.topic.bytes);
  w.le(hard.term.value());
  w.bytes(state);
  w.le(p.hard_frame);
  w.le(p.log_start.value());
  w.le(p.commit.offset.value());
  w.le(p.commit.sub);
  w.le(p.flushed_segment.value());
  w.le(p.flushed_offset.value());
  w.le(p.last_append_ms);
  w.le(p.applied_through);
  w.le(p.snapshot.value());
  w.le(p.flushed_position);
  w.le((p.removed ? 1U : 0U) | (p.first_digest ? 2U : 0U) | (p.flushed_digest ? 4U : 0U));
  w.le(static_cast<std::uint32_t>(p.terms.size()));
  w.le(static_cast<std::uint32_t>(p.holes.size()));
  w.le(p.first_digest.value_or(0));
  w.le(p.flushed_digest.value_or(0));
  for (const TermEntry& t : p.terms) {
    w.le(t.term.value());
    w.le(t.sub);
    w.le(t.start.value());
  }
  for (const Hole& h : p.holes) {
    w.le(h.from.value());
    w.le(h.to.value());
    w.le(std::uint64_t{h.accepted ? 1U : 0U});
  }
  encode_history(p, w);
}

bool decode_partition(ByteReader& in, PartitionCheckpoint& p) {
  p.number = in.le<std::uint32_t>();
  p.id.index = PartitionIndex{in.le<std::int32_t>()};
  Bytes topic = in.take(p.id.topic.bytes.size());
  if (topic.size() == p.id.topic.bytes.size()) std::memcpy(p.id.topic.bytes.data(), topic.data(), topic.size());
  LeaderEpoch term{in.le<std::int32_t>()};
  auto hard = decode_hard_state(in.take(kHardStateBytes), term);
  if (!hard) return false;
  p.hard = *hard;
  p.hard_frame = in.le<std::uint64_t>();
  p.log_start = Offset{in.le<std::int64_t>()};
  p.commit.offset = Offset{in.le<std::int64_t>()};
  p.commit.sub = in.le<std::uint32_t>();
  p.flushed_segment = Offset{in.le<std::int64_t>()};
  p.flushed_offset = Offset{in.le<std::int64_t>()};
  p.last_append_ms = in.le<std::int64_t>();
  p.applied_through = in.le<std::uint64_t>();
  p.snapshot = Offset{in.le<std::int64_t>()};
  p.flushed_position = in.le<std::uint32_t>();
  auto state = in.le<std::uint32_t>();
  auto terms = in.le<std::uint32_t>();
  auto holes = in.le<std::uint32_t>();
  auto first = in.le<std::uint32_t>();
  auto flushed = in.le<std::uint32_t>();
  if (!in.ok() || state > 7 || terms > kTermsMax || holes > kHolesMax) return false;
  if (in.remaining() < terms * kTermBytes + holes * kHoleBytes) return false;
  p.removed = (state & 1) != 0;
  if ((state & 2) != 0) p.first_digest = first;
  if ((state & 4) != 0) p.flushed_digest = flushed;
  p.terms.reserve(terms);
  for (std::uint32_t i = 0; i < terms; ++i) {
    TermEntry t;
    t.term = LeaderEpoch{in.le<std::int32_t>()};
    t.sub = in.le<std::uint32_t>();
    t.start = Offset{in.le<std::int64_t>()};
    p.terms.push_back(t);
  }
  for (std::uint32_t i = 0; i < holes; ++i) {
    Hole h;
    h.from = Offset{in.le<std::int64_t>()};
    h.to = Offset{in.le<std::int64_t>()};
    auto flags = in.le<std::uint64_t>();
    if (flags > 1) return false;
    h.accepted = flags == 1;
    p.holes.push_back(h);
  }
  if (!decode_history(in, p)) return false;
  return p.log_start.value() >= 0 && p.commit.offset.value() >= 0 && p.flushed_segment.value() >= 0 && p.flushed_offset >= p.flushed_segment &&
         p.id.index.value() >= 0;
}

}  // namespace

std::vector<std::byte> encode(const Checkpoint& c) {
  std::vector<std::byte> out;
  out.reserve(kHeader + c.partitions.size() * (kPartitionBytes + kTermBytes) + 4);
  Writer w{out};
  w.le(kMagic);
  w.le(kVersion);
  w.le(std::uint16_t{c.clean ? std::uint16_t{1} : std::uint16_t{0}});
  w.le(std::uint64_t{0});  // total bytes, below
  w.le(c.sequence);
  w.le(c.shard);
  w.le(c.slots);
  w.raw(c.directory_id);
  w.le(c.wal_file_bytes);
  w.le(c.oldest_file);
  w.le(c.newest_file);
  w.le(c.durable_frame);
  w.le(c.next_number);
  w.le(static_cast<std::uint32_t>(c.partitions.size()));
  w.le(c.oldest_frame);
  w.le(c.incarnation);
  for (const PartitionCheckpoint& p : c.partitions) encode_partition(p, w);
  store_le(out.data() + 8, std::uint64_t{out.size() + 4});
  w.le(crc32c(out));
  return out;
}

Result<Checkpoint> decode_checkpoint(Bytes bytes) {
  ByteReader in{bytes};
  auto magic = in.le<std::uint32_t>();
  auto version = in.le<std::uint16_t>();
  auto flags = in.le<std::uint16_t>();
  auto total = in.le<std::uint64_t>();
  if (!in.ok() || magic != kMagic) return fail(Errc::corrupt, "checkpoint: magic");
  bool fits = total <= bytes.size() || planted(PlantedBug::decoder_length);
  if (total < kHeader + 4 || !fits) return fail(Errc::corrupt, "checkpoint: length");
  if (load_le<std::uint32_t>(bytes.data() + total - 4) != crc32c(bytes.first(total - 4))) return fail(Errc::corrupt, "checkpoint: CRC");
  if (version > kVersion) return fail(Errc::newer_format, "checkpoint");
  if (version != kVersion || flags > 1) return fail(Errc::corrupt, "checkpoint: version or flags");
  in = ByteReader{bytes.subspan(16, total - 20)};
  Checkpoint c;
  c.clean = flags == 1;
  c.sequence = in.le<std::uint64_t>();
  c.shard = in.le<std::uint32_t>();
  c.slots = in.le<std::uint32_t>();
  Bytes directory = in.take(c.directory_id.size());
  if (directory.size() == c.directory_id.size()) std::memcpy(c.directory_id.data(), directory.data(), directory.size());
  c.wal_file_bytes = in.le<std::uint64_t>();
  c.oldest_file = in.le<std::uint64_t>();
  c.newest_file = in.le<std::uint64_t>();
  c.durable_frame = in.le<std::uint64_t>();
  c.next_number = in.le<std::uint32_t>();
  auto count = in.le<std::uint32_t>();
  c.oldest_frame = in.le<std::uint64_t>();
  c.incarnation = in.le<std::uint64_t>();
  bool sane = in.ok() && c.slots <= static_cast<std::uint32_t>(limits::kWalSlotsMax) && count <= in.remaining() / kPartitionBytes;
  if (!sane) return fail(Errc::corrupt, "checkpoint: a field is out of range");
  c.partitions.reserve(count);
  for (std::uint32_t i = 0; i < count; ++i) {
    PartitionCheckpoint p;
    if (!decode_partition(in, p)) return fail(Errc::corrupt, fmt::format("checkpoint: partition entry {}", i));
    c.partitions.push_back(std::move(p));
  }
  if (in.remaining() != 0) return fail(Errc::corrupt, "checkpoint: longer than its count");
  return c;
}

std::string checkpoint_path(const std::string& shard_folder, int copy) { return fmt::format("{}/checkpoint-{}", shard_folder, copy); }

namespace {

Task<Result<Checkpoint>> read_copy(io::Runtime& runtime, std::string path) {
  io::OpenOptions options{.direct = true};
  TAILRACE_CO_TRY(auto file, co_await runtime.files.open(path, options));
  TAILRACE_CO_TRY(std::uint64_t size, file->size());
  std::size_t room = static_cast<std::size_t>(std::min<std::uint64_t>(size, kCheckpointBytesMax));
  Buffer buffer = Buffer::allocate(align_up(room + 1), io::kDirectAlignment);
  TAILRACE_CO_TRY(std::size_t got, co_await io::read_up_to(*file, buffer.bytes(), 0));
  co_return decode_checkpoint(Bytes{buffer.data(), got});
}

}  // namespace

Task<Result<LoadedCheckpoint>> load_checkpoint(io::Runtime& runtime, std::string shard_folder, std::optional<CheckpointOwner> owner) {
  LoadedCheckpoint best;
  std::optional<Error> refused;  // a copy that could not be read: nothing is known of it
  std::string why;
  for (int copy = 0; copy < 2; ++copy) {
    auto read = co_await read_copy(runtime, checkpoint_path(shard_folder, copy));
    bool foreign = read && owner && (read->shard != owner->shard || read->directory_id != owner->directory_id);
    if (foreign) read = fail(Errc::corrupt, fmt::format("copy {} was written by shard {} of another place", copy, read->shard));
    if (!read) {
      Errc code = read.error().code;
      if (code == Errc::not_found) continue;
      if (code == Errc::descriptors_exhausted || code == Errc::newer_format) co_return std::unexpected(read.error());
      ++best.bad_copies;
      if (code != Errc::corrupt) refused = read.error();
      why = read.error().detail;
      continue;
    }
    best.copies.sound[static_cast<std::size_t>(copy)] = true;
    if (!best.found || read->sequence > best.checkpoint.sequence) {
      best.found = true;
      best.checkpoint = *std::move(read);
      best.copies.newest = copy;
      best.copies.sequence = best.checkpoint.sequence;
    }
  }
  if (!best.found && refused) co_return std::unexpected(*std::move(refused));
  if (!best.found && best.bad_copies > 0) co_return fail(Errc::corrupt, shard_folder + ": no checkpoint copy is valid (" + why + ")");
  co_return best;
}

namespace {

Task<Result<std::uint64_t>> overwrite(io::Runtime& runtime, std::string path, Bytes blocks) {
  io::OpenOptions options{.write = true, .direct = true};
  TAILRACE_CO_TRY(auto file, co_await runtime.files.open(path, options));
  TAILRACE_CO_TRY_VOID(co_await io::write_all(*file, blocks, 0, io::Durable::no));
  TAILRACE_CO_TRY_VOID(co_await io::sync(*file));
  co_return blocks.size();
}

}  // namespace

Task<Result<std::uint64_t>> write_checkpoint_copies(io::Runtime& runtime, std::string shard_folder, CheckpointCopies& copies, Checkpoint& checkpoint) {
  std::uint64_t written = 0;
  for (int i = 0; i < 2; ++i) {
    checkpoint.sequence = copies.sequence + 1;
    std::vector<std::byte> bytes = encode(checkpoint);
    if (bytes.size() > kCheckpointBytesMax) co_return fail(Errc::too_large, "checkpoint");
    int copy = 1 - copies.newest;
    std::string path = checkpoint_path(shard_folder, copy);
    bool& sound = copies.sound[static_cast<std::size_t>(copy)];
    bool in_place = std::exchange(sound, false);
    if (in_place) {
      Buffer blocks = Buffer::allocate(align_up(bytes.size()), io::kDirectAlignment);
      std::memcpy(blocks.data(), bytes.data(), bytes.size());
      std::memset(blocks.data() + bytes.size(), 0, blocks.size() - bytes.size());
      TAILRACE_CO_TRY(std::uint64_t done, co_await overwrite(runtime, path, blocks.bytes()));
      written += done;
    } else {
      written += bytes.size();
      TAILRACE_CO_TRY_VOID(co_await replace_file(runtime, path, std::move(bytes)));
      TAILRACE_CO_TRY_VOID(co_await runtime.files.sync_directory(shard_folder));
    }
    sound = true;
    copies.newest = copy;
    copies.sequence = checkpoint.sequence;
  }
  co_return written;
}

}  // namespace tailrace::broker::log
