#include "codec/validate.h"

#include <fmt/format.h>

#include "base/planted.h"
#include "codec/compression.h"
#include "codec/record_check.h"

namespace tailrace::broker::codec {
namespace {

namespace layout = batch_layout;

constexpr std::int16_t kAttributesAllowed = layout::kCompressionMask;

bool attributes_good(const BatchHeader& h) {
  Compression codec = h.compression();
  return (h.attributes & ~kAttributesAllowed) == 0 && (codec == Compression::none || codec == Compression::lz4 || codec == Compression::zstd);
}
/// All set, or all -1.
bool producer_good(const BatchHeader& h) {
  bool set = (h.producer_id.value() >= 0) && (h.producer_epoch.value() >= 0) && (h.base_sequence >= 0);
  return set || ((h.producer_id == kNoProducer) && (h.producer_epoch.value() == -1) && (h.base_sequence == -1));
}
bool counts_good(const BatchHeader& h) {
  return (h.record_count >= 1) && (h.record_count <= limits::kBatchRecordsMax) && (h.last_offset_delta == h.record_count - 1) &&
         (h.base_timestamp >= -1) && (h.max_timestamp >= -1);
}

std::unexpected<Error> refuse(std::string why) { return fail(Errc::invalid_record, std::move(why)); }

/// Says which field of a header is not good. The header was found to be not good.
[[gnu::cold, gnu::noinline]] std::unexpected<Error> refuse_header(const BatchHeader& h) {
  if (h.is_control()) return refuse("attributes: only the broker writes control batches");
  if (h.is_transactional()) return refuse("attributes: transactional, and no transaction is open");
  if (h.has_log_append_time()) return refuse("attributes: only the broker stamps the append time");
  if ((h.attributes & ~kAttributesAllowed) != 0) {
    return refuse(fmt::format("attributes: unknown bits in {:#06x}", static_cast<std::uint16_t>(h.attributes)));
  }
  if (!attributes_good(h)) {
    return fail(Errc::unsupported_compression, fmt::format("attributes: compression {} ({})", name_of(h.compression()),
                                                           h.attributes & layout::kCompressionMask));
  }
  if (!producer_good(h)) {
    return refuse(fmt::format("producer id {}, producer epoch {}, base sequence {}: all set or all -1", h.producer_id.value(),
                              h.producer_epoch.value(), h.base_sequence));
  }
  if (h.record_count < 1 || h.record_count > limits::kBatchRecordsMax) {
    return refuse(fmt::format("record count: {} is outside 1..{}", h.record_count, limits::kBatchRecordsMax));
  }
  if (h.last_offset_delta != h.record_count - 1) {
    return refuse(fmt::format("last offset delta: {} with {} records", h.last_offset_delta, h.record_count));
  }
  return refuse(fmt::format("base timestamp {}, max timestamp {}: below -1", h.base_timestamp, h.max_timestamp));
}

[[gnu::cold, gnu::noinline]] std::unexpected<Error> refuse_envelope(Bytes batch, const BatchLimits& limits) {
  if (batch.size() > limits.message_bytes_max) {
    return fail(Errc::too_large, fmt::format("the batch has {} bytes; message_bytes_max is {}", batch.size(), limits.message_bytes_max));
  }
  if (batch.size() < layout::kHeaderBytes) return refuse(fmt::format("length: {} bytes are less than a batch header", batch.size()));
  auto magic = load_be<std::int8_t>(batch.data() + layout::kMagic);
  if (magic != layout::kMagicValue) return refuse(fmt::format("magic: {}, only 2 is known", magic));
  return refuse(fmt::format("length: the batch says {} bytes behind the field and has {}", load_be<std::int32_t>(batch.data() + layout::kLength),
                            batch.size() - layout::kLengthPrefix));
}

[[gnu::cold, gnu::noinline]] std::unexpected<Error> refuse_crc(std::uint32_t stored, std::uint32_t computed) {
  return fail(Errc::corrupt_message, fmt::format("crc: stored {:08x}, computed {:08x}", stored, computed));
}

void load_header(const std::byte* p, BatchHeader& to) {
  to.base_offset = Offset{load_be<std::int64_t>(p + layout::kBaseOffset)};
  to.length = load_be<std::int32_t>(p + layout::kLength);
  to.leader_epoch = LeaderEpoch{load_be<std::int32_t>(p + layout::kLeaderEpoch)};
  to.crc = load_be<std::uint32_t>(p + layout::kCrc);
  to.attributes = load_be<std::int16_t>(p + layout::kAttributes);
  to.last_offset_delta = load_be<std::int32_t>(p + layout::kLastOffsetDelta);
  to.base_timestamp = load_be<std::int64_t>(p + layout::kBaseTimestamp);
  to.max_timestamp = load_be<std::int64_t>(p + layout::kMaxTimestamp);
  to.producer_id = ProducerId{load_be<std::int64_t>(p + layout::kProducerId)};
  to.producer_epoch = ProducerEpoch{load_be<std::int16_t>(p + layout::kProducerEpoch)};
  to.base_sequence = load_be<std::int32_t>(p + layout::kBaseSequence);
  to.record_count = load_be<std::int32_t>(p + layout::kRecordCount);
}

bool envelope_good(const std::byte* p, const BatchHeader& h, std::size_t size) {
  return load_be<std::int8_t>(p + layout::kMagic) == layout::kMagicValue && h.length >= 0 && h.total_bytes() == size;
}
bool header_good(const BatchHeader& h) { return attributes_good(h) && producer_good(h) && counts_good(h); }

Result<void> check_compressed(const BatchHeader& header, Bytes records, const BatchLimits& limits) {
  thread_local InflateBuffer scratch;
  auto inflated = inflate(header.compression(), records, limits.inflated_bytes_max, scratch);
  auto checked = inflated ? check_records(header, scratch.bytes()) : std::move(inflated);
  scratch.shrink(kScratchKept);
  return checked;
}

/// Step by step, so that the first thing wrong is named. The CRC comes before the fields: none of a damaged batch's is
/// worth naming.
[[gnu::noinline]] Result<BatchHeader> validate_plainly(Bytes batch, const BatchLimits& limits) {
  if (batch.size() > limits.message_bytes_max || batch.size() < layout::kHeaderBytes) return refuse_envelope(batch, limits);
  BatchHeader header;
  load_header(batch.data(), header);
  if (!envelope_good(batch.data(), header, batch.size())) return refuse_envelope(batch, limits);
  if (std::uint32_t computed = batch_crc(batch); computed != header.crc) return refuse_crc(header.crc, computed);
  if (!header_good(header)) return refuse_header(header);
  Bytes records = batch.subspan(layout::kHeaderBytes);
  TAILRACE_TRY_VOID(header.compression() == Compression::none ? check_records(header, records) : check_compressed(header, records, limits));
  return header;
}

}  // namespace

Result<BatchHeader> validate_batch(Bytes batch, const BatchLimits& limits) {
  // Ordinary batches are found good in one pass. All others are looked at again, to know or to say more.
  if (batch.size() <= limits.message_bytes_max && batch.size() >= layout::kHeaderBytes && fused_check_available() &&
      !planted(PlantedBug::decoder_length)) {
    Result<BatchHeader> result{std::in_place};  // filled where the caller will have it
    BatchHeader& header = *result;
    load_header(batch.data(), header);
    if (envelope_good(batch.data(), header, batch.size()) && header_good(header) && header.compression() == Compression::none) {
      FusedCheck found = fused_check(batch, header.record_count, header.base_timestamp, header.max_timestamp);
      if (found.crc == header.crc && found.records_good) return result;
    }
  }
  return validate_plainly(batch, limits);
}

}  // namespace tailrace::broker::codec
