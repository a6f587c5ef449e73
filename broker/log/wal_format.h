#pragma once
/// Bytes of the write-ahead log: file header and frame header, shared by writer, recovery and the offline tools.
/// Spec     docs/storage-format.md, "WAL file" and "WAL frame". All integers little endian.
///
/// A file is blocks of 4 KiB. Block 0 and the last block hold the same header; frames lie between them. A commit begins at a
/// block boundary, packs its frames at multiples of 8 bytes, and ends in zeros up to the next boundary.
#include <array>
#include <cstdint>
#include <string_view>

#include "base/buffer.h"
#include "base/bytes.h"
#include "base/result.h"
#include "log/replicated.h"
#include "model/ids.h"
#include "model/limits.h"

namespace tailrace::broker::log {

inline constexpr std::uint32_t kWalFileMagic = 0x4c575254;  // "TRWL"
inline constexpr std::uint16_t kWalVersion = 1;
inline constexpr std::size_t kWalFileHeaderBytes = 104;
inline constexpr std::uint64_t kWalDataStart = limits::kWalBlock;

/// One use of a slot. A recycled slot gets a new sequence and a new salt, so frames of an earlier use never parse.
struct WalFileHeader {
  std::uint32_t shard = 0;
  std::uint32_t slot = 0;
  std::uint64_t sequence = 0;           // of files, from 1, without gaps
  std::uint64_t file_bytes = 0;
  std::uint64_t salt = 0;
  /// Where recovery closed the predecessor, and the frame that comes next; 0: it ended by itself (rotation).
  std::uint64_t previous_end = 0;
  std::uint64_t first_frame = 0;
  std::uint32_t previous_header_crc = 0;  // of the last frame before, with previous_end; the chain's value
  std::array<std::uint8_t, 16> directory_id{};
};
/// Fills 104 bytes; the rest of the block is zero.
void encode(const WalFileHeader& header, MutableBytes into);
/// Errors: corrupt (magic, CRC, reserved bytes), newer_format.
[[nodiscard]] Result<WalFileHeader> decode_wal_file_header(Bytes from);

inline constexpr std::uint16_t kFrameMagic = 0x4652;  // "RF"
inline constexpr std::size_t kFrameHeaderBytes = 80;
inline constexpr std::uint32_t kNoPartition = 0xffffffff;
inline constexpr std::size_t kHardStateBytes = 40;
inline constexpr std::size_t kPartitionCreateBytes = 20;  // without members
inline constexpr std::uint32_t kBeginsLost = 1;  // position of a partition_create

enum class FrameType : std::uint8_t {
  batch = 1,             // payload: one record batch as stored
  hard_state = 2,        // term, payload: vote, suspicion, floor (kHardStateBytes)
  term_start = 3,        // an entry of length zero that ends at (base offset, sub)
  truncate = 4,          // to base offset; segment base and position say where that is
  log_start = 5,         // base offset is the first kept, and that is committed
  remainder = 6,         // payload: raw segment bytes from a block boundary on, copied forward or before a block's rewrite
  partition_create = 7,  // payload: topic id, i32 index, members; position kBeginsLost: it begins with a hole
  partition_delete = 8,
  mark = 9,              // nothing but its durable-up-to
  file_prepared = 10,    // payload: u64 sequence, u64 salt, u32 slot, u32 0; the file's header is durable
  skip_damage = 11,      // payload: pairs of i64 (from, to): holes accepted by the operator
  members = 12,          // an entry of length zero that ends at (base offset, sub); payload: the membership from here on
  log_start_entry = 13,  // the same; payload: i64 first offset kept, once this is committed
  install = 14,          // all before is dropped, the log begins anew at (base offset, sub), behind an entry of this term; payload: InstallPayload
};
[[nodiscard]] std::string_view name_of(FrameType type);
[[nodiscard]] bool is_known(FrameType type);

struct FrameHeader {
  FrameType type{};
  std::uint8_t flags = 0;              // bit 0 is reserved for atomic groups; all others zero
  std::uint32_t header_crc = 0;        // as read; computed when encoding
  std::uint32_t payload_crc = 0;
  std::uint32_t length = 0;            // of the payload
  std::uint64_t sequence = 0;          // of frames, from 1, over all files
  std::uint32_t file_sequence = 0;     // low 32 bits
  std::uint32_t previous_crc = 0;      // header CRC of the frame before
  std::uint32_t durable_lag = 0;       // frames up to sequence - lag were durable when this one was built
  std::uint32_t partition = kNoPartition;
  Offset base_offset{};
  Offset segment_base{};
  std::uint32_t position = 0;          // of the payload in the segment
  LeaderEpoch term{};
  std::int64_t append_time_ms = 0;
  std::uint32_t sub = 0;

  [[nodiscard]] std::uint64_t durable_up_to() const { return durable_lag > sequence ? 0 : sequence - durable_lag; }
  /// Header, payload and padding to the next frame.
  [[nodiscard]] std::size_t stored_bytes() const { return frame_bytes(length); }
  static constexpr std::size_t frame_bytes(std::size_t payload) { return (kFrameHeaderBytes + payload + 7) & ~std::size_t{7}; }
};
/// Fills 80 bytes and header.header_crc.
void encode(FrameHeader& header, std::uint64_t salt, MutableBytes into);
/// Errors: corrupt (magic, CRC under this salt, reserved bytes, length above the limit). An unknown type is not an error here.
[[nodiscard]] Result<FrameHeader> decode_frame_header(Bytes from, std::uint64_t salt);
/// i64 log start, u32 length of the members, members, producer state to the end.
struct InstallPayload {
  Offset log_start{};
  Bytes members{};
  Bytes producers{};
};
[[nodiscard]] Buffer encode(const InstallPayload& payload);
/// Refers to `from`. Errors: corrupt.
[[nodiscard]] Result<InstallPayload> decode_install(Bytes from);
/// Fills kHardStateBytes; the term is the frame's.
void encode(const HardState& state, MutableBytes into);
/// Errors: corrupt.
[[nodiscard]] Result<HardState> decode_hard_state(Bytes from, LeaderEpoch term);
/// Cheap test before decode: could a frame begin here?
[[nodiscard]] inline bool may_be_frame(Bytes from) {
  return from.size() >= kFrameHeaderBytes && load_le<std::uint16_t>(from.data()) == kFrameMagic;
}

/// Largest frame payload: a largest batch.
inline constexpr std::size_t kFramePayloadMax = limits::kMessageBytesCeiling;

/// What fits a file of this size as one frame.
[[nodiscard]] constexpr std::size_t wal_payload_max(std::uint64_t file_bytes) {
  return static_cast<std::size_t>(file_bytes - 2 * limits::kWalBlock - kFrameHeaderBytes - 8);
}
static_assert(wal_payload_max(limits::kWalFileBytesMin) > 32 * limits::kKiB, "control frames must fit the smallest file");

[[nodiscard]] constexpr std::uint64_t align_down(std::uint64_t n, std::uint64_t unit = limits::kWalBlock) { return n / unit * unit; }
[[nodiscard]] constexpr std::uint64_t align_up(std::uint64_t n, std::uint64_t unit = limits::kWalBlock) {
  return (n + unit - 1) / unit * unit;
}

}  // namespace tailrace::broker::log
