// What people read about the configuration.
#include <fmt/format.h>

#include <algorithm>

#include "server/config.h"
#include "server/config_schema.h"

namespace tailrace::broker::server {
namespace {

std::string_view section_of(std::string_view key) {
  auto dot = key.find('.');
  return dot == std::string_view::npos ? std::string_view{} : key.substr(0, dot);
}
std::string_view name_in_section(std::string_view key) {
  auto dot = key.find('.');
  return dot == std::string_view::npos ? key : key.substr(dot + 1);
}

std::string as_toml(const Setting& setting, std::string_view text) {
  if (setting.kind == SettingKind::boolean || setting.kind == SettingKind::integer) return std::string{text};
  std::string out = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) out += fmt::format("\\u{:04x}", static_cast<unsigned char>(c));
    else out += c;
  }
  return out + '"';
}

std::string explain_one(const Setting& setting) {
  std::string out = fmt::format("{}\n  {}\n  takes    {}\n  default  {}", setting.key, setting.meaning, accepted_form(setting),
                                setting.default_text.empty() ? "(empty)" : as_toml(setting, setting.default_text));
  if (!setting.default_dev.empty()) out += fmt::format("   (tailrace dev: {})", as_toml(setting, setting.default_dev));
  std::string variable = "TAILRACE_";
  if (section_of(setting.key).empty()) variable += '_';
  for (char c : setting.key) {
    if (c == '.') variable += "__";
    else variable += static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
  }
  out += fmt::format("\n  applies  {}\n  or       {}=..., --set {}=...\n", setting.live ? "at a reload (SIGHUP)" : "at the next start", variable, setting.key);
  return out;
}

}  // namespace

std::string show_config(const LoadedConfig& config, bool with_origin) {
  std::string out;
  auto line = [&](const Setting& setting) {
    const EffectiveValue& value = config.values.find(setting.key)->second;
    std::string text = fmt::format("{} = {}", name_in_section(setting.key), as_toml(setting, value.text));
    if (with_origin) text = fmt::format("{:<42}  # {}", text, value.origin.to_string());
    out += text + '\n';
  };
  for (const Setting& setting : settings()) {
    if (section_of(setting.key).empty()) line(setting);  // TOML wants keys without a section first
  }
  std::string_view section;
  for (const Setting& setting : settings()) {
    if (section_of(setting.key).empty()) continue;
    if (section_of(setting.key) != section) {
      section = section_of(setting.key);
      out += fmt::format("\n[{}]\n", section);
    }
    line(setting);
  }
  return out;
}

Explanation explain_config(std::string_view key) {
  if (const Setting* setting = find_setting(key)) return {explain_one(*setting), {}};
  std::string all;
  std::vector<std::string_view> names;
  for (const Setting& setting : settings()) {
    if (key.empty() || section_of(setting.key) == key) all += explain_one(setting) + '\n';
    names.push_back(setting.key);
  }
  if (!all.empty()) return {all, {}};
  std::vector<std::string> close;
  if (std::string name = closest_name(key, names); !name.empty()) close.push_back(name);
  return {std::nullopt, std::move(close)};
}

}  // namespace tailrace::broker::server
