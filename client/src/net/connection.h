#pragma once
/// One outgoing connection that speaks frames: bytes in, whole frames out; frames in, gathered writes out.
///
/// Reading  into blocks of 256 KiB; a frame's payload is a slice of its block, not a copy. A frame that does not end in its
///          block is moved, as far as it has come, to a block of its own. A length above the limit ends the connection
///          before anything is allocated for it.
/// Writing  frames queue in order and leave in gathered writes. The queue is bounded by its users: the producer window,
///          the calls in flight.
/// Thread   the loop's. Callbacks are never called after close() or the destructor, nor inside connect() and send().
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "proto/native/frame.h"
#include "src/net/loop.h"

namespace tailrace::inline v1::detail {

struct Server {
  std::string host{};
  std::uint16_t port = 0;
  [[nodiscard]] std::string to_string() const;
};
/// "host:port", "[::1]:port", or a host alone (port 7070).
[[nodiscard]] std::optional<Server> parse_server(std::string_view text);

struct IncomingFrame {
  proto::FrameHeader header{};
  broker::Bytes control{};   // valid during the callback
  broker::Slice payload{};
};

class Connection {
 public:
  struct Events {
    std::move_only_function<void()> connected{};
    std::move_only_function<void(IncomingFrame&)> frame{};
    /// The end, for whatever reason but close(). Called once.
    std::move_only_function<void(std::string why)> lost{};
  };
  Connection(Loop& loop, Events events, std::size_t frame_bytes_max);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  /// Resolves (numbers at once, names on a thread of their own, which nobody waits for), and tries each address in turn.
  void connect(const Server& server);
  /// `head` is a whole frame's header and control; the payload follows it.
  void send(broker::Slice head, broker::Slice payload = {});
  /// Sends what is queued, then ends the sending side, drops what still comes, and is `lost` when the peer closes too. The owner
  /// that does not want to wait so long destroys the connection.
  void close_after_sending();
  void close();
  [[nodiscard]] std::size_t unsent_bytes() const;
  [[nodiscard]] TimePoint last_received() const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace tailrace::inline v1::detail
