#pragma once
/// A consumer's credit in records and bytes, as both sides count it.
/// Spec     docs/native-protocol.md, "Credit": a batch is sent whole while at least one record and one byte of credit are
///          left; it may overdraw both by that batch's rest, and then nothing is sent until credit is positive again.
///
///   credit 10 records, 1000 bytes;  batch of 4 records, 900 bytes -> 6, 100;  another such -> 2, -800: stop;
///   grant 0 records, 900 bytes -> 2, 100: go on
#include <algorithm>
#include <cstdint>

namespace tailrace::broker::flow {

class CreditWindow {
 public:
  /// More than this is never held: a peer that grants without end cannot overflow the count.
  static constexpr std::int64_t kMax = std::int64_t{1} << 50;

  CreditWindow() = default;
  CreditWindow(std::uint64_t records, std::uint64_t bytes) { grant(records, bytes); }

  void grant(std::uint64_t records, std::uint64_t bytes) {
    records_ = plus(records_, records);
    bytes_ = plus(bytes_, bytes);
  }
  [[nodiscard]] bool may_send() const { return records_ > 0 && bytes_ > 0; }
  /// For a batch that was sent while may_send().
  void spend(std::uint64_t records, std::uint64_t bytes) {
    records_ = minus(records_, records);
    bytes_ = minus(bytes_, bytes);
  }
  [[nodiscard]] std::int64_t records() const { return records_; }  // negative: overdrawn
  [[nodiscard]] std::int64_t bytes() const { return bytes_; }
  [[nodiscard]] std::uint64_t records_left() const { return static_cast<std::uint64_t>(std::max<std::int64_t>(records_, 0)); }
  [[nodiscard]] std::uint64_t bytes_left() const { return static_cast<std::uint64_t>(std::max<std::int64_t>(bytes_, 0)); }

 private:
  static std::int64_t amount(std::uint64_t n) { return static_cast<std::int64_t>(std::min(n, static_cast<std::uint64_t>(kMax))); }
  static std::int64_t plus(std::int64_t have, std::uint64_t n) { return std::min(have + amount(n), kMax); }
  static std::int64_t minus(std::int64_t have, std::uint64_t n) { return std::max(have - amount(n), -kMax); }
  std::int64_t records_ = 0;
  std::int64_t bytes_ = 0;
};

}  // namespace tailrace::broker::flow
