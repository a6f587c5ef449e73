#include "log/wal_format.h"

#include <algorithm>

#include "base/crc32c.h"
#include "base/planted.h"

namespace tailrace::broker::log {
namespace {

// File header: offsets of fields.
constexpr std::size_t kMagicAt = 0, kVersionAt = 4, kFlagsAt = 6, kShardAt = 8, kSlotAt = 12, kSequenceAt = 16, kFileBytesAt = 24,
                      kSaltAt = 32, kPreviousEndAt = 40, kFirstFrameAt = 48, kPreviousCrcAt = 56, kReservedAt = 60,
                      kDirectoryAt = 64, kZeroAt = 80, kFileCrcAt = 100;
static_assert(kFileCrcAt + 4 == kWalFileHeaderBytes);

// Frame header.
constexpr std::size_t kTypeAt = 2, kFrameFlagsAt = 3, kHeaderCrcAt = 4, kPayloadCrcAt = 8, kLengthAt = 12, kFrameSequenceAt = 16,
                      kFileSequenceAt = 24, kChainAt = 28, kLagAt = 32, kPartitionAt = 36, kBaseOffsetAt = 40, kSegmentAt = 48,
                      kPositionAt = 56, kTermAt = 60, kTimeAt = 64, kSubAt = 72, kFrameReservedAt = 76;
static_assert(kFrameReservedAt + 4 == kFrameHeaderBytes);

std::uint32_t frame_crc(Bytes header, std::uint64_t salt) {
  if (planted(PlantedBug::accept_stale_frame)) salt = 0;
  // The salt, then the header without its CRC; put together, since one call is quicker than three.
  constexpr std::size_t kRest = kFrameHeaderBytes - kPayloadCrcAt;
  std::array<std::byte, 8 + kHeaderCrcAt + kRest> all;
  store_le(all.data(), salt);
  std::memcpy(all.data() + 8, header.data(), kHeaderCrcAt);
  std::memcpy(all.data() + 8 + kHeaderCrcAt, header.data() + kPayloadCrcAt, kRest);
  return crc32c(all);
}

}  // namespace

void encode(const WalFileHeader& header, MutableBytes into) {
  std::byte* p = into.data();
  std::memset(p, 0, kWalFileHeaderBytes);
  store_le(p + kMagicAt, kWalFileMagic);
  store_le(p + kVersionAt, kWalVersion);
  store_le(p + kShardAt, header.shard);
  store_le(p + kSlotAt, header.slot);
  store_le(p + kSequenceAt, header.sequence);
  store_le(p + kFileBytesAt, header.file_bytes);
  store_le(p + kSaltAt, header.salt);
  store_le(p + kPreviousEndAt, header.previous_end);
  store_le(p + kFirstFrameAt, header.first_frame);
  store_le(p + kPreviousCrcAt, header.previous_header_crc);
  std::memcpy(p + kDirectoryAt, header.directory_id.data(), header.directory_id.size());
  store_le(p + kFileCrcAt, crc32c(into.first(kFileCrcAt)));
}

Result<WalFileHeader> decode_wal_file_header(Bytes from) {
  if (from.size() < kWalFileHeaderBytes) return fail(Errc::corrupt, "WAL file header: too short");
  const std::byte* p = from.data();
  if (load_le<std::uint32_t>(p + kMagicAt) != kWalFileMagic) return fail(Errc::corrupt, "WAL file header: magic");
  if (load_le<std::uint32_t>(p + kFileCrcAt) != crc32c(from.first(kFileCrcAt))) return fail(Errc::corrupt, "WAL file header: CRC");
  auto version = load_le<std::uint16_t>(p + kVersionAt);
  if (version > kWalVersion) return fail(Errc::newer_format, "WAL file header");
  bool reserved = load_le<std::uint16_t>(p + kFlagsAt) != 0 || load_le<std::uint32_t>(p + kReservedAt) != 0;
  for (std::size_t i = kZeroAt; i < kFileCrcAt; ++i) reserved |= p[i] != std::byte{0};
  if (version != kWalVersion || reserved) return fail(Errc::corrupt, "WAL file header: version or reserved bytes");
  WalFileHeader h;
  h.shard = load_le<std::uint32_t>(p + kShardAt);
  h.slot = load_le<std::uint32_t>(p + kSlotAt);
  h.sequence = load_le<std::uint64_t>(p + kSequenceAt);
  h.file_bytes = load_le<std::uint64_t>(p + kFileBytesAt);
  h.salt = load_le<std::uint64_t>(p + kSaltAt);
  h.previous_end = load_le<std::uint64_t>(p + kPreviousEndAt);
  h.first_frame = load_le<std::uint64_t>(p + kFirstFrameAt);
  h.previous_header_crc = load_le<std::uint32_t>(p + kPreviousCrcAt);
  std::memcpy(h.directory_id.data(), p + kDirectoryAt, h.directory_id.size());
  bool sane = h.sequence > 0 && h.file_bytes >= limits::kWalFileBytesMin && h.file_bytes <= limits::kWalFileBytesMax &&
              h.file_bytes % limits::kWalBlock == 0 && h.previous_end <= limits::kWalFileBytesMax &&
              h.slot < static_cast<std::uint32_t>(limits::kWalSlotsMax);
  if (!sane) return fail(Errc::corrupt, "WAL file header: a field is out of range");
  return h;
}

std::string_view name_of(FrameType type) {
  switch (type) {
    case FrameType::batch: return "batch";
    case FrameType::hard_state: return "hard_state";
    case FrameType::term_start: return "term_start";
    case FrameType::truncate: return "truncate";
    case FrameType::log_start: return "log_start";
    case FrameType::remainder: return "remainder";
    case FrameType::partition_create: return "partition_create";
    case FrameType::partition_delete: return "partition_delete";
    case FrameType::mark: return "mark";
    case FrameType::file_prepared: return "file_prepared";
    case FrameType::skip_damage: return "skip_damage";
    case FrameType::members: return "members";
    case FrameType::log_start_entry: return "log_start_entry";
    case FrameType::install: return "install";
  }
  return "unknown";
}

bool is_known(FrameType type) { return type >= FrameType::batch && type <= FrameType::install; }

void encode(FrameHeader& header, std::uint64_t salt, MutableBytes into) {
  std::byte* p = into.data();
  store_le(p, kFrameMagic);
  store_le(p + kTypeAt, static_cast<std::uint8_t>(header.type));
  store_le(p + kFrameFlagsAt, header.flags);
  store_le(p + kPayloadCrcAt, header.payload_crc);
  store_le(p + kLengthAt, header.length);
  store_le(p + kFrameSequenceAt, header.sequence);
  store_le(p + kFileSequenceAt, header.file_sequence);
  store_le(p + kChainAt, header.previous_crc);
  store_le(p + kLagAt, header.durable_lag);
  store_le(p + kPartitionAt, header.partition);
  store_le(p + kBaseOffsetAt, header.base_offset.value());
  store_le(p + kSegmentAt, header.segment_base.value());
  store_le(p + kPositionAt, header.position);
  store_le(p + kTermAt, header.term.value());
  store_le(p + kTimeAt, header.append_time_ms);
  store_le(p + kSubAt, header.sub);
  store_le(p + kFrameReservedAt, std::uint32_t{0});
  header.header_crc = frame_crc(into, salt);
  store_le(p + kHeaderCrcAt, header.header_crc);
}

Result<FrameHeader> decode_frame_header(Bytes from, std::uint64_t salt) {
  if (from.size() < kFrameHeaderBytes) return fail(Errc::corrupt, "frame: too short");
  const std::byte* p = from.data();
  if (load_le<std::uint16_t>(p) != kFrameMagic) return fail(Errc::corrupt, "frame: magic");
  FrameHeader h;
  h.header_crc = load_le<std::uint32_t>(p + kHeaderCrcAt);
  if (h.header_crc != frame_crc(from, salt)) return fail(Errc::corrupt, "frame: header CRC");
  h.type = static_cast<FrameType>(load_le<std::uint8_t>(p + kTypeAt));
  h.flags = load_le<std::uint8_t>(p + kFrameFlagsAt);
  h.payload_crc = load_le<std::uint32_t>(p + kPayloadCrcAt);
  h.length = load_le<std::uint32_t>(p + kLengthAt);
  h.sequence = load_le<std::uint64_t>(p + kFrameSequenceAt);
  h.file_sequence = load_le<std::uint32_t>(p + kFileSequenceAt);
  h.previous_crc = load_le<std::uint32_t>(p + kChainAt);
  h.durable_lag = load_le<std::uint32_t>(p + kLagAt);
  h.partition = load_le<std::uint32_t>(p + kPartitionAt);
  h.base_offset = Offset{load_le<std::int64_t>(p + kBaseOffsetAt)};
  h.segment_base = Offset{load_le<std::int64_t>(p + kSegmentAt)};
  h.position = load_le<std::uint32_t>(p + kPositionAt);
  h.term = LeaderEpoch{load_le<std::int32_t>(p + kTermAt)};
  h.append_time_ms = load_le<std::int64_t>(p + kTimeAt);
  h.sub = load_le<std::uint32_t>(p + kSubAt);
  bool sane = h.sequence > 0 && h.length <= kFramePayloadMax && load_le<std::uint32_t>(p + kFrameReservedAt) == 0;
  if (!sane) return fail(Errc::corrupt, "frame: a field is out of range");
  return h;
}

namespace {

constexpr std::size_t kVoteDirectoryAt = 4, kSuspicionAt = 20, kFloorTermAt = 24, kFloorSubAt = 28, kFloorOffsetAt = 32;
static_assert(kFloorOffsetAt + 8 == kHardStateBytes);

}  // namespace

Buffer encode(const InstallPayload& payload) {
  Buffer out = Buffer::allocate(12 + payload.members.size() + payload.producers.size());
  store_le(out.data(), payload.log_start.value());
  store_le(out.data() + 8, static_cast<std::uint32_t>(payload.members.size()));
  if (!payload.members.empty()) std::memcpy(out.data() + 12, payload.members.data(), payload.members.size());
  if (!payload.producers.empty()) std::memcpy(out.data() + 12 + payload.members.size(), payload.producers.data(), payload.producers.size());
  return out;
}

Result<InstallPayload> decode_install(Bytes from) {
  ByteReader in{from};
  InstallPayload out{.log_start = Offset{in.le<std::int64_t>()}, .members = {}, .producers = {}};
  auto members = in.le<std::uint32_t>();
  if (!in.ok() || members > kMembersBytesMax || members > in.remaining() || out.log_start < Offset{0}) return fail(Errc::corrupt, "install: members");
  out.members = in.take(members);
  out.producers = in.take(in.remaining());
  return out;
}

void encode(const HardState& state, MutableBytes into) {
  std::byte* p = into.data();
  std::memset(p, 0, kHardStateBytes);
  store_le(p, state.vote_node.value());
  std::memcpy(p + kVoteDirectoryAt, state.vote_directory.data(), state.vote_directory.size());
  store_le(p + kSuspicionAt, state.suspicion);
  store_le(p + kFloorTermAt, state.floor_term.value());
  store_le(p + kFloorSubAt, state.floor.sub);
  store_le(p + kFloorOffsetAt, state.floor.offset.value());
}

Result<HardState> decode_hard_state(Bytes from, LeaderEpoch term) {
  if (from.size() != kHardStateBytes) return fail(Errc::corrupt, "hard state: length");
  const std::byte* p = from.data();
  HardState out{.term = term, .vote_node = NodeId{load_le<std::int32_t>(p)}};
  std::memcpy(out.vote_directory.data(), p + kVoteDirectoryAt, out.vote_directory.size());
  out.suspicion = load_le<std::uint8_t>(p + kSuspicionAt);
  out.floor_term = LeaderEpoch{load_le<std::int32_t>(p + kFloorTermAt)};
  out.floor = {Offset{load_le<std::int64_t>(p + kFloorOffsetAt)}, load_le<std::uint32_t>(p + kFloorSubAt)};
  if (out.suspicion > kLost || out.floor.offset < Offset{0}) return fail(Errc::corrupt, "hard state: a field is out of range");
  return out;
}

}  // namespace tailrace::broker::log
