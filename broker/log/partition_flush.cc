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

/// Planted: nobody knows when it lands.
void write_unawaited(std::shared_ptr<io::File> file, Bytes bytes, std::uint64_t position) {
  struct Write : io::Operation {
    std::shared_ptr<io::File> file;
    Buffer bytes;
  };
  auto* write = new Write{{}, std::move(file), Buffer::allocate(bytes.size(), io::kDirectAlignment)};
  std::memcpy(write->bytes.data(), bytes.data(), bytes.size());
  write->complete = [](io::Operation* op) noexcept { delete static_cast<Write*>(op); };
  write->file->write(*write, write->bytes.bytes(), position, io::Durable::no);
}

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
    Result<void> done{};
    if (!s.failed) {
      if (target > s.written) done = co_await write_segment(s, target);
      if (done && (whole || mode != FlushMode::blocks) && s.synced < s.written) done = co_await sync_segment(s);
      if (done && whole && s.synced == s.end) {
        co_await seal(s);
        continue;
      }
      if (done || shard_.failed()) co_return done;
    }
    bool may_pass = !done && (done.error().code == Errc::storage_full || done.error().code == Errc::descriptors_exhausted);
    if (s.failed || !may_pass) {
      if (cut_frame_ != 0) {
        // The truncation's frame names a place in this file: nothing moves until it is carried out.
        shard_.directory_failed(done ? Error{Errc::io_error, "a segment failed under a truncation"} : done.error());
        break;
      }
      if (!done) log_error("segment.failed", "{} segment {}: {}", folder(), s.base.value(), done.error().detail);
      s.failed = true;
      done = co_await retire(s);
      if (done) continue;
      may_pass = done.error().code == Errc::storage_full || done.error().code == Errc::descriptors_exhausted;
      if (!may_pass) shard_.directory_failed(done.error());  // the second failure: it is not the file
    }
    if (done.error().code == Errc::storage_full) shard_.space_ran_out();
    co_return done;
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
    if (planted(PlantedBug::late_segment_write)) {
      write_unawaited(*file, part, from);
    } else {
      result = co_await io::write_all(**file, part, from, io::Durable::no);
    }
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
  auto done = co_await io::sync(*file);
  if (!done) {
    // Never tried again and believed: whatever the code, these bytes are written anew.
    s.failed = true;
    co_return done;
  }
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

/// The file is cut to its length. Only space is at stake: a segment ends where the next one begins, however long its file is.
Task<void> PartitionLog::trim(Offset base, std::uint32_t length) {
  auto file = co_await shard_.files.get(key_of(base), segment_path(folder(), base, "log"), false);
  Result<void> done = file ? co_await io::truncate(**file, length) : Result<void>{std::unexpected(file.error())};
  if (done) done = co_await io::sync(**file);
  if (!done) log_warn("segment.not_trimmed", "{} segment {}: {}", folder(), base.value(), done.error().detail);
}

/// Cut to its length, indexed, its successor's producer state stored: from here on it never changes. All of it is synced
/// before; what is added here saves time and space later, and a failure of that is no failure of the segment.
Task<void> PartitionLog::seal(OpenSegment& s) {
  if (!s.keep_length) co_await trim(s.base, s.end);
  Offset next = open_[1]->base;
  auto done = co_await replace_file(shard_.runtime, segment_path(folder(), s.base, "idx"), s.index.encode(true, {}));
  if (done) done = co_await replace_file(shard_.runtime, segment_path(folder(), next, "snap"), encode_snapshot(next, s.state_after));
  if (done) done = co_await sync_folder(folder());
  if (done) snapshot_ = next;
  else log_warn("segment.index_not_saved", "{} segment {}: {}", folder(), s.base.value(), done.error().detail);
  auto index = std::make_shared<SegmentIndex>(std::move(s.index));
  shard_.index_bytes += index->memory_bytes();
  sealed_.push_back({s.base, s.end, std::move(index), done.has_value()});
  shard_.cold.forget(key_of(s.base));
  if (remainder_.segment == s.base) remainder_ = {};
  open_.erase(open_.begin());
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
  Offset base = s.base;
  std::uint32_t cut = s.synced;
  co_await trim(base, cut);
  go_on_behind(s, cut);
  sealed_.push_back({base, cut, nullptr});  // its index is made when somebody reads it
  shard_.cold.forget(key_of(base));
  co_return Result<void>{};
}

