#pragma once
/// What can go wrong, and what to do about it.
///
/// Every fallible call of the SDK returns Result<T>, a std::expected: nothing throws on I/O. Branch on three facts - the
/// code, whether a retry may help, whether the broker may have done it although this answer says error:
///
///     auto receipt = producer.send(record).get();
///     if (!receipt) {
///       const Error& e = receipt.error();
///       if (e.maybe_applied) mark_for_reconciliation(record);
///       else if (e.retriable) retry_later(record);
///       else reject(record, e.to_string());
///     }
///
/// The SDK has retried what is worth retrying before an error reaches you, until `delivery_timeout` or the call's deadline.
#if __cplusplus < 202100L
#error "Tailrace needs C++23: compile with -std=c++23"
#endif
#include <expected>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "tailrace/errc.h"

namespace tailrace {
inline namespace v1 {

/// Meaning of each code: `tailrace explain E<code>`, or describe(code).
struct Error {
  Errc code{};
  bool retriable = false;      ///< the same call may succeed later
  bool maybe_applied = false;  ///< the broker may have done it
  std::string message{};       ///< one sentence for a person, with the particulars of this case
  std::string hint{};          ///< what to do next
  std::map<std::string, std::string> at{};  ///< facts: topic, partition, log_start, log_end, actual_end_offset, server...

  /// "error E2031: The topic does not exist: orders. List topics: ..."
  [[nodiscard]] std::string to_string() const;
};

/// An Error with retriable, maybe_applied and hint as proto/errors.toml has them for `code`.
[[nodiscard]] Error make_error(Errc code, std::string message = {}, std::map<std::string, std::string> at = {});

template <class T = void>
using Result = std::expected<T, Error>;

}  // namespace v1
}  // namespace tailrace
