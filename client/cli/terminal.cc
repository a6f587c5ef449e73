#include "terminal.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <mutex>

#include "text.h"

namespace tailrace::cli {
namespace {

constexpr std::size_t kBufferBytes = 64 * 1024;

/// 0, or the errno that stopped it.
int write_all(int descriptor, std::string_view bytes) {
  while (!bytes.empty()) {
    const auto written = ::write(descriptor, bytes.data(), bytes.size());
    if (written >= 0) {
      bytes.remove_prefix(static_cast<std::size_t>(written));
    } else if (errno == EAGAIN) {
      // A shared descriptor may be non-blocking because another process made it so.
      pollfd wait{descriptor, POLLOUT, 0};
      ::poll(&wait, 1, 1'000);
    } else if (errno != EINTR) {
      return errno;
    }
  }
  return 0;
}

bool is_set(const char* value) { return value != nullptr && *value != '\0'; }

std::mutex& stderr_mutex() {
  static std::mutex mutex;
  return mutex;
}

}  // namespace

bool use_colour(Colour flag, const char* no_color, const char* force_color, bool is_terminal) {
  if (flag != Colour::automatic) return flag == Colour::always;
  if (is_set(no_color)) return false;
  if (is_set(force_color)) return std::string_view{force_color} != "0";
  return is_terminal;
}

Terminal Terminal::detect(Colour flag) {
  Terminal t;
  t.stdin_is_terminal = ::isatty(0) != 0;
  t.stdout_is_terminal = ::isatty(1) != 0;
  t.stderr_is_terminal = ::isatty(2) != 0;
  const char* term = std::getenv("TERM");
  const bool dumb = term != nullptr && std::string_view{term} == "dumb";
  t.colour_stdout = use_colour(flag, std::getenv("NO_COLOR"), std::getenv("FORCE_COLOR"), t.stdout_is_terminal && !dumb);
  t.colour_stderr = use_colour(flag, std::getenv("NO_COLOR"), std::getenv("FORCE_COLOR"), t.stderr_is_terminal && !dumb);
  winsize size{};
  if (::ioctl(2, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) t.columns = size.ws_col;
  return t;
}

void occupy_standard_descriptors() {
  for (int descriptor = 0; descriptor < 3; ++descriptor) {
    if (::fcntl(descriptor, F_GETFD) != -1 || errno != EBADF) continue;
    // The lowest free number is given, which is this one.
    [[maybe_unused]] const int got = ::open("/dev/null", descriptor == 0 ? O_WRONLY : O_RDONLY);
  }
}

void Stdout::write(std::string_view bytes) {
  if (closed_ || error_ != 0) return;
  buffer_.append(bytes);
  if (buffer_.size() >= kBufferBytes) flush();
}

void Stdout::flush() {
  if (buffer_.empty()) return;
  const int error = closed_ || error_ != 0 ? 0 : write_all(descriptor_, buffer_);
  buffer_.clear();
  if (error == EPIPE) closed_ = true;
  else if (error != 0) error_ = error;
}

void note(std::string_view line) {
  std::string text{line};
  text += '\n';
  std::lock_guard lock{stderr_mutex()};
  write_all(2, text);
}

void Table::row(std::vector<std::string> cells) {
  cells.resize(headers_.size());
  rows_.push_back(std::move(cells));
}

std::string Table::text(bool coloured) const {
  std::vector<std::size_t> widths;
  std::vector<bool> right;
  std::vector<std::string> titles;
  for (const auto& header : headers_) {
    right.push_back(header.starts_with('>'));
    titles.push_back(right.back() ? header.substr(1) : header);
    widths.push_back(text_width(titles.back()));
  }
  for (const auto& row : rows_) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], text_width(row[i]));
  }
  std::string out;
  auto line = [&](const std::vector<std::string>& cells, bool bold) {
    std::string text;
    for (std::size_t i = 0; i < cells.size(); ++i) {
      if (i > 0) text += "  ";
      const std::string padding(widths[i] - text_width(cells[i]), ' ');
      text += right[i] ? padding + cells[i] : cells[i] + padding;
    }
    while (text.ends_with(' ')) text.pop_back();
    out += bold ? "\033[1m" + text + "\033[0m" : text;
    out += '\n';
  };
  line(titles, coloured);
  for (const auto& row : rows_) line(row, false);
  return out;
}

std::size_t text_width(std::string_view utf8) {
  return static_cast<std::size_t>(std::ranges::count_if(utf8, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

std::string printable(std::string_view bytes) {
  std::string out;
  const bool text = is_utf8(bytes);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const auto c = static_cast<unsigned char>(bytes[i]);
    if (c == '\n') out += "\\n";
    else if (c == '\t') out += "\\t";
    else if (c == '\r') out += "\\r";
    else if (c < 0x20 || c == 0x7F || (c >= 0x80 && !text)) out += fmt::format("\\x{:02x}", c);
    // U+0080-U+009F are control characters too; in UTF-8 they are C2 80-9F.
    else if (c == 0xC2 && i + 1 < bytes.size() && static_cast<unsigned char>(bytes[i + 1]) < 0xA0) out += fmt::format("\\x{:02x}", static_cast<unsigned char>(bytes[++i]));
    else out += static_cast<char>(c);
  }
  return out;
}

std::string Progress::line(std::string_view what, std::uint64_t done, std::uint64_t total, std::string_view detail, double seconds, int columns) {
  std::string text;
  if (total == 0) {
    text = fmt::format("{}  {}", what, detail);
  } else {
    const double part = std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
    constexpr int kBar = 24;
    const int filled = static_cast<int>(part * kBar);
    std::string left = "";
    if (part > 0.01 && part < 1) left = fmt::format("  {} left", human_duration(std::chrono::nanoseconds{static_cast<std::int64_t>(seconds / part * (1 - part) * 1e9)}));
    text = fmt::format("{} [{}{}] {:3.0f} %  {}{}", what, std::string(static_cast<std::size_t>(filled), '='), std::string(static_cast<std::size_t>(kBar - filled), ' '), part * 100, detail, left);
  }
  const auto limit = static_cast<std::size_t>(std::max(10, columns - 1));
  if (text.size() > limit) text.resize(limit);
  return text;
}

void Progress::update(std::uint64_t done, std::uint64_t total, std::string_view detail) {
  if (!enabled_) return;
  const auto now = Clock::now();
  if (now - started_ < std::chrono::seconds{1} || now - drawn_ < std::chrono::milliseconds{100}) return;
  drawn_ = now;
  visible_ = true;
  std::lock_guard lock{stderr_mutex()};
  write_all(2, "\r\033[K" + line(what_, done, total, detail, std::chrono::duration<double>(now - started_).count(), columns_));
}

void Progress::clear() {
  if (!visible_) return;
  visible_ = false;
  std::lock_guard lock{stderr_mutex()};
  write_all(2, "\r\033[K");
}

}  // namespace tailrace::cli
