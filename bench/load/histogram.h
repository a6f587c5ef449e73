#pragma once
/// A log-linear histogram of latencies: each power of two is cut into 128 equal steps, so that a quantile is at most 0.8 %
/// above the true value at any magnitude, in 58 KiB whatever the number of samples. Not thread-safe: one per thread, then merge.
#include <array>
#include <bit>
#include <chrono>
#include <cstdint>
#include <span>
#include <vector>

namespace tailrace::load {

class Histogram {
 public:
  using Nanoseconds = std::chrono::nanoseconds;

  Histogram() : counts_(kBuckets) {}
  /// Negative values (a clock's rounding) count as zero.
  void record(Nanoseconds value, std::uint64_t times = 1);
  void merge(const Histogram& other);
  void clear();
  [[nodiscard]] std::uint64_t count() const { return count_; }
  [[nodiscard]] Nanoseconds max() const { return Nanoseconds{static_cast<std::int64_t>(max_)}; }
  [[nodiscard]] Nanoseconds min() const { return Nanoseconds{static_cast<std::int64_t>(count_ == 0 ? 0 : min_)}; }
  [[nodiscard]] Nanoseconds mean() const;
  /// The smallest recorded value's bucket such that at least `quantile` (0-1) of all values are at or below its upper
  /// edge; never above max(). Zero without samples.
  [[nodiscard]] Nanoseconds at(double quantile) const;

 private:
  static constexpr unsigned kStepBits = 7;
  static constexpr std::uint64_t kSteps = 1u << kStepBits;
  static constexpr std::size_t kBuckets = (64 - kStepBits) * kSteps + kSteps;
  [[nodiscard]] static std::size_t bucket_of(std::uint64_t value);
  [[nodiscard]] static std::uint64_t upper_edge(std::size_t bucket);

  std::vector<std::uint64_t> counts_;
  std::uint64_t count_ = 0;
  std::uint64_t max_ = 0;
  std::uint64_t min_ = ~std::uint64_t{0};
  double sum_ = 0;
};

}  // namespace tailrace::load
