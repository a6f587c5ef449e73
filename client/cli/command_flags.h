#pragma once
/// Declares the commands on the parser. The only header that names CLI11; it is included by five files, because each of
/// them takes five seconds to compile.
#include <CLI/CLI.hpp>

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "commands.h"
#include "flags.h"
#include "text.h"

namespace tailrace::cli {

/// What the parser writes into, and what it chose to run.
struct AllFlags {
  CommonFlags common;
  TopicFlags topic;
  PubFlags pub;
  TailFlags tail;
  GroupFlags group;
  StreamFlags stream;
  LogFlags log;
  ServerFlags server;
  ExplainFlags explain;
  BenchFlags bench;
  GenFlags gen;
  std::vector<std::string> help_subject;
  std::function<Outcome<int>(Context&)> action;
  /// The formats each command writes; what its help lists, what it accepts and what completion offers come from here.
  std::map<const CLI::App*, std::vector<Format>> formats;
};

/// Marks of command_tree(): what a command's first argument is.
inline constexpr const char* kTopicArgument = "TOPIC";
inline constexpr const char* kFileArgument = "PATH";

// Values are read by readers of ours (text.h): the parser's own conversions complain in a library's words, take octal and
// hexadecimal numbers and the numbers behind enumerators, and wrap what is negative.

/// The number behind an optional or a vector of them.
template <class T>
struct NumberOf {
  using type = T;
};
template <class T>
struct NumberOf<std::optional<T>> {
  using type = T;
};
template <class T>
struct NumberOf<std::vector<T>> {
  using type = T;
};

namespace detail {
inline void store(auto& target, auto value) { target = std::move(value); }
template <class T, class V>
void store(std::vector<T>& target, V value) {
  target.push_back(std::move(value));
}
/// "-p,--partition" -> "--partition": what messages call it.
inline std::string name_in_messages(const std::string& names) { return names.substr(names.rfind(',') + 1); }
}  // namespace detail

/// An option whose text `read` turns into a value or a complaint (a Parsed<>). A vector as target makes it repeatable.
template <class T, class Read>
CLI::Option* add_value(CLI::App& command, const std::string& names, T& target, Read read, const std::string& description, const std::string& type) {
  CLI::callback_t callback = [&target, read, name = detail::name_in_messages(names)](const CLI::results_t& texts) {
    for (const auto& text : texts) {
      auto value = read(text);
      if (!value) throw CLI::ValidationError(name, value.error());
      detail::store(target, std::move(*value));
    }
    return true;
  };
  auto* option = command.add_option(names, std::move(callback), description)->type_name(type);
  if constexpr (requires { target.push_back({}); } && !std::is_same_v<T, std::string>) option->type_size(1)->expected(1, CLI::detail::expected_max_vector_size)->allow_extra_args(false)->take_all();
  return option;
}

/// A whole number in [low, high].
template <class T>
CLI::Option* add_number(CLI::App& command, const std::string& names, T& target, std::int64_t low, std::int64_t high, const std::string& description, const std::string& type = "N") {
  auto read = [low, high](const std::string& text) { return parse_integer(text, low, high); };
  auto narrow = [read](const std::string& text) -> Parsed<typename NumberOf<T>::type> {
    auto value = read(text);
    if (!value) return std::unexpected(value.error());
    return static_cast<typename NumberOf<T>::type>(*value);
  };
  return add_value(command, names, target, narrow, description, type);
}

/// At least `low`; "0" only where that means something.
inline CLI::Option* add_duration(CLI::App& command, const std::string& names, std::chrono::nanoseconds& target, std::chrono::nanoseconds low, const std::string& description) {
  return add_value(command, names, target, [low](const std::string& text) { return parse_duration(text, low); }, description, "DURATION");
}

/// Bytes, at least `low` and at most `high`.
inline CLI::Option* add_size(CLI::App& command, const std::string& names, std::uint64_t& target, std::uint64_t low, std::uint64_t high, const std::string& description) {
  auto read = [low, high](const std::string& text) -> Parsed<std::uint64_t> {
    auto value = parse_size(text);
    if (value && (*value < low || *value > high)) return std::unexpected("\"" + text + "\" is not between " + human_bytes(low) + " and " + human_bytes(high));
    return value;
  };
  return add_value(command, names, target, read, description, "SIZE");
}

/// One of a few words, which mean `values`. The words are the type name in the help.
template <class T>
CLI::Option* add_choice(CLI::App& command, const std::string& names, T& target, std::vector<std::pair<std::string, T>> values, const std::string& description) {
  std::string type;
  std::vector<std::string> words;
  for (const auto& [word, value] : values) {
    type += (type.empty() ? "" : "|") + word;
    words.push_back(word);
  }
  auto read = [values = std::move(values), words = std::move(words)](const std::string& text) -> Parsed<T> {
    for (const auto& [word, value] : values) {
      if (word == text) return value;
    }
    return std::unexpected(not_a_choice(text, words));
  };
  return add_value(command, names, target, std::move(read), description, type);
}
inline CLI::Option* add_choice(CLI::App& command, const std::string& names, std::string& target, const std::vector<std::string>& words, const std::string& description) {
  std::vector<std::pair<std::string, std::string>> values;
  for (const auto& word : words) values.emplace_back(word, word);
  return add_choice<std::string>(command, names, target, std::move(values), description);
}

/// One value per mention: `--file a --file b`, and what follows is an argument again.
inline CLI::Option* each(CLI::Option* option) { return option->type_size(1)->allow_extra_args(false)->take_all(); }

template <class F>
void runs(CLI::App* command, AllFlags& flags, F action) {
  command->callback([&flags, action] { flags.action = [&flags, action](Context& context) { return action(context, flags); }; });
}

enum class Talks { to_a_broker, to_nobody };

/// --color, --quiet; --output with the formats the command has (none: no such flag); for clients also --servers and
/// --timeout. They may stand before the command as well.
void add_common_flags(CLI::App& command, AllFlags& flags, Talks talks, std::vector<Format> formats);
void add_client_commands(CLI::App& root, AllFlags& flags);  // topic, pub, tail, bench
void add_group_commands(CLI::App& root, AllFlags& flags);   // group
void add_stream_commands(CLI::App& root, AllFlags& flags);  // stream
void add_broker_commands(CLI::App& root, AllFlags& flags);  // server, dev, config, log, explain, gen

}  // namespace tailrace::cli
