#pragma once
/// What is asked of queue groups, as values. Spec: docs/queues.md.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "base/time.h"
#include "queue/queue.h"

namespace tailrace::broker::service {

struct QueueSettings {
  queue::QueueOptions options{};
  std::string dead_letter_topic{};  // empty: the topic's name and ".dlq"
};

/// A group on one partition: made when it is not there, and then it begins at `begin`.
struct OpenQueue {
  std::string group;
  QueueSettings settings{};
  std::optional<Offset> begin{};  // none: the log start
};
struct OpenedQueue {
  queue::WorkerId worker = 0;  // whoever opened it works under this; never used again
  QueueSettings settings{};    // as they are, whatever was asked for
};

struct LeaseRecords {
  std::string group;
  queue::WorkerId worker = 0;
  std::size_t credit = 0;
  Instant wait_until{};  // with nothing to deliver, the answer waits so long
};
struct LeasedRecord {
  Offset offset{};
  std::uint32_t attempt = 0;
  queue::TimeMs until = 0;  // UTC
  Slice batch{};            // the whole batch that holds it
};

struct SettleRecord {
  enum class How : std::uint8_t { ack, retry, reject, extend };
  How how = How::ack;
  Offset offset{};
  std::uint32_t attempt = 0;
  std::optional<queue::TimeMs> ms{};  // of retry: the delay (none: the backoff); of extend: by how much
  std::string why{};                  // of reject: goes along to the dead-letter topic
};

struct QueueDescription {
  std::string group;
  QueueSettings settings{};
  Offset next{};              // everything below is live or settled
  Offset high_watermark{};
  std::size_t live = 0;
  std::size_t condemned = 0;
  queue::Queue::Counters counters{};
  queue::Standstill standstill{};
};

}  // namespace tailrace::broker::service
