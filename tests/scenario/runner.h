#pragma once
/// Text scenarios: a command on a line, what it must print behind "> " below it. A failing diff reads as a conversation.
///
///   # what the story shows
///   create orders partitions=2
///   > ok, 2 partitions
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace tailrace::scenario {

struct Step {
  std::vector<std::string> words;  // of the command
  std::string command;
  std::string expected;            // lines without "> "
  int line = 0;
};
/// Throws std::runtime_error with file and line for an output without a command or a file that cannot be read.
[[nodiscard]] std::vector<Step> read_script(const std::string& path);

/// key=value among the words; `otherwise` when it is not there.
[[nodiscard]] std::string value_of(const Step& step, std::string_view key, std::string otherwise);

/// Runs each step through `perform` and answers the conversation as it should be and as it was.
struct Conversation {
  std::string expected;
  std::string actual;
};
[[nodiscard]] Conversation run_script(const std::string& path, const std::function<std::string(const Step&)>& perform);
/// All *.txt of a folder, by name.
[[nodiscard]] std::vector<std::string> scripts_in(const std::string& folder);

}  // namespace tailrace::scenario
