#include "command_line.h"

#include <fmt/format.h>

#include <algorithm>

#include "command_flags.h"
#include "command_tree.h"
#include "interrupt.h"
#include "json_writer.h"
#include "text.h"
#include "version.h"

namespace tailrace::cli {
namespace {

constexpr const char* kCommonGroup = "Common";
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
    "A reader of standard output that goes away (| head) is no error, but for pub -o jsonl: what it was to read goes on being published\n"
    "no further, and 7 says so.\n";
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

const auto kEveryCommand = [](const CLI::App*) { return true; };

CLI::App& deepest(CLI::App& app) {
  auto chosen = app.get_subcommands();
  return chosen.empty() ? app : deepest(*chosen.front());
}

std::string path_of(const CLI::App& app) {
  return app.get_parent() == nullptr ? app.get_name() : path_of(*app.get_parent()) + " " + app.get_name();
}

const std::map<std::string, const char*, std::less<>> kSubjects = {{"environment", kEnvironment}, {"exit-codes", kExitCodes}, {"formats", kFormats}};
std::vector<std::string> subject_names() {
  std::vector<std::string> names;
  for (const auto& [name, text] : kSubjects) names.push_back(name);
  return names;
}

/// What `help SUBJECT...` prints: a subject's text or a command's help; without one, the list of commands.
Outcome<std::string> help_on(CLI::App& root, const std::vector<std::string>& subject) {
  if (subject.size() == 1) {
    if (auto text = kSubjects.find(subject.front()); text != kSubjects.end()) return text->second;
  }
  CLI::App* at = &root;
  for (const auto& word : subject) {
    auto named = at->get_subcommands([&](const CLI::App* command) { return command->check_name(word); });
    if (named.empty()) {
      auto names = at == &root ? subject_names() : std::vector<std::string>{};
      for (const auto* command : at->get_subcommands(kEveryCommand)) names.push_back(command->get_name());
      const auto close = close_names(word, names);
      return usage(fmt::format("there is no help on \"{}\"", word), close.empty() ? "What there is: tailrace --help" : fmt::format("Did you mean {}?", close.front()));
    }
    at = named.front();
  }
  return at->get_formatter()->make_help(at, path_of(*at), CLI::AppFormatMode::Normal);  // App::help() prefers what was called
}

void add_help_and_version(CLI::App& app, AllFlags& flags) {
  auto* help = app.add_subcommand("help", "Help on a command, exit codes, environment variables or output formats");
  help->add_option("SUBJECT", flags.help_subject, "A command, exit-codes, environment or formats; default: all commands")->type_name("");
  help->footer("examples:\n  tailrace help pub\n  tailrace help topic create\n  tailrace help exit-codes");
  runs(help, flags, [&app](Context& context, AllFlags& f) -> Outcome<int> {
    auto text = help_on(app, f.help_subject);
    if (!text) return std::unexpected(text.error());
    context.out.write(*text);
    return finished(context);
  });
  auto* which = app.add_subcommand("version", "Version and commit of this binary");
  add_common_flags(*which, flags, Talks::to_nobody, {Format::table, Format::json});
  which->footer("examples:\n  tailrace version\n  tailrace version -o json");
  runs(which, flags, [](Context& context, AllFlags&) -> Outcome<int> {
    const auto format = context.format(Format::table);
    if (format == Format::table) {
      context.out.write(fmt::format("tailrace {}\n", version()));
    } else {
      JsonWriter json;
      json.begin_object().field("schema", "tailrace.version.v1").field("version", version_number()).field("commit", commit()).end_object();
      context.out.write(json.take() + "\n");
    }
    return finished(context);
  });
}

std::unique_ptr<CLI::App> make_parser(AllFlags& flags) {
  auto app = std::make_unique<CLI::App>("Tailrace: a durable event log", "tailrace");
  app->require_subcommand(1);
  app->set_version_flag("--version", std::string{"tailrace "} + version());
  app->set_help_flag("-h,--help", "What a command does, its flags and examples");
  app->get_formatter()->column_width(34);
  app->get_formatter()->label("SUBCOMMAND", "COMMAND");
  add_client_commands(*app, flags);
  add_broker_commands(*app, flags);
  add_help_and_version(*app, flags);
  // Whoever knows flags of tools that want them in front finds them there too.
  const auto all = {Format::table, Format::json, Format::jsonl, Format::raw};
  add_common_flags(*app, flags, Talks::to_a_broker, all);
  for (auto* group : app->get_subcommands(kEveryCommand)) {
    group->group("Commands");
    for (auto* command : group->get_subcommands(kEveryCommand)) command->group("Commands");
    if (group->get_subcommands(kEveryCommand).empty()) continue;
    add_common_flags(*group, flags, Talks::to_a_broker, all);
    for (auto* option : group->get_options()) {
      if (option->get_group() == kCommonGroup) option->group("");
    }
  }
  app->footer(
      "examples:\n  tailrace dev                                    # a broker on ./.tailrace\n  echo '{\"id\":1}' | tailrace pub orders -k alice --create\n"
      "  tailrace tail orders --from start\n\nMore: tailrace COMMAND --help, tailrace help exit-codes|environment|formats");
  return app;
}

/// Flags and commands of `at` that are close to `word`.
std::string close_to(const CLI::App& at, const std::string& word) {
  std::vector<std::string> names;
  if (word.starts_with('-')) {
    for (const auto* option : at.get_options()) {
      for (const auto& name : option->get_lnames()) names.push_back("--" + name);
    }
  } else {
    for (const auto* command : at.get_subcommands(kEveryCommand)) names.push_back(command->get_name());
  }
  return listed(close_names(word.substr(0, word.find('=')), names), "or");
}

/// The parser's complaint in our words: what, what was perhaps meant, where the flags are listed.
Failure usage_failure(CLI::App& root, const CLI::ParseError& error) {
  CLI::App& at = deepest(root);
  const auto rest = root.remaining(true);
  std::string message = error.what(), close;
  if (dynamic_cast<const CLI::ValidationError*>(&error) != nullptr) {
    // A reader's own sentence, behind the flag's name.
  } else if (dynamic_cast<const CLI::ArgumentMismatch*>(&error) != nullptr) {
    // "--skip: 1 required N missing", "Expected exactly 1 arguments to --skip, got 2"
    for (const auto* option : at.get_options()) {
      const auto name = option->get_name();
      if (!message.starts_with(name + ":") && message.find("to " + name + ",") == std::string::npos) continue;
      message = option->count() > 1 ? fmt::format("{} is given more than once", name) : fmt::format("{} needs a value: {}", name, option->get_type_name());
      break;
    }
  } else if (!rest.empty()) {
    const auto& word = rest.front();
    const bool has_commands = !at.get_subcommands(kEveryCommand).empty();
    if (word.starts_with('-')) message = fmt::format("{} has no flag {}", path_of(at), word.substr(0, word.find('=')));
    else message = has_commands ? fmt::format("{} has no command \"{}\"", path_of(at), word) : fmt::format("{} does not take the argument \"{}\"", path_of(at), word);
    close = close_to(at, word);
  } else if (dynamic_cast<const CLI::RequiredError*>(&error) != nullptr) {
    message = message == "A subcommand is required" ? fmt::format("{} needs a command", path_of(at)) : fmt::format("{} needs {}", path_of(at), message.substr(0, message.find(' ')));
  }
  return usage(std::move(message), close.empty() ? "" : fmt::format("Did you mean {}? See: {} --help", close, path_of(at))).error();
}

std::optional<std::string> wrong_format(Format asked, const std::vector<Format>& formats) {
  if (asked == Format::automatic || std::ranges::find(formats, asked) != formats.end()) return std::nullopt;
  std::vector<std::string> names;
  for (auto f : formats) names.emplace_back(name_of(f));
  return names.empty() ? "this command has no --output" : fmt::format("--output: {}", not_a_choice(name_of(asked), names));
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
  if (out.names.back() == "--from") out.choices = {"start", "end", "-10", "-1h"};
  if (out.names.back() == "--until") out.choices = {"end", "-1h"};
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
        if (name == "KEY") node.argument_choices = configuration_keys();
        if (name == "CODE") {
          unsigned count = 0;
          const auto* all = all_errors(count);
          for (unsigned i = 0; i < count; ++i) node.argument_choices.push_back(fmt::format("E{}", static_cast<unsigned>(all[i].code)));
        }
        if (name == "SHELL") node.argument_choices = {"bash", "zsh"};
        if (name == "SUBJECT") {
          node.argument_choices = subject_names();
          for (const auto* command : app.get_parent()->get_subcommands(kEveryCommand)) node.argument_choices.push_back(command->get_name());
        }
      }
      first = false;
      if (option->nonpositional()) node.options.push_back(option_of(*option));
    } else {
      node.options.push_back(option_of(*option));
    }
  }
  for (const auto* child : app.get_subcommands(kEveryCommand)) node.children.push_back(node_of(*child));
  return node;
}

}  // namespace

