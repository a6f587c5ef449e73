#include "io_asio/tcp.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <asio/ip/tcp.hpp>
#include <cerrno>
#include <coroutine>
#include <new>
#include <optional>

#include "base/check.h"
#include "base/log.h"
#include "model/limits.h"

namespace tailrace::broker::io_asio {
namespace {

using asio::ip::tcp;

std::int64_t result_of(std::error_code error, std::size_t bytes) {
  if (!error) return static_cast<std::int64_t>(bytes);
  if (error == asio::error::eof) return 0;
  if (error == asio::error::operation_aborted) return -ECANCELED;
  return -error.value();  // the system category: errno values
}

/// Room for one pending handler of a stream direction, so that waiting for a socket allocates nothing.
class HandlerMemory {
 public:
  void* take(std::size_t size) {
    if (taken_ || size > sizeof bytes_) return ::operator new(size);
    taken_ = true;
    return bytes_;
  }
  void give_back(void* place) noexcept {
    if (place == bytes_) {
      taken_ = false;
    } else {
      ::operator delete(place);
    }
  }

 private:
  alignas(std::max_align_t) std::byte bytes_[256];
  bool taken_ = false;
};
template <class T>
struct HandlerAllocator {
  using value_type = T;
  HandlerMemory* memory;
  explicit HandlerAllocator(HandlerMemory* m) : memory{m} {}
  template <class U>
  HandlerAllocator(const HandlerAllocator<U>& other) : memory{other.memory} {}
  T* allocate(std::size_t n) { return static_cast<T*>(memory->take(n * sizeof(T))); }
  void deallocate(T* place, std::size_t) noexcept { memory->give_back(place); }
  template <class U>
  bool operator==(const HandlerAllocator<U>& other) const {
    return memory == other.memory;
  }
};
template <class F>
struct Handler {
  using allocator_type = HandlerAllocator<void>;
  HandlerMemory* memory;
  F function;
  [[nodiscard]] allocator_type get_allocator() const noexcept { return allocator_type{memory}; }
  template <class... A>
  void operator()(A&&... arguments) {
    function(std::forward<A>(arguments)...);
  }
};
template <class F>
Handler<F> handler_in(HandlerMemory& memory, F function) {
  return {&memory, std::move(function)};
}

class TcpStream final : public io::Stream {
 public:
  TcpStream(Loop& loop, tcp::socket socket, std::string peer) : loop_{loop}, socket_{std::move(socket)}, peer_{std::move(peer)} {}
  ~TcpStream() override {
    TAILRACE_CHECK(!read_.operation && !write_.operation, "a stream outlives its operations: shut it, then wait for them");
  }

  void read_some(io::Operation& op, MutableBytes into) override {
    read_.begin(op);
    if (shut_) return read_.end(loop_, -ECANCELED);
    auto handler = handler_in(read_.memory, [this](std::error_code error, std::size_t bytes) { read_.end(loop_, result_of(error, bytes)); });
    socket_.async_read_some(asio::buffer(into.data(), into.size()), std::move(handler));
  }

  void write(io::Operation& op, std::span<const iovec> parts) override {
    write_.begin(op);
    parts_ = parts;
    skip_ = 0;
    written_ = 0;
    continue_.stream = this;
    continue_.run = [](Runnable* self) noexcept { static_cast<Continue*>(self)->stream->go_on_writing(); };
    go_on_writing();
  }

  void shut() override {
    if (std::exchange(shut_, true)) return;
    std::error_code ignored;  // the peer may have gone already
    socket_.shutdown(tcp::socket::shutdown_both, ignored);
    socket_.cancel(ignored);
  }

  [[nodiscard]] std::string peer() const override { return peer_; }

 private:
  /// One direction: the operation in flight, and its completion on the way through the flat loop.
  struct Direction : Runnable {
    io::Operation* operation = nullptr;
    HandlerMemory memory;
    void begin(io::Operation& op) {
      TAILRACE_CHECK(operation == nullptr, "one read and one write of a stream may be in flight");
      operation = &op;
    }
    void end(Loop& loop, std::int64_t result) {
      operation->result = result;
      run = [](Runnable* self) noexcept {
        io::Operation* op = std::exchange(static_cast<Direction*>(self)->operation, nullptr);
        op->complete(op);  // may start the next one, or destroy the stream
      };
      loop.post(*this);
    }
  };

