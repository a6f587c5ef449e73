#pragma once
/// The queue partitions of one shard: each is made when it is first needed, and made anew when it failed. Private to `service`.
/// Shard    its own.
#include <map>
#include <memory>

#include "service/queue_partition.h"

namespace tailrace::broker::service {

class QueueHost {
 public:
  explicit QueueHost(ShardCore& core);
  QueueHost(const QueueHost&) = delete;
  QueueHost& operator=(const QueueHost&) = delete;

  /// Of `__queue.T`, whose partition lives here. Errors: no_such_topic, and what StateLog says.
  [[nodiscard]] Task<Answer<std::shared_ptr<QueuePartition>>> partition(PartitionId state);
  void stop();

 private:
  ShardCore& core_;
  std::map<PartitionId, std::shared_ptr<QueuePartition>> loaded_{};
  std::map<PartitionId, bool> loading_{};
  Notifier changed_;
};

}  // namespace tailrace::broker::service
