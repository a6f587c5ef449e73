#include "base/crc32c.h"

#include <isa-l/crc.h>

#include <algorithm>

#if __has_feature(address_sanitizer)
#include <sanitizer/asan_interface.h>
#endif

namespace tailrace::broker {
namespace {

/// The kernel is assembler, which no sanitizer instruments: a read behind a block would pass unseen. Reading the first byte
/// that may not be read reports it.
void check_readable([[maybe_unused]] Bytes bytes) {
#if __has_feature(address_sanitizer)
  void* bad = __asan_region_is_poisoned(const_cast<std::byte*>(bytes.data()), std::min(bytes.size(), std::size_t{1} << 30));
  if (bad == nullptr) return;
  volatile unsigned char value = *static_cast<volatile unsigned char*>(bad);
  static_cast<void>(value);
#endif
}

}  // namespace

std::uint32_t crc32c(Bytes bytes, std::uint32_t previous) {
  // crc32_iscsi inverts nothing itself, takes a non-const pointer it only reads, and an int length.
  check_readable(bytes);
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
