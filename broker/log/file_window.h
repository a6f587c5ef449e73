#pragma once
/// A file of any size through one window, front to back, with several reads in flight ahead of it. For the offline tools: what
/// the device refuses to read is noted, reads as zeros, and the reading goes on.
/// Memory   the window and kDepth chunks, 1 MiB each; a file read here and there has one chunk in flight.
#include <algorithm>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include "base/buffer.h"
#include "base/crc32c.h"
#include "base/notifier.h"
#include "base/task.h"
#include "io/runtime.h"
#include "model/limits.h"

namespace tailrace::broker::log {

class FileWindow {
 public:
  static constexpr std::size_t kWantMax = limits::kMiB;
  static constexpr std::size_t kDepth = 8;  // chunks asked for; a disk is near its speed with that many reads in flight

  /// `reads` runs what is in flight, also when the window is gone: its owner drains it.
  /// Errors: not_found, descriptors_exhausted, corrupt (a directory), io_error.
  static Task<Result<FileWindow>> open(io::Runtime& runtime, TaskScope& reads, std::string path);

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::uint64_t size() const { return size_; }

  /// The bytes from `position` on that are at hand, at least `want` (up to kWantMax) unless the file ends first. Until the
  /// next call.
  Task<Bytes> at(std::uint64_t position, std::size_t want) {
    if (position >= size_) co_return Bytes{};
    std::uint64_t need = position + std::min<std::uint64_t>(std::min(want, kWantMax), size_ - position);
    if (position < from_ || need > from_ + length_) co_await load(position);
    co_return Bytes{buffer_.data() + (position - from_), length_ - static_cast<std::size_t>(position - from_)};
  }
  /// Calls `part(Bytes)` with [position, position + length), as far as the file goes. Answers the bytes given.
  template <class F>
  Task<std::uint64_t> each(std::uint64_t position, std::uint64_t length, F& part) {
    std::uint64_t done = 0;
    while (done < length) {
      Bytes bytes = co_await at(position + done, 1);
      if (bytes.empty()) break;
      bytes = bytes.first(static_cast<std::size_t>(std::min<std::uint64_t>(bytes.size(), length - done)));
      part(bytes);
      done += bytes.size();
    }
    co_return done;
  }
  Task<std::uint32_t> crc(std::uint64_t position, std::uint64_t length) {
    std::uint32_t crc = 0;
    auto add = [&](Bytes bytes) { crc = crc32c(bytes, crc); };
    co_await each(position, length, add);
    co_return crc;
  }
  /// Where the first byte other than zero of [position, to) is; `to` if there is none.
  Task<std::uint64_t> first_nonzero(std::uint64_t position, std::uint64_t to);
  /// One past the last byte of [position, to) other than zero; `position` if there is none.
  Task<std::uint64_t> end_of_nonzero(std::uint64_t position, std::uint64_t to);

  /// Parts the device refused, ascending, as far as they were read.
  [[nodiscard]] const std::vector<std::pair<std::uint64_t, std::uint64_t>>& unreadable() const { return unreadable_; }
  [[nodiscard]] bool refused(std::uint64_t from, std::uint64_t to) const {
    return std::ranges::any_of(unreadable_, [&](const auto& r) { return r.first < to && r.second > from; });
  }

 private:
  struct Chunk {
    explicit Chunk(Executor& executor) : loaded{executor} {}
    std::uint64_t from = 0;
    std::size_t length = 0;
    Buffer bytes{};
    bool loading = true;
    bool refused = false;
    Notifier loaded;
  };
  FileWindow(io::Runtime& runtime, TaskScope& reads, std::string path, std::shared_ptr<io::File> file, std::uint64_t size)
      : executor_{&runtime.executor}, reads_{&reads}, path_{std::move(path)}, file_{std::move(file)}, size_{size} {}
  static Task<void> fetch(std::shared_ptr<io::File> file, std::shared_ptr<Chunk> chunk);
  Task<void> load(std::uint64_t position);
  void ask(std::uint64_t first);
  Task<void> block_by_block(std::uint64_t from, std::uint64_t to);
  void note_refused(std::uint64_t from, std::uint64_t to);

  static constexpr std::size_t kBufferBytes = kWantMax + io::kDirectAlignment;
  static constexpr std::size_t kRefusedMax = 4'096;

  Executor* executor_;
  TaskScope* reads_;
  std::string path_;
  std::shared_ptr<io::File> file_;
  std::uint64_t size_;
  std::deque<std::shared_ptr<Chunk>> chunks_{};  // ascending, without gaps
  std::size_t depth_ = 1;                        // of chunks asked for: doubles while the file is read in order
  std::vector<Buffer> spare_{};
  Buffer buffer_{};
  std::uint64_t from_ = 0;
  std::size_t length_ = 0;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> unreadable_{};
};

}  // namespace tailrace::broker::log
