#pragma once
/// The broker's configuration: strict TOML < environment < flags, with the origin of every value.
///
/// Keys     `section.key`, listed in settings(); `allow_unauthenticated` has no section.
/// File     TOML; sizes ("64MiB") and durations ("10s") are strings with a unit, bare numbers are refused for them.
///          Then the files of the folder conf.d beside it that end in .toml, by name: a later one wins over an earlier.
/// Reload   SIGHUP reads all layers again; a problem leaves everything as it was. Keys marked live apply at once, others at the
///          next start.
/// Environment  TAILRACE_SECTION__KEY, e.g. TAILRACE_DATA__DIRECTORY; only names with two underscores in a row are the
///          broker's. A key without a section: TAILRACE__ALLOW_UNAUTHENTICATED.
/// Flags    `--set section.key=value`, and --data, --listen, --http-listen, which are spellings of the same keys.
/// Errors   all problems of all layers at once, each with its place and a suggestion. No exception leaves this room.
#include <chrono>
#include <cstdint>
#include <expected>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/result.h"

namespace tailrace::broker::server {

struct HostPort {
  std::string host;          // a number ("127.0.0.1", "::1") or a name
  std::uint16_t port = 0;    // 0: any free one
  friend bool operator==(const HostPort&, const HostPort&) = default;
  [[nodiscard]] std::string to_string() const;  // [::1]:7070 for IPv6
  [[nodiscard]] bool is_loopback() const;       // 127.0.0.0/8, ::1, localhost
};
/// "host:port", "[v6]:port" or ":port" (all addresses).
[[nodiscard]] std::optional<HostPort> parse_host_port(std::string_view text);

enum class IoBackend : std::uint8_t { automatic, io_uring, threads };
enum class LogFormat : std::uint8_t { automatic, logfmt, json };

/// What the broker runs with. Defaults, units and meanings: settings() and `tailrace config explain`.
struct ServerOptions {
  std::string data_directory;
  HostPort listen_native;
  HostPort listen_http;
  std::string advertise_host;                // empty: what listen_native says, or the address a client dialled
  bool allow_unauthenticated = false;
  std::uint32_t shards = 0;                  // resolved: at least 1 after load_config
  IoBackend io_backend = IoBackend::automatic;
  std::uint64_t wal_file_bytes = 0;
  int wal_files = 0;
  std::uint64_t hot_tail_bytes = 0;          // per shard
  std::uint64_t read_pool_bytes = 0;         // per shard
  std::uint64_t client_bytes = 0;            // per shard
  std::uint32_t connections_max = 0;
  std::uint32_t connections_per_address_max = 0;
  std::chrono::milliseconds idle_timeout{};
  std::uint32_t http_threads = 0;
  bool auto_create_topics = false;
  std::chrono::milliseconds retention_interval{};
  LogLevel log_level = LogLevel::info;
  LogFormat log_format = LogFormat::automatic;
  std::chrono::milliseconds shutdown_deadline{};
};

enum class SettingKind : std::uint8_t { text, path, boolean, integer, size, duration, choice, endpoint };
[[nodiscard]] std::string_view name_of(SettingKind kind);

/// One key. Static data; `tailrace config explain` prints it.
struct Setting {
  std::string_view key;             // "wal.file_bytes"
  SettingKind kind;
  std::string_view default_text;    // as written in a file, without quotes
  std::string_view default_dev = {};  // `tailrace dev`; empty: the same
  std::uint64_t minimum = 0;        // integer, size (bytes), duration (ms)
  std::uint64_t maximum = 0;
  std::string_view choices = {};    // "auto|io_uring|threads"
  std::string_view meaning;
  bool live = false;                // a reload applies it
};
[[nodiscard]] std::span<const Setting> settings();
[[nodiscard]] const Setting* find_setting(std::string_view key);

enum class OriginKind : std::uint8_t { builtin, file, environment, flag };
struct Origin {
  OriginKind kind = OriginKind::builtin;
  std::string where{};  // "/etc/tailrace/tailrace.toml:14:1", "TAILRACE_LOG__LEVEL", "--set log.level"
  [[nodiscard]] std::string to_string() const;  // "default", or `where`
};
struct EffectiveValue {
  std::string text;  // normalised: "64MiB", "true", "127.0.0.1:7070"
  Origin origin{};
};

struct ConfigProblem {
  Errc code{};
  std::string message;  // one sentence or two, with place and suggestion; no "error E1007:" in front
};

/// Where values come from. `flags` are (key, value, how it was written), in order; a later one wins.
struct FlagValue {
  std::string key, value, where;
};
struct ConfigSources {
  std::optional<std::string> file{};                                   // must exist and be readable if named
  std::vector<std::pair<std::string, std::string>> environment{};      // name, value; others than ours are ignored
  std::vector<FlagValue> flags{};
  bool dev = false;                                                    // `tailrace dev` defaults
};
/// The process environment, as ConfigSources wants it.
[[nodiscard]] std::vector<std::pair<std::string, std::string>> process_environment();
/// "section.key=value" from --set.
[[nodiscard]] std::expected<FlagValue, ConfigProblem> parse_set(std::string_view text);

struct LoadedConfig {
  ServerOptions options;
  std::map<std::string, EffectiveValue, std::less<>> values;  // every key of settings()
  std::vector<ConfigProblem> warnings;                        // unknown keys under config.unknown_keys = "warn"
  std::string digest;                                         // of the effective values: the same on nodes configured alike
};
[[nodiscard]] std::expected<LoadedConfig, std::vector<ConfigProblem>> load_config(const ConfigSources& sources);
/// The same for text that is already in memory (tests, the fuzz target); `name` stands for the file in messages.
[[nodiscard]] std::expected<LoadedConfig, std::vector<ConfigProblem>> load_config_text(std::string_view toml, std::string_view name,
                                                                                      const ConfigSources& others);

/// What a reload changes.
struct ConfigChanges {
  std::vector<std::string> live;     // "log.level = debug"
  std::vector<std::string> restart;  // the same, for keys that apply at the next start
};
[[nodiscard]] ConfigChanges changes_between(const LoadedConfig& running, const LoadedConfig& fresh);

/// What `tailrace config show` prints: TOML that load_config accepts, with the origin as a comment if asked.
[[nodiscard]] std::string show_config(const LoadedConfig& config, bool with_origin);
/// What `tailrace config explain KEY` prints for a key or a section ("wal"); nullopt: no such key, `suggestion` names close ones.
struct Explanation {
  std::optional<std::string> text;
  std::vector<std::string> close_names;
};
[[nodiscard]] Explanation explain_config(std::string_view key);

/// Nearest of `names` by edit distance, at most a third of the length away; empty if none. Used for every "did you mean".
[[nodiscard]] std::string closest_name(std::string_view wrong, std::span<const std::string_view> names);

}  // namespace tailrace::broker::server
