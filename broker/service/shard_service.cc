/// The front ends' side: admit the call, carry it to the shard that owns what it is about, bring the answer back.
#include <fmt/format.h>

#include <algorithm>

#include "service/controller.h"
#include "service/shard_core.h"

namespace tailrace::broker::service {
namespace {

constexpr std::size_t kQueriesMax = static_cast<std::size_t>(limits::kPartitionsPerTopicMax);

}  // namespace

ShardService::ShardService(std::unique_ptr<ShardCore> core) : core_{std::move(core)} { core_->service = this; }
ShardService::~ShardService() = default;

std::shared_ptr<const cluster::Catalog> ShardService::catalog() const { return core_->catalog; }
std::uint64_t ShardService::producer_window_bytes() const { return core_->window_bytes(); }
Notifier& ShardService::window_changed() { return core_->window_changed; }
flow::MemoryBudget& ShardService::memory() { return core_->memory; }
ShardIndex ShardService::index() const { return core_->index; }
ShardStatus ShardService::status() const { return core_->status(); }
ShardHealth ShardService::health() const {
  const log::ShardLog* log = core_->log.get();
  if (!log) return {};
  if (!log->failed()) return {.oldest_write = log->oldest_write()};
  return {true, log->failure().detail};
}

Task<Answer<ProduceReply>> ShardService::produce(ProduceRequest request) {
  ShardCore& core = *core_;
  CallGuard guard{core};
  if (auto fine = guard.admitted(); !fine) {
    core.count_refusal(fine.error());
    co_return std::unexpected(std::move(fine).error());
  }
  ShardIndex owner = core.home({request.topic, request.partition});
  if (owner == core.index) co_return counted(core, co_await core.produce(std::move(request)));
  ShardCore& there = core.core_of(owner);
  auto append = [&there, &request] { return there.produce(std::move(request)); };
  co_return counted(core, co_await core.port.call_on(owner, std::move(append)));
}

Task<Answer<cluster::TopicPointer>> ShardService::create_topic(CreateTopicRequest request) {
  ShardCore& core = *core_;
  CallGuard guard{core};
  if (auto fine = guard.admitted(); !fine) co_return std::unexpected(std::move(fine).error());
  auto create = [&core, &request] { return core.node.controller->create(std::move(request)); };
  co_return counted(core, co_await core.port.call_on(kControllerShard, std::move(create)));
}

Task<Answer<cluster::TopicPointer>> ShardService::alter_topic(AlterTopicRequest request) {
  ShardCore& core = *core_;
  CallGuard guard{core};
  if (auto fine = guard.admitted(); !fine) co_return std::unexpected(std::move(fine).error());
  auto alter = [&core, &request] { return core.node.controller->alter(std::move(request)); };
  co_return counted(core, co_await core.port.call_on(kControllerShard, std::move(alter)));
}

Task<Answer<void>> ShardService::delete_topic(std::string name, bool validate_only) {
  ShardCore& core = *core_;
  CallGuard guard{core};
  if (auto fine = guard.admitted(); !fine) co_return fine;
  auto remove = [&core, &name, validate_only] { return core.node.controller->remove(name, validate_only); };
  co_return counted(core, co_await core.port.call_on(kControllerShard, std::move(remove)));
}

Task<Answer<TopicDescription>> ShardService::describe_topic(std::string name) {
  ShardCore& core = *core_;
  CallGuard guard{core};
  if (auto fine = guard.admitted(); !fine) co_return std::unexpected(std::move(fine).error());
  auto topic = core.topic_named(name);
  if (!topic) co_return counted(core, Answer<TopicDescription>{std::unexpected(std::move(topic).error())});
  TopicDescription description{.topic = *topic, .config = {}, .partitions = {}};
  for (const cluster::TopicKeyInfo& info : cluster::topic_keys()) {
    description.config.push_back({.key = std::string{info.name}, .value = cluster::print_topic_key((*topic)->config, info.key),
                                  .is_default = (*topic)->is_default(info.key), .meaning = std::string{info.meaning}});
  }
  for (std::uint32_t i = 0; i < core.node.cores.size(); ++i) {
    ShardCore& there = core.core_of(ShardIndex{i});
    auto describe = [&there, id = (*topic)->id] { return there.describe_partitions(id); };
    auto some = co_await core.port.call_on(ShardIndex{i}, std::move(describe));
    if (!some) co_return counted(core, Answer<TopicDescription>{std::unexpected(std::move(some).error())});
    std::ranges::move(*some, std::back_inserter(description.partitions));
  }
  std::ranges::sort(description.partitions, {}, &PartitionDescription::index);
  co_return description;
}

Task<Answer<void>> ShardService::change_members(TopicId topic, PartitionIndex partition, raft::MembershipChange change) {
  ShardCore& core = *core_;
  CallGuard guard{core};
  if (auto fine = guard.admitted(); !fine) co_return fine;
  auto ask = [change](ReplicatedPartition& replicated) { return replicated.change_members(change); };
  co_return counted(core, co_await core.ask_replica({topic, partition}, ask));
}

Task<Answer<void>> ShardService::transfer(TopicId topic, PartitionIndex partition, raft::ReplicaId to) {
  ShardCore& core = *core_;
  CallGuard guard{core};
  if (auto fine = guard.admitted(); !fine) co_return fine;
  auto ask = [to](ReplicatedPartition& replicated) { return replicated.transfer(to); };
  co_return counted(core, co_await core.ask_replica({topic, partition}, ask));
}

ShardIndex ShardService::home(const PartitionId& partition) const { return core_->home(partition); }

void ShardService::receive(PeerMessage message) { core_->receive(std::move(message)); }

Task<Answer<std::vector<PartitionOffset>>> ShardService::delete_records(DeleteRecordsRequest request) {
  using Reply = Answer<std::vector<PartitionOffset>>;
  ShardCore& core = *core_;
  CallGuard guard{core};
  if (auto fine = guard.admitted(); !fine) co_return std::unexpected(std::move(fine).error());
  auto topic = core.topic_named(request.topic);
  if (!topic) co_return counted(core, Reply{std::unexpected(std::move(topic).error())});
  if (request.before.size() > kQueriesMax) co_return counted(core, Reply{refuse(Errc::too_many, "partitions in one request")});
  // All are checked before the first is cut.
  std::vector<PartitionOffset> starts;
  for (bool validate_only : {true, false}) {
    if (!validate_only && request.validate_only) break;
    starts.clear();
    for (const PartitionOffset& before : request.before) {
      ShardCore& there = core.core_of(core.home({(*topic)->id, before.partition}));
      auto cut = [&there, id = (*topic)->id, &before, validate_only] { return there.delete_records(id, before, validate_only); };
      auto start = co_await core.port.call_on(there.index, std::move(cut));
      if (!start) co_return counted(core, Reply{std::unexpected(std::move(start).error())});
      starts.push_back(*start);
    }
  }
  co_return starts;
}

Task<Answer<std::vector<Answer<ListedOffset>>>> ShardService::list_offsets(std::string name, std::vector<ListOffsetsQuery> queries) {
  using Reply = Answer<std::vector<Answer<ListedOffset>>>;
  ShardCore& core = *core_;
  CallGuard guard{core};
  if (auto fine = guard.admitted(); !fine) co_return std::unexpected(std::move(fine).error());
  auto topic = core.topic_named(name);
  if (!topic) co_return counted(core, Reply{std::unexpected(std::move(topic).error())});
  if (queries.size() > kQueriesMax) co_return counted(core, Reply{refuse(Errc::too_many, "partitions in one request")});
  std::vector<Answer<ListedOffset>> listed(queries.size(), refuse(Errc::internal));
  auto ask = [&](std::int32_t i) -> Task<Result<void>> {
    auto at = static_cast<std::size_t>(i);
    ShardCore& there = core.core_of(core.home({(*topic)->id, queries[at].partition}));
    auto on_shard = [&there, id = (*topic)->id, query = queries[at]] { return there.list_offset(id, query); };
    listed[at] = counted(core, co_await core.port.call_on(there.index, std::move(on_shard)));
    co_return Result<void>{};
  };
  (void)co_await for_each_bounded(0, static_cast<std::int32_t>(queries.size()), limits::kPartitionsOpeningMax, ask);
  co_return listed;
}

Task<Answer<OpenProducerReply>> ShardService::open_producer(OpenProducerRequest request) {
  using Reply = Answer<OpenProducerReply>;
  ShardCore& core = *core_;
  CallGuard guard{core};
  if (auto fine = guard.admitted(); !fine) co_return std::unexpected(std::move(fine).error());
  auto topic = core.topic_named(request.topic);
  if (!topic) co_return counted(core, Reply{std::unexpected(std::move(topic).error())});
  if ((*topic)->internal) co_return counted(core, Reply{refuse(Errc::unauthorized, fmt::format("{} belongs to the broker", (*topic)->name))});
  if ((*topic)->config.streams) co_return counted(core, Reply{refuse(Errc::stream_topic, (*topic)->name)});
  OpenProducerReply reply{.topic = *topic, .producer_epoch = ProducerEpoch{-1}, .window_bytes = core.window_bytes()};
  if (!request.idempotent) co_return reply;

  if (request.producer_id) {
    auto known = [&core, id = *request.producer_id] { return core.node.controller->gave_out(id); };
    bool gave_out = co_await core.port.call_on(kControllerShard, std::move(known));
    if (!gave_out) {
      co_return counted(core, Reply{refuse(Errc::unknown_producer, fmt::format("producer id {} was never given out", request.producer_id->value()))});
    }
    if (request.producer_epoch < ProducerEpoch{0}) co_return counted(core, Reply{refuse(Errc::invalid_argument, "a producer epoch is not negative")});
    reply.producer_id = *request.producer_id;
    reply.producer_epoch = request.producer_epoch;
    co_return reply;
  }
  while (core.producer_id_next == core.producer_id_end) {
    if (core.stopping) co_return counted(core, Reply{refuse(Errc::shutting_down)});
    if (core.producer_ids_asked) {
      co_await core.producer_ids_changed.wait();
      continue;
    }
    core.producer_ids_asked = true;
    auto allocate = [&core] { return core.node.controller->allocate_producer_ids(); };
    auto first = co_await core.port.call_on(kControllerShard, std::move(allocate));
    core.producer_ids_asked = false;
    core.producer_ids_changed.notify_all();
    if (!first) co_return counted(core, Reply{std::unexpected(std::move(first).error())});
    core.producer_id_next = *first;
    core.producer_id_end = *first + limits::kProducerIdBlock;
  }
  reply.producer_id = ProducerId{core.producer_id_next++};
  reply.producer_epoch = ProducerEpoch{0};
  co_return reply;
}

Task<Answer<void>> ShardService::skip_damage(std::string name, PartitionIndex partition) {
  ShardCore& core = *core_;
  CallGuard guard{core};
  if (auto fine = guard.admitted(); !fine) co_return fine;
  auto topic = core.topic_named(name);
  if (!topic) co_return counted(core, Answer<void>{std::unexpected(std::move(topic).error())});
  ShardCore& there = core.core_of(core.home({(*topic)->id, partition}));
  auto skip = [&there, id = (*topic)->id, partition] { return there.skip_damage(id, partition); };
  co_return counted(core, co_await core.port.call_on(there.index, std::move(skip)));
}

}  // namespace tailrace::broker::service
