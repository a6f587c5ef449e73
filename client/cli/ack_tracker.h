#pragma once
/// Which input records are acknowledged. Acknowledgements of several partitions come out of order; resuming with --skip N
/// is safe only up to the first record that is not acknowledged. Memory grows with the span between the first gap and the
/// newest acknowledgement, which the producer's memory limit bounds.
#include <cstdint>
#include <deque>

namespace tailrace::cli {

class AckTracker {
 public:
  /// `first` is the index of the first record that will be published (what --skip left out counts as done).
  explicit AckTracker(std::uint64_t first = 0) : prefix_(first) {}
  void acknowledged(std::uint64_t index) {
    ++count_;
    if (index < prefix_) return;
    const auto slot = index - prefix_;
    if (slot >= beyond_.size()) beyond_.resize(slot + 1, false);
    beyond_[slot] = true;
    while (!beyond_.empty() && beyond_.front()) {
      beyond_.pop_front();
      ++prefix_;
    }
  }
  /// Every record below this index is acknowledged: the value for --skip.
  [[nodiscard]] std::uint64_t prefix() const { return prefix_; }
  [[nodiscard]] std::uint64_t count() const { return count_; }
  /// Acknowledged ones that --skip prefix() would publish again.
  [[nodiscard]] std::uint64_t beyond_prefix() const {
    std::uint64_t n = 0;
    for (bool b : beyond_) n += b ? 1 : 0;
    return n;
  }

 private:
  std::deque<bool> beyond_;
  std::uint64_t prefix_;
  std::uint64_t count_ = 0;
};

}  // namespace tailrace::cli
