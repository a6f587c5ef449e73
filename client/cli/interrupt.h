#pragma once
/// Ctrl-C once: the command stops taking work, drains, prints its summary. Twice: it leaves at once with 130
/// (a second signal within 0.3 s counts as the same keystroke).
/// SIGTERM counts as Ctrl-C. One per process, installed before other threads start.
namespace tailrace::cli::interrupt {

/// Also ignores SIGPIPE: writes report EPIPE instead.
void install();
[[nodiscard]] bool requested();
/// Readable once requested: for poll() beside an input. -1 before install().
[[nodiscard]] int descriptor();

}  // namespace tailrace::cli::interrupt
