#pragma once
/// The composition root: opens the data directory, starts shards, listeners and the HTTP port, and takes them down again.
///
/// Start    log sink -> RLIMIT_NOFILE -> data directory lock -> shards with their logs (recovery) -> metadata -> listeners ->
///          `ready` line. Any failure undoes what was started and is one StartError that names its fix.
/// Stop     listeners close -> /readyz says 503 -> connections get goodbye and drain -> service drains -> logs close ->
///          clean mark -> lock released. What is not done by the deadline is cut off and the clean mark is left out.
/// Thread   start() and stop() from one thread; stop_soon() from anywhere.
#include <chrono>
#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "server/config.h"

namespace tailrace::broker::server {

/// Why the broker does not run: the code, what happened and where, and what to do about it.
struct StartError {
  Errc code{};
  std::string message;
  std::string hint;
};

class Server {
 public:
  [[nodiscard]] static std::expected<std::unique_ptr<Server>, StartError> start(const ServerOptions& options);
  ~Server();  // stop() with the configured deadline, if that was not done
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  [[nodiscard]] HostPort native_address() const;  // as bound: the port is known even if 0 was asked for
  [[nodiscard]] HostPort http_address() const;
  [[nodiscard]] const std::vector<std::string>& io_backends() const;  // per shard: "io_uring" or "threads"
  /// False: the deadline passed, or a log failed; the next start recovers from the WAL. Connections and calls are cut off
  /// at the deadline; the logs' last writes are waited for (run_server ends the process if they hang).
  bool stop(std::chrono::milliseconds deadline);
  /// Takes over the keys of `fresh` that are marked live; the rest stays as it is. `restart_pending`: how many keys that is, for
  /// /metrics. Connections that are there keep the idle timeout they were told.
  void reload(const ServerOptions& fresh, std::size_t restart_pending);
  struct Condition {
    std::string failure;            // must end the process (a failed WAL write or sync): the reason, or empty
    std::string stalled;            // a write hangs: the sentence, or empty
    std::size_t shards_silent = 0;  // did not answer within a second
  };
  /// Asks every shard.
  [[nodiscard]] Condition condition() const;

 private:
  struct Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// What `tailrace server` and `tailrace dev` do: starts, prints `ready native=HOST:PORT http=HOST:PORT` on stdout, tells
/// systemd (NOTIFY_SOCKET), waits for SIGTERM or SIGINT, drains. A second signal during the drain ends it at once. SIGHUP calls
/// `load` and takes over what can change; when it fails everything stays as it is and the log says why. Without `load` it is the
/// terminal that closed, and stops the broker like the others.
/// `on_ready` runs after the line was printed. Start errors go to `on_error` once. Answers the process's exit code:
/// 0 clean stop, 1 failed, 2 configuration (also a non-loopback address without allow_unauthenticated), 130 second signal.
struct RunHooks {
  std::function<void(const Server&)> on_ready{};
  std::function<void(const StartError&)> on_error{};
  std::function<std::expected<LoadedConfig, std::vector<ConfigProblem>>()> load{};
};
[[nodiscard]] int run_server(const LoadedConfig& config, RunHooks hooks = {});

}  // namespace tailrace::broker::server
