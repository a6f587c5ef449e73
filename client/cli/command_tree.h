#pragma once
/// The commands and their flags as plain data, read off the parser: completion scripts and tests are made from it, so that
/// neither can name a flag that does not exist.
#include <string>
#include <vector>

namespace tailrace::cli {

struct CommandOption {
  std::vector<std::string> names;  ///< "-o", "--output"
  std::string description;
  bool takes_value = false;
  bool takes_file = false;
  std::vector<std::string> choices;
};

struct CommandNode {
  std::string name;
  std::string description;
  std::vector<CommandOption> options;
  std::vector<CommandNode> children;
  std::vector<std::string> argument_choices;  ///< of the first positional, when they are fixed
  bool first_argument_is_topic = false;
  bool first_argument_is_file = false;
};

/// The whole tree of `tailrace`.
[[nodiscard]] CommandNode command_tree();

/// Sourced by bash (`source <(tailrace gen completion bash)`). Topic names are asked from the broker, at most a second.
[[nodiscard]] std::string bash_completion(const CommandNode& root);
[[nodiscard]] std::string zsh_completion(const CommandNode& root);

}  // namespace tailrace::cli
