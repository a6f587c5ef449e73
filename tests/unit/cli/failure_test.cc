#include "client/cli/failure.h"

#include <gtest/gtest.h>

namespace tailrace::cli {
namespace {

// What happened, why, what next, on one line whatever a broker or a file name puts into it.
TEST(Failure, OneLineWithCodeAndHint) {
  Failure failure{Errc::no_such_topic, "topic \"order\" does not exist on 127.0.0.1:7070", "Close names: orders"};
  EXPECT_EQ(failure_line(failure, false), "error E2031: topic \"order\" does not exist on 127.0.0.1:7070. Close names: orders");
  EXPECT_EQ(failure.exit(), kNotFound);
  EXPECT_EQ(failure_line({Errc::timeout, "a\nb\x1b[31m."}, false).find('\n'), std::string::npos);
  EXPECT_EQ(failure_line({Errc::timeout, "x\x1b[31m"}, false).find('\x1b'), std::string::npos);
  EXPECT_EQ(usage("no such flag").error().exit(), kUsage);
}

// The exit codes are contract: of every error in the table, `exit` is one that `tailrace help exit-codes` lists.
TEST(Failure, EveryErrorHasADocumentedExitCode) {
  unsigned count = 0;
  const auto* all = all_errors(count);
  for (unsigned i = 0; i < count; ++i) {
    const auto code = all[i].exit_code;
    EXPECT_TRUE((code >= kFailed && code <= kUnknown) || code == kInterrupted) << all[i].name;
    // "Nothing was applied, safe to retry" and "may have been applied" cannot both be said.
    if (all[i].maybe_applied) EXPECT_NE(code, kUnavailable) << all[i].name;
  }
  EXPECT_GT(count, 30u);
}

}  // namespace
}  // namespace tailrace::cli
