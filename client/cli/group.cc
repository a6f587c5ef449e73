// group: looking at consumer groups, and forgetting them.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <thread>

#include "commands.h"
#include "interrupt.h"
#include "json_rows.h"
#include "session.h"
#include "text.h"

namespace tailrace::cli {
namespace {

using std::chrono::milliseconds;
constexpr milliseconds kWatchEvery{2'000};

std::string_view name_of(GroupState state) {
  switch (state) {
    case GroupState::empty: return "empty";
    case GroupState::moving: return "moving";
    case GroupState::stable: return "stable";
  }
  return "";
}
std::string_view name_of(Assignor assignor) { return assignor == Assignor::range ? "range" : "sticky"; }
std::string_view name_of(OutOfRange policy) {
  switch (policy) {
    case OutOfRange::error: return "error";
    case OutOfRange::earliest: return "start";
    case OutOfRange::latest: return "end";
  }
  return "";
}

/// "orders[0,2-4] audit[1]"
std::string partitions_text(const std::vector<Position>& partitions) {
  std::map<std::string, std::vector<std::int32_t>> by_topic;
  for (const Position& one : partitions) by_topic[one.topic].push_back(one.partition);
  std::string out;
  for (auto& [topic, numbers] : by_topic) {
    std::ranges::sort(numbers);
    out += (out.empty() ? "" : " ") + topic + "[";
    for (std::size_t i = 0; i < numbers.size();) {
      std::size_t end = i + 1;
      while (end < numbers.size() && numbers[end] == numbers[end - 1] + 1) ++end;
      out += (i == 0 ? "" : ",") + std::to_string(numbers[i]) + (end - i > 1 ? "-" + std::to_string(numbers[end - 1]) : "");
      i = end;
    }
    out += "]";
  }
  return out.empty() ? "-" : out;
}
void partitions_json(JsonWriter& json, std::string_view key, const std::vector<Position>& partitions) {
  json.key(key).begin_array();
  for (const Position& one : partitions) json.begin_object().field("topic", one.topic).field("partition", one.partition).end_object();
  json.end_array();
}

void member_json(JsonWriter& json, const GroupMember& member) {
  json.begin_object().field("schema", "tailrace.group_member.v1").field("member", member.member).field("instance", member.instance);
  partitions_json(json, "reads", member.partitions);
  partitions_json(json, "will_read", member.target);
  json.field("session_timeout_ms", static_cast<std::int64_t>(member.session_timeout.count())).field("silent_after_ms", static_cast<std::int64_t>(member.silent_after.count())).end_object();
}

std::string number_or_dash(std::int64_t number) { return number < 0 ? "-" : std::to_string(number); }
std::string behind_text(const std::optional<Milliseconds>& behind) {
  if (!behind) return "-";
  return behind->count() == 0 ? "0" : human_duration(*behind);
}

void lag_json(JsonWriter& json, const std::string& group, const GroupPartition& p) {
  json.begin_object().field("schema", "tailrace.group_lag.v1").field("group", group).field("topic", p.topic).field("partition", p.partition);
  json.field("member", p.member);
  auto number = [&](std::string_view key, std::int64_t value) {
    if (value < 0) json.key(key).json("null");
    else json.field(key, value);
  };
  number("committed", p.committed);
  json.key("committed_time").value(p.committed_time);
  json.field("metadata", p.metadata);
  number("log_start", p.log_start);
  number("high_watermark", p.high_watermark);
  number("lag_records", p.lag);
  number("lag_ms", p.behind ? p.behind->count() : -1);
  json.end_object();
}

Table lag_table() { return Table{{"GROUP", "TOPIC", ">PARTITION", ">COMMITTED", ">END", ">LAG", ">BEHIND", "MEMBER"}}; }
void lag_row(Table& table, const std::string& group, const GroupPartition& p) {
  table.row({group, p.topic, std::to_string(p.partition), number_or_dash(p.committed), number_or_dash(p.high_watermark), p.lag < 0 ? "-" : human_count(static_cast<std::uint64_t>(p.lag)),
             behind_text(p.behind), p.member.empty() ? "-" : p.member});
}

Outcome<GroupDescription> described(Session& session, const std::string& group) {
  auto answer = Session::wait(session.admin().describe_group(group));
  if (!answer) return std::unexpected(session.failure(answer.error()));
  return *std::move(answer);
}

}  // namespace

Outcome<int> group_list(Context& context, const GroupFlags&) {
  interrupt::install();
  const auto format = context.format(Format::table);
  auto session = Session::open(context);
  if (!session) return std::unexpected(session.error());
  auto groups = Session::wait(session->admin().list_groups());
  if (!groups) return std::unexpected(session->failure(groups.error()));
  if (format == Format::table) {
    Table table{{"GROUP", "STATE", ">MEMBERS", "TOPICS"}};
    for (const auto& g : *groups) table.row({printable(g.group), std::string{name_of(g.state)}, std::to_string(g.members), g.topics.empty() ? "-" : listed(g.topics)});
    context.out.write(table.text(context.terminal.colour_stdout));
    if (groups->empty()) context.tell("no groups; one begins when somebody reads as a member: tailrace tail TOPIC -g GROUP --commit");
  } else if (format == Format::raw) {
    for (const auto& g : *groups) context.out.write(g.group + "\n");
  } else {
    JsonRows rows{context, "tailrace.groups.v1", "groups"};
    for (const auto& g : *groups) {
      rows.add([&](JsonWriter& json) {
        json.begin_object().field("schema", "tailrace.group.v1").field("group", g.group).field("state", name_of(g.state)).field("members", g.members).key("topics").begin_array();
        for (const auto& topic : g.topics) json.value(topic);
        json.end_array().end_object();
      });
    }
    rows.finish();
  }
  session->close();
  return finished(context);
}

Outcome<int> group_describe(Context& context, const GroupFlags& flags) {
  interrupt::install();
  const auto format = context.format(Format::table);
  auto session = Session::open(context);
  if (!session) return std::unexpected(session.error());
  auto group = described(*session, flags.group);
  if (!group) return std::unexpected(group.error());
  if (format == Format::table) {
    context.out.write(fmt::format("group {}: {}, generation {}, {}, assignor {}, out of range: {}{}\n", printable(group->group), name_of(group->state), group->generation,
                                  counted(group->members.size(), "member"), name_of(group->assignor), name_of(group->out_of_range),
                                  group->empty_since ? ", empty since " + format_time(*group->empty_since) : ""));
    if (!group->members.empty()) {
      Table members{{"MEMBER", "INSTANCE", "READS", "WILL READ"}};
      for (const auto& m : group->members) members.row({m.member, printable(m.instance), partitions_text(m.partitions), m.partitions == m.target ? "the same" : partitions_text(m.target)});
      context.out.write("\n" + members.text(context.terminal.colour_stdout));
    }
    Table table = lag_table();
    for (const auto& p : group->partitions) lag_row(table, printable(group->group), p);
    context.out.write("\n" + table.text(context.terminal.colour_stdout));
  } else {
    JsonWriter json;
    json.begin_object().field("schema", "tailrace.group_description.v1").field("group", group->group).field("state", name_of(group->state)).field("generation", group->generation);
    json.field("assignor", name_of(group->assignor)).field("out_of_range", name_of(group->out_of_range)).key("empty_since").value(group->empty_since).key("members").begin_array();
    for (const auto& m : group->members) {
      member_json(json, m);
    }
    json.end_array().key("partitions").begin_array();
    for (const auto& p : group->partitions) lag_json(json, group->group, p);
    json.end_array().end_object();
    context.out.write(json.take() + "\n");
  }
  session->close();
  return finished(context);
}

Outcome<int> group_members(Context& context, const GroupFlags& flags) {
  interrupt::install();
  const auto format = context.format(Format::table);
  auto session = Session::open(context);
  if (!session) return std::unexpected(session.error());
  auto group = described(*session, flags.group);
  if (!group) return std::unexpected(group.error());
  if (format == Format::table) {
    Table table{{"MEMBER", "INSTANCE", "READS", "WILL READ", ">SILENT AFTER"}};
    for (const auto& m : group->members) {
      table.row({m.member, printable(m.instance), partitions_text(m.partitions), m.partitions == m.target ? "the same" : partitions_text(m.target), human_duration(m.silent_after)});
    }
    context.out.write(table.text(context.terminal.colour_stdout));
    if (group->members.empty()) context.tell("nobody is in it");
  } else {
    JsonRows rows{context, "tailrace.group_members.v1", "members"};
    for (const auto& m : group->members) rows.add([&](JsonWriter& json) { member_json(json, m); });
    rows.finish();
  }
  session->close();
  return finished(context);
}

Outcome<int> group_lag(Context& context, const GroupFlags& flags) {
  interrupt::install();
  const auto format = context.format(Format::table);
  auto session = Session::open(context);
  if (!session) return std::unexpected(session.error());
  for (;;) {
    std::vector<std::string> names;
    if (!flags.group.empty()) {
      names.push_back(flags.group);
    } else {
      auto groups = Session::wait(session->admin().list_groups());
      if (!groups) return std::unexpected(session->failure(groups.error()));
      for (const auto& g : *groups) names.push_back(g.group);
    }
    Table table = lag_table();
    std::optional<JsonRows> rows;
    if (format != Format::table) rows.emplace(context, "tailrace.group_lags.v1", "partitions");
    for (const auto& name : names) {
      auto group = described(*session, name);
      if (!group && group.error().code == Errc::no_such_group && flags.group.empty()) continue;  // it was deleted meanwhile
      if (!group) return std::unexpected(group.error());
      for (const auto& p : group->partitions) {
        if (rows) rows->add([&](JsonWriter& json) { lag_json(json, name, p); });
        else lag_row(table, printable(name), p);
      }
    }
    if (rows) {
      rows->finish();
    } else {
      if (flags.watch && context.terminal.stdout_is_terminal) context.out.write("\033[H\033[2J");
      context.out.write(table.text(context.terminal.colour_stdout));
    }
    context.out.flush();
    if (!flags.watch || context.out.closed()) break;
    for (auto waited = milliseconds{0}; waited < kWatchEvery && !interrupt::requested(); waited += milliseconds{50}) std::this_thread::sleep_for(milliseconds{50});
    if (interrupt::requested()) break;
  }
  session->close();
  return finished(context, interrupt::requested() ? kInterrupted : kOk);
}

Outcome<int> group_explain(Context& context, const GroupFlags& flags) {
  interrupt::install();
  const auto format = context.format(Format::table);
  auto session = Session::open(context);
  if (!session) return std::unexpected(session.error());
  auto group = described(*session, flags.group);
  if (!group) return std::unexpected(group.error());
  std::map<std::pair<std::string, std::int32_t>, std::string> goes_to;
  for (const auto& m : group->members) {
    for (const Position& one : m.target) goes_to[{one.topic, one.partition}] = m.member;
  }
  struct Cause {
    std::string_view code;
    std::string text;
  };
  auto cause_of = [&](const GroupPartition& p) -> Cause {
    auto next = goes_to.find({p.topic, p.partition});
    if (p.high_watermark < 0) return {"unreadable", "the broker cannot read it now: tailrace topic describe " + p.topic};
    if (p.committed >= 0 && (p.committed < p.log_start || p.committed > p.high_watermark)) {
      return {"out_of_range", fmt::format("offset {} is not in the log any more ({} to {}); the group's rule: {}", p.committed, p.log_start, p.high_watermark, name_of(group->out_of_range))};
    }
    if (p.lag == 0) return {"end_of_log", "everything was read"};
    if (group->members.empty()) return {"no_members", fmt::format("nobody is in the group{}", group->empty_since ? " since " + format_time(*group->empty_since) : "")};
    if (p.member.empty() && next == goes_to.end()) return {"not_subscribed", "no member subscribes to the topic"};
    if (p.member.empty()) return {"moving", fmt::format("{} gets it with its next heartbeat", next->second)};
    if (next != goes_to.end() && next->second != p.member) return {"moving", fmt::format("{} still reads it; {} gets it when that one has let go", p.member, next->second)};
    return {"being_read", fmt::format("{} reads it, {} behind{}; offsets were stored last {}", p.member, counted(static_cast<std::uint64_t>(std::max<std::int64_t>(p.lag, 0)), "record"),
                                      p.behind ? " (" + behind_text(p.behind) + ")" : "", p.committed_time ? "at " + format_time(*p.committed_time) : "never")};
  };
  if (format == Format::table) {
    Table table{{"TOPIC", ">PARTITION", "CAUSE", "WHAT"}};
    for (const auto& p : group->partitions) {
      Cause cause = cause_of(p);
      table.row({p.topic, std::to_string(p.partition), std::string{cause.code}, cause.text});
    }
    context.out.write(table.text(context.terminal.colour_stdout));
  } else {
    JsonRows rows{context, "tailrace.group_causes.v1", "partitions"};
    for (const auto& p : group->partitions) {
      Cause cause = cause_of(p);
      rows.add([&](JsonWriter& json) {
        json.begin_object().field("schema", "tailrace.group_cause.v1").field("group", group->group).field("topic", p.topic).field("partition", p.partition).field("cause", cause.code).field("text", cause.text).end_object();
      });
    }
    rows.finish();
  }
  session->close();
  return finished(context);
}

Outcome<int> group_delete(Context& context, const GroupFlags& flags) {
  interrupt::install();
  const auto format = context.format(Format::table);
  auto session = Session::open(context);
  if (!session) return std::unexpected(session.error());
  auto group = described(*session, flags.group);
  if (!group) return std::unexpected(group.error());
  auto stored = static_cast<std::uint64_t>(std::ranges::count_if(group->partitions, [](const auto& p) { return p.committed >= 0; }));
  const auto plan = fmt::format("group {} with offsets of {}", printable(flags.group), counted(stored, "partition"));
  if (!flags.dry_run) {
    if (!flags.yes) note("will delete " + plan);
    if (auto confirmed = confirm(context, flags.yes, "deleting group " + printable(flags.group), flags.group); !confirmed) return std::unexpected(confirmed.error());
    auto deleted = Session::wait(session->admin().delete_group(flags.group));
    if (!deleted) return std::unexpected(session->failure(deleted.error()));
  }
  if (format != Format::table) {
    JsonWriter json;
    json.begin_object().field("schema", "tailrace.group_deletion.v1").field("group", flags.group).field("dry_run", flags.dry_run).field("offsets", stored).end_object();
    context.out.write(json.take() + "\n");
  } else if (flags.dry_run || !context.flags.quiet) {
    context.out.write(fmt::format("{} {}\n", flags.dry_run ? "would delete" : "deleted", plan));
  }
  session->close();
  return finished(context, flags.dry_run ? kConflict : kOk);
}

}  // namespace tailrace::cli
