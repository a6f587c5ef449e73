// Segments filled from memory: whole blocks in large direct writes, never ahead of the WAL; sealing; a failed file retired.
#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "base/planted.h"
#include "log/partition_log.h"
#include "log/wal_format.h"

namespace tailrace::broker::log {
namespace {

constexpr std::uint64_t kAllocateMin = 128 * limits::kKiB;
constexpr std::uint64_t kAllocateMax = 32 * limits::kMiB;
constexpr std::uint32_t kCopyForwardMax = 32 * limits::kKiB;  // of a busy partition's end; less than a block when it is quiet
constexpr int kSettleRounds = 8;

}  // namespace

Task<Result<void>> PartitionLog::flush(FlushMode mode) {
  auto held = co_await lock_.acquire();
  co_return co_await flush_locked(mode);
}

Task<void> PartitionLog::quiesce() { auto held = co_await lock_.acquire(); }

Task<Result<void>> PartitionLog::flush_locked(FlushMode mode) {
  while (!removed_ && !shard_.failed()) {
    OpenSegment& s = *open_.front();
    bool whole = open_.size() > 1 && s.durable == s.end;  // rolled, and all of it may be written
    std::uint32_t target = whole || mode == FlushMode::partial ? s.durable : static_cast<std::uint32_t>(align_down(s.durable));
    if (planted(PlantedBug::segment_before_wal)) target = s.end;
    auto done = target > s.written ? co_await write_segment(s, target) : Result<void>{};
    if (done && (whole || mode != FlushMode::blocks) && s.synced < s.written) done = co_await sync_segment(s);
    if (done && whole && s.synced == s.end) {
      done = co_await seal(s);
      if (done) continue;
    }
    if (done || shard_.failed()) co_return done;
    if (done.error().code == Errc::storage_full) {
      shard_.space_ran_out();
      co_return done;
    }
    if (done.error().code == Errc::descriptors_exhausted) co_return done;
    auto moved = co_await retire(s, done.error());
    if (!moved) co_return moved;
  }
  if (removed_) co_return Result<void>{};
  co_return std::unexpected(shard_.failure());
}

/// A folder appears with the first segment, so that 10,000 partitions without records cost the disk nothing. Once in a life,
/// since an earlier process may have made it and died before it had synced the names.
Task<Result<void>> PartitionLog::make_folders() {
  if (folders_made_) co_return Result<void>{};
  const std::string& root = shard_.options.data_directory;
  io::FileSystem& files = shard_.runtime.files;
  TAILRACE_CO_TRY_VOID(co_await files.make_directory(topics_folder(root)));
  TAILRACE_CO_TRY_VOID(co_await files.make_directory(topic_folder(root, id_.topic)));
  TAILRACE_CO_TRY_VOID(co_await files.make_directory(folder()));
  TAILRACE_CO_TRY_VOID(co_await sync_folder(root));
  TAILRACE_CO_TRY_VOID(co_await sync_folder(topics_folder(root)));
  TAILRACE_CO_TRY_VOID(co_await sync_folder(topic_folder(root, id_.topic)));
  folders_made_ = true;
  co_return Result<void>{};
}

/// A folder whose sync failed is like a file's: whatever a later sync says, the names may be lost. Others rely on them.
Task<Result<void>> PartitionLog::sync_folder(std::string path) {
  if (planted(PlantedBug::directory_not_synced)) co_return Result<void>{};
  auto synced = co_await shard_.runtime.files.sync_directory(std::move(path));
  if (!synced) shard_.directory_failed(synced.error());
  co_return synced;
}

Task<Result<void>> PartitionLog::ensure_file(OpenSegment& s, std::uint64_t bytes) {
  std::string path = segment_path(folder(), s.base, "log");
  if (!s.created) {
    TAILRACE_CO_TRY_VOID(co_await make_folders());
    auto opened = co_await shard_.files.get(key_of(s.base), path, true);
    if (!opened) co_return std::unexpected(opened.error());
    TAILRACE_CO_TRY_VOID(co_await sync_folder(folder()));
    auto size = (*opened)->size();
    s.allocated = size ? *size : 0;
    s.created = true;
    ++shard_.stats.segments_created;
  }
  if (bytes <= s.allocated) co_return Result<void>{};
  // As large as the segment already is, so that a small partition does not hold much of the disk and a large one is not
  // fragmented; never more than a fair share of what is free.
  std::uint64_t step = std::clamp<std::uint64_t>(align_up(s.written), kAllocateMin, kAllocateMax);
  if (shard_.free_bytes > 0) {
    step = std::min(step, align_down(shard_.free_bytes / (4 * std::max<std::uint64_t>(shard_.partition_count(), 1))));
  }
  std::uint64_t room = align_up(options_.segment_bytes_max) > s.allocated ? align_up(options_.segment_bytes_max) - s.allocated : 0;
  std::uint64_t length = std::max(align_up(bytes) - s.allocated, std::min(step, room));
  TAILRACE_CO_TRY(auto file, co_await shard_.files.get(key_of(s.base), path, false));
  auto allocated = co_await io::allocate(*file, s.allocated, length);
  if (!allocated && allocated.error().code == Errc::storage_full) {
    // What is needed now may still fit.
    length = align_up(bytes) - s.allocated;
    allocated = co_await io::allocate(*file, s.allocated, length);
  }
  if (!allocated) co_return allocated;
  s.allocated += length;
  co_return Result<void>{};
}

Task<Result<void>> PartitionLog::write_segment(OpenSegment& s, std::uint32_t target) {
  TAILRACE_CO_TRY_VOID(co_await ensure_file(s, target));
  auto permit = co_await shard_.writes.acquire();
  Buffer buffer = shard_.take_buffer();
  Result<void> result{};
  while (s.written < target && result) {
    auto from = static_cast<std::uint32_t>(align_down(s.written));
    std::uint32_t to = std::min<std::uint32_t>(target, from + static_cast<std::uint32_t>(ShardContext::kWriteBytes));
    if (!copy_range(s.base, from, to, buffer.data())) {
      result = fail(Errc::internal, "bytes of a segment that are in no memory");
      break;
    }
    std::size_t padded = align_up(to - from);
    std::memset(buffer.data() + (to - from), 0, padded - (to - from));
    TAILRACE_DCHECK(planted(PlantedBug::segment_before_wal) || to <= s.durable, "a segment is never written ahead of the WAL");
    auto file = co_await shard_.files.get(key_of(s.base), segment_path(folder(), s.base, "log"), false);
    if (!file) {
      result = std::unexpected(file.error());
      break;
    }
    Bytes part{buffer.data(), padded};
    result = co_await io::write_all(**file, part, from, io::Durable::no);
    if (!result) break;
    s.written = to;
    ++shard_.stats.segment_writes;
    shard_.stats.segment_bytes += padded;
  }
  shard_.give_buffer(std::move(buffer));
  co_return result;
}

Task<Result<void>> PartitionLog::sync_segment(OpenSegment& s) {
  auto permit = co_await shard_.syncs.acquire();
  std::uint32_t written = s.written;
  TAILRACE_CO_TRY(auto file, co_await shard_.files.get(key_of(s.base), segment_path(folder(), s.base, "log"), false));
  Instant before = shard_.runtime.clock.now();
  TAILRACE_CO_TRY_VOID(co_await io::sync(*file));
  shard_.stats.sync_latency.record(shard_.runtime.clock.now() - before);
  ++shard_.stats.segment_syncs;
  s.synced = written;
  keep_remainder(s);
  if (s.save && s.save->covered <= s.synced) {
    std::vector<std::byte> bytes = std::move(s.save->bytes);
    s.save.reset();
    // Only a shortcut for the next start: without it that start scans more.
    auto saved = co_await replace_file(shard_.runtime, segment_path(folder(), s.base, "idx"), std::move(bytes));
    if (!saved) log_warn("segment.index_not_saved", "{}: {}", folder(), saved.error().detail);
  }
  if (shard_.stats.hot_bytes > shard_.options.hot_tail_bytes) shard_.hot_grew();
  co_return Result<void>{};
}

/// The partial block on disk will be rewritten by the next append; its bytes are kept, so that the batches may leave memory.
void PartitionLog::keep_remainder(const OpenSegment& s) {
  auto from = static_cast<std::uint32_t>(align_down(s.synced));
  if (from == s.synced) {
    remainder_ = {};
    return;
  }
  std::vector<std::byte> bytes(s.synced - from);
  if (!copy_range(s.base, from, s.synced, bytes.data())) return;
  remainder_ = {s.base, from, std::move(bytes)};
}

bool PartitionLog::copy_range(Offset segment, std::uint32_t from, std::uint32_t to, std::byte* into) const {
  std::uint32_t at = from;
  if (remainder_.segment == segment && remainder_.position <= at && at < remainder_.end()) {
    std::uint32_t step = std::min(remainder_.end(), to) - at;
    std::memcpy(into, remainder_.bytes.data() + (at - remainder_.position), step);
    at += step;
  }
  for (std::size_t i = hot_.find_position(segment, at); at < to && i < hot_.size(); ++i) {
    const HotBatch& b = hot_.at(i);
    if (b.segment != segment || b.position > at) return false;
    std::uint32_t step = std::min(b.end(), to) - at;
    std::memcpy(into + (at - from), b.bytes.owner.data() + b.bytes.offset + (at - b.position), step);
    at += step;
  }
  return at == to;
}

/// Cut to its length, indexed, its successor's producer state stored: from here on it never changes.
Task<Result<void>> PartitionLog::seal(OpenSegment& s) {
  if (!s.keep_length) {
    TAILRACE_CO_TRY(auto file, co_await shard_.files.get(key_of(s.base), segment_path(folder(), s.base, "log"), false));
    TAILRACE_CO_TRY_VOID(co_await io::truncate(*file, s.end));
    TAILRACE_CO_TRY_VOID(co_await io::sync(*file));
  }
  Offset next = open_[1]->base;
  TAILRACE_CO_TRY_VOID(co_await replace_file(shard_.runtime, segment_path(folder(), s.base, "idx"), s.index.encode(true, {})));
  TAILRACE_CO_TRY_VOID(co_await replace_file(shard_.runtime, segment_path(folder(), next, "snap"), encode_snapshot(next, s.state_after)));
  TAILRACE_CO_TRY_VOID(co_await sync_folder(folder()));
  snapshot_ = next;
  auto index = std::make_shared<SegmentIndex>(std::move(s.index));
  shard_.index_bytes += index->memory_bytes();
  sealed_.push_back({s.base, s.end, std::move(index)});
  shard_.cold.forget(key_of(s.base));
  if (remainder_.segment == s.base) remainder_ = {};
  open_.erase(open_.begin());
  segment_failures_ = 0;
  co_return Result<void>{};
}

Task<Result<void>> PartitionLog::settle(std::uint64_t boundary) {
  auto held = co_await lock_.acquire();
  for (int round = 0; round < kSettleRounds; ++round) {
    auto needed = needed_frame();
    if (!needed || *needed >= boundary || removed_) co_return Result<void>{};
    if (cut_frame_ != 0) {
      // A truncation is on its way. What it will cut must not be logged again behind its frame; everything is durable, so the
      // segment can take it. Once its frame is durable it only wants the lock.
      if (shard_.wal.durable() < cut_frame_) {
        TAILRACE_CO_TRY_VOID(co_await flush_locked(FlushMode::partial));
      } else {
        held.release();
        while (cut_frame_ != 0 && !removed_ && !shard_.failed()) co_await advanced_.wait();
        held = co_await lock_.acquire();
      }
      continue;
    }
    const OpenSegment& s = *open_.front();
    if (align_down(s.durable) > s.synced || (open_.size() > 1 && s.durable == s.end)) {
      TAILRACE_CO_TRY_VOID(co_await flush_locked(FlushMode::sync));
      continue;
    }
    auto from = static_cast<std::uint32_t>(align_down(s.synced));
    bool copy = open_.size() == 1 && s.end - from <= kCopyForwardMax;
    auto done = copy ? co_await copy_forward(from)
                     : co_await shard_.wal.wait_durable_or_stall(shard_.wal.last_appended());
    // No room for another frame until files are freed: what is durable is closed off in the segment instead.
    if (!done && done.error().code == Errc::no_credit) done = co_await split_at_durable();
    if (!done) co_return done;
  }
  co_return fail(Errc::no_credit, "the segment could not be written far enough");
}

/// Less than a block is left: one frame is cheaper than a segment write and its sync (storage.md 2.4). It takes everything
/// up to the end, so that whatever follows in the segment also follows in the WAL.
Task<Result<void>> PartitionLog::copy_forward(std::uint32_t from) {
  const OpenSegment& s = *open_.front();
  Buffer bytes = Buffer::allocate(s.end - from);
  if (!copy_range(s.base, from, s.end, bytes.data())) co_return fail(Errc::internal, "a remainder that is in no memory");
  Copied copied{s.base, s.end, 0};
  if (planted(PlantedBug::remainder_not_copied)) {
    copied.frame = shard_.wal.last_appended() + 1;
  } else {
    if (!shard_.wal.has_room(bytes.size())) co_return fail(Errc::no_credit, "the WAL's queue is full");
    FrameHeader header = frame(FrameType::remainder);
    header.position = from;
    ++shard_.stats.remainders_copied;
    shard_.stats.remainder_bytes += bytes.size();
    copied.frame = shard_.wal.append(header, Slice::whole(std::move(bytes)), this);
    TAILRACE_CO_TRY_VOID(co_await shard_.wal.wait_durable_or_stall(copied.frame));
  }
  copied_ = copied;
  co_return Result<void>{};
}

/// The segment ends where the durable batches end, and is complete on disk; what follows lies in a new one. Its frames name
/// the old place: recovery lays batches by offset, and a frame's place is only a hint where the checkpoint knows better.
Task<Result<void>> PartitionLog::split_at_durable() {
  TAILRACE_CO_TRY_VOID(co_await flush_locked(FlushMode::partial));
  OpenSegment& s = *open_.front();
  if (s.end == s.synced || s.synced == 0 || removed_) co_return Result<void>{};
  std::size_t first = hot_.find_position(s.base, s.synced);
  if (first == hot_.size() || hot_.at(first).position != s.synced) co_return fail(Errc::internal, "the durable end is no batch's");
  TAILRACE_CO_TRY(auto file, co_await shard_.files.get(key_of(s.base), segment_path(folder(), s.base, "log"), false));
  TAILRACE_CO_TRY_VOID(co_await io::truncate(*file, s.synced));
  TAILRACE_CO_TRY_VOID(co_await io::sync(*file));
  first = hot_.find_position(s.base, s.synced);
  std::uint32_t cut = s.synced;
  auto rest = std::make_unique<OpenSegment>(hot_.at(first).base);
  for (std::size_t i = first; i < hot_.size() && hot_.at(i).segment == s.base; ++i) {
    HotBatch& b = hot_.at(i);
    auto header = read_batch_header(b.bytes.bytes(), b.bytes.length);
    if (!header) co_return std::unexpected(header.error());
    rest->index.add(*header, b.bytes.bytes(), last_append_ms_);
    b.segment = rest->base;
    b.position -= cut;
    rest->end = b.end();
    if (i < hot_.size() - undurable_) rest->durable = b.end();
  }
  rest->state_after = std::move(s.state_after);
  sealed_.push_back({s.base, cut, nullptr});  // its index is made when somebody reads it
  shard_.cold.forget(key_of(s.base));
  copied_ = {};
  remainder_ = {};
  open_.front() = std::move(rest);
  co_return Result<void>{};
}

/// A file that failed a write or a sync is believed only up to its last good sync. What lies behind moves to a new file,
/// from memory; the batches get new WAL frames, since their old ones name the old place. A second failure is the disk's.
Task<Result<void>> PartitionLog::retire(OpenSegment& s, Error why) {
  log_error("segment.retired", "{} segment {}: {}", folder(), s.base.value(), why.detail);
  if (!shard_.wal.started()) co_return std::unexpected(std::move(why));  // nothing can be logged anew: the start fails, and says why
  if (++segment_failures_ > 1) {
    shard_.directory_failed(why);
    co_return std::unexpected(std::move(why));
  }
  ++shard_.stats.segment_retirements;
  shard_.files.drop(key_of(s.base));
  shard_.cold.forget(key_of(s.base));
  if (open_.size() == 1) roll();
  auto floor = static_cast<std::uint32_t>(align_down(s.synced));
  std::size_t first = hot_.find_position(s.base, floor);
  if (first == hot_.size() || hot_.at(first).segment != s.base) co_return std::unexpected(std::move(why));
  std::uint32_t cut = hot_.at(first).position;
  Offset moved_base = hot_.at(first).base;
  if (moved_base == s.base) {
    // Nothing of the file is believed: the same name, a new file.
    auto gone = co_await shard_.runtime.files.remove(segment_path(folder(), s.base, "log"));
    if (!gone && gone.error().code != Errc::not_found) co_return gone;
    s.created = false;
    s.allocated = s.written = s.synced = 0;
    co_return Result<void>{};
  }
  auto moved = std::make_unique<OpenSegment>(moved_base);
  std::uint64_t last_frame = 0;
  std::vector<std::uint64_t> frames;
  for (std::size_t i = first; i < hot_.size() && hot_.at(i).segment == s.base; ++i) {
    const HotBatch& b = hot_.at(i);
    FrameHeader header = frame(FrameType::batch);
    header.base_offset = b.base;
    header.segment_base = moved_base;
    header.position = b.position - cut;
    last_frame = shard_.wal.append(header, b.bytes, this);
    frames.push_back(last_frame);
  }
  auto logged = co_await shard_.wal.wait_durable_or_stall(last_frame);
  if (!logged) {
    // Neither the segment nor the WAL takes the bytes.
    shard_.directory_failed(why);
    co_return logged;
  }
  // All of them are durable, under their old frames too; eviction never takes what is not synced.
  first = hot_.find_position(s.base, floor);
  for (std::size_t n = 0; n < frames.size(); ++n) {
    HotBatch& b = hot_.at(first + n);
    auto header = read_batch_header(b.bytes.bytes(), b.bytes.length);
    if (!header) co_return std::unexpected(header.error());
    moved->index.add(*header, b.bytes.bytes(), last_append_ms_);
    b.segment = moved_base;
    b.position -= cut;
    b.frame = frames[n];
    moved->end = moved->durable = b.end();
  }
  moved->state_after = std::move(s.state_after);
  sealed_.push_back({s.base, cut, nullptr});  // its index is made anew when somebody reads it
  copied_ = {};
  remainder_ = {};
  open_.front() = std::move(moved);
  co_return Result<void>{};
}

}  // namespace tailrace::broker::log
