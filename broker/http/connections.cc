#include "http/connections.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <map>
#include <system_error>

namespace tailrace::broker::http {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::seconds kPatience{5};
constexpr std::chrono::seconds kGoodbye{1};  // for the client to take what we sent, before a close that would cut it

constexpr const char* kNotHttp = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
constexpr const char* kHeadTooLarge =
    "HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: "
    "close\r\nContent-Length: 0\r\n\r\n";

enum class State { head, answer, sending, goodbye };
struct Connection {
  int socket = -1;
  State state = State::head;
  Clock::time_point due;
  std::string text;  // the head so far, then the answer
  std::size_t sent = 0;
};

}  // namespace

Connections::Connections(std::size_t threads, Answer answer) : answer_{std::move(answer)}, wake_{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)} {
  if (wake_ < 0) throw std::system_error{errno, std::generic_category(), "eventfd"};
  threads_.emplace_back([this] { serve(); });
  for (std::size_t i = 0; i < threads; ++i) threads_.emplace_back([this] { make(); });
}

Connections::~Connections() {
  {
    std::lock_guard lock{mutex_};
    stopping_ = true;
  }
  work_.notify_all();
  wake();
  for (std::thread& thread : threads_) thread.join();
  for (int socket : fresh_) ::close(socket);
  ::close(wake_);
}

void Connections::take(int socket) {
  {
    std::lock_guard lock{mutex_};
    fresh_.push_back(socket);
  }
  wake();
}

void Connections::wake() const {
  std::uint64_t one = 1;
  (void)!::write(wake_, &one, sizeof one);  // full means that it is awake
}

void Connections::make() {
  std::unique_lock lock{mutex_};
  for (;;) {
    work_.wait(lock, [&] { return stopping_ || (!heads_.empty() && made_.size() < kMadeMax); });
    if (stopping_) return;
    auto [socket, head] = std::move(heads_.front());
    heads_.pop_front();
    lock.unlock();
    std::string text = answer_(head);
    lock.lock();
    made_.push_back({socket, std::move(text)});
    wake();
  }
}

class Connections::Sockets {
 public:
  explicit Sockets(int wake) : wake_{wake} {}
  ~Sockets() {
    for (auto& [socket, connection] : all_) ::close(socket);
  }
  Sockets(const Sockets&) = delete;
  Sockets& operator=(const Sockets&) = delete;

  void add(int socket, Clock::time_point now) {
    // First who has its whole answer and only has not hung up yet, then who is silent, then who does not take its answer.
    bool room = all_.size() < kConnectionsMax || drop_oldest(State::goodbye) || drop_oldest(State::head) || drop_oldest(State::sending);
    if (!room) {
      ::close(socket);
      return;
    }
    all_.emplace(socket, Connection{.socket = socket, .due = now + kPatience, .text = {}});
  }
  void answer(int socket, std::string text, Clock::time_point now) {
    while (unsent_bytes_ > kUnsentBytesMax && drop_oldest(State::sending)) {
    }
    begin_sending(all_.at(socket), std::move(text),
                  now);  // it is there: nothing ends one whose answer is being made
  }
  /// Sleeps until a socket can go on, one is due, or somebody wakes it. Returns the heads that are complete.
  std::vector<std::pair<int, std::string>> turn(Clock::time_point now) {
    polled_.assign(1, {wake_, POLLIN, 0});
    Clock::time_point next = Clock::time_point::max();
    for (auto at = all_.begin(); at != all_.end();) {
      Connection& connection = (at++)->second;
      if (connection.due <= now) {
        drop(connection);
        continue;
      }
      next = std::min(next, connection.due);
      if (connection.state != State::answer)
        polled_.push_back({connection.socket, static_cast<short>(connection.state == State::sending ? POLLOUT : POLLIN), 0});
    }
    int wait_ms = -1;
    if (next != Clock::time_point::max()) wait_ms = static_cast<int>(std::chrono::ceil<std::chrono::milliseconds>(next - now).count());
    std::vector<std::pair<int, std::string>> heads;
    if (::poll(polled_.data(), polled_.size(), wait_ms) < 0) return heads;
    now = Clock::now();
    if (polled_[0].revents != 0) {
      std::uint64_t count = 0;
      (void)!::read(wake_, &count, sizeof count);
    }
    for (std::size_t i = 1; i < polled_.size(); ++i) {
      if (polled_[i].revents == 0) continue;
      Connection& connection = all_.at(polled_[i].fd);
      bool lives = connection.state == State::head      ? read_head(connection, now)
                   : connection.state == State::sending ? send(connection, now)
                                                        : drain(connection);
      if (!lives) {
        drop(connection);
      } else if (connection.state == State::answer) {
        heads.emplace_back(connection.socket, std::move(connection.text));
      }
    }
    return heads;
  }

