#pragma once
/// TOML to flat (key, value, place) entries. The only file that sees the TOML library is config_file.cc.
#include <string>
#include <string_view>
#include <vector>

#include "server/config.h"

namespace tailrace::broker::server {

enum class FileValueKind { string, integer, boolean, other };
struct FileEntry {
  std::string key;    // dotted
  std::string text;   // without quotes
  FileValueKind kind{};
  std::string where;  // name:line:column of the key
};
struct FileEntries {
  std::vector<FileEntry> entries;
  std::vector<ConfigProblem> problems;
};
[[nodiscard]] FileEntries read_config_file(std::string_view toml, std::string_view name);

}  // namespace tailrace::broker::server
