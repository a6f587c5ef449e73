// group reset: a plan, an undo file, and then the offsets.
#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "commands.h"
#include "interrupt.h"
#include "json_writer.h"
#include "read_point.h"
#include "session.h"
#include "text.h"

namespace tailrace::cli {
namespace {

using std::chrono::milliseconds;

struct Move {
  std::string topic;
  std::int32_t partition = 0;
  std::int64_t from = -1;  // -1: nothing is stored
  std::int64_t to = 0;
};

/// Topic, partition -> offset, as an undo file holds them.
using Offsets = std::map<std::pair<std::string, std::int32_t>, std::int64_t>;

Outcome<Offsets> read_undo(const std::string& path, const std::string& group) {
  std::ifstream file{path};
  if (!file) return failed(Errc::invalid_argument, fmt::format("cannot read {}: {}", path, std::strerror(errno)), kNoHint);
  std::stringstream text;
  text << file.rdbuf();
  auto json = nlohmann::json::parse(text.str(), nullptr, false);
  auto wrong = [&](std::string_view why) { return failed(Errc::invalid_argument, fmt::format("{} is no undo file for this: {}", path, why), kNoHint); };
  if (json.is_discarded() || !json.is_object()) return wrong("it is not a JSON object");
  if (json.value("schema", "") != "tailrace.group_offsets.v1") return wrong("its schema is not tailrace.group_offsets.v1");
  if (json.value("group", "") != group) return wrong(fmt::format("it is of group {}", printable(json.value("group", ""))));
  if (!json.contains("offsets") || !json["offsets"].is_array()) return wrong("it has no offsets");
  Offsets out;
  for (const auto& one : json["offsets"]) {
    bool good = one.is_object() && one.contains("topic") && one["topic"].is_string() && one.contains("partition") && one["partition"].is_number_integer() && one.contains("offset") &&
                one["offset"].is_number_integer();
    if (!good) return wrong("an offset is not {topic, partition, offset}");
    out[{one["topic"].get<std::string>(), one["partition"].get<std::int32_t>()}] = one["offset"].get<std::int64_t>();
  }
  return out;
}

Outcome<> write_undo(const std::string& path, const std::string& group, const std::vector<Move>& moves) {
  JsonWriter json;
  json.begin_object().field("schema", "tailrace.group_offsets.v1").field("group", group).key("offsets").begin_array();
  for (const Move& one : moves) {
    if (one.from >= 0) json.begin_object().field("topic", one.topic).field("partition", one.partition).field("offset", one.from).end_object();
  }
  json.end_array().end_object();
  std::string text = json.take() + "\n";
  int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (file < 0) return failed(Errc::invalid_argument, fmt::format("cannot write the undo file {}: {}", path, std::strerror(errno)), "Name another with --undo-file; nothing was changed");
  bool good = ::write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size()) && ::fsync(file) == 0;
  int why = errno;
  ::close(file);
  if (!good) return failed(Errc::io_error, fmt::format("cannot write the undo file {}: {}", path, std::strerror(why)), "Nothing was changed");
  return {};
}

/// The partitions that are meant, with what is stored of them.
Outcome<std::vector<Move>> chosen(Session& session, const GroupFlags& flags, const std::optional<GroupDescription>& group) {
  std::map<std::pair<std::string, std::int32_t>, std::int64_t> stored;
  if (group) {
    for (const auto& p : group->partitions) stored[{p.topic, p.partition}] = p.committed;
  }
  std::vector<std::string> topics;
  if (!flags.topic.empty()) topics.push_back(flags.topic);
  for (const auto& [which, offset] : stored) {
    if (flags.topic.empty() && (topics.empty() || topics.back() != which.first)) topics.push_back(which.first);
  }
  if (topics.empty()) return usage(fmt::format("group {} has stored nothing: which topic is meant?", printable(flags.group)), "Name it with --topic TOPIC");
  if (!flags.partitions.empty() && topics.size() != 1) return usage("-p N is of one topic and the group reads several", "Name it with --topic TOPIC");
  std::vector<Move> out;
  for (const auto& topic : topics) {
    auto described = Session::wait(session.admin().describe_topic(topic));
    if (!described) return std::unexpected(session.failure(described.error(), topic, Advice::none));
    for (const auto& p : described->partitions) {
      if (!flags.partitions.empty() && std::ranges::find(flags.partitions, p.partition) == flags.partitions.end()) continue;
      auto at = stored.find({topic, p.partition});
      out.push_back({.topic = topic, .partition = p.partition, .from = at == stored.end() ? -1 : at->second});
    }
    for (std::int32_t wanted : flags.partitions) {
      if (std::ranges::find(described->partitions, wanted, &PartitionDescription::partition) != described->partitions.end()) continue;
      return failed(Errc::no_such_partition, fmt::format("{} has no partition {}, it has {}", topic, wanted, counted(described->partitions.size(), "partition")),
                    fmt::format("See: tailrace topic describe {}", topic));
    }
  }
  return out;
}

Outcome<> place(Session& session, std::vector<Move>& moves, const ReadPoint& to) {
  std::map<std::string, std::vector<Move*>> by_topic;
  for (Move& one : moves) by_topic[one.topic].push_back(&one);
  if (std::holds_alternative<AtOffset>(to) && moves.size() != 1) return usage(fmt::format("an OFFSET belongs to one partition, and {} are meant", moves.size()), "Name it with --topic and -p N");
  for (auto& [topic, some] : by_topic) {
    std::vector<std::int32_t> numbers;
    for (const Move* one : some) numbers.push_back(one->partition);
    auto ask = [&](From from) -> Outcome<std::map<std::int32_t, std::int64_t>> {
      auto listed = Session::wait(session.admin().list_offsets(topic, from, numbers));
      if (!listed) return std::unexpected(session.failure(listed.error(), topic, Advice::none));
      std::map<std::int32_t, std::int64_t> out;
      for (const auto& one : *listed) out[one.partition] = one.offset;
      return out;
    };
    auto start = ask(From::earliest());
    if (!start) return std::unexpected(start.error());
    auto end = ask(From::latest());
    if (!end) return std::unexpected(end.error());
    std::map<std::int32_t, std::int64_t> by_time;
    if (const auto* time = std::get_if<AtTime>(&to)) {
      auto at = ask(From::time(time->time));
      if (!at) return std::unexpected(at.error());
      by_time = *std::move(at);
    }
    for (Move* one : some) {
      std::int64_t first = (*start)[one->partition], last = (*end)[one->partition];
      if (std::holds_alternative<AtStart>(to)) one->to = first;
      if (std::holds_alternative<AtEnd>(to)) one->to = last;
      if (std::holds_alternative<AtTime>(to)) one->to = by_time[one->partition];
      if (const auto* n = std::get_if<LastRecords>(&to)) one->to = std::max(first, last - static_cast<std::int64_t>(std::min<std::uint64_t>(n->count, static_cast<std::uint64_t>(last))));
      if (const auto* at = std::get_if<AtOffset>(&to)) {
        if (at->offset < first || at->offset > last) {
          return failed(Errc::offset_out_of_range, fmt::format("{}[{}] holds offsets {} to {} (end exclusive), not {}", topic, one->partition, first, last, at->offset), "Name one in that range, start or end");
        }
        one->to = at->offset;
      }
    }
  }
  return {};
}

}  // namespace