 private:
  static bool may_come_again() { return errno == EAGAIN || errno == EINTR; }
  // Each returns false when the connection is over.
  bool read_head(Connection& connection, Clock::time_point now) {
    char block[2'048];
    ssize_t got = ::recv(connection.socket, block, sizeof block, MSG_DONTWAIT);
    if (got == 0) return false;
    if (got < 0) return may_come_again();
    std::string& head = connection.text;
    std::size_t from = head.size() < 3 ? 0 : head.size() - 3;
    head.append(block, static_cast<std::size_t>(got));
    std::size_t end = head.find("\r\n\r\n", from);
    if (end != std::string::npos && end + 4 <= kHeadBytesMax) {
      head.resize(end + 4);
      connection.state = State::answer;
      connection.due = Clock::time_point::max();
    } else if (head.front() < 'A' || head.front() > 'Z') {
      begin_sending(connection, kNotHttp, now);  // at once: a client of the native port waits for an answer
    } else if (head.size() >= kHeadBytesMax) {
      begin_sending(connection, kHeadTooLarge, now);
    }
    return true;
  }
  void begin_sending(Connection& connection, std::string text, Clock::time_point now) {
    connection.state = State::sending;
    connection.due = now + kPatience;
    connection.text = std::move(text);
    unsent_bytes_ += connection.text.size();
  }
  bool send(Connection& connection, Clock::time_point now) {
    while (connection.sent < connection.text.size()) {
      ssize_t put = ::send(connection.socket, connection.text.data() + connection.sent, connection.text.size() - connection.sent, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (put < 0) return may_come_again();
      connection.sent += static_cast<std::size_t>(put);
    }
    unsent_bytes_ -= connection.text.size();
    connection.text = {};
    ::shutdown(connection.socket, SHUT_WR);
    connection.state = State::goodbye;
    connection.due = now + kGoodbye;
    return true;
  }
  static bool drain(const Connection& connection) {
    char block[16'384];
    ssize_t got = ::recv(connection.socket, block, sizeof block, MSG_DONTWAIT);
    return got > 0 || (got < 0 && may_come_again());
  }
  void drop(Connection& connection) {
    if (connection.state == State::sending) unsent_bytes_ -= connection.text.size();
    ::close(connection.socket);
    all_.erase(connection.socket);
  }
  bool drop_oldest(State state) {
    Connection* oldest = nullptr;
    for (auto& [socket, connection] : all_) {
      if (connection.state == state && (oldest == nullptr || connection.due < oldest->due)) oldest = &connection;
    }
    if (oldest != nullptr) drop(*oldest);
    return oldest != nullptr;
  }

  int wake_;
  std::map<int, Connection> all_;  // by socket
  std::vector<pollfd> polled_;
  std::size_t unsent_bytes_ = 0;
};

void Connections::serve() {
  Sockets sockets{wake_};
  std::vector<int> fresh;
  std::vector<Made> made;
  std::vector<std::pair<int, std::string>> heads;
  for (;;) {
    {
      std::lock_guard lock{mutex_};
      if (stopping_) return;
      for (auto& head : heads) heads_.push_back(std::move(head));
      fresh.swap(fresh_);
      made.swap(made_);
    }
    work_.notify_all();
    Clock::time_point now = Clock::now();
    for (Made& answer : made) sockets.answer(answer.socket, std::move(answer.text), now);
    for (int socket : fresh) sockets.add(socket, now);
    made.clear();
    fresh.clear();
    heads = sockets.turn(now);
  }
}

}  // namespace tailrace::broker::http
