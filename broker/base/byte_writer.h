#pragma once
/// Appends little-endian fields; the mirror of ByteReader.
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"

namespace tailrace::broker {

class ByteWriter {
 public:
  template <std::integral T>
  ByteWriter& le(T value) {
    std::byte field[sizeof(T)];
    store_le(field, value);
    bytes_.insert(bytes_.end(), field, field + sizeof(T));
    return *this;
  }
  ByteWriter& raw(Bytes bytes) {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    return *this;
  }
  /// u16 length and bytes.
  ByteWriter& text(std::string_view value) {
    TAILRACE_CHECK(value.size() <= 0xffff, "short texts only: their bounds were checked before");
    return le(static_cast<std::uint16_t>(value.size())).raw(as_bytes(value));
  }
  [[nodiscard]] std::size_t size() const { return bytes_.size(); }
  [[nodiscard]] std::vector<std::byte> take() { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
};

}  // namespace tailrace::broker
