#pragma once
/// The values users handle: records going out, messages coming in, and places in the log.
///
///     Record order{.topic = "orders", .key = "alice", .value = R"({"id":1})", .headers = {{"source", "shop"}}};
///
/// A key or value may hold any bytes. No value at all (std::nullopt) is not the same as an empty one: it is a tombstone.
/// Headers keep their order and may repeat. With g++ 12, name such an object on its own line before using it in a co_await
/// expression: that compiler destroys a braced aggregate written inside one twice.
#include <chrono>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "tailrace/task.h"

namespace tailrace {
inline namespace v1 {

/// UTC, milliseconds.
using Instant = std::chrono::sys_time<Milliseconds>;
using Bytes = std::span<const std::byte>;

[[nodiscard]] inline std::string_view as_text(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

struct Header {
  std::string key{};
  std::optional<std::string> value{};
  friend bool operator==(const Header&, const Header&) = default;
};

/// A record to publish. Owned strings: the SDK takes what it needs before send() returns.
struct Record {
  std::string topic{};
  std::optional<std::string> key{};    ///< decides the partition (murmur2), and so the order; none: any partition
  std::optional<std::string> value{};  ///< none: tombstone
  std::vector<Header> headers{};
  std::optional<std::int32_t> partition{};  ///< overrides the partitioner
  std::optional<Instant> time{};            ///< default: now
};

/// The same without owning anything, for hot paths: everything is copied into the batch before the call returns.
struct RecordView {
  std::string_view topic{};
  std::optional<std::string_view> key{};
  std::optional<std::string_view> value{};
  std::span<const Header> headers{};
  std::optional<std::int32_t> partition{};
  std::optional<Instant> time{};

  RecordView() = default;
  RecordView(std::string_view to, std::optional<std::string_view> with_key, std::optional<std::string_view> with_value)
      : topic{to}, key{with_key}, value{with_value} {}
  RecordView(const Record& record)  // NOLINT: a view of a record is meant to be implicit
      : topic{record.topic}, headers{record.headers}, partition{record.partition}, time{record.time} {
    if (record.key) key = *record.key;
    if (record.value) value = *record.value;
  }
};

/// Where a record was stored. It is durable as its topic's `durability` says (Producer::durability).
struct Receipt {
  std::int32_t partition = 0;
  std::int64_t offset = 0;
  Instant time{};          ///< what the log holds: the record's own time, or the broker's for topics with log_append_time
  bool duplicate = false;  ///< a resend found it stored already; `offset` is the original one
};

struct Position {
  std::string topic{};
  std::int32_t partition = 0;
  std::int64_t offset = 0;
  friend bool operator==(const Position&, const Position&) = default;
};

/// A record read. Key, value and topic point into the received batch, which the message keeps alive: copies are cheap, and
/// a message may outlive its consumer. Holding one message holds its whole batch; copy out what you keep for long.
struct Message {
  std::string_view topic{};
  std::int32_t partition = 0;
  std::int64_t offset = 0;
  Instant time{};
  std::optional<Bytes> key{};
  std::optional<Bytes> value{};
  std::vector<Header> headers{};
  std::int32_t leader_epoch = 0;
  std::shared_ptr<const void> pin{};  ///< what keeps the bytes alive

  [[nodiscard]] Position at() const { return {std::string{topic}, partition, offset}; }
  /// Empty if there is none.
  [[nodiscard]] std::string_view key_text() const { return key ? as_text(*key) : std::string_view{}; }
  [[nodiscard]] std::string_view value_text() const { return value ? as_text(*value) : std::string_view{}; }
  /// An owned copy, ready to publish elsewhere: same key, value, headers and time.
  [[nodiscard]] Record to_record(std::string to_topic) const;
};

/// A place to start (or stop) reading, in every partition it is applied to.
class From {
 public:
  struct Earliest {
    friend bool operator==(const Earliest&, const Earliest&) = default;
  };
  struct Latest {
    friend bool operator==(const Latest&, const Latest&) = default;
  };
  struct Offset {
    std::int64_t value;
    friend bool operator==(const Offset&, const Offset&) = default;
  };
  struct Time {
    Instant value;
    friend bool operator==(const Time&, const Time&) = default;
  };
  struct Last {
    std::uint64_t count;
    friend bool operator==(const Last&, const Last&) = default;
  };
  using Value = std::variant<Earliest, Latest, Offset, Time, Last>;

  From() : value_{Earliest{}} {}
  [[nodiscard]] static From earliest() { return From{Earliest{}}; }
  [[nodiscard]] static From latest() { return From{Latest{}}; }  ///< the end at the moment of the call
  [[nodiscard]] static From offset(std::int64_t offset) { return From{Offset{offset}}; }
  [[nodiscard]] static From time(Instant time) { return From{Time{time}}; }  ///< first record of that time or later; none: the end
  [[nodiscard]] static From last(std::uint64_t count) { return From{Last{count}}; }  ///< the last `count` records of each partition
  [[nodiscard]] static From ago(Milliseconds span) {
    return time(std::chrono::time_point_cast<Milliseconds>(std::chrono::system_clock::now()) - span);
  }
  [[nodiscard]] const Value& value() const { return value_; }
  friend bool operator==(const From&, const From&) = default;

 private:
  explicit From(Value value) : value_{value} {}
  Value value_;
};

}  // namespace v1
}  // namespace tailrace
