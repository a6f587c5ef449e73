#pragma once
/// Group commit of one shard: frames of all partitions are packed into aligned staging buffers and written with
/// O_DIRECT|DSYNC, several commits in flight; durability is reported for the contiguous completed prefix only.
/// Spec     docs/storage-format.md, "WAL frame"; design.md section 5.
///
///   append() -> open commit -> (end of the loop turn) submitted -> completed -> in order: listeners, waiters
///
/// A commit begins at a block boundary and is padded to one: no block is written twice in one use of a file. Commits in
/// flight drain before the first write into the next file.
///
/// Depth    a commit that is worth a write of its own (kCommitBytes) is closed and goes at once while the device has a place
///          free (limits::kWalCommitsInFlightMax): large appends keep that many writes in flight. What comes when all places
///          are taken waits and gathers, and the next commit takes as much of it as a staging buffer holds.
#include <array>
#include <deque>
#include <functional>
#include <vector>

#include "base/buffer.h"
#include "io/runtime.h"
#include "log/shard_log.h"
#include "log/wal_files.h"

namespace tailrace::broker::log {

class WalWriter {
 public:
  /// Told when frames it appended are durable: once per completed prefix, not once per frame.
  class Listener {
   public:
    /// All frames up to `sequence` are durable. From the completion handler: queue work, call nothing back.
    virtual void frames_durable(std::uint64_t sequence) noexcept = 0;

   protected:
    ~Listener() = default;

   private:
    friend class WalWriter;
    std::uint64_t in_commit_ = 0;  // the newest commit that knows this listener already
  };
  struct Hooks {
    std::move_only_function<void()> need_file{};            // no prepared file: a rotation waits, or soon will
    std::move_only_function<void(const Error&)> failed{};   // once
    std::move_only_function<void()> room{};                 // the queue was full and has room again
  };

  WalWriter(io::Runtime& runtime, WalFiles& files, ShardLogStats& stats, const ShardLogOptions& options);
  ~WalWriter();
  void set_hooks(Hooks hooks) { hooks_ = std::move(hooks); }

  /// What recovery found: frames before `next_sequence` are durable, and begin in these files.
  void resume(std::uint64_t next_sequence, std::uint32_t previous_header_crc,
              const std::vector<std::pair<std::uint64_t, std::uint64_t>>& file_starts);
  /// The active file is fresh; frames may come.
  void start();

  /// Queues one frame; header.sequence and everything the writer owns is filled in here. Never fails: check failed() and
  /// has_room() before. Answers the frame's sequence. After a failure or close() the frame goes nowhere, and waiting for it
  /// answers why.
  std::uint64_t append(FrameHeader header, Slice payload, Listener* listener);
  /// An active file takes frames. Not yet, while a start frees a slot for it.
  [[nodiscard]] bool started() const { return files_.active() != nullptr; }
  [[nodiscard]] bool has_room(std::size_t bytes) const { return pending_bytes_ + bytes <= options_.pending_bytes_max; }
  /// Somebody was turned away: Hooks::room is called once half of the queue is free.
  void tell_of_room() { was_full_ = true; }
  /// For how long the oldest write under way has been; zero: none is.
  [[nodiscard]] Duration oldest_write() const {
    bool waits = submitted_ > 0 && commits_[head_].state == Commit::State::in_flight;
    return waits ? runtime_.clock.now() - commits_[head_].submitted : Duration{};
  }

  [[nodiscard]] std::uint64_t durable() const { return durable_; }
  [[nodiscard]] std::uint64_t last_appended() const { return next_sequence_ - 1; }
  /// File sequence that holds (or will hold) the frame; valid for frames since start().
  [[nodiscard]] std::uint64_t file_of(std::uint64_t frame_sequence) const;
  /// First frame of the file with this sequence, for files since start(); 0: not begun.
  [[nodiscard]] std::uint64_t first_frame_of(std::uint64_t file_sequence) const;
  void forget_files_before(std::uint64_t file_sequence);

  /// Answers when the frame is durable, in order of sequences. Errors: the failure.
  Task<Result<void>> wait_durable(std::uint64_t sequence);
  /// The same, but answers no_credit as soon as the WAL has no file to go on in: for those who are about to free one.
  Task<Result<void>> wait_durable_or_stall(std::uint64_t sequence);
  [[nodiscard]] bool failed() const { return failed_ && !closed_; }
  /// The directory failed elsewhere: nothing is acknowledged any more, and nobody waits for ever.
  void fail(Error error) {
    if (!failed_) fail_with(std::move(error));
  }
  [[nodiscard]] const Error& failure() const { return failure_; }

  /// Somebody prepared a file, or freed one.
  void file_ready() { schedule(); }
  /// Writes a mark now if the last durable frame is not one; for close().
  void mark_now();
  /// Answers when nothing is in flight or queued, and the last posted turn ran. After a failure too.
  Task<void> drain();
  /// Drains, and takes nothing more: whoever was on its way to append is answered closed, as after a failure.
  Task<void> close();

