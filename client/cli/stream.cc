// stream: event streams with expected versions.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <iostream>
#include <nlohmann/json.hpp>
#include <random>

#include "commands.h"
#include "interrupt.h"
#include "json_rows.h"
#include "session.h"
#include "text.h"

namespace tailrace::cli {
namespace {

using std::chrono::milliseconds;
constexpr std::size_t kAppendMax = 1'000;  // events of one append

struct Name {
  std::string topic;
  std::string stream;
};
/// TOPIC/STREAM, cut at the first slash: a topic's name has none.
Outcome<Name> parse_name(const std::string& text) {
  auto slash = text.find('/');
  if (slash == std::string::npos || slash == 0 || slash + 1 == text.size()) return usage(fmt::format("\"{}\" is not TOPIC/STREAM", printable(text)), "For example: orders/cart-7");
  return Name{text.substr(0, slash), text.substr(slash + 1)};
}

Outcome<Expected> parse_expected(const std::string& text) {
  if (text == "none") return Expected::none();
  if (text == "exists") return Expected::exists();
  if (text == "any") return Expected::any();
  Version version = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), version);
  if (error != std::errc{} || end != text.data() + text.size() || version < 0) return usage(fmt::format("--expect: \"{}\" is not none, exists, any or a version", printable(text)), "The version is that of the last event, as `tailrace stream describe` shows it");
  return Expected::exactly(version);
}

std::string random_id() {
  static std::random_device device;
  return fmt::format("{:08x}{:08x}{:08x}{:08x}", device(), device(), device(), device());
}

/// What `stream read -o jsonl` wrote: id, type, data, headers, timestamp; the rest is ignored.
Outcome<NewEvent> parse_event(const std::string& line, std::size_t number) {
  auto wrong = [&](std::string_view why) { return failed(Errc::invalid_input, fmt::format("line {}: {}", number, why), "One JSON object a line, as `tailrace stream read -o jsonl` writes it; nothing of the last append was stored"); };
  auto json = nlohmann::json::parse(line, nullptr, false);
  if (json.is_discarded() || !json.is_object()) return wrong("it is not a JSON object");
  auto bytes = [](const nlohmann::json& value) -> std::optional<std::string> {
    if (value.is_string()) return value.get<std::string>();
    if (value.is_object() && value.contains("base64") && value["base64"].is_string()) return decode_base64(value["base64"].get<std::string>());
    return std::nullopt;
  };
  NewEvent event;
  for (auto [field, into] : {std::pair{"id", &event.id}, {"type", &event.type}, {"data", &event.data}}) {
    if (!json.contains(field)) {
      if (field == std::string_view{"id"}) continue;
      return wrong(fmt::format("it has no \"{}\"", field));
    }
    auto text = bytes(json[field]);
    if (!text) return wrong(fmt::format("\"{}\" is neither a string nor {{\"base64\": ...}}", field));
    *into = *std::move(text);
  }
  if (json.contains("headers")) {
    if (!json["headers"].is_array()) return wrong("\"headers\" is not an array");
    for (const auto& one : json["headers"]) {
      auto key = one.is_object() && one.contains("key") ? bytes(one["key"]) : std::nullopt;
      if (!key) return wrong("a header has no key");
      Header header{.key = *std::move(key)};
      if (one.contains("value") && !one["value"].is_null()) {
        header.value = bytes(one["value"]);
        if (!header.value) return wrong("a header's value is neither a string nor {\"base64\": ...}");
      }
      event.headers.push_back(std::move(header));
    }
  }
  if (json.contains("timestamp") && json["timestamp"].is_string()) {
    auto time = parse_time(json["timestamp"].get<std::string>());
    if (!time) return wrong("\"timestamp\": " + time.error());
    event.time = *time;
  }
  if (event.id.empty()) event.id = random_id();
  return event;
}

