// The table of keys, and what each does to ServerOptions. A key is added here and nowhere else.
#include "server/config_schema.h"

#include <fmt/format.h>

#include <array>

#include "model/limits.h"
#include "server/config_values.h"

namespace tailrace::broker::server {
namespace {

using Kind = SettingKind;
constexpr std::uint64_t kKi = 1024, kMi = 1024 * kKi, kGi = 1024 * kMi;
constexpr std::uint64_t kSecond = 1'000, kMinute = 60 * kSecond, kHour = 60 * kMinute, kDay = 24 * kHour;

const Setting kSettings[] = {
    {.key = "data.directory", .kind = Kind::path, .default_text = "tailrace-data", .default_dev = ".tailrace",
     .meaning = "Where everything durable lives. Created if missing (its parent must exist). One process at a time."},
    {.key = "listen.native", .kind = Kind::endpoint, .default_text = "127.0.0.1:7070",
     .meaning = "Address of the native protocol. Port 0 picks a free one; the ready line tells which."},
    {.key = "listen.http", .kind = Kind::endpoint, .default_text = "127.0.0.1:7080",
     .meaning = "Address of /metrics, /healthz and /readyz. Port 0 picks a free one."},
    {.key = "listen.advertise", .kind = Kind::text, .default_text = "",
     .meaning = "Host name or address that clients are told to use. Empty: the address they reached the broker by."},
    {.key = "allow_unauthenticated", .kind = Kind::boolean, .default_text = "false",
     .meaning = "Needed to listen on another address than loopback, since there is no authentication yet."},
    {.key = "shards", .kind = Kind::integer, .default_text = "0", .minimum = 0, .maximum = 64,
     .meaning = "Threads that own partitions, each with its own WAL. 0: one per usable processor. May change between starts."},
    {.key = "io.backend", .kind = Kind::choice, .default_text = "auto", .choices = "auto|io_uring|threads",
     .meaning = "How files are written. auto takes io_uring, and a thread pool where the kernel or container refuses it."},
    {.key = "wal.file_bytes", .kind = Kind::size, .default_text = "64MiB", .default_dev = "8MiB", .minimum = limits::kWalFileBytesMin,
     .maximum = limits::kWalFileBytesMax,
     .meaning = "Size of one write-ahead log file. A largest message must fit; recovery time grows with wal.file_bytes x wal.files."},
    {.key = "wal.files", .kind = Kind::integer, .default_text = "4", .minimum = static_cast<std::uint64_t>(limits::kWalFilesMin),
     .maximum = static_cast<std::uint64_t>(limits::kWalFilesMax), .meaning = "Write-ahead log files per shard; they are recycled in place."},
    {.key = "memory.hot_tail_bytes", .kind = Kind::size, .default_text = "128MiB", .default_dev = "32MiB", .minimum = kMi, .maximum = 64 * kGi,
     .meaning = "Per shard: newest records kept in memory for readers and for filling segments."},
    {.key = "memory.read_pool_bytes", .kind = Kind::size, .default_text = "32MiB", .default_dev = "16MiB", .minimum = kMi, .maximum = 64 * kGi,
     .meaning = "Per shard: buffers for reading segments, with read-ahead."},
    {.key = "memory.client_bytes", .kind = Kind::size, .default_text = "128MiB", .default_dev = "64MiB", .minimum = kMi, .maximum = 64 * kGi,
     .meaning = "Per shard: held for clients; half for requests not yet answered, 40 % for answers on their way, the rest for control messages. "
                "When a part is used up the broker stops reading sockets. A message larger than half of it is refused."},
    {.key = "limits.connections", .kind = Kind::integer, .default_text = "10000", .minimum = 1, .maximum = 1'000'000,
     .meaning = "Native connections at the same time; further ones are closed at once.", .live = true},
    {.key = "limits.connections_per_address", .kind = Kind::integer, .default_text = "10000", .minimum = 1, .maximum = 1'000'000,
     .meaning = "The same for one client address.", .live = true},
    {.key = "limits.idle_timeout", .kind = Kind::duration, .default_text = "5m", .minimum = kSecond, .maximum = kDay,
     .meaning = "A connection that sends nothing for this long is closed; the SDK pings in time. A change is for new connections.", .live = true},
    {.key = "http.threads", .kind = Kind::integer, .default_text = "2", .minimum = 1, .maximum = 64,
     .meaning = "Threads of the HTTP port, apart from the shards."},
    {.key = "topics.auto_create", .kind = Kind::boolean, .default_text = "false", .default_dev = "true",
     .meaning = "Tells clients that publishing to a topic that does not exist may create it, with one partition. `tailrace pub` does so.", .live = true},
    {.key = "retention.interval", .kind = Kind::duration, .default_text = "10s", .minimum = 100, .maximum = kDay,
     .meaning = "How often retention_time and retention_bytes of topics are enforced."},
    {.key = "log.level", .kind = Kind::choice, .default_text = "info", .choices = "debug|info|warn|error", .meaning = "Least severe line that is written to stderr.", .live = true},
    {.key = "log.format", .kind = Kind::choice, .default_text = "auto", .choices = "auto|logfmt|json",
     .meaning = "auto writes logfmt to a terminal and one JSON object a line elsewhere."},
    {.key = "shutdown.deadline", .kind = Kind::duration, .default_text = "10s", .minimum = 100, .maximum = kHour,
     .meaning = "After SIGTERM: how long connections and logs may take to finish before they are cut off.", .live = true},
    {.key = "config.unknown_keys", .kind = Kind::choice, .default_text = "error", .choices = "error|warn",
     .meaning = "warn lets an older version start with a newer version's file; unknown keys are then ignored and named."},
};

}  // namespace

std::span<const Setting> settings() { return kSettings; }

const Setting* find_setting(std::string_view key) {
  for (const Setting& setting : kSettings) {
    if (setting.key == key) return &setting;
  }
  return nullptr;
}

std::string_view name_of(SettingKind kind) {
  switch (kind) {
    case SettingKind::text: return "text";
    case SettingKind::path: return "path";
    case SettingKind::boolean: return "true or false";
    case SettingKind::integer: return "whole number";
    case SettingKind::size: return "size with a unit";
    case SettingKind::duration: return "duration with a unit";
    case SettingKind::choice: return "one of a list";
    case SettingKind::endpoint: return "host:port";
  }
  return "";
}

std::string accepted_form(const Setting& setting) {
  switch (setting.kind) {
    case SettingKind::text: return "a string";
    case SettingKind::path: return "a path, as a string";
    case SettingKind::boolean: return "true or false";
    case SettingKind::integer: return fmt::format("a whole number from {} to {}", setting.minimum, setting.maximum);
    case SettingKind::size:
      return fmt::format("a size with its unit, from \"{}\" to \"{}\"", format_size(setting.minimum), format_size(setting.maximum));
    case SettingKind::duration:
      return fmt::format("a duration with its unit, from \"{}\" to \"{}\"", format_duration(std::chrono::milliseconds(setting.minimum)),
                         format_duration(std::chrono::milliseconds(setting.maximum)));
    case SettingKind::choice: return fmt::format("one of {}", setting.choices);
    case SettingKind::endpoint: return "host:port, for example \"127.0.0.1:7070\"";
  }
  return "";
}

std::expected<std::string, std::string> normalise(const Setting& setting, std::string_view text) {
  auto refused = [&] { return std::unexpected{fmt::format("takes {}, not \"{}\"", accepted_form(setting), text.substr(0, 80))}; };
  auto within = [&](std::uint64_t number) { return number >= setting.minimum && number <= setting.maximum; };
  switch (setting.kind) {
    case SettingKind::text: return std::string{text};
    case SettingKind::path:
      if (text.empty() || text.find('\0') != std::string_view::npos) return refused();
      return std::string{text};
    case SettingKind::boolean:
      if (text != "true" && text != "false") return refused();
      return std::string{text};
    case SettingKind::integer: {
      auto number = parse_integer(text);
      if (!number || !within(*number)) return refused();
      return fmt::format("{}", *number);
    }
    case SettingKind::size: {
      auto bytes = parse_size(text);
      if (!bytes || !within(*bytes)) return refused();
      return format_size(*bytes);
    }
    case SettingKind::duration: {
      auto duration = parse_duration(text);
      if (!duration || !within(static_cast<std::uint64_t>(duration->count()))) return refused();
      return format_duration(*duration);
    }
    case SettingKind::choice: {
      std::string_view rest = setting.choices;
      while (!rest.empty()) {
        auto bar = rest.find('|');
        if (rest.substr(0, bar) == text) return std::string{text};
        rest = bar == std::string_view::npos ? std::string_view{} : rest.substr(bar + 1);
      }
      return refused();
    }
    case SettingKind::endpoint: {
      auto endpoint = parse_host_port(text);
      if (!endpoint) return refused();
      return endpoint->to_string();
    }
  }
  return refused();
}

ServerOptions options_from(const std::map<std::string, EffectiveValue, std::less<>>& values, std::uint32_t processors) {
  auto text = [&](std::string_view key) -> const std::string& { return values.find(key)->second.text; };
  auto size = [&](std::string_view key) { return *parse_size(text(key)); };
  auto number = [&](std::string_view key) { return static_cast<std::uint32_t>(*parse_integer(text(key))); };
  auto duration = [&](std::string_view key) { return *parse_duration(text(key)); };
  auto chosen = [&]<std::size_t N>(std::string_view key, const std::array<std::string_view, N>& names) {
    std::size_t i = 0;
    while (i + 1 < N && names[i] != text(key)) ++i;
    return i;
  };
  ServerOptions out;
  out.data_directory = text("data.directory");
  out.listen_native = *parse_host_port(text("listen.native"));
  out.listen_http = *parse_host_port(text("listen.http"));
  out.advertise_host = text("listen.advertise");
  out.allow_unauthenticated = text("allow_unauthenticated") == "true";
  out.shards = number("shards") == 0 ? processors : number("shards");
  out.io_backend = static_cast<IoBackend>(chosen("io.backend", std::array<std::string_view, 3>{"auto", "io_uring", "threads"}));
  out.wal_file_bytes = size("wal.file_bytes");
  out.wal_files = static_cast<int>(number("wal.files"));
  out.hot_tail_bytes = size("memory.hot_tail_bytes");
  out.read_pool_bytes = size("memory.read_pool_bytes");
  out.client_bytes = size("memory.client_bytes");
  out.connections_max = number("limits.connections");
  out.connections_per_address_max = number("limits.connections_per_address");
  out.idle_timeout = duration("limits.idle_timeout");
  out.http_threads = number("http.threads");
  out.auto_create_topics = text("topics.auto_create") == "true";
  out.retention_interval = duration("retention.interval");
  out.log_level = static_cast<LogLevel>(chosen("log.level", std::array<std::string_view, 4>{"debug", "info", "warn", "error"}));
  out.log_format = static_cast<LogFormat>(chosen("log.format", std::array<std::string_view, 3>{"auto", "logfmt", "json"}));
  out.shutdown_deadline = duration("shutdown.deadline");
  return out;
}

}  // namespace tailrace::broker::server
