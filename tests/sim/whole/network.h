#pragma once
/// Directed links between the nodes of a simulated cluster: each message may be lost, delayed, doubled and overtaken; a link may be cut
/// one way. A payload is copied when it is sent: two processes share no memory.
#include <optional>
#include <vector>

#include "base/random.h"
#include "base/time.h"
#include "service/peers.h"

namespace tailrace::broker::sim::whole {

struct NetworkOptions {
  Duration delay_max = std::chrono::milliseconds{2};
  unsigned drop_percent = 0;
  unsigned duplicate_percent = 0;
  unsigned late_percent = 0;  // delayed by up to two seconds
};

struct Packet {
  Instant at{};
  std::uint64_t sequence = 0;
  int from = 0;
  int to = 0;
  service::PeerMessage message{};
};

class Network {
 public:
  Network(int nodes, Random random, NetworkOptions options);
  void send(Instant now, int from, int to, const service::PeerMessage& message);
  [[nodiscard]] Instant next_due() const { return queue_.empty() ? Instant::max() : queue_.front().at; }
  /// The next packet; cut links lose it now.
  [[nodiscard]] std::optional<Packet> take();

  void cut(int from, int to, bool cut = true) { cut_[index(from, to)] = cut; }
  void isolate(int node);
  void heal();
  void set_options(NetworkOptions options) { options_ = options; }
  [[nodiscard]] std::uint64_t delivered() const { return delivered_; }

 private:
  [[nodiscard]] std::size_t index(int from, int to) const { return static_cast<std::size_t>(from * nodes_ + to); }
  [[nodiscard]] static bool later(const Packet& a, const Packet& b) { return a.at != b.at ? a.at > b.at : a.sequence > b.sequence; }

  int nodes_;
  Random random_;
  NetworkOptions options_;
  std::vector<char> cut_;
  std::vector<Packet> queue_{};  // a heap
  std::uint64_t sequence_ = 0;
  std::uint64_t delivered_ = 0;
};

}  // namespace tailrace::broker::sim::whole
