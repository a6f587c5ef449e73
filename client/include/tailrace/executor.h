#pragma once
/// Where your code runs.
///
/// Callbacks (Task::then, delivery reports, log and connection events) never run on an I/O thread. By default they run one
/// after the other on one callback thread of the client. Give the client an Executor to run them elsewhere: `post` is
/// handed a function and must run it exactly once, at some time, on a thread of your choice; it must not block for long,
/// since it is called from the I/O thread. Exceptions your callbacks throw are caught and logged, and never end the client.
#include <functional>

namespace tailrace {
inline namespace v1 {

struct Executor {
  std::function<void(std::function<void()>)> post{};
  [[nodiscard]] explicit operator bool() const { return static_cast<bool>(post); }
};

}  // namespace v1
}  // namespace tailrace
