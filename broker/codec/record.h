#pragma once
/// One record as the codec takes and gives it: views only, owning nothing.
/// Spec     Kafka "Record" (message format v2):
///            varint length of the rest | i8 attributes = 0 | varlong timestamp delta | varint offset delta
///            varint key length, key | varint value length, value | varint header count
///            per header: varint key length, key | varint value length, value      (length -1: null; a header's key never)
#include <cstdint>
#include <iterator>
#include <optional>
#include <string_view>

#include "base/bytes.h"
#include "codec/varint.h"
#include "model/ids.h"

namespace tailrace::broker::codec {

/// Keys may repeat and keep their order. Null and empty values differ.
struct HeaderView {
  std::string_view key{};
  std::optional<Bytes> value{};
};

/// The headers of one record, read as one goes over them. The bytes were checked before a range was made of them.
/// Lifetime as the batch's bytes (or the reader's inflated copy).
class HeaderRange {
 public:
  class Iterator {
   public:
    using value_type = HeaderView;
    using difference_type = std::ptrdiff_t;
    Iterator() = default;
    Iterator(const std::byte* at, const std::byte* end, std::int32_t left) : next_{at}, end_{end}, left_{left} { advance(); }
    const HeaderView& operator*() const { return current_; }
    const HeaderView* operator->() const { return &current_; }
    Iterator& operator++() {
      --left_;
      advance();
      return *this;
    }
    void operator++(int) { ++*this; }
    friend bool operator==(const Iterator& it, std::default_sentinel_t) { return it.left_ <= 0; }

   private:
    void advance() {
      if (left_ <= 0) return;
      std::int32_t length = 0;
      next_ = read_varint32(next_, end_, length);
      current_.key = {reinterpret_cast<const char*>(next_), static_cast<std::size_t>(length)};
      next_ = read_varint32(next_ + length, end_, length);
      current_.value.reset();
      if (length < 0) return;
      current_.value = Bytes{next_, static_cast<std::size_t>(length)};
      next_ += length;
    }
    const std::byte* next_ = nullptr;
    const std::byte* end_ = nullptr;
    std::int32_t left_ = 0;
    HeaderView current_{};
  };

  HeaderRange() = default;
  HeaderRange(const std::byte* from, const std::byte* end, std::int32_t count) : from_{from}, end_{end}, count_{count} {}
  [[nodiscard]] Iterator begin() const { return {from_, end_, count_}; }
  [[nodiscard]] std::default_sentinel_t end() const { return {}; }
  [[nodiscard]] std::size_t size() const { return static_cast<std::size_t>(count_); }
  [[nodiscard]] bool empty() const { return count_ == 0; }

 private:
  const std::byte* from_ = nullptr;
  const std::byte* end_ = nullptr;
  std::int32_t count_ = 0;
};

/// One record of a stored or received batch. Lifetime as the batch's bytes (or the reader's inflated copy).
struct RecordView {
  Offset offset{};              // base offset + offset delta
  std::int32_t offset_delta = 0;
  std::int64_t timestamp = 0;   // ms; the batch's append time when it has one, else base timestamp + timestamp delta
  std::int64_t timestamp_delta = 0;
  std::optional<Bytes> key{};
  std::optional<Bytes> value{};
  HeaderRange headers{};
};

}  // namespace tailrace::broker::codec
