#pragma once
/// Blocking calls on names and directories, for workers. Errors carry the path.
#include <string>
#include <vector>

#include "base/result.h"
#include "io/file.h"

namespace tailrace::broker::io::names {

/// Answers a descriptor, the caller's to close. A file system that knows no direct I/O gives a buffered file, with a warning.
[[nodiscard]] Result<int> open(const std::string& path, OpenOptions options);
[[nodiscard]] Result<void> remove(const std::string& path);
[[nodiscard]] Result<void> remove_directory(const std::string& path);
[[nodiscard]] Result<void> rename(const std::string& from, const std::string& to);
[[nodiscard]] Result<void> make_directory(const std::string& path);
[[nodiscard]] Result<void> sync_directory(const std::string& path);
[[nodiscard]] Result<std::vector<DirectoryEntry>> list(const std::string& path);
[[nodiscard]] Result<Space> space(const std::string& path);
/// A descriptor of the directory, with an exclusive flock(2) on it.
[[nodiscard]] Result<int> lock(const std::string& path);

}  // namespace tailrace::broker::io::names
