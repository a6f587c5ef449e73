#pragma once
/// Turns what a user says about the end of reading into offsets.
#include "src/engine.h"

namespace tailrace::inline v1::detail {

/// One exclusive offset per partition, in their order. Blocks. Errors: invalid_argument (earliest, last N), and the call's.
[[nodiscard]] Result<std::vector<std::int64_t>> resolve_until(Engine& engine, const std::string& topic, const From& until,
                                                              std::span<const std::int32_t> partitions, TimePoint deadline);

}  // namespace tailrace::inline v1::detail
