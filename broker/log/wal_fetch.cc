// The bytes of a partition's tail, read from the WAL when the partition is opened.
#include <fmt/format.h>

#include <algorithm>

#include "base/crc32c.h"
#include "log/recovered.h"
#include "log/segment_files.h"

namespace tailrace::broker::log {
namespace {

constexpr std::size_t kReadBytes = limits::kMiB;       // frames close together are read at once
constexpr std::uint64_t kGapMax = 64 * limits::kKiB;   // between them; reading over it is cheaper than another read
constexpr std::size_t kLanes = 4;

class Fetch {
 public:
  Fetch(std::vector<TailFrame>& tail, WalSources sources) : tail_{tail}, sources_{std::move(sources)} {}

  Task<Result<void>> run() {
    TaskScope lanes;
    for (std::size_t i = 0; i < kLanes; ++i) lanes.spawn(lane());
    co_await lanes.drain();
    if (error_) co_return std::unexpected(*std::move(error_));
    co_return Result<void>{};
  }

 private:
  [[nodiscard]] static bool wanted(const TailFrame& t) { return t.bytes.length == 0 && t.length > 0; }

  Task<void> lane() {
    while (!error_) {
      while (next_ < tail_.size() && !wanted(tail_[next_])) ++next_;
      if (next_ == tail_.size()) co_return;
      std::size_t first = next_;
      std::uint64_t from = align_down(tail_[first].wal_position);
      std::uint64_t to = 0;
      for (; next_ < tail_.size(); ++next_) {
        const TailFrame& t = tail_[next_];
        if (!wanted(t)) continue;
        std::uint64_t end = align_up(t.wal_position + FrameHeader::frame_bytes(t.wal_length));
        bool together = to == 0 || (t.wal_file == tail_[first].wal_file && t.wal_position <= to + kGapMax && end <= from + kReadBytes);
        if (!together) break;
        to = std::max(to, end);
      }
      auto done = co_await read(first, next_, from, to);
      if (!done && !error_) error_ = std::move(done.error());
    }
  }

  Task<Result<void>> read(std::size_t first, std::size_t last, std::uint64_t from, std::uint64_t to) {
    WalSource source = sources_(tail_[first].wal_file);
    if (source.file == nullptr) co_return fail(Errc::internal, fmt::format("WAL file {} is not in use any more", tail_[first].wal_file));
    Buffer buffer = Buffer::allocate(to - from, io::kDirectAlignment);
    TAILRACE_CO_TRY(std::size_t got, co_await io::read_up_to(*source.file, buffer.bytes(), from));
    Bytes bytes = Bytes{buffer.data(), got};
    for (std::size_t i = first; i < last; ++i) {
      TailFrame& t = tail_[i];
      if (!wanted(t)) continue;
      std::uint64_t at = t.wal_position - from;
      auto header = at + kFrameHeaderBytes <= bytes.size() ? decode_frame_header(bytes.subspan(at, kFrameHeaderBytes), source.salt) : fail(Errc::corrupt);
      if (!header || header->sequence != t.frame || header->length != t.wal_length) co_return changed(t);
      if (at + kFrameHeaderBytes + t.wal_length > bytes.size()) co_return changed(t);
      Bytes payload = bytes.subspan(at + kFrameHeaderBytes, t.wal_length);
      if (crc32c(payload) != header->payload_crc) co_return changed(t);
      t.bytes = Slice::whole(Buffer::copy_of(payload.first(t.length)));
    }
    co_return Result<void>{};
  }

  static std::unexpected<Error> changed(const TailFrame& t) {
    return fail(Errc::corrupt, fmt::format("WAL file {} position {}: frame {} was whole when the log was recovered, and is not now", t.wal_file, t.wal_position, t.frame));
  }

  std::vector<TailFrame>& tail_;
  WalSources sources_;
  std::size_t next_ = 0;
  std::optional<Error> error_{};
};

}  // namespace

Task<Result<void>> fetch_tail(std::vector<TailFrame>& tail, WalSources sources) {
  Fetch fetch{tail, std::move(sources)};
  co_return co_await fetch.run();
}

}  // namespace tailrace::broker::log
