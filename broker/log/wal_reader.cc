#include "log/wal_reader.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/crc32c.h"
#include "base/planted.h"
#include "log/segment_files.h"

namespace tailrace::broker::log {
namespace {

constexpr std::size_t kCutBatchesMax = 4'096;

bool all_zero(Bytes bytes) {
  return std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{0}; });
}

/// The payload of a frame as it comes by: its checksum, its front, and a copy if that is wanted.
class PayloadTaker {
 public:
  PayloadTaker(ScannedFrame& frame, WalScanner::Keep& keep) : frame_{frame} {
    const FrameHeader& h = frame.header;
    bool data = h.type == FrameType::batch || h.type == FrameType::remainder;
    if (h.length > 0 && (!data || keep(h))) kept_ = Buffer::allocate(h.length);
  }
  [[nodiscard]] std::size_t taken() const { return taken_; }
  [[nodiscard]] std::size_t missing() const { return frame_.header.length - taken_; }
  void take(Bytes bytes) {
    // The planted decoder bug: as many bytes are looked at as the header says, wherever they end.
    if (planted(PlantedBug::decoder_length)) bytes = {bytes.data(), missing()};
    bytes = bytes.first(std::min(bytes.size(), missing()));
    crc_ = crc32c(bytes, crc_);
    if (taken_ < frame_.front.size()) std::memcpy(frame_.front.data() + taken_, bytes.data(), std::min(bytes.size(), frame_.front.size() - taken_));
    if (kept_) std::memcpy(kept_.data() + taken_, bytes.data(), bytes.size());
    taken_ += bytes.size();
  }
  [[nodiscard]] std::uint32_t finish() {
    if (kept_) frame_.payload = Slice::whole(std::move(kept_));
    return crc_;
  }

 private:
  ScannedFrame& frame_;
  Buffer kept_{};
  std::uint32_t crc_ = 0;
  std::size_t taken_ = 0;
};

}  // namespace

Task<Result<void>> WalScanner::scan(std::vector<WalFileFound> files) {
  std::vector<WalStream::Part> parts;
  for (std::size_t i = 0; i < files.size(); ++i) {
    std::uint64_t end = files[i].header.file_bytes - limits::kWalBlock;
    // A recovery that began the next file closed this one there.
    if (i + 1 < files.size() && files[i + 1].header.previous_end != 0) end = std::min(end, files[i + 1].header.previous_end);
    parts.push_back({files[i].file, files[i].header.sequence, kWalDataStart, end});
  }
  WalStream stream{runtime_, parts};
  Result<void> scanned{};
  for (std::size_t i = 0; i < files.size() && scanned; ++i) {
    const WalFileHeader& header = files[i].header;
    if (i == 0) {
      if (expected_ == 0) expected_ = header.first_frame;
    } else if (header.previous_end != 0) {
      // An earlier recovery closed the predecessor: what it kept was valid then.
      proven_ = std::max(proven_, header.first_frame - 1);
    }
    scanned = co_await scan_file(stream, i, header, parts[i].to);
  }
  co_await stream.close();
  co_return scanned;
}

Task<Result<void>> WalScanner::scan_file(WalStream& stream, std::size_t part, const WalFileHeader& header, std::uint64_t end) {
  std::uint64_t at = kWalDataStart;
  if (header.previous_end != 0) chain_ = header.previous_header_crc;
  std::uint64_t clean_end = at;  // behind the last valid frame
  bool resync = false;           // only block boundaries may hold a frame
  while (at + kFrameHeaderBytes <= end) {
    Bytes rest = stream.at(part, at);
    if (rest.empty()) {
      TAILRACE_CO_TRY_VOID(co_await stream.load(part, at));
      rest = stream.at(part, at);
    }
    // Chunks end at blocks: behind a commit's last frame, the rest of its block is at hand.
    std::uint64_t boundary = align_down(at) + limits::kWalBlock;
    auto left = static_cast<std::size_t>(std::min(boundary, end) - at);
    bool padding = !resync && at % limits::kWalBlock != 0 && left <= rest.size() && all_zero(rest.first(left));
    std::array<std::byte, kFrameHeaderBytes> crossing;
    Bytes head = rest;
    if (rest.size() < kFrameHeaderBytes) {
      std::size_t first = rest.size();
      std::memcpy(crossing.data(), rest.data(), first);
      if (load_le<std::uint16_t>(crossing.data()) == kFrameMagic) {
        TAILRACE_CO_TRY_VOID(co_await stream.load(part, at + first));
        std::memcpy(crossing.data() + first, stream.at(part, at + first).data(), kFrameHeaderBytes - first);
        head = crossing;
      }
    }
    auto decoded = may_be_frame(head) ? decode_frame_header(head, header.salt) : fail(Errc::corrupt);
    bool ours = decoded && decoded->file_sequence == static_cast<std::uint32_t>(header.sequence) && decoded->stored_bytes() <= end - at;
    if (planted(PlantedBug::decoder_length) && decoded) ours = true;
    if (planted(PlantedBug::accept_stale_frame) && decoded) ours = decoded->stored_bytes() <= end - at;
    if (!ours || (expected_ != 0 && decoded->sequence < expected_)) {
      if (!resync && at % limits::kWalBlock != 0) {
        // Behind the last frame of a commit: zeros, unless something broke.
        if (!padding && !open_bad_) open_bad_ = BadPlace{.file = header.sequence, .position = at, .first_frame = expected_};
      }
      resync = true;
      at = boundary;
      continue;
    }
    if (expected_ != 0 && (decoded->sequence > expected_ || (decoded->sequence == expected_ && decoded->previous_crc != chain_ && chain_ != 0))) {
      if (!open_bad_) open_bad_ = BadPlace{.file = header.sequence, .position = clean_end, .first_frame = expected_};
      if (decoded->sequence == expected_ && !resync) {
        at = boundary;  // a frame of ours whose chain is broken: written by nobody we know
        resync = true;
        continue;
      }
      note_gap(header.sequence, at, decoded->sequence);
    } else if (open_bad_) {
      // The expected frame is here after all: only bytes that hold nothing were damaged.
      ++result_.padding_repaired;
      open_bad_.reset();
    }
    ScannedFrame frame{.header = *decoded, .file = header.sequence, .position = at};
    PayloadTaker payload{frame, keep_};
    while (payload.missing() > 0) {
      std::uint64_t position = at + kFrameHeaderBytes + payload.taken();
      Bytes bytes = stream.at(part, position);
      if (bytes.empty()) {
        TAILRACE_CO_TRY_VOID(co_await stream.load(part, position));
        bytes = stream.at(part, position);
      }
      payload.take(bytes);
    }
    std::uint32_t crc = payload.finish();
    at += decoded->stored_bytes();
    resync = false;
    expected_ = decoded->sequence + 1;
    chain_ = decoded->header_crc;
    clean_end = at;
    if (crc != decoded->payload_crc) {
      unproven_.push_back({.file = header.sequence, .position = frame.position, .first_frame = decoded->sequence,
                           .next_frame = decoded->sequence + 1, .header = *decoded});
      // Its own durable-up-to still counts: the header is whole.
      proven_ = std::max(proven_, decoded->durable_up_to());
      TAILRACE_CO_TRY_VOID(release());
      continue;
    }
    TAILRACE_CO_TRY_VOID(accept(std::move(frame)));
  }
  co_return Result<void>{};
}

