#include "failure.h"

#include <fmt/format.h>

#include <utility>

namespace tailrace::cli {
namespace {

/// One line, whatever a file name or a broker's message holds: control characters would let it write on the terminal.
std::string one_line(std::string_view text) {
  std::string out;
  for (char c : text) out += static_cast<unsigned char>(c) < 0x20 || c == 0x7F ? ' ' : c;
  while (!out.empty() && (out.back() == ' ' || out.back() == '.')) out.pop_back();
  return out;
}

}  // namespace

std::unexpected<Failure> failed(Errc code, std::string message, std::string hint, int exit_code) {
  return std::unexpected(Failure{code, std::move(message), std::move(hint), exit_code});
}

std::unexpected<Failure> usage(std::string message, std::string hint) {
  return failed(Errc::invalid_argument, std::move(message), std::move(hint), kUsage);
}

std::string failure_line(const Failure& failure, bool coloured) {
  const auto& info = describe(failure.code);
  auto message = one_line(failure.message.empty() ? info.sentence : failure.message);
  auto hint = failure.hint.empty() ? std::string{info.hint} : one_line(failure.hint);
  const bool ends_itself = message.ends_with('?') || message.ends_with('!');
  return fmt::format("{}error E{}:{} {}{}{}{}", coloured ? "\033[1;31m" : "", static_cast<unsigned>(failure.code), coloured ? "\033[0m" : "", message,
                     ends_itself || hint.empty() ? "" : ".", hint.empty() ? "" : " ", hint);
}

}  // namespace tailrace::cli
