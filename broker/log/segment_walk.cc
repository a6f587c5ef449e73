#include "log/segment_walk.h"

#include <fmt/format.h>

#include "model/limits.h"

namespace tailrace::broker::log {
namespace {

/// Candidates of a search are paid for with a checksum each; more than this and the file is not worth it.
constexpr std::uint64_t kSearchBytesMax = std::uint64_t{16} << 30;

}  // namespace

Task<Result<BatchHeader>> SegmentWalk::header_at(std::uint64_t position) {
  Bytes bytes = co_await file_.at(position, batch_layout::kHeaderBytes);
  auto header = read_batch_header(bytes, limits::kMessageBytesCeiling);
  if (!header) {
    if (file_.refused(position, position + batch_layout::kHeaderBytes)) co_return fail(Errc::io_error, "the device refused to read");
    co_return header;
  }
  if (header->last_offset_delta < 0) co_return fail(Errc::corrupt, "batch header: last offset delta below 0");
  co_return header;
}

Task<SegmentWalk::Found> SegmentWalk::check(BatchHeader header, std::uint64_t position, std::uint32_t previous_crc) {
  Found out{.header = header, .bytes_crc = previous_crc};
  std::uint32_t crc = 0;
  std::uint64_t seen = 0;
  auto add = [&](Bytes bytes) {
    out.bytes_crc = crc32c(bytes, out.bytes_crc);
    std::size_t skip = static_cast<std::size_t>(seen < batch_layout::kAttributes ? std::min<std::uint64_t>(batch_layout::kAttributes - seen, bytes.size()) : 0);
    crc = crc32c(bytes.subspan(skip), crc);
    seen += bytes.size();
  };
  co_await file_.each(position, header.total_bytes(), add);
  out.crc_good = seen == header.total_bytes() && crc == header.crc;
  co_return out;
}

Task<BatchItem> SegmentWalk::next(std::uint32_t previous_crc) {
  if (at_ >= end_) co_return BatchItem{.kind = BatchItem::Kind::end, .position = at_};
  BatchItem item{.kind = BatchItem::Kind::batch, .position = at_};
  auto header = co_await header_at(at_);
  if (!header) {
    item.what = header.error().detail;
  } else if (next_ && header->base_offset != *next_) {
    item.what = fmt::format("offset {} where {} belongs", header->base_offset.value(), next_->value());
  } else if (header->leader_epoch < epoch_) {
    item.what = fmt::format("leader epoch {} behind {}", header->leader_epoch.value(), epoch_.value());
  } else if (header->total_bytes() > end_ - at_) {
    // The rest of it is not here, and the caller knows whether it should be; or its length is wrong, and batches follow.
    if (auto good = co_await find_batch(at_ + 1)) {
      item.kind = BatchItem::Kind::bad;
      item.bytes = *good - at_;
      item.what = fmt::format("batch length {} goes over the batches behind it", header->length);
      co_await go_on_at(*good);
      co_return item;
    }
    co_return BatchItem{.kind = BatchItem::Kind::end, .header = *header, .position = at_, .bytes = end_ - at_, .what = "a batch is cut short"};
  } else {
    Found found = co_await check(*header, at_, previous_crc);
    std::uint64_t behind = at_ + header->total_bytes();
    bool in_place = found.crc_good;
    if (!in_place && behind == end_) in_place = true;
    if (!in_place) {
      auto following = co_await header_at(behind);
      in_place = following && following->base_offset == header->next_offset();
    }
    if (in_place) {
      item.header = *header;
      item.crc_good = found.crc_good;
      item.bytes = header->total_bytes();
      item.bytes_crc = found.bytes_crc;
      if (!found.crc_good) item.what = file_.refused(at_, behind) ? "the device refused to read" : "a batch does not match its checksum";
      at_ = behind;
      next_ = header->next_offset();
      epoch_ = std::max(epoch_, header->leader_epoch);
      co_return item;
    }
    item.what = "a batch does not match its checksum, and none follows it";
  }
  item.kind = BatchItem::Kind::bad;
  auto good = co_await find_batch(at_ + 1);
  item.bytes = (good ? *good : end_) - at_;
  if (good) co_await go_on_at(*good);
  else at_ = end_;
  co_return item;
}

Task<void> SegmentWalk::go_on_at(std::uint64_t position) {
  auto header = co_await header_at(position);
  if (header) next_ = header->base_offset;
  epoch_ = LeaderEpoch{-1};
  at_ = position;
}

/// The first whole batch at or behind `from` whose offset may come next and whose checksum holds.
Task<std::optional<std::uint64_t>> SegmentWalk::find_batch(std::uint64_t from) {
  std::uint64_t paid = 0;
  for (std::uint64_t at = from; at + batch_layout::kHeaderBytes <= end_ && paid < kSearchBytesMax;) {
    Bytes bytes = co_await file_.at(at, batch_layout::kHeaderBytes);
    bool moved = false;
    for (std::size_t i = 0; i + batch_layout::kHeaderBytes <= bytes.size(); ++i) {
      if (static_cast<std::int8_t>(bytes[i + batch_layout::kMagic]) != batch_layout::kMagicValue) continue;
      auto header = read_batch_header(bytes.subspan(i), limits::kMessageBytesCeiling);
      bool likely = header && header->last_offset_delta >= 0 && header->base_offset.value() >= 0 && (!next_ || header->base_offset >= *next_) &&
                    at + i + batch_layout::kHeaderBytes <= end_ && header->total_bytes() <= end_ - (at + i);
      if (!likely) continue;
      std::uint64_t place = at + i;
      paid += header->total_bytes();
      Found found = co_await check(*header, place, 0);
      if (found.crc_good) co_return place;
      at = place + 1;  // the window moved
      moved = true;
      break;
    }
    if (moved) continue;
    if (bytes.size() < batch_layout::kHeaderBytes) break;
    at += bytes.size() - batch_layout::kHeaderBytes + 1;
  }
  co_return std::nullopt;
}

}  // namespace tailrace::broker::log
