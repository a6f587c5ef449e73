#include "src/net/connection.h"

#include <asio/buffer.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/post.hpp>
#include <charconv>
#include <cstring>
#include <deque>
#include <mutex>
#include <netdb.h>
#include <thread>

#include "src/net/loop_impl.h"

namespace tailrace::inline v1::detail {

using asio::ip::tcp;
using broker::Buffer;
using broker::Slice;

std::string Server::to_string() const {
  bool v6 = host.find(':') != std::string::npos;
  return (v6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

std::optional<Server> parse_server(std::string_view text) {
  Server server{.host = {}, .port = 7070};
  std::string_view port;
  if (text.starts_with('[')) {
    auto end = text.find(']');
    if (end == std::string_view::npos) return std::nullopt;
    server.host = text.substr(1, end - 1);
    text.remove_prefix(end + 1);
    if (!text.empty() && text[0] != ':') return std::nullopt;
    if (!text.empty()) port = text.substr(1);
    if (!text.empty() && port.empty()) return std::nullopt;
  } else {
    auto colon = text.rfind(':');
    server.host = text.substr(0, colon);
    if (colon != std::string_view::npos) {
      port = text.substr(colon + 1);
      if (port.empty() || server.host.find(':') != std::string::npos) return std::nullopt;
    }
  }
  if (server.host.empty()) return std::nullopt;
  if (!port.empty()) {
    auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), server.port);
    if (error != std::errc{} || end != port.data() + port.size() || server.port == 0) return std::nullopt;
  }
  return server;
}

namespace {
constexpr std::size_t kReadBlock = 256 * 1024;
constexpr std::size_t kGatherMax = 64;  // buffers of one write; IOV_MAX is 1024, and a write of 4 MiB is enough

struct Resolved {
  std::vector<tcp::endpoint> endpoints{};
  std::string error{};
};

Resolved look_up(const Server& server) {
  Resolved out;
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_ADDRCONFIG | AI_NUMERICSERV;
  addrinfo* list = nullptr;
  if (int status = ::getaddrinfo(server.host.c_str(), std::to_string(server.port).c_str(), &hints, &list); status != 0) {
    out.error = "cannot resolve " + server.host + ": " + ::gai_strerror(status);
    return out;
  }
  for (const addrinfo* at = list; at; at = at->ai_next) {
    tcp::endpoint endpoint;
    if (at->ai_addrlen > endpoint.capacity()) continue;
    std::memcpy(endpoint.data(), at->ai_addr, at->ai_addrlen);
    endpoint.resize(at->ai_addrlen);
    out.endpoints.push_back(endpoint);
  }
  ::freeaddrinfo(list);
  if (out.endpoints.empty()) out.error = server.host + " has no address";
  return out;
}
}  // namespace

struct Connection::Impl : std::enable_shared_from_this<Connection::Impl> {
  Impl(Loop& loop, Events handlers, std::size_t limit)
      : context{loop.impl().context}, socket{context}, events{std::move(handlers)}, frame_bytes_max{limit} {}

  asio::io_context& context;
  tcp::socket socket;
  Events events;
  std::size_t frame_bytes_max;
  bool closed = false;
  bool close_when_sent = false;
  Server server{};
  std::vector<tcp::endpoint> endpoints{};
  std::size_t next_endpoint = 0;
  std::string connect_error{};

  Buffer block{};           // what is read into
  std::size_t parsed = 0;   // of the block: frames before this were handed out
  std::size_t filled = 0;
  TimePoint last_received = Clock::now();

  std::deque<Slice> queue{};
  std::size_t front_sent = 0;
  std::size_t unsent = 0;
  bool writing = false;
  bool write_posted = false;
  bool connected = false;

  void fail(std::string why) {
    if (closed) return;
    auto self = shared_from_this();
    shut();
    auto lost = std::move(events.lost);
    if (lost) lost(std::move(why));
  }
  void shut() {
    closed = true;
    std::error_code ignored;
    socket.close(ignored);
    queue.clear();
    unsent = 0;
    block = {};
  }

  void start(const Server& to) {
    server = to;
    std::error_code not_numeric;
    auto address = asio::ip::make_address(to.host, not_numeric);
    if (!not_numeric) {
      endpoints = {tcp::endpoint{address, to.port}};
      asio::post(context, [self = shared_from_this()] { self->try_next(); });
      return;
    }
    // getaddrinfo may block for many seconds: it gets a thread that holds nothing of ours but a weak reference and its
    // own work guard, so that neither close() nor the end of the loop waits for it.
    bridge_ = std::make_shared<ResolveBridge>();
    bridge_->context = &context;
    std::thread([bridge = bridge_, weak = weak_from_this(), to] {
      auto resolved = std::make_shared<Resolved>(look_up(to));
      std::lock_guard lock{bridge->mutex};
      if (!bridge->context) return;
      asio::post(*bridge->context, [weak, resolved] {
        auto self = weak.lock();
        if (!self || self->closed) return;
        if (!resolved->error.empty()) return self->fail(resolved->error);
        self->endpoints = std::move(resolved->endpoints);
        self->try_next();
      });
    }).detach();
  }
  struct ResolveBridge {
    std::mutex mutex{};
    asio::io_context* context = nullptr;  // null: the connection is gone, and perhaps the loop
  };
  std::shared_ptr<ResolveBridge> bridge_{};
  ~Impl() {
    if (bridge_) {
      std::lock_guard lock{bridge_->mutex};
      bridge_->context = nullptr;
    }
  }

