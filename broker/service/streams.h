#pragma once
/// Calls about event streams: what is asked and answered, and where the index of a shard's streams comes from.
/// Spec     docs/event-store.md
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "base/result.h"
#include "base/task.h"
#include "base/time.h"
#include "io/runtime.h"
#include "model/ids.h"
#include "model/record_batch.h"
#include "stream/index.h"

namespace tailrace::broker::service {

/// The indexes of one shard's partitions of streams. On the shard's thread.
class StreamIndexes {
 public:
  virtual ~StreamIndexes() = default;
  /// Of one partition; not longer than this object.
  [[nodiscard]] virtual std::unique_ptr<stream::StreamIndex> index(const PartitionId& partition) = 0;
  /// No index of it is used any more.
  [[nodiscard]] virtual Task<void> close() = 0;
};
/// Asked on the shard's thread, when its first partition of streams is used.
using OpenStreamIndexes = std::function<Task<Result<std::unique_ptr<StreamIndexes>>>(io::Runtime& runtime, ShardIndex shard)>;

/// One batch of one stream. `batch` as in ProduceRequest: validated at the edge, its bytes ours from now on.
struct StreamAppendRequest {
  std::string topic;
  std::string stream;
  stream::Expected expected{};
  Slice batch{};
  BatchHeader header{};
  std::optional<Instant> deadline{};
};
struct StreamAppendReply {
  stream::Version first = 0;  // of its first event
  stream::Version last = 0;
  PartitionIndex partition{};
  Offset offset{};            // of its first event
  bool duplicate = false;     // stored before, as these versions
};

struct StreamReadRequest {
  std::string topic;
  std::string stream;
  stream::Version from = 0;   // backwards: -1, or past the end, is the last
  bool backwards = false;
  std::uint32_t events_max = 0;   // 1 to limits::kStreamReadEventsMax
  std::uint64_t bytes_max = 0;    // one batch is answered whatever its size; 0: limits::kStreamReadBytesMax, which is also the most
};
struct StreamBatch {
  stream::Version first = 0;  // of its first record
  Slice batch{};
};
struct StreamReadReply {
  std::vector<StreamBatch> batches{};  // in order of reading; whole, so the ends hold events that were not asked for
  stream::Head head{};                 // of what is committed
  bool end = false;                    // nothing is behind the last batch
};

/// Hides events below `before`; none: all there are.
struct StreamTruncateRequest {
  std::string topic;
  std::string stream;
  std::optional<stream::Version> before{};
};

struct StreamListRequest {
  std::string topic;
  std::string prefix;
  std::string after;       // empty: from the first
  std::uint32_t most = 0;  // 1 to limits::kStreamListMax
};

}  // namespace tailrace::broker::service
