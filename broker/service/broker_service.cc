/// Start and stop of a node.
#include "service/broker_service.h"

#include <fmt/format.h>

#include <atomic>

#include "base/log.h"
#include "io/wait.h"
#include "log/data_directory.h"
#include "service/controller.h"
#include "service/group_host.h"
#include "service/queue_host.h"
#include "service/members_codec.h"
#include "service/shard_core.h"
#include "service/stream_partition.h"
#include "shard/shards.h"

namespace tailrace::broker::service {

struct BrokerService::Node {
  NodeContext context;
  std::vector<io::Runtime*> runtimes;
  std::vector<std::unique_ptr<ShardService>> services;  // by shard
  std::unique_ptr<Controller> controller;
  std::unique_ptr<log::DataDirectory> directory;
  std::atomic<BrokerState> state{BrokerState::created};
  bool background = false;

  [[nodiscard]] shard::Port& port() const { return context.shards->port(kControllerShard); }
  [[nodiscard]] std::int32_t count() const { return static_cast<std::int32_t>(context.cores.size()); }
  /// Runs `task(core)` on every shard at once.
  template <class F>
  Task<Result<void>> on_every_shard(F task) {
    auto one = [&](std::int32_t i) -> Task<Result<void>> {
      ShardCore& core = *context.cores[static_cast<std::size_t>(i)];
      auto there = [&]() -> Task<Result<void>> { return task(core); };
      co_return co_await port().call_on(core.index, std::move(there));
    };
    co_return co_await for_each_bounded(0, count(), static_cast<std::size_t>(count()), one);
  }

