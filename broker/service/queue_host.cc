#include "service/queue_host.h"

#include <fmt/format.h>

#include "base/log.h"
#include "service/shard_core.h"

namespace tailrace::broker::service {

QueueHost::QueueHost(ShardCore& core) : core_{core}, changed_{core.runtime.executor} {}

Task<Answer<std::shared_ptr<QueuePartition>>> QueueHost::partition(PartitionId state) {
  for (;;) {
    if (core_.stopping || !core_.catalog) co_return refuse(Errc::shutting_down);
    cluster::TopicPointer topic = core_.catalog->find(state.topic);
    if (!topic || !topic->name.starts_with(cluster::kQueueStatePrefix)) {
      loaded_.erase(state);
      co_return refuse(Errc::no_such_topic, "it was deleted");
    }
    cluster::TopicPointer data = core_.catalog->find(std::string_view{topic->name}.substr(cluster::kQueueStatePrefix.size()));
    if (!data) co_return refuse(Errc::no_such_topic, "it was deleted");
    if (auto found = loaded_.find(state); found != loaded_.end() && !found->second->failed()) co_return found->second;
    if (loading_[state]) {
      co_await changed_.wait();
      continue;
    }
    loading_[state] = true;
    auto fresh = std::make_shared<QueuePartition>(core_, state, data->id);
    auto loaded = co_await fresh->load();
    loading_.erase(state);
    if (loaded) loaded_[state] = fresh;
    changed_.notify_all();
    if (!loaded) {
      if (loaded.error().code == Errc::corrupt || loaded.error().code == Errc::newer_format) {
        log_error("queue.load", "the queues of {} partition {} cannot be read: {}", data->name, state.index.value(), loaded.error().detail);
      }
      co_return std::unexpected(std::move(loaded).error());
    }
  }
}

void QueueHost::stop() {
  for (auto& [state, partition] : loaded_) partition->stop();
  changed_.notify_all();
}

}  // namespace tailrace::broker::service
