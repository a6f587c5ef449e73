#pragma once
/// State that is a function of a partition's log prefix: producer state first; stream index, group and queue state later.
/// Spec     docs/storage-format.md, "Snapshot file".
#include <cstddef>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "base/time.h"
#include "model/record_batch.h"

namespace tailrace::broker::log {

/// Shard    called only on the partition's shard, in log order.
/// Pure     the same prefix gives the same state, whoever applies it: leader, follower, recovery.
class DerivedState {
 public:
  virtual ~DerivedState() = default;
  /// `batch` is one validated batch with its offset assigned; `append_time` is the leader's, never the client's.
  virtual void apply(const BatchHeader& header, Bytes batch, WallTime append_time) = 0;
  /// Forgets all that was applied at or after `end`. False: it cannot tell, and must be loaded from a snapshot at or
  /// before `end` and replayed.
  [[nodiscard]] virtual bool roll_back(Offset end) = 0;
  [[nodiscard]] virtual std::vector<std::byte> snapshot() const = 0;
  /// Replaces the state. Errors: corrupt, newer_format; the state is then empty.
  [[nodiscard]] virtual Result<void> load(Bytes snapshot) = 0;
  virtual void clear() = 0;
};

}  // namespace tailrace::broker::log
