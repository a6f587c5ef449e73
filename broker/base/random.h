#pragma once
/// A small seeded generator (SplitMix64, Steele, Lea and Flood 2014). One seed gives the same draws on every build, which
/// the standard distributions do not promise. Not for secrets.
#include <cstdint>

namespace tailrace::broker {

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_{seed} {}
  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
  }
  /// Uniform in [0, bound); bound > 0. The modulo bias is below 2^-32 for bounds below 2^32.
  std::uint64_t below(std::uint64_t bound) { return next() % bound; }
  std::uint64_t between(std::uint64_t low, std::uint64_t high) { return low + below(high - low + 1); }
  /// True with probability numerator/denominator.
  bool chance(std::uint64_t numerator, std::uint64_t denominator) { return below(denominator) < numerator; }
  /// An independent stream: adding a draw to one does not shift the others.
  [[nodiscard]] Random split() { return Random{next()}; }

 private:
  std::uint64_t state_;
};

}  // namespace tailrace::broker
