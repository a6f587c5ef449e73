// The one file that knows spdlog.
#include "server/log_sink.h"

#include <spdlog/sinks/ansicolor_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <map>
#include <mutex>

namespace tailrace::broker::server {
namespace {

std::shared_ptr<spdlog::logger> logger;
bool json = false;

struct Repeats {
  std::chrono::steady_clock::time_point window_began{};
  unsigned lines = 0;
  std::uint64_t left_out = 0;
};
std::mutex repeats_mutex;
std::map<std::string, Repeats, std::less<>> repeats;
constexpr std::size_t kEventsMax = 1'000;  // events are constants of the code: this is never reached unless one is made up

/// How many lines were left out before this one; nullopt: leave this one out too.
std::optional<std::uint64_t> admit(std::string_view event) {
  std::lock_guard lock{repeats_mutex};
  auto now = std::chrono::steady_clock::now();
  auto at = repeats.find(event);
  if (at == repeats.end()) {
    if (repeats.size() >= kEventsMax) return 0;
    at = repeats.emplace(std::string{event}, Repeats{.window_began = now}).first;
  }
  Repeats& state = at->second;
  if (now - state.window_began > kRepeatWindow) {
    state.window_began = now;
    state.lines = 0;
  }
  if (++state.lines > kRepeatsMax) {
    ++state.left_out;
    return std::nullopt;
  }
  return std::exchange(state.left_out, 0);
}

spdlog::level::level_enum level_of(LogLevel level) {
  switch (level) {
    case LogLevel::debug: return spdlog::level::debug;
    case LogLevel::info: return spdlog::level::info;
    case LogLevel::warn: return spdlog::level::warn;
    case LogLevel::error: return spdlog::level::err;
  }
  return spdlog::level::err;
}

void write_line(LogLevel level, std::string_view event, std::string_view message) {
  auto left_out = admit(event);
  if (!left_out) return;
  std::string line = json ? fmt::format("\"event\":{},\"message\":{}", quoted_for_log(event), quoted_for_log(message))
                          : fmt::format("event={} message={}", event, quoted_for_log(message));
  if (*left_out > 0) line += json ? fmt::format(",\"left_out\":{}", *left_out) : fmt::format(" left_out={}", *left_out);
  logger->log(level_of(level), line);
}

}  // namespace

std::string quoted_for_log(std::string_view text) {
  std::string out = "\"";
  for (char c : text) {
    auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (byte < 0x20 || byte == 0x7f) {
      out += fmt::format("\\u{:04x}", byte);
    } else {
      out += c;
    }
  }
  return out + '"';
}

void install_log_sink(LogLevel threshold, LogFormat format) {
  bool terminal = ::isatty(STDERR_FILENO) == 1;
  json = format == LogFormat::json || (format == LogFormat::automatic && !terminal);
  spdlog::sink_ptr sink;
  if (!json && terminal && std::getenv("NO_COLOR") == nullptr) {
    sink = std::make_shared<spdlog::sinks::ansicolor_stderr_sink_mt>();
  } else {
    sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  }
  auto fresh = std::make_shared<spdlog::logger>("tailrace", std::move(sink));
  fresh->set_level(spdlog::level::trace);  // base/log.h decides
  const char* pattern = json ? "{\"time\":\"%Y-%m-%dT%H:%M:%S.%eZ\",\"level\":\"%l\",%v}" : "time=%Y-%m-%dT%H:%M:%S.%eZ level=%^%l%$ %v";
  fresh->set_pattern(pattern, spdlog::pattern_time_type::utc);
  fresh->flush_on(spdlog::level::trace);
  logger = std::move(fresh);
  set_log_sink(write_line, threshold);
}

}  // namespace tailrace::broker::server
