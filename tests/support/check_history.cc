/// check_history [--duplicates-allowed] [FILE]: judges a history in JSON lines (standard input without FILE), prints the
/// verdict, exits 1 when an anomaly is fatal and 2 when the file cannot be read.
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <string_view>

#include "tests/support/history_checker.h"

int main(int argc, char** argv) {
  namespace history = tailrace::broker::history;
  history::CheckOptions options;
  const char* path = nullptr;
  for (int i = 1; i < argc; ++i) {
    std::string_view argument = argv[i];
    if (argument == "--duplicates-allowed") {
      options.duplicates_are_fatal = false;
    } else if (argument.starts_with("-") || path != nullptr) {
      std::fprintf(stderr, "usage: check_history [--duplicates-allowed] [FILE]\n");
      return 2;
    } else {
      path = argv[i];
    }
  }
  std::ifstream file;
  if (path != nullptr) {
    file.open(path);
    if (!file) {
      std::fprintf(stderr, "check_history: cannot read %s\n", path);
      return 2;
    }
  }
  std::ios::sync_with_stdio(false);
  auto began = std::chrono::steady_clock::now();
  auto read = history::read_json_lines(path != nullptr ? file : std::cin);
  if (!read) {
    std::fprintf(stderr, "check_history: %s\n", read.error().detail.c_str());
    return 2;
  }
  auto loaded = std::chrono::steady_clock::now();
  history::Verdict verdict = history::check(*read, options);
  auto judged = std::chrono::steady_clock::now();
  std::printf("%s\nread in %.2f s, judged in %.2f s\n", verdict.summary().c_str(), std::chrono::duration<double>(loaded - began).count(),
              std::chrono::duration<double>(judged - loaded).count());
  return verdict.fatal() > 0 ? 1 : 0;
}