void add_common_flags(CLI::App& command, AllFlags& flags, Talks talks, std::vector<Format> formats) {
  auto& f = flags.common;
  if (!formats.empty()) {
    std::vector<std::pair<std::string, Format>> words;
    for (auto format : formats) words.emplace_back(name_of(format), format);
    add_choice<Format>(command, "-o,--output", f.output, std::move(words), "Output format")->group(kCommonGroup);
  }
  flags.formats[&command] = std::move(formats);
  add_choice<Colour>(command, "--color", f.colour, {{"auto", Colour::automatic}, {"always", Colour::always}, {"never", Colour::never}}, "Colours: auto (default) on a terminal")->group(kCommonGroup);
  command.add_flag("-q,--quiet", f.quiet, "Data and errors only: no summaries and notes")->group(kCommonGroup);
  if (talks == Talks::to_nobody) return;
  command.add_option("--servers", f.servers, "Brokers; default: TAILRACE_SERVERS, then 127.0.0.1:7070")->type_name("HOST:PORT[,..]")->group(kCommonGroup);
  add_duration(command, "--timeout", f.timeout, std::chrono::milliseconds{1}, "How long to wait for an answer (default 30s)")->group(kCommonGroup);
}

CommandNode command_tree() {
  AllFlags flags;
  return node_of(*make_parser(flags));
}

int run(int argc, char** argv) {
  occupy_standard_descriptors();
  AllFlags flags;
  auto parser = make_parser(flags);
  auto report = [&](Failure failure) {
    if (failure.code == Errc::invalid_argument && failure.exit() == kUsage && failure.hint.empty()) failure.hint = fmt::format("See: {} --help", path_of(deepest(*parser)));
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
  // Written before the command, -o was read without knowing which formats the command has.
  if (auto wrong = wrong_format(flags.common.output, flags.formats[&deepest(*parser)])) return report(usage(*wrong).error());
  Context context{flags.common, Terminal::detect(flags.common.colour), {}};
  auto outcome = flags.action(context);
  context.out.flush();
  if (outcome) return *outcome;
  return report(outcome.error());
}

}  // namespace tailrace::cli
