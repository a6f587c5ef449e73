#pragma once
/// What every command is given: its common flags, the terminal it talks to, and its standard output.
#include <string>
#include <string_view>

#include "failure.h"
#include "flags.h"
#include "terminal.h"

namespace tailrace::cli {

struct Context {
  CommonFlags flags;
  Terminal terminal;
  Stdout out;

  /// The format to use, `fallback` when none was asked for. The command has it: main() has looked.
  [[nodiscard]] Format format(Format fallback) const { return flags.output == Format::automatic ? fallback : flags.output; }
  /// A line on stderr unless --quiet.
  void tell(std::string_view line) const {
    if (!flags.quiet) note(line);
  }
  /// "warn ..." on stderr, also with --quiet.
  void warn(std::string_view line) const;
};

[[nodiscard]] std::string_view name_of(Format format);

/// Flushes, and turns a failed stdout into a failure. A reader that left is none.
[[nodiscard]] Outcome<int> finished(Context& context, int exit_code = kOk);

/// Asks for `name` on a terminal before something is destroyed; --yes skips it. Without a terminal --yes is required.
[[nodiscard]] Outcome<> confirm(const Context& context, bool yes, std::string_view what, std::string_view name);

}  // namespace tailrace::cli
