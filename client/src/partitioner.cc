#include "src/partitioner.h"

#include "codec/murmur2.h"

namespace tailrace::inline v1 {
namespace detail {

std::uint32_t murmur2_partition(std::string_view key, std::uint32_t count) {
  return static_cast<std::uint32_t>(broker::codec::partition_for_key(broker::as_bytes(key), static_cast<std::int32_t>(count)).value());
}
std::uint32_t Murmur2Partitioner::operator()(const RecordView& record, std::uint32_t count) const {
  return record.key ? murmur2_partition(*record.key, count) : turn->fetch_add(1, std::memory_order_relaxed) % count;
}
std::uint32_t StickyPartitioner::operator()(const RecordView&, std::uint32_t count) const {
  return turn->fetch_add(1, std::memory_order_relaxed) % count;
}

}  // namespace detail

Partitioner murmur2() { return detail::Murmur2Partitioner{}; }
Partitioner sticky() { return detail::StickyPartitioner{}; }

}  // namespace tailrace::inline v1
