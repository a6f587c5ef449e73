#include "tests/scenario/runner.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>

namespace tailrace::scenario {

std::vector<Step> read_script(const std::string& path) {
  std::ifstream file{path};
  if (!file) throw std::runtime_error(path + ": cannot be read");
  std::vector<Step> steps;
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    if (line.empty() || line.starts_with('#')) continue;
    if (line.starts_with('>')) {
      if (steps.empty()) throw std::runtime_error(path + ":" + std::to_string(number) + ": output without a command");
      steps.back().expected += (line.starts_with("> ") ? line.substr(2) : line.substr(1)) + "\n";
      continue;
    }
    Step step{.words = {}, .command = line, .expected = {}, .line = number};
    std::istringstream words{line};
    for (std::string word; words >> word;) step.words.push_back(word);
    steps.push_back(std::move(step));
  }
  return steps;
}

std::string value_of(const Step& step, std::string_view key, std::string otherwise) {
  for (const std::string& word : step.words) {
    if (word.size() > key.size() && word.starts_with(key) && word[key.size()] == '=') return word.substr(key.size() + 1);
  }
  return otherwise;
}

Conversation run_script(const std::string& path, const std::function<std::string(const Step&)>& perform) {
  Conversation talk;
  for (const Step& step : read_script(path)) {
    auto add = [&step](std::string& to, const std::string& output) {
      to += step.command + "\n";
      std::istringstream lines{output};
      for (std::string line; std::getline(lines, line);) to += "> " + line + "\n";
    };
    add(talk.expected, step.expected);
    add(talk.actual, perform(step));
  }
  return talk;
}

std::vector<std::string> scripts_in(const std::string& folder) {
  std::vector<std::string> paths;
  for (const auto& entry : std::filesystem::directory_iterator{folder}) {
    if (entry.path().extension() == ".txt") paths.push_back(entry.path().string());
  }
  std::ranges::sort(paths);
  return paths;
}

}  // namespace tailrace::scenario