/// What lies behind `end`, a batch's, of the oldest open segment becomes the beginning of a segment of its own. `s` is gone then.
void PartitionLog::go_on_behind(OpenSegment& s, std::uint32_t end) {
  std::size_t first = hot_.find_position(s.base, end);
  bool any = first < hot_.size() && hot_.at(first).segment == s.base;
  std::unique_ptr<OpenSegment> rest;
  if (any || open_.size() == 1) rest = std::make_unique<OpenSegment>(any ? hot_.at(first).base : end_);
  for (std::size_t i = first; any && i < hot_.size() && hot_.at(i).segment == s.base; ++i) {
    HotBatch& b = hot_.at(i);
    auto header = read_batch_header(b.bytes.bytes(), b.bytes.length);
    TAILRACE_DCHECK(header.has_value(), "it was read when it was appended");
    b.digest = rest->index.digest();
    rest->index.add(*header, b.bytes.bytes(), last_append_ms_);
    b.segment = rest->base;
    b.position -= end;
    rest->end = b.end();
    if (i < hot_.size() - undurable_) rest->durable = b.end();
  }
  copied_ = {};
  remainder_ = {};
  if (!rest) {
    open_.erase(open_.begin());
    return;
  }
  rest->state_after = std::move(s.state_after);
  open_.front() = std::move(rest);
}

/// A file that failed a write or a sync is believed up to the last whole block of its last good sync: the partial one behind it
/// may just have been rewritten. What is durable behind that goes into a new file, synced before anything points there; what
/// is not durable yet becomes a segment of its own. No frame is needed for it: the old ones stay in the WAL until a checkpoint
/// names the new place, and recovery lays batches by offset.
/// Errors: storage_full, descriptors_exhausted (to be tried again: nothing has changed); any other: the disk's, not the file's.
Task<Result<void>> PartitionLog::retire(OpenSegment& s) {
  shard_.files.drop(key_of(s.base));
  shard_.cold.forget(key_of(s.base));
  TAILRACE_CO_TRY(Believed kept, co_await believed(s));
  std::uint32_t end = s.durable;  // a batch's; appends may go on behind it meanwhile
  if (end > kept.position) TAILRACE_CO_TRY_VOID(co_await write_anew(s, kept, end));
  if (removed_) co_return Result<void>{};
  ++shard_.stats.segment_retirements;
  log_warn("segment.retired", "{} segment {}: kept up to position {}; what follows is in segment {}", folder(), s.base.value(), kept.position, kept.next.value());
  Offset base = s.base;
  go_on_behind(s, end);  // first: batches stay in order of their places
  for (std::size_t i = hot_.find_position(base, kept.position); i < hot_.size() && hot_.at(i).segment == base; ++i) {
    HotBatch& b = hot_.at(i);
    b.segment = kept.next;
    b.position -= kept.position;
  }
  // Indexes of the two are made when somebody reads there.
  if (kept.position > 0) sealed_.push_back({base, kept.position, nullptr});
  if (end > kept.position) sealed_.push_back({kept.next, end - kept.position, nullptr});
  shard_.files.drop(key_of(base));
  shard_.cold.forget(key_of(base));
  co_return Result<void>{};
}

