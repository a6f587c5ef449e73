// Reads: the hot tail without a copy, sealed and half-open segments through the cold reader. Nothing above the high watermark.
#include <fmt/format.h>

#include <algorithm>
#include <ranges>

#include "base/log.h"
#include "base/planted.h"
#include "log/partition_log.h"

namespace tailrace::broker::log {
namespace {

constexpr std::size_t kRunBytes = limits::kMiB;  // of a segment at a time

}  // namespace

const Hole* PartitionLog::hole_at(Offset offset) const {
  for (const Hole& h : holes_) {
    if (offset >= h.from && (offset < h.to || (h.to == h.from && !h.accepted))) return &h;
  }
  return nullptr;
}

bool PartitionLog::lost(Offset offset) const {
  const Hole* hole = offset >= log_start_ ? hole_at(offset) : nullptr;
  return hole && !hole->accepted;
}

/// What a read answers that got nothing: an error of the moment as it is, anything else counted and logged.
Error PartitionLog::unreadable(Offset offset, Error why) {
  if (why.code == Errc::corrupt) return corrupt_at(offset, std::move(why.detail));
  log_error("read.failed", "{} offset {}: {}", folder(), offset.value(), why.detail);
  return why;
}

Error PartitionLog::corrupt_at(Offset offset, std::string what) {
  ++shard_.stats.corrupt_reads;
  log_error("read.corrupt", "{} offset {}: {}", folder(), offset.value(), what);
  return {Errc::corrupt, fmt::format("offset {}: {}", offset.value(), what)};
}

Task<Result<ReadResult>> PartitionLog::read(Offset from, ReadLimits limits) {
  TAILRACE_CO_TRY_VOID(usable());
  ReadResult out{.next = from, .high_watermark = commit_.offset, .log_start = log_start_};
  if (from < log_start_ || (from > commit_.offset && !lost(from))) {
    co_return fail(Errc::offset_out_of_range, fmt::format("offset {}; valid: {} to {}", from.value(), log_start_.value(), commit_.offset.value()));
  }
  while (const Hole* hole = hole_at(from)) {
    if (!hole->accepted) co_return fail(Errc::corrupt, fmt::format("offsets {} to {} are lost", hole->from.value(), hole->to.value()));
    from = hole->to;
  }
  out.next = from;
  if (from >= commit_.offset) co_return out;
  if (from >= hot_begin()) {
    ++shard_.stats.hot_reads;
    read_hot(from, out.high_watermark, limits, out);
    co_return out;
  }
  Call call{*this};
  auto done = co_await read_cold(commit_.offset, limits, out);
  if (removed_ || closed_) co_return std::unexpected(usable().error());
  if (from < log_start_) {  // deleted while it was read
    co_return fail(Errc::offset_out_of_range, fmt::format("offset {}; valid: {} to {}", from.value(), log_start_.value(), commit_.offset.value()));
  }
  if (!done && out.batches.empty()) co_return std::unexpected(std::move(done.error()));
  out.high_watermark = commit_.offset;
  out.log_start = log_start_;
  co_return out;
}

void PartitionLog::read_hot(Offset from, Offset below, const ReadLimits& limits, ReadResult& into) {
  std::size_t bytes = 0;
  for (std::size_t i = hot_.find(from); i < hot_.size(); ++i) {
    const HotBatch& b = hot_.at(i);
    if (b.next > below) break;
    if (b.base > from && hole_at(into.next)) break;
    bool first = into.batches.empty();
    if (!first && (bytes + b.bytes.length > limits.bytes_max || into.batches.size() >= limits.batches_max)) break;
    bytes += b.bytes.length;
    into.batches.push_back(b.bytes);
    into.next = b.next;
  }
}

Task<Result<void>> PartitionLog::read_cold(Offset below, ReadLimits limits, ReadResult& into) {
  std::size_t bytes = 0;
  while (into.next < hot_begin() && into.next < below) {
    if (const Hole* hole = hole_at(into.next)) {
      if (!hole->accepted) break;
      into.next = hole->to;
      continue;
    }
    std::size_t room = limits.bytes_max > bytes ? limits.bytes_max - bytes : 1;
    TAILRACE_CO_TRY(BlockRun run, co_await read_blocks(into.next, static_cast<std::uint32_t>(std::min<std::size_t>(room, kRunBytes))));
    BatchWalk walk{run.bytes, run.begin, run.good_end, run.base, terms_, BatchWalk::Checksums::taken};
    Offset before = into.next;
    for (;;) {
      auto header = walk.next();
      if (!header) co_return std::unexpected(corrupt_at(into.next, fmt::format("segment {} position {}: {}", run.segment.value(), walk.position(), header.error().detail)));
      if (!*header) break;
      if ((*header)->next_offset() <= into.next) continue;
      if ((*header)->next_offset() > below) {
        if (!into.batches.empty()) co_return Result<void>{};
        // The bound is always a batch's end: answering nothing would have the reader ask for ever.
        co_return std::unexpected(corrupt_at(into.next, fmt::format("segment {} position {}: a batch across the end of what is read", run.segment.value(), walk.position())));
      }
      std::size_t total = (*header)->total_bytes();
      bool first = into.batches.empty();
      if (!first && (bytes + total > limits.bytes_max || into.batches.size() >= limits.batches_max)) co_return Result<void>{};
      bytes += total;
      into.next = (*header)->next_offset();
      into.batches.push_back(walk.batch());
    }
    if (run.error) co_return std::unexpected(unreadable(into.next, *std::move(run.error)));
    if (into.next == before && into.next < hot_begin()) co_return std::unexpected(corrupt_at(into.next, fmt::format("segment {} ends before it", run.segment.value())));
  }
  if (into.batches.empty() && into.next >= hot_begin() && into.next < below) read_hot(into.next, below, limits, into);
  co_return Result<void>{};
}

Task<Result<ReplicaRead>> PartitionLog::read_replica(Offset from, Offset until, std::size_t bytes_max) {
  TAILRACE_CO_TRY_VOID(usable());
  Call call{*this};
  until = std::min(until, end_);
  Offset first = first_base();
  if (from < first || from >= until) co_return fail(Errc::offset_out_of_range, fmt::format("offset {}; kept: {} to {}", from.value(), first.value(), until.value()));
  ReadResult read{.batches = {}, .next = from, .high_watermark = {}, .log_start = {}};
  ReadLimits limits{.bytes_max = bytes_max};
  std::int64_t append_ms = last_append_before(from);
  if (from >= hot_begin()) {
    read_hot(from, until, limits, read);
  } else if (auto done = co_await read_cold(until, limits, read); !done && read.batches.empty()) {
    // Segments below the log start go one by one, and not in order if one could not be removed.
    if (from < log_start_ && done.error().code == Errc::corrupt) co_return fail(Errc::offset_out_of_range, "deleted");
    co_return std::unexpected(std::move(done).error());
  }
  ReplicaRead out;
  for (Slice& batch : read.batches) {
    TAILRACE_CO_TRY(BatchHeader header, read_batch_header(batch.bytes(), batch.length));
    if (out.batches.empty()) out.begin = header.base_offset;
    out.end = header.next_offset();
    std::size_t hot = hot_.find(header.base_offset);
    if (hot < hot_.size() && hot_.at(hot).base == header.base_offset) append_ms = hot_.at(hot).append_ms;
    out.batches.push_back({std::move(batch), WallTime{std::chrono::milliseconds{std::max<std::int64_t>(append_ms, 0)}}});
  }
  co_return out;
}

/// Of the segment that holds `offset`, as far as it is in memory; segments keep no time for each batch.
std::int64_t PartitionLog::last_append_before(Offset offset) const {
  auto open = std::ranges::upper_bound(open_, offset, {}, [](const auto& s) { return s->base; });
  if (open != open_.begin()) return (*std::prev(open))->index.first_append_ms();
  auto sealed = std::ranges::upper_bound(sealed_, offset, {}, &SealedSegment::base);
  if (sealed == sealed_.begin() || !std::prev(sealed)->index) return -1;
  return std::prev(sealed)->index->first_append_ms();
}

/// Behind the place no record may be missing that is not deleted: it lies at or before the log start, or at the end of a log that is
/// empty. Earlier segments are kept until a later one's state is stored (drop_segments_below()).
Task<Result<StateAt>> PartitionLog::stored_state(LogPosition at_least) {
  TAILRACE_CO_TRY_VOID(usable());
  Call call{*this};
  Offset start = log_start_;
  if (start == end_ && commit_ == end_position()) co_return StateAt{commit_, producers_.snapshot()};
  std::vector<Offset> bases;
  for (const SealedSegment& s : sealed_) bases.push_back(s.base);
  for (const auto& s : open_) bases.push_back(s->base);
  for (Offset base : bases | std::views::reverse) {
    if (base > start) continue;
    // Entries of length zero change nothing of it.
    LogPosition place = base == at_least.offset ? at_least : LogPosition{base, 0};
    if (place < at_least) break;
    if (base == Offset{0}) co_return StateAt{place, ProducerState{}.snapshot()};
    auto file = co_await read_whole_file(shard_.runtime, segment_path(folder(), base, "snap"), kSnapshotBytesMax);
    if (!file) continue;
    auto decoded = decode_snapshot(file->bytes());
    if (decoded && decoded->at == base) co_return StateAt{place, std::vector<std::byte>{decoded->state.begin(), decoded->state.end()}};
  }
  co_return fail(Errc::not_found, "the derived state is not stored where the log can begin");
}

Task<Result<std::optional<OffsetAtTime>>> PartitionLog::find_time(std::int64_t time_ms) {
  Call call{*this};
  for (int attempt = 0;; ++attempt) {
    TAILRACE_CO_TRY_VOID(usable());
    // Batches may leave memory while the disk is searched: they are in neither half then, and it is searched again.
    Offset memory_begins = hot_begin();
    TAILRACE_CO_TRY(auto found, co_await find_time_on_disk(time_ms));
    if (found) co_return found;
    if (memory_begins == hot_begin() || attempt == kFindAttempts) break;
  }
  for (std::size_t i = 0; i < hot_.size(); ++i) {
    const HotBatch& b = hot_.at(i);
    if (b.next > commit_.offset) break;
    if (b.next <= log_start_) continue;
    auto header = read_batch_header(b.bytes.bytes(), b.bytes.length);
    if (header && header->max_timestamp >= time_ms) co_return OffsetAtTime{b.base, header->max_timestamp};
  }
  co_return std::optional<OffsetAtTime>{};
}

Task<Result<std::optional<OffsetAtTime>>> PartitionLog::find_time_on_disk(std::int64_t time_ms) {
  // Segments in order: the first whose maximum reaches the time. Then block by block, batch by batch. What is next is asked
  // anew each time: an open segment may be sealed while an index is read.
  for (Offset from{};;) {
    auto next = std::ranges::lower_bound(sealed_, from, {}, &SealedSegment::base);
    if (next == sealed_.end()) break;
    Offset base = next->base;
    from = base + 1;
    Offset end = std::next(next) == sealed_.end() ? open_.front()->base : std::next(next)->base;
    if (end <= log_start_) continue;  // deleted, its file not yet: whatever is in it, nobody asks for it
    auto index = co_await index_of(base);
    if (!index) {
      if (index.error().code == Errc::offset_out_of_range) continue;
      co_return std::unexpected(index.error());
    }
    auto block = (*index)->block_at_time(time_ms);
    if (!block) continue;
    TAILRACE_CO_TRY(auto hit, co_await scan_for_time((*index)->block(*block).first, (*index)->next(), time_ms));
    if (hit) co_return hit;
  }
  for (std::size_t i = 0; i < open_.size(); ++i) {
    const OpenSegment& s = *open_[i];
    auto block = s.index.block_at_time(time_ms);
    if (!block) continue;
    if (s.index.block(*block).begin < disk_end(s)) {
      TAILRACE_CO_TRY(auto hit, co_await scan_for_time(s.index.block(*block).first, s.index.next(), time_ms));
      if (hit) co_return hit;
    }
    break;  // the rest is in memory
  }
  co_return std::optional<OffsetAtTime>{};
}

/// Over [from, to), as far as it is not in memory.
Task<Result<std::optional<OffsetAtTime>>> PartitionLog::scan_for_time(Offset from, Offset to, std::int64_t time_ms) {
  from = std::max(from, log_start_);
  while (from < std::min(to, hot_begin())) {
    auto run = co_await read_blocks(from, limits::kIndexInterval);
    if (!run && run.error().code == Errc::offset_out_of_range) co_return std::optional<OffsetAtTime>{};  // deleted meanwhile
    if (!run) co_return std::unexpected(run.error());
    BatchWalk walk{run->bytes, run->begin, run->good_end, run->base, terms_, BatchWalk::Checksums::taken};
    for (;;) {
      auto header = walk.next();
      if (!header) co_return std::unexpected(corrupt_at(walk.next_offset(), header.error().detail));
      if (!*header) break;
      bool found = (*header)->max_timestamp >= time_ms && (*header)->next_offset() > log_start_ && (*header)->next_offset() <= commit_.offset;
      if (found) co_return OffsetAtTime{(*header)->base_offset, (*header)->max_timestamp};
    }
    if (run->error) co_return std::unexpected(unreadable(walk.next_offset(), *std::move(run->error)));
    if (run->end == 0) break;  // in memory by now
    if (walk.next_offset() <= from) co_return std::unexpected(corrupt_at(from, fmt::format("segment {} ends before it", run->segment.value())));
    from = walk.next_offset();
  }
  co_return std::optional<OffsetAtTime>{};
}

}  // namespace tailrace::broker::log
