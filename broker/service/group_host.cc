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
constexpr std::size_t kFiguresMax = 1'000;      // groups on topics: each is a handful of lines for whoever scrapes
constexpr std::size_t kMeasuredMax = 10'000;    // partitions of them in one round: each is looked at on its shard
}

PartitionIndex coordinator_of(std::string_view group) { return codec::partition_for_key(as_bytes(group), limits::kOffsetsPartitions); }

GroupHost::GroupHost(ShardCore& core) : core_{core}, loaded_{core} {}

Task<Answer<std::shared_ptr<GroupCoordinator>>> GroupHost::coordinator(PartitionIndex partition) {
  if (core_.stopping || !core_.catalog) co_return refuse(Errc::shutting_down);
  cluster::TopicPointer topic = core_.catalog->find(kOffsetsTopic);
  if (!topic) co_return refuse(Errc::no_such_group, "no group was ever stored");
  auto make = [this, id = PartitionId{topic->id, partition}] { return std::make_shared<GroupCoordinator>(core_, id); };
  auto found = co_await loaded_.get(partition, std::move(make));
  if (!found && (found.error().code == Errc::corrupt || found.error().code == Errc::newer_format)) {
    log_error("group.load", "the groups of partition {} of {} cannot be read: {}", partition.value(), kOffsetsTopic, found.error().detail);
  }
  co_return found;
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
    if (loaded_.all().empty()) {
      co_await loaded_.changed().wait();
      continue;
    }
    bool stopped = co_await io::WaitUntil{core_.stop_signal, core_.runtime, core_.runtime.clock.now() + kTick};
    if (stopped || core_.stopping) continue;
    std::map<PartitionIndex, std::shared_ptr<GroupCoordinator>> now = loaded_.all();
    for (auto& [index, coordinator] : now) co_await coordinator->tick();
  }
}

Task<void> GroupHost::measure() {
  while (!core_.stopping) {
    if (loaded_.all().empty()) {
      co_await loaded_.changed().wait();
      continue;
    }
    std::vector<GroupFigures> fresh;
    std::uint64_t left_out = 0;
    std::size_t measured = 0;
    KnownUnread known;
    std::map<PartitionIndex, std::shared_ptr<GroupCoordinator>> now = loaded_.all();
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
        if (measured + described->partitions.size() > kMeasuredMax) {
          left_out += one.topics.size();
          continue;
        }
        measured += described->partitions.size();
        co_await core_.measure(*described, &known_, &known);
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
    known_ = std::move(known);
    figures_ = std::move(fresh);
    figures_left_out_ = left_out;
    Instant next = core_.runtime.clock.now() + kMeasureEvery;
    while (!core_.stopping && core_.runtime.clock.now() < next) {
      bool stopped = co_await io::WaitUntil{core_.stop_signal, core_.runtime, next};
      (void)stopped;
    }
  }
}

}  // namespace tailrace::broker::service
