#pragma once
/// One partition: its open segments and hot tail in memory, its sealed segments on disk, and what of it only the WAL holds.
/// Spec     docs/storage-format.md, "Segment file", "Checkpoint", "Recovery".
///
///   sealed_        sealed_        open_.front()          open_.back()
///   [ .log .idx ]  [ .log .idx ]  [ synced | written | durable | end ]
///                                      ^ never ahead of durable: the WAL comes first
///
/// A block of a segment is rewritten only while all it held is in a live WAL frame (`copied_`, or the batches' own frames).
///
/// Files    partition_log.cc append and waiting, partition_load.cc opening, partition_flush.cc segment writing and sealing,
///          partition_read.cc reads, partition_blocks.cc segments' bytes and their checksums, partition_cut.cc log start,
///          truncation, retention, damage.
#include <deque>
#include <memory>

#include "log/async_lock.h"
#include "log/hot_tail.h"
#include "log/partition.h"
#include "log/recovered.h"
#include "log/segment_files.h"
#include "log/segment_index.h"
#include "log/segment_scan.h"
#include "log/shard_context.h"

namespace tailrace::broker::log {

enum class FlushMode : std::uint8_t {
  blocks,   // write whole blocks, no sync
  sync,     // and sync them
  partial,  // the last, partial block too
};

class PartitionLog final : public Partition, public WalWriter::Listener {
 public:
  PartitionLog(ShardContext& shard, std::uint32_t number, PartitionId id, PartitionOptions options);
  ~PartitionLog() override;

  /// Reads what the disk holds and lays the WAL's batches behind it. On error the partition must not be used.
  Task<Result<void>> load(RecoveredPartition recovered);

  // Partition
  [[nodiscard]] PartitionId id() const override { return id_; }
  [[nodiscard]] Result<void> writable(std::size_t bytes) const override;
  [[nodiscard]] Result<void> usable() const override;
  [[nodiscard]] Result<Appended> append(Slice batch, const BatchHeader& header, WallTime leader_append_time) override;
  [[nodiscard]] Result<void> append_copy(Slice batch, const BatchHeader& header, WallTime leader_append_time) override;
  [[nodiscard]] Result<void> append_mark(const Mark& mark) override;
  [[nodiscard]] Result<void> save_hard_state(const HardState& state, std::uint64_t generation) override;
  void set_listener(DurabilityListener* listener) override { listener_ = listener; }
  [[nodiscard]] ReplicatedState replicated() const override;
  void commit_to(LogPosition position) override;
  void abandon_waiters() override;
  void apply_log_start(Offset start) override;
  Task<Result<void>> drop_deleted() override;
  Task<Result<ReplicaRead>> read_replica(Offset from, Offset until, std::size_t bytes_max) override;
  Task<Result<void>> install(HistoryStart start, Offset log_start, std::vector<std::byte> producers) override;
  Task<Result<StateAt>> stored_state(LogPosition at_least) override;
  [[nodiscard]] ProducerVerdict judge(const BatchHeader& header) const override { return producers_.judge(header); }
  [[nodiscard]] Offset log_start() const override { return log_start_; }
  [[nodiscard]] Offset high_watermark() const override { return commit_.offset; }
  [[nodiscard]] Offset flushed() const override { return flushed_; }
  [[nodiscard]] Offset log_end() const override { return end_; }
  [[nodiscard]] LeaderEpoch term() const override { return hard_.term; }
  [[nodiscard]] LogPosition end_position() const override { return {end_, sub_}; }
  [[nodiscard]] Notifier& advanced() override { return advanced_; }
  Task<Result<void>> committed(Offset end) override;
  Task<Result<ReadResult>> read(Offset from, ReadLimits limits) override;
  Task<Result<std::optional<OffsetAtTime>>> find_time(std::int64_t time_ms) override;
  Task<Result<void>> truncate_suffix(LogPosition to) override;
  Task<Result<RetentionOutcome>> plan_retention(WallTime now) override;
  void configure(PartitionOptions options) override { options_ = options; }
  [[nodiscard]] bool lost(Offset offset) const override;
  [[nodiscard]] PartitionStats stats() const override;
  Task<Result<void>> skip_damage() override;

  // WalWriter::Listener
  void frames_durable(std::uint64_t sequence) noexcept override;

