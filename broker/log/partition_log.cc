#include "log/partition_log.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/planted.h"

namespace tailrace::broker::log {
namespace {

constexpr std::uint32_t kFlushBytes = limits::kMiB;          // pending whole blocks that start a segment write
constexpr std::uint32_t kSaveInterval = 16 * limits::kMiB;   // of log between two saves of the active index

}  // namespace

PartitionLog::PartitionLog(ShardContext& shard, std::uint32_t number, PartitionId id, PartitionOptions options)
    : shard_{shard}, number_{number}, id_{id}, options_{options}, advanced_{shard.runtime.executor}, calls_ended_{shard.runtime.executor}, lock_{shard.runtime.executor} {}

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
  return {.type = type, .partition = number_, .base_offset = end_, .segment_base = active().base, .position = active().end,
          .term = term_, .append_time_ms = last_append_ms_, .sub = sub_};
}

std::uint64_t PartitionLog::queue_hard_state() {
  logged_term_ = term_;
  logged_vote_ = vote_;
  Buffer payload = Buffer::allocate(4);
  store_le(payload.data(), vote_.value());
  return shard_.wal.append(frame(FrameType::hard_state), Slice::whole(std::move(payload)), this);
}

/// The term rises at each start; the first append of a run makes it durable, in the same commit.
void PartitionLog::queue_term() {
  if (term_queued_) return;
  term_queued_ = true;
  queue_hard_state();
  ++sub_;
  note_term(terms_, {term_, end_, sub_});
  shard_.wal.append(frame(FrameType::term_start), {}, this);
}

Result<Appended> PartitionLog::append(Slice batch, const BatchHeader& header, WallTime leader_append_time) {
  TAILRACE_TRY_VOID(appendable(batch.length));
  if (truncating_) return fail(Errc::not_leader, "the log is being truncated");
  // Metadata stays writable: a topic must be deletable when the disk is full. WAL files exist already, and the reserve is for this.
  if (shard_.disk_full && id_.topic != kMetadataTopicId) return fail(Errc::storage_full, shard_.options.data_directory);
  if (!shard_.wal.has_room(FrameHeader::frame_bytes(batch.length))) {
    shard_.wal.tell_of_room();
    return fail(Errc::no_credit, "the WAL's queue is full");
  }
  TAILRACE_DCHECK(batch.length == header.total_bytes(), "a slice holds exactly one batch");

  if (active().end > 0 && active().end + batch.length > options_.segment_bytes_max) roll();
  queue_term();
  if (!queue_remainder()) return fail(Errc::internal, "what a partial block on disk holds is in no memory");
  last_append_ms_ = std::max<std::int64_t>(last_append_ms_, leader_append_time.time_since_epoch().count());
  BatchHeader placed = header;
  placed.base_offset = end_;
  placed.leader_epoch = term_;
  assign_batch(batch.mutable_bytes(), placed.base_offset, placed.leader_epoch);

  OpenSegment& segment = active();
  WallTime append_time{std::chrono::milliseconds{last_append_ms_}};
  producers_.apply(placed, batch.bytes(), append_time);
  std::uint32_t digest = segment.index.digest();
  segment.index.add(placed, batch.bytes(), last_append_ms_);
  sub_ = 0;
  std::uint64_t sequence = shard_.wal.append(frame(FrameType::batch), batch, this);
  hot_.push({.bytes = std::move(batch), .base = placed.base_offset, .next = placed.next_offset(), .segment = segment.base,
             .position = segment.end, .digest = digest, .frame = sequence});
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
  return Appended{placed.base_offset, end_};
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
  bool moved = false;
  while (undurable_ > 0) {
    const HotBatch& batch = hot_.at(hot_.size() - undurable_);
    if (batch.frame > sequence) break;
    --undurable_;
    flushed_ = batch.next;
    moved = true;
    for (auto it = open_.rbegin(); it != open_.rend(); ++it) {
      if ((*it)->base != batch.segment) continue;
      (*it)->durable = std::max((*it)->durable, batch.end());
      break;
    }
  }
  if (!moved) return;
  // The commit rule of a single replica: what is flushed here is committed.
  high_watermark_ = std::max(high_watermark_, flushed_);
  release_committed();
  advanced_.notify_all();
  const OpenSegment& front = *open_.front();
  if (!flush_queued && (open_.size() > 1 || (front.durable - front.written >= kFlushBytes && shard_.eager()))) shard_.want_flush(*this);
}

class PartitionLog::CommittedAwaiter : private CommitWaiter {
 public:
  CommittedAwaiter(PartitionLog& partition, Offset wanted) : partition_{partition} { end = wanted; }
  [[nodiscard]] bool await_ready() const noexcept {
    return partition_.high_watermark_ >= end || !partition_.usable() || partition_.shard_.failed() || end > partition_.end_;
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
  void await_resume() const noexcept {}

 private:
  PartitionLog& partition_;
};

Task<Result<void>> PartitionLog::committed(Offset end) {
  co_await CommittedAwaiter{*this, end};
  if (high_watermark_ >= end) co_return Result<void>{};
  TAILRACE_CO_TRY_VOID(usable());
  if (shard_.failed()) co_return std::unexpected(shard_.failure());
  co_return fail(Errc::not_leader, "the offset was cut from the log");
}

void PartitionLog::release_committed() {
  bool all = removed_ || closed_ || shard_.failed();
  while (waiters_head_ && (all || waiters_head_->end <= high_watermark_ || waiters_head_->end > end_)) {
    CommitWaiter* first = waiters_head_;
    waiters_head_ = first->later;
    (waiters_head_ ? waiters_head_->earlier : waiters_tail_) = nullptr;
    shard_.runtime.executor.post(*first);
  }
}

void PartitionLog::fail_waiters() {
  release_committed();
  advanced_.notify_all();
}

Task<Result<void>> PartitionLog::set_hard_state(LeaderEpoch term, NodeId vote) {
  TAILRACE_CO_TRY_VOID(usable());
  if (shard_.failed()) co_return std::unexpected(shard_.failure());
  if (term < term_) co_return fail(Errc::invalid_argument, fmt::format("term {} is older than {}", term.value(), term_.value()));
  if (term == term_ && vote_ != NodeId{-1} && vote != vote_) {
    co_return fail(Errc::invalid_argument, fmt::format("voted for node {} in term {} already", vote_.value(), term.value()));
  }
  if (term > term_) term_queued_ = false;  // the next append begins it
  term_ = term;
  vote_ = vote;
  co_return co_await shard_.wal.wait_durable(queue_hard_state());
}

Task<Result<void>> PartitionLog::start_term(LeaderEpoch term) {
  TAILRACE_CO_TRY_VOID(appendable(0));
  if (truncating_) co_return fail(Errc::not_leader, "the log is being truncated");
  if (term < term_) co_return fail(Errc::invalid_argument, "an older term");
  if (term > term_) vote_ = NodeId{-1};
  term_ = term;
  term_queued_ = false;
  queue_term();
  co_return co_await shard_.wal.wait_durable(shard_.wal.last_appended());
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
  c.term = logged_term_;
  c.vote = logged_vote_;
  c.log_start = log_start_;
  c.high_watermark = flushed_;
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
  c.sub = sub_;
  auto needed = needed_frame();
  c.applied_through = needed ? *needed - 1 : shard_.wal.durable();
  c.snapshot = snapshot_;
  c.terms = terms_;
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
