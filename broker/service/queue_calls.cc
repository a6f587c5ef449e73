/// Calls about queue groups: carried to the shard where the state of the partition lives.
#include <fmt/format.h>

#include <algorithm>

#include "service/queue_host.h"
#include "service/shard_core.h"

namespace tailrace::broker::service {
namespace {

/// Runs `ask(partition)` where its state lives. `make`: `__queue.T` is made if it is not there.
template <class T, class F>
Task<Answer<T>> at_queue(ShardCore& core, std::string topic, PartitionIndex partition, bool make, F ask) {
  auto data = core.topic_named(topic);
  if (!data) co_return std::unexpected(std::move(data).error());
  auto fine = core.topic_of((*data)->id, partition);
  if (!fine) co_return std::unexpected(std::move(fine).error());
  std::string name = std::string{cluster::kQueueStatePrefix} + topic;
  cluster::TopicPointer state = core.catalog->find(name);
  if (!state) {
    if (!make) co_return refuse(Errc::no_such_group, "no queue group ever read the topic");
    auto made = co_await core.ensure_internal(name, 1, (*data)->id);
    if (!made) co_return std::unexpected(std::move(made).error());
    state = *made;
  }
  PartitionId id{state->id, partition};
  auto find = [id](ShardCore& there) { return there.queues->partition(id); };
  co_return co_await ask_there<T>(core, core.home(id), std::move(find), std::move(ask));
}

}  // namespace

Task<Answer<OpenedQueue>> ShardService::open_queue(std::string topic, PartitionIndex partition, OpenQueue request) {
  ShardCore& core = *core_;
  CallGuard guard{core};
  if (auto fine = guard.admitted(); !fine) co_return std::unexpected(std::move(fine).error());
  if (request.group.empty() || request.group.size() > limits::kGroupNameBytesMax) {
    co_return counted(core, Answer<OpenedQueue>{refuse(Errc::invalid_argument, fmt::format("a group's name has 1 to {} bytes", limits::kGroupNameBytesMax))});
  }
  auto ask = [&](QueuePartition& there) { return there.open(std::move(request)); };
  co_return counted(core, co_await at_queue<OpenedQueue>(core, std::move(topic), partition, true, ask));
}

Task<Answer<std::vector<LeasedRecord>>> ShardService::lease_records(std::string topic, PartitionIndex partition, LeaseRecords request) {
  ShardCore& core = *core_;
  CallGuard guard{core, &ShardCore::fetches};
  if (auto fine = guard.admitted(); !fine) co_return std::unexpected(std::move(fine).error());
  auto ask = [&](QueuePartition& there) { return there.lease(std::move(request)); };
  co_return counted(core, co_await at_queue<std::vector<LeasedRecord>>(core, std::move(topic), partition, false, ask));
}

Task<Answer<std::vector<Result<void>>>> ShardService::settle_records(std::string topic, PartitionIndex partition, std::string group, queue::WorkerId worker, std::vector<SettleRecord> records) {
  ShardCore& core = *core_;
  CallGuard guard{core};
  if (auto fine = guard.admitted(); !fine) co_return std::unexpected(std::move(fine).error());
  auto ask = [&](QueuePartition& there) { return there.settle(std::move(group), worker, std::move(records)); };
  co_return counted(core, co_await at_queue<std::vector<Result<void>>>(core, std::move(topic), partition, false, ask));
}

Task<Answer<QueueDescription>> ShardService::describe_queue(std::string topic, PartitionIndex partition, std::string group) {
  ShardCore& core = *core_;
  CallGuard guard{core};
  if (auto fine = guard.admitted(); !fine) co_return std::unexpected(std::move(fine).error());
  auto ask = [&](QueuePartition& there) { return there.describe(std::move(group)); };
  co_return counted(core, co_await at_queue<QueueDescription>(core, std::move(topic), partition, false, ask));
}

Task<Answer<std::vector<std::string>>> ShardService::list_queues(std::string topic, PartitionIndex partition) {
  using Reply = std::vector<std::string>;
  ShardCore& core = *core_;
  CallGuard guard{core};
  if (auto fine = guard.admitted(); !fine) co_return std::unexpected(std::move(fine).error());
  auto ask = [](QueuePartition& there) { return there.list(); };
  auto answer = co_await at_queue<Reply>(core, std::move(topic), partition, false, ask);
  if (!answer && answer.error().code == Errc::no_such_group) co_return Reply{};
  co_return counted(core, std::move(answer));
}

Task<Answer<void>> ShardService::delete_queue(std::string topic, PartitionIndex partition, std::string group) {
  ShardCore& core = *core_;
  CallGuard guard{core};
  if (auto fine = guard.admitted(); !fine) co_return fine;
  auto ask = [&](QueuePartition& there) { return there.remove(std::move(group)); };
  co_return counted(core, co_await at_queue<void>(core, std::move(topic), partition, false, ask));
}

/// Retention asks before it deletes: what queue groups have delivered and not settled leaves for the dead letters first.
Task<Offset> ShardCore::deletable(const cluster::Topic& topic, PartitionIndex partition, Offset before) {
  cluster::TopicPointer state = catalog ? catalog->find(std::string{cluster::kQueueStatePrefix} + topic.name) : nullptr;
  if (!state) co_return before;
  PartitionId id{state->id, partition};
  auto find = [id](ShardCore& there) { return there.queues->partition(id); };
  auto ask = [before](QueuePartition& there) { return there.retire(before); };
  auto answer = co_await ask_there<Offset>(*this, home(id), std::move(find), std::move(ask));
  co_return answer ? *answer : Offset{0};  // where its queues cannot be asked nothing goes
}

}  // namespace tailrace::broker::service
