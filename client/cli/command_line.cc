#include "command_line.h"

#include <fmt/format.h>

#include "command_flags.h"
#include "command_tree.h"
#include "interrupt.h"
#include "text.h"
#include "version.h"

namespace tailrace::cli {
namespace {

constexpr const char* kExitCodes =
    "exit codes\n\n"
    "  0    done\n"
    "  1    failed\n"
    "  2    wrong flags or configuration\n"
    "  3    not found; no records, with --fail-empty\n"
    "  4    not allowed\n"
    "  5    unavailable or timed out; nothing was applied, safe to retry\n"
    "  6    conflict: exists already, not the expected version, or --dry-run would change something\n"
    "  7    partly done\n"
    "  8    outcome unknown: it may have been applied\n"
    "  130  interrupted\n\n"
    "A reader of standard output that goes away (| head) is no error.\n";
constexpr const char* kEnvironment =
    "environment\n\n"
    "  TAILRACE_SERVERS       host:port[,host:port] of client commands, like --servers\n"
    "  TAILRACE_CLIENT_ID     how the client calls itself to the broker\n"
    "  TAILRACE_SECTION__KEY  any key of the broker's configuration (two underscores): TAILRACE_LOG__LEVEL=debug\n"
    "  NO_COLOR, FORCE_COLOR  no colours, colours also without a terminal; --color beats both\n";
constexpr const char* kFormats =
    "formats\n\n"
    "  -o table   for people; columns may change\n"
    "  -o json    one document; names, units and the schema field are a contract\n"
    "  -o jsonl   one JSON object a line\n"
    "  -o raw     the bare values, one a line\n\n"
    "Sizes are bytes, durations nanoseconds or as their name says, times RFC 3339 in UTC. A record is\n"
    "  {\"schema\":\"tailrace.record.v1\",\"topic\":..,\"partition\":..,\"offset\":..,\"timestamp\":..,\"key\":..,\"value\":..,\"headers\":[{\"key\":..,\"value\":..}]}\n"
    "where null is null and bytes that are not UTF-8 are {\"base64\":\"...\"}.\n"
    "Data goes to standard output, everything else to standard error.\n";

std::unique_ptr<CLI::App> make_parser(AllFlags& flags) {
  auto app = std::make_unique<CLI::App>("Tailrace: a durable event log", "tailrace");
  app->require_subcommand(1);
  app->set_version_flag("--version", std::string{"tailrace "} + version());
  app->set_help_flag("-h,--help", "What a command does, its flags and examples");
  app->get_formatter()->column_width(34);
  add_client_commands(*app, flags);
  add_broker_commands(*app, flags);
  auto* help = app->add_subcommand("help", "Exit codes, environment variables, output formats");
  help->add_option("SUBJECT", flags.help_topic, "exit-codes, environment or formats")->check(one_of({"exit-codes", "environment", "formats"}))->required()->type_name("");
  help->callback([&flags] {
    flags.action = [&flags](Context& context) -> Outcome<int> {
      context.out.write(flags.help_topic == "exit-codes" ? kExitCodes : flags.help_topic == "environment" ? kEnvironment : kFormats);
      return finished(context);
    };
  });
  app->footer(
      "examples:\n  tailrace dev                                    # a broker on ./.tailrace\n  echo '{\"id\":1}' | tailrace pub orders -k alice --create\n"
      "  tailrace tail orders --from start\n\nMore: tailrace COMMAND --help, tailrace help exit-codes|environment|formats");
  return app;
}

CLI::App& deepest(CLI::App& app) {
  auto chosen = app.get_subcommands();
  return chosen.empty() ? app : deepest(*chosen.front());
}

std::string path_of(const CLI::App& app) {
  return app.get_parent() == nullptr ? app.get_name() : path_of(*app.get_parent()) + " " + app.get_name();
}

/// The parser's complaint in our words: what, what was perhaps meant, where the flags are listed.
Failure usage_failure(CLI::App& root, const CLI::ParseError& error) {
  CLI::App& at = deepest(root);
  auto rest = root.remaining(true);
  std::string message = error.what(), close;
  auto suggest = [&](const std::string& word) {
    std::vector<std::string> names;
    if (word.starts_with('-')) {
      for (const auto* option : at.get_options()) {
        for (const auto& name : option->get_lnames()) names.push_back("--" + name);
      }
    } else {
      for (const auto* command : at.get_subcommands([](const CLI::App*) { return true; })) names.push_back(command->get_name());
    }
    for (const auto& name : close_names(word.substr(0, word.find('=')), names)) close += (close.empty() ? "" : ", ") + name;
  };
  if (!rest.empty()) {
    const auto& word = rest.front();
    const bool has_commands = !at.get_subcommands([](const CLI::App*) { return true; }).empty();
    if (word.starts_with('-')) message = fmt::format("{} has no flag {}", path_of(at), word.substr(0, word.find('=')));
    else message = has_commands ? fmt::format("{} has no command \"{}\"", path_of(at), word) : fmt::format("{} does not take the argument \"{}\"", path_of(at), word);
    suggest(word);
  } else if (dynamic_cast<const CLI::RequiredError*>(&error) != nullptr && message == "A subcommand is required") {
    message = fmt::format("{} needs a command", path_of(at));
  }
  return Failure{Errc::invalid_argument, std::move(message), fmt::format("{}See: {} --help", close.empty() ? "" : fmt::format("Did you mean {}? ", close), path_of(at)), kUsage};
}

constexpr char kBracketMark = '\x01';

void unmark_brackets(AllFlags& flags) {
  auto unmark = [](std::string& text) {
    if (text.starts_with(kBracketMark)) text.erase(0, 1);
  };
  for (auto& body : flags.pub.bodies) unmark(body);
  for (auto& file : flags.pub.files) unmark(file);
  for (auto* text : {&flags.pub.key, &flags.pub.key_separator, &flags.pub.key_regex, &flags.tail.key}) {
    if (*text) unmark(**text);
  }
}

CommandOption option_of(const CLI::Option& option) {
  CommandOption out;
  for (const auto& name : option.get_snames()) out.names.push_back("-" + name);
  for (const auto& name : option.get_lnames()) out.names.push_back("--" + name);
  out.description = option.get_description();
  out.takes_value = option.get_items_expected_max() > 0;
  const auto type = option.get_type_name();
  out.takes_file = type == "FILE" || type == "DIR";
  if (type.find('|') != std::string::npos) {
    for (std::size_t at = 0; at <= type.size();) {
      const auto bar = std::min(type.find('|', at), type.size());
      out.choices.push_back(type.substr(at, bar - at));
      at = bar + 1;
    }
  }
  return out;
}

CommandNode node_of(const CLI::App& app) {
  CommandNode node{app.get_name(), app.get_description(), {}, {}, {}, false, false};
  bool first = true;
  for (const auto* option : app.get_options()) {
    if (option->get_positional()) {
      if (first) {
        const auto name = option->get_name();
        node.first_argument_is_topic = name == kTopicArgument;
        node.first_argument_is_file = name == kFileArgument;
        if (name == "SHELL") node.argument_choices = {"bash", "zsh"};
        if (name == "SUBJECT") node.argument_choices = {"exit-codes", "environment", "formats"};
      }
      first = false;
      if (option->nonpositional()) node.options.push_back(option_of(*option));
    } else {
      node.options.push_back(option_of(*option));
    }
  }
  for (const auto* child : app.get_subcommands([](const CLI::App*) { return true; })) node.children.push_back(node_of(*child));
  return node;
}

}  // namespace

void add_common_flags(CLI::App& command, AllFlags& flags, bool is_client) {
  auto& f = flags.common;
  command
      .add_option("-o,--output", f.output, "Output format")
      ->transform(named(std::map<std::string, Format>{{"table", Format::table}, {"json", Format::json}, {"jsonl", Format::jsonl}, {"raw", Format::raw}}))
      ->type_name("table|json|jsonl|raw")
      ->group("Common");
  command.add_option("--color", f.colour, "Colours: auto (default) on a terminal")
      ->transform(named(std::map<std::string, Colour>{{"auto", Colour::automatic}, {"always", Colour::always}, {"never", Colour::never}}))
      ->type_name("auto|always|never")
      ->group("Common");
  command.add_flag("-q,--quiet", f.quiet, "No summaries and notes on standard error")->group("Common");
  if (!is_client) return;
  command.add_option("--servers", f.servers, "Brokers; default: TAILRACE_SERVERS, then 127.0.0.1:7070")->type_name("HOST:PORT[,..]")->group("Common");
  command.add_option("--timeout", f.timeout, "How long to wait for an answer (default 30s)")->type_name("DURATION")->group("Common");
}

CommandNode command_tree() {
  AllFlags flags;
  return node_of(*make_parser(flags));
}

int run(int argc, char** argv) {
  AllFlags flags;
  auto parser = make_parser(flags);
  auto report = [&](const Failure& failure) {
    note(failure_line(failure, Terminal::detect(flags.common.colour).colour_stderr));
    return failure.exit();
  };
  // CLI11 takes an argument like [1,2] for a list of its own and splits it. A mark in front keeps a JSON array whole.
  std::vector<std::string> arguments;
  for (int i = argc - 1; i > 0; --i) {
    std::string argument{argv[i]};
    if (argument.starts_with('[') && argument.ends_with(']')) argument.insert(argument.begin(), kBracketMark);
    arguments.push_back(std::move(argument));
  }
  try {
    parser->parse(std::move(arguments));  // takes them last first
    unmark_brackets(flags);
  } catch (const CLI::Success& success) {  // --help, --version: on stdout, exit code 0
    parser->exit(success);
    return kOk;
  } catch (const CLI::ParseError& error) {
    return report(usage_failure(*parser, error));
  }
  Context context{flags.common, Terminal::detect(flags.common.colour), {}};
  auto outcome = flags.action(context);
  context.out.flush();
  if (outcome) return *outcome;
  return report(outcome.error());
}

}  // namespace tailrace::cli
