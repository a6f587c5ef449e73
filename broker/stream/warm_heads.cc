#include "stream/warm_heads.h"

#include <cstring>

namespace tailrace::broker::stream {

std::string WarmHeads::key_of(std::uint32_t partition, std::string_view stream) {
  std::string key(sizeof(partition), '\0');
  std::memcpy(key.data(), &partition, sizeof(partition));
  key += stream;
  return key;
}

/// The list's node, the map's node and its share of buckets; measured with glibc's allocator: 176 bytes beside the name.
std::size_t WarmHeads::cost(const std::string& key) { return 176 + key.capacity(); }

std::optional<Head> WarmHeads::find(std::uint32_t partition, std::string_view stream) {
  auto found = found_.find(key_of(partition, stream));
  if (found == found_.end()) return std::nullopt;
  used_.splice(used_.begin(), used_, found->second);
  return found->second->head;
}

void WarmHeads::put(std::uint32_t partition, std::string_view stream, const Head& head) {
  std::string key = key_of(partition, stream);
  if (auto found = found_.find(key); found != found_.end()) {
    found->second->head = head;
    used_.splice(used_.begin(), used_, found->second);
    return;
  }
  used_.push_front({std::move(key), head});
  found_.emplace(used_.front().key, used_.begin());
  bytes_ += cost(used_.front().key);
  while (bytes_ > bytes_max_ && used_.size() > 1) drop(std::prev(used_.end()));
}

void WarmHeads::forget(std::uint32_t partition) {
  std::string prefix = key_of(partition, {});
  for (auto at = used_.begin(); at != used_.end();) {
    auto next = std::next(at);
    if (at->key.starts_with(prefix)) drop(at);
    at = next;
  }
}

void WarmHeads::drop(Order::iterator at) {
  bytes_ -= cost(at->key);
  found_.erase(at->key);
  used_.erase(at);
}

}  // namespace tailrace::broker::stream
