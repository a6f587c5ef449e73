#pragma once
/// The checks of validate_batch() over a whole batch's records. The portable walk decides and explains; on processors with
/// AVX-512, VPCLMULQDQ and BMI2 a fused pass computes the CRC and walks ordinary records at the same time.
///
/// Why fused: isa-l's CRC runs at some 70 GB/s from the second-level cache and keeps one execution port busy, while a walk
/// is a chain of loads that keeps all but the load ports idle. One after the other they cost their sum; in one instruction
/// stream the walk hides behind the CRC (figures: docs/performance.md, B8).
#include <cstdint>
#include <optional>

#include "base/bytes.h"
#include "base/result.h"
#include "model/record_batch.h"

namespace tailrace::broker::codec {

/// Errors: invalid_record; the detail names record and field. `records` are inflated already.
[[nodiscard]] Result<void> check_records(const BatchHeader& header, Bytes records);

struct FusedCheck {
  std::uint32_t crc = 0;       // CRC-32C of everything from the attributes on
  bool records_good = false;   // what check_records() would find good; false says nothing: ask check_records()
};

[[nodiscard]] bool fused_check_available();
/// `batch` is uncompressed and has at least a header. Only where fused_check_available().
[[nodiscard]] FusedCheck fused_check(Bytes batch, std::int32_t record_count, std::int64_t base_timestamp, std::int64_t max_timestamp);

}  // namespace tailrace::broker::codec
