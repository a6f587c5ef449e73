#include "lines.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace tailrace::cli {
namespace {
constexpr std::size_t kReadBytes = 256 * 1024;
}

/// Reads once; nothing: bytes came or the end was reached.
std::optional<LineEnd> LineReader::fill(int wait_ms) {
  if (begin_ > 0) {
    buffer_.erase(0, begin_);
    scanned_ -= begin_;
    begin_ = 0;
  }
  if (buffer_.size() > line_bytes_max_) return LineEnd::too_long;
  for (;;) {
    pollfd wait[2] = {{descriptor_, POLLIN, 0}, {wake_, POLLIN, 0}};
    const int ready = ::poll(wait, wake_ >= 0 ? 2 : 1, wait_ms);
    if (ready < 0 && errno == EINTR) continue;
    if (ready < 0) {
      error_ = errno;
      return LineEnd::error;
    }
    if (ready == 0) return LineEnd::idle;
    if (wake_ >= 0 && wait[1].revents != 0) return LineEnd::interrupted;
    const auto size = buffer_.size();
    ssize_t got = 0;
    int problem = 0;
    buffer_.resize_and_overwrite(size + kReadBytes, [&](char* data, std::size_t) {
      got = ::read(descriptor_, data + size, kReadBytes);
      problem = errno;
      return size + static_cast<std::size_t>(std::max<ssize_t>(got, 0));
    });
    if (got > 0) {
      bytes_read_ += static_cast<std::uint64_t>(got);
      return std::nullopt;
    }
    if (got == 0) {
      at_end_ = true;
      return std::nullopt;
    }
    if (problem == EINTR || problem == EAGAIN) continue;
    error_ = problem;
    return LineEnd::error;
  }
}

std::expected<std::string_view, LineEnd> LineReader::next(int wait_ms) {
  for (;;) {
    const auto newline = buffer_.find('\n', std::max(begin_, scanned_));
    if (newline != std::string::npos) {
      std::string_view line{buffer_.data() + begin_, newline - begin_};
      begin_ = scanned_ = newline + 1;
      if (line.size() > line_bytes_max_) return std::unexpected(LineEnd::too_long);
      return line;
    }
    scanned_ = buffer_.size();
    if (at_end_) {
      if (begin_ == buffer_.size()) return std::unexpected(LineEnd::end);
      std::string_view line{buffer_.data() + begin_, buffer_.size() - begin_};
      begin_ = scanned_ = buffer_.size();
      return line;
    }
    if (auto problem = fill(wait_ms)) return std::unexpected(*problem);
  }
}

std::expected<std::string_view, LineEnd> LineReader::rest() {
  while (!at_end_) {
    if (auto problem = fill(-1)) return std::unexpected(*problem);
  }
  if (buffer_.size() - begin_ > line_bytes_max_) return std::unexpected(LineEnd::too_long);
  std::string_view all{buffer_.data() + begin_, buffer_.size() - begin_};
  begin_ = scanned_ = buffer_.size();
  return all;
}

}  // namespace tailrace::cli
