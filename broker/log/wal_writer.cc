#include "log/wal_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "base/crc32c.h"
#include "base/log.h"
#include "base/planted.h"

namespace tailrace::broker::log {
namespace {

constexpr std::size_t kLargePage = 2 * limits::kMiB;  // where the system has such pages: x86-64's

/// Piece by piece, so that the checksum reads what the copy just brought near: the log's only copy on the write path.
std::uint32_t copy_with_crc(std::byte* into, Bytes from) {
  constexpr std::size_t kPiece = 16 * limits::kKiB;
  std::uint32_t crc = 0;
  while (!from.empty()) {
    Bytes piece = from.first(std::min(from.size(), kPiece));
    std::memcpy(into, piece.data(), piece.size());
    crc = crc32c({into, piece.size()}, crc);
    into += piece.size();
    from = from.subspan(piece.size());
  }
  return crc;
}

}  // namespace

WalWriter::WalWriter(io::Runtime& runtime, WalFiles& files, ShardLogStats& stats, const ShardLogOptions& options)
    : runtime_{runtime}, files_{files}, stats_{stats}, options_{options}, quiet_{runtime.executor}, progress_{runtime.executor} {
  for (Commit& c : commits_) {
    c.writer = this;
    c.complete = [](io::Operation* op) noexcept {
      auto* commit = static_cast<Commit*>(op);
      commit->writer->completed(*commit);
    };
  }
  turn_.writer = this;
  turn_.run = [](Runnable* self) noexcept {
    auto* turn = static_cast<Turn*>(self);
    turn->posted = false;
    turn->writer->pump();
  };
  mark_timer_.writer = this;
  mark_timer_.fire = [](io::Timer* self) noexcept { static_cast<MarkTimer*>(self)->writer->mark_due(); };
}

WalWriter::~WalWriter() {
  runtime_.timers.disarm(mark_timer_);
  runtime_.files.unpin(staging_.bytes().first(std::min(kPinnedBytes, staging_.bytes().size())));
  TAILRACE_CHECK(in_flight_ == 0, "commits drain before the writer goes away");
  TAILRACE_CHECK(!turn_.posted, "the loop ran the last posted turn before the writer goes away");
  TAILRACE_CHECK(!waiters_head_, "nobody waits for a writer that goes away");
}

void WalWriter::resume(std::uint64_t next_sequence, std::uint32_t previous_header_crc,
                       const std::vector<std::pair<std::uint64_t, std::uint64_t>>& file_starts) {
  next_sequence_ = next_sequence;
  durable_ = next_sequence - 1;
  previous_crc_ = previous_header_crc;
  for (const auto& [file, first] : file_starts) file_starts_.push_back({file, first});
}

void WalWriter::start() {
  TAILRACE_CHECK(files_.active(), "the writer starts on an active file");
  next_position_ = kWalDataStart;
  file_starts_.push_back({files_.active()->header.sequence, next_sequence_});
  staging_ = Buffer::allocate(kStagingBytes * limits::kWalCommitsInFlightMax, kLargePage);
  for (int i = limits::kWalCommitsInFlightMax; i-- > 0;) slots_.push_back(staging_.data() + static_cast<std::size_t>(i) * kStagingBytes);
  runtime_.files.pin(staging_.bytes().first(kPinnedBytes));
}

std::uint64_t WalWriter::append(FrameHeader header, Slice payload, Listener* listener) {
  header.sequence = next_sequence_++;
  if (failed_) return header.sequence;
  header.length = static_cast<std::uint32_t>(payload.length);
  last_type_ = header.type;
  ++stats_.frames;
  if (header.type == FrameType::mark) ++stats_.marks;
  std::uint64_t sequence = header.sequence;
  if (!pending_.empty() || !stage(header, payload, listener)) {
    pending_bytes_ += header.stored_bytes();
    stats_.pending_bytes = pending_bytes_;
    pending_.push_back({header, std::move(payload), listener});
    if (!has_room(limits::kMiB)) was_full_ = true;
  }
  schedule();
  return sequence;
}

void WalWriter::schedule() {
  if (turn_.posted || failed_) return;
  turn_.posted = true;
  runtime_.executor.post(turn_);
}

bool WalWriter::may_open(std::size_t bytes) const {
  return used_ < commits_.size() && staged_ < limits::kWalCommitsInFlightMax && (staged_ == 0 || staged_bytes_ + bytes <= kStagedBytesMax);
}

WalWriter::Commit* WalWriter::open_for(std::size_t bytes) {
  if (rotating_ || failed_) return nullptr;
  std::uint64_t end = files_.data_end(*files_.active());
  if (open_) {
    bool fits_file = next_position_ + align_up(open_->length + bytes) <= end;
    bool fits = fits_file && open_->length + bytes <= open_->room.size();
    bool alone = open_->length >= kCommitBytes / 2 && open_->length + bytes > kCommitBytes;
    if (fits && !(alone && may_open(kStagingBytes))) return open_;
    close_open();
  }
  if (next_position_ + align_up(bytes) > end) {
    rotating_ = true;
    return nullptr;
  }
  if (!may_open(std::max(bytes, kStagingBytes))) return nullptr;
  Commit& c = at(used_++);
  take_room(c, bytes);
  c.state = Commit::State::open;
  c.length = 0;
  c.written = 0;
  c.position = next_position_;
  c.file = files_.active()->file.get();
  c.number = ++commit_number_;
  c.listeners.clear();
  open_ = &c;
  return open_;
}

void WalWriter::take_room(Commit& commit, std::size_t bytes) {
  if (bytes > kStagingBytes) {
    commit.own = Buffer::allocate(align_up(bytes), io::kDirectAlignment);
    commit.room = commit.own.bytes();
  } else {
    commit.room = {slots_.back(), kStagingBytes};
    slots_.pop_back();
  }
  ++staged_;
  staged_bytes_ += commit.room.size();
}

void WalWriter::give_room(Commit& commit) {
  --staged_;
  staged_bytes_ -= commit.room.size();
  if (!commit.own && !planted(PlantedBug::reuse_buffer_early)) slots_.push_back(commit.room.data());
  commit.own = {};
  commit.room = {};
}

bool WalWriter::stage(FrameHeader& header, const Slice& payload, Listener* listener) {
  std::size_t bytes = header.stored_bytes();
  Commit* c = open_for(bytes);
  if (!c) return false;
  const WalFileHeader& file = files_.active()->header;
  std::byte* at = c->room.data() + c->length;
  header.payload_crc = copy_with_crc(at + kFrameHeaderBytes, payload.bytes());
  std::size_t used = kFrameHeaderBytes + payload.length;
  if (used < bytes) std::memset(at + used, 0, bytes - used);
  header.file_sequence = static_cast<std::uint32_t>(file.sequence);
  header.previous_crc = previous_crc_;
  header.durable_lag = static_cast<std::uint32_t>(std::min<std::uint64_t>(header.sequence - durable_, 0xffffffffU));
  encode(header, file.salt, {at, kFrameHeaderBytes});
  previous_crc_ = header.header_crc;
  c->length += bytes;
  c->last_sequence = header.sequence;
  if (listener && listener->in_commit_ != c->number) {
    listener->in_commit_ = c->number;
    c->listeners.push_back(listener);
  }
  return true;
}

bool WalWriter::stage_pending() {
  bool any = false;
  while (!pending_.empty()) {
    Pending& first = pending_.front();
    if (!stage(first.header, first.payload, first.listener)) break;
    pending_bytes_ -= first.header.stored_bytes();
    pending_.pop_front();
    any = true;
  }
  stats_.pending_bytes = pending_bytes_;
  if (any && was_full_ && pending_bytes_ < options_.pending_bytes_max / 2) {
    was_full_ = false;
    if (hooks_.room) hooks_.room();
  }
  return any;
}

/// What cannot grow any more goes at once if the device has a place for it.
void WalWriter::close_open() {
  if (!open_) return;
  std::size_t padded = align_up(open_->length);
  std::memset(open_->room.data() + open_->length, 0, padded - open_->length);
  stats_.commit_padding_bytes += padded - open_->length;
  open_->length = padded;
  open_->state = Commit::State::queued;
  next_position_ += padded;
  open_ = nullptr;
  while (submitted_ < used_ && may_submit(at(submitted_))) submit(at(submitted_));
}

/// Idle: one record goes at once. Busy: an open commit grows while earlier ones are in flight, so that padding stays below a
/// tenth and the device's depth is used by commits that are worth it.
bool WalWriter::may_submit(const Commit& commit) const {
  if (in_flight_ == limits::kWalCommitsInFlightMax) return false;
  if (commit.state == Commit::State::queued || in_flight_ < 2) return true;
  return commit.length >= (in_flight_ < 4 ? kCommitBytes / 4 : kCommitBytes);
}

void WalWriter::pump() {
  if (failed_) {
    if (in_flight_ == 0) quiet_.notify_all();
    return;
  }
  stage_pending();
  if (open_ && open_->length > 0 && may_submit(*open_)) close_open();
  while (submitted_ < used_ && at(submitted_).state == Commit::State::queued && may_submit(at(submitted_))) submit(at(submitted_));
  if (rotating_ && in_flight_ == 0 && used_ == 0) try_rotate();
  if (idle()) quiet_.notify_all();
  if (idle() && durable_ + 1 == next_sequence_ && last_type_ != FrameType::mark && options_.wal_mark_when_idle) arm_mark();
}

void WalWriter::submit(Commit& commit) {
  commit.state = Commit::State::in_flight;
  commit.submitted = runtime_.clock.now();
  ++submitted_;
  ++in_flight_;
  stats_.commits_in_flight = in_flight_;
  stats_.commit_bytes += commit.length;
  write_rest(commit);
  if (planted(PlantedBug::reuse_buffer_early) && !commit.own) slots_.push_back(commit.room.data());
  if (planted(PlantedBug::ack_before_completion)) {
    durable_ = std::max(durable_, commit.last_sequence);
    for (Listener* listener : commit.listeners) listener->frames_durable(durable_);
    release_waiters();
  }
}

void WalWriter::write_rest(Commit& commit) {
  Bytes rest{commit.room.data() + commit.written, commit.length - commit.written};
  auto durable = planted(PlantedBug::no_dsync) ? io::Durable::no : io::Durable::yes;
  commit.file->write(commit, rest, commit.position + commit.written, durable);
}

void WalWriter::completed(Commit& commit) noexcept {
  std::int64_t result = commit.result;
  if (!failed_ && (result == -EINTR || result == -EAGAIN)) return write_rest(commit);
  if (!failed_ && result > 0) {
    std::size_t done = commit.written + static_cast<std::size_t>(result);
    if (done < commit.length) {
      // Go on from a block boundary: the part of the block that was written is written again with the same bytes.
      commit.written = align_down(done);
      return write_rest(commit);
    }
  }
  --in_flight_;
  stats_.commits_in_flight = in_flight_;
  commit.state = Commit::State::done;
  give_room(commit);
  if (result <= 0 && !failed_) {
    fail_with(result == 0 ? Error{Errc::io_error, "WAL write: the device took no byte"} : io::error_of(result, "WAL write"));
  }
  if (failed_) {
    if (in_flight_ == 0) quiet_.notify_all();
    return;
  }
  ++stats_.commits;
  stats_.commit_latency.record(runtime_.clock.now() - commit.submitted);
  if (planted(PlantedBug::ack_out_of_order) && commit.last_sequence > durable_) {
    durable_ = commit.last_sequence;
    for (Listener* listener : commit.listeners) listener->frames_durable(durable_);
  }
  advance_prefix();
  pump();
}

void WalWriter::advance_prefix() {
  bool moved = false;
  while (used_ > 0 && at(0).state == Commit::State::done) {
    Commit& c = at(0);
    durable_ = std::max(durable_, c.last_sequence);
    for (Listener* listener : c.listeners) listener->frames_durable(durable_);
    c.listeners.clear();
    c.state = Commit::State::idle;
    head_ = (head_ + 1) % commits_.size();
    --used_;
    --submitted_;
    moved = true;
  }
  if (!moved) return;
  release_waiters();
  progress_.notify_all();
}

void WalWriter::release_waiters() {
  while (waiters_head_ && (failed_ || waiters_head_->sequence <= durable_)) {
    Waiter* first = waiters_head_;
    waiters_head_ = first->later;
    (waiters_head_ ? waiters_head_->earlier : waiters_tail_) = nullptr;
    runtime_.executor.post(*first);
  }
}

void WalWriter::try_rotate() {
  if (!files_.prepared()) {
    if (!stalled_) ++stats_.wal_stalls;
    stalled_ = true;
    progress_.notify_all();
    if (hooks_.need_file) hooks_.need_file();
    return;
  }
  stalled_ = false;
  rotating_ = false;
  files_.activate();
  next_position_ = kWalDataStart;
  ++stats_.wal_rotations;
  file_starts_.push_back({files_.active()->header.sequence, pending_.empty() ? next_sequence_ : pending_.front().header.sequence});
  log_debug("wal.rotated", "shard {} file {}", options_.shard.value(), files_.active()->header.sequence);
  if (hooks_.need_file) hooks_.need_file();
  schedule();
}

std::uint64_t WalWriter::file_of(std::uint64_t frame_sequence) const {
  std::uint64_t file = 0;
  for (const FileStart& start : file_starts_) {
    if (start.first_frame > frame_sequence) break;
    file = start.file;
  }
  return file;
}

std::uint64_t WalWriter::first_frame_of(std::uint64_t file_sequence) const {
  for (const FileStart& start : file_starts_) {
    if (start.file == file_sequence) return start.first_frame;
  }
  return 0;
}

void WalWriter::forget_files_before(std::uint64_t file_sequence) {
  while (file_starts_.size() > 1 && file_starts_.front().file < file_sequence) file_starts_.pop_front();
}

void WalWriter::arm_mark() {
  // One millisecond is left for the write itself.
  runtime_.timers.arm(mark_timer_, runtime_.clock.now() + limits::kWalIdleMark - std::chrono::milliseconds{1});
}

void WalWriter::mark_due() {
  if (!idle() || failed_) return;  // busy again: the next idle moment arms the timer anew
  mark_now();
}

void WalWriter::mark_now() {
  if (failed_ || last_type_ == FrameType::mark) return;
  append(FrameHeader{.type = FrameType::mark}, {}, nullptr);
}

void WalWriter::fail_with(Error error) {
  failed_ = true;
  failure_ = std::move(error);
  log_error("wal.failed", "shard {}: {}; nothing is acknowledged any more", options_.shard.value(), failure_.detail);
  pending_.clear();
  pending_bytes_ = 0;
  stats_.pending_bytes = 0;
  release_waiters();
  progress_.notify_all();
  if (hooks_.failed) hooks_.failed(failure_);
}

Task<void> WalWriter::drain() {
  while (turn_.posted || in_flight_ > 0 || (!failed_ && !idle())) {
    if (turn_.posted) co_await yield_to(runtime_.executor);
    else co_await quiet_.wait();
  }
  runtime_.timers.disarm(mark_timer_);
}

Task<void> WalWriter::close() {
  co_await drain();
  if (failed_) co_return;
  failed_ = closed_ = true;
  failure_ = {Errc::closed, "the log"};
  release_waiters();
  progress_.notify_all();
}

class WalWriter::DurableAwaiter : private Waiter {
 public:
  DurableAwaiter(WalWriter& writer, std::uint64_t wanted) : writer_{writer} { sequence = wanted; }
  [[nodiscard]] bool await_ready() const noexcept { return writer_.failed_ || sequence <= writer_.durable_; }
  void await_suspend(std::coroutine_handle<> caller) noexcept {
    handle = caller;
    run = [](Runnable* self) noexcept { static_cast<Waiter*>(self)->handle.resume(); };
    Waiter* after = writer_.waiters_tail_;
    while (after && after->sequence > sequence) after = after->earlier;
    earlier = after;
    later = after ? after->later : writer_.waiters_head_;
    (after ? after->later : writer_.waiters_head_) = this;
    (later ? later->earlier : writer_.waiters_tail_) = this;
  }
  void await_resume() const noexcept {}

 private:
  WalWriter& writer_;
};

Task<Result<void>> WalWriter::wait_durable(std::uint64_t sequence) {
  co_await DurableAwaiter{*this, sequence};
  if (sequence > durable_) co_return std::unexpected(failure_);
  co_return Result<void>{};
}

Task<Result<void>> WalWriter::wait_durable_or_stall(std::uint64_t sequence) {
  while (!failed_ && durable_ < sequence) {
    if (stalled_) co_return broker::fail(Errc::no_credit, "the WAL has no file to go on in");
    co_await progress_.wait();
  }
  if (durable_ < sequence) co_return std::unexpected(failure_);
  co_return Result<void>{};
}

}  // namespace tailrace::broker::log