void WalScanner::note_gap(std::uint64_t file, std::uint64_t position, std::uint64_t next) {
  BadPlace bad = open_bad_ ? *open_bad_ : BadPlace{.file = file, .position = position, .first_frame = expected_};
  open_bad_.reset();
  bad.next_frame = next;
  unproven_.push_back(bad);
}

Result<void> WalScanner::accept(ScannedFrame&& frame) {
  proven_ = std::max(proven_, frame.header.durable_up_to());
  if (!unproven_.empty()) {
    held_.push_back(std::move(frame));
    return release();
  }
  return deliver(std::move(frame));
}

/// Whatever the proof covers by now goes out, in order.
Result<void> WalScanner::release() {
  if (planted(PlantedBug::cut_despite_proof)) return {};
  std::size_t done = 0;
  std::size_t given = 0;
  while (done < unproven_.size() && unproven_[done].first_frame <= proven_) {
    const BadPlace bad = unproven_[done++];
    result_.damage.push_back(bad);
    result_.next_frame = std::max(result_.next_frame, bad.next_frame);
    damage_sink_(bad);
    std::uint64_t until = done < unproven_.size() ? unproven_[done].first_frame : ~std::uint64_t{0};
    while (given < held_.size() && held_[given].header.sequence < until) TAILRACE_TRY_VOID(deliver(std::move(held_[given++])));
  }
  unproven_.erase(unproven_.begin(), unproven_.begin() + static_cast<std::ptrdiff_t>(done));
  held_.erase(held_.begin(), held_.begin() + static_cast<std::ptrdiff_t>(given));
  return {};
}

Result<void> WalScanner::deliver(ScannedFrame&& frame) {
  ++result_.frames;
  result_.bytes += frame.header.stored_bytes();
  result_.next_frame = frame.header.sequence + 1;
  result_.previous_header_crc = frame.header.header_crc;
  if (result_.file_starts.empty() || result_.file_starts.back().first != frame.file) {
    result_.file_starts.emplace_back(frame.file, frame.header.sequence);
  }
  result_.end_file = frame.file;
  result_.end_position = frame.position + frame.header.stored_bytes();
  if (!is_known(frame.header.type)) {
    return fail(Errc::newer_format, fmt::format("WAL file {} position {}: frame type {}", frame.file, frame.position,
                                                static_cast<int>(frame.header.type)));
  }
  return sink_(std::move(frame));
}

ScanResult WalScanner::finish() {
  // Something broken at the very end that a checkpoint proves to have been durable.
  if (expected_ != 0 && expected_ <= proven_) {
    BadPlace bad = open_bad_ ? *open_bad_ : BadPlace{.file = result_.end_file, .position = result_.end_position, .first_frame = expected_};
    open_bad_.reset();
    bad.next_frame = proven_ + 1;
    unproven_.push_back(bad);
  }
  auto released = release();
  (void)released;  // held frames were given to the sink; its error, if any, shows in the caller's state
  result_.torn = open_bad_.has_value() || !unproven_.empty();
  result_.cut_frames = held_.size();
  for (const ScannedFrame& frame : held_) {
    if (frame.header.type != FrameType::batch || result_.cut_batches.size() >= kCutBatchesMax) continue;
    result_.cut_batches.emplace_back(frame.header.partition, frame.header.base_offset);
  }
  held_.clear();
  return std::move(result_);
}

}  // namespace tailrace::broker::log