Failure conflict(Session& session, const Error& error, const Name& name) {
  Failure failure = session.failure(error, name.topic);
  if (error.code != Errc::wrong_version) return failure;
  auto at = [&](const char* key) {
    auto found = error.at.find(key);
    return found == error.at.end() ? std::string{} : found->second;
  };
  std::string actual = at("actual_version"), time = at("actual_time_ms");
  failure.message = actual == "-1" ? fmt::format("{}/{} has no event", name.topic, printable(name.stream)) : fmt::format("{}/{} is at version {}", name.topic, printable(name.stream), actual);
  std::int64_t ms = 0;
  if (!time.empty() && std::from_chars(time.data(), time.data() + time.size(), ms).ec == std::errc{} && ms > 0) {
    auto age = std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch() - milliseconds{ms});
    failure.message += fmt::format(", appended {} ago", human_duration(std::max(age, std::chrono::nanoseconds{0})));
  }
  failure.hint = fmt::format("Read it again and decide anew: tailrace stream read {}/{}", name.topic, name.stream);
  return failure;
}

void event_json(std::string& out, const Name& name, const Event& event) {
  JsonWriter json;
  json.begin_object().field("schema", "tailrace.event.v1").field("topic", name.topic).field("stream", name.stream).field("version", event.version).field("offset", event.offset);
  json.key("timestamp").value(std::optional<Time>{event.time});
  json.field("id", event.id).field("type", event.type).field("data", event.data).key("headers").begin_array();
  for (const Header& header : event.headers) {
    json.begin_object().field("key", header.key).key("value");
    if (header.value) json.value(*header.value);
    else json.json("null");
    json.end_object();
  }
  json.end_array().end_object();
  out += json.take() + "\n";
}

void info_json(JsonWriter& json, const std::string& topic, const StreamInfo& info) {
  json.begin_object().field("schema", "tailrace.stream.v1").field("topic", topic).field("stream", info.stream).field("last_version", info.last_version).field("first_version", info.first_version);
  json.key("appended").value(info.last_version >= 0 ? std::optional<Time>{info.time} : std::nullopt);
  if (info.partition >= 0) json.field("partition", info.partition);
  json.end_object();
}

std::uint64_t visible(const StreamInfo& info) { return static_cast<std::uint64_t>(std::max<Version>(info.last_version + 1 - info.first_version, 0)); }

/// Where events come from: arguments, or lines of standard input, of which at most one append's worth is held.
class EventInput {
 public:
  explicit EventInput(const StreamFlags& flags) : flags_{flags} {}
  /// The next ones, at most kAppendMax; none: there are no more.
  Outcome<std::vector<NewEvent>> next() {
    std::vector<NewEvent> events;
    if (!flags_.data.empty()) {
      while (argument_ < flags_.data.size() && events.size() < kAppendMax) events.push_back(made(flags_.data[argument_++]));
      return events;
    }
    std::string line;
    while (events.size() < kAppendMax && !interrupt::requested() && std::getline(std::cin, line)) {
      ++line_;
      if (!flags_.jsonl) {
        events.push_back(made(line));
        continue;
      }
      auto event = parse_event(line, line_);
      if (!event) return std::unexpected(event.error());
      events.push_back(*std::move(event));
    }
    return events;
  }

 private:
  [[nodiscard]] NewEvent made(std::string data) const { return {.id = flags_.id.empty() ? random_id() : flags_.id, .type = flags_.type, .data = std::move(data)}; }
  const StreamFlags& flags_;
  std::size_t argument_ = 0;
  std::size_t line_ = 0;
};

}  // namespace

