#include "log/partition_log.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/planted.h"
#include "log/term_history.h"

namespace tailrace::broker::log {
namespace {

constexpr std::uint32_t kFlushBytes = limits::kMiB;         // pending whole blocks that start a segment write
constexpr std::uint32_t kSaveInterval = 16 * limits::kMiB;  // of log between two saves of the active index

}  // namespace

PartitionLog::PartitionLog(ShardContext& shard, std::uint32_t number, PartitionId id, PartitionOptions options)
    : shard_{shard},
      number_{number},
      id_{id},
      options_{options},
      advanced_{shard.runtime.executor},
      calls_ended_{shard.runtime.executor},
      lock_{shard.runtime.executor} {}

PartitionLog::~PartitionLog() {
  TAILRACE_CHECK(!waiters_head_, "nobody waits for a partition that goes away");
  detach();
}

void PartitionLog::detach() {
  if (!attached_) return;
  attached_ = false;
  shard_.stats.hot_bytes -= std::min(shard_.stats.hot_bytes, hot_.bytes());
  hot_.clear();
  undurable_ = 0;
}

Result<void> PartitionLog::usable() const {
  if (removed_) return fail(Errc::no_such_partition, "it was deleted");
  if (closed_) return fail(Errc::closed, "partition");
  return {};
}

Result<void> PartitionLog::appendable(std::size_t bytes) const {
  TAILRACE_TRY_VOID(usable());
  if (shard_.failed()) return std::unexpected(shard_.failure());
  if (damaged()) return fail(Errc::corrupt, fmt::format("offsets from {} on are damaged; see: tailrace log verify", holes_.front().from.value()));
  if (bytes > wal_payload_max(shard_.options.wal_file_bytes)) {
    return fail(Errc::too_large, fmt::format("a batch of {} bytes; a WAL file holds {}", bytes, wal_payload_max(shard_.options.wal_file_bytes)));
  }
  return {};
}

FrameHeader PartitionLog::frame(FrameType type) const {
  return {.type = type,
          .partition = number_,
          .base_offset = end_,
          .segment_base = active().base,
          .position = active().end,
          .term = hard_.term,
          .append_time_ms = last_append_ms_,
          .sub = sub_};
}

Result<void> PartitionLog::save_hard_state(const HardState& state, std::uint64_t generation) {
  TAILRACE_TRY_VOID(usable());
  if (shard_.failed()) return std::unexpected(shard_.failure());
  if (state.term < hard_.term) return fail(Errc::invalid_argument, fmt::format("term {} is older than {}", state.term.value(), hard_.term.value()));
  hard_ = state;
  Buffer payload = Buffer::allocate(kHardStateBytes);
  encode(hard_, payload.bytes());
  std::uint64_t queued = shard_.wal.append(frame(FrameType::hard_state), Slice::whole(std::move(payload)), this);
  hard_frame_ = queued;
  queued_.push_back({queued, {}, generation});
  return {};
}

Result<void> PartitionLog::append_mark(const Mark& mark) {
  TAILRACE_TRY_VOID(usable());
  if (shard_.failed()) return std::unexpected(shard_.failure());
  if (mark.begin != end_position() || mark.members.size() > kMembersBytesMax) return fail(Errc::invalid_argument, "an entry that is not the next");
  ++sub_;
  FrameHeader header = frame(FrameType::term_start);
  header.term = mark.term;
  Slice payload;
  switch (mark.kind) {
    case MarkKind::term_start:
      note_term(terms_, {mark.term, end_, sub_});
      break;
    case MarkKind::members: {
      header.type = FrameType::members;
      Buffer bytes = Buffer::allocate(mark.members.size());
      std::memcpy(bytes.data(), mark.members.data(), mark.members.size());
      payload = Slice::whole(std::move(bytes));
      break;
    }
    case MarkKind::log_start: {
      header.type = FrameType::log_start_entry;
      Buffer bytes = Buffer::allocate(8);
      store_le(bytes.data(), mark.log_start.value());
      payload = Slice::whole(std::move(bytes));
      break;
    }
  }
  if (mark.kind != MarkKind::term_start) {
    marks_.push_back(mark);
    prune_marks();
  }
  queued_.push_back({shard_.wal.append(header, std::move(payload), this), end_position(), 0});
  return {};
}

/// The oldest go, as far as they are committed: the history begins behind them then.
void PartitionLog::prune_marks() {
  while (marks_.size() > kOtherMarksMax && marks_.front().end() <= commit_) {
    Mark& first = marks_.front();
    history_.term = term_before(terms_, first.end(), history_.term);
    history_.position = first.end();
    if (first.kind == MarkKind::members) history_.members = std::move(first.members);
    marks_.erase(marks_.begin());
  }
}

Result<void> PartitionLog::writable(std::size_t bytes) const {
  TAILRACE_TRY_VOID(appendable(bytes));
  if (truncating_) return fail(Errc::not_leader, "the log is being truncated");
  // Metadata stays writable: a topic must be deletable when the disk is full. WAL files exist already, and the reserve is for this.
  if (bytes > 0 && shard_.disk_full && id_.topic != kMetadataTopicId) return fail(Errc::storage_full, shard_.options.data_directory);
  if (bytes > 0 && !shard_.wal.has_room(FrameHeader::frame_bytes(bytes))) {
    shard_.wal.tell_of_room();
    return fail(Errc::no_credit, "the WAL's queue is full");
  }
  return {};
}

Result<Appended> PartitionLog::append(Slice batch, const BatchHeader& header, WallTime leader_append_time) {
  TAILRACE_TRY_VOID(writable(batch.length));
  TAILRACE_DCHECK(batch.length == header.total_bytes(), "a slice holds exactly one batch");
  if (term_before(terms_, end_position(), history_.term) != hard_.term) return fail(Errc::internal, "no term was begun in the log");
  BatchHeader placed = header;
  placed.base_offset = end_;
  placed.leader_epoch = hard_.term;
  if (active().end > 0 && active().end + batch.length > options_.segment_bytes_max) roll();
  if (!queue_remainder()) return fail(Errc::internal, "what a partial block on disk holds is in no memory");
  assign_batch(batch.mutable_bytes(), placed.base_offset, placed.leader_epoch);
  last_append_ms_ = std::max<std::int64_t>(last_append_ms_, leader_append_time.time_since_epoch().count());
  lay_down(std::move(batch), placed);
  return Appended{placed.base_offset, end_};
}

Result<void> PartitionLog::append_copy(Slice batch, const BatchHeader& header, WallTime leader_append_time) {
  TAILRACE_TRY_VOID(writable(batch.length));
  bool next = header.base_offset == end_ && header.offsets_make_sense() && batch.length == header.total_bytes();
  LeaderEpoch term = term_before(terms_, end_position(), history_.term);
  if (!next || term != header.leader_epoch) return fail(Errc::invalid_argument, "a batch that is not the next");
  if (active().end > 0 && active().end + batch.length > options_.segment_bytes_max) roll();
  if (!queue_remainder()) return fail(Errc::internal, "what a partial block on disk holds is in no memory");
  last_append_ms_ = std::max<std::int64_t>(last_append_ms_, leader_append_time.time_since_epoch().count());
  lay_down(std::move(batch), header);
  return {};
}

void PartitionLog::lay_down(Slice batch, const BatchHeader& placed) {
  OpenSegment& segment = active();
  WallTime append_time{std::chrono::milliseconds{last_append_ms_}};
  producers_.apply(placed, batch.bytes(), append_time);
  std::uint32_t digest = segment.index.digest();
  segment.index.add(placed, batch.bytes(), last_append_ms_);
  sub_ = 0;
  FrameHeader header = frame(FrameType::batch);
  header.term = placed.leader_epoch;
  std::uint64_t sequence = shard_.wal.append(header, batch, this);
  hot_.push({.bytes = std::move(batch),
             .base = placed.base_offset,
             .next = placed.next_offset(),
             .segment = segment.base,
             .position = segment.end,
             .digest = digest,
             .frame = sequence,
             .append_ms = last_append_ms_});
  ++undurable_;
  segment.end += static_cast<std::uint32_t>(hot_.back().bytes.length);
  end_ = placed.next_offset();
  maybe_save_point(segment);
  ++shard_.stats.appends;
  shard_.stats.append_bytes += hot_.back().bytes.length;
  shard_.stats.hot_bytes += hot_.back().bytes.length;
  if (shard_.stats.hot_bytes > shard_.options.hot_tail_bytes) shard_.hot_grew();
  if (planted(PlantedBug::segment_before_wal) && !flush_queued) {
    shard_.want_flush(*this);
  }
}

/// New appends go to a new segment; the old one is sealed in the background.
void PartitionLog::roll() {
  active().state_after = producers_.snapshot();
  open_.push_back(std::make_unique<OpenSegment>(end_));
}

/// Before a partial block on disk may be rewritten, what it holds must be in a live WAL frame (history "padded tail torn").
bool PartitionLog::queue_remainder() {
  const OpenSegment& s = *open_.front();
  bool all_on_disk = open_.size() == 1 && s.end == s.synced;
  if (!all_on_disk || s.synced % limits::kWalBlock == 0) return true;
  auto from = static_cast<std::uint32_t>(align_down(s.synced));
  Buffer bytes = Buffer::allocate(s.synced - from);
  if (!copy_range(s.base, from, s.synced, bytes.data())) return false;  // keep_remainder() sees to it that this is never so
  FrameHeader header = frame(FrameType::remainder);
  header.position = from;
  copied_ = {s.base, s.synced, shard_.wal.append(header, Slice::whole(std::move(bytes)), this)};
  return true;
}

void PartitionLog::maybe_save_point(OpenSegment& segment) {
  if (segment.save || segment.end - segment.last_save < kSaveInterval) return;
  std::vector<std::byte> state = producers_.snapshot();
  segment.last_save = segment.end;
  // A large producer state is not written more often than four times its size of log.
  if (state.size() * 4 > kSaveInterval) segment.last_save += static_cast<std::uint32_t>(state.size() * 4 - kSaveInterval);
  segment.save = SavePoint{segment.index.encode(false, state), segment.end};
}

void PartitionLog::frames_durable(std::uint64_t sequence) noexcept {
  bool batches = false;
  while (undurable_ > 0) {
    const HotBatch& batch = hot_.at(hot_.size() - undurable_);
    if (batch.frame > sequence) break;
    --undurable_;
    flushed_ = batch.next;
    flushed_sub_ = 0;
    batches = true;
    for (auto it = open_.rbegin(); it != open_.rend(); ++it) {
      if ((*it)->base != batch.segment) continue;
      (*it)->durable = std::max((*it)->durable, batch.end());
      break;
    }
  }
  std::size_t done = 0;
  for (; done < queued_.size() && queued_[done].frame <= sequence; ++done) {
    durable_generation_ = std::max(durable_generation_, queued_[done].generation);
    if (queued_[done].end <= flushed_position()) continue;
    flushed_ = queued_[done].end.offset;
    flushed_sub_ = queued_[done].end.sub;
  }
  queued_.erase(queued_.begin(), queued_.begin() + static_cast<std::ptrdiff_t>(done));
  if (!batches && done == 0) return;
  if (batches) {
    const OpenSegment& front = *open_.front();
    if (!flush_queued && (open_.size() > 1 || (front.durable - front.written >= kFlushBytes && shard_.eager()))) shard_.want_flush(*this);
  }
  if (listener_) listener_->durable(flushed_position(), term_before(terms_, flushed_position(), history_.term), durable_generation_);
}

void PartitionLog::commit_to(LogPosition position) {
  position = std::min(position, end_position());
  if (position <= commit_) return;
  bool moved = position.offset > commit_.offset;
  commit_ = position;
  if (moved) release_committed();
  advanced_.notify_all();
}

class PartitionLog::CommittedAwaiter : private CommitWaiter {
 public:
  CommittedAwaiter(PartitionLog& partition, Offset wanted) : partition_{partition} { end = wanted; }
  [[nodiscard]] bool await_ready() noexcept {
    if (partition_.commit_.offset >= end)
      ended = WaitEnd::committed;
    else if (end > partition_.end_)
      ended = WaitEnd::cut;
    else
      return !partition_.usable() || partition_.shard_.failed();
    return true;
  }
  void await_suspend(std::coroutine_handle<> caller) noexcept {
    handle = caller;
    run = [](Runnable* self) noexcept { static_cast<CommitWaiter*>(self)->handle.resume(); };
    CommitWaiter* after = partition_.waiters_tail_;
    while (after && after->end > end) after = after->earlier;
    earlier = after;
    later = after ? after->later : partition_.waiters_head_;
    (after ? after->later : partition_.waiters_head_) = this;
    (later ? later->earlier : partition_.waiters_tail_) = this;
  }
  [[nodiscard]] WaitEnd await_resume() const noexcept { return ended; }

