#include "http/http_server.h"

#include <fmt/format.h>
#include <httplib.h>
#include <sys/socket.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

namespace tailrace::broker::http {
namespace {

constexpr std::chrono::seconds kPatience{2};

/// The library's pool queues without a bound; this one makes the accepting thread wait, and the kernel's backlog is the bound.
class BoundedPool final : public httplib::TaskQueue {
 public:
  explicit BoundedPool(std::size_t threads) {
    for (std::size_t i = 0; i < threads; ++i) workers_.emplace_back([this] { work(); });
  }
  void enqueue(std::function<void()> job) override {
    std::unique_lock lock{mutex_};
    room_.wait(lock, [&] { return jobs_.size() < HttpServer::kQueued; });
    jobs_.push_back(std::move(job));
    jobs_there_.notify_one();
  }
  void shutdown() override {
    {
      std::lock_guard lock{mutex_};
      stopping_ = true;
    }
    jobs_there_.notify_all();
    for (std::thread& worker : workers_) worker.join();
    workers_.clear();
  }

 private:
  void work() {
    for (;;) {
      std::unique_lock lock{mutex_};
      jobs_there_.wait(lock, [&] { return stopping_ || !jobs_.empty(); });
      if (jobs_.empty()) return;
      std::function<void()> job = std::move(jobs_.front());
      jobs_.pop_front();
      room_.notify_one();
      lock.unlock();
      job();
    }
  }
  std::mutex mutex_;
  std::condition_variable jobs_there_, room_;
  std::deque<std::function<void()>> jobs_;
  std::vector<std::thread> workers_;
  bool stopping_ = false;
};

}  // namespace

struct HttpServer::Impl {
  httplib::Server server;
  Handlers handlers;
  std::thread thread;
  int port = 0;
};

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_{std::move(impl)} {}
HttpServer::~HttpServer() { stop(); }

Result<std::unique_ptr<HttpServer>> HttpServer::start(const std::string& host, std::uint16_t port, std::size_t threads, Handlers handlers) {
  auto impl = std::make_unique<Impl>();
  impl->handlers = std::move(handlers);
  httplib::Server& server = impl->server;
  server.new_task_queue = [threads] { return new BoundedPool{threads}; };
  server.set_payload_max_length(kBodyBytesMax);
  server.set_read_timeout(kPatience);
  server.set_write_timeout(kPatience);
  // A scraper comes back in 15 s: its connection would only hold one of few threads, and a stopping broker.
  server.set_keep_alive_timeout(1);
  server.set_keep_alive_max_count(1);
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
  server.Get("/metrics", [&all](const httplib::Request&, httplib::Response& response) {
    response.set_content(all.metrics(), "text/plain; version=0.0.4; charset=utf-8");
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
  impl->port = bound;
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
}

}  // namespace tailrace::broker::http