Outcome<int> stream_append(Context& context, const StreamFlags& flags) {
  interrupt::install();
  const auto format = context.format(Format::table);
  auto name = parse_name(flags.name);
  if (!name) return std::unexpected(name.error());
  auto expected = parse_expected(flags.expect);
  if (!expected) return std::unexpected(expected.error());
  if (flags.type.empty() && !flags.jsonl) return usage("an event has a type", "Give it with --type, or events as -f jsonl");
  EventInput input{flags};
  auto events = input.next();
  if (!events) return std::unexpected(events.error());
  if (events->empty()) return usage("there is no event to append", "Give data as arguments, or one event a line on standard input");
  if (!flags.id.empty() && events->size() > 1) return usage("--id is of one event, and there are several");
  auto session = Session::open(context);
  if (!session) return std::unexpected(session.error());
  EventStore store = session->client().events(name->topic);
  std::optional<Appended> first;
  Appended last;
  // More than fit one append go as several, each behind the one before: a copy of a long stream.
  std::uint64_t done = 0;
  auto partly = [&](Failure failure) -> std::unexpected<Failure> {
    if (done > 0) {
      failure.message += fmt::format("; {} before it are stored", counted(done, "event"));
      failure.exit_code = kPartial;
    }
    return std::unexpected(std::move(failure));
  };
  while (!events->empty()) {
    auto stored = Session::wait(store.append(name->stream, first ? Expected::exactly(last.last_version) : *expected, *events));
    if (!stored) return partly(conflict(*session, stored.error(), *name));
    last = *stored;
    if (!first) first = *stored;
    done += events->size();
    events = input.next();
    if (!events) return partly(events.error());
  }
  if (format == Format::table) {
    if (!context.flags.quiet) {
      context.out.write(fmt::format("{}/{}: {} as version{} {} ({}[{}]@{}{})\n", name->topic, printable(name->stream), counted(done, "event"), done > 1 ? "s" : "",
                                    first->first_version == last.last_version ? std::to_string(last.last_version) : fmt::format("{} to {}", first->first_version, last.last_version), name->topic, last.partition, first->offset,
                                    first->duplicate ? ", stored before" : ""));
    }
  } else {
    JsonWriter json;
    json.begin_object().field("schema", "tailrace.append.v1").field("topic", name->topic).field("stream", name->stream).field("first_version", first->first_version).field("last_version", last.last_version);
    json.field("partition", last.partition).field("offset", first->offset).field("duplicate", first->duplicate).end_object();
    context.out.write(json.take() + "\n");
  }
  session->close();
  return finished(context);
}

Outcome<int> stream_read(Context& context, const StreamFlags& flags) {
  interrupt::install();
  const auto format = context.format(context.terminal.stdout_is_terminal ? Format::table : Format::jsonl);
  auto name = parse_name(flags.name);
  if (!name) return std::unexpected(name.error());
  auto session = Session::open(context);
  if (!session) return std::unexpected(session.error());
  EventStore store = session->client().events(name->topic);
  ReadStream read{.from = flags.from.value_or(flags.backwards ? -1 : 0), .backwards = flags.backwards};
  std::uint64_t left = flags.count == 0 ? std::numeric_limits<std::uint64_t>::max() : flags.count, printed = 0;
  std::string out;
  while (left > 0 && !interrupt::requested() && !context.out.closed()) {
    read.max = static_cast<std::uint32_t>(std::min<std::uint64_t>(left, kAppendMax));
    auto some = Session::wait(store.read(name->stream, read));
    if (!some) return std::unexpected(session->failure(some.error(), name->topic));
    out.clear();
    for (const Event& event : some->events) {
      if (format == Format::raw) out += event.data + "\n";
      else if (format == Format::table) out += fmt::format("{}  {}  {}  {}  {}\n", event.version, format_time(event.time), printable(event.type), printable(event.id), printable(event.data));
      else event_json(out, *name, event);
      ++printed;
      --left;
    }
    context.out.write(out);
    if (some->end || some->events.empty()) break;
    read.from = some->next;
  }
  context.out.flush();
  if (!context.out.closed()) context.tell(counted(printed, "event"));
  session->close();
  return finished(context, interrupt::requested() ? kInterrupted : printed == 0 && flags.fail_empty ? kNotFound : kOk);
}

