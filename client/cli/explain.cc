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
  return fmt::format("E{}  {}\n\n  {}\n  {}\n\n  retry may help         {}\n  may have been applied  {}\n  exit code              {}\n", static_cast<unsigned>(e.code), e.name, e.sentence, e.hint,
                     e.retriable ? "yes" : "no", e.maybe_applied ? "yes" : "no", e.exit_code);
}

std::string as_json(const ErrcInfo& e) {
  JsonWriter json;
  json.begin_object().field("schema", "tailrace.error.v1").field("code", static_cast<std::uint32_t>(e.code)).field("name", e.name).field("sentence", e.sentence);
  json.field("hint", e.hint).field("retriable", e.retriable).field("maybe_applied", e.maybe_applied).field("exit_code", e.exit_code).end_object();
  return json.take() + "\n";
}

}  // namespace

Outcome<int> explain(Context& context, const ExplainFlags& flags) {
  const auto format = context.format(Format::table);
  unsigned count = 0;
  const auto* all = all_errors(count);
  std::span<const ErrcInfo> errors{all, count};
  if (flags.code.empty()) {
    if (format != Format::table) {
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
  return failed(Errc::not_found, fmt::format("no error is called \"{}\"", flags.code), close.empty() ? "All of them: tailrace explain" : fmt::format("Close: {}. All of them: tailrace explain", close), kNotFound);
}

}  // namespace tailrace::cli
