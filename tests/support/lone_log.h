#pragma once
/// The log as its tests drive it: one replica that owns itself. It begins a term with the first append of a run, in the same commit, and
/// what is durable is committed. Production logs are driven by `service`, through raft; tests of the log alone need no more than this.
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "log/shard_log.h"

namespace tailrace::broker::log {

class LonePartition final : public Partition, private DurabilityListener {
 public:
  explicit LonePartition(PartitionPtr log) : log_{std::move(log)} {
    log_->set_listener(this);
    log_->commit_to(log_->end_position());
  }
  ~LonePartition() override { log_->set_listener(nullptr); }

  // What replication does.
  Task<Result<void>> set_hard_state(LeaderEpoch term, NodeId vote) {
    TAILRACE_CO_TRY_VOID(usable());
    HardState now = log_->replicated().hard;
    if (term < now.term) co_return fail(Errc::invalid_argument, "an older term");
    if (term == now.term && now.vote_node != NodeId{-1} && now.vote_node != vote) co_return fail(Errc::invalid_argument, "voted already in this term");
    if (term > now.term) begun_ = false;
    raised_ = true;
    TAILRACE_CO_TRY_VOID(save(term, vote));
    std::uint64_t mine = generation_;
    co_return co_await until([&] { return durable_generation_ >= mine; });
  }
  Task<Result<void>> start_term(LeaderEpoch term) {
    TAILRACE_CO_TRY_VOID(log_->writable(0));
    HardState now = log_->replicated().hard;
    if (term < now.term) co_return fail(Errc::invalid_argument, "an older term");
    raised_ = true;
    TAILRACE_CO_TRY_VOID(save(term, term == now.term ? now.vote_node : NodeId{-1}));
    TAILRACE_CO_TRY_VOID(mark({.term = term, .kind = MarkKind::term_start, .log_start = {}, .members = {}}));
    begun_ = true;
    LogPosition end = log_->end_position();
    co_return co_await until([&] { return durable_ >= end; });
  }
  /// Deletes records before `start`; durable when it answers. Errors as of ReplicatedPartition::advance_log_start.
  Task<Result<void>> advance_log_start(Offset start) {
    TAILRACE_CO_TRY_VOID(usable());
    if (start > high_watermark()) co_return fail(Errc::offset_out_of_range, "above the high watermark");
    if (start > log_start()) {
      log_->apply_log_start(start);
    }
    co_return co_await log_->drop_deleted();
  }
  Task<Result<RetentionOutcome>> enforce_retention(WallTime now) {
    TAILRACE_CO_TRY(RetentionOutcome plan, co_await log_->plan_retention(now));
    TAILRACE_CO_TRY_VOID(co_await advance_log_start(std::max(plan.log_start, log_start())));
    plan.log_start = log_start();
    co_return plan;
  }
  [[nodiscard]] NodeId vote() const { return log_->replicated().hard.vote_node; }

  // Partition
  [[nodiscard]] PartitionId id() const override { return log_->id(); }
  [[nodiscard]] Result<void> writable(std::size_t bytes) const override { return log_->writable(bytes); }
  [[nodiscard]] Result<void> usable() const override { return log_->usable(); }
  [[nodiscard]] Result<Appended> append(Slice batch, const BatchHeader& header, WallTime time) override {
    TAILRACE_TRY_VOID(log_->writable(batch.length));
    if (!begun_) {
      HardState now = log_->replicated().hard;
      if (!raised_) TAILRACE_TRY_VOID(save(now.term + 1, NodeId{-1}));
      raised_ = true;
      TAILRACE_TRY_VOID(mark({.term = log_->term(), .kind = MarkKind::term_start, .log_start = {}, .members = {}}));
      begun_ = true;
    }
    return log_->append(std::move(batch), header, time);
  }
  [[nodiscard]] Result<void> append_copy(Slice batch, const BatchHeader& header, WallTime time) override { return log_->append_copy(std::move(batch), header, time); }
  [[nodiscard]] Result<void> append_mark(const Mark& mark) override { return log_->append_mark(mark); }
  [[nodiscard]] Result<void> save_hard_state(const HardState& state, std::uint64_t generation) override { return log_->save_hard_state(state, generation); }
  void set_listener(DurabilityListener*) override {}
  [[nodiscard]] ReplicatedState replicated() const override { return log_->replicated(); }
  void commit_to(LogPosition position) override { log_->commit_to(position); }
  void abandon_waiters() override { log_->abandon_waiters(); }
  void apply_log_start(Offset start) override { log_->apply_log_start(start); }
  Task<Result<void>> install(HistoryStart start, Offset log_start, std::vector<std::byte> producers) override { return log_->install(std::move(start), log_start, std::move(producers)); }
  Task<Result<void>> drop_deleted() override { return log_->drop_deleted(); }
  Task<Result<ReplicaRead>> read_replica(Offset from, Offset until, std::size_t bytes_max) override { return log_->read_replica(from, until, bytes_max); }
  Task<Result<StateAt>> stored_state(LogPosition at_least) override { return log_->stored_state(at_least); }
  [[nodiscard]] ProducerVerdict judge(const BatchHeader& header) const override { return log_->judge(header); }
  [[nodiscard]] Offset log_start() const override { return log_->log_start(); }
  [[nodiscard]] Offset high_watermark() const override { return log_->high_watermark(); }
  [[nodiscard]] Offset flushed() const override { return log_->flushed(); }
  [[nodiscard]] Offset log_end() const override { return log_->log_end(); }
  [[nodiscard]] LeaderEpoch term() const override { return log_->term(); }
  [[nodiscard]] LogPosition end_position() const override { return log_->end_position(); }
  [[nodiscard]] Notifier& advanced() override { return log_->advanced(); }
  Task<Result<void>> committed(Offset end) override { return log_->committed(end); }
  Task<Result<ReadResult>> read(Offset from, ReadLimits limits) override { return log_->read(from, limits); }
  [[nodiscard]] bool lost(Offset offset) const override { return log_->lost(offset); }
  Task<Result<std::optional<OffsetAtTime>>> find_time(std::int64_t time_ms) override { return log_->find_time(time_ms); }
  Task<Result<void>> truncate_suffix(LogPosition to) override {
    auto done = co_await log_->truncate_suffix(to);
    durable_ = log_->end_position();
    // Where the term of this run began may be cut off: the next append begins it again.
    begun_ = false;
    for (const Mark& mark : log_->replicated().marks) begun_ = begun_ || (raised_ && mark.kind == MarkKind::term_start && mark.term == log_->term());
    co_return done;
  }
  Task<Result<RetentionOutcome>> plan_retention(WallTime now) override { return log_->plan_retention(now); }
  void configure(PartitionOptions options) override { log_->configure(options); }
  [[nodiscard]] PartitionStats stats() const override { return log_->stats(); }
  Task<Result<void>> skip_damage() override {
    TAILRACE_CO_TRY_VOID(co_await log_->skip_damage());
    log_->commit_to(log_->end_position());
    co_return Result<void>{};
  }

