#pragma once
/// The newest batches of one partition, as received: what readers get without a disk, and what the segment writer copies
/// from. A ring without allocation per batch; an empty one costs nothing.
#include <cstdint>
#include <vector>

#include "base/buffer.h"
#include "base/check.h"
#include "model/ids.h"

namespace tailrace::broker::log {

struct HotBatch {
  Slice bytes{};
  Offset base{};
  Offset next{};
  Offset segment{};            // base of the segment it belongs to
  std::uint32_t position = 0;  // there
  std::uint32_t digest = 0;    // of the batches before it there: SegmentIndex::digest()
  std::uint64_t frame = 0;     // sequence of the WAL frame that holds it
  std::int64_t append_ms = 0;  // the leader's
  [[nodiscard]] std::uint32_t end() const { return position + static_cast<std::uint32_t>(bytes.length); }
};

class HotTail {
 public:
  [[nodiscard]] bool empty() const { return count_ == 0; }
  [[nodiscard]] std::size_t size() const { return count_; }
  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }
  [[nodiscard]] HotBatch& at(std::size_t i) { return ring_[(head_ + i) & (ring_.size() - 1)]; }
  [[nodiscard]] const HotBatch& at(std::size_t i) const { return ring_[(head_ + i) & (ring_.size() - 1)]; }
  [[nodiscard]] const HotBatch& front() const { return at(0); }
  [[nodiscard]] const HotBatch& back() const { return at(count_ - 1); }
  void push(HotBatch batch) {
    if (count_ == ring_.size()) grow();
    bytes_ += batch.bytes.length;
    ring_[(head_ + count_++) & (ring_.size() - 1)] = std::move(batch);
  }
  void pop_front() {
    bytes_ -= front().bytes.length;
    ring_[head_] = HotBatch{};
    head_ = (head_ + 1) & (ring_.size() - 1);
    if (--count_ == 0) release();
  }
  void pop_back() {
    bytes_ -= back().bytes.length;
    at(count_ - 1) = HotBatch{};
    if (--count_ == 0) release();
  }
  /// Index of the batch that holds `offset`, or of the first one behind it; size() if all are before it.
  [[nodiscard]] std::size_t find(Offset offset) const {
    std::size_t low = 0, high = count_;
    while (low < high) {
      std::size_t middle = (low + high) / 2;
      if (at(middle).next <= offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }
  /// Index of the first batch that ends behind `position` of `segment`, or lies in a later segment.
  [[nodiscard]] std::size_t find_position(Offset segment, std::uint32_t position) const {
    std::size_t low = 0, high = count_;
    while (low < high) {
      std::size_t middle = (low + high) / 2;
      const HotBatch& b = at(middle);
      if (b.segment < segment || (b.segment == segment && b.end() <= position)) low = middle + 1;
      else high = middle;
    }
    return low;
  }
  void clear() {
    ring_.clear();
    head_ = count_ = 0;
    bytes_ = 0;
  }

 private:
  void release() {
    head_ = 0;
    if (ring_.size() > 64) ring_ = {};  // a burst's ring is not kept by an idle partition
  }
  void grow() {
    std::vector<HotBatch> larger(ring_.empty() ? 4 : ring_.size() * 2);
    for (std::size_t i = 0; i < count_; ++i) larger[i] = std::move(at(i));
    ring_ = std::move(larger);
    head_ = 0;
  }
  std::vector<HotBatch> ring_{};  // size is a power of two
  std::size_t head_ = 0;
  std::size_t count_ = 0;
  std::uint64_t bytes_ = 0;
};

}  // namespace tailrace::broker::log