Outcome<int> stream_list(Context& context, const StreamFlags& flags) {
  interrupt::install();
  const auto format = context.format(Format::table);
  auto session = Session::open(context);
  if (!session) return std::unexpected(session.error());
  EventStore store = session->client().events(flags.name);
  Table table{{"STREAM", ">LAST VERSION", ">EVENTS", "APPENDED"}};
  std::optional<JsonRows> rows;
  if (format == Format::json || format == Format::jsonl) rows.emplace(context, "tailrace.streams.v1", "streams");
  std::string after;
  std::uint64_t count = 0;
  for (bool more = true; more && !interrupt::requested() && !context.out.closed();) {
    auto some = Session::wait(store.list(flags.prefix, after, kAppendMax));
    if (!some) return std::unexpected(session->failure(some.error(), flags.name));
    more = some->size() == kAppendMax;
    for (const StreamInfo& info : *some) {
      if (flags.count != 0 && count == flags.count) {
        more = false;
        break;
      }
      ++count;
      if (rows) rows->add([&](JsonWriter& json) { info_json(json, flags.name, info); });
      else if (format == Format::raw) context.out.write(info.stream + "\n");
      else table.row({printable(info.stream), std::to_string(info.last_version), human_count(visible(info)), format_time(info.time)});
      after = info.stream;
    }
  }
  if (rows) rows->finish();
  if (format == Format::table) context.out.write(table.text(context.terminal.colour_stdout));
  session->close();
  return finished(context, interrupt::requested() ? kInterrupted : kOk);
}

namespace {

Outcome<int> tell(Context& context, Session& session, const Name& name, StreamInfo info, std::string_view what) {
  info.stream = name.stream;
  if (context.format(Format::table) == Format::table) {
    context.out.write(fmt::format("{}/{}: {}last version {}, first {}, {}{}\n", name.topic, printable(name.stream), what, info.last_version, info.first_version, counted(visible(info), "event"),
                                  info.last_version >= 0 ? ", appended " + format_time(info.time) : ""));
  } else {
    JsonWriter json;
    info_json(json, name.topic, info);
    context.out.write(json.take() + "\n");
  }
  session.close();
  return finished(context);
}

}  // namespace

Outcome<int> stream_describe(Context& context, const StreamFlags& flags) {
  interrupt::install();
  auto name = parse_name(flags.name);
  if (!name) return std::unexpected(name.error());
  auto session = Session::open(context);
  if (!session) return std::unexpected(session.error());
  auto info = Session::wait(session->client().events(name->topic).describe(name->stream));
  if (!info) return std::unexpected(session->failure(info.error(), name->topic));
  return tell(context, *session, *name, *info, "");
}

/// `delete` hides all there are, `truncate` what is below a version.
Outcome<int> stream_hide(Context& context, const StreamFlags& flags) {
  interrupt::install();
  auto name = parse_name(flags.name);
  if (!name) return std::unexpected(name.error());
  auto session = Session::open(context);
  if (!session) return std::unexpected(session.error());
  EventStore store = session->client().events(name->topic);
  auto before = Session::wait(store.describe(name->stream));
  if (!before) return std::unexpected(session->failure(before.error(), name->topic));
  Version first = flags.from.value_or(before->last_version + 1);
  std::uint64_t gone = static_cast<std::uint64_t>(std::max<Version>(std::min(first, before->last_version + 1) - before->first_version, 0));
  const auto plan = fmt::format("{} of {}/{}; versions go on at {}", counted(gone, "event"), name->topic, printable(name->stream), before->last_version + 1);
  if (flags.dry_run) {
    if (context.format(Format::table) == Format::table) {
      context.out.write("would hide " + plan + "\n");
      session->close();
      return finished(context, gone > 0 ? kConflict : kOk);
    }
    StreamInfo then = *before;
    then.first_version = std::max(then.first_version, std::min(first, then.last_version + 1));
    auto told = tell(context, *session, *name, then, "");
    return told && gone > 0 ? Outcome<int>{kConflict} : told;
  }
  if (!flags.yes) note("will hide " + plan);
  if (auto confirmed = confirm(context, flags.yes, fmt::format("hiding events of {}/{}", name->topic, printable(name->stream)), name->stream); !confirmed) return std::unexpected(confirmed.error());
  auto info = flags.from ? Session::wait(store.truncate(name->stream, *flags.from)) : Session::wait(store.delete_stream(name->stream));
  if (!info) return std::unexpected(session->failure(info.error(), name->topic));
  return tell(context, *session, *name, *info, "hidden; ");
}

}  // namespace tailrace::cli
