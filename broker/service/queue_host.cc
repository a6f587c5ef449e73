#include "service/queue_host.h"

#include <fmt/format.h>

#include "base/log.h"
#include "service/shard_core.h"

namespace tailrace::broker::service {

QueueHost::QueueHost(ShardCore& core) : core_{core}, loaded_{core} {}

Task<Answer<std::shared_ptr<QueuePartition>>> QueueHost::partition(PartitionId state) {
  if (core_.stopping || !core_.catalog) co_return refuse(Errc::shutting_down);
  cluster::TopicPointer topic = core_.catalog->find(state.topic);
  cluster::TopicPointer data;
  if (topic && topic->name.starts_with(cluster::kQueueStatePrefix)) data = core_.catalog->find(std::string_view{topic->name}.substr(cluster::kQueueStatePrefix.size()));
  if (!data) co_return refuse(Errc::no_such_topic, "it was deleted");
  auto make = [this, state, id = data->id] { return std::make_shared<QueuePartition>(core_, state, id); };
  auto found = co_await loaded_.get(state, std::move(make));
  if (!found && (found.error().code == Errc::corrupt || found.error().code == Errc::newer_format)) {
    log_error("queue.load", "the queues of {} partition {} cannot be read: {}", data->name, state.index.value(), found.error().detail);
  }
  co_return found;
}

}  // namespace tailrace::broker::service