 private:
  PartitionLog& partition_;
};

Task<Result<void>> PartitionLog::committed(Offset end) {
  switch (co_await CommittedAwaiter{*this, end}) {
    case WaitEnd::committed:
      co_return Result<void>{};
    case WaitEnd::cut:
      co_return fail(Errc::not_leader, "the offset was cut from the log");
    case WaitEnd::abandoned:
      co_return fail(Errc::not_leader, "leadership was lost before it was known to be committed");
    case WaitEnd::over:
      break;
  }
  TAILRACE_CO_TRY_VOID(usable());
  co_return std::unexpected(shard_.failure());
}

void PartitionLog::release(CommitWaiter& waiter, WaitEnd ended) {
  (waiter.earlier ? waiter.earlier->later : waiters_head_) = waiter.later;
  (waiter.later ? waiter.later->earlier : waiters_tail_) = waiter.earlier;
  waiter.ended = ended;
  shard_.runtime.executor.post(waiter);
}

void PartitionLog::release_committed() {
  while (waiters_head_ && waiters_head_->end <= commit_.offset) release(*waiters_head_, WaitEnd::committed);
  while (waiters_tail_ && waiters_tail_->end > end_) release(*waiters_tail_, WaitEnd::cut);
  bool all = removed_ || closed_ || shard_.failed();
  while (all && waiters_head_) release(*waiters_head_, WaitEnd::over);
}

void PartitionLog::abandon_waiters() {
  release_committed();
  while (waiters_head_) release(*waiters_head_, WaitEnd::abandoned);
}

void PartitionLog::fail_waiters() {
  release_committed();
  advanced_.notify_all();
}

ReplicatedState PartitionLog::replicated() const {
  ReplicatedState out{.hard = hard_, .start = history_, .marks = {}, .end = end_position(), .commit = commit_, .log_start = log_start_};
  // Segments below are gone; a term that only a batch tells of has no entry that begins it.
  Offset first = first_base();
  LogPosition from = std::max(history_.position, LogPosition{first, 0});
  for (const TermEntry& t : terms_) {
    if (t.sub == 0) from = std::max(from, t.behind());
  }
  from = std::min(from, out.end);
  out.start.position = from;
  out.start.term = term_before(terms_, from, history_.term);
  for (const Mark& m : marks_) {
    if (m.begin >= from)
      out.marks.push_back(m);
    else if (m.kind == MarkKind::members)
      out.start.members = m.members;
  }
  for (const TermEntry& t : terms_) {
    LogPosition begin{t.start, t.sub == 0 ? 0 : t.sub - 1};
    if (t.sub > 0 && begin >= from) out.marks.push_back({.begin = begin, .term = t.term, .kind = MarkKind::term_start, .log_start = {}, .members = {}});
  }
  std::ranges::sort(out.marks, {}, &Mark::begin);
  return out;
}

std::optional<std::uint64_t> PartitionLog::needed_frame() const {
  if (!loaded_) return std::nullopt;
  if (before_cut_) return before_cut_->applied_through + 1;
  auto needed = needed_for_bytes();
  if (cut_frame_ != 0) needed = std::min(needed.value_or(cut_frame_), cut_frame_);
  return needed;
}

std::optional<std::uint64_t> PartitionLog::needed_for_bytes() const {
  const OpenSegment& s = *open_.front();
  if (open_.size() == 1 && s.end == s.synced) return std::nullopt;
  auto floor = static_cast<std::uint32_t>(align_down(s.synced));
  if (copied_.segment == s.base && copied_.end > floor) return copied_.frame;
  std::size_t first = hot_.find_position(s.base, floor);
  if (first == hot_.size()) return std::nullopt;
  return hot_.at(first).frame;
}

PartitionCheckpoint PartitionLog::checkpoint() const {
  if (before_cut_) return *before_cut_;
  const OpenSegment& s = *open_.front();
  PartitionCheckpoint c;
  c.number = number_;
  c.id = id_;
  c.hard = hard_;
  c.hard_frame = hard_frame_;
  // Both may be ahead of this disk: a quorum elsewhere has it. Where the entries in front of a log start are not durable here, the next start
  // would take it for the log's end, inside a batch; its frame follows them.
  c.log_start = std::min(log_start_, flushed_);
  c.commit = commit_;
  c.flushed_segment = s.base;
  c.flushed_position = s.synced;
  std::size_t first = hot_.find_position(s.base, s.synced);
  c.flushed_offset = first == hot_.size() ? end_ : hot_.at(first).base;
  if (s.index.covered() > 0) {
    bool here = first < hot_.size() && hot_.at(first).segment == s.base;
    c.first_digest = s.index.first_digest();
    c.flushed_digest = here ? hot_.at(first).digest : s.index.digest();
  }
  c.last_append_ms = last_append_ms_;
  auto needed = needed_frame();
  c.applied_through = needed ? *needed - 1 : shard_.wal.durable();
  c.snapshot = snapshot_;
  c.history = history_;
  c.terms = terms_;
  c.marks = marks_;
  c.holes = holes_;
  return c;
}

std::uint64_t PartitionLog::evict(std::uint64_t bytes) {
  std::uint64_t freed = 0;
  const OpenSegment& s = *open_.front();
  // Batches that reach into the block that will be rewritten stay, unless the block's bytes are kept apart.
  std::uint32_t keep_from = static_cast<std::uint32_t>(align_down(s.synced));
  if (remainder_.segment == s.base && remainder_.position == keep_from && remainder_.end() == s.synced) keep_from = s.synced;
  while (freed < bytes && hot_.size() > undurable_) {
    const HotBatch& first = hot_.front();
    bool in_segment = first.segment < s.base || (first.segment == s.base && first.end() <= keep_from);
    if (!in_segment) break;
    freed += first.bytes.length;
    hot_.pop_front();
  }
  shard_.stats.hot_bytes -= freed;
  return freed;
}

Task<void> PartitionLog::calls_ended() {
  while (calls_ > 0) co_await calls_ended_.wait();
}

std::uint64_t PartitionLog::unsynced_bytes() const {
  std::uint64_t bytes = 0;
  for (const auto& s : open_) bytes += s->end - s->synced;
  return bytes;
}

bool PartitionLog::damaged() const {
  return std::ranges::any_of(holes_, [](const Hole& h) { return !h.accepted; });
}

PartitionStats PartitionLog::stats() const {
  PartitionStats out;
  for (const SealedSegment& s : sealed_) out.bytes += s.bytes;
  for (const auto& s : open_) out.bytes += s->end;
  out.segments = sealed_.size() + open_.size();
  if (!sealed_.empty() && sealed_.front().index && sealed_.front().index->first_append_ms() >= 0) {
    out.first_append = WallTime{std::chrono::milliseconds{sealed_.front().index->first_append_ms()}};
  } else if (sealed_.empty() && !open_.empty() && open_.front()->index.first_append_ms() >= 0) {
    out.first_append = WallTime{std::chrono::milliseconds{open_.front()->index.first_append_ms()}};
  }
  if (last_append_ms_ >= 0) out.last_append = WallTime{std::chrono::milliseconds{last_append_ms_}};
  out.hot_bytes = hot_.bytes();
  out.producers = producers_.size();
  for (const Hole& h : holes_) {
    if (h.accepted) continue;
    std::string to = h.to > h.from ? fmt::format("{}", h.to.value()) : std::string{"the end"};
    out.damage += fmt::format("{}offsets {} to {}", out.damage.empty() ? "" : ", ", h.from.value(), to);
  }
  return out;
}

}  // namespace tailrace::broker::log
