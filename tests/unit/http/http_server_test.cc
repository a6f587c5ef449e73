#include "http/http_server.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

namespace tailrace::broker::http {
namespace {

int connect_to(std::uint16_t port) {
  int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  timeval patience{.tv_sec = 10, .tv_usec = 0};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) return fd;
  ::close(fd);
  return -1;
}
std::string ask(std::uint16_t port, const std::string& request) {
  int fd = connect_to(port);
  if (fd < 0) return "";
  (void)!::send(fd, request.data(), request.size(), MSG_NOSIGNAL);
  std::string answer;
  char block[4'096];
  for (ssize_t got; (got = ::recv(fd, block, sizeof block, 0)) > 0;) answer.append(block, static_cast<std::size_t>(got));
  ::close(fd);
  return answer;
}
std::string get(std::uint16_t port, const std::string& path) { return ask(port, "GET " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); }

Handlers handlers(std::atomic<bool>& ready) {
  return {.metrics = [] { return std::string{"up 1\n"}; },
          .alive = [] { return Health{true, "alive"}; },
          .ready = [&ready] { return ready ? Health{true, "ready"} : Health{false, "recovering"}; }};
}

TEST(HttpServer, AnswersItsThreePathsAndNothingElse) {
  std::atomic<bool> ready = false;
  auto server = HttpServer::start("127.0.0.1", 0, 2, handlers(ready));
  ASSERT_TRUE(server.has_value());
  std::uint16_t port = (*server)->port();
  EXPECT_TRUE(get(port, "/metrics").starts_with("HTTP/1.1 200"));
  EXPECT_TRUE(get(port, "/metrics").ends_with("up 1\n"));
  EXPECT_TRUE(get(port, "/healthz").starts_with("HTTP/1.1 200"));
  EXPECT_TRUE(get(port, "/readyz").starts_with("HTTP/1.1 503"));
  EXPECT_TRUE(get(port, "/readyz").ends_with("recovering\n"));
  ready = true;
  EXPECT_TRUE(get(port, "/readyz").starts_with("HTTP/1.1 200"));
  EXPECT_TRUE(get(port, "/../etc/passwd").starts_with("HTTP/1.1 404"));
  EXPECT_TRUE(ask(port, "DELETE /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").starts_with("HTTP/1.1 404"));
}

// A second broker must hear that the port is taken instead of sharing it.
TEST(HttpServer, APortInUseIsAnError) {
  std::atomic<bool> ready = true;
  auto first = HttpServer::start("127.0.0.1", 0, 1, handlers(ready));
  ASSERT_TRUE(first.has_value());
  auto second = HttpServer::start("127.0.0.1", (*first)->port(), 1, handlers(ready));
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error().code, Errc::address_in_use);
  EXPECT_FALSE(HttpServer::start("192.0.2.1", 0, 1, handlers(ready)).has_value()) << "not an address of this machine";
}

TEST(HttpServer, LargeBodiesAndHeadersAreRefused) {
  std::atomic<bool> ready = true;
  auto server = HttpServer::start("127.0.0.1", 0, 2, handlers(ready));
  ASSERT_TRUE(server.has_value());
  std::string large(200'000, 'x');
  std::string answer = ask((*server)->port(), "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n" + large);
  EXPECT_EQ(answer.find("HTTP/1.1 200"), std::string::npos) << answer;
  answer = ask((*server)->port(), "GET /metrics HTTP/1.1\r\nHost: x\r\nX: " + large + "\r\n\r\n");
  EXPECT_EQ(answer.find("HTTP/1.1 200"), std::string::npos) << answer;
  EXPECT_TRUE(get((*server)->port(), "/healthz").starts_with("HTTP/1.1 200")) << "the server is well";
}

// A broker that stops must not wait for a client that holds its connection open and says nothing.
TEST(HttpServer, StopsAlthoughAClientIsSilent) {
  std::atomic<bool> ready = true;
  auto server = HttpServer::start("127.0.0.1", 0, 1, handlers(ready));
  ASSERT_TRUE(server.has_value());
  int silent = connect_to((*server)->port());
  ASSERT_GE(silent, 0);
  std::this_thread::sleep_for(std::chrono::milliseconds{50});
  auto began = std::chrono::steady_clock::now();
  (*server)->stop();
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds{4});
  ::close(silent);
}

TEST(HttpServer, ManyScrapersAtOnceAreAllAnswered) {
  std::atomic<bool> ready = true;
  auto server = HttpServer::start("127.0.0.1", 0, 2, handlers(ready));
  ASSERT_TRUE(server.has_value());
  std::atomic<int> good = 0;
  {
    std::vector<std::jthread> scrapers;
    for (int i = 0; i < 8; ++i)
      scrapers.emplace_back([&] {
        for (int k = 0; k < 10; ++k) good += get((*server)->port(), "/metrics").starts_with("HTTP/1.1 200");
      });
  }
  EXPECT_EQ(good, 80);
}

}  // namespace
}  // namespace tailrace::broker::http
