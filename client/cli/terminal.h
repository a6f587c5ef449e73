#pragma once
/// Everything a command writes goes through here: data to stdout, everything else to stderr.
///
/// A reader that went away (SIGPIPE is ignored, write gives EPIPE) is no error: `Stdout::closed()` turns true and later
/// writes do nothing, so that `tailrace tail t | head -1` ends quietly.
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tailrace::cli {

enum class Colour { automatic, always, never };

/// --color beats NO_COLOR and FORCE_COLOR, which beat what the descriptor is. Null or empty variables count as unset
/// (no-color.org); of both set, NO_COLOR wins.
[[nodiscard]] bool use_colour(Colour flag, const char* no_color, const char* force_color, bool is_terminal);

struct Terminal {
  bool stdin_is_terminal = false;
  bool stdout_is_terminal = false;
  bool stderr_is_terminal = false;
  bool colour_stdout = false;
  bool colour_stderr = false;
  int columns = 80;
  [[nodiscard]] static Terminal detect(Colour flag);
};

/// A descriptor 0, 1 or 2 that the caller closed would become the next file or socket opened, and what is meant for a person
/// would be written into it. Puts /dev/null there, the wrong way round, so that using it is still an error (EBADF).
/// Before anything is opened.
void occupy_standard_descriptors();

/// Buffers up to 64 KiB; flush() or the destructor writes the rest. Not thread-safe.
class Stdout {
 public:
  Stdout() = default;
  explicit Stdout(int descriptor) : descriptor_(descriptor) {}
  Stdout(const Stdout&) = delete;
  Stdout& operator=(const Stdout&) = delete;
  ~Stdout() { flush(); }

  void write(std::string_view bytes);
  void flush();
  [[nodiscard]] bool closed() const { return closed_; }
  /// errno of a failed write (a full disk behind `> file`), 0: none. Data is missing then and the command has failed.
  [[nodiscard]] int error() const { return error_; }

 private:
  std::string buffer_;
  int descriptor_ = 1;
  int error_ = 0;
  bool closed_ = false;
};

/// One line on stderr; safe from any thread.
void note(std::string_view line);

/// Left-aligned columns as wide as their widest cell; numbers are right-aligned when the header begins with '>'.
class Table {
 public:
  explicit Table(std::vector<std::string> headers) : headers_(std::move(headers)) {}
  void row(std::vector<std::string> cells);
  [[nodiscard]] std::string text(bool coloured) const;

 private:
  std::vector<std::string> headers_;
  std::vector<std::vector<std::string>> rows_;
};

/// Columns a text takes on a terminal: characters, not bytes.
[[nodiscard]] std::size_t text_width(std::string_view utf8);
/// What may be shown on a terminal: control characters and non-UTF-8 bytes as \xNN, newline and tab as \n and \t.
[[nodiscard]] std::string printable(std::string_view bytes);

/// A bar on stderr, only on a terminal, only once the work has taken a second, redrawn at most ten times a second.
class Progress {
 public:
  using Clock = std::chrono::steady_clock;
  Progress(bool enabled, std::string what, int columns) : what_(std::move(what)), columns_(columns), enabled_(enabled) {}
  ~Progress() { clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// `total` 0: unknown, a counter is shown instead of a bar. `detail` follows, e.g. "123 records".
  void update(std::uint64_t done, std::uint64_t total, std::string_view detail);
  /// Takes the bar off the screen, before other lines are written.
  void clear();
  [[nodiscard]] static std::string line(std::string_view what, std::uint64_t done, std::uint64_t total, std::string_view detail, double seconds, int columns);

 private:
  std::string what_;
  Clock::time_point started_ = Clock::now();
  Clock::time_point drawn_{};
  int columns_;
  bool enabled_;
  bool visible_ = false;
};

}  // namespace tailrace::cli