  // The shard log's side.
  [[nodiscard]] std::uint32_t number() const { return number_; }
  [[nodiscard]] PartitionCheckpoint checkpoint() const;
  /// First WAL frame that holds something of this partition that no synced segment holds; none: the WAL is not needed.
  [[nodiscard]] std::optional<std::uint64_t> needed_frame() const;
  Task<Result<void>> flush(FlushMode mode);
  /// Makes needed_frame() reach `boundary` or beyond: syncs whole blocks, copies the remainder forward as a WAL frame.
  Task<Result<void>> settle(std::uint64_t boundary);
  /// Drops hot batches that segments hold, oldest first, until `bytes` are freed or nothing more may go.
  std::uint64_t evict(std::uint64_t bytes);
  [[nodiscard]] std::uint64_t hot_bytes() const { return hot_.bytes(); }
  [[nodiscard]] std::uint64_t unsynced_bytes() const;
  [[nodiscard]] bool damaged() const;
  void fail_waiters();  // the directory failed, or the shard log closes
  void shut();          // every later call answers closed
  void mark_removed();
  /// The shard log goes, and whoever still holds the partition keeps a shell: its memory is given back, the shard touched no more.
  void detach();
  Task<Result<void>> delete_files();  // after mark_removed() is durable
  Task<void> quiesce();               // no segment write is running afterwards
  /// Waits for calls that wait for the disk or the WAL. After shut() or mark_removed() no new one begins to.
  Task<void> calls_ended();
  bool flush_queued = false;  // the shard's: already in its queue

 private:
  struct SavePoint {  // where the active index and the producer state may be written to .idx
    std::vector<std::byte> bytes{};
    std::uint32_t covered = 0;
  };
  struct OpenSegment {
    explicit OpenSegment(Offset base_in) : base{base_in}, index{base_in} {}
    Offset base;
    SegmentIndex index;
    std::uint32_t end = 0;      // bytes appended
    std::uint32_t durable = 0;  // bytes whose frames are durable
    std::uint32_t written = 0;  // bytes in the file, perhaps not synced
    std::uint32_t synced = 0;
    std::uint64_t allocated = 0;
    bool created = false;      // the file exists, and this life synced its folder and those above
    bool failed = false;       // the file failed a write or a sync: to be retired
    bool keep_length = false;  // damaged: not cut to its length when sealed
    std::optional<SavePoint> save{};
    std::uint32_t last_save = 0;
    std::vector<std::byte> state_after{};  // producer state at its end, once it is rolled
  };
  struct SealedSegment {
    Offset base{};
    std::uint64_t bytes = 0;
    std::shared_ptr<SegmentIndex> index{};  // loaded on demand
    bool state_stored = false;              // the snapshot in front of its successor is on disk
  };
  struct Copied {  // a live WAL frame with the segment's bytes from a block boundary to `end`
    Offset segment{-1};
    std::uint32_t end = 0;
    std::uint64_t frame = 0;
  };
  struct Remainder {  // bytes of a partial block on disk, kept for the block's rewrite
    Offset segment{-1};
    std::uint32_t position = 0;
    std::vector<std::byte> bytes{};
    [[nodiscard]] std::uint32_t end() const { return position + static_cast<std::uint32_t>(bytes.size()); }
  };
  class Call {  // while it lives, the shard log does not go away
   public:
    explicit Call(PartitionLog& partition) : partition_{partition} { ++partition_.calls_; }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;
    ~Call() {
      if (--partition_.calls_ == 0) partition_.calls_ended_.notify_all();
    }

   private:
    PartitionLog& partition_;
  };
  enum class WaitEnd : std::uint8_t { committed, cut, abandoned, over };
  struct CommitWaiter : Runnable {
    Offset end{};
    WaitEnd ended = WaitEnd::over;
    std::coroutine_handle<> handle{};
    CommitWaiter* later = nullptr;
    CommitWaiter* earlier = nullptr;
  };
  class CommittedAwaiter;
  struct Loading;
  struct BlockRun {  // whole blocks of one segment, as far as the disk is asked for them
    Offset segment{};
    std::shared_ptr<const SegmentIndex> index{};  // of a sealed segment; none: it is open, and has its own
    std::size_t first = 0, last = 0;              // blocks
    Offset base{};                                // of the first batch
    std::uint32_t begin = 0, end = 0;
    ColdReader::Source source{};
    ColdBytes bytes{};             // read
    std::uint32_t good_end = 0;    // and good up to here
    std::optional<Error> error{};  // why not up to `end`
  };

