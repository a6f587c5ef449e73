#include "stream/names.h"

#include <cstdint>

namespace tailrace::broker::stream {

bool valid_name(std::string_view name) {
  if (name.empty() || name.size() > limits::kStreamNameBytesMax) return false;
  for (std::size_t i = 0; i < name.size();) {
    auto lead = static_cast<std::uint8_t>(name[i]);
    std::size_t more = lead < 0x80 ? 0 : lead < 0xc2 ? 4 : lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : lead < 0xf5 ? 3 : 4;
    if (more == 4 || i + more >= name.size()) return false;
    std::uint32_t point = more == 0 ? lead : lead & (0x3fU >> more);
    for (std::size_t k = 1; k <= more; ++k) {
      auto next = static_cast<std::uint8_t>(name[i + k]);
      if ((next & 0xc0U) != 0x80) return false;
      point = point << 6U | (next & 0x3fU);
    }
    bool overlong = (more == 2 && point < 0x800) || (more == 3 && point < 0x10000);
    bool surrogate = point >= 0xd800 && point < 0xe000;
    bool control = point < 0x20 || (point >= 0x7f && point < 0xa0);
    if (overlong || surrogate || control || point > 0x10ffff) return false;
    i += more + 1;
  }
  return true;
}

}  // namespace tailrace::broker::stream
