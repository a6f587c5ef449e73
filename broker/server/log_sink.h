#pragma once
/// Where log lines go in a broker process: stderr, logfmt on a terminal, one JSON object a line otherwise.
#include "base/log.h"
#include "server/config.h"

namespace tailrace::broker::server {

/// Lines of one event beyond this many in kRepeatWindow are left out and counted in the next line of that event.
inline constexpr unsigned kRepeatsMax = 50;
inline constexpr std::chrono::seconds kRepeatWindow{10};

/// Installs the sink for the process. Call before other threads run; a second call replaces format and level.
void install_log_sink(LogLevel threshold, LogFormat format);

/// `text` as a quoted logfmt value or JSON string: quotes, backslashes and control characters escaped.
[[nodiscard]] std::string quoted_for_log(std::string_view text);

}  // namespace tailrace::broker::server