  [[nodiscard]] Result<void> appendable(std::size_t bytes) const;
  void lay_down(Slice batch, const BatchHeader& placed);
  void prune_marks();
  FrameHeader frame(FrameType type) const;
  [[nodiscard]] std::optional<std::uint64_t> needed_for_bytes() const;
  void roll();
  /// False: it cannot be read, and nothing may be appended behind it.
  [[nodiscard]] bool queue_remainder();
  void maybe_save_point(OpenSegment& segment);
  void release(CommitWaiter& waiter, WaitEnd ended);
  void release_committed();
  [[nodiscard]] LogPosition flushed_position() const { return {flushed_, flushed_sub_}; }
  OpenSegment& active() { return *open_.back(); }
  [[nodiscard]] const OpenSegment& active() const { return *open_.back(); }
  /// Of the first segment that is kept, perhaps for its producers only: between it and the log start some may be gone.
  [[nodiscard]] Offset first_base() const { return sealed_.empty() ? open_.front()->base : sealed_.front().base; }
  [[nodiscard]] std::string folder() const { return partition_folder(shard_.options.data_directory, id_); }
  [[nodiscard]] FileCache::Key key_of(Offset base) const { return {number_, base}; }

  // partition_flush.cc
  Task<Result<void>> flush_locked(FlushMode mode);
  Task<Result<void>> write_segment(OpenSegment& segment, std::uint32_t target);
  Task<Result<void>> ensure_file(OpenSegment& segment, std::uint64_t bytes);
  Task<Result<void>> make_folders();
  Task<Result<void>> sync_folder(std::string path);
  Task<Result<void>> sync_segment(OpenSegment& segment);
  Task<void> seal(OpenSegment& segment);
  Task<void> trim(Offset base, std::uint32_t length);
  void go_on_behind(OpenSegment& segment, std::uint32_t end);
  struct Believed {  // of a failed file: it is read up to `position`, and the segment `next` goes on there
    std::uint32_t position = 0;
    Offset next{};
    std::vector<std::byte> bytes{};  // from there on that were synced once
  };
  Task<Result<void>> retire(OpenSegment& segment);
  Task<Result<Believed>> believed(const OpenSegment& segment);
  Task<Result<void>> write_anew(const OpenSegment& segment, const Believed& kept, std::uint32_t end);
  bool copy_range(Offset segment, std::uint32_t from, std::uint32_t to, std::byte* into) const;
  void keep_remainder(const OpenSegment& segment);
  Task<Result<void>> copy_forward(std::uint32_t from);
  Task<Result<void>> split_at_durable();

  // partition_load.cc
  /// The log itself: all of load() but the hard state, which a truncation does not touch.
  Task<Result<void>> lay(RecoveredPartition recovered);
  void begin_behind_deleted(Loading& loading);
  Task<Result<void>> clear_old_log(Loading& loading);
  Task<Result<void>> list_segments(Loading& loading);
  Task<Result<void>> put_leftovers_aside(Loading& loading);
  Task<Result<void>> load_active(Loading& loading);
  Task<Result<void>> load_producers(Loading& loading);
  Task<Result<void>> begin_anew(Loading& loading);
  [[nodiscard]] bool is_what_was_flushed(const Loading& loading) const;
  Task<Result<void>> scan_segment(Loading& loading, Offset base, std::uint32_t from, std::uint32_t to, Offset limit, bool derived_only);
  Task<Result<void>> lay_tail(Loading& loading);
  Result<void> lay_batch(Loading& loading, Slice bytes, const BatchHeader& header, std::uint64_t frame, std::int64_t append_ms);
  void add_hole(Offset from, Offset to);

  // partition_read.cc
  void read_hot(Offset from, Offset below, const ReadLimits& limits, ReadResult& into);
  Task<Result<void>> read_cold(Offset below, ReadLimits limits, ReadResult& into);
  [[nodiscard]] const Hole* hole_at(Offset offset) const;
  [[nodiscard]] std::int64_t last_append_before(Offset offset) const;
  [[nodiscard]] Offset hot_begin() const { return hot_.empty() ? end_ : hot_.front().base; }
  Error corrupt_at(Offset offset, std::string what);
  Error unreadable(Offset offset, Error why);

  static constexpr int kFindAttempts = 8;
  Task<Result<std::optional<OffsetAtTime>>> find_time_on_disk(std::int64_t time_ms);
  Task<Result<std::optional<OffsetAtTime>>> scan_for_time(Offset from, Offset to, std::int64_t time_ms);

