#include "context.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "interrupt.h"
#include "lines.h"

namespace tailrace::cli {

std::string_view name_of(Format format) {
  switch (format) {
    case Format::automatic: return "auto";
    case Format::table: return "table";
    case Format::json: return "json";
    case Format::jsonl: return "jsonl";
    case Format::raw: return "raw";
  }
  return "?";
}

void Context::warn(std::string_view line) const {
  note(terminal.colour_stderr ? fmt::format("\033[33mwarn\033[0m {}", line) : fmt::format("warn {}", line));
}

Outcome<int> finished(Context& context, int exit_code) {
  context.out.flush();
  if (context.out.error() != 0) {
    return failed(Errc::io_error, fmt::format("standard output: {}", std::strerror(context.out.error())), "Output is incomplete", kFailed);
  }
  return exit_code;
}

Outcome<> confirm(const Context& context, bool yes, std::string_view what, std::string_view name) {
  if (yes) return {};
  if (!context.terminal.stdin_is_terminal || !context.terminal.stderr_is_terminal) {
    return usage(fmt::format("{} needs --yes when there is no terminal to ask on", what), "Add --yes, or look first with --dry-run");
  }
  note(fmt::format("Type {} to go on:", name));
  LineReader reader{0, interrupt::descriptor(), 4096};
  auto line = reader.next();
  if (!line && line.error() == LineEnd::interrupted) return failed(Errc::cancelled, "interrupted, nothing was done", kNoHint);
  if (!line || *line != name) return failed(Errc::cancelled, "the name was not confirmed, nothing was done", kNoHint, kFailed);
  return {};
}

}  // namespace tailrace::cli
