#pragma once
/// The two partitioners of the SDK, recognised by the publisher, which does their work itself: sticking to a partition per
/// batch needs to know about batches.
#include <atomic>
#include <memory>

#include "tailrace/producer.h"

namespace tailrace::inline v1::detail {

struct Murmur2Partitioner {
  std::shared_ptr<std::atomic<std::uint32_t>> turn = std::make_shared<std::atomic<std::uint32_t>>(0);
  /// Used directly only when a user's partitioner calls it: records without a key then go round.
  std::uint32_t operator()(const RecordView& record, std::uint32_t count) const;
};
struct StickyPartitioner {
  std::shared_ptr<std::atomic<std::uint32_t>> turn = std::make_shared<std::atomic<std::uint32_t>>(0);
  std::uint32_t operator()(const RecordView& record, std::uint32_t count) const;
};
[[nodiscard]] std::uint32_t murmur2_partition(std::string_view key, std::uint32_t count);

}  // namespace tailrace::inline v1::detail
