// Layers of configuration, in the order defaults < file < environment < flags.
#include "server/config.h"

#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>

#include "base/crc32c.h"
#include "base/planted.h"
#include "server/config_file.h"
#include "server/config_schema.h"

namespace tailrace::broker::server {
namespace {

constexpr std::size_t kFileBytesMax = 1 << 20;  // a configuration file is some kilobytes; a device or a log named by mistake is not read whole
constexpr std::size_t kFragmentsMax = 100;      // in conf.d
constexpr std::string_view kPrefix = "TAILRACE_";

std::uint32_t usable_processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return static_cast<std::uint32_t>(std::clamp(CPU_COUNT(&set), 1, 64));
}

std::vector<std::string_view> all_keys() {
  std::vector<std::string_view> out;
  for (const Setting& setting : settings()) out.push_back(setting.key);
  return out;
}

/// TAILRACE_WAL__FILE_BYTES -> wal.file_bytes; empty when the name is not for the broker.
std::string key_of_variable(std::string_view name) {
  if (!name.starts_with(kPrefix) || name.find("__") == std::string_view::npos) return {};
  std::string_view rest = name.substr(kPrefix.size());
  std::string key;
  if (name.starts_with("TAILRACE__")) {  // no section
    rest = name.substr(std::strlen("TAILRACE__"));
  }
  for (std::size_t i = 0; i < rest.size(); ++i) {
    if (rest.substr(i).starts_with("__")) {
      key += '.';
      ++i;
    } else {
      key += static_cast<char>(rest[i] >= 'A' && rest[i] <= 'Z' ? rest[i] - 'A' + 'a' : rest[i]);
    }
  }
  return key;
}

class Loader {
 public:
  explicit Loader(const ConfigSources& sources) : sources_{sources} {
    for (const Setting& setting : settings()) {
      std::string_view text = sources.dev && !setting.default_dev.empty() ? setting.default_dev : setting.default_text;
      values_[std::string{setting.key}] = EffectiveValue{.text = std::string{text}};
    }
  }

  void file(std::string_view toml, std::string_view name) {
    FileEntries entries = read_config_file(toml, name);
    for (ConfigProblem& problem : entries.problems) problems_.push_back(std::move(problem));
    for (FileEntry& entry : entries.entries) set(entry.key, entry.text, {OriginKind::file, entry.where}, entry.kind);
  }
  void others() {
    for (const auto& [name, value] : sources_.environment) {
      std::string key = key_of_variable(name);
      if (!key.empty()) set(key, value, {OriginKind::environment, name}, std::nullopt);
    }
    for (const FlagValue& flag : sources_.flags) set(flag.key, flag.value, {OriginKind::flag, flag.where}, std::nullopt);
  }
  void problem(Errc code, std::string message) { problems_.push_back({code, std::move(message)}); }

  std::expected<LoadedConfig, std::vector<ConfigProblem>> finish() {
    bool lenient = values_.find("config.unknown_keys")->second.text == "warn";
    std::vector<ConfigProblem> warnings;
    for (ConfigProblem& unknown : unknown_) (lenient ? warnings : problems_).push_back(std::move(unknown));
    if (!problems_.empty()) return std::unexpected{std::move(problems_)};
    LoadedConfig out;
    out.options = options_from(values_, usable_processors());
    std::string all;
    for (const auto& [key, value] : values_) all += fmt::format("{}={}\n", key, value.text);
    out.digest = fmt::format("{:08x}", crc32c(as_bytes(all)));
    out.values = std::move(values_);
    out.warnings = std::move(warnings);
    check_listeners(out);
    check_sizes(out);
    if (!problems_.empty()) return std::unexpected{std::move(problems_)};
    return out;
  }

