#include "http/http_server.h"

#include <fmt/format.h>
#include <httplib.h>
#include <sys/socket.h>

#include <thread>

#include "http/connections.h"

namespace tailrace::broker::http {
namespace {

/// What the library's parser and router see of a connection: the head that was read, and a place for the response.
class Exchange final : public httplib::Stream {
 public:
  explicit Exchange(const std::string& head) : head_{head} {}
  [[nodiscard]] bool is_readable() const override { return at_ < head_.size(); }
  [[nodiscard]] bool is_writable() const override { return true; }
  ssize_t read(char* to, std::size_t size) override {
    std::size_t take = head_.copy(to, size, at_);
    at_ += take;
    return static_cast<ssize_t>(take);
  }
  ssize_t write(const char* from, std::size_t size) override {
    response_.append(from, size);
    return static_cast<ssize_t>(size);
  }
  void get_remote_ip_and_port(std::string& ip, int& port) const override { ip.clear(), port = 0; }
  void get_local_ip_and_port(std::string& ip, int& port) const override { ip.clear(), port = 0; }
  [[nodiscard]] socket_t socket() const override { return INVALID_SOCKET; }
  [[nodiscard]] std::string take_response() { return std::move(response_); }

 private:
  const std::string& head_;
  std::size_t at_ = 0;
  std::string response_;
};

/// The library accepts, parses and routes; its own threads, one a connection while that is open, are not used.
class Library final : public httplib::Server {
 public:
  [[nodiscard]] std::string answer(const std::string& head) {
    Exchange exchange{head};
    bool closed = false;
    process_request(exchange, true, closed, nullptr);
    return exchange.take_response();
  }
  /// The library's backlog is 5: a few scrapers at once, and one waits a second for its SYN to be sent again.
  void widen_backlog() { ::listen(svr_sock_, SOMAXCONN); }
  Connections* connections = nullptr;

 private:
  bool process_and_close_socket(socket_t socket) override {
    connections->take(socket);
    return true;
  }
};
/// Runs what the accepting thread brings at once: that is process_and_close_socket().
class AtOnce final : public httplib::TaskQueue {
 public:
  void enqueue(std::function<void()> job) override { job(); }
  void shutdown() override {}
};

}  // namespace

struct HttpServer::Impl {
  Library server;
  Handlers handlers;
  std::unique_ptr<Connections> connections;
  std::thread thread;
  int port = 0;
};

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_{std::move(impl)} {}
HttpServer::~HttpServer() { stop(); }

Result<std::unique_ptr<HttpServer>> HttpServer::start(const std::string& host, std::uint16_t port, std::size_t threads, Handlers handlers) {
  auto impl = std::make_unique<Impl>();
  impl->handlers = std::move(handlers);
  httplib::Server& server = impl->server;
  server.new_task_queue = [] { return new AtOnce; };
  // Not the library's default, which adds SO_REUSEPORT: two brokers would share the port unnoticed.
  server.set_socket_options([](int fd) {
    int yes = 1;
    ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  });
  Handlers& all = impl->handlers;
  auto health = [](const std::function<Health()>& ask) {
    return [&ask](const httplib::Request&, httplib::Response& response) {
      Health answer = ask();
      response.status = answer.ok ? 200 : 503;
      response.set_header("Cache-Control", "no-store");
      response.set_content(answer.text + "\n", "text/plain; charset=utf-8");
    };
  };
  server.Get("/healthz", health(all.alive));
  server.Get("/readyz", health(all.ready));
  server.Get("/metrics",
             [&all](const httplib::Request&, httplib::Response& response) { response.set_content(all.metrics(), "text/plain; version=0.0.4; charset=utf-8"); });
  server.set_pre_routing_handler([](const httplib::Request& request, httplib::Response& response) {
    if (request.method == "GET" || request.method == "HEAD") return httplib::Server::HandlerResponse::Unhandled;
    response.status = 405;
    response.set_header("Allow", "GET, HEAD");
    return httplib::Server::HandlerResponse::Handled;
  });
  server.set_error_handler([](const httplib::Request&, httplib::Response& response) {
    if (response.body.empty()) response.set_content(fmt::format("{}: here are /metrics, /healthz and /readyz\n", response.status), "text/plain; charset=utf-8");
  });
  int bound = 0;
  if (port == 0) {
    bound = server.bind_to_any_port(host);
  } else if (server.bind_to_port(host, port)) {
    bound = port;
  }
  if (bound <= 0) return fail(Errc::address_in_use, fmt::format("{}:{} (http)", host, port));
  impl->server.widen_backlog();
  impl->port = bound;
  // The library makes its tables at the first request it parses. One before there are threads spares a thread sanitizer, which does
  // not see into the library, a race that is none.
  (void)impl->server.answer("GET / HTTP/1.1\r\n\r\n");
  impl->connections = std::make_unique<Connections>(threads, [raw = impl.get()](const std::string& head) { return raw->server.answer(head); });
  impl->server.connections = impl->connections.get();
  impl->thread = std::thread{[raw = impl.get()] { raw->server.listen_after_bind(); }};
  // Until it accepts, a stop would pass unnoticed. It takes no lock and no file on the way there.
  while (!impl->server.is_running()) std::this_thread::yield();
  return std::unique_ptr<HttpServer>{new HttpServer{std::move(impl)}};
}

std::uint16_t HttpServer::port() const { return static_cast<std::uint16_t>(impl_->port); }

void HttpServer::stop() {
  if (!impl_->thread.joinable()) return;
  impl_->server.stop();
  impl_->thread.join();
  impl_->connections.reset();
}

}  // namespace tailrace::broker::http
