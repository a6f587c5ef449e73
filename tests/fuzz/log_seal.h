#pragma once
/// Puts right the checksums of made-up log bytes: a disk that lies computes them too, and nearly every input would end at
/// the first one otherwise.
#include <algorithm>
#include <string>

#include "base/crc32c.h"
#include "base/log.h"
#include "log/wal_format.h"
#include "tests/fuzz/fuzz.h"

namespace tailrace::fuzz {

/// Findings are told by asserts and sanitizers; the log's own lines would be thousands a second.
inline void be_quiet() {
  static const bool once = [] {
    broker::set_log_sink([](broker::LogLevel, std::string_view, std::string_view) {}, broker::LogLevel::error);
    return true;
  }();
  static_cast<void>(once);
}

inline broker::MutableBytes bytes_of(std::string& text) { return {reinterpret_cast<std::byte*>(text.data()), text.size()}; }

/// A file whose last four bytes are the CRC of all before.
inline void seal_trailing_crc(broker::MutableBytes bytes) {
  if (bytes.size() < 4) return;
  broker::store_le(bytes.data() + bytes.size() - 4, broker::crc32c(bytes.first(bytes.size() - 4)));
}

/// Goes over a WAL file's data as recovery does and seals each frame it could find. With `chained`, the frames also
/// become each other's successors from sequence 1 on.
inline void seal_frames(broker::MutableBytes data, std::uint64_t salt, std::uint32_t file_sequence, bool chained) {
  using namespace broker::log;
  constexpr std::size_t kType = 2, kFlags = 3, kPayloadCrc = 8, kLength = 12, kSequence = 16, kFileSequence = 24, kChain = 28, kLag = 32,
                        kPartition = 36, kBase = 40, kSegment = 48, kPosition = 56, kTerm = 60, kTime = 64, kSub = 72;
  std::uint64_t sequence = 0;
  std::uint32_t previous = 0;
  for (std::size_t at = 0; at + kFrameHeaderBytes <= data.size();) {
    broker::MutableBytes rest = data.subspan(at);
    if (!may_be_frame(rest)) {
      at = static_cast<std::size_t>(align_down(at) + broker::limits::kWalBlock);
      continue;
    }
    const std::byte* p = rest.data();
    FrameHeader h;
    h.type = static_cast<FrameType>(broker::load_le<std::uint8_t>(p + kType));
    h.flags = broker::load_le<std::uint8_t>(p + kFlags);
    h.length = broker::load_le<std::uint32_t>(p + kLength);
    h.sequence = chained ? ++sequence : broker::load_le<std::uint64_t>(p + kSequence);
    h.file_sequence = chained ? file_sequence : broker::load_le<std::uint32_t>(p + kFileSequence);
    h.previous_crc = chained ? previous : broker::load_le<std::uint32_t>(p + kChain);
    h.durable_lag = broker::load_le<std::uint32_t>(p + kLag);
    h.partition = broker::load_le<std::uint32_t>(p + kPartition);
    h.base_offset = broker::Offset{broker::load_le<std::int64_t>(p + kBase)};
    h.segment_base = broker::Offset{broker::load_le<std::int64_t>(p + kSegment)};
    h.position = broker::load_le<std::uint32_t>(p + kPosition);
    h.term = broker::LeaderEpoch{broker::load_le<std::int32_t>(p + kTerm)};
    h.append_time_ms = broker::load_le<std::int64_t>(p + kTime);
    h.sub = broker::load_le<std::uint32_t>(p + kSub);
    h.payload_crc = broker::load_le<std::uint32_t>(p + kPayloadCrc);
    bool fits = h.length <= rest.size() - kFrameHeaderBytes;
    if (fits) h.payload_crc = broker::crc32c(broker::Bytes{rest}.subspan(kFrameHeaderBytes, h.length));
    encode(h, salt, rest);
    previous = h.header_crc;
    at += fits ? h.stored_bytes() : kFrameHeaderBytes;
  }
}

}  // namespace tailrace::fuzz
