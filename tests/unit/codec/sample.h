#pragma once
/// Records that own their bytes, for tests of the codec.
#include <rapidcheck.h>

#include <optional>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "base/random.h"
#include "codec/batch_builder.h"
#include "codec/record.h"

namespace tailrace::broker::codec {

struct OwnedRecord {
  std::int64_t timestamp = 0;
  std::optional<std::string> key{};
  std::optional<std::string> value{};
  std::vector<std::pair<std::string, std::optional<std::string>>> headers{};
  friend bool operator==(const OwnedRecord&, const OwnedRecord&) = default;
  friend std::ostream& operator<<(std::ostream& out, const OwnedRecord& record) {
    auto show = [](const std::optional<std::string>& text) { return text ? "'" + *text + "'" : std::string("null"); };
    out << record.timestamp << ' ' << show(record.key) << ' ' << show(record.value);
    for (auto& [key, value] : record.headers) out << ' ' << key << '=' << show(value);
    return out;
  }
};

inline std::optional<Bytes> view(const std::optional<std::string>& text) {
  return text ? std::optional<Bytes>(as_bytes(*text)) : std::nullopt;
}
inline std::optional<std::string> text(const std::optional<Bytes>& bytes) {
  return bytes ? std::optional<std::string>(as_text(*bytes)) : std::nullopt;
}

/// A record as the builder takes it, together with the header views it points to.
struct RecordWithHeaders {
  explicit RecordWithHeaders(const OwnedRecord& from) {
    for (auto& [key, value] : from.headers) headers.push_back({key, view(value)});
    record = {.timestamp = from.timestamp, .key = view(from.key), .value = view(from.value), .headers = headers};
  }
  RecordWithHeaders(const RecordWithHeaders&) = delete;
  RecordWithHeaders& operator=(const RecordWithHeaders&) = delete;
  std::vector<HeaderView> headers{};
  RecordInput record{};
};

inline OwnedRecord owned(const RecordView& record) {
  OwnedRecord out{.timestamp = record.timestamp, .key = text(record.key), .value = text(record.value), .headers = {}};
  for (const HeaderView& header : record.headers) out.headers.emplace_back(std::string(header.key), text(header.value));
  return out;
}

inline std::string random_text(Random& random, std::size_t bytes) {
  std::string out;
  while (out.size() < bytes) out.push_back(static_cast<char>(random.next()));
  return out;
}

inline std::string hex(Bytes bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (std::byte b : bytes) {
    out.push_back(kDigits[std::to_integer<unsigned>(b) >> 4]);
    out.push_back(kDigits[std::to_integer<unsigned>(b) & 15]);
  }
  return out;
}

/// Short ones mostly; some long enough that lengths need two and three varint bytes.
inline rc::Gen<std::optional<std::string>> any_bytes() {
  return rc::gen::weightedOneOf<std::optional<std::string>>(
      {{1, rc::gen::just(std::optional<std::string>{})},
       {6, rc::gen::map(rc::gen::arbitrary<std::string>(), [](std::string s) { return std::optional<std::string>(std::move(s)); })},
       {1, rc::gen::map(rc::gen::inRange<std::size_t>(60, 20'000),
                        [](std::size_t n) { return std::optional<std::string>(std::string(n, static_cast<char>('a' + n % 26))); })}});
}

inline rc::Gen<OwnedRecord> any_record() {
  using Header = std::pair<std::string, std::optional<std::string>>;
  auto header = rc::gen::pair(rc::gen::arbitrary<std::string>(), any_bytes());
  // Any two of these are less than 2^63 apart, so every mix can share a batch.
  auto timestamp = rc::gen::weightedOneOf<std::int64_t>({{1, rc::gen::just<std::int64_t>(-1)},
                                                         {4, rc::gen::inRange<std::int64_t>(1'600'000'000'000, 1'900'000'000'000)},
                                                         {1, rc::gen::inRange<std::int64_t>(0, INT64_MAX - 1)}});
  return rc::gen::build<OwnedRecord>(rc::gen::set(&OwnedRecord::timestamp, timestamp), rc::gen::set(&OwnedRecord::key, any_bytes()),
                                     rc::gen::set(&OwnedRecord::value, any_bytes()),
                                     rc::gen::set(&OwnedRecord::headers, rc::gen::container<std::vector<Header>>(header)));
}

}  // namespace tailrace::broker::codec
