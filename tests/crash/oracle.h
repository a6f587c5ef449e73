#pragma once
/// What a shard log may hold after a crash, told from what was asked of it and what it answered.
///
/// Of each partition the appends and truncations are kept in order. An answer "durable", a high watermark or a record that a
/// reader was given settles everything up to it. What recovery finds must be the result of a prefix of that order which
/// includes all that is settled: nothing acknowledged is lost, nothing is reordered, no batch is half there.
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/time.h"
#include "model/ids.h"
#include "model/record_batch.h"
#include "tests/support/history.h"

namespace tailrace::broker::crash {

struct StoredBatch {
  BatchHeader header{};          // as assigned
  std::vector<std::byte> bytes;  // as assigned
  WallTime append_time{};
  std::vector<history::Value> values;
  std::size_t event = 0;         // of the history
  [[nodiscard]] Offset base() const { return header.base_offset; }
  [[nodiscard]] Offset next() const { return header.next_offset(); }
};
using BatchPtr = std::shared_ptr<const StoredBatch>;
using Log = std::vector<BatchPtr>;

struct HardState {
  LeaderEpoch term{};
  std::optional<NodeId> vote = NodeId{-1};  // -1: none; nothing: not known to the oracle
  friend bool operator==(const HardState&, const HardState&) = default;
};

/// One partition. `created`: create() answered; `asked`: it was called.
class PartitionOracle {
 public:
  PartitionOracle(PartitionId id, std::uint32_t key) : id_{id}, key_{key} {}
  [[nodiscard]] PartitionId id() const { return id_; }
  [[nodiscard]] std::uint32_t key() const { return key_; }

  std::uint64_t append(BatchPtr batch) { return push({.batch = std::move(batch)}); }
  std::uint64_t truncate(Offset end) {
    return push({.cut = end});
  }
  /// Operation `number` was refused before anything was written.
  void abort(std::uint64_t number) {
    std::erase_if(open_, [&](const Operation& o) { return o.number == number; });
  }
  /// Operation `number` and all before it are durable.
  void settle(std::uint64_t number);
  /// Everything below `end` is durable: a high watermark, or a record in a reader's hands. Says nothing while a truncation
  /// is open, since the same offset may then mean two records.
  void settle_to(Offset end);
  /// What must be there, at least; and what is there if all that was asked happens.
  [[nodiscard]] const Log& settled() const { return settled_; }
  [[nodiscard]] Log asked() const;
  [[nodiscard]] Offset asked_end() const;
  /// Whether `found` (from `start` on) is a legal outcome of a crash. Empty when it is; the outcome is then what is settled.
  [[nodiscard]] std::string accept(const Log& found, Offset start);
  /// The log after k of the open operations.
  [[nodiscard]] std::size_t open_operations() const { return open_.size(); }
  [[nodiscard]] bool truncation_open() const;
  /// Truncated or removed at some time: the client history knows neither.
  [[nodiscard]] bool outside_history() const { return outside_history_; }
  /// The stored batch that these bytes are, whichever operation it came from; null when nobody appended them.
  [[nodiscard]] BatchPtr known(Offset base, Bytes bytes) const;
  /// The first settled batch that ends after `offset`; null behind the end.
  [[nodiscard]] BatchPtr settled_after(Offset offset) const;
  /// Forgets settled batches at the end that recovery was allowed to cut.
  void allow_cut(Offset end);

  // Existence.
  bool create_asked = false, created = false, remove_asked = false, removed = false;
  // Log start: what was answered, and the highest that was asked for.
  Offset start{}, start_asked{};
  // Hard state as last answered, or as the newest settled batch implies.
  HardState hard{};

 private:
  friend struct Oracle;
  struct Operation {
    BatchPtr batch{};  // null: a truncation
    Offset cut{};
    std::uint64_t number = 0;
  };
  std::uint64_t push(Operation operation);
  static void apply(Log& log, const Operation& operation);
  void settle_front();
  [[nodiscard]] static Offset end_of(const Log& log) { return log.empty() ? Offset{} : log.back()->next(); }

  PartitionId id_;
  std::uint32_t key_;
  Log settled_;
  std::deque<Operation> open_;
  std::uint64_t next_number_ = 1;
  bool outside_history_ = false;
};

/// A whole shard: partitions, the client history, and what was found wrong.
struct Oracle {
  std::map<PartitionId, PartitionOracle> partitions;
  /// The next sequence number of each idempotent producer, as its client counts.
  std::map<std::pair<ProducerId, PartitionId>, std::int32_t> sequences;
  history::History history;
  std::vector<std::string> violations;
  std::uint64_t next_counter = 0;
  std::uint32_t next_reader = 1'000'000;  // history processes of readers; producers have their id
  std::uint32_t generation = 0;           // of partitions made anew under an old id
  std::int64_t clock = 0;                 // ns: where the history's time stands between two lives
  std::optional<WallTime> wall;           // and UTC

  PartitionOracle& partition(PartitionId id);
  [[nodiscard]] PartitionOracle* find(const PartitionId& id);
  /// Its log is cut or removed on purpose: left out of the judgement of the client history.
  void leave_history(PartitionOracle& po) {
    po.outside_history_ = true;
    unjudged.insert(po.key());
  }
  std::set<std::uint32_t> unjudged;
  /// The partition is gone for good; one of the same id is another.
  void forget(PartitionId id);
  void violation(std::string text) {
    if (violations.size() < 20) violations.push_back(std::move(text));
  }
  /// Without the history: for judging one crash of many.
  [[nodiscard]] Oracle fork() const;
};

[[nodiscard]] std::string name_of(const PartitionId& id);

}  // namespace tailrace::broker::crash
