#include "log/segment_scan.h"

#include <fmt/format.h>

#include <array>

#include "base/planted.h"

namespace tailrace::broker::log {
namespace {

/// The header at `at`, which may lie over a chunk's end; not judged beyond magic and length. `bytes` holds all of it.
Result<BatchHeader> header_at(const ColdBytes& bytes, std::uint32_t at) {
  Bytes together = bytes.at(at);
  if (together.size() >= batch_layout::kHeaderBytes) return read_batch_header(together, limits::kMessageBytesCeiling);
  std::array<std::byte, batch_layout::kHeaderBytes> copy;
  bytes.copy(at, copy);
  return read_batch_header(copy, limits::kMessageBytesCeiling);
}

/// Whether the batch may stand where `next` comes next, behind one of epoch `before`.
Result<void> judge(const BatchHeader& header, Offset next, LeaderEpoch before, const std::vector<TermEntry>& terms) {
  if (header.base_offset != next || !header.offsets_make_sense()) {
    return fail(Errc::corrupt, fmt::format("offset {} where {} belongs", header.base_offset.value(), next.value()));
  }
  if (header.leader_epoch < before || !epoch_fits(terms, next, header.leader_epoch)) {
    return fail(Errc::corrupt, fmt::format("leader epoch {}, which is not that of offset {}", header.leader_epoch.value(), next.value()));
  }
  return {};
}

bool adds_up(const ColdBytes& bytes, std::uint32_t at, const BatchHeader& header) {
  return bytes.crc(at + batch_layout::kAttributes, at + static_cast<std::uint32_t>(header.total_bytes())) == header.crc;
}

}  // namespace

Result<std::optional<BatchHeader>> BatchWalk::next() {
  position_ = at_;
  if (at_ == end_) return std::optional<BatchHeader>{};
  if (end_ - at_ < batch_layout::kHeaderBytes) return fail(Errc::unexpected_end, "a batch is cut short");
  auto header = header_at(bytes_, at_);
  if (!header) return fail(Errc::corrupt, header.error().detail);
  TAILRACE_TRY_VOID(judge(*header, next_, epoch_, terms_));
  if (header->total_bytes() > end_ - at_) return fail(Errc::unexpected_end, "a batch is cut short");
  if (checksums_ == Checksums::each && !adds_up(bytes_, at_, *header)) return fail(Errc::corrupt, "a batch does not match its checksum");
  at_ += static_cast<std::uint32_t>(header->total_bytes());
  next_ = header->next_offset();
  epoch_ = header->leader_epoch;
  return std::optional<BatchHeader>{*header};
}

/// At least `bytes` from here on; the segment has them.
Task<Result<void>> SegmentScan::window(std::uint32_t bytes) {
  if (at_ >= window_.begin() && at_ + bytes <= window_.end()) co_return Result<void>{};
  std::uint32_t end = std::max(at_ + bytes, std::min(source_.end, at_ + ColdReader::kChunkBytes));
  auto loaded = co_await cold_.load(source_, at_, end);
  window_ = std::move(loaded.bytes);
  if (at_ + bytes <= window_.end()) co_return Result<void>{};
  if (loaded.error) co_return std::unexpected(std::move(*loaded.error));
  co_return fail(Errc::corrupt, "the file ends early");
}

Task<Result<std::optional<SegmentScan::Item>>> SegmentScan::next() {
  auto item = co_await look();
  if (item || item.error().code != Errc::corrupt) co_return item;
  cold_.forget(source_.key, at_, std::max(at_ + 1, window_.end()));  // a second look goes to the device again
  window_ = ColdBytes{};
  co_return co_await look();
}

Task<Result<std::optional<SegmentScan::Item>>> SegmentScan::look() {
  if (source_.end - at_ < batch_layout::kHeaderBytes) co_return std::optional<Item>{};
  TAILRACE_CO_TRY_VOID(co_await window(batch_layout::kHeaderBytes));
  auto header = header_at(window_, at_);
  if (!header) co_return fail(Errc::corrupt, header.error().detail);
  TAILRACE_CO_TRY_VOID(judge(*header, next_, epoch_, terms_));
  // The planted decoder bug: as many bytes are looked at as the header says, wherever the segment ends.
  if (planted(PlantedBug::decoder_length)) static_cast<void>(batch_crc(Bytes{window_.at(at_).data(), header->total_bytes()}));
  if (header->total_bytes() > source_.end - at_) co_return std::optional<Item>{};
  auto bytes = static_cast<std::uint32_t>(header->total_bytes());
  TAILRACE_CO_TRY_VOID(co_await window(bytes));
  // Read anew, it may be another: the header counts as it is under the checksum.
  auto again = header_at(window_, at_);
  if (!again || again->length != header->length || !judge(*again, next_, epoch_, terms_) || !adds_up(window_, at_, *again)) {
    co_return fail(Errc::corrupt, "a batch does not match its checksum");
  }
  Item item{*again, window_.slice(at_, bytes)};
  at_ += bytes;
  next_ = again->next_offset();
  epoch_ = again->leader_epoch;
  co_return std::optional<Item>{std::move(item)};
}

}  // namespace tailrace::broker::log
