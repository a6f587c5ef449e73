#include "service/group_host.h"

#include <fmt/format.h>

#include "base/log.h"
#include "codec/murmur2.h"
#include "io/wait.h"
#include "service/shard_core.h"

namespace tailrace::broker::service {
namespace {
constexpr std::chrono::milliseconds kTick{250};  // a quarter of the shortest session
constexpr std::chrono::seconds kMeasureEvery{5};
constexpr std::size_t kFiguresMax = 1'000;  // groups on topics: each is a handful of lines for whoever scrapes
}

PartitionIndex coordinator_of(std::string_view group) { return codec::partition_for_key(as_bytes(group), limits::kOffsetsPartitions); }

GroupHost::GroupHost(ShardCore& core) : core_{core}, changed_{core.runtime.executor} {}

Task<Answer<std::shared_ptr<GroupCoordinator>>> GroupHost::coordinator(PartitionIndex partition) {
  for (;;) {
    if (core_.stopping || !core_.catalog) co_return refuse(Errc::shutting_down);
    cluster::TopicPointer topic = core_.catalog->find(kOffsetsTopic);
    if (!topic) co_return refuse(Errc::no_such_group, "no group was ever stored");
    if (auto found = loaded_.find(partition); found != loaded_.end() && !found->second->failed()) co_return found->second;
    if (loading_[partition]) {
      co_await changed_.wait();
      continue;
    }
    loading_[partition] = true;
    auto fresh = std::make_shared<GroupCoordinator>(core_, PartitionId{topic->id, partition});
    auto loaded = co_await fresh->load();
    loading_[partition] = false;
    if (loaded) loaded_[partition] = fresh;
    changed_.notify_all();
    if (!loaded) {
      if (loaded.error().code != Errc::shutting_down && loaded.error().code != Errc::not_leader) {
        log_error("group.load", "the groups of partition {} of {} cannot be read: {}", partition.value(), kOffsetsTopic, loaded.error().detail);
      }
      co_return std::unexpected(std::move(loaded).error());
    }
  }
}

Task<void> GroupHost::load_all() {
  cluster::TopicPointer topic = core_.catalog ? core_.catalog->find(kOffsetsTopic) : nullptr;
  if (!topic) co_return;
  for (std::int32_t i = 0; i < topic->partitions && !core_.stopping; ++i) {
    if (core_.home({topic->id, PartitionIndex{i}}) != core_.index) continue;
    (void)co_await coordinator(PartitionIndex{i});  // whoever asks hears why
  }
}

Task<void> GroupHost::ticks() {
  while (!core_.stopping) {
    if (loaded_.empty()) {
      co_await changed_.wait();
      continue;
    }
    bool stopped = co_await io::WaitUntil{core_.stop_signal, core_.runtime, core_.runtime.clock.now() + kTick};
    if (stopped || core_.stopping) continue;
    std::map<PartitionIndex, std::shared_ptr<GroupCoordinator>> now = loaded_;
    for (auto& [index, coordinator] : now) co_await coordinator->tick();
  }
}

Task<void> GroupHost::measure() {
  while (!core_.stopping) {
    if (loaded_.empty()) {
      co_await changed_.wait();
      continue;
    }
    std::vector<GroupFigures> fresh;
    std::uint64_t left_out = 0;
    std::map<PartitionIndex, std::shared_ptr<GroupCoordinator>> now = loaded_;
    for (auto& [index, coordinator] : now) {
      auto groups = co_await coordinator->list();
      if (!groups) continue;
      for (const GroupSummary& one : *groups) {
        if (fresh.size() + one.topics.size() > kFiguresMax) {
          left_out += one.topics.size();
          continue;
        }
        auto described = co_await coordinator->describe(one.group);
        if (!described || core_.stopping) continue;
        co_await core_.measure(*described);
        for (const GroupLag& lag : described->partitions) {
          if (fresh.empty() || fresh.back().group != one.group || fresh.back().topic != lag.topic) {
            fresh.push_back({.group = one.group, .topic = lag.topic, .state = described->state, .members = described->members.size(), .generation = described->generation});
          }
          GroupFigures& figures = fresh.back();
          figures.lag_records += std::max<std::int64_t>(lag.records, 0);
          figures.behind_ms = std::max(figures.behind_ms, lag.behind_ms);
          figures.last_commit_ms = std::max(figures.last_commit_ms, lag.committed_time_ms);
        }
      }
    }
    figures_ = std::move(fresh);
    figures_left_out_ = left_out;
    Instant next = core_.runtime.clock.now() + kMeasureEvery;
    while (!core_.stopping && core_.runtime.clock.now() < next) {
      bool stopped = co_await io::WaitUntil{core_.stop_signal, core_.runtime, next};
      (void)stopped;
    }
  }
}

void GroupHost::stop() {
  for (auto& [index, coordinator] : loaded_) coordinator->stop();
  changed_.notify_all();
}

}  // namespace tailrace::broker::service
