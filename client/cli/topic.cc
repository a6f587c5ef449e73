// topic create|ls|describe|alter|delete|purge
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "cluster/topic_keys.h"
#include "commands.h"
#include "interrupt.h"
#include "json_writer.h"
#include "read_point.h"
#include "session.h"
#include "text.h"

namespace tailrace::cli {
namespace {

Outcome<std::map<std::string, std::string>> config_of(const std::vector<std::string>& entries) {
  std::map<std::string, std::string> config;
  for (const auto& entry : entries) {
    const auto equals = entry.find('=');
    if (equals == 0 || equals == std::string::npos) return usage(fmt::format("-c {}: not KEY=VALUE", entry), "For example: -c retention_time=7d");
    if (!config.emplace(entry.substr(0, equals), entry.substr(equals + 1)).second) return usage(fmt::format("-c {}: the key is given twice", entry));
  }
  return config;
}

std::string_view name_of(Durability d) {
  switch (d) {
    case Durability::quorum: return "quorum";
    case Durability::leader: return "leader";
    case Durability::relaxed: return "relaxed";
  }
  return "?";
}
std::string_view name_of(TimestampType t) { return t == TimestampType::create_time ? "create_time" : "log_append_time"; }

void summary_fields(JsonWriter& json, const TopicSummary& topic) {
  json.field("name", topic.name).field("id", topic.id).field("partition_count", static_cast<std::uint64_t>(topic.partitions.size()));
  json.field("durability", name_of(topic.durability)).field("timestamp_type", name_of(topic.timestamp_type));
  json.field("message_bytes_max", topic.message_bytes_max).field("internal", topic.internal);
}

/// The value of a topic key in base units: sizes in bytes, times in milliseconds, null for no limit; words stay words.
struct BaseValue {
  std::string json;
  std::string_view unit{};
};
BaseValue in_base_units(std::string_view key, std::string_view text) {
  if (text == "unlimited") return {"null"};
  if (key == "partitions" || text == "true" || text == "false") return {std::string{text}};
  if (key.ends_with("_time")) {
    if (auto time = broker::cluster::parse_duration(text)) return {std::to_string(time->count()), "ms"};
  }
  if (key.find("_bytes") != std::string_view::npos) {
    if (auto size = broker::cluster::parse_size(text)) return {std::to_string(*size), "bytes"};
  }
  std::string word;
  append_json_bytes(word, text);
  return {word};
}

std::string human_retention(const TopicDescription& d) {
  std::string time = "unlimited", bytes = "unlimited";
  for (const auto& c : d.config) {
    if (c.key == "retention_time" && !c.is_default) time = c.value;
    if (c.key == "retention_bytes" && !c.is_default) bytes = c.value;
  }
  if (time == "unlimited" && bytes == "unlimited") return "kept for ever (no retention set)";
  return fmt::format("kept for {}, {} per partition", time, bytes);
}

}  // namespace

Outcome<int> topic_create(Context& context, const TopicFlags& flags) {
  interrupt::install();
  const auto format = context.format(Format::table);
  auto config = config_of(flags.config);
  if (!config) return std::unexpected(config.error());
  auto session = Session::open(context);
  if (!session) return std::unexpected(session.error());
  TopicSpec spec;
  spec.partitions = flags.partitions == 0 ? 1 : flags.partitions;
  spec.config = std::move(*config);
  spec.validate_only = flags.dry_run;
  auto created = Session::wait(session->admin().create_topic(flags.name, std::move(spec)));
  if (!created) {
    if (created.error().code == Errc::topic_exists && flags.if_not_exists) {
      context.tell(fmt::format("topic {} exists already, unchanged", flags.name));
      return finished(context);
    }
    auto failure = session->failure(created.error(), flags.name);
    if (failure.code == Errc::topic_exists) failure.hint = fmt::format("See: tailrace topic describe {}, or say --if-not-exists", flags.name);
    return std::unexpected(std::move(failure));
  }
  if (format == Format::json || format == Format::jsonl) {
    JsonWriter json;
    json.begin_object().field("schema", "tailrace.topic.v1").field("dry_run", flags.dry_run);
    summary_fields(json, *created);
    json.end_object();
    context.out.write(json.take() + "\n");
  } else if (format == Format::raw) {
    context.out.write(created->name + "\n");
  } else {
    std::string retention;
    for (const auto& entry : flags.config) {
      if (entry.starts_with("retention")) retention += (retention.empty() ? "kept within " : ", ") + entry;
    }
    if (retention.empty()) retention = "kept for ever (no retention set)";
    if (flags.dry_run || !context.flags.quiet) context.out.write(fmt::format("{} topic {}: {}, durability {}, records {}\n", flags.dry_run ? "would create" : "created", created->name.empty() ? flags.name : created->name,
                                  counted(static_cast<std::uint64_t>(flags.partitions == 0 ? 1 : flags.partitions), "partition"), name_of(created->durability), retention));
  }
  session->close();
  return finished(context, flags.dry_run ? kConflict : kOk);
}

Outcome<int> topic_list(Context& context, const TopicFlags& flags) {
  interrupt::install();
  const auto format = context.format(Format::table);
  auto session = Session::open(context);
  if (!session) return std::unexpected(session.error());
  auto topics = Session::wait(session->admin().list_topics(flags.internal));
  if (!topics) return std::unexpected(session->failure(topics.error()));
  std::ranges::sort(*topics, {}, &TopicSummary::name);
  switch (format) {
    case Format::raw:
      for (const auto& t : *topics) context.out.write(t.name + "\n");
      break;
    case Format::json: {
      JsonWriter json;
      json.begin_object().field("schema", "tailrace.topics.v1").key("topics").begin_array();
      for (const auto& t : *topics) {
        json.begin_object();
        summary_fields(json, t);
        json.end_object();
      }
      json.end_array().end_object();
      context.out.write(json.take() + "\n");
      break;
    }
    case Format::jsonl:
      for (const auto& t : *topics) {
        JsonWriter json;
        json.begin_object().field("schema", "tailrace.topic.v1");
        summary_fields(json, t);
        json.end_object();
        context.out.write(json.take() + "\n");
      }
      break;
    case Format::automatic:
    case Format::table: {
      Table table{{"NAME", ">PARTITIONS", "DURABILITY", "TIMESTAMPS", ">MESSAGE MAX"}};
      for (const auto& t : *topics) table.row({printable(t.name), fmt::format("{}", t.partitions.size()), std::string{name_of(t.durability)}, std::string{name_of(t.timestamp_type)}, human_bytes(t.message_bytes_max)});
      if (topics->empty()) context.tell("no topics; create one: tailrace topic create NAME");
      else context.out.write(table.text(context.terminal.colour_stdout));
      break;
    }
  }
  session->close();
  return finished(context);
}

Outcome<int> topic_describe(Context& context, const TopicFlags& flags) {
  interrupt::install();
  const auto format = context.format(Format::table);
  auto session = Session::open(context);
  if (!session) return std::unexpected(session.error());
  auto description = Session::wait(session->admin().describe_topic(flags.name));
  if (!description) return std::unexpected(session->failure(description.error(), flags.name, Advice::none));
  const auto& d = *description;
  if (format != Format::table) {
    JsonWriter json;
    json.begin_object().field("schema", "tailrace.topic_description.v1");
    summary_fields(json, d.topic);
    json.key("config").begin_array();
    for (const auto& c : d.config) {
      const auto value = in_base_units(c.key, c.value);
      json.begin_object().field("key", c.key).key("value").json(value.json);
      if (!value.unit.empty()) json.field("unit", value.unit);
      json.field("text", c.value).field("is_default", c.is_default).field("meaning", c.meaning).end_object();
    }
    json.end_array().key("partitions").begin_array();
    for (const auto& p : d.partitions) {
      json.begin_object().field("partition", p.partition).field("leader", p.leader).field("leader_epoch", p.leader_epoch).key("replicas").begin_array();
      for (auto r : p.replicas) json.value(r);
      json.end_array().field("log_start", p.log_start).field("high_watermark", p.high_watermark).field("log_end", p.log_end).field("bytes", p.bytes).field("segments", p.segments);
      json.field("first_time", p.first_time).field("last_time", p.last_time).field("shard", p.shard).field("damage", p.damage).end_object();
    }
    json.end_array().end_object();
    context.out.write(json.take() + "\n");
  } else {
    std::uint64_t bytes = 0, records = 0;
    for (const auto& p : d.partitions) {
      bytes += p.bytes;
      records += static_cast<std::uint64_t>(std::max<std::int64_t>(0, p.high_watermark - p.log_start));
    }
    context.out.write(fmt::format("{}  id {}\n{}, {}, {}; durability {}; {}\n\n", d.topic.name, d.topic.id, counted(d.partitions.size(), "partition"), counted(records, "record"), human_bytes(bytes),
                                  name_of(d.topic.durability), human_retention(d)));
    Table partitions{{">PARTITION", ">LEADER", "REPLICAS", ">FIRST", ">END", ">BYTES", ">SEGMENTS", "FIRST TIME", "LAST TIME", "DAMAGE"}};
    for (const auto& p : d.partitions) {
      std::string replicas;
      for (auto r : p.replicas) replicas += (replicas.empty() ? "" : ",") + std::to_string(r);
      partitions.row({std::to_string(p.partition), std::to_string(p.leader), replicas, std::to_string(p.log_start), std::to_string(p.high_watermark), human_bytes(p.bytes), std::to_string(p.segments),
                      p.first_time ? format_time(*p.first_time) : "-", p.last_time ? format_time(*p.last_time) : "-", p.damage.empty() ? "none known" : printable(p.damage)});
    }
    context.out.write(partitions.text(context.terminal.colour_stdout) + "\n");
    Table config{{"KEY", "VALUE", "SET", "MEANING"}};
    for (const auto& c : d.config) config.row({c.key, c.value, c.is_default ? "default" : "here", c.meaning});
    context.out.write(config.text(context.terminal.colour_stdout));
  }
  session->close();
  return finished(context);
}

Outcome<int> topic_alter(Context& context, const TopicFlags& flags) {
  interrupt::install();
  const auto format = context.format(Format::table);
  auto config = config_of(flags.config);
  if (!config) return std::unexpected(config.error());
  if (config->empty() && flags.unset.empty() && flags.partitions == 0) return usage("nothing to change", "Give --partitions N, -c KEY=VALUE or --unset KEY");
  auto session = Session::open(context);
  if (!session) return std::unexpected(session.error());
  auto before = Session::wait(session->admin().describe_topic(flags.name));
  if (!before) return std::unexpected(session->failure(before.error(), flags.name, Advice::none));

  TopicChange change;
  change.partitions = flags.partitions == static_cast<std::int32_t>(before->partitions.size()) ? 0 : flags.partitions;
  change.set = *config;
  change.unset = flags.unset;
  change.validate_only = flags.dry_run;
  auto altered = Session::wait(session->admin().alter_topic(flags.name, change));
  if (!altered) return std::unexpected(session->failure(altered.error(), flags.name, Advice::none));

  struct Difference {
    std::string what, from, to;
  };
  std::vector<Difference> differences;
  if (change.partitions != 0) differences.push_back({"partitions", std::to_string(before->partitions.size()), std::to_string(change.partitions)});
  for (const auto& c : before->config) {
    if (auto set = change.set.find(c.key); set != change.set.end() && (set->second != c.value || c.is_default)) differences.push_back({c.key, c.value, set->second});
    else if (std::ranges::find(change.unset, c.key) != change.unset.end() && !c.is_default) differences.push_back({c.key, c.value, "default"});
  }
  if (format != Format::table) {
    JsonWriter json;
    json.begin_object().field("schema", "tailrace.topic_change.v1").field("topic", flags.name).field("dry_run", flags.dry_run).key("changes").begin_array();
    for (const auto& d : differences) {
      const auto from = in_base_units(d.what, d.from), to = in_base_units(d.what, d.to);
      json.begin_object().field("key", d.what).key("from").json(from.json).key("to").json(to.json);
      if (!from.unit.empty() || !to.unit.empty()) json.field("unit", from.unit.empty() ? to.unit : from.unit);
      json.field("from_text", d.from).field("to_text", d.to).end_object();
    }
    json.end_array().end_object();
    context.out.write(json.take() + "\n");
  } else if (differences.empty()) {
    context.tell(fmt::format("topic {}: nothing to change", flags.name));
  } else if (flags.dry_run || !context.flags.quiet) {
    context.out.write(fmt::format("topic {}: {}\n", flags.name, flags.dry_run ? "would change" : "changed"));
    for (const auto& d : differences) context.out.write(fmt::format("  {}: {} -> {}\n", d.what, d.from, d.to));
    if (change.partitions != 0) {
      context.warn("keys are spread over all partitions: new records of a key may land on another partition than its earlier ones");
      context.warn("producers that run learn of it within 30 s, and until then a key may be written to both; tail -F and subscriptions that run stay on the partitions they began with");
    }
  }
  session->close();
  return finished(context, flags.dry_run && !differences.empty() ? kConflict : kOk);
}

Outcome<int> topic_delete(Context& context, const TopicFlags& flags) {
  interrupt::install();
  const auto format = context.format(Format::table);
  auto session = Session::open(context);
  if (!session) return std::unexpected(session.error());
  auto description = Session::wait(session->admin().describe_topic(flags.name));
  if (!description) return std::unexpected(session->failure(description.error(), flags.name, Advice::none));
  std::uint64_t bytes = 0, records = 0;
  for (const auto& p : description->partitions) {
    bytes += p.bytes;
    records += static_cast<std::uint64_t>(std::max<std::int64_t>(0, p.high_watermark - p.log_start));
  }
  const auto plan = fmt::format("topic {} with {}, {}, {}", flags.name, counted(description->partitions.size(), "partition"), counted(records, "record"), human_bytes(bytes));
  if (!flags.dry_run) {
    if (!flags.yes) note("will delete " + plan);
    if (auto confirmed = confirm(context, flags.yes, fmt::format("deleting topic {}", flags.name), flags.name); !confirmed) return std::unexpected(confirmed.error());
  }
  auto deleted = Session::wait(session->admin().delete_topic(flags.name, flags.dry_run));
  if (!deleted) return std::unexpected(session->failure(deleted.error(), flags.name, Advice::none));
  if (format != Format::table) {
    JsonWriter json;
    json.begin_object().field("schema", "tailrace.topic_deletion.v1").field("topic", flags.name).field("dry_run", flags.dry_run);
    json.field("partition_count", static_cast<std::uint64_t>(description->partitions.size())).field("records", records).field("bytes", bytes).end_object();
    context.out.write(json.take() + "\n");
  } else if (flags.dry_run || !context.flags.quiet) {
    context.out.write(fmt::format("{} {}\n", flags.dry_run ? "would delete" : "deleted", plan));
  }
  session->close();
  return finished(context, flags.dry_run ? kConflict : kOk);
}

Outcome<int> topic_purge(Context& context, const TopicFlags& flags) {
  interrupt::install();
  const auto format = context.format(Format::table);
  auto where = parse_until(flags.before.empty() ? "end" : flags.before, std::chrono::time_point_cast<std::chrono::milliseconds>(std::chrono::system_clock::now()));
  if (!where) return usage(fmt::format("--before: {}", where.error()));
  auto session = Session::open(context);
  if (!session) return std::unexpected(session.error());
  auto description = Session::wait(session->admin().describe_topic(flags.name));
  if (!description) return std::unexpected(session->failure(description.error(), flags.name, Advice::none));
  std::vector<std::int32_t> chosen = flags.partition;
  if (chosen.empty()) {
    for (const auto& p : description->partitions) chosen.push_back(p.partition);
  }
  std::ranges::sort(chosen);
  chosen.erase(std::ranges::unique(chosen).begin(), chosen.end());
  std::map<std::int32_t, const PartitionDescription*> known;
  for (const auto& p : description->partitions) known[p.partition] = &p;
  for (auto p : chosen) {
    if (!known.contains(p)) return failed(Errc::no_such_partition, fmt::format("{} has no partition {}, it has {}", flags.name, p, counted(known.size(), "partition")), fmt::format("See: tailrace topic describe {}", flags.name));
  }
  std::map<std::int32_t, std::int64_t> listed;
  if (const auto* time = std::get_if<AtTime>(&*where)) {
    auto offsets = Session::wait(session->admin().list_offsets(flags.name, From::time(time->time), chosen));
    if (!offsets) return std::unexpected(session->failure(offsets.error(), flags.name, Advice::none));
    for (const auto& o : *offsets) listed[o.partition] = o.offset;
  }
  const auto* offset = std::get_if<AtOffset>(&*where);
  if (offset != nullptr && chosen.size() != 1) return usage("--before OFFSET means one partition", "Name it with -p N");

  std::vector<PartitionOffset> before;
  Table table{{">PARTITION", ">FIRST NOW", ">FIRST THEN", ">RECORDS GONE"}};
  std::uint64_t gone = 0;
  for (auto p : chosen) {
    const auto& d = *known[p];
    std::int64_t to = d.high_watermark;
    if (offset != nullptr) {
      if (offset->offset > d.high_watermark) {
        return failed(Errc::offset_out_of_range, fmt::format("{}[{}] ends at {}, before {}", flags.name, p, d.high_watermark, offset->offset), "Name an offset in the range, or end");
      }
      to = offset->offset;
    } else if (!listed.empty()) {
      to = listed[p];
    }
    to = std::max(to, d.log_start);
    gone += static_cast<std::uint64_t>(to - d.log_start);
    table.row({std::to_string(p), std::to_string(d.log_start), std::to_string(to), human_count(static_cast<std::uint64_t>(to - d.log_start))});
    if (to > d.log_start) before.push_back({p, to});
  }
  if (!flags.dry_run && !before.empty()) {
    if (!flags.yes) note(fmt::format("will delete {} of topic {}:\n{}", counted(gone, "record"), flags.name, table.text(context.terminal.colour_stderr)));
    if (auto confirmed = confirm(context, flags.yes, fmt::format("purging topic {}", flags.name), flags.name); !confirmed) return std::unexpected(confirmed.error());
  }
  std::vector<PartitionOffset> starts;
  if (!before.empty()) {
    auto purged = Session::wait(session->admin().delete_records(flags.name, before, flags.dry_run));
    if (!purged) return std::unexpected(session->failure(purged.error(), flags.name, Advice::none));
    starts = std::move(*purged);
  }
  if (format == Format::table) {
    if (flags.dry_run) context.out.write(table.text(context.terminal.colour_stdout));
    if (flags.dry_run || !context.flags.quiet) context.out.write(fmt::format("{} {} of topic {}\n", flags.dry_run ? "would delete" : "deleted", counted(gone, "record"), flags.name));
  } else {
    JsonWriter json;
    json.begin_object().field("schema", "tailrace.purge.v1").field("topic", flags.name).field("dry_run", flags.dry_run).field("records", gone).key("partitions").begin_array();
    for (const auto& p : flags.dry_run ? before : starts) json.begin_object().field("partition", p.partition).field("log_start", p.offset).end_object();
    json.end_array().end_object();
    context.out.write(json.take() + "\n");
  }
  session->close();
  return finished(context, flags.dry_run && gone > 0 ? kConflict : kOk);
}

}  // namespace tailrace::cli
