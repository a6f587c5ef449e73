#pragma once
namespace tailrace::cli {

/// "0.1.0 (8465e84)"; the commit is asked from git at every build, "-dirty" if the tree differed, "unknown" outside git.
[[nodiscard]] const char* version();
[[nodiscard]] const char* version_number();  ///< "0.1.0"
[[nodiscard]] const char* commit();

}  // namespace tailrace::cli
