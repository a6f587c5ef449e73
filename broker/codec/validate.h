#pragma once
/// The one check of a producer's batch, at the edge, before anything is stored. What passes is stored byte for byte.
///
/// Checked  the bytes are exactly one batch; magic; CRC; no attribute a producer may not set; codec none, lz4 or zstd;
///          producer id, epoch and sequence are all set or all -1; record count = records found; offset deltas 0..n-1 and
///          last offset delta n-1; no timestamp below -1 and the max timestamp is the largest one; every length and count
///          inside a record; a compressed batch inflates within its budget.
/// Not      sequence against the producer's state, sizes against quotas: the owner shard's to judge.
/// Errors   too_large, corrupt_message (CRC), unsupported_compression, invalid_record for all else. The detail names the
///          field.
/// Thread   any; scratch memory for inflating is kept per thread, at most kScratchKept between calls.
#include <cstddef>
#include <cstdint>

#include "base/bytes.h"
#include "base/result.h"
#include "model/limits.h"
#include "model/record_batch.h"

namespace tailrace::broker::codec {

inline constexpr std::size_t kScratchKept = 1 * limits::kMiB;

struct BatchLimits {
  std::size_t message_bytes_max = limits::kMessageBytesDefault;  // the topic's; of the batch as sent
  std::size_t inflated_bytes_max = limits::kInflatedBytesMax;
};

[[nodiscard]] Result<BatchHeader> validate_batch(Bytes batch, const BatchLimits& limits);

}  // namespace tailrace::broker::codec
