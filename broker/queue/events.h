#pragma once
/// What happens to the records of one partition in one queue group, as it is stored. The state is a function of these, in order.
/// Spec     docs/queues.md, "Events" (encoding: one per record of the group's state topic, beginning with the kind).
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "model/ids.h"

namespace tailrace::broker::queue {

using WorkerId = std::uint64_t;  // of one connection's worker, never used again
using KeyHash = std::uint64_t;   // of the record's key; 0: none, which never orders

/// Milliseconds of the coordinator's wall clock: leases outlive it.
using TimeMs = std::int64_t;

enum class Reason : std::uint8_t { rejected, attempts, retention };

/// Delivered, for the n-th time, to a worker until the lease ends. Durable before the delivery leaves.
struct Attempted {
  Offset offset{};
  std::uint32_t attempt = 0;
  WorkerId worker = 0;
  TimeMs until = 0;
  KeyHash key = 0;
  friend bool operator==(const Attempted&, const Attempted&) = default;
};
/// Passed over: an earlier record of its key is not settled.
struct Held {
  Offset offset{};
  KeyHash key = 0;
  friend bool operator==(const Held&, const Held&) = default;
};
struct Acked {
  Offset offset{};
  friend bool operator==(const Acked&, const Acked&) = default;
};
/// Given back; delivered again at or after `until`.
struct Delayed {
  Offset offset{};
  TimeMs until = 0;
  friend bool operator==(const Delayed&, const Delayed&) = default;
};
struct Extended {
  Offset offset{};
  TimeMs until = 0;
  friend bool operator==(const Extended&, const Extended&) = default;
};
/// It will go to the dead-letter topic, and nowhere else any more.
struct Condemned {
  Offset offset{};
  Reason reason{};
  friend bool operator==(const Condemned&, const Condemned&) = default;
};
/// It is there.
struct Buried {
  Offset offset{};
  friend bool operator==(const Buried&, const Buried&) = default;
};
/// Deleted by retention before it was ever delivered: [from, to) as far as that is so.
struct Expired {
  Offset from{};
  Offset to{};
  friend bool operator==(const Expired&, const Expired&) = default;
};
using Event = std::variant<Attempted, Held, Acked, Delayed, Extended, Condemned, Buried, Expired>;

void encode(const Event& event, std::vector<std::byte>& into);
/// Errors: corrupt, newer_format (a kind that is not known).
[[nodiscard]] Result<Event> decode_event(Bytes bytes);

}  // namespace tailrace::broker::queue
