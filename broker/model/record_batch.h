#pragma once
/// Record batch v2, the one batch format on the disk and on both wires: header layout and access.
/// Spec     Kafka "Record Batch" (message format v2, KIP-98); big endian. docs/storage-format.md, "Record batch".
///
///   0 i64 base offset          8 i32 batch length (bytes after this field)   12 i32 leader epoch
///  16 i8  magic = 2           17 u32 CRC-32C of everything from byte 21 on
///  21 i16 attributes          23 i32 last offset delta     27 i64 base timestamp   35 i64 max timestamp
///  43 i64 producer id         51 i16 producer epoch        53 i32 base sequence    57 i32 record count
///  61 records
///
/// Base offset and leader epoch lie outside the CRC: the broker assigns them in place without computing it anew.
#include <cstdint>
#include <optional>

#include "base/bytes.h"
#include "base/result.h"
#include "base/time.h"
#include "model/ids.h"

namespace tailrace::broker {

enum class Compression : std::uint8_t { none = 0, gzip = 1, snappy = 2, lz4 = 3, zstd = 4 };

namespace batch_layout {
inline constexpr std::size_t kBaseOffset = 0, kLength = 8, kLeaderEpoch = 12, kMagic = 16, kCrc = 17, kAttributes = 21,
                             kLastOffsetDelta = 23, kBaseTimestamp = 27, kMaxTimestamp = 35, kProducerId = 43,
                             kProducerEpoch = 51, kBaseSequence = 53, kRecordCount = 57, kRecords = 61;
inline constexpr std::size_t kHeaderBytes = 61;
inline constexpr std::size_t kLengthPrefix = 12;  // base offset and length: what the length does not count
inline constexpr std::int8_t kMagicValue = 2;
inline constexpr std::int16_t kCompressionMask = 0x07, kLogAppendTime = 0x08, kTransactional = 0x10, kControl = 0x20,
                              kDeleteHorizon = 0x40;
}  // namespace batch_layout

/// The header's fields as stored; nothing is judged here beyond magic and lengths.
struct BatchHeader {
  Offset base_offset{};
  std::int32_t length = 0;
  LeaderEpoch leader_epoch{};
  std::uint32_t crc = 0;
  std::int16_t attributes = 0;
  std::int32_t last_offset_delta = 0;
  std::int64_t base_timestamp = 0;  // ms since the epoch, -1 for none
  std::int64_t max_timestamp = 0;
  ProducerId producer_id{};
  ProducerEpoch producer_epoch{};
  std::int32_t base_sequence = 0;  // -1: not idempotent
  std::int32_t record_count = 0;

  [[nodiscard]] std::size_t total_bytes() const { return static_cast<std::size_t>(length) + batch_layout::kLengthPrefix; }
  /// Stored bytes can say anything: last_offset() and next_offset() are for headers of which this holds.
  [[nodiscard]] bool offsets_make_sense() const {
    return base_offset.value() >= 0 && last_offset_delta >= 0 && base_offset.value() < INT64_MAX - std::int64_t{last_offset_delta};
  }
  [[nodiscard]] Offset last_offset() const { return base_offset + last_offset_delta; }
  [[nodiscard]] Offset next_offset() const { return base_offset + (std::int64_t{last_offset_delta} + 1); }
  [[nodiscard]] Compression compression() const {
    return static_cast<Compression>(attributes & batch_layout::kCompressionMask);
  }
  [[nodiscard]] bool is_control() const { return (attributes & batch_layout::kControl) != 0; }
  [[nodiscard]] bool is_transactional() const { return (attributes & batch_layout::kTransactional) != 0; }
  [[nodiscard]] bool has_log_append_time() const { return (attributes & batch_layout::kLogAppendTime) != 0; }
};

/// Reads the header at the front of `bytes`. Errors: unexpected_end (fewer than 61 bytes), invalid_record (magic is not 2,
/// the length is below the header's own or above `length_max`). The bytes of the batch need not all be there.
[[nodiscard]] Result<BatchHeader> read_batch_header(Bytes bytes, std::size_t length_max);

/// CRC-32C over a whole batch's covered part; `batch` is exactly one batch.
[[nodiscard]] std::uint32_t batch_crc(Bytes batch);

/// Both fields lie outside the CRC.
void assign_batch(MutableBytes batch, Offset base_offset, LeaderEpoch leader_epoch);

/// LogAppendTime: sets attribute bit and max timestamp, and computes the CRC anew.
void stamp_log_append_time(MutableBytes batch, WallTime now);

}  // namespace tailrace::broker
