#pragma once
/// A command's connection to a broker, and how the SDK's errors become the command line's.
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "context.h"
#include "interrupt.h"
#include "tailrace/client.h"

namespace tailrace::cli {

/// --servers, then TAILRACE_SERVERS, then 127.0.0.1:7070.
[[nodiscard]] std::vector<std::string> servers_of(const CommonFlags& flags, const char* environment);

/// What a failure says beyond close names when a topic is not there: only who would fill or read it is told how to make it.
enum class Advice { create_it, none };

class Session {
 public:
  /// Connects; `unreachable` within two seconds when nothing answers. Later losses are noted on stderr and retried.
  /// Ctrl-C ends the waiting with `cancelled`.
  [[nodiscard]] static Outcome<Session> open(const Context& context);

  [[nodiscard]] Client& client() { return client_; }
  [[nodiscard]] Admin admin() { return client_.admin(); }
  /// What the messages call the broker: "127.0.0.1:7070".
  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] std::chrono::milliseconds timeout() const { return timeout_; }

  /// The answer; `cancelled` once Ctrl-C came, and then the request may still be carried out.
  template <class T>
  [[nodiscard]] static Result<T> wait(const Task<T>& task) {
    for (;;) {
      if (auto answer = task.get_for(kAskForInterrupt)) return std::move(*answer);
      if (interrupt::requested()) return std::unexpected(make_error(Errc::cancelled, "interrupted before the answer came"));
    }
  }

  /// The SDK's error about `topic` (may be empty), with close names if the topic is not there.
  [[nodiscard]] Failure failure(const Error& error, std::string_view topic = {}, Advice advice = Advice::create_it);
  void close() { (void)client_.close(std::chrono::milliseconds{2000}); }

 private:
  static constexpr std::chrono::milliseconds kAskForInterrupt{50};
  Client client_;
  std::string name_;
  std::chrono::milliseconds timeout_{};
};

}  // namespace tailrace::cli