  Task<Result<StartReport>> start();
  Task<bool> close_logs();
};

BrokerService::BrokerService(BrokerOptions options, std::vector<io::Runtime*> runtimes, shard::Shards& shards)
    : node_{std::make_unique<Node>()} {
  TAILRACE_CHECK(runtimes.size() == shards.count() && !runtimes.empty(), "each shard has one runtime");
  node_->context.options = std::move(options);
  node_->context.shards = &shards;
  node_->runtimes = std::move(runtimes);
}

BrokerService::~BrokerService() {
  BrokerState now = state();
  TAILRACE_CHECK(now == BrokerState::created || now == BrokerState::failed || now == BrokerState::stopped,
                 "a broker is stopped before it is destroyed");
}

Task<Result<StartReport>> BrokerService::Node::start() {
  StartReport report;
  io::Runtime& runtime = *runtimes.front();
  BrokerOptions& options = context.options;
  auto shards = static_cast<std::uint32_t>(runtimes.size());
  TAILRACE_CO_TRY(directory, co_await log::DataDirectory::open(runtime, options.data_directory, shards, {.node = options.node, .cluster_id = {}}));
  context.node = directory->identity().node;
  context.cluster_id = directory->identity().cluster_id;
  options.log.data_directory = options.data_directory;
  options.log.directory_id = directory->identity().directory_id;
  report.is_new = directory->is_new();
  report.was_clean = directory->was_clean();
  report.shards_before = directory->shards_before();

  for (std::uint32_t i = 0; i < shards; ++i) {
    auto core = std::make_unique<ShardCore>(context, ShardIndex{i}, *runtimes[i]);
    context.cores.push_back(core.get());
    services.push_back(std::make_unique<ShardService>(std::move(core)));
  }
  TAILRACE_CO_TRY_VOID(co_await directory->mark_dirty());
  if (directory->shards_before() != shards) log_info("shards.rehome", "from {} shards to {}", directory->shards_before(), shards);
  TAILRACE_CO_TRY_VOID(co_await log::rehome(runtime, *directory, options.log));
  auto open = [&options](ShardCore& core) -> Task<Result<void>> {
    log::ShardLogOptions mine = options.log;
    mine.shard = core.index;
    raft::ReplicaId self{core.node.node, directory_id_of(mine.directory_id)};
    TAILRACE_CO_TRY(core.log, co_await log::ShardLog::open(core.runtime, std::move(mine)));
    core.replication = std::make_unique<Replication>(core.node.options.replication, self, core.log->incarnation(), core.runtime, core.background);
    co_return Result<void>{};
  };
  TAILRACE_CO_TRY_VOID(co_await on_every_shard(open));

  controller = std::make_unique<Controller>(*context.cores.front());
  context.controller = controller.get();
  TAILRACE_CO_TRY_VOID(co_await controller->load(directory->is_new()));
  TAILRACE_CO_TRY_VOID(co_await controller->reconcile(report));
  report.recovery.resize(shards);
  auto begin = [&report](ShardCore& core) -> Task<Result<void>> {
    report.recovery[core.index.value()] = core.log->recovery();
    core.start_background();
    co_return Result<void>{};
  };
  background = true;
  TAILRACE_CO_TRY_VOID(co_await on_every_shard(begin));
  co_await controller->publish(std::nullopt);
  co_return report;
}

/// Ends everything that runs on the shards, closes what is open. True: nothing failed.
Task<bool> BrokerService::Node::close_logs() {
  bool clean = true;
  auto end_background = [](ShardCore& core) -> Task<Result<void>> {
    if (core.log) core.log->begin_close();  // some of it may wait for a full disk
    co_await core.background.drain();
    co_return Result<void>{};
  };
  (void)co_await on_every_shard(end_background);
  auto close = [](ShardCore& core) -> Task<Result<void>> {
    if (!core.log) co_return Result<void>{};
    co_await core.log->close();
    // Calls that were still under way have been answered `closed` by now, or are about to be.
    while (core.calls != 0) co_await core.calls_changed.wait();
    co_await core.background.drain();
    Result<void> outcome;
    if (core.log->failed()) outcome = std::unexpected(core.log->failure());
    co_return outcome;
  };
  clean = (co_await on_every_shard(close)).has_value();
  if (controller) controller->close();
  auto forget = [](ShardCore& core) -> Task<Result<void>> {
    co_await core.background.drain();  // what a call of another shard left here before it ended
    core.groups.reset();  // they hold slots
    core.queues.reset();
    core.slots.clear();
    if (core.stream_indexes) co_await core.stream_indexes->close();
    core.stream_indexes.reset();
    core.replication.reset();
    core.log.reset();
    core.catalog.reset();
    co_return Result<void>{};
  };
  (void)co_await on_every_shard(forget);
  context.controller = nullptr;
  controller.reset();
  co_return clean;
}

Task<Result<StartReport>> BrokerService::start() {
  TAILRACE_CHECK(state() == BrokerState::created, "a broker is started once");
  node_->state = BrokerState::starting;
  auto report = co_await node_->start();
  if (report) {
    node_->state = BrokerState::serving;
    log_info("broker.started", "topics {}, partitions {}, shards {}; {}", report->topics, report->partitions, node_->count(),
             report->is_new ? "new data directory" : report->was_clean ? "after a clean stop" : "recovered");
    co_return report;
  }
  auto end = [](ShardCore& core) -> Task<Result<void>> {
    core.begin_stop();
    co_return Result<void>{};
  };
  (void)co_await node_->on_every_shard(end);
  (void)co_await node_->close_logs();
  node_->directory.reset();
  node_->state = BrokerState::failed;
  co_return report;
}

Task<StopReport> BrokerService::stop(Instant deadline) {
  StopReport report;
  if (state() != BrokerState::serving) co_return report;
  node_->state = BrokerState::stopping;
  auto begin = [](ShardCore& core) -> Task<Result<void>> {
    core.begin_stop();
    co_return Result<void>{};
  };
  (void)co_await node_->on_every_shard(begin);
  std::vector<std::size_t> left(node_->services.size());
  auto drain = [&left, deadline](ShardCore& core) -> Task<Result<void>> {
    while (core.calls != 0 && core.runtime.clock.now() < deadline) {
      bool signalled = co_await io::WaitUntil{core.calls_changed, core.runtime, deadline};
      (void)signalled;
    }
    left[core.index.value()] = core.calls;
    co_return Result<void>{};
  };
  (void)co_await node_->on_every_shard(drain);
  for (std::size_t calls : left) report.calls_left += calls;

  bool closed = co_await node_->close_logs();
  if (closed) {
    auto marked = co_await node_->directory->mark_clean();
    report.clean = marked.has_value();
    if (!marked) log_warn("broker.stop", "the clean mark could not be set: {}", marked.error().detail);
  }
  node_->directory.reset();
  node_->state = BrokerState::stopped;
  log_info("broker.stopped", "{}", report.clean ? "clean" : "not clean: the next start recovers");
  co_return report;
}

BrokerState BrokerService::state() const { return node_->state.load(); }
ShardService& BrokerService::shard(ShardIndex index) { return *node_->services.at(index.value()); }
std::uint32_t BrokerService::shard_count() const { return static_cast<std::uint32_t>(node_->runtimes.size()); }
NodeId BrokerService::node_id() const { return node_->context.node; }
const std::string& BrokerService::cluster_id() const { return node_->context.cluster_id; }

Task<std::vector<ShardStatus>> BrokerService::status(ShardIndex asking_from) {
  std::vector<ShardStatus> all;
  shard::Port& port = node_->context.shards->port(asking_from);
  for (ShardCore* core : node_->context.cores) {
    auto ask = [core] { return core->status(); };
    all.push_back(co_await port.call_on(core->index, std::move(ask)));
  }
  co_return all;
}

}  // namespace tailrace::broker::service
