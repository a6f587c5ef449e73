#include "testing/fake_state.h"

#include <algorithm>
#include <chrono>

#include "codec/batch_builder.h"
#include "codec/batch_reader.h"
#include "model/limits.h"

namespace tailrace::inline v1::testing {

using broker::fail;

namespace {
std::int32_t add_sequence(std::int32_t sequence, std::int32_t count) {
  return static_cast<std::int32_t>((static_cast<std::uint32_t>(sequence) + static_cast<std::uint32_t>(count)) & 0x7fffffffu);
}
broker::WallTime wall_now() { return std::chrono::time_point_cast<std::chrono::milliseconds>(std::chrono::system_clock::now()); }
}  // namespace

broker::Result<Appended> publish(FakeTopic& topic, FakePartition& partition, broker::Bytes bytes, std::optional<std::int64_t> expected_end,
                                 std::uint64_t message_bytes_max, Counters& counters) {
  if (bytes.size() > message_bytes_max) return fail(Errc::too_large, "the batch is larger than message_bytes_max");
  auto reader = broker::codec::BatchReader::open(bytes);
  if (!reader) return fail(reader.error().code, reader.error().detail);
  auto header = reader->header();
  if (header.total_bytes() != bytes.size()) return fail(Errc::invalid_record, "more than one batch");
  broker::codec::RecordView record;
  std::int32_t count = 0;
  while (reader->next(record)) {
    if (record.offset_delta != count) return fail(Errc::invalid_record, "offset deltas are not 0, 1, 2...");
    ++count;
  }
  if (reader->error() || count == 0 || count != header.record_count || header.last_offset_delta != count - 1) {
    return fail(Errc::invalid_record, "the counts of the batch do not agree");
  }
  std::int64_t id = header.producer_id.value();
  if (id >= 0) {
    auto known = partition.producers.find(id);
    if (known == partition.producers.end()) {
      if (header.base_sequence != 0) return fail(Errc::unknown_producer, "producer " + std::to_string(id) + " is not known here");
      known = partition.producers.emplace(id, ProducerState{.epoch = header.producer_epoch.value()}).first;
    }
    ProducerState& state = known->second;
    for (const SeenBatch& seen : state.last) {
      if (seen.sequence == header.base_sequence && seen.count == count) {
        ++counters.duplicates;
        return Appended{.offset = seen.offset, .append_time = -1, .duplicate = true};
      }
    }
    if (header.base_sequence != state.next_sequence) {
      ++counters.sequence_refusals;
      return fail(Errc::out_of_order_sequence, "sequence " + std::to_string(header.base_sequence) + " where " + std::to_string(state.next_sequence) + " is next");
    }
  }
  if (expected_end && *expected_end != partition.end) return fail(Errc::wrong_version, std::to_string(partition.end));
  auto copy = broker::Buffer::copy_of(bytes);
  Appended done{.offset = partition.end};
  if (topic.log_append_time) {
    auto now = wall_now();
    broker::stamp_log_append_time(copy.bytes(), now);
    done.append_time = now.time_since_epoch().count();
  }
  broker::assign_batch(copy.bytes(), broker::Offset{partition.end}, broker::LeaderEpoch{1});
  if (id >= 0) {
    ProducerState& state = partition.producers.at(id);
    state.next_sequence = add_sequence(header.base_sequence, count);
    state.last.push_back({header.base_sequence, count, partition.end});
    if (state.last.size() > broker::limits::kProducerWindowBatches) state.last.pop_front();
  }
  partition.batches.push_back({broker::Slice::whole(std::move(copy)), partition.end, partition.end + count});
  partition.end += count;
  return done;
}

broker::Slice build_batch(std::span<const Record> records) {
  broker::codec::BatchBuilder builder{{.bytes_max = broker::limits::kMessageBytesCeiling}};
  for (const Record& record : records) {
    std::vector<broker::codec::HeaderView> headers;
    for (const Header& header : record.headers) headers.push_back({header.key, header.value ? std::optional{broker::as_bytes(*header.value)} : std::nullopt});
    broker::codec::RecordInput input{.timestamp = record.time.value_or(wall_now()).time_since_epoch().count(), .headers = headers};
    if (record.key) input.key = broker::as_bytes(*record.key);
    if (record.value) input.value = broker::as_bytes(*record.value);
    if (!builder.add(input)) return {};
  }
  auto batch = builder.finish();
  return batch ? *std::move(batch) : broker::Slice{};
}

std::int64_t FakePartition::first_at(std::int64_t time_ms) const {
  for (const StoredBatch& batch : batches) {
    auto reader = broker::codec::BatchReader::open(batch.bytes.bytes());
    if (!reader) continue;
    broker::codec::RecordView record;
    while (reader->next(record)) {
      if (record.timestamp >= time_ms && record.offset.value() >= log_start) return record.offset.value();
    }
  }
  return end;
}

std::vector<Message> read_all(const FakeTopic& topic, std::int32_t index) {
  std::vector<Message> out;
  auto name = std::make_shared<const std::string>(topic.name);
  const FakePartition& partition = topic.partitions.at(static_cast<std::size_t>(index));
  for (const StoredBatch& batch : partition.batches) {
    auto reader = broker::codec::BatchReader::open(batch.bytes.bytes());
    if (!reader) continue;
    struct Pin {
      broker::Slice batch;
      broker::Buffer inflated;
      std::shared_ptr<const std::string> name;
    };
    auto pin = std::make_shared<Pin>(Pin{batch.bytes, reader->inflated(), name});
    broker::codec::RecordView record;
    while (reader->next(record)) {
      if (record.offset.value() < partition.log_start) continue;
      Message message{.topic = *name, .partition = index, .offset = record.offset.value(), .time = Instant{Milliseconds{record.timestamp}},
                      .key = record.key, .value = record.value, .leader_epoch = 1, .pin = pin};
      for (const auto& header : record.headers) {
        Header& to = message.headers.emplace_back();
        to.key = header.key;
        if (header.value) to.value.emplace(broker::as_text(*header.value));
      }
      out.push_back(std::move(message));
    }
  }
  return out;
}

}  // namespace tailrace::inline v1::testing