Outcome<int> group_reset(Context& context, const GroupFlags& flags) {
  interrupt::install();
  const auto format = context.format(Format::table);
  constexpr std::string_view kUndo = "undo:";
  std::optional<Offsets> undo;
  ReadPoint to = AtStart{};
  const auto now = std::chrono::time_point_cast<milliseconds>(std::chrono::system_clock::now());
  if (flags.to.starts_with(kUndo)) {
    auto read = read_undo(flags.to.substr(kUndo.size()), flags.group);
    if (!read) return std::unexpected(read.error());
    undo = *std::move(read);
  } else {
    auto point = parse_from(flags.to, now);
    if (!point) return usage(fmt::format("--to: {}", point.error()));
    to = *point;
  }
  auto session = Session::open(context);
  if (!session) return std::unexpected(session.error());
  std::optional<GroupDescription> group;
  auto described = Session::wait(session->admin().describe_group(flags.group));
  if (described) group = *std::move(described);
  else if (described.error().code != Errc::no_such_group) return std::unexpected(session->failure(described.error()));

  std::vector<Move> moves;
  if (undo) {
    std::map<std::pair<std::string, std::int32_t>, std::int64_t> stored;
    if (group) {
      for (const auto& p : group->partitions) stored[{p.topic, p.partition}] = p.committed;
    }
    for (const auto& [which, offset] : *undo) {
      auto at = stored.find(which);
      moves.push_back({which.first, which.second, at == stored.end() ? -1 : at->second, offset});
    }
  } else {
    auto all = chosen(*session, flags, group);
    if (!all) return std::unexpected(all.error());
    moves = *std::move(all);
    if (auto placed = place(*session, moves, to); !placed) return std::unexpected(placed.error());
  }
  const auto changes = static_cast<std::uint64_t>(std::ranges::count_if(moves, [](const Move& one) { return one.from != one.to; }));
  Table table{{"TOPIC", ">PARTITION", ">FROM", ">TO", ">RECORDS"}};
  for (const Move& one : moves) {
    table.row({one.topic, std::to_string(one.partition), one.from < 0 ? "-" : std::to_string(one.from), std::to_string(one.to),
               one.from < 0 ? "-" : one.from > one.to ? "again " + human_count(static_cast<std::uint64_t>(one.from - one.to)) : "skips " + human_count(static_cast<std::uint64_t>(one.to - one.from))});
  }
  if (group && !group->members.empty() && !flags.kick && flags.apply) {
    return failed(Errc::group_not_empty, fmt::format("group {} has {} reading", printable(flags.group), counted(group->members.size(), "member")), "Stop them first, or remove them with --kick");
  }
  std::string undo_file;
  if (flags.apply && changes > 0) {
    undo_file = !flags.undo_file.empty() ? flags.undo_file : fmt::format("group-{}-{:%Y%m%dT%H%M%S}Z.undo.json", [&] {
      std::string name = flags.group;
      for (char& c : name) {
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.')) c = '_';
      }
      return name;
    }(), fmt::gmtime(std::chrono::system_clock::to_time_t(now)));
    if (auto written = write_undo(undo_file, flags.group, moves); !written) return std::unexpected(written.error());
    std::vector<Position> offsets;
    for (const Move& one : moves) {
      if (one.from != one.to) offsets.push_back({one.topic, one.partition, one.to});
    }
    auto reset = Session::wait(session->admin().reset_offsets(flags.group, offsets, flags.kick));
    if (!reset) return std::unexpected(session->failure(reset.error()));
  }
  if (format == Format::table) {
    if (!flags.apply || !context.flags.quiet) context.out.write(table.text(context.terminal.colour_stdout));
    if (changes == 0) context.tell(fmt::format("group {}: nothing to change", printable(flags.group)));
    else if (flags.apply) context.tell(fmt::format("group {}: {} set; undo: tailrace group reset {} --to undo:{} --apply", printable(flags.group), counted(changes, "offset"), flags.group, undo_file));
    else context.tell(fmt::format("group {}: {} would be set; --apply does it{}", printable(flags.group), counted(changes, "offset"), group && !group->members.empty() ? " (and --kick, as it has members)" : ""));
  } else {
    JsonWriter json;
    json.begin_object().field("schema", "tailrace.group_reset.v1").field("group", flags.group).field("applied", flags.apply).key("undo_file");
    if (undo_file.empty()) json.json("null");
    else json.value(undo_file);
    json.key("moves").begin_array();
    for (const Move& one : moves) {
      json.begin_object().field("topic", one.topic).field("partition", one.partition).key("from");
      if (one.from < 0) json.json("null");
      else json.value(one.from);
      json.field("to", one.to).end_object();
    }
    json.end_array().end_object();
    context.out.write(json.take() + "\n");
  }
  session->close();
  return finished(context, !flags.apply && changes > 0 ? kConflict : kOk);
}

}  // namespace tailrace::cli
