#pragma once
/// Declares the commands on the parser. The only header that names CLI11; it is included by three files, because each of
/// them takes five seconds to compile.
#include <CLI/CLI.hpp>

#include <functional>

#include "commands.h"
#include "flags.h"

namespace tailrace::cli {

/// What the parser writes into, and what it chose to run.
struct AllFlags {
  CommonFlags common;
  TopicFlags topic;
  PubFlags pub;
  TailFlags tail;
  LogFlags log;
  ServerFlags server;
  ExplainFlags explain;
  BenchFlags bench;
  GenFlags gen;
  std::string help_topic;
  std::function<Outcome<int>(Context&)> action;
};

/// Marks of command_tree(): what a command's first argument is.
inline constexpr const char* kTopicArgument = "TOPIC";
inline constexpr const char* kFileArgument = "PATH";

/// Checks without CLI11's own description of them: the help shows our type names.
inline CLI::Validator one_of(std::vector<std::string> names) { return CLI::IsMember(std::move(names)).description(""); }
template <class T>
CLI::Validator named(std::map<std::string, T> names) {
  return CLI::CheckedTransformer(std::move(names)).description("");
}

/// --output, --color, --quiet; for clients also --servers and --timeout.
void add_common_flags(CLI::App& command, AllFlags& flags, bool is_client);
void add_client_commands(CLI::App& root, AllFlags& flags);  // topic, pub, tail, bench
void add_broker_commands(CLI::App& root, AllFlags& flags);  // server, dev, config, log, explain, gen

}  // namespace tailrace::cli
