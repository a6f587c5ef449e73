#pragma once
/// A native client of a few lines on a blocking socket: what a reader of docs/native-protocol.md would write first. And an HTTP GET.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <optional>
#include <string>

#include "proto/native/frame.h"
#include "proto/native/native.pb.h"
#include "tests/unit/native/frames.h"

namespace tailrace::broker::server {

inline int connect_to(std::uint16_t port) {
  int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  timeval patience{.tv_sec = 10, .tv_usec = 0};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    ::close(fd);
    return -1;
  }
  return fd;
}

struct Frame {
  proto::FrameHeader header;
  std::string control, payload;
};

class BlockingClient {
 public:
  explicit BlockingClient(std::uint16_t port) : fd_{connect_to(port)} {}
  ~BlockingClient() {
    if (fd_ >= 0) ::close(fd_);
  }
  BlockingClient(const BlockingClient&) = delete;
  BlockingClient& operator=(const BlockingClient&) = delete;
  [[nodiscard]] bool connected() const { return fd_ >= 0; }

  void send(const std::string& bytes) { ASSERT_EQ(::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size())); }
  std::optional<Frame> next() {
    std::string head;
    if (!read(head, proto::kFrameHeaderBytes)) return std::nullopt;
    Frame frame{proto::read_frame_header(reinterpret_cast<const std::byte*>(head.data())), {}, {}};
    if (!read(frame.control, frame.header.control_length) || !read(frame.payload, frame.header.payload_bytes())) return std::nullopt;
    return frame;
  }
  template <class Reply, class Request>
  Reply call(proto::FrameType type, std::uint64_t id, const Request& request, std::string_view payload = {}) {
    send(native::frame_of(type, id, request, payload));
    return expect<Reply>(static_cast<proto::FrameType>(static_cast<std::uint16_t>(type) + 1));
  }
  template <class Reply>
  Reply expect(proto::FrameType type, std::string* payload = nullptr) {
    Reply reply;
    auto frame = next();
    while (frame && frame->header.type == proto::FrameType::producer_window) frame = next();
    EXPECT_TRUE(frame.has_value()) << "the connection ended";
    if (!frame) return reply;
    if (frame->header.type == proto::FrameType::error) {
      proto::ErrorReply error;
      EXPECT_TRUE(error.ParseFromString(frame->control));
      ADD_FAILURE() << "E" << error.code() << ": " << error.message();
      return reply;
    }
    EXPECT_EQ(static_cast<int>(frame->header.type), static_cast<int>(type));
    EXPECT_TRUE(reply.ParseFromString(frame->control));
    if (payload) *payload = frame->payload;
    return reply;
  }
  void greet() {
    proto::Hello hello;
    hello.set_major(proto::kProtocolMajor);
    call<proto::HelloReply>(proto::FrameType::hello, 0, hello);
  }

 private:
  bool read(std::string& into, std::size_t count) {
    into.resize(count);
    for (std::size_t done = 0; done < count;) {
      ssize_t got = ::recv(fd_, into.data() + done, count - done, 0);
      if (got <= 0) return false;
      done += static_cast<std::size_t>(got);
    }
    return true;
  }
  int fd_;
};

/// Status and body; {0, ""} when there was no answer.
inline std::pair<int, std::string> http_get(std::uint16_t port, std::string_view path) {
  int fd = connect_to(port);
  if (fd < 0) return {0, ""};
  std::string request = "GET " + std::string{path} + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
  (void)!::send(fd, request.data(), request.size(), MSG_NOSIGNAL);
  std::string answer;
  char block[4'096];
  for (ssize_t got; (got = ::recv(fd, block, sizeof block, 0)) > 0;) answer.append(block, static_cast<std::size_t>(got));
  ::close(fd);
  if (answer.size() < 12) return {0, ""};
  auto body = answer.find("\r\n\r\n");
  return {std::atoi(answer.c_str() + 9), body == std::string::npos ? "" : answer.substr(body + 4)};
}

}  // namespace tailrace::broker::server
