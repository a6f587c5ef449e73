#pragma once
/// A directory on the real disk that goes away with its owner.
#include <cstdlib>
#include <filesystem>
#include <string>

namespace tailrace::broker::testing_support {

class ScratchDirectory {
 public:
  ScratchDirectory() {
    const char* base = std::getenv("TMPDIR");
    path_ = std::string{base ? base : "/tmp"} + "/tailrace-test-XXXXXX";
    if (!::mkdtemp(path_.data())) std::abort();
  }
  ~ScratchDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace tailrace::broker::testing_support
