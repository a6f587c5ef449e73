// Completion scripts for bash and zsh, written from the command tree.
#include <fmt/format.h>

#include <algorithm>

#include "command_tree.h"

namespace tailrace::cli {
namespace {

/// For a single-quoted shell word.
std::string quoted(std::string_view text) {
  std::string out;
  for (char c : text) {
    if (c == '\'') out += "'\\''";
    else out += c;
  }
  return out;
}

std::string joined(const std::vector<std::string>& words) {
  std::string out;
  for (const auto& word : words) out += (out.empty() ? "" : " ") + word;
  return out;
}

std::string pattern(const std::vector<std::string>& names) {
  std::string out;
  for (const auto& name : names) out += (out.empty() ? "" : "|") + name;
  return out;
}

template <class F>
void walk(const CommandNode& node, const std::string& path, const F& visit) {
  visit(node, path);
  for (const auto& child : node.children) walk(child, path + " " + child.name, visit);
}

}  // namespace

std::string bash_completion(const CommandNode& root) {
  std::string out =
      "# bash completion for tailrace: source <(tailrace gen completion bash)\n"
      "_tailrace_topics() { timeout 1 \"${1:-tailrace}\" topic ls -o raw -q --timeout 800ms ${servers:+--servers \"$servers\"} 2>/dev/null; }\n"
      "_tailrace() {\n"
      "  local cur prev word path='tailrace' servers='' commands='' options='' arguments='' kind='' position=0 i expect=0\n"
      "  cur=${COMP_WORDS[COMP_CWORD]}\n"
      "  prev=${COMP_WORDS[COMP_CWORD-1]}\n"
      "  COMPREPLY=()\n"
      "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
      "    word=${COMP_WORDS[i]}\n"
      "    if [[ $expect == 1 ]]; then expect=0; [[ ${COMP_WORDS[i-1]} == --servers ]] && servers=$word; continue; fi\n"
      "    case \"$path:$word\" in\n";
  std::string subcommands, values;
  walk(root, root.name, [&](const CommandNode& node, const std::string& path) {
    for (const auto& child : node.children) subcommands += fmt::format("      '{0}:{1}') path='{0} {1}'; position=0 ;;\n", path, child.name);
    std::vector<std::string> with_value;
    for (const auto& option : node.options) {
      if (!option.takes_value) continue;
      for (const auto& name : option.names) with_value.push_back(fmt::format("'{}:{}'", path, name));
    }
    if (!with_value.empty()) values += fmt::format("      {}) expect=1 ;;\n", pattern(with_value));
  });
  out += subcommands + values +
         "      *:-*) ;;\n"
         "      *) position=$((position + 1)) ;;\n"
         "    esac\n"
         "  done\n"
         "  case \"$path:$prev\" in\n";
  walk(root, root.name, [&](const CommandNode& node, const std::string& path) {
    for (const auto& option : node.options) {
      if (!option.takes_value) continue;
      std::vector<std::string> keys;
      for (const auto& name : option.names) keys.push_back(fmt::format("'{}:{}'", path, name));
      if (!option.choices.empty()) {
        out += fmt::format("    {}) COMPREPLY=($(compgen -W '{}' -- \"$cur\")); return ;;\n", pattern(keys), quoted(joined(option.choices)));
      } else if (option.takes_file) {
        out += fmt::format("    {}) compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n", pattern(keys));
      } else {
        out += fmt::format("    {}) return ;;\n", pattern(keys));
      }
    }
  });
  out += "  esac\n  case \"$path\" in\n";
  walk(root, root.name, [&](const CommandNode& node, const std::string& path) {
    std::vector<std::string> commands, options;
    for (const auto& child : node.children) commands.push_back(child.name);
    for (const auto& option : node.options) options.push_back(option.names.back());
    out += fmt::format("    '{}') commands='{}'; options='{}'; arguments='{}'; kind={} ;;\n", path, quoted(joined(commands)), quoted(joined(options)), quoted(joined(node.argument_choices)),
                       node.first_argument_is_topic ? "topic" : node.first_argument_is_file ? "file" : "none");
  });
  out +=
      "  esac\n"
      "  if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W \"$options\" -- \"$cur\"))\n"
      "  elif [[ -n $commands ]]; then COMPREPLY=($(compgen -W \"$commands\" -- \"$cur\"))\n"
      "  elif [[ -n $arguments && $position == 0 ]]; then COMPREPLY=($(compgen -W \"$arguments\" -- \"$cur\"))\n"
      "  elif [[ $kind == topic && $position == 0 ]]; then COMPREPLY=($(compgen -W \"$(_tailrace_topics \"${COMP_WORDS[0]}\")\" -- \"$cur\"))\n"
      "  elif [[ $kind == file ]]; then compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- \"$cur\")); fi\n"
      "}\n"
      "complete -F _tailrace tailrace\n";
  return out;
}

std::string zsh_completion(const CommandNode& root) {
  // In _arguments a colon and a bracket end a description.
  auto described = [](std::string_view text) {
    std::string out;
    for (char c : text) {
      if (c == '[' || c == ']' || c == ':') out += '\\';
      out += c;
    }
    return quoted(out);
  };
  std::string out =
      "#compdef tailrace\n"
      "# zsh completion for tailrace: tailrace gen completion zsh > \"${fpath[1]}/_tailrace\"\n"
      "_tailrace_topics() {\n"
      "  local -a topics\n"
      "  topics=(${(f)\"$(timeout 1 tailrace topic ls -o raw -q --timeout 800ms 2>/dev/null)\"})\n"
      "  compadd -a topics\n"
      "}\n";
  walk(root, root.name, [&](const CommandNode& node, const std::string& path) {
    std::string function = "_" + path;
    std::ranges::replace(function, ' ', '_');
    out += fmt::format("{}() {{\n  local context state line\n  local -A opt_args\n  _arguments -C \\\n", function == "_tailrace" ? "_tailrace" : function);
    for (const auto& option : node.options) {
      for (const auto& name : option.names) {
        std::string action;
        if (option.takes_value) {
          action = ":value:";
          if (!option.choices.empty()) action += "(" + joined(option.choices) + ")";
          else if (option.takes_file) action += "_files";
          else action += " ";
        }
        out += fmt::format("    '*{}[{}]{}' \\\n", name, described(option.description), quoted(action));
      }
    }
    if (!node.children.empty()) {
      out += "    '1:command:->command' '*::argument:->argument'\n  case $state in\n    command)\n      local -a commands=(\n";
      for (const auto& child : node.children) out += fmt::format("        '{}:{}'\n", child.name, described(child.description));
      out += "      )\n      _describe command commands ;;\n    argument)\n      case $line[1] in\n";
      for (const auto& child : node.children) out += fmt::format("        {}) {}_{} ;;\n", child.name, function, child.name);
      out += "      esac ;;\n  esac\n";
    } else if (node.first_argument_is_topic) {
      out += "    '1:topic:_tailrace_topics' '*::argument: '\n";
    } else if (node.first_argument_is_file) {
      out += "    '*:file:_files'\n";
    } else if (!node.argument_choices.empty()) {
      out += fmt::format("    '1:argument:({})'\n", quoted(joined(node.argument_choices)));
    } else {
      out += "    '*::argument: '\n";
    }
    out += "}\n";
  });
  out += "if [ \"$funcstack[1]\" = \"_tailrace\" ]; then _tailrace \"$@\"; else compdef _tailrace tailrace; fi\n";
  return out;
}

}  // namespace tailrace::cli
