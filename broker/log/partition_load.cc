// Opening a partition: what the disk holds up to the checkpoint, what the WAL holds behind it. Bytes that were read and are
// wrong, and files that are not there, are damage: noted, not thrown. What cannot be read fails the opening and says nothing
// about the partition; the next call tries again.
#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "base/planted.h"
#include "log/partition_log.h"
#include "log/term_history.h"
#include "log/wal_format.h"

namespace tailrace::broker::log {
namespace {

/// A file that is not there, has an impossible size or holds what it should not is damage; any other error of a read proves
/// nothing.
bool proves_nothing(const Error& error) { return error.code != Errc::not_found && error.code != Errc::too_large && error.code != Errc::corrupt; }
template <class T>
bool proves_nothing(const Result<T>& read) {
  return !read && proves_nothing(read.error());
}

}  // namespace

struct PartitionLog::Loading {
  RecoveredPartition from{};
  std::vector<io::DirectoryEntry> files{};
  Offset expected{};     // next offset to lay
  bool stopped = false;  // the segment on disk ended in damage at `expected`, and nothing is laid behind it yet
  bool was_stopped = false;
  bool foreign = false;                  // the segment's file holds other batches than were written to it: not a byte of it counts
  std::optional<Offset> producers_at{};  // producer state is that of this offset
};

Task<Result<void>> PartitionLog::load(RecoveredPartition recovered) {
  hard_ = recovered.state.hard;
  hard_frame_ = recovered.state.hard_frame;
  commit_ = recovered.state.commit;
  TAILRACE_CO_TRY_VOID(co_await lay(std::move(recovered)));
  if (damaged()) hard_.suspicion = kLost;
  co_return Result<void>{};
}

Task<Result<void>> PartitionLog::lay(RecoveredPartition recovered) {
  Loading loading{.from = std::move(recovered)};
  const PartitionCheckpoint& state = loading.from.state;
  log_start_ = state.log_start;
  last_append_ms_ = state.last_append_ms;
  history_ = state.history;
  terms_ = state.terms;
  marks_ = state.marks;
  holes_ = state.holes;
  snapshot_ = state.snapshot;
  open_.clear();
  open_.push_back(std::make_unique<OpenSegment>(state.flushed_segment));
  loading.expected = state.flushed_segment;
  TAILRACE_CO_TRY_VOID(co_await list_segments(loading));
  TAILRACE_CO_TRY_VOID(co_await load_active(loading));
  TAILRACE_CO_TRY_VOID(co_await lay_tail(loading));
  TAILRACE_CO_TRY_VOID(co_await put_leftovers_aside(loading));
  end_ = std::max(loading.expected, log_start_);
  for (const Hole& hole : holes_) {
    if (hole.accepted && hole.from == end_) end_ = std::max(end_, hole.to);
  }
  if (end_ > loading.expected) {
    // What lies before is gone, its end included: go on in a segment of its own.
    if (active().end == 0) open_.pop_back();
    open_.push_back(std::make_unique<OpenSegment>(end_));
  }
  while (!terms_.empty() && terms_.back().start > end_) terms_.pop_back();  // its first batch was in a torn tail
  while (!marks_.empty() && marks_.back().begin.offset > end_) marks_.pop_back();
  sub_ = sub_of(end_);
  flushed_ = end_;
  flushed_sub_ = sub_;
  commit_ = std::min(commit_, end_position());
  undurable_ = 0;
  auto open_hole = [](const Hole& hole) { return !hole.accepted; };
  if (std::ranges::any_of(holes_, open_hole) && std::ranges::none_of(state.holes, open_hole)) ++shard_.stats.found_damaged;
  for (const Hole& hole : holes_) {
    if (!hole.accepted) log_error("partition.damaged", "{}: offsets from {} to {}", folder(), hole.from.value(), hole.to.value());
  }
  loaded_ = true;
  co_return Result<void>{};
}

void PartitionLog::add_hole(Offset from, Offset to) {
  bool to_the_end = to == from;
  from = std::max(from, log_start_);
  if (to_the_end)
    to = from;
  else if (to <= from)
    return;  // all of it was deleted
  for (const Hole& h : holes_) {
    if (h.from <= from && (h.to >= to || h.to == h.from)) return;  // known
  }
  if (holes_.size() < kHolesMax) holes_.push_back({from, to, false});
  std::ranges::sort(holes_, {}, &Hole::from);
}

/// The checkpoint's segment may have been deleted below the log start before another checkpoint was written, and a crash may have
/// kept any of its files. All that it held is deleted; the producers are in a snapshot stored in front of a later segment that is
/// not above the log start, and the WAL has what follows.
void PartitionLog::begin_behind_deleted(Loading& loading) {
  PartitionCheckpoint& state = loading.from.state;
  if (state.flushed_offset > log_start_) return;
  Offset next = state.flushed_segment;
  for (const io::DirectoryEntry& file : loading.files) {
    auto snapshot = parse_segment_name(file.name, "snap");
    if (snapshot && *snapshot >= state.flushed_offset && *snapshot <= log_start_) next = std::max(next, *snapshot);
  }
  if (next == state.flushed_segment) return;
  state.flushed_segment = state.flushed_offset = loading.expected = next;
  state.flushed_position = 0;
  open_.front() = std::make_unique<OpenSegment>(next);
}

/// The files of a log that was dropped for a new beginning; none of them is a part of what comes. When this is done the frame that
/// says so is needed no more: the producers that came with it are in a snapshot.
Task<Result<void>> PartitionLog::clear_old_log(Loading& loading) {
  Offset base = loading.from.state.flushed_segment;
  for (const io::DirectoryEntry& file : loading.files) {
    bool known = parse_segment_name(file.name, "log") || parse_segment_name(file.name, "idx") || parse_segment_name(file.name, "snap");
    if (!known) continue;
    auto gone = co_await shard_.runtime.files.remove(folder() + "/" + file.name);
    if (!gone && gone.error().code != Errc::not_found) co_return gone;
  }
  loading.files.clear();
  TAILRACE_CO_TRY_VOID(co_await make_folders());
  Bytes producers = loading.from.tail.front().bytes.bytes();
  TAILRACE_CO_TRY_VOID(co_await replace_file(shard_.runtime, segment_path(folder(), base, "snap"), encode_snapshot(base, producers)));
  TAILRACE_CO_TRY_VOID(co_await sync_folder(folder()));
  snapshot_ = base;
  std::string snapshot = segment_path("", base, "snap");
  loading.files.push_back({.name = snapshot.substr(snapshot.rfind('/') + 1)});
  loading.from.tail.erase(loading.from.tail.begin());
  co_return Result<void>{};
}

Task<Result<void>> PartitionLog::list_segments(Loading& loading) {
  const PartitionCheckpoint& state = loading.from.state;
  auto listed = co_await shard_.runtime.files.list(folder());
  if (!listed && listed.error().code != Errc::not_found) co_return std::unexpected(listed.error());
  if (listed) loading.files = *std::move(listed);
  if (loading.from.begins_anew()) TAILRACE_CO_TRY_VOID(co_await clear_old_log(loading));
  begin_behind_deleted(loading);
  bool active_found = false;
  for (const io::DirectoryEntry& file : loading.files) {
    auto base = parse_segment_name(file.name, "log");
    if (!base) continue;
    if (*base < state.flushed_segment) {
      sealed_.push_back({*base, file.size, nullptr});
    } else if (*base == state.flushed_segment) {
      active_found = true;  // `created` only once this life has synced its name: the last one may have died before it did
    }
  }
  std::ranges::sort(sealed_, {}, &SealedSegment::base);
  for (std::size_t i = 0; i < sealed_.size(); ++i) {
    Offset next = i + 1 < sealed_.size() ? sealed_[i + 1].base : state.flushed_segment;
    sealed_[i].state_stored = std::ranges::any_of(loading.files, [&](const auto& file) { return parse_segment_name(file.name, "snap") == next; });
  }
  // Missing files are damage, never "the log starts here".
  Offset first = sealed_.empty() ? state.flushed_segment : sealed_.front().base;
  if (first > log_start_) add_hole(log_start_, first);
  if (!active_found && state.flushed_position > 0) loading.stopped = loading.was_stopped = true;
  co_return Result<void>{};
}

/// Files behind the flushed segment. One that an open segment bears the name of will be written again, with the same bytes.
/// Any other belongs to a layout that is given up: left by a truncation, or by a run whose checkpoint never came. It must not be
/// taken for a part of the log once the log has grown past it. Indexes and snapshots there are derived, and may be of that layout.
Task<Result<void>> PartitionLog::put_leftovers_aside(Loading& loading) {
  const PartitionCheckpoint& state = loading.from.state;
  bool changed = false;
  for (const io::DirectoryEntry& file : loading.files) {
    std::string path = folder() + "/" + file.name;
    if (auto base = parse_segment_name(file.name, "log"); base && *base > state.flushed_segment) {
      bool open = std::ranges::any_of(open_, [&](const auto& s) { return s->base == *base; });
      if (open) continue;
      if (loading.from.truncated || planted(PlantedBug::replay_old_truncation)) {
        TAILRACE_CO_TRY_VOID(co_await shard_.runtime.files.remove(path));
      } else {
        log_warn("segment.orphan", "{} is behind what the log knows; kept as {}.orphan", path, path);
        TAILRACE_CO_TRY_VOID(co_await shard_.runtime.files.rename(path, path + ".orphan"));
      }
      changed = true;
      continue;
    }
    auto index = parse_segment_name(file.name, "idx");
    auto snapshot = parse_segment_name(file.name, "snap");
    bool stale = (index && (*index > state.flushed_segment || (loading.from.truncated && *index == state.flushed_segment))) ||
                 (snapshot && *snapshot > state.flushed_segment);
    if (!stale) continue;
    TAILRACE_CO_TRY_VOID(co_await shard_.runtime.files.remove(path));
    changed = true;
  }
  if (changed) TAILRACE_CO_TRY_VOID(co_await sync_folder(folder()));
  co_return Result<void>{};
}

/// Index and producer state up to the flushed position: the saved index, then a scan of what lies behind it.
Task<Result<void>> PartitionLog::load_active(Loading& loading) {
  const PartitionCheckpoint& state = loading.from.state;
  OpenSegment& s = *open_.front();
  std::uint32_t from = 0;
  if (!loading.stopped && state.flushed_position > 0) {
    auto file = co_await read_whole_file(shard_.runtime, segment_path(folder(), s.base, "idx"), kIndexFileBytesMax);
    auto decoded = file ? SegmentIndex::decode(file->bytes()) : Result<SegmentIndex::Decoded>{std::unexpected(file.error())};
    bool usable = decoded && !decoded->sealed && decoded->index.base() == s.base && decoded->index.covered() <= state.flushed_position &&
                  decoded->index.next() <= state.flushed_offset && producers_.load(decoded->extra).has_value();
    if (usable) {
      s.index = std::move(decoded->index);
      s.last_save = from = s.index.covered();
      loading.expected = s.index.next();
      loading.producers_at = loading.expected;
    } else {
      producers_.clear();
    }
  }
  if (!loading.producers_at) {
    bool missing = loading.stopped;
    TAILRACE_CO_TRY_VOID(co_await load_producers(loading));
    loading.stopped = loading.was_stopped = missing;
  }
  if (!loading.stopped && state.flushed_position > 0) {
    TAILRACE_CO_TRY_VOID(co_await scan_segment(loading, s.base, from, state.flushed_position, state.flushed_offset, false));
    if (from > 0 && !is_what_was_flushed(loading)) {
      // The index may be the one that is wrong: it is derived, and the segment says it all.
      TAILRACE_CO_TRY_VOID(co_await begin_anew(loading));
      TAILRACE_CO_TRY_VOID(co_await scan_segment(loading, s.base, 0, state.flushed_position, state.flushed_offset, false));
    }
    if (!is_what_was_flushed(loading)) {
      log_error("segment.foreign", "{} segment {}: it holds other batches than were written to it, as another partition's or an older file would", folder(),
                s.base.value());
      TAILRACE_CO_TRY_VOID(co_await begin_anew(loading));
      loading.foreign = loading.stopped = loading.was_stopped = true;
    }
    bool cut = loading.from.cut_elsewhere && !loading.stopped && loading.expected >= state.flushed_offset;
    if (cut) loading.from.state.flushed_position = std::min(state.flushed_position, s.index.covered());
  }
  s.end = s.index.covered();
  s.durable = s.end;
  co_return Result<void>{};
}

/// Back to the active segment's first batch, without its index.
Task<Result<void>> PartitionLog::begin_anew(Loading& loading) {
  OpenSegment& s = *open_.front();
  s.index = SegmentIndex{s.base};
  s.last_save = 0;
  loading.expected = s.base;
  loading.stopped = loading.was_stopped = false;
  loading.producers_at.reset();
  producers_.clear();
  co_return co_await load_producers(loading);
}

/// Whether the scanned batches add up to what the checkpoint says. Where the scan broke off, the first one says whose they are.
bool PartitionLog::is_what_was_flushed(const Loading& loading) const {
  const PartitionCheckpoint& state = loading.from.state;
  const SegmentIndex& index = open_.front()->index;
  if (index.covered() == 0) return true;
  if (state.first_digest && *state.first_digest != index.first_digest()) return false;
  bool all = !loading.stopped && loading.expected == state.flushed_offset;
  return !all || !state.flushed_digest || *state.flushed_digest == index.digest();
}

/// The newest snapshot at or before the active segment, then the sealed segments from there on.
Task<Result<void>> PartitionLog::load_producers(Loading& loading) {
  Offset active = open_.front()->base;
  std::vector<Offset> snapshots;
  for (const io::DirectoryEntry& file : loading.files) {
    auto base = parse_segment_name(file.name, "snap");
    if (base && *base <= active) snapshots.push_back(*base);
  }
  std::ranges::sort(snapshots, std::greater{});
  Offset at = sealed_.empty() ? active : sealed_.front().base;
  for (Offset base : snapshots) {
    auto file = co_await read_whole_file(shard_.runtime, segment_path(folder(), base, "snap"), kSnapshotBytesMax);
    if (proves_nothing(file)) co_return std::unexpected(file.error());
    if (!file) continue;
    auto decoded = decode_snapshot(file->bytes());
    if (!decoded && decoded.error().code == Errc::newer_format) co_return std::unexpected(decoded.error());
    if (!decoded || decoded->at != base || !producers_.load(decoded->state)) continue;
    at = base;
    break;
  }
  Offset expected = loading.expected;
  for (std::size_t i = 0; i < sealed_.size(); ++i) {
    if (sealed_[i].base < at) continue;
    loading.expected = sealed_[i].base;
    Offset next = i + 1 < sealed_.size() ? sealed_[i + 1].base : active;
    TAILRACE_CO_TRY_VOID(co_await scan_segment(loading, sealed_[i].base, 0, static_cast<std::uint32_t>(sealed_[i].bytes), next, true));
    loading.stopped = loading.was_stopped = false;  // found again, and reported, when somebody reads there
  }
  loading.expected = expected;
  co_return Result<void>{};
}

/// Batch by batch over [from, to) of a segment on disk. Stops before a batch that reaches behind `to` (the rest is in the WAL), and
/// at offset `limit`: what lies behind that in the file is no part of the log.
Task<Result<void>> PartitionLog::scan_segment(Loading& loading, Offset base, std::uint32_t from, std::uint32_t to, Offset limit, bool derived_only) {
  SegmentScan scan{shard_.cold, {key_of(base), segment_path(folder(), base, "log"), to}, from, loading.expected, terms_};
  while (loading.expected < limit) {
    auto item = co_await scan.next();
    if (proves_nothing(item)) co_return std::unexpected(item.error());
    loading.expected = scan.next_offset();
    if (!item) {
      log_error("segment.damaged", "{} segment {} position {}: {}", folder(), base.value(), scan.position(), item.error().detail);
      loading.stopped = loading.was_stopped = true;  // a hole, unless the WAL still holds what follows
    }
    if (!item || !*item) co_return Result<void>{};
    WallTime append_time{std::chrono::milliseconds{std::max<std::int64_t>(last_append_ms_, 0)}};
    producers_.apply((*item)->header, (*item)->batch.bytes(), append_time);
    if (!derived_only) open_.front()->index.add((*item)->header, (*item)->batch.bytes(), last_append_ms_);
  }
  co_return Result<void>{};
}

Result<void> PartitionLog::lay_batch(Loading& loading, Slice bytes, const BatchHeader& header, std::uint64_t frame, std::int64_t append_ms) {
  if (loading.stopped || header.base_offset > loading.expected) {
    // What the disk should hold before it is damaged or missing: go on in a segment of its own.
    if (header.base_offset > loading.expected) add_hole(loading.expected, header.base_offset);
    loading.stopped = false;
    if (active().end == 0 && open_.size() == 1) {
      open_.pop_back();
    } else {
      active().keep_length = true;
      active().state_after = producers_.snapshot();
    }
    open_.push_back(std::make_unique<OpenSegment>(header.base_offset));
  }
  OpenSegment& s = active();
  WallTime append_time{std::chrono::milliseconds{std::max<std::int64_t>(append_ms, 0)}};
  last_append_ms_ = std::max(last_append_ms_, append_ms);
  // Known, unless the frame that said so was damaged.
  bool known = term_before(terms_, {header.base_offset, UINT32_MAX}, history_.term) == header.leader_epoch;
  if (!known) note_term(terms_, {header.leader_epoch, header.base_offset, 0});
  producers_.apply(header, bytes.bytes(), append_time);
  std::uint32_t digest = s.index.digest();
  s.index.add(header, bytes.bytes(), append_ms);
  hot_.push({.bytes = std::move(bytes),
             .base = header.base_offset,
             .next = header.next_offset(),
             .segment = s.base,
             .position = s.end,
             .digest = digest,
             .frame = frame,
             .append_ms = last_append_ms_});
  shard_.stats.hot_bytes += hot_.back().bytes.length;
  s.end += static_cast<std::uint32_t>(hot_.back().bytes.length);
  s.durable = s.end;
  loading.expected = header.next_offset();
  return {};
}

Task<Result<void>> PartitionLog::lay_tail(Loading& loading) {
  const PartitionCheckpoint& state = loading.from.state;
  OpenSegment& front = *open_.front();
  bool first = true;
  std::optional<std::uint32_t> repaired;  // a remainder frame stands in for the partial block from here on
  for (TailFrame& t : loading.from.tail) {
    if (t.type == FrameType::remainder) {
      // Raw bytes from a block boundary: the batch they begin in has its front on disk.
      std::uint32_t end = t.position + static_cast<std::uint32_t>(t.bytes.length);
      auto floor = static_cast<std::uint32_t>(align_down(state.flushed_position));
      if (t.segment == state.flushed_segment && t.position <= floor && end > floor) copied_ = {t.segment, end, t.frame};
      // Also where the disk's partial block is damaged: it may have been torn while it was rewritten.
      bool wanted = first && !loading.foreign && t.segment == front.base && end > front.end && t.position <= state.flushed_position &&
                    (t.position <= front.end || t.position - front.end <= limits::kMessageBytesCeiling);
      if (!wanted) continue;
      first = false;
      std::uint32_t begin = front.end;
      Buffer whole = Buffer::allocate(end - begin);
      if (begin < t.position) {
        ColdReader::Source source{key_of(front.base), segment_path(folder(), front.base, "log"), t.position};
        auto part = co_await shard_.cold.load(source, begin, t.position);
        if (part.error && proves_nothing(*part.error)) co_return std::unexpected(*std::move(part.error));
        if (part.bytes.end() < t.position) {
          loading.stopped = loading.was_stopped = true;
          continue;
        }
        part.bytes.copy(begin, whole.bytes().first(t.position - begin));
        std::memcpy(whole.data() + (t.position - begin), t.bytes.bytes().data(), t.bytes.length);
      } else {
        std::memcpy(whole.data(), t.bytes.bytes().data() + (begin - t.position), end - begin);
      }
      Slice all = Slice::whole(std::move(whole));
      while (all.length > 0) {
        auto header = read_batch_header(all.bytes(), limits::kMessageBytesCeiling);
        bool good = header && header->total_bytes() <= all.length && header->base_offset == loading.expected && header->offsets_make_sense() &&
                    epoch_fits(terms_, header->base_offset, header->leader_epoch) && batch_crc(all.bytes().first(header->total_bytes())) == header->crc;
        if (!good) {
          loading.stopped = loading.was_stopped = true;
          break;
        }
        if (header->base_offset >= t.next) break;  // cut since
        if (loading.stopped) repaired = t.position;
        loading.stopped = false;
        Slice one = all.part(0, header->total_bytes());
        all = all.part(one.length, all.length - one.length);
        TAILRACE_CO_TRY_VOID(lay_batch(loading, std::move(one), *header, t.frame, t.append_ms));
      }
      continue;
    }
    auto header = read_batch_header(t.bytes.bytes(), limits::kMessageBytesCeiling);
    if (!header || header->total_bytes() != t.bytes.length) continue;  // the scan checked the frame; a writer never makes this
    if (t.next <= loading.expected) continue;                          // a segment holds it
    first = false;
    if (t.segment > active().base && t.segment == t.base && t.base == loading.expected && active().end > 0) {
      active().state_after = producers_.snapshot();
      open_.push_back(std::make_unique<OpenSegment>(t.base));
    }
    TAILRACE_CO_TRY_VOID(lay_batch(loading, t.bytes, *header, t.frame, t.append_ms));
  }
  if (loading.stopped) add_hole(loading.expected, std::max(state.flushed_offset, loading.expected));
  OpenSegment& s = *open_.front();
  if (s.base == state.flushed_segment && (loading.was_stopped || state.flushed_position > s.end)) {
    // Only bytes that the batches known now account for are believed to be there.
    bool lost_rest = !loading.was_stopped;  // a batch begins on disk, and no frame has the rest of it
    s.synced = s.written = std::min(s.end, state.flushed_position);
    if (open_.size() == 1 && hot_.empty()) s.synced = s.written = s.end;
    if (loading.was_stopped) s.synced = s.written = hot_.empty() || hot_.front().segment != s.base ? s.end : hot_.front().position;
    if (repaired) s.synced = s.written = *repaired;
    if (lost_rest) add_hole(loading.expected, loading.expected);
  } else if (s.base == state.flushed_segment) {
    s.synced = s.written = state.flushed_position;
  }
  auto floor = static_cast<std::uint32_t>(align_down(s.synced));
  std::size_t hot = hot_.find_position(s.base, floor);
  bool in_memory = hot < hot_.size() && hot_.at(hot).segment == s.base && hot_.at(hot).position <= floor;
  if (floor < s.synced && !in_memory) {
    ColdReader::Source source{key_of(s.base), segment_path(folder(), s.base, "log"), s.synced};
    auto part = co_await shard_.cold.load(source, floor, s.synced);
    if (part.error) co_return std::unexpected(std::move(*part.error));
    std::vector<std::byte> bytes(part.bytes.end() - floor);
    part.bytes.copy(floor, bytes);
    remainder_ = {s.base, floor, std::move(bytes)};
  }
  shard_.cold.forget(key_of(s.base));
  if (loading.from.end > loading.expected && !damaged()) add_hole(loading.expected, loading.from.end);
  co_return Result<void>{};
}

}  // namespace tailrace::broker::log
