#pragma once
/// Idempotent producers of one partition (R12): id, epoch, the last five batches. Duplicates are recognised across crashes,
/// since the state is a function of the log prefix.
/// Spec     docs/storage-format.md, "Snapshot file"; sequence rules as Kafka's KIP-98.
#include <array>
#include <chrono>
#include <cstdint>
#include <unordered_map>

#include "log/derived_state.h"
#include "model/ids.h"
#include "model/limits.h"

namespace tailrace::broker::log {

enum class ProducerAnswer : std::uint8_t {
  accept,        // append it (batches without a producer id always)
  duplicate,     // stored before: answer with base_offset once next_offset is committed
  out_of_order,  // Errc::out_of_order_sequence: a gap, or a new epoch that does not begin at 0
  fenced,        // Errc::fenced: a newer epoch was seen
  unknown,       // Errc::unknown_producer: no state, and the sequence is not 0
  too_old,       // Errc::duplicate_sequence: older than the remembered five
};
struct ProducerVerdict {
  ProducerAnswer answer = ProducerAnswer::accept;
  Offset base_offset{};               // of the original, for a duplicate
  Offset next_offset{};               // its exclusive end
  WallTime append_time{};             // its leader append time
  std::int32_t expected_sequence = 0;  // for out_of_order: what would have been accepted
};

class ProducerState final : public DerivedState {
 public:
  [[nodiscard]] ProducerVerdict judge(const BatchHeader& header) const;

  void apply(const BatchHeader& header, Bytes batch, WallTime append_time) override;
  [[nodiscard]] bool roll_back(Offset end) override;
  [[nodiscard]] std::vector<std::byte> snapshot() const override;
  [[nodiscard]] Result<void> load(Bytes snapshot) override;
  void clear() override;
  [[nodiscard]] std::size_t size() const { return producers_.size(); }

  /// A producer silent for this long, by append times of the log and never by this node's clock, is forgotten (Kafka's
  /// producer.id.expiration.ms is one day; a week covers a long weekend's outage).
  static constexpr std::chrono::hours kExpiry{24 * 7};
  static constexpr std::chrono::hours kSweepInterval{1};

 private:
  struct Entry {
    Offset base_offset{};
    std::int32_t base_sequence = 0;
    std::int32_t last_offset_delta = 0;  // records - 1
    std::int64_t append_time_ms = 0;
  };
  struct Producer {
    ProducerEpoch epoch{};
    std::uint8_t count = 0;
    bool forgotten = false;  // a batch fell out of the window: rolling back past the oldest kept one needs a snapshot
    std::array<Entry, limits::kProducerWindowBatches> window{};  // oldest first
  };
  /// Sweeps and evictions depend only on what was applied, so that every replica forgets the same producers.
  void sweep(Offset at, std::int64_t now_ms);
  void make_room(Offset at);

  std::unordered_map<ProducerId, Producer> producers_;
  std::int64_t last_sweep_ms_ = 0;
  Offset forgot_at_{-1};  // a producer was dropped when the batch at this offset was applied
};

}  // namespace tailrace::broker::log
