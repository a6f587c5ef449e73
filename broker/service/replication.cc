#include "service/replication.h"

#include <algorithm>
#include <map>
#include <utility>

#include "io/wait.h"
#include "service/replicated_partition.h"

namespace tailrace::broker::service {

Replication::Replication(ReplicationOptions options, raft::ReplicaId self, std::uint64_t incarnation, io::Runtime& runtime, TaskScope& background)
    : options_{options}, self_{self}, runtime_{runtime}, background_{background}, incarnation_{incarnation}, wake_{runtime.executor} {
  sender_.shard = this;
  sender_.run = [](Runnable* posted) noexcept { static_cast<Sender*>(posted)->shard->send_appended(); };
}

Replication::Turn::Turn(Replication& shard) : actions{shard.actions_}, shard_{shard} {
  TAILRACE_CHECK(!shard.in_turn_, "one event is carried out before the next begins");
  shard.in_turn_ = true;
  actions.clear();
}
Replication::Turn::~Turn() { shard_.in_turn_ = false; }

void Replication::follow_clock(const std::shared_ptr<ReplicatedPartition>& partition) {
  timed_.push_back(partition);
  wake_.notify_all();
}

void Replication::replicate_soon(const std::shared_ptr<ReplicatedPartition>& partition) {
  appended_.push_back(partition);
  if (std::exchange(send_posted_, true)) return;
  runtime_.executor.post(sender_);
}

void Replication::send_appended() {
  send_posted_ = false;
  for (const auto& partition : std::exchange(appended_, {})) partition->replicate();
}

void Replication::send(PeerMessage message) {
  if (options_.peers) options_.peers->send(std::move(message));
}

Task<void> Replication::clock_task() {
  Instant heartbeat_at{};
  while (!stopping_) {
    std::erase_if(timed_, [](const std::weak_ptr<ReplicatedPartition>& gone) { return gone.expired(); });
    if (timed_.empty()) {
      co_await wake_.wait();
      continue;
    }
    bool woken = co_await io::WaitUntil{wake_, runtime_, runtime_.clock.now() + options_.tick_interval};
    (void)woken;
    Instant now = runtime_.clock.now();
    bool heartbeat = now >= heartbeat_at;
    if (heartbeat) heartbeat_at = now + options_.heartbeat_interval;
    for (std::size_t i = 0; i < timed_.size() && !stopping_; ++i) {
      std::shared_ptr<ReplicatedPartition> partition = timed_[i].lock();
      if (!partition) continue;
      partition->tick(now);
    }
    if (heartbeat) send_heartbeats(now);
  }
}

/// One message for each directory that is a member of anything led here.
void Replication::send_heartbeats(Instant now) {
  std::map<raft::ReplicaId, std::vector<GroupFact>> batches;
  auto flush = [&](const raft::ReplicaId& to, std::vector<GroupFact>& facts) {
    send({.partition = {}, .from = self_, .to = to, .incarnation = incarnation_, .body = std::exchange(facts, {})});
  };
  for (std::size_t i = 0; i < timed_.size(); ++i) {
    std::shared_ptr<ReplicatedPartition> partition = timed_[i].lock();
    auto fact = partition ? partition->heartbeat(now) : std::nullopt;
    if (!fact) continue;
    for (const raft::Progress& member : partition->replica().progress()) {
      std::vector<GroupFact>& facts = batches[member.id];
      facts.push_back({partition->log()->id(), *fact});
      if (facts.size() == kGroupsPerMessage) flush(member.id, facts);
    }
  }
  for (auto& [to, facts] : batches) {
    if (!facts.empty()) flush(to, facts);
  }
}

void Replication::stop() {
  stopping_ = true;
  wake_.notify_all();
}

}  // namespace tailrace::broker::service