  struct Continue : Runnable {
    TcpStream* stream = nullptr;
  };

  /// Sends at once what the socket takes, which is usually all; waits only when it is full. A reader that keeps up with a
  /// large write gets it in pieces, so that its neighbours have their turns between them.
  void go_on_writing() {
    std::int64_t pause_at = written_ + static_cast<std::int64_t>(limits::kStreamTurnBytes);
    for (;;) {
      if (shut_) return write_.end(loop_, -ECANCELED);
      while (!parts_.empty() && skip_ >= parts_.front().iov_len) {
        skip_ -= parts_.front().iov_len;
        parts_ = parts_.subspan(1);
      }
      if (parts_.empty()) return write_.end(loop_, written_);
      if (written_ >= pause_at) return loop_.post(continue_);
      std::array<iovec, 64> window;
      std::size_t count = std::min(parts_.size(), window.size());
      std::copy_n(parts_.begin(), count, window.begin());
      window[0].iov_base = static_cast<std::byte*>(window[0].iov_base) + skip_;
      window[0].iov_len -= skip_;
      msghdr message{};
      message.msg_iov = window.data();
      message.msg_iovlen = count;
      ssize_t sent = ::sendmsg(socket_.native_handle(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (sent >= 0) {
        written_ += sent;
        skip_ += static_cast<std::size_t>(sent);
        continue;
      }
      if (errno == EINTR) continue;
      if (errno != EAGAIN) return write_.end(loop_, -errno);
      auto handler = handler_in(write_.memory, [this](std::error_code error) {
        if (error) {
          write_.end(loop_, result_of(error, 0));
        } else {
          go_on_writing();
        }
      });
      return socket_.async_wait(tcp::socket::wait_write, std::move(handler));
    }
  }

  Loop& loop_;
  tcp::socket socket_;
  std::string peer_;
  Direction read_, write_;
  Continue continue_;
  std::span<const iovec> parts_;
  std::size_t skip_ = 0;  // bytes of parts_ that are sent
  std::int64_t written_ = 0;
  bool shut_ = false;
};

std::string text_of(const tcp::endpoint& endpoint) {
  std::string address = endpoint.address().to_string();
  return endpoint.address().is_v6() ? fmt::format("[{}]:{}", address, endpoint.port()) : fmt::format("{}:{}", address, endpoint.port());
}

class TcpListener final : public io::Listener {
 public:
  TcpListener(Loop& loop, tcp::acceptor acceptor, std::uint16_t port) : loop_{loop}, acceptor_{std::move(acceptor)}, port_{port} {}
  ~TcpListener() override {
    TAILRACE_CHECK(!accepting_, "a listener outlives its accept: close it, then wait for the answer");
  }

  Task<Result<std::unique_ptr<io::Stream>>> accept() override {
    TAILRACE_CHECK(!accepting_, "one accept at a time");
    Accept step{*this};
    co_await step;
    if (step.error == asio::error::operation_aborted) co_return fail(Errc::closed, "the listener was closed");
    if (step.error) co_return fail(Errc::io_error, fmt::format("accept: {}", step.error.message()));
    std::error_code ignored;
    step.socket->set_option(tcp::no_delay{true}, ignored);
    auto endpoint = step.socket->remote_endpoint(ignored);
    co_return std::make_unique<TcpStream>(loop_, *std::move(step.socket), text_of(endpoint));
  }

  void close() override {
    std::error_code ignored;
    closed_ = true;
    acceptor_.close(ignored);
    if (accepting_ && accepting_->place != io::Timer::kIdle) {
      loop_.disarm(*accepting_);
      accepting_->finish(asio::error::operation_aborted);
    }
  }
  [[nodiscard]] std::uint16_t port() const override { return port_; }

 private:
  static constexpr Duration kShortagePause = 100ms;

  struct Accept : io::Timer, Runnable {
    explicit Accept(TcpListener& l) : listener{l} {}
    [[nodiscard]] bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> caller) {
      handle = caller;
      run = [](Runnable* self) noexcept { static_cast<Accept*>(self)->handle.resume(); };
      fire = [](io::Timer* self) noexcept { static_cast<Accept*>(self)->start(); };
      listener.accepting_ = this;
      if (listener.closed_) return finish(asio::error::operation_aborted);
      start();
    }
    void await_resume() const noexcept {}
    void start() {
      listener.acceptor_.async_accept([this](std::error_code e, tcp::socket accepted) {
        if (listener.closed_) return finish(asio::error::operation_aborted);
        if (!e) {
          listener.short_of_something_ = false;
          socket.emplace(std::move(accepted));
          return finish({});
        }
        switch (e.value()) {
          // The connection is gone before it was accepted: accept(2), "Error handling".
          case ECONNABORTED: case EINTR: case EPROTO: case EPERM: case ENETDOWN: case ENOPROTOOPT: case EHOSTDOWN: case ENONET:
          case EHOSTUNREACH: case EOPNOTSUPP: case ENETUNREACH: case ETIMEDOUT: case ECONNRESET: case EAGAIN:
            return start();
          // Out of descriptors or memory, or what nobody thought of: a port that is given up for it would look alive.
          default:
            if (!std::exchange(listener.short_of_something_, true)) {
              log_warn("net.accept_paused", "port {}: {}; new connections wait until it has passed", listener.port_, e.message());
            }
            return listener.loop_.arm(*this, listener.loop_.now() + kShortagePause);
        }
      });
    }
    void finish(std::error_code e) {
      error = e;
      listener.accepting_ = nullptr;
      listener.loop_.post(*this);
    }
    TcpListener& listener;
    std::coroutine_handle<> handle;
    std::error_code error;
    std::optional<tcp::socket> socket;
  };

  Loop& loop_;
  tcp::acceptor acceptor_;
  std::uint16_t port_;
  Accept* accepting_ = nullptr;
  bool closed_ = false;
  bool short_of_something_ = false;
};

Result<tcp::endpoint> resolve(Loop& loop, const std::string& host, std::uint16_t port) {
  std::error_code error;
  auto address = asio::ip::make_address(host, error);
  if (!error) return tcp::endpoint{address, port};
  tcp::resolver resolver{loop.context()};
  auto found = resolver.resolve(host, "", tcp::resolver::passive, error);
  if (error || found.empty()) {
    return fail(Errc::invalid_argument, fmt::format("cannot listen on '{}': {}", host, error ? error.message() : "no such address"));
  }
  auto best = std::find_if(found.begin(), found.end(), [](const auto& entry) { return entry.endpoint().address().is_v4(); });
  return tcp::endpoint{(best != found.end() ? best : found.begin())->endpoint().address(), port};
}

std::error_code open_acceptor(tcp::acceptor& acceptor, const tcp::endpoint& endpoint, bool share, int backlog) {
  std::error_code error;
  using reuse_port = asio::detail::socket_option::boolean<SOL_SOCKET, SO_REUSEPORT>;
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address{true}, error);  // lingering connections of an earlier run
  if (!error && share) acceptor.set_option(reuse_port{true}, error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(backlog, error);
  return error;
}

}  // namespace

Result<std::unique_ptr<io::Listener>> listen(Loop& loop, const std::string& host, std::uint16_t port, ListenOptions options) {
  TAILRACE_TRY(tcp::endpoint endpoint, resolve(loop, host, port));
  std::error_code error;
  if (options.share_port && options.first && port != 0) {
    tcp::acceptor probe{loop.context()};
    error = open_acceptor(probe, endpoint, false, 1);
  }
  tcp::acceptor acceptor{loop.context()};
  if (!error) error = open_acceptor(acceptor, endpoint, options.share_port, options.backlog);
  if (error) {
    Errc code = error.value() == EADDRINUSE ? Errc::address_in_use : error.value() == EMFILE ? Errc::descriptors_exhausted : Errc::invalid_argument;
    return fail(code, fmt::format("{}: {}", text_of(endpoint), error.message()));
  }
  auto bound = acceptor.local_endpoint(error);
  if (error) return fail(Errc::io_error, fmt::format("{}: {}", text_of(endpoint), error.message()));
  return std::make_unique<TcpListener>(loop, std::move(acceptor), bound.port());
}

}  // namespace tailrace::broker::io_asio
