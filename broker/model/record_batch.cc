#include "model/record_batch.h"

#include <fmt/format.h>

#include "base/crc32c.h"

namespace tailrace::broker {

namespace layout = batch_layout;

Result<BatchHeader> read_batch_header(Bytes bytes, std::size_t length_max) {
  if (bytes.size() < layout::kHeaderBytes) return fail(Errc::unexpected_end, "a record batch has at least 61 bytes");
  const std::byte* p = bytes.data();
  BatchHeader h;
  h.base_offset = Offset{load_be<std::int64_t>(p + layout::kBaseOffset)};
  h.length = load_be<std::int32_t>(p + layout::kLength);
  h.leader_epoch = LeaderEpoch{load_be<std::int32_t>(p + layout::kLeaderEpoch)};
  auto magic = load_be<std::int8_t>(p + layout::kMagic);
  if (magic != layout::kMagicValue) return fail(Errc::invalid_record, fmt::format("batch magic is {}, only 2 is known", magic));
  if (h.length < static_cast<std::int32_t>(layout::kHeaderBytes - layout::kLengthPrefix) || h.total_bytes() > length_max) {
    return fail(Errc::invalid_record, fmt::format("batch length {} is outside 49..{}", h.length, length_max));
  }
  h.crc = load_be<std::uint32_t>(p + layout::kCrc);
  h.attributes = load_be<std::int16_t>(p + layout::kAttributes);
  h.last_offset_delta = load_be<std::int32_t>(p + layout::kLastOffsetDelta);
  h.base_timestamp = load_be<std::int64_t>(p + layout::kBaseTimestamp);
  h.max_timestamp = load_be<std::int64_t>(p + layout::kMaxTimestamp);
  h.producer_id = ProducerId{load_be<std::int64_t>(p + layout::kProducerId)};
  h.producer_epoch = ProducerEpoch{load_be<std::int16_t>(p + layout::kProducerEpoch)};
  h.base_sequence = load_be<std::int32_t>(p + layout::kBaseSequence);
  h.record_count = load_be<std::int32_t>(p + layout::kRecordCount);
  return h;
}

std::uint32_t batch_crc(Bytes batch) { return crc32c(batch.subspan(layout::kAttributes)); }

void assign_batch(MutableBytes batch, Offset base_offset, LeaderEpoch leader_epoch) {
  store_be(batch.data() + layout::kBaseOffset, base_offset.value());
  store_be(batch.data() + layout::kLeaderEpoch, leader_epoch.value());
}

void stamp_log_append_time(MutableBytes batch, WallTime now) {
  auto attributes = load_be<std::int16_t>(batch.data() + layout::kAttributes);
  store_be(batch.data() + layout::kAttributes, static_cast<std::int16_t>(attributes | layout::kLogAppendTime));
  store_be(batch.data() + layout::kMaxTimestamp, std::int64_t{now.time_since_epoch().count()});
  store_be(batch.data() + layout::kCrc, batch_crc(batch));
}

}  // namespace tailrace::broker
