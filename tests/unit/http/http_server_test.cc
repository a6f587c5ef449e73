#include "http/http_server.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <thread>
#include <vector>

#include "http/connections.h"

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
  EXPECT_TRUE(ask(port, "DELETE /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").starts_with("HTTP/1.1 405"));
  EXPECT_NE(ask(port, "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}").find("Allow: GET, HEAD"), std::string::npos);
  EXPECT_TRUE(ask(port, "NONSENSE\r\n\r\n").starts_with("HTTP/1.1 400"));
  EXPECT_TRUE(ask(port, "\x10 not http").starts_with("HTTP/1.1 400")) << "without waiting for the end of a head";
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

/// Clients that say nothing, say half, and take nothing of a large answer; more of each than there are threads.
struct SlowClients {
  explicit SlowClients(std::uint16_t port) {
    for (int i = 0; i < 40; ++i) {
      for (const char* said : {"", "GET /healthz HTT", "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"}) {
        sockets.push_back(connect_to(port));
        (void)!::send(sockets.back(), said, std::strlen(said), MSG_NOSIGNAL);
      }
    }
  }
  ~SlowClients() {
    for (int socket : sockets) ::close(socket);
  }
  std::vector<int> sockets;
};
Handlers large_metrics() {
  return {.metrics = [] { return std::string(1 << 20, 'm'); }, .alive = [] { return Health{true, "alive"}; }, .ready = [] { return Health{true, "ready"}; }};
}

TEST(HttpServer, SlowClientsHoldNobodyUp) {
  auto server = HttpServer::start("127.0.0.1", 0, 2, large_metrics());
  ASSERT_TRUE(server.has_value());
  SlowClients slow{(*server)->port()};
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(get((*server)->port(), "/healthz").starts_with("HTTP/1.1 200")) << i;
}

// Beyond the bound the silent go first, whoever asks is answered.
TEST(HttpServer, MoreSilentClientsThanPlacesLockNobodyOut) {
  std::atomic<bool> ready = true;
  auto server = HttpServer::start("127.0.0.1", 0, 1, handlers(ready));
  ASSERT_TRUE(server.has_value());
  std::vector<int> silent;
  for (std::size_t i = 0; i < Connections::kConnectionsMax + 50; ++i) silent.push_back(connect_to((*server)->port()));
  EXPECT_TRUE(get((*server)->port(), "/healthz").starts_with("HTTP/1.1 200"));
  char byte = 0;
  EXPECT_EQ(::recv(silent.front(), &byte, 1, 0), 0) << "the oldest was dropped";
  EXPECT_LT(::recv(silent.back(), &byte, 1, MSG_DONTWAIT), 0) << "the newest is still there";
  for (int socket : silent) ::close(socket);
}

// Whoever has its answer and does not hang up is in nobody's way; each of more than there are places is answered.
TEST(HttpServer, AnsweredClientsThatStayLockNobodyOut) {
  std::atomic<bool> ready = true;
  auto server = HttpServer::start("127.0.0.1", 0, 2, handlers(ready));
  ASSERT_TRUE(server.has_value());
  std::vector<int> staying;
  std::size_t answered = 0;
  for (std::size_t i = 0; i < 2 * Connections::kConnectionsMax; ++i) {
    staying.push_back(connect_to((*server)->port()));
    constexpr std::string_view kAsk = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    (void)!::send(staying.back(), kAsk.data(), kAsk.size(), MSG_NOSIGNAL);
    char block[512];
    ssize_t got = ::recv(staying.back(), block, sizeof block, 0);
    answered += got > 0 && std::string_view{block, static_cast<std::size_t>(got)}.starts_with("HTTP/1.1 200") ? 1 : 0;
  }
  EXPECT_EQ(answered, staying.size());
  for (int socket : staying) ::close(socket);
}

// A broker that stops waits for none of them: its end is seen by each while it holds its socket.
TEST(HttpServer, StopsAlthoughClientsAreSlow) {
  auto server = HttpServer::start("127.0.0.1", 0, 2, large_metrics());
  ASSERT_TRUE(server.has_value());
  SlowClients slow{(*server)->port()};
  EXPECT_TRUE(get((*server)->port(), "/healthz").starts_with("HTTP/1.1 200"));
  (*server)->stop();
  char block[65'536];
  for (int socket : slow.sockets) {
    ssize_t got = 0;
    do got = ::recv(socket, block, sizeof block, 0);
    while (got > 0);
    EXPECT_TRUE(got == 0 || errno == ECONNRESET) << errno;
  }
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
