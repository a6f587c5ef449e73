#include "testing/fake_broker.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <stdexcept>

#include "model/limits.h"

namespace tailrace::inline v1::testing {

FakeBroker::FakeBroker(BrokerOptions options) : impl_{std::make_unique<Impl>()} {
  impl_->options = options;
  impl_->window = options.window_bytes;
  impl_->bound_port = options.port;
  impl_->start();
}
FakeBroker::~FakeBroker() { impl_->stop(); }

std::string FakeBroker::address() const { return "127.0.0.1:" + std::to_string(port()); }
std::uint16_t FakeBroker::port() const {
  std::lock_guard lock{impl_->mutex};
  return impl_->bound_port;
}

void FakeBroker::Impl::start() {
  Lock lock{mutex};
  if (running) return;
  listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int yes = 1;
  ::setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(bound_port);
  socklen_t size = sizeof address;
  if (listener < 0 || ::bind(listener, reinterpret_cast<sockaddr*>(&address), size) != 0 || ::listen(listener, 64) != 0 ||
      ::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    throw std::runtime_error("the fake broker cannot listen on port " + std::to_string(bound_port));
  }
  bound_port = ntohs(address.sin_port);
  running = true;
  acceptor = std::thread([this] { accept_loop(); });
}

void FakeBroker::Impl::kill(Connection& connection) {
  if (connection.dead) return;
  connection.dead = true;
  ::shutdown(connection.fd, SHUT_RDWR);
  connection.changed.notify_all();
  thawed.notify_all();
}

/// Joins the threads of connections that have ended; with `all`, of all of them.
void FakeBroker::Impl::reap(Lock& lock, bool all) {
  std::list<std::unique_ptr<Connection>> gone;
  for (auto at = connections.begin(); at != connections.end();) {
    auto next = std::next(at);
    if (all) kill(**at);
    if (all || ((*at)->readers_done && (*at)->writers_done)) gone.splice(gone.end(), connections, at);
    at = next;
  }
  lock.unlock();
  for (auto& connection : gone) {
    connection->reader.join();
    connection->writer.join();
    ::close(connection->fd);
  }
  lock.lock();
}

void FakeBroker::Impl::stop() {
  Lock lock{mutex};
  if (!running) return;
  running = false;
  frozen = false;
  thawed.notify_all();
  ::shutdown(listener, SHUT_RDWR);
  lock.unlock();
  acceptor.join();
  lock.lock();
  ::close(listener);
  reap(lock, true);
}

void FakeBroker::Impl::accept_loop() {
  while (true) {
    pollfd waiting{.fd = listener, .events = POLLIN, .revents = 0};
    ::poll(&waiting, 1, 50);
    Lock lock{mutex};
    if (!running) return;
    reap(lock, false);
    if ((waiting.revents & POLLIN) == 0) continue;
    int fd = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) continue;
    if (refusing) {
      ::close(fd);
      continue;
    }
    int yes = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    ++counters.connections;
    auto& connection = *connections.emplace_back(std::make_unique<Connection>());
    connection.fd = fd;
    connection.reader = std::thread([this, &connection] { read_loop(connection); });
    connection.writer = std::thread([this, &connection] { write_loop(connection); });
  }
}

void FakeBroker::Impl::read_loop(Connection& connection) {
  std::vector<std::byte> buffer(64 * 1024);
  std::size_t filled = 0;
  auto finish = [&] {
    Lock lock{mutex};
    kill(connection);
    connection.readers_done = true;
  };
  while (true) {
    if (filled == buffer.size()) buffer.resize(buffer.size() * 2);
    ssize_t count = ::recv(connection.fd, buffer.data() + filled, buffer.size() - filled, 0);
    if (count <= 0) return finish();
    filled += static_cast<std::size_t>(count);
    std::size_t at = 0;
    while (filled - at >= proto::kFrameHeaderBytes) {
      auto header = proto::read_frame_header(buffer.data() + at);
      if (!header.is_consistent() || header.total_bytes() > broker::limits::kFrameBytesMax) return finish();
      if (filled - at < header.total_bytes()) break;
      {
        Lock lock{mutex};
        thawed.wait(lock, [&] { return !frozen || connection.dead; });
        if (connection.dead) break;
        broker::Bytes frame{buffer.data() + at, header.total_bytes()};
        handle(connection, header, frame.subspan(proto::kFrameHeaderBytes, header.control_length),
               frame.subspan(proto::kFrameHeaderBytes + header.control_length));
      }
      at += header.total_bytes();
    }
    std::copy(buffer.begin() + static_cast<std::ptrdiff_t>(at), buffer.begin() + static_cast<std::ptrdiff_t>(filled), buffer.begin());
    filled -= at;
  }
}

void FakeBroker::Impl::write_loop(Connection& connection) {
  Lock lock{mutex};
  while (true) {
    connection.changed.wait(lock, [&] { return connection.dead || !connection.outbox.empty(); });
    if (connection.dead) break;
    auto due = connection.outbox.front().due;
    if (due > Clock::now()) {
      connection.changed.wait_until(lock, due, [&] { return connection.dead; });
      continue;
    }
    thawed.wait(lock, [&] { return !frozen || connection.dead; });
    if (connection.dead) break;
    Outgoing out = std::move(connection.outbox.front());
    connection.outbox.pop_front();
    if (out.before) out.before();
    lock.unlock();
    std::size_t sent = 0;
    while (sent < out.bytes.size()) {
      ssize_t count = ::send(connection.fd, out.bytes.data() + sent, out.bytes.size() - sent, MSG_NOSIGNAL);
      if (count <= 0) break;
      sent += static_cast<std::size_t>(count);
    }
    lock.lock();
    // A peer that can take no more may have sent something before: the reader finds the end.
    if (out.then_close) kill(connection);
  }
  connection.writers_done = true;
}

