#pragma once
/// Numbers that could be swapped by mistake are distinct types, with no implicit way back to the plain number.
#include <compare>
#include <cstddef>
#include <functional>

namespace tailrace::broker {

template <class Tag, class Rep>
class Strong {
 public:
  using rep = Rep;
  constexpr Strong() = default;
  constexpr explicit Strong(Rep value) : value_{value} {}
  [[nodiscard]] constexpr Rep value() const { return value_; }
  friend constexpr auto operator<=>(Strong, Strong) = default;
  friend constexpr Strong operator+(Strong a, Rep n) { return Strong{static_cast<Rep>(a.value_ + n)}; }
  friend constexpr Strong operator-(Strong a, Rep n) { return Strong{static_cast<Rep>(a.value_ - n)}; }
  friend constexpr Rep operator-(Strong a, Strong b) { return static_cast<Rep>(a.value_ - b.value_); }
  constexpr Strong& operator+=(Rep n) {
    value_ = static_cast<Rep>(value_ + n);
    return *this;
  }
  constexpr Strong& operator++() { return *this += Rep{1}; }

 private:
  Rep value_{};
};

}  // namespace tailrace::broker

template <class Tag, class Rep>
struct std::hash<tailrace::broker::Strong<Tag, Rep>> {
  std::size_t operator()(tailrace::broker::Strong<Tag, Rep> s) const noexcept { return std::hash<Rep>{}(s.value()); }
};
