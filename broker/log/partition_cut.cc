// The front and the back of the log: delete records, retention, truncation, removal, accepted damage.
#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "log/partition_log.h"
#include "log/term_history.h"
#include "log/wal_format.h"

namespace tailrace::broker::log {

void PartitionLog::apply_log_start(Offset start) {
  start = std::min(start, end_);
  if (start <= log_start_ || !usable() || shard_.failed()) return;
  FrameHeader header = frame(FrameType::log_start);
  header.base_offset = start;
  // In force at once: a checkpoint taken before this is durable must not miss it.
  log_start_ = start;
  log_start_frame_ = shard_.wal.append(header, {}, this);
  if (start == end_ && active().end > 0) {
    roll();  // the segment that is written to holds nothing any more: it is closed, so that it can go
    close_emptied_ = true;
  }
  std::erase_if(holes_, [&](const Hole& h) { return h.to > h.from && h.to <= log_start_; });
  advanced_.notify_all();
}

Task<Result<void>> PartitionLog::drop_deleted() {
  TAILRACE_CO_TRY_VOID(usable());
  Call call{*this};
  if (shard_.failed()) co_return std::unexpected(shard_.failure());
  TAILRACE_CO_TRY_VOID(co_await shard_.wal.wait_durable(log_start_frame_));
  if (std::exchange(close_emptied_, false)) {
    if (auto closed = co_await flush(FlushMode::partial); !closed) log_warn("segment.not_closed", "{}: {}", folder(), closed.error().detail);
  }
  TAILRACE_CO_TRY(std::uint64_t bytes, co_await drop_segments_below(log_start_));
  (void)bytes;
  co_return Result<void>{};
}

/// Sealed segments that end at or before `start`. The frame that says so is durable; a crash in between leaves files that
/// the next call removes.
Task<Result<std::uint64_t>> PartitionLog::drop_segments_below(Offset start) {
  auto held = co_await lock_.acquire();
  std::uint64_t bytes = 0;
  auto next_of = [&](std::size_t i) { return i + 1 < sealed_.size() ? sealed_[i + 1].base : open_.front()->base; };
  // No further than a stored snapshot: the producers of what is deleted must be known to the next start.
  Offset limit{-1};
  for (std::size_t i = 0; i < sealed_.size() && next_of(i) <= start; ++i) {
    if (sealed_[i].state_stored) limit = next_of(i);
  }
  while (!sealed_.empty() && !removed_) {
    Offset base = sealed_.front().base;
    if (next_of(0) > limit) break;
    bytes += sealed_.front().bytes;
    if (sealed_.front().index) shard_.index_bytes -= std::min<std::uint64_t>(shard_.index_bytes, sealed_.front().index->memory_bytes());
    sealed_.erase(sealed_.begin());
    shard_.files.drop(key_of(base));
    shard_.cold.forget(key_of(base));
    ++shard_.stats.segments_removed;
    for (std::string_view extension : {"log", "idx", "snap"}) {
      auto gone = co_await shard_.runtime.files.remove(segment_path(folder(), base, extension));
      if (!gone && gone.error().code != Errc::not_found) co_return std::unexpected(gone.error());
    }
  }
  co_return bytes;
}

Task<Result<RetentionOutcome>> PartitionLog::plan_retention(WallTime now) {
  TAILRACE_CO_TRY_VOID(usable());
  Call call{*this};
  Offset committed = commit_.offset;  // what is asked for is about the log as it is now; indexes are read in between
  RetentionOutcome out{.log_start = log_start_};
  if (truncating_ || (!options_.retention_time && !options_.retention_bytes)) co_return out;
  std::uint64_t total = stats().bytes;
  std::vector<SealedSegment> sealed = sealed_;  // a copy, for the same reason
  for (std::size_t i = 0; i < sealed.size(); ++i) {
    Offset next = i + 1 < sealed.size() ? sealed[i + 1].base : open_.front()->base;
    bool drop = options_.retention_bytes && total > *options_.retention_bytes && total - sealed[i].bytes >= *options_.retention_bytes;
    if (!drop && options_.retention_time) {
      auto index = co_await index_of(sealed[i].base);
      if (!index) break;
      // Leader append time: a record whose client dated it ten years ahead does not pin its segment.
      drop = (*index)->last_append_ms() >= 0 && now.time_since_epoch().count() - (*index)->last_append_ms() > options_.retention_time->count();
    }
    if (!drop || next > committed) break;
    total -= sealed[i].bytes;
    out.bytes_removed += sealed[i].bytes;
    ++out.segments_removed;
    out.log_start = std::max(out.log_start, next);
  }
  co_return out;
}

Task<Result<void>> PartitionLog::truncate_suffix(LogPosition to) {
  TAILRACE_CO_TRY_VOID(appendable(0));
  Call call{*this};
  if (to >= end_position()) co_return Result<void>{};
  if (to.offset < log_start_) co_return fail(Errc::offset_out_of_range, "below log start");
  if (truncating_) co_return fail(Errc::not_leader, "another truncation is running");
  truncating_ = true;  // no append between here and the cut
  auto done = co_await truncate(to);
  if (!done && before_cut_ && usable()) {
    // The frame is durable and the files are half cut: only the next start, which begins with the frame, makes sense of them.
    shard_.directory_failed(done.error());
  }
  truncating_ = laying_anew_ = false;
  cut_frame_ = 0;
  if (!shard_.failed()) before_cut_.reset();
  release_committed();
  advanced_.notify_all();
  co_return done;
}

Task<Result<void>> PartitionLog::truncate(LogPosition to) {
  Offset end = to.offset;
  TAILRACE_CO_TRY_VOID(co_await shard_.wal.wait_durable(shard_.wal.last_appended()));
  // Where the cut lies: in memory, or behind a batch on disk. Under the lock, since a segment may just be closed off; not
  // held while the WAL is waited for, since whoever frees its files needs it.
  auto placing = co_await lock_.acquire();
  std::size_t hot = hot_.find(end);
  Offset segment{};
  std::uint32_t position = 0;
  Offset cut = end;  // a batch is cut whole
  if (end == end_) {  // entries of length zero, and no byte of a segment
    segment = active().base;
    position = active().end;
  } else if (hot < hot_.size() && hot_.at(hot).base <= end) {
    segment = hot_.at(hot).segment;
    position = hot_.at(hot).position;
    cut = hot_.at(hot).base;
  } else {
    TAILRACE_CO_TRY(BlockRun run, co_await read_blocks(end, limits::kIndexInterval));
    if (run.end == 0) co_return fail(Errc::internal, "where to cut is neither on disk nor in memory");
    segment = run.segment;
    BatchWalk walk{run.bytes, run.begin, run.good_end, run.base, terms_, BatchWalk::Checksums::taken};
    for (cut = Offset{-1}; cut < Offset{0};) {
      TAILRACE_CO_TRY(auto batch, walk.next());
      if (!batch && run.error) co_return std::unexpected(unreadable(end, *std::move(run.error)));
      if (!batch) co_return std::unexpected(corrupt_at(end, fmt::format("segment {} ends before it", segment.value())));
      if (batch->next_offset() > end) cut = batch->base_offset;
    }
    position = walk.position();
  }
  // Where it is less than the position asked for, a batch went whole: what lies in front of that stays.
  LogPosition left{cut, cut == end ? std::min(to.sub, sub_of(cut)) : sub_of(cut)};
  FrameHeader header = frame(FrameType::truncate);
  header.base_offset = cut;
  header.sub = left.sub;
  header.segment_base = segment;
  header.position = position;
  cut_frame_ = shard_.wal.append(header, {}, this);
  placing.release();
  TAILRACE_CO_TRY_VOID(co_await shard_.wal.wait_durable(cut_frame_));
  // Drains segment writes: a late one must not land over new bytes.
  auto held = co_await lock_.acquire();
  TAILRACE_CO_TRY_VOID(usable());

  // From here on the log ends at the cut. The files follow; then everything is laid anew, as after a start.
  RecoveredPartition rest;
  rest.state = checkpoint();
  before_cut_ = rest.state;
  rest.truncated = true;
  rest.end = cut;
  for (std::size_t i = 0; i < hot_.size() && hot_.at(i).next <= cut; ++i) {
    const HotBatch& b = hot_.at(i);
    auto length = static_cast<std::uint32_t>(b.bytes.length);
    rest.tail.push_back({FrameType::batch, b.bytes, b.base, b.next, b.segment, b.position, b.frame, b.append_ms, length, length});
  }
  // A remainder frame that still protects the block of the cut protects it afterwards too.
  // One of an earlier segment is as it was; the frames of what it stands for may be gone.
  bool keep_copied = copied_.segment <= segment;
  Copied copied = copied_;
  if (copied.segment == segment) copied.end = std::min(copied.end, position);
  cut_state(rest.state, left, segment, position);
  std::vector<Offset> bases;
  for (const SealedSegment& s : sealed_) bases.push_back(s.base);
  for (const auto& s : open_) bases.push_back(s->base);
  for (Offset base : bases) {
    shard_.cold.forget(key_of(base));
    if (base > segment) shard_.files.drop(key_of(base));  // lay() removes what is behind the cut
  }
  auto file = co_await shard_.files.get(key_of(segment), segment_path(folder(), segment, "log"), false);
  if (file) {
    auto size = (*file)->size();
    if (size && *size > position) co_await trim(segment, position);
  }
  laying_anew_ = true;
  shard_.stats.hot_bytes -= std::min(shard_.stats.hot_bytes, hot_.bytes());
  hot_.clear();
  undurable_ = 0;
  sealed_.clear();
  copied_ = {};
  remainder_ = {};
  producers_.clear();
  TAILRACE_CO_TRY_VOID(co_await lay(std::move(rest)));
  if (keep_copied) copied_ = copied;
  co_return Result<void>{};
}

Task<Result<void>> PartitionLog::install(HistoryStart start, Offset log_start, std::vector<std::byte> producers) {
  TAILRACE_CO_TRY_VOID(usable());
  Call call{*this};
  if (shard_.failed()) co_return std::unexpected(shard_.failure());
  if (truncating_) co_return fail(Errc::not_leader, "a truncation is running");
  if (log_start < start.position.offset) co_return fail(Errc::invalid_argument, "a beginning above the log start: records that nobody deleted");
  TAILRACE_CO_TRY_VOID(ProducerState{}.load(producers));
  std::size_t length = 12 + start.members.size() + producers.size();
  if (length > wal_payload_max(shard_.options.wal_file_bytes) || length > kFramePayloadMax) co_return fail(Errc::too_large, fmt::format("producer state of {} bytes", producers.size()));
  truncating_ = true;
  auto done = co_await install_locked(std::move(start), log_start, producers);
  if (!done && before_cut_ && usable()) shard_.directory_failed(done.error());  // as after a truncation
  truncating_ = laying_anew_ = false;
  cut_frame_ = 0;
  if (!shard_.failed()) before_cut_.reset();
  release_committed();
  advanced_.notify_all();
  co_return done;
}

Task<Result<void>> PartitionLog::install_locked(HistoryStart start, Offset log_start, Bytes producers) {
  TAILRACE_CO_TRY_VOID(co_await shard_.wal.wait_durable(shard_.wal.last_appended()));
  FrameHeader header = frame(FrameType::install);
  header.base_offset = header.segment_base = start.position.offset;
  header.sub = start.position.sub;
  header.term = start.term;
  header.position = 0;
  Slice payload = Slice::whole(encode(InstallPayload{log_start, start.members, producers}));
  std::size_t front = payload.length - producers.size();
  cut_frame_ = shard_.wal.append(header, payload, this);
  TAILRACE_CO_TRY_VOID(co_await shard_.wal.wait_durable(cut_frame_));
  auto held = co_await lock_.acquire();  // no segment write is running
  TAILRACE_CO_TRY_VOID(usable());

  RecoveredPartition anew;
  anew.state = checkpoint();
  before_cut_ = anew.state;
  begin_state_anew(anew.state, start, log_start);
  anew.truncated = true;
  anew.end = start.position.offset;
  auto length = static_cast<std::uint32_t>(producers.size());
  anew.tail.push_back({FrameType::install, payload.part(front, length), anew.end, anew.end, anew.end, 0, cut_frame_, last_append_ms_, length, length});
  shard_.files.drop_partition(number_);
  shard_.cold.forget_partition(number_);
  for (const SealedSegment& s : sealed_) {
    if (s.index) shard_.index_bytes -= std::min<std::uint64_t>(shard_.index_bytes, s.index->memory_bytes());
  }
  laying_anew_ = true;
  shard_.stats.hot_bytes -= std::min(shard_.stats.hot_bytes, hot_.bytes());
  hot_.clear();
  undurable_ = 0;
  sealed_.clear();
  copied_ = {};
  remainder_ = {};
  producers_.clear();
  commit_ = start.position;
  co_return co_await lay(std::move(anew));
}

std::uint32_t PartitionLog::sub_of(Offset offset) const {
  std::uint32_t sub = sub_at(terms_, marks_, offset);
  return history_.position.offset == offset ? std::max(sub, history_.position.sub) : sub;
}

void begin_state_anew(PartitionCheckpoint& state, const HistoryStart& start, Offset log_start) {
  state.log_start = std::max(state.log_start, std::min(log_start, start.position.offset));
  state.commit = start.position;
  state.flushed_segment = state.flushed_offset = start.position.offset;
  state.flushed_position = 0;
  state.first_digest.reset();
  state.flushed_digest.reset();
  state.snapshot = Offset{-1};
  state.history = start;
  state.terms.clear();
  state.marks.clear();
  state.holes.clear();
}

void cut_state(PartitionCheckpoint& state, LogPosition to, Offset segment, std::uint32_t position) {
  Offset cut = to.offset;
  while (!state.terms.empty() && state.terms.back().behind() > to) state.terms.pop_back();
  while (!state.marks.empty() && state.marks.back().end() > to) state.marks.pop_back();
  std::erase_if(state.holes, [&](const Hole& h) { return h.from >= cut; });
  state.commit = std::min(state.commit, to);
  if (segment < state.flushed_segment || (segment == state.flushed_segment && position == 0)) state.first_digest.reset();
  if (cut < state.flushed_offset || segment < state.flushed_segment) state.flushed_digest.reset();
  bool ahead = segment < state.flushed_segment || (segment == state.flushed_segment && position < state.flushed_position);
  if (ahead) {
    state.flushed_segment = segment;
    state.flushed_position = position;
    state.flushed_offset = cut;
  } else if (state.flushed_offset > cut) {
    state.flushed_offset = cut;
  }
}

Task<Result<void>> PartitionLog::skip_damage() {
  TAILRACE_CO_TRY_VOID(usable());
  Call call{*this};
  if (shard_.failed()) co_return std::unexpected(shard_.failure());
  std::vector<Hole> open;
  for (const Hole& h : holes_) {
    if (!h.accepted) open.push_back(h);
  }
  if (open.empty()) co_return co_await shard_.wal.wait_durable(skip_frame_);  // done, or on its way by another call
  Buffer payload = Buffer::allocate(open.size() * 16);
  for (std::size_t i = 0; i < open.size(); ++i) {
    store_le(payload.data() + 16 * i, open[i].from.value());
    store_le(payload.data() + 16 * i + 8, open[i].to.value());
  }
  std::uint64_t logged = skip_frame_ = shard_.wal.append(frame(FrameType::skip_damage), Slice::whole(std::move(payload)), this);
  // In force at once: what is appended before this coroutine goes on lies behind the hole, in the WAL as in the partition.
  Offset end = end_;
  for (Hole& h : holes_) {
    h.accepted = true;
    if (h.from == end_) end = std::max(end, h.to);
  }
  if (end > end_) {
    end_ = end;
    sub_ = 0;
    roll();
  }
  TAILRACE_CO_TRY_VOID(co_await shard_.wal.wait_durable(logged));
  if (end > flushed_) {
    flushed_ = end;
    flushed_sub_ = 0;
  }
  log_warn("partition.damage_skipped", "{}: {} holes accepted", folder(), open.size());
  advanced_.notify_all();
  co_return Result<void>{};
}

void PartitionLog::shut() {
  closed_ = true;
  release_committed();
  advanced_.notify_all();
}

void PartitionLog::mark_removed() {
  removed_ = true;
  release_committed();
  advanced_.notify_all();
}

Task<Result<void>> PartitionLog::delete_files() {
  auto held = co_await lock_.acquire();
  shard_.files.drop_partition(number_);
  shard_.cold.forget_partition(number_);
  shard_.stats.hot_bytes -= std::min(shard_.stats.hot_bytes, hot_.bytes());
  hot_.clear();
  undurable_ = 0;
  co_return co_await delete_partition_files(shard_.runtime, shard_.options.data_directory, id_);
}

Task<Result<void>> delete_partition_files(io::Runtime& runtime, std::string data_directory, PartitionId id) {
  std::string folder = partition_folder(data_directory, id);
  auto listed = co_await runtime.files.list(folder);
  if (!listed) {
    if (listed.error().code == Errc::not_found) co_return Result<void>{};
    co_return std::unexpected(listed.error());
  }
  for (const io::DirectoryEntry& file : *listed) {
    auto gone = co_await runtime.files.remove(folder + "/" + file.name);
    if (!gone && gone.error().code != Errc::not_found) co_return gone;
  }
  TAILRACE_CO_TRY_VOID(co_await runtime.files.remove_directory(folder));
  std::string topic = topic_folder(data_directory, id.topic);
  TAILRACE_CO_TRY_VOID(co_await runtime.files.sync_directory(topic));
  auto last = co_await runtime.files.list(topic);
  if (last && last->empty()) {
    auto gone = co_await runtime.files.remove_directory(topic);
    if (gone) co_return co_await runtime.files.sync_directory(topics_folder(data_directory));
  }
  co_return Result<void>{};
}

}  // namespace tailrace::broker::log
