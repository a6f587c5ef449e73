#include "configuration.h"

#include <fmt/format.h>

#include "cluster/topic_keys.h"
#include "commands.h"
#include "json_writer.h"
#include "text.h"

namespace tailrace::cli {

namespace server_ns = broker::server;

std::expected<server_ns::LoadedConfig, std::vector<server_ns::ConfigProblem>> read_configuration(const ServerFlags& flags, bool dev, const std::vector<server_ns::FlagValue>& more) {
  server_ns::ConfigSources sources;
  sources.file = flags.file;
  sources.environment = server_ns::process_environment();
  sources.dev = dev;
  sources.flags = more;
  std::vector<server_ns::ConfigProblem> problems;
  // --data and the like come after --set: the more particular spelling wins over the general one.
  for (const auto& text : flags.set) {
    auto value = server_ns::parse_set(text);
    if (value) sources.flags.push_back(std::move(*value));
    else problems.push_back(value.error());
  }
  if (flags.data) sources.flags.push_back({"data.directory", *flags.data, "--data"});
  if (flags.listen) sources.flags.push_back({"listen.native", *flags.listen, "--listen"});
  if (flags.http_listen) sources.flags.push_back({"listen.http", *flags.http_listen, "--http-listen"});
  auto loaded = server_ns::load_config(sources);
  if (!loaded) problems.insert(problems.end(), loaded.error().begin(), loaded.error().end());
  if (!problems.empty()) return std::unexpected(std::move(problems));
  return loaded;
}

Outcome<server_ns::LoadedConfig> load_configuration(const Context& context, const ServerFlags& flags, bool dev, const std::vector<server_ns::FlagValue>& more) {
  auto loaded = read_configuration(flags, dev, more);
  if (!loaded) {
    const auto& problems = loaded.error();
    for (std::size_t i = 0; i + 1 < problems.size(); ++i) note(failure_line({problems[i].code, problems[i].message, kNoHint, kUsage}, context.terminal.colour_stderr));
    return failed(problems.back().code, problems.back().message, kNoHint, kUsage);
  }
  for (const auto& warning : loaded->warnings) context.warn(warning.message);
  return std::move(*loaded);
}

Outcome<int> config_check(Context& context, const ServerFlags& flags) {
  auto config = load_configuration(context, flags, false);
  if (!config) return std::unexpected(config.error());
  context.out.write(fmt::format("ok  {} keys, digest {}\n", config->values.size(), config->digest));
  return finished(context);
}

Outcome<int> config_show(Context& context, const ServerFlags& flags) {
  const auto format = context.format(Format::table);
  auto config = load_configuration(context, flags, false);
  if (!config) return std::unexpected(config.error());
  if (format == Format::table) {
    context.out.write(server_ns::show_config(*config, flags.origin));
    return finished(context);
  }
  JsonWriter json;
  json.begin_object().field("schema", "tailrace.config.v1").field("digest", config->digest).key("values").begin_array();
  for (const auto& [key, value] : config->values) json.begin_object().field("key", key).field("value", value.text).field("origin", value.origin.to_string()).end_object();
  json.end_array().end_object();
  context.out.write(json.take() + "\n");
  return finished(context);
}

namespace {

/// `topic` or `topic.KEY`: the keys of `topic create -c`. Nothing: it is not about topics.
std::optional<Outcome<int>> explain_topic_key(Context& context, std::string_view key) {
  if (key != "topic" && !key.starts_with("topic.")) return std::nullopt;
  const auto wanted = key == "topic" ? std::string_view{} : key.substr(6);
  std::vector<std::string> names;
  for (const auto& info : broker::cluster::topic_keys()) {
    names.emplace_back(info.name);
    if (wanted.empty() || wanted == info.name) {
      const auto by_default = broker::cluster::print_topic_key(broker::TopicConfig{}, info.key);
      context.out.write(fmt::format("{}\n  {}\n  values   {}\n  default  {}\n", info.name, info.meaning, info.values, by_default));
      if (!wanted.empty()) return finished(context);
    }
  }
  if (wanted.empty()) {
    context.out.write("\nSet them with: tailrace topic create NAME -c KEY=VALUE, or topic alter\n");
    return finished(context);
  }
  std::string close;
  for (const auto& name : close_names(wanted, names)) close += (close.empty() ? "topic." : ", topic.") + name;
  return failed(Errc::not_found, fmt::format("topics have no key \"{}\"", wanted), close.empty() ? "All of them: tailrace config explain topic" : fmt::format("Did you mean {}?", close), kNotFound);
}

}  // namespace

Outcome<int> config_explain(Context& context, const ServerFlags& flags) {
  if (auto done = explain_topic_key(context, flags.key)) return std::move(*done);
  if (flags.key.empty()) {
    Table table{{"KEY", "TYPE", "DEFAULT", "MEANING"}};
    for (const auto& s : server_ns::settings()) table.row({std::string{s.key}, std::string{server_ns::name_of(s.kind)}, std::string{s.default_text}, std::string{s.meaning}});
    context.out.write(table.text(context.terminal.colour_stdout));
    return finished(context);
  }
  auto explanation = server_ns::explain_config(flags.key);
  if (!explanation.text) {
    std::string close;
    for (const auto& name : explanation.close_names) close += (close.empty() ? "" : ", ") + name;
    return failed(Errc::not_found, fmt::format("no configuration key is called \"{}\"", flags.key), close.empty() ? "All of them: tailrace config explain" : fmt::format("Did you mean {}?", close), kNotFound);
  }
  context.out.write(*explanation.text);
  if (!explanation.text->ends_with('\n')) context.out.write("\n");
  return finished(context);
}

}  // namespace tailrace::cli
