#pragma once
/// The HTTP port: /metrics, /healthz, /readyz, on threads of its own, so that a busy shard and a slow scraper do not meet.
///
/// Bound    request bodies 64 KiB, headers 8 KiB (the library's), `threads` requests at once, kQueued connections waiting,
///          2 s per read and write, one request per connection.
/// Paths    GET only. /healthz: the process works (503: restart it). /readyz: it serves (503: wait, or send clients
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
  static constexpr std::size_t kQueued = 64;
  static constexpr std::size_t kBodyBytesMax = 64 * 1024;

  /// `port` 0: any free one. Errors: address_in_use (also: no such address here).
  [[nodiscard]] static Result<std::unique_ptr<HttpServer>> start(const std::string& host, std::uint16_t port, std::size_t threads, Handlers handlers);
  ~HttpServer();  // stop()
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;
  [[nodiscard]] std::uint16_t port() const;
  /// Ends within the patience of one read even if a client holds its connection.
  void stop();

 private:
  struct Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tailrace::broker::http
