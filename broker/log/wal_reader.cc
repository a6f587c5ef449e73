#include "log/wal_reader.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/crc32c.h"
#include "base/planted.h"
#include "log/segment_files.h"

namespace tailrace::broker::log {
namespace {

constexpr std::size_t kReadBytes = limits::kMiB;
constexpr std::size_t kReadDepth = 4;
constexpr std::size_t kCutBatchesMax = 4'096;

bool all_zero(Bytes bytes) {
  return std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{0}; });
}

}  // namespace

/// Reads a whole file with several reads in flight; a part that fails is read again block by block.
struct WalScanner::FileRead {
  io::Runtime& runtime;
  io::File& file;
  std::uint64_t sequence;
  Contents& into;
  std::uint64_t size;
  std::uint64_t next = 0;
  std::optional<Error> error{};

  Task<void> lane() {
    while (next < size && !error) {
      std::uint64_t at = std::exchange(next, std::min<std::uint64_t>(size, next + kReadBytes));
      auto length = static_cast<std::size_t>(std::min<std::uint64_t>(kReadBytes, size - at));
      MutableBytes part = into.bytes.bytes().subspan(static_cast<std::size_t>(at), length);
      auto got = co_await io::read_up_to(file, part, at);
      if (got) {
        std::memset(part.data() + *got, 0, part.size() - *got);  // a file cut short reads as zeros
        continue;
      }
      for (std::size_t block = 0; block < length; block += limits::kWalBlock) {
        MutableBytes one = part.subspan(block, std::min<std::size_t>(limits::kWalBlock, length - block));
        auto again = co_await io::read_up_to(file, one, at + block);
        if (!again) {
          error = Error{again.error().code, fmt::format("WAL file {} position {}: {}", sequence, at + block, again.error().detail)};
          co_return;
        }
        std::memset(one.data() + *again, 0, one.size() - *again);
      }
    }
  }
};

Task<Result<void>> WalScanner::read_file(const WalFileFound& file, Contents& into) {
  into.bytes = Buffer::allocate(static_cast<std::size_t>(file.header.file_bytes), io::kDirectAlignment);
  FileRead read{runtime_, *file.file, file.header.sequence, into, file.header.file_bytes};
  TaskScope lanes;
  for (std::size_t i = 0; i < kReadDepth; ++i) lanes.spawn(read.lane());
  co_await lanes.drain();
  if (read.error) co_return std::unexpected(*std::move(read.error));
  co_return Result<void>{};
}

Task<Result<void>> WalScanner::scan(std::vector<WalFileFound> files) {
  // The next file is read while this one is checked.
  std::vector<Contents> contents(files.size());
  Result<void> next{};
  for (std::size_t i = 0; i < files.size(); ++i) {
    TaskScope ahead;
    if (i == 0) TAILRACE_CO_TRY_VOID(co_await read_file(files[0], contents[0]));
    if (i + 1 < files.size()) {
      ahead.spawn([](WalScanner& self, const WalFileFound& file, Contents& into, Result<void>& result) -> Task<void> {
        result = co_await self.read_file(file, into);
      }(*this, files[i + 1], contents[i + 1], next));
    }
    const WalFileHeader& header = files[i].header;
    if (i == 0) {
      if (expected_ == 0) expected_ = header.first_frame;
    } else if (header.previous_end != 0) {
      // An earlier recovery closed the predecessor: what it kept was valid then.
      proven_ = std::max(proven_, header.first_frame - 1);
    }
    std::uint64_t known_end = i + 1 < files.size() ? files[i + 1].header.previous_end : 0;
    auto scanned = scan_file(files[i], contents[i], known_end);
    contents[i] = {};
    co_await ahead.drain();
    if (!scanned) co_return scanned;
    if (!next) co_return next;
  }
  co_return Result<void>{};
}

Result<void> WalScanner::scan_file(const WalFileFound& file, const Contents& contents, std::uint64_t known_end) {
  const WalFileHeader& header = file.header;
  Bytes bytes = contents.bytes.bytes();
  std::uint64_t end = header.file_bytes - limits::kWalBlock;
  if (known_end != 0) end = std::min(end, known_end);
  std::uint64_t at = kWalDataStart;
  if (header.previous_end != 0) chain_ = header.previous_header_crc;
  std::uint64_t clean_end = at;  // behind the last valid frame
  bool resync = false;           // only block boundaries may hold a frame
  while (at + kFrameHeaderBytes <= end) {
    Bytes rest = bytes.subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(end - at));
    auto decoded = may_be_frame(rest) ? decode_frame_header(rest, header.salt) : fail(Errc::corrupt);
    bool ours = decoded && decoded->file_sequence == static_cast<std::uint32_t>(header.sequence) && decoded->stored_bytes() <= rest.size();
    if (planted(PlantedBug::decoder_length) && decoded) ours = true;
    if (planted(PlantedBug::accept_stale_frame) && decoded) ours = decoded->stored_bytes() <= rest.size();
    if (!ours || (expected_ != 0 && decoded->sequence < expected_)) {
      std::uint64_t boundary = align_down(at) + limits::kWalBlock;
      if (!resync && at % limits::kWalBlock != 0) {
        // Behind the last frame of a commit: zeros, unless something broke.
        std::size_t left = static_cast<std::size_t>(std::min(boundary, end) - at);
        if (!all_zero(rest.first(left)) && !open_bad_) open_bad_ = BadPlace{.file = header.sequence, .position = at, .first_frame = expected_};
      }
      resync = true;
      at = boundary;
      continue;
    }
    Bytes payload = rest.subspan(kFrameHeaderBytes, decoded->length);
    bool whole = crc32c(payload) == decoded->payload_crc;
    if (expected_ != 0 && (decoded->sequence > expected_ || (decoded->sequence == expected_ && decoded->previous_crc != chain_ && chain_ != 0))) {
      if (!open_bad_) open_bad_ = BadPlace{.file = header.sequence, .position = clean_end, .first_frame = expected_};
      if (decoded->sequence == expected_ && !resync) {
        at = align_down(at) + limits::kWalBlock;  // a frame of ours whose chain is broken: written by nobody we know
        resync = true;
        continue;
      }
      note_gap(header.sequence, at, decoded->sequence);
    } else if (open_bad_) {
      // The expected frame is here after all: only bytes that hold nothing were damaged.
      ++result_.padding_repaired;
      open_bad_.reset();
    }
    std::uint64_t frame_at = at;
    at += decoded->stored_bytes();
    resync = false;
    expected_ = decoded->sequence + 1;
    chain_ = decoded->header_crc;
    if (!whole) {
      unproven_.push_back({.file = header.sequence, .position = frame_at, .first_frame = decoded->sequence,
                           .next_frame = decoded->sequence + 1, .header = *decoded});
      // Its own durable-up-to still counts: the header is whole.
      proven_ = std::max(proven_, decoded->durable_up_to());
      TAILRACE_TRY_VOID(release());
      clean_end = at;
      continue;
    }
    clean_end = at;
    Slice slice{contents.bytes, static_cast<std::size_t>(frame_at + kFrameHeaderBytes), decoded->length};
    TAILRACE_TRY_VOID(accept({*decoded, std::move(slice), header.sequence, frame_at}));
  }
  return {};
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