// The public face

void FakeBroker::create_topic(std::string_view name, std::int32_t partitions, bool log_append_time) {
  std::lock_guard lock{impl_->mutex};
  impl_->make_topic(std::string{name}, partitions).log_append_time = log_append_time;
}

void FakeBroker::delete_topic(std::string_view name) {
  std::lock_guard lock{impl_->mutex};
  auto at = impl_->topics.find(name);
  if (at == impl_->topics.end()) return;
  for (auto& connection : impl_->connections) {
    std::vector<std::uint64_t> ended;
    for (auto& [id, stream] : connection->subscriptions) {
      if (stream.topic == name) ended.push_back(id);
    }
    for (std::uint64_t id : ended) impl_->end_stream(*connection, id, Errc::no_such_topic, "the topic was deleted", {});
  }
  impl_->topics.erase(at);
}

std::int64_t FakeBroker::append(std::string_view topic, std::int32_t partition, std::span<const Record> records) {
  std::lock_guard lock{impl_->mutex};
  FakeTopic& to = impl_->topics.find(topic)->second;
  auto batch = build_batch(records);
  auto appended = publish(to, to.partitions.at(static_cast<std::size_t>(partition)), batch.bytes(), std::nullopt, broker::limits::kMessageBytesCeiling, impl_->counters);
  if (!appended) throw std::runtime_error("append: " + appended.error().detail);
  impl_->pump_all();
  return appended->offset;
}

void FakeBroker::trim(std::string_view topic, std::int32_t partition, std::int64_t log_start) {
  std::lock_guard lock{impl_->mutex};
  auto& log = impl_->topics.find(topic)->second.partitions.at(static_cast<std::size_t>(partition));
  log.log_start = std::clamp(log_start, log.log_start, log.end);
  while (!log.batches.empty() && log.batches.front().next <= log.log_start) log.batches.pop_front();
  impl_->pump_all();
}

std::vector<Message> FakeBroker::records(std::string_view topic, std::int32_t partition) const {
  std::lock_guard lock{impl_->mutex};
  auto at = impl_->topics.find(topic);
  return at == impl_->topics.end() ? std::vector<Message>{} : read_all(at->second, partition);
}
std::size_t FakeBroker::record_count(std::string_view topic) const {
  std::lock_guard lock{impl_->mutex};
  auto at = impl_->topics.find(topic);
  if (at == impl_->topics.end()) return 0;
  std::size_t count = 0;
  for (const auto& partition : at->second.partitions) count += static_cast<std::size_t>(partition.end - partition.log_start);
  return count;
}

void FakeBroker::inject(Fault fault) {
  std::lock_guard lock{impl_->mutex};
  impl_->faults.push_back(fault);
}
void FakeBroker::clear_faults() {
  std::lock_guard lock{impl_->mutex};
  impl_->faults.clear();
}
void FakeBroker::corrupt_deliveries(int times) {
  std::lock_guard lock{impl_->mutex};
  impl_->corrupting = times;
}
void FakeBroker::refuse_connections(bool refuse) {
  std::lock_guard lock{impl_->mutex};
  impl_->refusing = refuse;
}
void FakeBroker::freeze(bool frozen) {
  std::lock_guard lock{impl_->mutex};
  impl_->frozen = frozen;
  impl_->thawed.notify_all();
}
void FakeBroker::set_window(std::uint64_t bytes) {
  std::lock_guard lock{impl_->mutex};
  impl_->window = bytes;
  proto::ProducerWindow window;
  window.set_window_bytes(bytes);
  for (auto& connection : impl_->connections) {
    for (auto& [id, stream] : connection->producers) impl_->push(*connection, proto::FrameType::producer_window, id, window);
  }
}
void FakeBroker::drop_connections() {
  std::lock_guard lock{impl_->mutex};
  for (auto& connection : impl_->connections) impl_->kill(*connection);
}
void FakeBroker::say_goodbye() {
  std::lock_guard lock{impl_->mutex};
  for (auto& connection : impl_->connections) {
    proto::Goodbye goodbye;
    goodbye.set_code(static_cast<std::uint32_t>(Errc::shutting_down));
    impl_->push(*connection, proto::FrameType::goodbye, 0, goodbye);
    connection->outbox.back().then_close = true;
  }
}
void FakeBroker::stop() { impl_->stop(); }
void FakeBroker::start() { impl_->start(); }
void FakeBroker::forget_producers() {
  std::lock_guard lock{impl_->mutex};
  for (auto& [name, topic] : impl_->topics) {
    for (auto& partition : topic.partitions) partition.producers.clear();
  }
}
Counters FakeBroker::counters() const {
  std::lock_guard lock{impl_->mutex};
  return impl_->counters;
}

}  // namespace tailrace::inline v1::testing
