#pragma once
/// Zig-zag variable-length integers as record batch v2 uses them.
/// Spec     protobuf "Encoding", sint32 and sint64; Kafka "Record" (message format v2). At most 5 bytes for 32 bits and
///          10 for 64; longer encodings, and bits beyond the type, are refused. Zero padding within these lengths is
///          tolerated, as Kafka's own decoder does.
#include <bit>
#include <cstddef>
#include <cstdint>

#include "base/bytes.h"

namespace tailrace::broker::codec {

inline constexpr std::size_t kVarint64BytesMax = 10;

[[nodiscard]] constexpr std::uint64_t zigzag(std::int64_t value) {
  return (static_cast<std::uint64_t>(value) << 1) ^ static_cast<std::uint64_t>(value >> 63);
}
[[nodiscard]] constexpr std::int64_t unzigzag(std::uint64_t raw) {
  return static_cast<std::int64_t>(raw >> 1) ^ -static_cast<std::int64_t>(raw & 1);
}

/// Bytes that write_varint() will write.
[[nodiscard]] constexpr std::size_t varint_bytes(std::int64_t value) {
  return (static_cast<std::size_t>(std::bit_width(zigzag(value) | 1)) + 6) / 7;
}

/// `to` has varint_bytes(value) bytes. Answers the first byte behind them.
inline std::byte* write_varint(std::byte* to, std::int64_t value) {
  std::uint64_t raw = zigzag(value);
  while (raw >= 0x80) {
    *to++ = static_cast<std::byte>(raw | 0x80);
    raw >>= 7;
  }
  *to++ = static_cast<std::byte>(raw);
  return to;
}

/// Reads one varint from [from, end). Answers the first byte behind it, or null when it is cut short or too long.
[[nodiscard]] inline const std::byte* read_varint64(const std::byte* from, const std::byte* end, std::int64_t& value) {
  std::uint64_t raw = 0;
  for (int shift = 0; from != end; shift += 7) {
    auto byte = std::to_integer<std::uint64_t>(*from++);
    if (shift == 63 && byte > 1) return nullptr;  // the tenth byte holds one bit
    raw |= (byte & 0x7f) << shift;
    if (byte < 0x80) {
      value = unzigzag(raw);
      return from;
    }
  }
  return nullptr;
}

[[nodiscard]] inline const std::byte* read_varint32(const std::byte* from, const std::byte* end, std::int32_t& value) {
  std::uint32_t raw = 0;
  for (int shift = 0; from != end; shift += 7) {
    auto byte = std::to_integer<std::uint32_t>(*from++);
    if (shift == 28 && byte > 0x0f) return nullptr;  // the fifth byte holds four bits and ends it
    raw |= (byte & 0x7f) << shift;
    if (byte < 0x80) {
      value = static_cast<std::int32_t>(raw >> 1) ^ -static_cast<std::int32_t>(raw & 1);
      return from;
    }
  }
  return nullptr;
}

}  // namespace tailrace::broker::codec
