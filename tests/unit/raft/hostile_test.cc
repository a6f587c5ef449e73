// A peer may say anything: no message stops the process, whatever its kind, term and positions.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "tests/unit/raft/cluster.h"

namespace tailrace::broker::raft::test {
namespace {

using namespace std::chrono_literals;

class Liar {
 public:
  explicit Liar(std::uint64_t seed) : random_{seed} {
    for (std::uint8_t i = 0; i < 3; ++i) {
      ids_[i].node = NodeId{i};
      ids_[i].directory.bytes[0] = i;
    }
    Recovered found;
    found.members = Membership::of_voters(ids_);
    replica_.emplace(ids_[0], 1, ReplicaOptions{}, found, random_.split(), now_);
  }

  void turn() {
    now_ += 20ms;
    switch (random_.below(8)) {
      case 0: replica_->tick(now_, out_); break;
      case 1: static_cast<void>(replica_->receive(peer(), {1, term(), position(), random_.below(9)}, now_, out_)); break;
      case 2: replica_->receive(peer(), random_.below(4), {1, term(), position(), position(), random_.below(9)}, now_, out_); break;
      case 3: append(); break;
      default: replica_->receive(message(), now_, out_); break;
    }
    answer();
    static_cast<void>(replica_->heartbeat(1, now_, out_));
    answer();
    replica_->check_invariants();
  }
  [[nodiscard]] bool halted() const { return replica_->halted(); }
  std::uint64_t led = 0, taken = 0, installed = 0;

 private:
  ReplicaId peer() { return ids_[1 + random_.below(2)]; }
  LeaderEpoch term() {
    if (random_.chance(1, 200)) return LeaderEpoch{static_cast<std::int32_t>(random_.next())};
    return replica_->term() + static_cast<std::int32_t>(random_.below(3)) - 1;
  }
  LogPosition position() {
    if (random_.chance(1, 20)) return {Offset{static_cast<std::int64_t>(random_.next())}, static_cast<std::uint32_t>(random_.below(4))};
    const LogView& log = replica_->log();
    LogPosition near = random_.chance(1, 2) ? log.end() : replica_->commit();
    if (random_.chance(1, 2)) return near;
    return {Offset{near.offset.value() + static_cast<std::int64_t>(random_.below(5)) - 2}, static_cast<std::uint32_t>(random_.below(3))};
  }
  Header header() { return {peer(), ids_[0], term()}; }
  Membership members() { return random_.chance(1, 8) ? Membership{} : Membership::of_voters(std::span{ids_}.first(1 + random_.below(3))); }

  Message message() {
    switch (random_.below(7)) {
      case 0: return VoteRequest{header(), term(), {term(), position()}, random_.chance(1, 2), random_.chance(1, 4)};
      case 1: return VoteReply{header(), term(), random_.chance(1, 2), random_.chance(3, 4)};
      case 2: return ReportRequest{header(), random_.below(3)};
      case 3: return ReportReply{header(), random_.below(3), {term(), position()}, members(), position(), random_.chance(1, 2)};
      case 4:
        return AppendReply{header(), random_.below(4), static_cast<AppendAnswer>(random_.below(3)), position(), position(), position(), {term(), position()},
                           random_.below(9)};
      case 5: return Snapshot{header(), position(), term(), members(), position().offset};
      default: return TimeoutNow{header()};
    }
  }

  void append() {
    Append m;
    m.header = header();
    m.previous = position();
    m.previous_term = random_.chance(1, 2) ? replica_->log().last_term() : term();
    m.commit = position();
    m.round = random_.below(9);
    m.kind = static_cast<RunKind>(random_.below(3));
    m.tentative = random_.chance(1, 8);
    m.entry_term = random_.chance(1, 2) ? m.header.term : term();
    m.mark = {m.previous, m.entry_term, static_cast<MarkKind>(random_.below(3)), position().offset};
    m.members = members();
    m.end = position();
    if (m.kind == RunKind::mark && random_.chance(3, 4)) m.end = {m.previous.offset, m.previous.sub + 1};
    std::vector<BatchRef> batches;
    if (m.kind == RunKind::batches) {
      Offset at = m.previous.offset;
      for (std::uint64_t i = random_.below(4); i > 0; --i) {
        if (at.value() > 1'000'000'000) break;
        at = Offset{at.value() + static_cast<std::int64_t>(random_.below(4))};
        batches.push_back({at, 100});
      }
      if (!batches.empty() && random_.chance(3, 4)) m.end = {batches.back().next, 0};
    }
    replica_->receive(ReceivedAppend{m, batches}, now_, out_);
  }

  /// As an owner: durable at once, or now and then later.
  void answer() {
    std::vector<Action> actions(out_.begin(), out_.end());
    out_.clear();
    for (const Action& action : actions) {
      if (auto* a = std::get_if<SaveHardState>(&action)) replica_->hard_state_saved(a->generation, now_, out_);
      if (auto* a = std::get_if<InstallSnapshot>(&action); a && random_.chance(3, 4)) {
        ++installed;
        replica_->snapshot_installed(a->snapshot.position, now_, out_);
      }
      if (auto* a = std::get_if<RoleChanged>(&action)) led += a->role == Role::leader;
      taken += std::holds_alternative<AppendMark>(action) + std::holds_alternative<AppendRun>(action);
    }
    if (random_.chance(3, 4)) replica_->persisted(replica_->log().end(), replica_->log().last_term(), now_, out_);
    out_.clear();
  }

  Random random_;
  std::array<ReplicaId, 3> ids_{};
  Instant now_{};
  Actions out_{};
  std::optional<Replica> replica_{};
};

TEST(Hostile, NoMessageOfAPeerStopsTheProcess) {
  std::uint64_t led = 0, taken = 0, installed = 0;
  for (std::uint64_t seed = 1; seed <= 30'000; ++seed) {
    Liar liar{seed};
    for (int i = 0; i < 200 && !liar.halted(); ++i) liar.turn();
    led += liar.led, taken += liar.taken, installed += liar.installed;
  }
  EXPECT_GT(led, 100U);  // the lies reach a leader, a log and a snapshot
  EXPECT_GT(taken, 1'000U);
  EXPECT_GT(installed, 100U);
}

}  // namespace
}  // namespace tailrace::broker::raft::test
