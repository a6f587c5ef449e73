#pragma once
/// Reads an input piece by piece with bounded memory: lines of a pipe that runs for hours, or a whole file as one record.
#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <string_view>

namespace tailrace::cli {

/// Why no line came.
enum class LineEnd {
  end,          ///< of the input
  interrupted,  ///< the wake descriptor turned readable
  idle,         ///< nothing came within the wait
  too_long,     ///< a line above the bound; the input cannot go on
  error,        ///< errno is in LineReader::error()
};

/// A line ends with '\n', which is not part of it; a '\r' before that stays in the line (bytes are never changed). A last
/// line without '\n' counts; an empty line is an empty record; an empty input has no lines.
class LineReader {
 public:
  /// `descriptor` is borrowed. `wake` (or -1) interrupts a wait for input.
  LineReader(int descriptor, int wake, std::size_t line_bytes_max) : descriptor_(descriptor), wake_(wake), line_bytes_max_(line_bytes_max) {}

  /// The view holds until the next call. `wait_ms` -1: as long as it takes.
  [[nodiscard]] std::expected<std::string_view, LineEnd> next(int wait_ms = -1);
  /// Everything up to the end of the input as one piece.
  [[nodiscard]] std::expected<std::string_view, LineEnd> rest();
  [[nodiscard]] std::uint64_t bytes_read() const { return bytes_read_; }
  /// Of those, what was handed out.
  [[nodiscard]] std::uint64_t bytes_taken() const { return bytes_read_ - (buffer_.size() - begin_); }
  /// A line is there without waiting.
  [[nodiscard]] int error() const { return error_; }

 private:
  std::optional<LineEnd> fill(int wait_ms);

  std::string buffer_;
  std::size_t begin_ = 0;    // first byte not handed out
  std::size_t scanned_ = 0;  // no newline in [begin_, scanned_)
  std::uint64_t bytes_read_ = 0;
  int descriptor_;
  int wake_;
  std::size_t line_bytes_max_;
  int error_ = 0;
  bool at_end_ = false;
};

}  // namespace tailrace::cli
