#include "tests/sim/whole/network.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace tailrace::broker::sim::whole {

Network::Network(int nodes, Random random, NetworkOptions options)
    : nodes_{nodes}, random_{random}, options_{options}, cut_(static_cast<std::size_t>(nodes * nodes)) {}

void Network::send(Instant now, int from, int to, const service::PeerMessage& message) {
  if (random_.chance(options_.drop_percent, 100)) return;
  int copies = random_.chance(options_.duplicate_percent, 100) ? 2 : 1;
  for (; copies > 0; --copies) {
    Duration delay{static_cast<Duration::rep>(random_.below(static_cast<std::uint64_t>(options_.delay_max.count()) + 1))};
    if (random_.chance(options_.late_percent, 100)) delay += Duration{static_cast<Duration::rep>(random_.below(2'000'000'000))};
    Packet packet{.at = now + delay, .sequence = sequence_++, .from = from, .to = to, .message = message};
    for (service::CarriedBatch& batch : packet.message.batches) batch.bytes = Slice::whole(Buffer::copy_of(batch.bytes.bytes()));
    queue_.push_back(std::move(packet));
    std::ranges::push_heap(queue_, later);
  }
}

std::optional<Packet> Network::take() {
  std::ranges::pop_heap(queue_, later);
  Packet packet = std::move(queue_.back());
  queue_.pop_back();
  if (cut_[index(packet.from, packet.to)]) return std::nullopt;
  ++delivered_;
  return packet;
}

void Network::isolate(int node) {
  for (int other = 0; other < nodes_; ++other) {
    if (other == node) continue;
    cut(node, other);
    cut(other, node);
  }
}

void Network::heal() { std::ranges::fill(cut_, 0); }

}  // namespace tailrace::broker::sim::whole
