#pragma once
/// Batches of a stream topic: what an append must look like, what is stored of a stream, what truncates one.
/// Spec     docs/event-store.md, "Words", "Truncate, delete, snapshots".
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/buffer.h"
#include "base/bytes.h"
#include "base/result.h"
#include "base/time.h"
#include "model/record_batch.h"
#include "stream/head.h"

namespace tailrace::broker::service {

inline constexpr std::string_view kEventIdHeader = "tailrace-event-id", kEventTypeHeader = "tailrace-event-type";

/// The ids of an append's events, in order. Errors: invalid_record (which event, and what is wrong with it).
[[nodiscard]] Result<std::vector<std::string>> check_append(Bytes batch, std::string_view stream);
/// The ids of a stored batch. Errors: corrupt.
[[nodiscard]] Result<std::vector<std::string>> event_ids(Bytes batch);
/// What a stored batch is to the streams; none: nothing. Errors: corrupt (it has no readable first record).
[[nodiscard]] Result<std::optional<stream::Entry>> entry_of(Bytes batch);
/// A control batch.
[[nodiscard]] Result<Slice> truncation(std::string_view stream, stream::Version before, WallTime now);

}  // namespace tailrace::broker::service
