#pragma once
/// The queue partitions of one shard: each is made when it is first needed, and made anew when it failed. Private to `service`.
/// Shard    its own.
#include <memory>

#include "service/loaded.h"
#include "service/queue_partition.h"

namespace tailrace::broker::service {

class QueueHost {
 public:
  explicit QueueHost(ShardCore& core);
  QueueHost(const QueueHost&) = delete;
  QueueHost& operator=(const QueueHost&) = delete;

  /// Of `__queue.T`, whose partition lives here. Errors: no_such_topic, and what StateLog says.
  [[nodiscard]] Task<Answer<std::shared_ptr<QueuePartition>>> partition(PartitionId state);
  /// Its topic was deleted.
  void forget(const PartitionId& state) { loaded_.forget(state); }
  void stop() { loaded_.stop(); }

 private:
  ShardCore& core_;
  Loaded<PartitionId, QueuePartition> loaded_;
};

}  // namespace tailrace::broker::service