/// Where the batch begins that holds the first byte not believed, and the bytes from there to the last good sync.
Task<Result<PartitionLog::Believed>> PartitionLog::believed(const OpenSegment& s) {
  auto floor = static_cast<std::uint32_t>(align_down(s.synced));
  if (s.synced == 0) co_return Believed{0, s.base, {}};
  Believed out;
  std::size_t first = hot_.find_position(s.base, floor);
  if (first < hot_.size() && hot_.at(first).segment == s.base && hot_.at(first).position <= floor) {
    out = {hot_.at(first).position, hot_.at(first).base, std::vector<std::byte>(s.synced - hot_.at(first).position)};
    if (!copy_range(s.base, out.position, s.synced, out.bytes.data())) co_return fail(Errc::internal, "bytes of a segment that are in no memory");
    co_return out;
  }
  // The batches have left memory; the partial block's bytes were kept, and what lies before it is on the disk.
  bool kept = remainder_.segment == s.base && remainder_.position == floor && remainder_.end() == s.synced;
  if (!kept) co_return fail(Errc::internal, "a remainder that is in no memory");
  std::uint32_t from = 0;
  for (const IndexEntry& entry : s.index.entries()) {
    if (entry.position <= floor) from = entry.position;
  }
  std::vector<std::byte> bytes(s.synced - from);
  if (from < floor) {
    ColdReader::Source source{key_of(s.base), segment_path(folder(), s.base, "log"), floor};
    auto front = co_await shard_.cold.load(source, from, floor);
    if (front.error) co_return std::unexpected(*std::move(front.error));
    if (front.bytes.end() < floor) co_return fail(Errc::io_error, "a segment ends before its synced bytes do");
    front.bytes.copy(from, MutableBytes{bytes}.first(floor - from));
  }
  std::memcpy(bytes.data() + (floor - from), remainder_.bytes.data(), remainder_.bytes.size());
  for (std::size_t at = 0;;) {
    Bytes rest = Bytes{bytes}.subspan(at);
    TAILRACE_CO_TRY(BatchHeader header, read_batch_header(rest, limits::kMessageBytesCeiling));
    std::size_t next = at + header.total_bytes();
    if (next > bytes.size()) co_return fail(Errc::io_error, "a batch that ends behind the synced bytes");
    if (from + next > floor) {
      co_return Believed{from + static_cast<std::uint32_t>(at), header.base_offset, {rest.begin(), rest.end()}};
    }
    at = next;
  }
}

/// Writes [kept.position, end) of a segment to the file of `kept.next`. Written aside, synced and renamed: under its final name
/// it is whole, also where it replaces the failed file itself.
Task<Result<void>> PartitionLog::write_anew(const OpenSegment& s, const Believed& kept, std::uint32_t end) {
  TAILRACE_CO_TRY_VOID(co_await make_folders());
  std::string path = segment_path(folder(), kept.next, "log");
  std::string temporary = path + ".tmp";
  {
    TAILRACE_CO_TRY(auto file, co_await shard_.runtime.files.open(temporary, {.create = true, .write = true, .direct = true}));
    TAILRACE_CO_TRY_VOID(co_await io::truncate(*file, 0));
    auto permit = co_await shard_.writes.acquire();
    Buffer buffer = shard_.take_buffer();
    Result<void> done{};
    auto synced = kept.position + static_cast<std::uint32_t>(kept.bytes.size());
    for (std::uint32_t from = kept.position; from < end && done;) {
      std::uint32_t to = std::min<std::uint32_t>(end, from + static_cast<std::uint32_t>(ShardContext::kWriteBytes));
      std::uint32_t early = std::clamp(synced, from, to);
      if (early > from) std::memcpy(buffer.data(), kept.bytes.data() + (from - kept.position), early - from);
      if (early < to && !copy_range(s.base, early, to, buffer.data() + (early - from))) {
        done = fail(Errc::internal, "bytes of a segment that are in no memory");
        break;
      }
      std::size_t padded = align_up(to - from);
      std::memset(buffer.data() + (to - from), 0, padded - (to - from));
      done = co_await io::write_all(*file, Bytes{buffer.data(), padded}, from - kept.position, io::Durable::no);
      shard_.stats.segment_bytes += padded;
      from = to;
    }
    shard_.give_buffer(std::move(buffer));
    if (done) done = co_await io::truncate(*file, end - kept.position);
    if (done) done = co_await io::sync(*file);
    TAILRACE_CO_TRY_VOID(std::move(done));
  }
  TAILRACE_CO_TRY_VOID(co_await shard_.runtime.files.rename(temporary, path));
  co_return co_await sync_folder(folder());
}

}  // namespace tailrace::broker::log