  void try_next() {
    if (closed) return;
    if (next_endpoint == endpoints.size()) {
      return fail("cannot connect to " + server.to_string() + ": " + (connect_error.empty() ? "no address" : connect_error));
    }
    const tcp::endpoint& endpoint = endpoints[next_endpoint++];
    std::error_code error;
    socket.close(error);
    socket.open(endpoint.protocol(), error);
    if (error) {
      connect_error = error.message();
      return try_next();
    }
    socket.async_connect(endpoint, [self = shared_from_this()](std::error_code failed) {
      if (self->closed) return;
      if (failed) {
        self->connect_error = failed.message();
        return self->try_next();
      }
      std::error_code ignored;
      self->socket.set_option(tcp::no_delay{true}, ignored);
      self->socket.non_blocking(true, ignored);
      self->connected = true;
      self->last_received = Clock::now();
      self->read();
      if (self->events.connected) self->events.connected();
      self->write();
    });
  }

  void read() {
    if (closed) return;
    if (!block || filled == block.size()) make_room(0);
    socket.async_read_some(asio::buffer(block.data() + filled, block.size() - filled),
                           [self = shared_from_this()](std::error_code error, std::size_t count) {
                             if (self->closed) return;
                             if (error) {
                               return self->fail(error == asio::error::eof ? "the broker closed the connection"
                                                                           : "reading failed: " + error.message());
                             }
                             self->last_received = Clock::now();
                             if (self->close_when_sent) return self->read();  // dropped: the owner wants to hear of the end only
                             self->filled += count;
                             if (self->parse()) self->read();
                           });
  }
  /// Moves the unparsed rest to a new block that has room for `frame` bytes.
  void make_room(std::size_t frame) {
    std::size_t rest = filled - parsed;
    Buffer next = Buffer::allocate(std::max({kReadBlock, frame, rest + 1}));
    if (rest > 0) std::memcpy(next.data(), block.data() + parsed, rest);
    block = std::move(next);
    parsed = 0;
    filled = rest;
  }
  bool parse() {
    Buffer keep = block;  // a handler may close the connection while it still reads its frame
    while (!closed && !close_when_sent && filled - parsed >= proto::kFrameHeaderBytes) {
      auto header = proto::read_frame_header(block.data() + parsed);
      if (!header.is_consistent()) {
        fail("protocol error: a frame's lengths contradict each other");
        return false;
      }
      if (header.total_bytes() > frame_bytes_max) {
        fail("protocol error: a frame of " + std::to_string(header.total_bytes()) + " bytes, the limit is " + std::to_string(frame_bytes_max));
        return false;
      }
      if (header.total_bytes() > filled - parsed) {
        if (header.total_bytes() > block.size() - parsed) make_room(header.total_bytes());
        return true;
      }
      IncomingFrame frame{.header = header};
      std::size_t at = parsed + proto::kFrameHeaderBytes;
      frame.control = {block.data() + at, header.control_length};
      if (std::size_t size = header.payload_bytes(); size > 0) frame.payload = {block, at + header.control_length, size};
      parsed += header.total_bytes();
      if (events.frame) events.frame(frame);
    }
    return !closed;
  }

  void write() {
    if (closed || writing || !connected) return;
    if (queue.empty()) {
      if (close_when_sent) {
        // Closing now would reset the connection if the broker has sent anything that was not read, and a reset may overtake
        // the last frames. So only our side ends; the broker closes its own when it has read that far.
        std::error_code ignored;
        socket.shutdown(tcp::socket::shutdown_send, ignored);
      }
      return;
    }
    writing = true;
    std::vector<asio::const_buffer>& buffers = gather;
    buffers.clear();
    std::size_t skip = front_sent;
    for (const Slice& slice : queue) {
      auto bytes = slice.bytes().subspan(skip);
      buffers.emplace_back(bytes.data(), bytes.size());
      skip = 0;
      if (buffers.size() == kGatherMax) break;
    }
    socket.async_write_some(buffers, [self = shared_from_this()](std::error_code error, std::size_t count) {
      self->writing = false;
      if (self->closed) return;
      if (error) return self->fail("writing failed: " + error.message());
      self->unsent -= count;
      count += self->front_sent;
      while (!self->queue.empty() && count >= self->queue.front().length) {
        count -= self->queue.front().length;
        self->queue.pop_front();
      }
      self->front_sent = count;
      self->write();
    });
  }
  std::vector<asio::const_buffer> gather{};
};

Connection::Connection(Loop& loop, Events events, std::size_t frame_bytes_max)
    : impl_{std::make_shared<Impl>(loop, std::move(events), frame_bytes_max)} {}
Connection::~Connection() { close(); }

void Connection::connect(const Server& server) { impl_->start(server); }

void Connection::send(Slice head, Slice payload) {
  if (impl_->closed) return;
  impl_->unsent += head.length + payload.length;
  impl_->queue.push_back(std::move(head));
  if (payload.length > 0) impl_->queue.push_back(std::move(payload));
  if (!impl_->write_posted && !impl_->writing && impl_->connected) {
    // One write per turn of the loop: what is sent in the same turn leaves together.
    impl_->write_posted = true;
    asio::post(impl_->context, [self = impl_] {
      self->write_posted = false;
      self->write();
    });
  }
}
void Connection::close_after_sending() {
  impl_->close_when_sent = true;
  if (!impl_->closed) asio::post(impl_->context, [self = impl_] { self->write(); });
}
void Connection::close() {
  if (!impl_->closed) impl_->shut();  // the handlers stay until the last operation ends: close() may run inside one
}
std::size_t Connection::unsent_bytes() const { return impl_->unsent; }
TimePoint Connection::last_received() const { return impl_->last_received; }

}  // namespace tailrace::inline v1::detail