 private:
  void durable(LogPosition end, LeaderEpoch, std::uint64_t hard_generation) noexcept override {
    durable_ = end;
    durable_generation_ = hard_generation;
    log_->commit_to(end);
    log_->advanced().notify_all();
  }
  Result<void> save(LeaderEpoch term, NodeId vote) { return log_->save_hard_state({.term = term, .vote_node = vote}, ++generation_); }
  Result<void> mark(Mark mark) {
    mark.begin = log_->end_position();
    return log_->append_mark(mark);
  }
  template <class Condition>
  Task<Result<void>> until(Condition met) {
    while (!met()) {
      TAILRACE_CO_TRY_VOID(log_->usable());
      if (auto fine = log_->writable(0); !fine && fine.error().code == Errc::io_error) co_return fine;
      co_await log_->advanced().wait();
    }
    co_return Result<void>{};
  }

  PartitionPtr log_;
  bool raised_ = false;  // the term, in this life
  bool begun_ = false;   // its term start stands in the log
  std::uint64_t generation_ = 0;
  std::uint64_t durable_generation_ = 0;
  LogPosition durable_{};
};

[[nodiscard]] inline LonePartition& lone(Partition& partition) { return static_cast<LonePartition&>(partition); }

class LoneShardLog final : public ShardLog {
 public:
  /// As ShardLog::open.
  static Task<Result<std::unique_ptr<ShardLog>>> open(io::Runtime& runtime, ShardLogOptions options) {
    TAILRACE_CO_TRY(std::unique_ptr<ShardLog> log, co_await ShardLog::open(runtime, std::move(options)));
    co_return std::unique_ptr<ShardLog>{std::make_unique<LoneShardLog>(std::move(log))};
  }
  explicit LoneShardLog(std::unique_ptr<ShardLog> log) : log_{std::move(log)} {}

  [[nodiscard]] const RecoveryReport& recovery() const override { return log_->recovery(); }
  [[nodiscard]] std::uint64_t incarnation() const override { return log_->incarnation(); }
  Task<Result<PartitionPtr>> create(PartitionId id, PartitionOptions options, Begin begin, std::vector<std::byte> members) override {
    TAILRACE_CO_TRY(PartitionPtr made, co_await log_->create(id, options, begin, std::move(members)));
    co_return own(std::move(made));
  }
  Task<Result<PartitionPtr>> open_partition(PartitionId id, PartitionOptions options) override {
    TAILRACE_CO_TRY(PartitionPtr opened, co_await log_->open_partition(id, options));
    co_return own(std::move(opened));
  }
  [[nodiscard]] PartitionPtr find(const PartitionId& id) override {
    PartitionPtr found = log_->find(id);
    return found ? own(std::move(found)) : nullptr;
  }
  [[nodiscard]] std::vector<PartitionId> stored_partitions() const override { return log_->stored_partitions(); }
  [[nodiscard]] std::size_t partition_count() const override { return log_->partition_count(); }
  Task<Result<void>> remove(PartitionId id) override { return log_->remove(id); }
  void begin_close() override { log_->begin_close(); }
  Task<void> close() override {
    co_await log_->close();
    owned_.clear();
  }
  [[nodiscard]] const ShardLogStats& stats() const override { return log_->stats(); }
  [[nodiscard]] bool failed() const override { return log_->failed(); }
  [[nodiscard]] Error failure() const override { return log_->failure(); }
  [[nodiscard]] Duration oldest_write() const override { return log_->oldest_write(); }
  [[nodiscard]] bool disk_full() const override { return log_->disk_full(); }
  [[nodiscard]] Notifier& pressure() override { return log_->pressure(); }
  [[nodiscard]] std::size_t batch_bytes_max() const override { return log_->batch_bytes_max(); }

 private:
  /// The same owner for the same partition, until close().
  PartitionPtr own(PartitionPtr log) {
    std::shared_ptr<LonePartition>& owner = owned_[log.get()];
    if (!owner) owner = std::make_shared<LonePartition>(std::move(log));
    return owner;
  }

  std::unique_ptr<ShardLog> log_;
  std::map<Partition*, std::shared_ptr<LonePartition>> owned_{};
};

}  // namespace tailrace::broker::log
