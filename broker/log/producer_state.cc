#include "log/producer_state.h"

#include <algorithm>
#include <limits>

#include "base/planted.h"

namespace tailrace::broker::log {
namespace {

constexpr std::uint16_t kSnapshotVersion = 1;
constexpr std::size_t kProducerBytes = 8 + 2 + 1 + 1;

/// Sequences count records and wrap from 2^31-1 to 0 (KIP-98).
std::int32_t sequence_after(std::int32_t base, std::int32_t records) {
  auto sum = std::int64_t{base} + records;
  return static_cast<std::int32_t>(sum & std::numeric_limits<std::int32_t>::max());
}

template <class T>
void put(std::vector<std::byte>& out, T value) {
  out.resize(out.size() + sizeof value);
  store_le(out.data() + out.size() - sizeof value, value);
}

}  // namespace

ProducerVerdict ProducerState::judge(const BatchHeader& header) const {
  if (header.producer_id.value() < 0) return {};
  auto found = producers_.find(header.producer_id);
  if (found == producers_.end()) {
    if (header.base_sequence == 0) return {};
    return {.answer = ProducerAnswer::unknown};
  }
  const Producer& producer = found->second;
  if (header.producer_epoch < producer.epoch) return {.answer = ProducerAnswer::fenced};
  if (header.producer_epoch > producer.epoch) {
    if (header.base_sequence == 0) return {};
    return {.answer = ProducerAnswer::out_of_order, .expected_sequence = 0};
  }
  if (producer.count == 0) return {};
  for (int i = 0; i < producer.count; ++i) {
    const Entry& entry = producer.window[static_cast<std::size_t>(i)];
    if (entry.base_sequence == header.base_sequence && entry.last_offset_delta == header.last_offset_delta) {
      return {.answer = ProducerAnswer::duplicate,
              .base_offset = entry.base_offset,
              .next_offset = entry.base_offset + (std::int64_t{entry.last_offset_delta} + 1),
              .append_time = WallTime{std::chrono::milliseconds{entry.append_time_ms}}};
    }
  }
  const Entry& last = producer.window[producer.count - 1U];
  std::int32_t expected = sequence_after(last.base_sequence, last.last_offset_delta + 1);
  if (header.base_sequence == expected) return {};
  // Older than the window, seen over the wrap: the distance backwards is the shorter one.
  auto behind = static_cast<std::uint32_t>(expected - header.base_sequence) & 0x7fffffffU;
  bool older = behind != 0 && behind < 0x40000000U;
  return {.answer = older ? ProducerAnswer::too_old : ProducerAnswer::out_of_order, .expected_sequence = expected};
}

void ProducerState::apply(const BatchHeader& header, Bytes, WallTime append_time) {
  std::int64_t now_ms = append_time.time_since_epoch().count();
  sweep(header.base_offset, now_ms);
  if (header.producer_id.value() < 0 || header.base_sequence < 0) return;
  auto found = producers_.find(header.producer_id);
  if (found == producers_.end()) {
    make_room(header.base_offset);
    found = producers_.emplace(header.producer_id, Producer{.epoch = header.producer_epoch}).first;
  }
  Producer& producer = found->second;
  if (producer.epoch != header.producer_epoch) {
    producer.epoch = header.producer_epoch;
    producer.forgotten = true;
    producer.count = 0;
  }
  if (producer.count == producer.window.size()) {
    std::move(producer.window.begin() + 1, producer.window.end(), producer.window.begin());
    --producer.count;
    producer.forgotten = true;
  }
  producer.window[producer.count++] = {header.base_offset, header.base_sequence, header.last_offset_delta, now_ms};
}

bool ProducerState::roll_back(Offset end) {
  if (forgot_at_ >= end) return false;
  for (const auto& [id, producer] : producers_) {
    if (producer.forgotten && producer.count > 0 && producer.window[producer.count - 1U].base_offset >= end) return false;
  }
  for (auto it = producers_.begin(); it != producers_.end();) {
    Producer& producer = it->second;
    while (producer.count > 0 && producer.window[producer.count - 1U].base_offset >= end) --producer.count;
    it = producer.count == 0 ? producers_.erase(it) : std::next(it);
  }
  return true;
}

void ProducerState::sweep(Offset at, std::int64_t now_ms) {
  constexpr auto kInterval = std::chrono::duration_cast<std::chrono::milliseconds>(kSweepInterval).count();
  constexpr auto kAge = std::chrono::duration_cast<std::chrono::milliseconds>(kExpiry).count();
  if (now_ms - last_sweep_ms_ < kInterval) return;
  last_sweep_ms_ = now_ms;
  auto dropped = std::erase_if(producers_, [&](const auto& item) {
    const Producer& producer = item.second;
    return producer.count > 0 && now_ms - producer.window[producer.count - 1U].append_time_ms > kAge;
  });
  if (dropped > 0) forgot_at_ = at;
}

void ProducerState::make_room(Offset at) {
  if (producers_.size() < limits::kProducersPerPartitionMax) return;
  // The longest silent eighth goes at once, so that a flood of new producers does not sort for each of its own.
  std::vector<std::pair<std::int64_t, ProducerId>> ages;
  ages.reserve(producers_.size());
  for (const auto& [id, producer] : producers_) {
    ages.emplace_back(producer.count > 0 ? producer.window[producer.count - 1U].base_offset.value() : -1, id);
  }
  auto middle = ages.begin() + static_cast<std::ptrdiff_t>(limits::kProducersPerPartitionMax / 8);
  std::nth_element(ages.begin(), middle, ages.end());
  for (auto it = ages.begin(); it != middle; ++it) producers_.erase(it->second);
  forgot_at_ = at;
}

void ProducerState::clear() {
  producers_.clear();
  last_sweep_ms_ = 0;
  forgot_at_ = Offset{-1};
}

std::vector<std::byte> ProducerState::snapshot() const {
  std::vector<ProducerId> ids;
  ids.reserve(producers_.size());
  for (const auto& [id, producer] : producers_) ids.push_back(id);
  std::ranges::sort(ids);  // the same state gives the same bytes
  std::vector<std::byte> out;
  put(out, kSnapshotVersion);
  put(out, std::uint16_t{0});
  put(out, last_sweep_ms_);
  put(out, forgot_at_.value());
  put(out, static_cast<std::uint32_t>(ids.size()));
  for (ProducerId id : ids) {
    const Producer& producer = producers_.at(id);
    put(out, id.value());
    put(out, producer.epoch.value());
    put(out, producer.count);
    put(out, static_cast<std::uint8_t>(producer.forgotten ? 1 : 0));
    for (int i = 0; i < producer.count; ++i) {
      const Entry& entry = producer.window[static_cast<std::size_t>(i)];
      put(out, entry.base_offset.value());
      put(out, entry.base_sequence);
      put(out, entry.last_offset_delta);
      put(out, entry.append_time_ms);
    }
  }
  return out;
}

Result<void> ProducerState::load(Bytes snapshot) {
  clear();
  if (planted(PlantedBug::forget_dedup_window)) return {};
  ByteReader in{snapshot};
  auto version = in.le<std::uint16_t>();
  auto reserved = in.le<std::uint16_t>();
  auto last_sweep = in.le<std::int64_t>();
  auto forgot = in.le<std::int64_t>();
  auto count = in.le<std::uint32_t>();
  if (!in.ok()) return fail(Errc::corrupt, "producer snapshot: shorter than its preamble");
  if (version > kSnapshotVersion) return fail(Errc::newer_format, "producer snapshot");
  if (version != kSnapshotVersion || reserved != 0) return fail(Errc::corrupt, "producer snapshot: preamble");
  if (count > limits::kProducersPerPartitionMax || count > in.remaining() / kProducerBytes) {
    return fail(Errc::corrupt, "producer snapshot: count");
  }
  std::unordered_map<ProducerId, Producer> loaded;
  loaded.reserve(count);
  for (std::uint32_t n = 0; n < count; ++n) {
    ProducerId id{in.le<std::int64_t>()};
    Producer producer{.epoch = ProducerEpoch{in.le<std::int16_t>()}, .count = in.le<std::uint8_t>()};
    auto flags = in.le<std::uint8_t>();
    if (!in.ok() || producer.count > producer.window.size() || flags > 1) return fail(Errc::corrupt, "producer snapshot: producer");
    producer.forgotten = flags == 1;
    for (int i = 0; i < producer.count; ++i) {
      Entry& entry = producer.window[static_cast<std::size_t>(i)];
      entry.base_offset = Offset{in.le<std::int64_t>()};
      entry.base_sequence = in.le<std::int32_t>();
      entry.last_offset_delta = in.le<std::int32_t>();
      entry.append_time_ms = in.le<std::int64_t>();
    }
    if (!in.ok()) return fail(Errc::corrupt, "producer snapshot: shorter than its count");
    loaded.emplace(id, producer);
  }
  if (in.remaining() != 0) return fail(Errc::corrupt, "producer snapshot: longer than its count");
  producers_ = std::move(loaded);
  last_sweep_ms_ = last_sweep;
  forgot_at_ = Offset{forgot};
  return {};
}

}  // namespace tailrace::broker::log
