#pragma once
/// CRC-32C (Castagnoli), as in RFC 3720 and Kafka record batches. Runs isa-l's vectorised kernel.
#include <cstdint>

#include "base/bytes.h"

namespace tailrace::broker {

/// `previous` is 0 to start, or the result for the bytes before, to go on. crc32c("123456789") = 0xE3069283.
[[nodiscard]] std::uint32_t crc32c(Bytes bytes, std::uint32_t previous = 0);

}  // namespace tailrace::broker