 private:
  void set(std::string_view key, std::string_view text, Origin origin, std::optional<FileValueKind> written) {
    const Setting* setting = find_setting(key);
    if (!setting) {
      std::string message = fmt::format("unknown key \"{}\" at {}.", printable(key), origin.to_string());
      auto keys = all_keys();
      if (std::string close = closest_name(key, keys); !close.empty()) message += fmt::format(" Did you mean \"{}\"?", close);
      message += " See: tailrace config explain";
      auto section = key.substr(0, key.find('.'));
      if (std::ranges::any_of(keys, [&](auto known) { return known.starts_with(fmt::format("{}.", section)); }))
        message += fmt::format(" {}", section);
      unknown_.push_back({Errc::bad_config, std::move(message)});
      return;
    }
    if (written && !is_written_well(*setting, *written)) {
      problem(Errc::bad_config, fmt::format("key \"{}\" at {} takes {}, not {}. See: tailrace config explain {}", key, origin.to_string(),
                                            accepted_form(*setting), printable(text), key));
      return;
    }
    auto normal = normalise(*setting, text);
    if (!normal) {
      problem(Errc::bad_config,
              fmt::format("key \"{}\" at {} {}. See: tailrace config explain {}", key, origin.to_string(), printable(normal.error()), key));
      return;
    }
    values_[std::string{key}] = EffectiveValue{.text = *std::move(normal), .origin = std::move(origin)};
  }

  static bool is_written_well(const Setting& setting, FileValueKind written) {
    switch (setting.kind) {
      case SettingKind::boolean: return written == FileValueKind::boolean;
      case SettingKind::integer: return written == FileValueKind::integer;
      case SettingKind::text: case SettingKind::path: case SettingKind::size: case SettingKind::duration:
      case SettingKind::choice: case SettingKind::endpoint: return written == FileValueKind::string;
    }
    return false;
  }

  /// Control characters of an attacker's file stay out of terminals and logs.
  static std::string printable(std::string_view text) {
    std::string out;
    for (char c : text.substr(0, 200)) {
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
      else out += c;
    }
    return out;
  }

  void check_listeners(const LoadedConfig& config) {
    if (config.options.allow_unauthenticated) return;
    for (std::string_view key : {"listen.native", "listen.http"}) {
      const EffectiveValue& value = config.values.find(key)->second;
      if (parse_host_port(value.text)->is_loopback()) continue;
      problem(Errc::bad_config,
              fmt::format("key \"{}\" at {} is {}, which others can reach, and there is no authentication yet. Listen on 127.0.0.1, or set "
                          "allow_unauthenticated = true if the network is trusted.",
                          key, value.origin.to_string(), value.text));
    }
    if (config.options.listen_native == config.options.listen_http && config.options.listen_native.port != 0)
      problem(Errc::bad_config, fmt::format("listen.native and listen.http are both {}. Give each its own port.",
                                            config.options.listen_native.to_string()));
  }

  void check_sizes(const LoadedConfig& config) {
    if (config.options.hot_tail_bytes < config.options.wal_file_bytes / 4)
      problem(Errc::bad_config, fmt::format("memory.hot_tail_bytes is {}, less than a quarter of wal.file_bytes ({}): the log could not be "
                                            "written to segments before its file is full. Raise the one or lower the other.",
                                            config.values.find("memory.hot_tail_bytes")->second.text,
                                            config.values.find("wal.file_bytes")->second.text));
  }

  const ConfigSources& sources_;
  std::map<std::string, EffectiveValue, std::less<>> values_;
  std::vector<ConfigProblem> problems_;
  std::vector<ConfigProblem> unknown_;
};

void load_file(Loader& loader, const std::string& path) {
  std::string text(kFileBytesMax + 1, '\0');
  errno = 0;
  std::ifstream in{path, std::ios::binary};
  if (in) in.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (!in.is_open() || in.bad()) {
    loader.problem(Errc::bad_config, fmt::format("cannot read the configuration file {}: {}. Name another one with -c.", path,
                                                 std::generic_category().message(errno)));
  } else if (static_cast<std::size_t>(in.gcount()) > kFileBytesMax) {
    loader.problem(Errc::bad_config, fmt::format("the configuration file {} is larger than 1 MiB.", path));
  } else {
    text.resize(static_cast<std::size_t>(in.gcount()));
    loader.file(text, path);
  }
}

/// conf.d/*.toml beside the file, by name. No such folder: none.
std::vector<std::string> fragments_beside(const std::string& file, Loader& loader) {
  namespace fs = std::filesystem;
  std::vector<std::string> out;
  fs::path folder = fs::path{file}.parent_path() / "conf.d";
  std::error_code error;
  if (!fs::exists(folder, error)) return out;
  fs::directory_iterator entries{folder, error};
  for (; !error && entries != fs::directory_iterator{} && out.size() <= kFragmentsMax; entries.increment(error)) {
    if (entries->path().extension() == ".toml") out.push_back(entries->path().string());
  }
  if (error) loader.problem(Errc::bad_config, fmt::format("cannot read the folder {}: {}.", folder.string(), error.message()));
  if (out.size() > kFragmentsMax) {
    loader.problem(Errc::bad_config, fmt::format("the folder {} has more than {} files that end in .toml.", folder.string(), kFragmentsMax));
    out.clear();
  }
  std::ranges::sort(out);
  return out;
}

}  // namespace

