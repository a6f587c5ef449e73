// explain E2031: what an error means, from the same table the broker and the SDK use.
#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "commands.h"
#include "json_writer.h"
#include "text.h"

namespace tailrace::cli {
namespace {

std::string as_text(const ErrcInfo& e) {
  auto indented = [](std::string_view text) {
    std::string out;
    for (std::size_t at = 0; at < text.size();) {
      const auto end = std::min(text.find('\n', at), text.size());
      if (end > at) out += fmt::format("  {}", text.substr(at, end - at));
      out += '\n';
      at = end + 1;
    }
    return out;
  };
  std::string out = fmt::format("E{}  {}\n\n{}{}", static_cast<unsigned>(e.code), e.name, indented(e.sentence), indented(e.hint));
  if (!e.explanation.empty()) out += "\n" + indented(e.explanation);
  return out + fmt::format("\n  retry may help         {}\n  may have been applied  {}\n  exit code              {}\n", e.retriable ? "yes" : "no", e.maybe_applied ? "yes" : "no", e.exit_code);
}

void append_fields(JsonWriter& json, const ErrcInfo& e) {
  json.field("code", static_cast<std::uint32_t>(e.code)).field("name", e.name).field("sentence", e.sentence);
  json.field("hint", e.hint).field("retriable", e.retriable).field("maybe_applied", e.maybe_applied).field("exit_code", e.exit_code).field("explanation", e.explanation);
}

std::string as_json(const ErrcInfo& e) {
  JsonWriter json;
  json.begin_object().field("schema", "tailrace.error.v1");
  append_fields(json, e);
  json.end_object();
  return json.take() + "\n";
}

}  // namespace

Outcome<int> explain(Context& context, const ExplainFlags& flags) {
  const auto format = context.format(Format::table);
  unsigned count = 0;
  const auto* all = all_errors(count);
  std::span<const ErrcInfo> errors{all, count};
  if (flags.code.empty()) {
    if (format == Format::json) {
      JsonWriter json;
      json.begin_object().field("schema", "tailrace.errors.v1").key("errors").begin_array();
      for (const auto& e : errors) {
        json.begin_object();
        append_fields(json, e);
        json.end_object();
      }
      json.end_array().end_object();
      context.out.write(json.take() + "\n");
      return finished(context);
    }
    if (format == Format::jsonl) {
      for (const auto& e : errors) context.out.write(as_json(e));
      return finished(context);
    }
    Table table{{"CODE", "NAME", ">EXIT", "MEANING"}};
    for (const auto& e : errors) table.row({fmt::format("E{}", static_cast<unsigned>(e.code)), std::string{e.name}, fmt::format("{}", e.exit_code), std::string{e.sentence}});
    context.out.write(table.text(context.terminal.colour_stdout));
    return finished(context);
  }
  std::string wanted = flags.code;
  if (wanted.size() > 1 && (wanted[0] == 'E' || wanted[0] == 'e' || wanted[0] == 'W')) wanted.erase(0, 1);
  for (const auto& e : errors) {
    if (wanted != fmt::format("{}", static_cast<unsigned>(e.code)) && flags.code != e.name) continue;
    context.out.write(format == Format::table ? as_text(e) : as_json(e));
    return finished(context);
  }
  std::vector<std::string> names;
  for (const auto& e : errors) {
    names.emplace_back(e.name);
    names.push_back(fmt::format("E{}", static_cast<unsigned>(e.code)));
  }
  std::string close;
  for (const auto& name : close_names(flags.code, names)) close += (close.empty() ? "" : ", ") + name;
  return failed(Errc::no_such_name, fmt::format("no error is called \"{}\"", flags.code), close.empty() ? "All of them: tailrace explain" : fmt::format("Close: {}. All of them: tailrace explain", close));
}

}  // namespace tailrace::cli
