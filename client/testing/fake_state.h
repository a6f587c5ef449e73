#pragma once
/// What the fake broker remembers: topics, logs, producers. No sockets here.
/// Thread   guarded by the broker's one mutex.
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "base/result.h"
#include "model/record_batch.h"
#include "tailrace/testing.h"

namespace tailrace::inline v1::testing {

struct StoredBatch {
  broker::Slice bytes{};
  std::int64_t base = 0;
  std::int64_t next = 0;
};

struct SeenBatch {
  std::int32_t sequence = 0;
  std::int32_t count = 0;
  std::int64_t offset = 0;
};
struct ProducerState {
  std::int16_t epoch = 0;
  std::int32_t next_sequence = 0;
  std::deque<SeenBatch> last{};
};

struct FakePartition {
  std::int64_t log_start = 0;
  std::int64_t end = 0;
  std::deque<StoredBatch> batches{};
  std::map<std::int64_t, ProducerState> producers{};
  std::int64_t first_at(std::int64_t time_ms) const;
};

struct FakeTopic {
  std::string name{};
  std::string id{};
  bool log_append_time = false;
  std::map<std::string, std::string> config{};
  std::vector<FakePartition> partitions{};
};

struct Appended {
  std::int64_t offset = 0;
  std::int64_t append_time = -1;
  bool duplicate = false;
};

/// Publishing as the real broker does it: checks the batch, its sequence and the expected end, then stores it.
[[nodiscard]] broker::Result<Appended> publish(FakeTopic& topic, FakePartition& partition, broker::Bytes batch,
                                               std::optional<std::int64_t> expected_end, std::uint64_t message_bytes_max, Counters& counters);
[[nodiscard]] broker::Slice build_batch(std::span<const Record> records);
[[nodiscard]] std::vector<Message> read_all(const FakeTopic& topic, std::int32_t index);

}  // namespace tailrace::inline v1::testing