 private:
  struct Commit : io::Operation {
    enum class State : std::uint8_t { idle, open, queued, in_flight, done };
    WalWriter* writer = nullptr;
    State state = State::idle;
    MutableBytes room{};       // from open to completed; then its bytes are on the device
    Buffer own{};              // of a frame larger than a staging slot
    std::size_t length = 0;    // padded once closed
    std::size_t written = 0;
    std::uint64_t position = 0;
    io::File* file = nullptr;
    std::uint64_t number = 0;
    std::uint64_t last_sequence = 0;
    Instant submitted{};
    std::vector<Listener*> listeners{};
  };
  struct Pending {
    FrameHeader header{};
    Slice payload{};
    Listener* listener = nullptr;
  };
  struct Waiter : Runnable {
    std::uint64_t sequence = 0;
    std::coroutine_handle<> handle{};
    Waiter* later = nullptr;
    Waiter* earlier = nullptr;
  };
  class DurableAwaiter;

  static constexpr std::size_t kStagingBytes = limits::kMiB;
  /// Registered memory is resident from the start: half of the places keep an empty broker of two shards below 40 MiB (design
  /// 12). The places in front are given out first.
  static constexpr std::size_t kPinnedBytes = kStagingBytes * limits::kWalCommitsInFlightMax / 2;
  /// Large enough to be written alone: at depth 16 the devices measured give most of their bandwidth (docs/performance.md, B1).
  static constexpr std::size_t kCommitBytes = 64 * limits::kKiB;
  /// Staged and not completed, unless it is a single commit: bounds the memory that largest batches take.
  static constexpr std::size_t kStagedBytesMax = 32 * limits::kMiB;
  /// Commits not yet reported: in flight, or completed ahead of an earlier one.
  static constexpr std::size_t kCommitsKnownMax = 4 * limits::kWalCommitsInFlightMax;

  void schedule();
  void pump();
  [[nodiscard]] bool may_submit(const Commit& commit) const;
  [[nodiscard]] bool may_open(std::size_t bytes) const;
  void take_room(Commit& commit, std::size_t bytes);
  void give_room(Commit& commit);
  bool stage(FrameHeader& header, const Slice& payload, Listener* listener);
  bool stage_pending();
  Commit* open_for(std::size_t bytes);
  void close_open();
  void submit(Commit& commit);
  void write_rest(Commit& commit);
  void completed(Commit& commit) noexcept;
  void advance_prefix();
  void release_waiters();
  void try_rotate();
  void arm_mark();
  void mark_due();
  void fail_with(Error error);
  [[nodiscard]] bool idle() const { return in_flight_ == 0 && used_ == 0 && pending_.empty(); }
  Commit& at(std::size_t index) { return commits_[(head_ + index) % commits_.size()]; }

  io::Runtime& runtime_;
  WalFiles& files_;
  ShardLogStats& stats_;
  const ShardLogOptions& options_;
  Hooks hooks_{};

  std::array<Commit, kCommitsKnownMax> commits_{};
  std::size_t head_ = 0;       // oldest commit not yet reported
  std::size_t used_ = 0;       // commits from head_ on that are not idle
  std::size_t submitted_ = 0;  // of these, the first so many were submitted
  std::size_t in_flight_ = 0;
  std::size_t staged_ = 0;     // commits that hold room: open, queued, in flight
  std::size_t staged_bytes_ = 0;
  Buffer staging_{};           // a slot for each commit in flight, from start() on; pinned
  std::vector<std::byte*> slots_{};  // idle ones, the last used one last: it is likely still near
  Commit* open_ = nullptr;     // always the last used one
  std::uint64_t commit_number_ = 0;
  std::uint64_t next_position_ = 0;  // in the active file, where the open commit begins
  bool rotating_ = false;
  bool stalled_ = false;

  std::deque<Pending> pending_;
  std::size_t pending_bytes_ = 0;
  bool was_full_ = false;

  std::uint64_t next_sequence_ = 1;
  std::uint64_t durable_ = 0;
  std::uint32_t previous_crc_ = 0;
  FrameType last_type_ = FrameType::mark;  // of the newest appended frame
  struct FileStart {
    std::uint64_t file = 0;
    std::uint64_t first_frame = 0;
  };
  std::deque<FileStart> file_starts_;

  Waiter* waiters_head_ = nullptr;
  Waiter* waiters_tail_ = nullptr;

  struct Turn : Runnable {
    WalWriter* writer = nullptr;
    bool posted = false;
  } turn_{};
  struct MarkTimer : io::Timer {
    WalWriter* writer = nullptr;
  } mark_timer_{};

  bool failed_ = false;  // or closed: nothing is taken any more
  bool closed_ = false;
  Error failure_{};
  Notifier quiet_;
  Notifier progress_;  // durable_ moved, a stall began, or all failed
};

}  // namespace tailrace::broker::log
