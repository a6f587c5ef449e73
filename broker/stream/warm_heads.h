#pragma once
/// Heads that need no look-up: the least recently used go when the pool is full. One pool a shard, for all its partitions of streams.
/// Shard    its own. Bound: bytes given at construction, counted as name, head and the containers' nodes.
#include <cstddef>
#include <list>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "stream/head.h"

namespace tailrace::broker::stream {

class WarmHeads {
 public:
  explicit WarmHeads(std::size_t bytes_max) : bytes_max_{bytes_max} {}

  /// `partition`: any number that tells the shard's partitions apart.
  [[nodiscard]] std::optional<Head> find(std::uint32_t partition, std::string_view stream);
  void put(std::uint32_t partition, std::string_view stream, const Head& head);
  void forget(std::uint32_t partition);
  [[nodiscard]] std::size_t bytes() const { return bytes_; }
  [[nodiscard]] std::size_t size() const { return used_.size(); }

 private:
  struct Warm {
    std::string key;
    Head head;
  };
  using Order = std::list<Warm>;  // the last used first
  static std::string key_of(std::uint32_t partition, std::string_view stream);
  static std::size_t cost(const std::string& key);
  void drop(Order::iterator at);

  std::size_t bytes_max_;
  std::size_t bytes_ = 0;
  Order used_{};
  std::unordered_map<std::string_view, Order::iterator> found_{};  // views into used_
};

}  // namespace tailrace::broker::stream
