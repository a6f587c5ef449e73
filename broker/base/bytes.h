#pragma once
/// Byte spans, fixed-width little- and big-endian access, and a bounds-checked reader.
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

namespace tailrace::broker {

using Bytes = std::span<const std::byte>;
using MutableBytes = std::span<std::byte>;

[[nodiscard]] inline Bytes as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}
[[nodiscard]] inline std::string_view as_text(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

template <std::integral T>
[[nodiscard]] T load_le(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  if constexpr (std::endian::native == std::endian::big) value = std::byteswap(value);
  return value;
}
template <std::integral T>
[[nodiscard]] T load_be(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  if constexpr (std::endian::native == std::endian::little) value = std::byteswap(value);
  return value;
}
template <std::integral T>
void store_le(std::byte* to, T value) {
  if constexpr (std::endian::native == std::endian::big) value = std::byteswap(value);
  std::memcpy(to, &value, sizeof value);
}
template <std::integral T>
void store_be(std::byte* to, T value) {
  if constexpr (std::endian::native == std::endian::little) value = std::byteswap(value);
  std::memcpy(to, &value, sizeof value);
}

/// Reads fields front to back. After the first read past the end `ok()` is false for good and every further read
/// answers zero or an empty span, so a decoder may read a whole group of fields and test once before using any.
class ByteReader {
 public:
  explicit ByteReader(Bytes bytes) : rest_{bytes} {}
  [[nodiscard]] bool ok() const { return ok_; }
  [[nodiscard]] std::size_t remaining() const { return rest_.size(); }
  template <std::integral T>
  T le() {
    return fixed<T>([](const std::byte* p) { return load_le<T>(p); });
  }
  template <std::integral T>
  T be() {
    return fixed<T>([](const std::byte* p) { return load_be<T>(p); });
  }
  Bytes take(std::size_t count) {
    if (!ok_ || count > rest_.size()) return failed();
    Bytes taken = rest_.first(count);
    rest_ = rest_.subspan(count);
    return taken;
  }
  /// LEB128 unsigned, at most `max_bytes` bytes (10 for 64 bits); fails on overflow of 64 bits.
  std::uint64_t varint(int max_bytes = 10) {
    std::uint64_t value = 0;
    for (int i = 0; i < max_bytes; ++i) {
      Bytes one = take(1);
      if (one.empty()) return 0;
      auto byte = std::to_integer<std::uint64_t>(one[0]);
      if (i == 9 && byte > 1) break;
      value |= (byte & 0x7f) << (7 * i);
      if ((byte & 0x80) == 0) return value;
    }
    failed();
    return 0;
  }
  /// Zig-zag signed varint as record batch v2 uses it.
  std::int64_t zigzag(int max_bytes = 10) {
    std::uint64_t raw = varint(max_bytes);
    return static_cast<std::int64_t>(raw >> 1) ^ -static_cast<std::int64_t>(raw & 1);
  }

 private:
  template <class T, class F>
  T fixed(F load) {
    Bytes field = take(sizeof(T));
    return field.size() == sizeof(T) ? load(field.data()) : T{};
  }
  Bytes failed() {
    ok_ = false;
    rest_ = {};
    return {};
  }
  Bytes rest_;
  bool ok_ = true;
};

}  // namespace tailrace::broker
