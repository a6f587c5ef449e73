#pragma once
/// Logging facade: format strings are checked at compile time, and only one file of the project includes spdlog.
/// An event id names the kind of line ("wal.recycled") and stays stable; `tailrace explain` and alerts rely on it.
/// Never log payloads.
#include <fmt/core.h>

#include <string_view>

namespace tailrace::broker {

enum class LogLevel { debug, info, warn, error };

/// Called from any thread. The default sink writes plain lines to stderr; the server installs its own at start, before
/// other threads run.
using LogSink = void (*)(LogLevel level, std::string_view event, std::string_view message);
void set_log_sink(LogSink sink, LogLevel threshold);
void set_log_threshold(LogLevel threshold);  // any thread
[[nodiscard]] bool log_enabled(LogLevel level);
void vlog(LogLevel level, std::string_view event, fmt::string_view format, fmt::format_args args);

template <class... T>
void log_debug(std::string_view event, fmt::format_string<T...> format, T&&... args) {
  if (log_enabled(LogLevel::debug)) vlog(LogLevel::debug, event, format, fmt::make_format_args(args...));
}
template <class... T>
void log_info(std::string_view event, fmt::format_string<T...> format, T&&... args) {
  if (log_enabled(LogLevel::info)) vlog(LogLevel::info, event, format, fmt::make_format_args(args...));
}
template <class... T>
void log_warn(std::string_view event, fmt::format_string<T...> format, T&&... args) {
  vlog(LogLevel::warn, event, format, fmt::make_format_args(args...));
}
template <class... T>
void log_error(std::string_view event, fmt::format_string<T...> format, T&&... args) {
  vlog(LogLevel::error, event, format, fmt::make_format_args(args...));
}

}  // namespace tailrace::broker
