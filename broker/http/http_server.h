#pragma once
/// The HTTP port: /metrics, /healthz, /readyz, on threads of its own, so that a busy shard and a slow scraper do not meet.
///
/// Bound    `threads` requests at once, one request per connection, no bodies; connections and their time as connections.h says.
/// Paths    GET and HEAD only (405). /healthz: the process works (503: restart it). /readyz: it serves (503: wait, or send clients
///          elsewhere); the body says why. Anything else is 404.
/// Thread   start() and stop() from one thread; the handlers are called on the HTTP threads, several at once.
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/result.h"

namespace tailrace::broker::http {

struct Health {
  bool ok = false;
  std::string text;  // one line
};
struct Handlers {
  std::function<std::string()> metrics;  // Prometheus text format
  std::function<Health()> alive;
  std::function<Health()> ready;
};

class HttpServer {
 public:
  /// `port` 0: any free one. Errors: address_in_use (also: no such address here).
  [[nodiscard]] static Result<std::unique_ptr<HttpServer>> start(const std::string& host, std::uint16_t port, std::size_t threads, Handlers handlers);
  ~HttpServer();  // stop()
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;
  [[nodiscard]] std::uint16_t port() const;
  /// Waits for the answers that are being made, and for no client.
  void stop();

 private:
  struct Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tailrace::broker::http
