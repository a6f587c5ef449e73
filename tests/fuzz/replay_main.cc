/// Runs every file of a corpus folder through the target:   fuzz_X_replay DIR
/// Writes the target's seeds into a folder:                 fuzz_X_replay --write-seeds DIR
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <vector>

#include "tests/fuzz/fuzz.h"

namespace {

int write_seeds(const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  for (const auto& [name, content] : tailrace::fuzz::seeds()) {
    std::ofstream(folder / name, std::ios::binary) << content;
    std::cout << name << ' ' << content.size() << " bytes\n";
  }
  return 0;
}

int replay(const std::filesystem::path& folder) {
  std::error_code error;
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  if (error || files.empty()) {
    std::cerr << "error: no corpus in " << folder << "; write one with --write-seeds\n";
    return 1;
  }
  for (const auto& file : files) {
    std::ifstream in(file, std::ios::binary);
    std::string content(std::istreambuf_iterator<char>(in), {});
    if (!in.good() && !in.eof()) {
      std::cerr << "error: cannot read " << file << '\n';
      return 1;
    }
    std::cout << file.filename().string() << std::endl;  // flushed: the last name printed is the one that crashed
    auto exact = std::make_unique<std::uint8_t[]>(content.size());  // no spare bytes behind it, for the sanitizer
    std::copy(content.begin(), content.end(), exact.get());
    LLVMFuzzerTestOneInput(exact.get(), content.size());
  }
  // A corpus that lost its seeds would pass while it tests little.
  for (const auto& [name, content] : tailrace::fuzz::seeds()) {
    if (!std::filesystem::exists(folder / name)) {
      std::cerr << "error: seed " << name << " is not in " << folder << "; write it with --write-seeds\n";
      return 1;
    }
  }
  std::cout << files.size() << " files replayed\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3 && std::string_view(argv[1]) == "--write-seeds") return write_seeds(argv[2]);
  if (argc == 2) return replay(argv[1]);
  std::cerr << "usage: " << argv[0] << " [--write-seeds] DIR\n";
  return 2;
}
