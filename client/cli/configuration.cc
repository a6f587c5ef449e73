#include "configuration.h"

#include <fmt/format.h>

#include "cluster/topic_keys.h"
#include "commands.h"
#include "json_writer.h"
#include "server/config_values.h"
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
  if (context.format(Format::table) == Format::table) {
    auto config = load_configuration(context, flags, false);
    if (!config) return std::unexpected(config.error());
    context.out.write(fmt::format("ok  {} keys, digest {}\n", config->values.size(), config->digest));
    return finished(context);
  }
  auto config = read_configuration(flags, false);
  JsonWriter json;
  json.begin_object().field("schema", "tailrace.config_check.v1").field("ok", config.has_value()).key("problems").begin_array();
  if (!config) {
    for (const auto& p : config.error()) json.begin_object().field("code", static_cast<std::uint32_t>(p.code)).field("message", p.message).end_object();
  }
  json.end_array();
  if (config) json.field("digest", config->digest);
  json.end_object();
  context.out.write(json.take() + "\n");
  return finished(context, config ? kOk : kUsage);
}

namespace {

void write_value(JsonWriter& json, const server_ns::Setting& setting, std::string_view text) {
  using Kind = server_ns::SettingKind;
  json.key("value");
  auto size = server_ns::parse_size(text);
  auto duration = server_ns::parse_duration(text);
  auto integer = server_ns::parse_integer(text);
  if (setting.kind == Kind::boolean) json.value(text == "true");
  else if (setting.kind == Kind::integer && integer) json.value(*integer);
  else if (setting.kind == Kind::size && size) json.value(*size).field("unit", "bytes");
  else if (setting.kind == Kind::duration && duration) json.value(static_cast<std::int64_t>(duration->count())).field("unit", "ms");
  else json.value(text);
  json.field("text", text);
}

}  // namespace

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
  for (const auto& [key, value] : config->values) {
    json.begin_object().field("key", key);
    if (const auto* setting = server_ns::find_setting(key)) write_value(json, *setting, value.text);
    json.field("origin", value.origin.to_string()).end_object();
  }
  json.end_array().end_object();
  context.out.write(json.take() + "\n");
  return finished(context);
}

namespace {

constexpr std::string_view kTopicPrefix = "topic.";

/// Broker settings under their own name, the keys of `topic create -c` under `topic.KEY`. One row each.
struct KeyRow {
  std::string key, type, by_default, meaning;
};
std::vector<KeyRow> all_keys() {
  std::vector<KeyRow> rows;
  for (const auto& s : server_ns::settings()) rows.push_back({std::string{s.key}, std::string{server_ns::name_of(s.kind)}, std::string{s.default_text}, std::string{s.meaning}});
  for (const auto& info : broker::cluster::topic_keys()) {
    rows.push_back({std::string{kTopicPrefix} + std::string{info.name}, std::string{info.values}, broker::cluster::print_topic_key(broker::TopicConfig{}, info.key), std::string{info.meaning}});
  }
  return rows;
}

std::string as_text(const KeyRow& row) { return fmt::format("{}\n  {}\n  values   {}\n  default  {}\n", row.key, row.meaning, row.type, row.by_default); }

void write_rows(Context& context, const std::vector<KeyRow>& rows) {
  JsonWriter json;
  json.begin_object().field("schema", "tailrace.config_keys.v1").key("keys").begin_array();
  for (const auto& row : rows) json.begin_object().field("key", row.key).field("type", row.type).field("default_text", row.by_default).field("meaning", row.meaning).end_object();
  json.end_array().end_object();
  context.out.write(json.take() + "\n");
}

}  // namespace

std::vector<std::string> configuration_keys() {
  std::vector<std::string> keys;
  for (const auto& row : all_keys()) keys.push_back(row.key);
  return keys;
}

Outcome<int> config_explain(Context& context, const ServerFlags& flags) {
  const auto format = context.format(Format::table);
  const auto rows = all_keys();
  std::vector<KeyRow> chosen;
  std::vector<std::string> names;
  for (const auto& row : rows) {
    names.push_back(row.key);
    const bool of_topic = row.key.starts_with(kTopicPrefix);
    // A topic's keys are written without their section on the command line, so they are found so too.
    if (of_topic) names.push_back(row.key.substr(kTopicPrefix.size()));
    if (flags.key.empty() || row.key == flags.key || row.key.starts_with(flags.key + ".") || (of_topic && row.key.substr(kTopicPrefix.size()) == flags.key)) chosen.push_back(row);
  }
  if (chosen.empty()) {
    const auto close = close_names(flags.key, names);
    return failed(Errc::no_such_name, fmt::format("no configuration key is called \"{}\"", flags.key), close.empty() ? "All of them: tailrace config explain" : fmt::format("Did you mean {}?", listed(close, "or")));
  }
  if (format == Format::json) {
    write_rows(context, chosen);
    return finished(context);
  }
  if (flags.key.empty()) {
    Table table{{"KEY", "TYPE", "DEFAULT", "MEANING"}};
    for (const auto& row : chosen) table.row({row.key, row.type, row.by_default, row.meaning});
    context.out.write(table.text(context.terminal.colour_stdout));
    return finished(context);
  }
  bool of_topic = false;
  for (const auto& row : chosen) {
    const bool topic_key = row.key.starts_with(kTopicPrefix);
    of_topic |= topic_key;
    if (topic_key) {
      context.out.write(as_text(row));
    } else if (auto explanation = server_ns::explain_config(row.key); explanation.text) {
      context.out.write(*explanation.text);
      if (!explanation.text->ends_with('\n')) context.out.write("\n");
    }
  }
  if (of_topic) context.out.write("\nOf a topic: tailrace topic create NAME -c KEY=VALUE, or topic alter. Not in the broker's configuration.\n");
  return finished(context);
}

}  // namespace tailrace::cli
