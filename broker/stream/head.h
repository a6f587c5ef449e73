#pragma once
/// What is known of one stream, and what an append expects of it. Spec: docs/event-store.md, "Expected versions".
#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>

#include "model/ids.h"

namespace tailrace::broker::stream {

/// Number of earlier events of the stream in its partition.
using Version = std::int64_t;
inline constexpr Version kNoVersion = -1;

/// Default: a stream that never had an event.
struct Head {
  Version last = kNoVersion;    // of its last event
  Version first = 0;            // events below are truncated; at most last + 1
  Offset offset{-1};            // base offset of the batch that holds the last event
  std::int64_t time_ms = -1;    // max timestamp of that batch
  [[nodiscard]] bool exists() const { return last != kNoVersion; }
  friend bool operator==(const Head&, const Head&) = default;
};

struct Expected {
  enum class Kind : std::uint8_t { none, exactly, exists, any };
  Kind kind = Kind::any;
  Version version = kNoVersion;  // of exactly
  [[nodiscard]] bool met_by(const Head& head) const {
    switch (kind) {
      case Kind::none: return !head.exists();
      case Kind::exactly: return head.exists() && head.last == version;
      case Kind::exists: return head.exists();
      case Kind::any: return true;
    }
    return false;
  }
  /// Where the first event would stand if it is right; none: that is not known from it.
  [[nodiscard]] std::optional<Version> first_version() const {
    if (kind == Kind::none) return 0;
    if (kind == Kind::exactly) return version + 1;
    return std::nullopt;
  }
};

/// One batch of a stream topic, as far as streams are concerned.
struct Entry {
  enum class Kind : std::uint8_t { events, truncate };
  Kind kind = Kind::events;
  std::string stream{};
  Offset base{};               // of its batch
  Offset next{};
  std::int32_t count = 0;      // events
  Version before = 0;          // of truncate: events below are hidden
  std::int64_t time_ms = -1;   // max timestamp of its batch
};

/// The head behind an entry, from the one before it.
[[nodiscard]] inline Head after(Head head, const Entry& entry) {
  if (entry.kind == Entry::Kind::truncate) {
    head.first = std::max(head.first, std::min(entry.before, head.last + 1));
    return head;
  }
  head.last += entry.count;
  head.offset = entry.base;
  head.time_ms = entry.time_ms;
  return head;
}

}  // namespace tailrace::broker::stream
