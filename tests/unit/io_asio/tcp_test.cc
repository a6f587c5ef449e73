#include "io_asio/tcp.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <numeric>
#include <thread>
#include <vector>

#include "base/crc32c.h"
#include "base/random.h"

namespace tailrace::broker::io_asio {
namespace {

/// A blocking client: the other side of the wire needs nothing of ours.
class Client {
 public:
  explicit Client(std::uint16_t port) : fd_{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)} {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = ::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  }
  ~Client() { ::close(fd_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;
  [[nodiscard]] bool connected() const { return connected_; }
  void send_all(Bytes bytes) {
    while (!bytes.empty()) {
      ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      ASSERT_GT(n, 0);
      bytes = bytes.subspan(static_cast<std::size_t>(n));
    }
  }
  std::vector<std::byte> receive(std::size_t count) {
    std::vector<std::byte> out(count);
    std::size_t done = 0;
    while (done < count) {
      ssize_t n = ::recv(fd_, out.data() + done, count - done, 0);
      if (n <= 0) break;
      done += static_cast<std::size_t>(n);
    }
    out.resize(done);
    return out;
  }
  void end_sending() { ::shutdown(fd_, SHUT_WR); }

 private:
  int fd_;
  bool connected_ = false;
};

Task<std::int64_t> read_some(io::Stream& stream, MutableBytes into) {
  co_return co_await io::FileOp{[&](io::Operation& op) { stream.read_some(op, into); }};
}
Task<std::int64_t> write_parts(io::Stream& stream, std::span<const iovec> parts) {
  co_return co_await io::FileOp{[&](io::Operation& op) { stream.write(op, parts); }};
}

Task<void> echo(std::unique_ptr<io::Stream> stream, std::int64_t* last) {
  std::vector<std::byte> buffer(64 * 1024);
  for (;;) {
    std::int64_t n = *last = co_await read_some(*stream, buffer);
    if (n <= 0) co_return;
    iovec part{buffer.data(), static_cast<std::size_t>(n)};
    if ((*last = co_await write_parts(*stream, {&part, 1})) != n) co_return;
  }
}
Task<void> serve(io::Listener* listener, TaskScope* scope, int connections, std::int64_t* last) {
  for (int i = 0; i < connections; ++i) {
    auto stream = co_await listener->accept();
    if (!stream) co_return;
    scope->spawn(echo(*std::move(stream), last));
  }
}
Task<void> serve_then_stop(io::Listener* listener, Loop* loop, int connections, std::int64_t* last) {
  TaskScope scope;
  co_await serve(listener, &scope, connections, last);
  co_await scope.drain();
  loop->stop();
}

// Bytes come back as sent, over several connections at once, and the end of a peer's stream reads as 0.
TEST(Tcp, EchoesEveryByteOfSeveralConnections) {
  constexpr int kConnections = 8;
  Loop loop;
  auto listener = listen(loop, "127.0.0.1", 0);
  ASSERT_TRUE(listener) << listener.error().detail;
  std::int64_t last = -1;
  TaskScope scope;
  scope.spawn(serve_then_stop(listener->get(), &loop, kConnections, &last));
  std::vector<std::jthread> clients;
  std::atomic<int> right{0};
  for (int c = 0; c < kConnections; ++c) {
    clients.emplace_back([&, c, port = (*listener)->port()] {
      Client client{port};
      ASSERT_TRUE(client.connected());
      Random random{static_cast<std::uint64_t>(c)};
      bool good = true;
      for (int i = 0; i < 200; ++i) {
        std::vector<std::byte> sent(random.between(1, 9'000));
        for (auto& b : sent) b = static_cast<std::byte>(random.next());
        client.send_all(sent);
        good &= client.receive(sent.size()) == sent;
      }
      right += good;
    });
  }
  loop.run();
  clients.clear();
  EXPECT_EQ(right.load(), kConnections);
  EXPECT_EQ(last, 0);
}

Task<void> send_large(io::Listener* listener, Loop* loop, const std::vector<iovec>* parts, std::int64_t* result) {
  auto stream = co_await listener->accept();
  *result = co_await write_parts(**stream, *parts);
  (*stream)->shut();
  loop->stop();
}

// More parts than one system call takes, empty ones among them, and more bytes than the socket's buffer: the write goes on
// until all is sent, in order.
TEST(Tcp, WritesAllPartsAgainstASlowReader) {
  Loop loop;
  auto listener = listen(loop, "127.0.0.1", 0);
  ASSERT_TRUE(listener);
  Random random{7};
  std::vector<std::byte> bytes(24 * 1024 * 1024);
  for (std::size_t i = 0; i < bytes.size(); i += 8) store_le(bytes.data() + i, random.next());
  std::vector<iovec> parts;
  std::size_t at = 0;
  while (at < bytes.size()) {
    std::size_t n = std::min<std::size_t>(random.below(200'000), bytes.size() - at);
    parts.push_back({bytes.data() + at, n});
    at += n;
    if (random.chance(1, 4)) parts.push_back({nullptr, 0});
  }
  ASSERT_GT(parts.size(), 128u);
  std::int64_t result = 0;
  TaskScope scope;
  scope.spawn(send_large(listener->get(), &loop, &parts, &result));
  std::vector<std::byte> received;
  std::jthread reader{[&, port = (*listener)->port()] {
    Client client{port};
    std::this_thread::sleep_for(50ms);
    received = client.receive(bytes.size());
  }};
  loop.run();
  reader.join();
  EXPECT_EQ(result, static_cast<std::int64_t>(bytes.size()));
  EXPECT_EQ(received.size(), bytes.size());
  EXPECT_EQ(crc32c(received), crc32c(bytes));
}

Task<void> read_into(io::Stream* stream, std::int64_t* result) {
  std::byte one[1];
  *result = co_await read_some(*stream, one);
}
Task<void> shut_while_reading(io::Listener* listener, Loop* loop, std::int64_t* results) {
  auto stream = co_await listener->accept();
  TaskScope scope;
  scope.spawn(read_into(stream->get(), &results[0]));
  (*stream)->shut();
  (*stream)->shut();
  co_await scope.drain();
  std::byte byte{1};
  iovec part{&byte, 1};
  results[1] = co_await write_parts(**stream, {&part, 1});
  co_await read_into(stream->get(), &results[2]);
  loop->stop();
}

// shut() ends what is pending and refuses what comes after, so that a connection can always be taken down.
TEST(Tcp, ShutEndsPendingAndLaterOperations) {
  Loop loop;
  auto listener = listen(loop, "127.0.0.1", 0);
  ASSERT_TRUE(listener);
  std::int64_t results[3] = {1, 1, 1};
  TaskScope scope;
  scope.spawn(shut_while_reading(listener->get(), &loop, results));
  Client client{(*listener)->port()};
  loop.run();
  EXPECT_EQ(results[1], -ECANCELED);
  EXPECT_EQ(results[2], -ECANCELED);
  // The pending read may meet the end of the stream that shut() makes, or the cancellation.
  EXPECT_TRUE(results[0] == -ECANCELED || results[0] == 0) << results[0];
}

// A port in use is found at start, also when the other holder shares ports too, and the message names the address.
TEST(Tcp, APortInUseIsAnErrorThatNamesTheAddress) {
  Loop loop;
  auto first = listen(loop, "127.0.0.1", 0, {.share_port = true});
  ASSERT_TRUE(first);
  std::uint16_t port = (*first)->port();
  auto other_broker = listen(loop, "127.0.0.1", port, {.share_port = true});
  ASSERT_FALSE(other_broker);
  EXPECT_EQ(other_broker.error().code, Errc::address_in_use);
  EXPECT_NE(other_broker.error().detail.find("127.0.0.1:" + std::to_string(port)), std::string::npos) << other_broker.error().detail;
  EXPECT_EQ(listen(loop, "127.0.0.1", port).error().code, Errc::address_in_use);
  auto second_shard = listen(loop, "127.0.0.1", port, {.share_port = true, .first = false});
  EXPECT_TRUE(second_shard);
  EXPECT_EQ((*second_shard)->port(), port);
  // 192.0.2.0/24 is reserved for documentation (RFC 5737): no host has it.
  EXPECT_EQ(listen(loop, "192.0.2.1", 0).error().code, Errc::invalid_argument);
  EXPECT_EQ(listen(loop, "no such host", 0).error().code, Errc::invalid_argument);
}

Task<void> accept_once(io::Listener* listener, Errc* code) {
  auto stream = co_await listener->accept();
  *code = stream ? Errc{} : stream.error().code;
}
Task<void> close_while_accepting(io::Listener* listener, Loop* loop, Errc* code) {
  TaskScope scope;
  scope.spawn(accept_once(listener, &code[0]));
  listener->close();
  co_await scope.drain();
  co_await accept_once(listener, &code[1]);
  loop->stop();
}

// Closing answers a pending accept, and every later one: the accept task ends by itself.
TEST(Tcp, ClosingTheListenerAnswersTheAccept) {
  Loop loop;
  auto listener = listen(loop, "localhost", 0);
  ASSERT_TRUE(listener);
  Errc code[2] = {};
  TaskScope scope;
  scope.spawn(close_while_accepting(listener->get(), &loop, code));
  loop.run();
  EXPECT_EQ(code[0], Errc::closed);
  EXPECT_EQ(code[1], Errc::closed);
}

// Without descriptors the listener waits instead of ending, and goes on when there are some again.
TEST(Tcp, AcceptWaitsOutAShortageOfDescriptors) {
  Loop loop;
  auto listener = listen(loop, "127.0.0.1", 0);
  ASSERT_TRUE(listener);
  Client client{(*listener)->port()};
  ASSERT_TRUE(client.connected());
  int free_fd = ::dup(0);
  ASSERT_GE(free_fd, 0);
  ::close(free_fd);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit none = before;
  none.rlim_cur = static_cast<rlim_t>(free_fd);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  std::jthread relief{[&] {
    std::this_thread::sleep_for(150ms);
    ::setrlimit(RLIMIT_NOFILE, &before);
    client.send_all(as_bytes("x"));
    EXPECT_EQ(client.receive(1).size(), 1u);
    client.end_sending();
  }};
  std::int64_t last = -1;
  TaskScope scope;
  scope.spawn(serve_then_stop(listener->get(), &loop, 1, &last));
  Instant start = loop.now();
  loop.run();
  EXPECT_EQ(last, 0);
  EXPECT_GE(loop.now() - start, 100ms);  // it did meet the shortage
}

}  // namespace
}  // namespace tailrace::broker::io_asio
