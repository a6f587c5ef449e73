#pragma once
/// One partition as this broker takes part in it: its log and its replica, and the driver between the two. Every partition has one,
/// whether it has one voter or seven: a broker alone runs the same code.
///
/// Driving  an event goes into the replica, its actions are carried out in order before the next one (raft/actions.h). Truncation and
///          the installation of a snapshot take time: while one runs the partition is `busy`, and what peers say is dropped, as on a
///          network; what the disk reports meanwhile is kept and told afterwards.
/// Leading  a lone voter stands with the first append of each life, so that quiet partitions write nothing at a start; until then it
///          serves what recovery found. With other voters a leader is elected, and only it appends and reads.
/// Thread   its shard's.
/// Spec     docs/replication.md; docs/decisions/0003-a-partition-is-a-lone-voter.md.
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/notifier.h"
#include "base/result.h"
#include "base/task.h"
#include "log/shard_log.h"
#include "raft/replica.h"
#include "service/peers.h"

namespace tailrace::broker::service {

class Replication;

class ReplicatedPartition final : public std::enable_shared_from_this<ReplicatedPartition>, private log::DurabilityListener {
 public:
  /// Errors: corrupt, newer_format (what the log says of members). `shard` outlives it.
  [[nodiscard]] static Result<std::shared_ptr<ReplicatedPartition>> open(Replication& shard, log::PartitionPtr log);
  ReplicatedPartition(const ReplicatedPartition&) = delete;
  ReplicatedPartition& operator=(const ReplicatedPartition&) = delete;
  ~ReplicatedPartition();

  [[nodiscard]] const log::PartitionPtr& log() const { return log_; }
  [[nodiscard]] const raft::Replica& replica() const { return *replica_; }
  /// No other member: nobody to hear from, and nobody who could lead instead.
  [[nodiscard]] bool alone() const;
  /// Ends and committed records may be told from here (R3).
  [[nodiscard]] bool serving() const { return !failed_ && (alone() || replica_->serving()); }
  [[nodiscard]] bool leads() const { return !failed_ && (alone() || replica_->role() == raft::Role::leader); }
  /// It takes part no more until a restart: the log did not take what the replica decided.
  [[nodiscard]] bool failed() const { return failed_; }
  /// A truncation or an installation is running.
  [[nodiscard]] bool busy() const { return busy_; }
  [[nodiscard]] Error not_leader() const;  // names the leader where it is known

  /// As log::Partition::append, in the term this replica leads; a lone voter that does not lead yet stands first. Also not_leader.
  [[nodiscard]] Result<log::Appended> append(Slice batch, const BatchHeader& header, WallTime now);
  /// Answers when the high watermark has reached `end`. Errors: those of log::Partition::committed; not_leader: leadership was lost
  /// before, and whether it commits is not known here.
  [[nodiscard]] Task<Result<void>> committed(Offset end) { return log_->committed(end); }
  /// Deletes records before `start` on all replicas; committed when it answers. A start below the present one changes nothing.
  /// Errors: offset_out_of_range, not_leader, io_error, closed.
  [[nodiscard]] Task<Result<void>> advance_log_start(Offset start);
  /// Answers once a quorum has confirmed that this replica still led after the call. Errors: not_leader.
  [[nodiscard]] Task<Result<void>> confirm_leadership();
  /// The operator's word to go on past what is lost. The replica begins anew with the log as it is then.
  [[nodiscard]] Task<Result<void>> skip_damage();
  [[nodiscard]] Result<void> change_members(const raft::MembershipChange& change);
  [[nodiscard]] Result<void> transfer(const raft::ReplicaId& to);

  // The shard's side (replication.h).
  void receive(PeerMessage message);
  void tick(Instant now);
  /// What its members are told in this interval; none: it does not lead.
  [[nodiscard]] std::optional<raft::HeartbeatFact> heartbeat(Instant now);
  [[nodiscard]] std::optional<raft::HeartbeatReply> heard(const raft::ReplicaId& from, const raft::HeartbeatFact& fact);
  void answered(const raft::ReplicaId& from, std::uint64_t incarnation, const raft::HeartbeatReply& reply);
  /// Sends what was appended in this turn.
  void replicate();
  /// Whoever waits is answered; nothing more is done here. Before the log goes.
  void close();

 private:
  using Actions = raft::Actions;
  ReplicatedPartition(Replication& shard, log::PartitionPtr log);

  struct Cargo {  // what came beside the message at hand
    std::vector<CarriedBatch> batches;
    std::vector<BatchHeader> headers;
    std::vector<std::byte> producers;
  };

  [[nodiscard]] Result<void> begin();
  void timed();
  [[nodiscard]] Result<void> lead();
  [[nodiscard]] std::string name() const;
  [[nodiscard]] bool may_handle() const { return !busy_ && !failed_; }
  [[nodiscard]] bool listens() const { return may_handle() && !lost_; }
  /// Runs `event(actions)` and carries out what it asks for.
  template <class F>
  void handle(F event, Cargo cargo);
  template <class F>
  void handle(F event) {
    handle(std::move(event), Cargo{});
  }
  void carry_out(Actions& actions, Cargo& cargo);
  void act(const raft::Action& action, Cargo& cargo);
  [[nodiscard]] Task<void> carry_out_slowly(std::vector<raft::Action> rest, Cargo cargo);
  [[nodiscard]] Task<void> read_entries(raft::ReadEntries asked);
  [[nodiscard]] Task<void> send_snapshot(raft::ReplicaId to);
  [[nodiscard]] Task<void> drop_deleted();
  void send(const raft::Message& message);
  [[nodiscard]] bool take_batches(const raft::Append& append, Cargo& cargo, std::vector<raft::BatchRef>& refs) const;
  void fail_here(std::string_view what, const Error& error);
  bool leaves_to_others();
  void role_changed(const raft::RoleChanged& changed);
  void durable(LogPosition end, LeaderEpoch term, std::uint64_t hard_generation) noexcept override;
  void tell_durable();

  Replication& shard_;
  log::PartitionPtr log_;
  std::optional<raft::Replica> replica_;
  raft::Role role_ = raft::Role::follower;
  bool busy_ = false;
  bool failed_ = false;
  bool lost_ = false;      // nothing is known of it but its name
  bool closed_ = false;
  bool timed_ = false;         // the shard's clock knows it
  bool dropping_ = false;      // drop_deleted() runs
  bool drop_again_ = false;
  std::uint64_t confirmed_round_ = 0;
  Instant snapshot_retry_{};

  // The newest report of the disk; told at once unless busy.
  bool report_due_ = false;
  LogPosition durable_end_{};
  LeaderEpoch durable_term_{};
  std::uint64_t durable_generation_ = 0;
  // A replica made anew counts its hard states from 1 again; the log's generations go on.
  std::uint64_t generation_base_ = 0;
  std::uint64_t newest_generation_ = 0;
};

}  // namespace tailrace::broker::service
