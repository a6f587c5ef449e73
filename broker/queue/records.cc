#include "queue/records.h"

#include <fmt/format.h>

#include "base/byte_writer.h"
#include "model/limits.h"

namespace tailrace::broker::queue {
namespace {

constexpr std::uint16_t kVersion = 1;

std::unexpected<Error> torn(const char* what) { return fail(Errc::corrupt, fmt::format("a stored {} of a queue contradicts itself", what)); }
std::string get_text(ByteReader& from) { return std::string{as_text(from.take(from.le<std::uint16_t>()))}; }
Result<void> check_version(ByteReader& from) {
  auto version = from.le<std::uint16_t>();
  if (from.ok() && version != kVersion) return fail(Errc::newer_format, fmt::format("a stored queue has version {}, only {} is known", version, kVersion));
  return {};
}

}  // namespace

std::vector<std::byte> encode(const RecordKey& key) {
  ByteWriter to;
  to.le(static_cast<std::uint8_t>(key.kind)).text(key.group);
  return to.take();
}

std::vector<std::byte> encode(const SettingsRecord& record) {
  ByteWriter to;
  const QueueOptions& o = record.options;
  to.le(kVersion).le(o.attempts_max).le(o.lease_ms).le(o.backoff_min_ms).le(o.backoff_max_ms).le(static_cast<std::uint8_t>(o.key_order ? 1 : 0));
  to.le(static_cast<std::uint32_t>(o.live_max)).text(record.dead_letter_topic).le(record.begin.value());
  return to.take();
}

std::vector<std::byte> encode(const EventsRecord& record) {
  ByteWriter to;
  to.le(kVersion).le(record.producer.value()).le(static_cast<std::uint32_t>(record.events.size()));
  std::vector<std::byte> bytes;
  for (const Event& event : record.events) {
    bytes.clear();
    encode(event, bytes);
    to.le(static_cast<std::uint8_t>(bytes.size())).raw(bytes);
  }
  to.le(static_cast<std::uint32_t>(record.why.size()));
  for (const auto& [offset, why] : record.why) to.le(offset.value()).text(why);
  return to.take();
}

std::vector<std::byte> encode_snapshot(const Queue& queue, const DeadLetters& letters) {
  ByteWriter to;
  to.le(kVersion).le(letters.producer.value()).le(letters.next_sequence).le(static_cast<std::uint32_t>(letters.open.size()));
  for (const auto& [offset, open] : letters.open) to.le(offset.value()).le(open.sequence).text(open.why);
  to.raw(queue.snapshot());
  return to.take();
}

Result<RecordKey> decode_key(Bytes bytes) {
  ByteReader from{bytes};
  auto kind = from.le<std::uint8_t>();
  if (!from.ok()) return torn("key");
  if (kind < 1 || kind > 3) return fail(Errc::newer_format, fmt::format("a stored queue's key has kind {}, which is not known", kind));
  RecordKey key{static_cast<RecordKey::Kind>(kind), get_text(from)};
  if (!from.ok() || from.remaining() != 0 || key.group.empty()) return torn("key");
  return key;
}

Result<SettingsRecord> decode_settings(Bytes bytes) {
  ByteReader from{bytes};
  TAILRACE_TRY_VOID(check_version(from));
  SettingsRecord record;
  record.options.attempts_max = from.le<std::uint32_t>();
  record.options.lease_ms = from.le<std::int64_t>();
  record.options.backoff_min_ms = from.le<std::int64_t>();
  record.options.backoff_max_ms = from.le<std::int64_t>();
  record.options.key_order = from.le<std::uint8_t>() != 0;
  record.options.live_max = from.le<std::uint32_t>();
  record.dead_letter_topic = get_text(from);
  record.begin = Offset{from.le<std::int64_t>()};
  if (!from.ok() || from.remaining() != 0 || !check(record.options) || record.begin < Offset{0}) return torn("settings record");
  return record;
}

Result<EventsRecord> decode_events(Bytes bytes) {
  ByteReader from{bytes};
  TAILRACE_TRY_VOID(check_version(from));
  EventsRecord record;
  record.producer = ProducerId{from.le<std::int64_t>()};
  auto events = from.le<std::uint32_t>();
  for (std::uint32_t i = 0; i < events && from.ok(); ++i) {
    Bytes one = from.take(from.le<std::uint8_t>());
    if (!from.ok()) break;
    TAILRACE_TRY(Event event, decode_event(one));
    record.events.push_back(event);
  }
  auto whys = from.le<std::uint32_t>();
  for (std::uint32_t i = 0; i < whys && from.ok(); ++i) {
    Offset offset{from.le<std::int64_t>()};
    record.why[offset] = get_text(from);
  }
  if (!from.ok() || from.remaining() != 0) return torn("record of events");
  return record;
}

Result<void> decode_snapshot(Bytes bytes, Queue& queue, DeadLetters& letters) {
  ByteReader from{bytes};
  TAILRACE_TRY_VOID(check_version(from));
  DeadLetters loaded;
  loaded.producer = ProducerId{from.le<std::int64_t>()};
  loaded.next_sequence = from.le<std::int32_t>();
  auto open = from.le<std::uint32_t>();
  for (std::uint32_t i = 0; i < open && from.ok(); ++i) {
    Offset offset{from.le<std::int64_t>()};
    auto sequence = from.le<std::int32_t>();
    loaded.open[offset] = {sequence, get_text(from)};
  }
  if (!from.ok() || loaded.open.size() != open) return torn("snapshot");
  TAILRACE_TRY_VOID(queue.load(from.take(from.remaining())));
  if (loaded.open.size() != queue.condemned().size()) return torn("snapshot");
  for (const auto& [offset, one] : loaded.open) {
    if (!queue.condemned().contains(offset)) return torn("snapshot");
  }
  letters = std::move(loaded);
  return {};
}

Result<void> apply(const EventsRecord& record, Queue& queue, DeadLetters& letters) {
  for (const Event& event : record.events) TAILRACE_TRY_VOID(queue.apply(event));
  follow(record, letters);
  return {};
}

void follow(const EventsRecord& record, DeadLetters& letters) {
  if (record.producer != kNoProducer) {
    letters.producer = record.producer;
    // The order in which they were condemned stays.
    std::map<std::int32_t, Offset> order;
    for (const auto& [offset, open] : letters.open) order[open.sequence] = offset;
    letters.next_sequence = 0;
    for (const auto& [before, offset] : order) letters.open[offset].sequence = letters.next_sequence++;
  }
  for (const Event& event : record.events) {
    if (const auto* condemned = std::get_if<Condemned>(&event)) {
      auto why = record.why.find(condemned->offset);
      letters.open[condemned->offset] = {letters.next_sequence, why == record.why.end() ? std::string{} : why->second};
      // Sequences are 31 bits and wrap to 0, as producers' do.
      letters.next_sequence = letters.next_sequence == std::numeric_limits<std::int32_t>::max() ? 0 : letters.next_sequence + 1;
    }
    if (const auto* buried = std::get_if<Buried>(&event)) letters.open.erase(buried->offset);
  }
}

}  // namespace tailrace::broker::queue
