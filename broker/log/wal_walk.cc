#include "log/wal_walk.h"

#include <fmt/format.h>

namespace tailrace::broker::log {
namespace {

bool all_zero(Bytes bytes) {
  return std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{0}; });
}

}  // namespace

WalWalk::WalWalk(FileWindow& file, const WalFileHeader& header, std::uint64_t known_end, WalChain& chain)
    : file_{file}, header_{header}, chain_{chain}, end_{header.file_bytes - limits::kWalBlock} {
  if (known_end != 0) end_ = std::min(end_, known_end);
  if (header.previous_end != 0) chain_.previous_crc = header.previous_header_crc;
}

Task<WalItem> WalWalk::next() {
  if (!ready_.empty()) {
    WalItem item = std::move(ready_.front());
    ready_.pop_front();
    co_return item;
  }
  while (at_ + kFrameHeaderBytes <= end_) {
    Bytes rest = co_await file_.at(at_, kFrameHeaderBytes);
    auto decoded = may_be_frame(rest) ? decode_frame_header(rest, header_.salt) : fail(Errc::corrupt, "no frame where one belongs");
    bool ours = decoded && decoded->file_sequence == static_cast<std::uint32_t>(header_.sequence) && decoded->stored_bytes() <= end_ - at_;
    bool forged_chain = ours && chain_.next_frame != 0 && decoded->sequence == chain_.next_frame && chain_.previous_crc != 0 &&
                        decoded->previous_crc != chain_.previous_crc;
    if (!ours || (chain_.next_frame != 0 && decoded->sequence < chain_.next_frame) || (forged_chain && !resync_)) {
      std::string what = !decoded ? decoded.error().detail : forged_chain ? "frame: does not follow the one before" : "a frame of another use of the file";
      std::uint64_t boundary = align_down(at_) + limits::kWalBlock;
      if (!resync_ && at_ % limits::kWalBlock != 0) {
        std::size_t left = static_cast<std::size_t>(std::min(boundary, end_) - at_);
        Bytes padding = co_await file_.at(at_, left);
        if (bad_at_ == 0 && !all_zero(padding.first(std::min(left, padding.size())))) {
          bad_at_ = at_;
          in_commit_ = true;
          bad_what_ = may_be_frame(padding) ? what : "padding behind a frame is not zero";
        }
      } else if (bad_at_ == 0 && file_.refused(at_, boundary)) {
        bad_at_ = at_;
        bad_what_ = "the device refused to read";
      } else if (bad_at_ == 0 && !resync_) {
        co_await look_at_tail(at_);
        if (!bad_what_.empty() && forged_chain) bad_what_ = what;
      }
      resync_ = true;
      at_ = boundary;
      continue;
    }
    WalItem frame{.kind = WalItem::Kind::frame, .header = *decoded, .position = at_, .bytes = decoded->stored_bytes()};
    std::uint32_t crc = co_await file_.crc(at_ + kFrameHeaderBytes, decoded->length);
    frame.payload_good = crc == decoded->payload_crc;
    if (!frame.payload_good) {
      frame.what = file_.refused(at_, at_ + decoded->stored_bytes()) ? "frame payload: the device refused to read" : "frame payload: CRC";
    }
    std::optional<WalItem> gap;
    bool skipped = chain_.next_frame != 0 && (decoded->sequence > chain_.next_frame || forged_chain);
    if (skipped || bad_at_ != 0) {
      std::uint64_t from = bad_at_ != 0 ? bad_at_ : clean_end_;
      gap = WalItem{.kind = WalItem::Kind::gap, .position = from, .bytes = at_ - from, .first_frame = chain_.next_frame,
                    .next_frame = decoded->sequence, .what = bad_what_};
      if (forged_chain && gap->what.empty()) gap->what = "frame: does not follow the one before";
      if (gap->first_frame == 0) gap->first_frame = gap->next_frame;
      // Blocks that look like a frame from afar, and turn out not to belong to the log, are none of its damage.
      if (!skipped && !in_commit_) gap.reset();
    }
    at_ += decoded->stored_bytes();
    clean_end_ = at_;
    resync_ = in_commit_ = false;
    bad_at_ = 0;
    bad_what_.clear();
    chain_.next_frame = decoded->sequence + 1;
    chain_.previous_crc = decoded->header_crc;
    if (!gap) co_return frame;
    ready_.push_back(std::move(frame));
    co_return *std::move(gap);
  }
  WalItem end{.kind = WalItem::Kind::end, .position = bad_at_ != 0 ? bad_at_ : clean_end_, .first_frame = chain_.next_frame, .what = bad_what_};
  end.bytes = end_ > end.position ? end_ - end.position : 0;
  co_return end;
}

/// A block that no valid frame begins in. Bytes that only a broken frame of this use can be: its sequence and its file's.
Task<void> WalWalk::look_at_tail(std::uint64_t position) {
  Bytes rest = co_await file_.at(position, kFrameHeaderBytes);
  if (rest.size() < kFrameHeaderBytes) {
    if (file_.size() < header_.file_bytes) {
      bad_at_ = position;
      bad_what_ = "the file ends early";
    }
    co_return;
  }
  std::uint32_t file_sequence = load_le<std::uint32_t>(rest.data() + 24);
  std::uint64_t sequence = load_le<std::uint64_t>(rest.data() + 16);
  bool meant = chain_.next_frame != 0 && sequence == chain_.next_frame && file_sequence == static_cast<std::uint32_t>(header_.sequence);
  bool almost = chain_.next_frame != 0 && may_be_frame(rest) && (sequence == chain_.next_frame || file_sequence == static_cast<std::uint32_t>(header_.sequence));
  if (!meant && !almost) co_return;
  auto decoded = decode_frame_header(rest, header_.salt);
  bad_at_ = position;
  bad_what_ = decoded ? "frame: longer than the file has room" : decoded.error().detail;
}

Task<Result<WalHeaders>> read_wal_headers(FileWindow& file) {
  WalHeaders out;
  std::uint64_t last = file.size() >= 2 * limits::kWalBlock ? align_down(file.size()) - limits::kWalBlock : 0;
  bool zero = true;
  WalFileHeader found[2]{};
  for (int i = 0; i < 2; ++i) {
    if (i == 1 && out.first_good) last = out.header.file_bytes - limits::kWalBlock;
    std::uint64_t position = i == 0 ? 0 : last;
    Bytes block = co_await file.at(position, limits::kWalBlock);
    block = block.first(std::min<std::size_t>(block.size(), limits::kWalBlock));
    zero = zero && all_zero(block) && !file.refused(position, position + limits::kWalBlock);
    auto header = decode_wal_file_header(block);
    if (!header && header.error().code == Errc::newer_format) co_return std::unexpected(header.error());
    bool clean = header && all_zero(block.subspan(kWalFileHeaderBytes));
    if (header && !clean) out.what = "WAL file header: the rest of its block is not zero";
    if (!header) out.what = file.refused(position, position + limits::kWalBlock) ? "WAL file header: the device refused to read" : header.error().detail;
    if (header) {
      found[i] = *header;
      if (found[i].sequence > out.header.sequence) out.header = found[i];
    }
    (i == 0 ? out.first_good : out.last_good) = clean;
  }
  out.unused = zero && !out.first_good && !out.last_good;
  out.differ = out.first_good && out.last_good && found[0].salt != found[1].salt;
  co_return out;
}

}  // namespace tailrace::broker::log
