#include "bench/load/histogram.h"

#include <algorithm>
#include <cmath>

namespace tailrace::load {

std::size_t Histogram::bucket_of(std::uint64_t value) {
  if (value < kSteps) return value;
  // value in [2^k, 2^(k+1)), k >= kStepBits: its top kStepBits + 1 bits say which step of which power.
  const unsigned k = 63 - static_cast<unsigned>(std::countl_zero(value));
  const unsigned shift = k - kStepBits;
  return (shift + 1) * kSteps + ((value >> shift) - kSteps);
}

std::uint64_t Histogram::upper_edge(std::size_t bucket) {
  if (bucket < kSteps) return bucket;
  const auto shift = bucket / kSteps - 1;
  const auto step = bucket % kSteps + kSteps;
  return ((step + 1) << shift) - 1;
}

void Histogram::record(Nanoseconds value, std::uint64_t times) {
  const auto ns = static_cast<std::uint64_t>(std::max<std::int64_t>(0, value.count()));
  counts_[bucket_of(ns)] += times;
  count_ += times;
  max_ = std::max(max_, ns);
  min_ = std::min(min_, ns);
  sum_ += static_cast<double>(ns) * static_cast<double>(times);
}

void Histogram::merge(const Histogram& other) {
  for (std::size_t i = 0; i < kBuckets; ++i) counts_[i] += other.counts_[i];
  count_ += other.count_;
  max_ = std::max(max_, other.max_);
  min_ = std::min(min_, other.min_);
  sum_ += other.sum_;
}

void Histogram::clear() { *this = Histogram{}; }

Histogram::Nanoseconds Histogram::mean() const {
  return Nanoseconds{count_ == 0 ? 0 : static_cast<std::int64_t>(sum_ / static_cast<double>(count_))};
}

Histogram::Nanoseconds Histogram::at(double quantile) const {
  if (count_ == 0) return Nanoseconds{0};
  const auto wanted = std::clamp<std::uint64_t>(static_cast<std::uint64_t>(std::ceil(quantile * static_cast<double>(count_))), 1, count_);
  std::uint64_t seen = 0;
  for (std::size_t i = 0; i < kBuckets; ++i) {
    seen += counts_[i];
    if (seen >= wanted) return Nanoseconds{static_cast<std::int64_t>(std::min(upper_edge(i), max_))};
  }
  return max();
}

}  // namespace tailrace::load
