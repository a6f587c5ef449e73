#include "log/segment_index.h"

#include <algorithm>
#include <array>
#include <limits>

#include "base/crc32c.h"
#include "base/planted.h"

namespace tailrace::broker::log {
namespace {

constexpr std::uint32_t kMagic = 0x58495254;  // "TRIX"
constexpr std::uint16_t kVersion = 1;
constexpr std::uint32_t kSaturated = std::numeric_limits<std::uint32_t>::max();

std::uint32_t delta_of(std::int64_t time, std::int64_t base) {
  // Client timestamps span the whole range; the difference is taken without overflow.
  if (time <= base) return 0;
  auto delta = static_cast<std::uint64_t>(time) - static_cast<std::uint64_t>(base);
  return delta >= kSaturated ? kSaturated : static_cast<std::uint32_t>(delta);
}

}  // namespace

std::uint32_t batch_digest(const BatchHeader& header, std::uint32_t before) {
  std::array<std::byte, 20> bytes;
  store_le(bytes.data(), header.base_offset.value());
  store_le(bytes.data() + 8, header.leader_epoch.value());
  store_le(bytes.data() + 12, header.length);
  store_le(bytes.data() + 16, header.crc);
  return crc32c(bytes, before);
}

void SegmentIndex::add(const BatchHeader& header, Bytes bytes, std::int64_t append_ms) {
  digest_ = batch_digest(header, digest_);
  if (entries_.empty()) first_digest_ = digest_;
  if (first_append_ms_ < 0) first_append_ms_ = append_ms;
  last_append_ms_ = std::max(last_append_ms_, append_ms);
  if (entries_.empty()) base_time_ = std::max<std::int64_t>(header.max_timestamp, 0);
  max_time_ = std::max(max_time_, header.max_timestamp);
  if (entries_.empty() || covered_ - entries_.back().position >= limits::kIndexInterval) {
    entries_.push_back({.offset_delta = static_cast<std::uint32_t>(header.base_offset - base_), .position = covered_});
  }
  IndexEntry& last = entries_.back();
  last.max_time_delta = delta_of(max_time_, base_time_);
  last.block_crc = crc32c(bytes, last.block_crc);
  covered_ += static_cast<std::uint32_t>(bytes.size());
  next_ = header.next_offset();
}

std::optional<std::int64_t> SegmentIndex::max_time() const {
  if (entries_.empty() || max_time_ < 0) return std::nullopt;
  return max_time_;
}

SegmentIndex::Block SegmentIndex::block(std::size_t i) const {
  const IndexEntry& e = entries_[i];
  return {base_ + e.offset_delta, e.position, i + 1 < entries_.size() ? entries_[i + 1].position : covered_, e.block_crc};
}

std::size_t SegmentIndex::block_of(Offset offset) const {
  std::int64_t wanted = offset - base_;
  auto after = std::ranges::upper_bound(entries_, wanted, {}, [](const IndexEntry& e) { return std::int64_t{e.offset_delta}; });
  return after == entries_.begin() ? 0 : static_cast<std::size_t>(after - entries_.begin()) - 1;
}

std::optional<std::size_t> SegmentIndex::block_at_time(std::int64_t time_ms) const {
  if (entries_.empty() || max_time_ < time_ms) return std::nullopt;
  std::uint32_t wanted = delta_of(time_ms, base_time_);
  auto found = std::ranges::lower_bound(entries_, wanted, {}, &IndexEntry::max_time_delta);
  // Saturated entries cannot be told apart: the scan goes on from the first of them.
  return found == entries_.end() ? entries_.size() - 1 : static_cast<std::size_t>(found - entries_.begin());
}

std::vector<std::byte> SegmentIndex::encode(bool sealed, Bytes extra) const {
  std::vector<std::byte> out(kIndexHeaderBytes + entries_.size() * sizeof(IndexEntry) + extra.size() + 4);
  std::byte* p = out.data();
  store_le(p, kMagic);
  store_le(p + 4, kVersion);
  store_le(p + 6, static_cast<std::uint16_t>(sealed ? 1 : 0));
  store_le(p + 8, base_.value());
  store_le(p + 16, next_.value());
  store_le(p + 24, base_time_);
  store_le(p + 32, max_time_);
  store_le(p + 40, first_append_ms_);
  store_le(p + 48, last_append_ms_);
  store_le(p + 56, covered_);
  store_le(p + 60, static_cast<std::uint32_t>(entries_.size()));
  store_le(p + 64, static_cast<std::uint32_t>(extra.size()));
  store_le(p + 68, first_digest_);
  store_le(p + 72, digest_);
  std::byte* at = p + kIndexHeaderBytes;
  for (const IndexEntry& e : entries_) {
    store_le(at, e.offset_delta);
    store_le(at + 4, e.position);
    store_le(at + 8, e.max_time_delta);
    store_le(at + 12, e.block_crc);
    at += sizeof(IndexEntry);
  }
  if (!extra.empty()) std::memcpy(at, extra.data(), extra.size());
  store_le(out.data() + out.size() - 4, crc32c(Bytes{out}.first(out.size() - 4)));
  return out;
}

Result<SegmentIndex::Decoded> SegmentIndex::decode(Bytes bytes) {
  if (bytes.size() < kIndexHeaderBytes + 4) return fail(Errc::corrupt, "index: too short");
  const std::byte* p = bytes.data();
  if (load_le<std::uint32_t>(p) != kMagic) return fail(Errc::corrupt, "index: magic");
  // Every version ends with the checksum of all before it: a flipped bit is damage, and no newer version.
  if (load_le<std::uint32_t>(p + bytes.size() - 4) != crc32c(bytes.first(bytes.size() - 4))) return fail(Errc::corrupt, "index: CRC");
  auto version = load_le<std::uint16_t>(p + 4);
  if (version > kVersion) return fail(Errc::newer_format, "index");
  auto flags = load_le<std::uint16_t>(p + 6);
  auto count = load_le<std::uint32_t>(p + 60);
  auto extra = load_le<std::uint32_t>(p + 64);
  std::uint64_t total = kIndexHeaderBytes + std::uint64_t{count} * sizeof(IndexEntry) + extra + 4;
  bool reserved = std::any_of(p + 76, p + kIndexHeaderBytes, [](std::byte b) { return b != std::byte{0}; });
  bool fits = total == bytes.size() || planted(PlantedBug::decoder_length);
  if (version != kVersion || flags > 1 || reserved || !fits) return fail(Errc::corrupt, "index: version, flags, length or reserved bytes");
  Decoded out;
  SegmentIndex& index = out.index;
  out.sealed = flags == 1;
  index.base_ = Offset{load_le<std::int64_t>(p + 8)};
  index.next_ = Offset{load_le<std::int64_t>(p + 16)};
  index.base_time_ = load_le<std::int64_t>(p + 24);
  index.max_time_ = load_le<std::int64_t>(p + 32);
  index.first_append_ms_ = load_le<std::int64_t>(p + 40);
  index.last_append_ms_ = load_le<std::int64_t>(p + 48);
  index.covered_ = load_le<std::uint32_t>(p + 56);
  index.first_digest_ = load_le<std::uint32_t>(p + 68);
  index.digest_ = load_le<std::uint32_t>(p + 72);
  index.entries_.reserve(count);
  const std::byte* at = p + kIndexHeaderBytes;
  for (std::uint32_t i = 0; i < count; ++i, at += sizeof(IndexEntry)) {
    IndexEntry e{load_le<std::uint32_t>(at), load_le<std::uint32_t>(at + 4), load_le<std::uint32_t>(at + 8), load_le<std::uint32_t>(at + 12)};
    bool ordered = index.entries_.empty() ? e.position == 0 && e.offset_delta == 0
                                          : e.position > index.entries_.back().position && e.offset_delta > index.entries_.back().offset_delta;
    if (!ordered || e.position >= index.covered_) return fail(Errc::corrupt, "index: entries out of order");
    index.entries_.push_back(e);
  }
  bool sane = index.base_.value() >= 0 && index.next_ >= index.base_ && (index.covered_ == 0) == index.entries_.empty() &&
              (index.entries_.empty() || index.entries_.back().offset_delta < index.next_ - index.base_);
  if (!sane) return fail(Errc::corrupt, "index: a field is out of range");
  out.extra.assign(at, at + extra);
  return out;
}

}  // namespace tailrace::broker::log
