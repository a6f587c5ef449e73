#pragma once
/// The shard log's parts and who keeps them going: files made ready and recycled, partitions opened and removed, memory and
/// disk space watched.
///
/// Files    shard_log.cc opening, partitions, close; shard_upkeep.cc recycling, checkpoints, eviction, space.
#include <deque>
#include <unordered_map>

#include "log/partition_log.h"
#include "log/recovery.h"
#include "log/shard_context.h"
#include "log/shard_log.h"

namespace tailrace::broker::log {

class ShardLogImpl final : public ShardLog {
 public:
  ShardLogImpl(io::Runtime& runtime, ShardLogOptions options);
  ~ShardLogImpl() override;
  Task<Result<void>> start();

  [[nodiscard]] const RecoveryReport& recovery() const override { return report_; }
  Task<Result<PartitionPtr>> create(PartitionId id, PartitionOptions options, Begin begin, std::vector<std::byte> members) override;
  [[nodiscard]] std::uint64_t incarnation() const override { return incarnation_; }
  Task<Result<PartitionPtr>> open_partition(PartitionId id, PartitionOptions options) override;
  [[nodiscard]] PartitionPtr find(const PartitionId& id) override;
  [[nodiscard]] std::vector<PartitionId> stored_partitions() const override;
  [[nodiscard]] std::size_t partition_count() const override { return entries_.size(); }
  Task<Result<void>> remove(PartitionId id) override;
  Task<void> close() override;
  void begin_close() override;
  [[nodiscard]] const ShardLogStats& stats() const override { return stats_; }
  [[nodiscard]] Duration oldest_write() const override { return wal_.oldest_write(); }
  [[nodiscard]] bool failed() const override { return wal_.failed() || directory_failure_.has_value(); }
  [[nodiscard]] Error failure() const override { return directory_failure_ ? *directory_failure_ : wal_.failure(); }
  [[nodiscard]] bool disk_full() const override { return context_.disk_full; }
  [[nodiscard]] Notifier& pressure() override { return pressure_; }
  [[nodiscard]] std::size_t batch_bytes_max() const override { return wal_payload_max(options_.wal_file_bytes); }

 private:
  using PartitionLogPtr = std::shared_ptr<PartitionLog>;
  struct Opening {
    explicit Opening(Executor& executor) : done{executor} {}
    bool finished = false;
    std::optional<Error> error{};
    Notifier done;
  };
  struct Entry {
    std::uint32_t number = 0;
    std::unique_ptr<RecoveredPartition> recovered{};  // until opened
    PartitionLogPtr partition{};
    std::shared_ptr<Opening> opening{};
  };
  struct Context final : ShardContext {
    explicit Context(ShardLogImpl& log);
    ~Context() = default;
    void want_flush(PartitionLog& partition) override;
    [[nodiscard]] bool eager() const override {
      return log.files_.full_count() * 2 >= static_cast<std::size_t>(options.wal_files) || stats.hot_bytes * 2 >= options.hot_tail_bytes;
    }
    void hot_grew() override;
    void space_ran_out() override;
    void directory_failed(Error error) override;
    [[nodiscard]] bool failed() const override { return log.failed(); }
    [[nodiscard]] Error failure() const override { return log.failure(); }
    [[nodiscard]] std::size_t partition_count() const override { return log.entries_.size(); }
    ShardLogImpl& log;
  };
  struct Work : Runnable {
    ShardLogImpl* log = nullptr;
    bool posted = false;
  };
  struct SpaceTimer : io::Timer {
    ShardLogImpl* log = nullptr;
  };

  [[nodiscard]] std::string folder() const { return shard_folder(options_.data_directory, options_.shard); }
  Task<Result<PartitionLogPtr>> open_entry(PartitionId id);
  Task<void> calls_ended();
  Task<Result<void>> free_a_slot_before_start();

  // shard_upkeep.cc
  void wake();                                   // upkeep has something to do
  void work_turn();                              // posted: starts queued flushes, evicts
  Task<void> upkeep();
  Task<Result<void>> prepare_next();
  Task<Result<void>> recycle_oldest();
  Task<Result<void>> settle_all(std::uint64_t boundary);
  using PartitionWork = std::function<Task<Result<void>>(PartitionLog&)>;
  /// A few at a time; the first error ends it. False: `until` came first.
  Task<Result<bool>> on_each(std::vector<PartitionLogPtr> list, PartitionWork work, std::optional<Instant> until = {});
  /// All that is in the WAL alone goes to segments. False: `until` came first, and the rest stays in the WAL.
  Task<Result<bool>> flush_everything(std::optional<Instant> until = {});
  [[nodiscard]] Checkpoint capture(bool clean) const;
  Task<Result<void>> write_checkpoints(bool clean);
  Task<void> flush_one(PartitionLogPtr partition);
  Task<void> delete_removed(Entry entry, PartitionId id);
  void evict();
  Task<void> check_space();
  Task<void> poll_space();
  void set_disk_full(bool full);
  void on_failed(const Error& error);

  io::Runtime& runtime_;
  ShardLogOptions options_;
  ShardLogStats stats_{};
  RecoveryReport report_{};
  WalFiles files_;
  WalWriter wal_;
  FileCache cache_;
  ColdReader cold_;
  Notifier pressure_;
  Context context_;

  std::unordered_map<PartitionId, Entry> entries_{};
  std::vector<std::pair<std::uint32_t, PartitionId>> removed_{};  // durable deletes whose files are not all gone
  std::uint32_t next_number_ = 0;
  std::uint64_t incarnation_ = 0;
  CheckpointCopies checkpoint_copies_{};
  bool space_unknown_ = false;  // the file system did not say when last asked
  std::optional<Error> directory_failure_{};

  bool started_ = false;
  bool closing_ = false;    // no new calls; upkeep goes on, since a last commit may need a file
  bool stopping_ = false;   // nothing new is started
  int upkeep_failures_ = 0;  // in a row
  bool closed_ = false;
  bool upkeep_running_ = false;
  bool upkeep_wanted_ = false;
  bool evict_wanted_ = false;
  bool evict_blocked_ = false;    // nothing may go until a sync made something evictable
  bool flush_for_memory_ = false;
  std::deque<PartitionLogPtr> flush_queue_{};
  std::vector<PartitionLogPtr> failed_partitions_{};  // removed while the WAL failed
  std::vector<std::weak_ptr<PartitionLog>> evict_ring_{};
  std::size_t evict_at_ = 0;
  Work work_{};
  SpaceTimer space_timer_{};
  Notifier upkeep_ended_;
  AsyncLock checkpoint_lock_;
  TaskScope background_{};
};

}  // namespace tailrace::broker::log
