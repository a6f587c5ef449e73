#pragma once
/// How a command ends: an exit code, and one line on stderr that says what happened, where, why and what to do next.
///
///   error E2031: topic "order" does not exist on 127.0.0.1:7070. Close names: orders, orders-dlq. Create it: tailrace topic create order
#include <cstdint>
#include <expected>
#include <string>
#include <string_view>

#include "tailrace/errc.h"

namespace tailrace::cli {

/// `tailrace help exit-codes` prints this list.
enum Exit : int {
  kOk = 0,
  kFailed = 1,
  kUsage = 2,        ///< flags or configuration
  kNotFound = 3,     ///< or empty, with --fail-empty
  kUnauthorized = 4,
  kUnavailable = 5,  ///< or timeout: nothing was applied, safe to retry
  kConflict = 6,     ///< exists, wrong version, --dry-run found differences
  kPartial = 7,      ///< some of it was done
  kUnknown = 8,      ///< may have been applied
  kInterrupted = 130,
};

/// For a message that says itself what to do next.
inline constexpr const char* kNoHint = " ";

struct Failure {
  Errc code = Errc::internal;
  std::string message;  ///< what, where and why; no full stop
  std::string hint{};   ///< what to do next; empty: the code's own hint; kNoHint: none
  int exit_code = -1;   ///< -1: the code's own
  [[nodiscard]] int exit() const { return exit_code >= 0 ? exit_code : describe(code).exit_code; }
};

template <class T = void>
using Outcome = std::expected<T, Failure>;

[[nodiscard]] std::unexpected<Failure> failed(Errc code, std::string message, std::string hint = {}, int exit_code = -1);
/// A wrong flag or argument: E1010, exit code 2. Without a hint, main() points to the help of the command that was called.
[[nodiscard]] std::unexpected<Failure> usage(std::string message, std::string hint = {});

/// "error E2031: message. Hint". `coloured` paints the word and the code.
[[nodiscard]] std::string failure_line(const Failure& failure, bool coloured);

}  // namespace tailrace::cli
