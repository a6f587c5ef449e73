#include "base/log.h"

#include <fmt/format.h>

#include <atomic>
#include <cstdio>

namespace tailrace::broker {
namespace {

void to_stderr(LogLevel level, std::string_view event, std::string_view message) {
  static constexpr const char* kNames[] = {"debug", "info", "warn", "error"};
  std::fprintf(stderr, "%s %.*s %.*s\n", kNames[static_cast<int>(level)], static_cast<int>(event.size()), event.data(),
               static_cast<int>(message.size()), message.data());
}

LogSink sink_in_use = to_stderr;
std::atomic<LogLevel> threshold_in_use = LogLevel::warn;

}  // namespace

void set_log_sink(LogSink sink, LogLevel threshold) {
  sink_in_use = sink ? sink : to_stderr;
  threshold_in_use = threshold;
}

void set_log_threshold(LogLevel threshold) { threshold_in_use.store(threshold, std::memory_order_relaxed); }
bool log_enabled(LogLevel level) { return level >= threshold_in_use.load(std::memory_order_relaxed); }

void vlog(LogLevel level, std::string_view event, fmt::string_view format, fmt::format_args args) {
  if (!log_enabled(level)) return;
  fmt::memory_buffer out;
  fmt::vformat_to(fmt::appender(out), format, args);
  sink_in_use(level, event, {out.data(), out.size()});
}

}  // namespace tailrace::broker