  // partition_blocks.cc
  /// Blocks from the one that holds `offset` on, about `bytes` of them, held against their checksums; none when the hot tail
  /// has it (by now). Errors: offset_out_of_range (deleted meanwhile), corrupt, and those of the moment.
  Task<Result<BlockRun>> read_blocks(Offset offset, std::uint32_t bytes);
  Task<Result<BlockRun>> locate(Offset offset, std::uint32_t bytes);
  static void choose_blocks(BlockRun& run, const SegmentIndex& index, Offset offset, std::uint32_t limit, std::uint32_t bytes);
  [[nodiscard]] std::uint32_t disk_end(const OpenSegment& segment) const;
  [[nodiscard]] const OpenSegment* find_open(Offset base) const;
  [[nodiscard]] bool still_there(const BlockRun& run) const;
  [[nodiscard]] bool adds_up(const BlockRun& run, const SegmentIndex::Block& block) const;
  void blame(BlockRun& run, const SegmentIndex::Block& block, std::optional<Error> refused) const;
  Task<Result<std::shared_ptr<SegmentIndex>>> index_of(Offset sealed_base);
  Task<Result<std::shared_ptr<SegmentIndex>>> rebuild_index(Offset sealed_base, Offset next_base);

  // partition_cut.cc
  Task<Result<std::uint64_t>> drop_segments_below(Offset start);
  Task<Result<void>> truncate(LogPosition to);
  Task<Result<void>> install_locked(HistoryStart start, Offset log_start, Bytes producers);
  [[nodiscard]] std::uint32_t sub_of(Offset offset) const;

  ShardContext& shard_;
  std::uint32_t number_;
  PartitionId id_;
  PartitionOptions options_;
  bool loaded_ = false;
  bool removed_ = false;
  bool closed_ = false;
  bool attached_ = true;  // false: shard_ may be gone
  bool truncating_ = false;
  bool folders_made_ = false;
  bool close_emptied_ = false;                       // the active segment was left because all of it is deleted
  bool laying_anew_ = false;                         // a truncation makes what is below out of the files again: reads wait
  std::uint64_t cut_frame_ = 0;                      // a truncation frame whose cut is not carried out yet
  std::optional<PartitionCheckpoint> before_cut_{};  // what checkpoints say while it is: the frame is replayed over it

  HardState hard_{};              // what the newest frame says
  std::uint64_t hard_frame_ = 0;  // its frame
  DurabilityListener* listener_ = nullptr;
  struct Queued {  // a frame that is not durable yet, and what will be when it is
    std::uint64_t frame = 0;
    LogPosition end{};             // of an entry of length zero
    std::uint64_t generation = 0;  // of a hard state
  };
  std::vector<Queued> queued_{};  // ascending
  std::uint64_t durable_generation_ = 0;
  std::uint32_t sub_ = 0;
  Offset log_start_{};
  std::uint64_t log_start_frame_ = 0;  // of this life, the newest that says that it moved
  std::uint64_t skip_frame_ = 0;       // of this life, the newest that accepted damage
  LogPosition commit_{};
  Offset flushed_{};
  std::uint32_t flushed_sub_ = 0;
  Offset end_{};
  std::int64_t last_append_ms_ = -1;
  HistoryStart history_{};
  std::vector<TermEntry> terms_{};
  std::vector<Mark> marks_{};  // of memberships and log starts
  std::vector<Hole> holes_{};

  HotTail hot_{};
  std::size_t undurable_ = 0;  // batches at the back of hot_ whose frames are not durable yet
  std::vector<SealedSegment> sealed_{};
  std::vector<std::unique_ptr<OpenSegment>> open_{};
  Copied copied_{};
  Remainder remainder_{};
  ProducerState producers_{};
  Offset snapshot_{-1};

  CommitWaiter* waiters_head_ = nullptr;
  CommitWaiter* waiters_tail_ = nullptr;
  Notifier advanced_;
  std::size_t calls_ = 0;
  Notifier calls_ended_;
  AsyncLock lock_;  // segment writes, sealing, truncation: one at a time
};

/// All that is known of the log goes, and it begins at `start`.
void begin_state_anew(PartitionCheckpoint& state, const HistoryStart& start, Offset log_start);
/// A truncation to `cut`, which lies at `position` of `segment`, as it changes what is known of a partition.
void cut_state(PartitionCheckpoint& state, LogPosition cut, Offset segment, std::uint32_t position);
/// Its folder with all in it; ok if there is none.
Task<Result<void>> delete_partition_files(io::Runtime& runtime, std::string data_directory, PartitionId id);

}  // namespace tailrace::broker::log
