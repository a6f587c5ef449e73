#pragma once
/// What is stored of queue groups: keys and values of the records of `__queue.T`, in the partition that stands beside the data's.
/// Spec     docs/queues.md, "State".
#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "queue/queue.h"

namespace tailrace::broker::queue {

struct RecordKey {
  enum class Kind : std::uint8_t { settings = 1, events = 2, snapshot = 3 };
  Kind kind = Kind::settings;
  std::string group{};
  friend bool operator==(const RecordKey&, const RecordKey&) = default;
};
/// No value: the group is gone.
struct SettingsRecord {
  QueueOptions options{};
  std::string dead_letter_topic{};
  Offset begin{};
};
/// What dead letters need beside the queue's own state. The n-th record that was condemned since `producer` has its sequence n.
struct DeadLetters {
  ProducerId producer = kNoProducer;
  std::int32_t next_sequence = 0;
  struct Open {
    std::int32_t sequence = 0;
    std::string why{};
  };
  std::map<Offset, Open> open{};
};
/// Of one call: its events in order, with what handlers said of those that they rejected; or a producer from here on.
struct EventsRecord {
  std::vector<Event> events{};
  std::map<Offset, std::string> why{};
  ProducerId producer = kNoProducer;  // not none: what is open gets sequences from 0 again
};

[[nodiscard]] std::vector<std::byte> encode(const RecordKey& key);
[[nodiscard]] std::vector<std::byte> encode(const SettingsRecord& record);
[[nodiscard]] std::vector<std::byte> encode(const EventsRecord& record);
[[nodiscard]] std::vector<std::byte> encode_snapshot(const Queue& queue, const DeadLetters& letters);
// Errors: corrupt, newer_format.
[[nodiscard]] Result<RecordKey> decode_key(Bytes bytes);
[[nodiscard]] Result<SettingsRecord> decode_settings(Bytes bytes);
[[nodiscard]] Result<EventsRecord> decode_events(Bytes bytes);
[[nodiscard]] Result<void> decode_snapshot(Bytes bytes, Queue& queue, DeadLetters& letters);

/// The same step on memory and on replay. Errors: those of Queue::apply.
[[nodiscard]] Result<void> apply(const EventsRecord& record, Queue& queue, DeadLetters& letters);
/// The dead letters' part of it, for events that the queue has applied already.
void follow(const EventsRecord& record, DeadLetters& letters);

}  // namespace tailrace::broker::queue
