#include "base/crc32c.h"

#include <isa-l/crc.h>

#include <algorithm>

namespace tailrace::broker {

std::uint32_t crc32c(Bytes bytes, std::uint32_t previous) {
  // crc32_iscsi inverts nothing itself, takes a non-const pointer it only reads, and an int length.
  std::uint32_t state = ~previous;
  while (!bytes.empty()) {
    auto step = std::min<std::size_t>(bytes.size(), std::size_t{1} << 30);
    auto* data = const_cast<unsigned char*>(reinterpret_cast<const unsigned char*>(bytes.data()));
    state = crc32_iscsi(data, static_cast<int>(step), state);
    bytes = bytes.subspan(step);
  }
  return ~state;
}

}  // namespace tailrace::broker
