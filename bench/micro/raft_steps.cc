/// What replication costs a core, without log, codec and network: a batch through a leader of three (append, one run to each
/// follower, two answers, commit), and an interval's heartbeat of one idle group (fact, two answers).
///   batch_steps   one item = one batch appended, sent to two followers, acknowledged by both, committed
///   heartbeats    one item = one idle group and interval, at the leader; at 200 ms, 10,000 groups make 50,000 a second
#include <benchmark/benchmark.h>

#include <array>
#include <cstring>
#include <optional>
#include <string_view>
#include <vector>

#include "raft/replica.h"

namespace tailrace::broker::raft {
namespace {

using namespace std::chrono_literals;

ReplicaId replica_id(std::uint8_t i) {
  ReplicaId id;
  id.node = NodeId{i};
  id.directory.bytes[0] = i;
  return id;
}

/// A leader whose two followers are played by hand: everything it says is answered at once and well.
class Leading {
 public:
  Leading() {
    std::array<ReplicaId, 3> ids{replica_id(0), replica_id(1), replica_id(2)};
    Recovered found;
    found.members = Membership::of_voters(ids);
    replica_.emplace(ids[0], 1, ReplicaOptions{}, found, Random{7}, now_);
    replica_->campaign(now_, out_);
    settle();
  }
  void batch() {
    Offset next{replica_->log().end().offset.value() + 10};
    replica_->appended(next);
    replica_->replicate(now_, out_);
    replica_->persisted(replica_->log().end(), replica_->term(), now_, out_);
    settle();
  }
  void heartbeat() {
    auto fact = replica_->heartbeat(1, now_, out_);
    for (std::uint8_t i = 1; i < 3 && fact; ++i) {
      replica_->receive(replica_id(i), 1, HeartbeatReply{1, fact->term, replica_->log().end(), replica_->log().end(), fact->round}, now_, out_);
    }
    settle();
  }
  [[nodiscard]] bool level() const { return replica_->serving() && replica_->commit() == replica_->log().end(); }

 private:
  void settle() {
    while (!out_.empty()) {
      std::swap(out_, doing_);
      for (const Action& action : doing_) answer(action);
      doing_.clear();
    }
  }
  void answer(const Action& action) {
    if (auto* a = std::get_if<SaveHardState>(&action)) return replica_->hard_state_saved(a->generation, now_, out_);
    if (std::holds_alternative<AppendMark>(action)) return replica_->persisted(replica_->log().end(), replica_->term(), now_, out_);
    if (auto* a = std::get_if<ReadEntries>(&action)) {
      auto append = replica_->entries_read({a->to, a->ticket, ReadStatus::ok, a->from, a->until, 1'000}, now_, out_);
      if (append) acknowledge(*append);
    }
    auto* sent = std::get_if<Send>(&action);
    if (!sent) return;
    if (auto* vote = std::get_if<VoteRequest>(&sent->message)) {
      LeaderEpoch term = vote->pre_vote ? vote->header.term : vote->ballot;
      replica_->receive(VoteReply{{vote->header.to, vote->header.from, term}, vote->ballot, vote->pre_vote, true}, now_, out_);
    } else if (auto* append = std::get_if<Append>(&sent->message)) {
      acknowledge(*append);
    }
  }
  void acknowledge(const Append& append) {
    AppendReply reply;
    reply.header = {append.header.to, append.header.from, append.header.term};
    reply.incarnation = 1;
    reply.match = reply.received = append.end;
    reply.round = append.round;
    replica_->receive(reply, now_, out_);
  }

  Instant now_{};
  Actions out_{}, doing_{};
  std::optional<Replica> replica_{};
};

void batch_steps(benchmark::State& state) {
  Leading leading;
  for (auto _ : state) leading.batch();
  if (!leading.level()) state.SkipWithError("what was appended is not committed");
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(batch_steps);

void heartbeats(benchmark::State& state) {
  std::vector<Leading> groups(static_cast<std::size_t>(state.range(0)));
  std::size_t at = 0;
  for (auto _ : state) {
    groups[at].heartbeat();
    if (++at == groups.size()) at = 0;
  }
  if (!groups[0].level()) state.SkipWithError("a group does not lead");
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(heartbeats)->Arg(1)->Arg(10'000);

}  // namespace
}  // namespace tailrace::broker::raft

int main(int argc, char** argv) {
  std::vector<char*> arguments(argv, argv + argc);
  char smoke[] = "--benchmark_min_time=0.01";
  for (char*& argument : arguments) {
    if (std::string_view{argument} == "--smoke") argument = smoke;
  }
  int count = static_cast<int>(arguments.size());
  benchmark::Initialize(&count, arguments.data());
  benchmark::RunSpecifiedBenchmarks();
}
