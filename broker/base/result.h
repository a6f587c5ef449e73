#pragma once
/// Fallible functions return Result<T>. Exceptions stay in start-up and configuration.
#include <expected>
#include <string>
#include <utility>

#include "tailrace/errc.h"

namespace tailrace::broker {

using tailrace::Errc;

/// What went wrong, and the facts for a person: file, offset, limit. The sentence and the hint belong to the code
/// (proto/errors.toml); `detail` adds only what is particular to this case.
struct Error {
  Errc code{};
  std::string detail{};
};

template <class T = void>
using Result = std::expected<T, Error>;

[[nodiscard]] inline std::unexpected<Error> fail(Errc code, std::string detail = {}) {
  return std::unexpected<Error>(Error{code, std::move(detail)});
}

}  // namespace tailrace::broker

#define TAILRACE_JOIN_INNER(a, b) a##b
#define TAILRACE_JOIN(a, b) TAILRACE_JOIN_INNER(a, b)

/// TAILRACE_TRY(auto x, expression): returns the error, or binds the value. libstdc++ 12 has no expected::and_then.
#define TAILRACE_TRY_IMPL(tmp, decl, expr, ret)                  \
  auto tmp = (expr);                                             \
  if (!tmp) ret std::unexpected<::tailrace::broker::Error>(std::move(tmp).error()); \
  decl = *std::move(tmp)
#define TAILRACE_TRY(decl, expr) TAILRACE_TRY_IMPL(TAILRACE_JOIN(try_, __LINE__), decl, expr, return)
#define TAILRACE_CO_TRY(decl, expr) TAILRACE_TRY_IMPL(TAILRACE_JOIN(try_, __LINE__), decl, expr, co_return)

/// The same for Result<void>.
#define TAILRACE_TRY_VOID_IMPL(tmp, expr, ret) \
  if (auto tmp = (expr); !tmp) ret std::unexpected<::tailrace::broker::Error>(std::move(tmp).error())
#define TAILRACE_TRY_VOID(expr) TAILRACE_TRY_VOID_IMPL(TAILRACE_JOIN(try_, __LINE__), expr, return)
#define TAILRACE_CO_TRY_VOID(expr) TAILRACE_TRY_VOID_IMPL(TAILRACE_JOIN(try_, __LINE__), expr, co_return)
