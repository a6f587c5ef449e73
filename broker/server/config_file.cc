#include "server/config_file.h"

#include <fmt/format.h>
#include <toml++/toml.h>

namespace tailrace::broker::server {
namespace {

constexpr int kDepthMax = 4;  // our keys have two levels; anything deeper is unknown anyway

std::string place(std::string_view name, const toml::source_region& region) {
  return fmt::format("{}:{}:{}", name, region.begin.line, region.begin.column);
}

void flatten(const toml::table& table, const std::string& prefix, std::string_view name, int depth, FileEntries& out) {
  for (auto&& [key, node] : table) {
    std::string full = prefix.empty() ? std::string{key.str()} : fmt::format("{}.{}", prefix, key.str());
    if (const auto* inner = node.as_table(); inner && depth < kDepthMax) {
      flatten(*inner, full, name, depth + 1, out);
      continue;
    }
    FileEntry entry{.key = full, .text = {}, .kind = FileValueKind::other, .where = place(name, key.source())};
    if (auto text = node.value_exact<std::string>()) {
      entry.text = *text;
      entry.kind = FileValueKind::string;
    } else if (auto number = node.value_exact<std::int64_t>()) {
      entry.text = fmt::format("{}", *number);
      entry.kind = FileValueKind::integer;
    } else if (auto flag = node.value_exact<bool>()) {
      entry.text = *flag ? "true" : "false";
      entry.kind = FileValueKind::boolean;
    } else {
      entry.text = "a value of another type";
    }
    out.entries.push_back(std::move(entry));
  }
}

}  // namespace

FileEntries read_config_file(std::string_view toml_text, std::string_view name) {
  FileEntries out;
  try {
    toml::table table = toml::parse(toml_text, name);
    flatten(table, "", name, 0, out);
  } catch (const toml::parse_error& error) {
    out.problems.push_back({Errc::bad_config, fmt::format("{} is not valid TOML: {}", place(name, error.source()), error.description())});
  }
  return out;
}

}  // namespace tailrace::broker::server