std::string Origin::to_string() const { return kind == OriginKind::builtin ? "default" : where; }

std::vector<std::pair<std::string, std::string>> process_environment() {
  std::vector<std::pair<std::string, std::string>> out;
  for (char** entry = environ; entry && *entry; ++entry) {
    std::string_view text{*entry};
    auto equals = text.find('=');
    if (equals == std::string_view::npos || !text.starts_with(kPrefix)) continue;
    out.emplace_back(text.substr(0, equals), text.substr(equals + 1));
  }
  std::ranges::sort(out);
  return out;
}

std::expected<FlagValue, ConfigProblem> parse_set(std::string_view text) {
  auto equals = text.find('=');
  if (equals == std::string_view::npos || equals == 0)
    return std::unexpected{ConfigProblem{Errc::bad_config, fmt::format("--set takes section.key=value, not \"{}\".", text)}};
  std::string key{text.substr(0, equals)};
  return FlagValue{key, std::string{text.substr(equals + 1)}, "--set " + key};
}

std::expected<LoadedConfig, std::vector<ConfigProblem>> load_config_text(std::string_view toml, std::string_view name,
                                                                        const ConfigSources& others) {
  Loader loader{others};
  loader.file(toml, name);
  loader.others();
  return loader.finish();
}

std::expected<LoadedConfig, std::vector<ConfigProblem>> load_config(const ConfigSources& sources) {
  Loader loader{sources};
  if (sources.file) {
    load_file(loader, *sources.file);
    for (const std::string& fragment : fragments_beside(*sources.file, loader)) load_file(loader, fragment);
  }
  loader.others();
  return loader.finish();
}

ConfigChanges changes_between(const LoadedConfig& running, const LoadedConfig& fresh) {
  ConfigChanges out;
  for (const Setting& setting : settings()) {
    const std::string& text = fresh.values.find(setting.key)->second.text;
    if (running.values.find(setting.key)->second.text == text) continue;
    (setting.live ? out.live : out.restart).push_back(fmt::format("{} = {}", setting.key, text));
  }
  return out;
}

std::string closest_name(std::string_view wrong, std::span<const std::string_view> names) {
  constexpr std::size_t kWrongMax = 100;  // longer than any name: nothing is close to it
  if (!planted(PlantedBug::decoder_length)) wrong = wrong.substr(0, kWrongMax);
  std::string_view best;
  std::size_t best_distance = 1 + std::max<std::size_t>(2, wrong.size() / 3);
  auto consider = [&](std::string_view candidate, std::string_view name) {
    std::array<std::size_t, kWrongMax + 1> row;
    for (std::size_t j = 0; j <= wrong.size(); ++j) row[j] = j;
    for (std::size_t i = 1; i <= candidate.size(); ++i) {
      std::size_t diagonal = std::exchange(row[0], i);
      for (std::size_t j = 1; j <= wrong.size(); ++j) {
        std::size_t replaced = diagonal + (candidate[i - 1] != wrong[j - 1]);
        diagonal = row[j];
        row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
      }
    }
    if (row[wrong.size()] < best_distance) {
      best_distance = row[wrong.size()];
      best = name;
    }
  };
  for (std::string_view name : names) {
    consider(name, name);
    // "file_bytes" alone is a forgotten section.
    if (auto dot = name.find('.'); dot != std::string_view::npos && wrong.find('.') == std::string_view::npos) consider(name.substr(dot + 1), name);
  }
  return std::string{best};
}

}  // namespace tailrace::broker::server
