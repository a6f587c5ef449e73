// What segments hold, read by blocks: each is held against its checksum in the index before anybody sees a byte of it.
#include <fmt/format.h>

#include <algorithm>

#include "base/crc32c.h"
#include "base/log.h"
#include "log/partition_log.h"

namespace tailrace::broker::log {
namespace {

constexpr std::uint64_t kIndexBytesMax = 32 * limits::kMiB;  // of sealed segments in memory, per shard

}  // namespace

Task<Result<std::shared_ptr<SegmentIndex>>> PartitionLog::rebuild_index(Offset base, Offset next_base) {
  // Derived data: a lost or damaged index is made anew from the batches, and a damaged batch shows here.
  auto found = std::ranges::find(sealed_, base, &SealedSegment::base);
  if (found == sealed_.end()) co_return fail(Errc::offset_out_of_range, "the segment was removed");
  auto index = std::make_shared<SegmentIndex>(base);
  SegmentScan scan{shard_.cold, {key_of(base), segment_path(folder(), base, "log"), static_cast<std::uint32_t>(found->bytes)}, 0, base, terms_};
  while (index->next() < next_base) {
    auto item = co_await scan.next();
    bool of_the_moment = !item && item.error().code != Errc::corrupt && item.error().code != Errc::io_error;
    if (of_the_moment) co_return std::unexpected(std::move(item.error()));
    if (!item) log_error("segment.damaged", "{} segment {} position {}: {}", folder(), base.value(), scan.position(), item.error().detail);
    if (!item || !*item) break;
    index->add((*item)->header, (*item)->batch.bytes(), last_append_ms_);
  }
  if (index->next() == next_base) {
    auto saved = co_await replace_file(shard_.runtime, segment_path(folder(), base, "idx"), index->encode(true, {}));
    if (!saved) log_warn("segment.index_not_saved", "{}: {}", folder(), saved.error().detail);
  }
  co_return index;
}

Task<Result<std::shared_ptr<SegmentIndex>>> PartitionLog::index_of(Offset base) {
  auto find = [&] { return std::ranges::find(sealed_, base, &SealedSegment::base); };
  auto at = find();
  if (at == sealed_.end()) co_return fail(Errc::offset_out_of_range, "the segment was removed");
  if (at->index) co_return at->index;
  Offset next_base = std::next(at) != sealed_.end() ? std::next(at)->base : open_.front()->base;
  std::uint64_t bytes = at->bytes;
  auto file = co_await read_whole_file(shard_.runtime, segment_path(folder(), base, "idx"), kIndexFileBytesMax);
  auto decoded = file ? SegmentIndex::decode(file->bytes()) : Result<SegmentIndex::Decoded>{std::unexpected(file.error())};
  std::shared_ptr<SegmentIndex> index;
  if (decoded && decoded->sealed && decoded->index.base() == base && decoded->index.covered() <= bytes &&
      (decoded->index.next() == next_base || hole_at(decoded->index.next()))) {
    index = std::make_shared<SegmentIndex>(std::move(decoded->index));
  } else {
    TAILRACE_CO_TRY(index, co_await rebuild_index(base, next_base));
  }
  at = find();
  if (at == sealed_.end()) co_return fail(Errc::offset_out_of_range, "the segment was removed");
  if (shard_.index_bytes > kIndexBytesMax) {
    for (SealedSegment& other : sealed_) {
      if (other.base == base || !other.index) continue;
      shard_.index_bytes -= std::min<std::uint64_t>(shard_.index_bytes, other.index->memory_bytes());
      other.index.reset();
    }
  }
  // The segment ends where the next one begins, also in a file that failed and was never cut to its length.
  if (index->next() == next_base) at->bytes = std::min<std::uint64_t>(at->bytes, index->covered());
  if (!at->index) {
    at->index = index;
    shard_.index_bytes += index->memory_bytes();
  }
  co_return index;
}

/// Where the part of an open segment ends that is asked of the disk; the rest is in the hot tail.
std::uint32_t PartitionLog::disk_end(const OpenSegment& s) const {
  if (hot_.empty() || hot_.front().segment > s.base) return std::min(s.end, s.synced);
  return hot_.front().segment == s.base ? std::min(hot_.front().position, s.synced) : 0;
}

const PartitionLog::OpenSegment* PartitionLog::find_open(Offset base) const {
  auto found = std::ranges::find(open_, base, [](const auto& s) { return s->base; });
  return found == open_.end() ? nullptr : found->get();
}

/// Blocks from the one that holds `offset` on, about `bytes` of them, as far as [0, limit) of the segment goes.
void PartitionLog::choose_blocks(BlockRun& run, const SegmentIndex& index, Offset offset, std::uint32_t limit, std::uint32_t bytes) {
  run.first = run.last = index.block_of(offset);
  SegmentIndex::Block block = index.block(run.first);
  run.base = block.first;
  run.begin = block.begin;
  while (run.last + 1 < index.blocks() && block.end < limit && block.end - run.begin < bytes) block = index.block(++run.last);
  run.end = std::min(block.end, limit);
}

Task<Result<PartitionLog::BlockRun>> PartitionLog::locate(Offset offset, std::uint32_t bytes) {
  // Records below the log start are deleted for readers; replicas are still sent what the first segment has of them.
  if (offset < std::min(log_start_, first_base())) co_return fail(Errc::offset_out_of_range, "deleted");
  BlockRun run;
  auto behind = std::ranges::find_if(open_, [&](const auto& s) { return s->base > offset; });
  if (behind != open_.begin()) {
    const OpenSegment& s = **std::prev(behind);
    run.segment = s.base;
    run.source = {key_of(s.base), segment_path(folder(), s.base, "log"), s.synced};
    if (s.index.blocks() > 0) choose_blocks(run, s.index, offset, disk_end(s), bytes);
    if (run.end <= run.begin) co_return std::unexpected(corrupt_at(offset, fmt::format("segment {} does not hold it", s.base.value())));
    co_return run;
  }
  auto after = std::ranges::upper_bound(sealed_, offset, {}, &SealedSegment::base);
  if (after == sealed_.begin()) co_return std::unexpected(corrupt_at(offset, "no segment holds it"));
  run.segment = std::prev(after)->base;
  TAILRACE_CO_TRY(run.index, co_await index_of(run.segment));
  auto found = std::ranges::find(sealed_, run.segment, &SealedSegment::base);
  if (found == sealed_.end()) co_return fail(Errc::offset_out_of_range, "the segment was removed");
  if (offset >= run.index->next()) {
    co_return std::unexpected(corrupt_at(offset, fmt::format("segment {} ends at offset {}, position {}", run.segment.value(), run.index->next().value(), run.index->covered())));
  }
  run.source = {key_of(run.segment), segment_path(folder(), run.segment, "log"), static_cast<std::uint32_t>(found->bytes)};
  choose_blocks(run, *run.index, offset, run.index->covered(), bytes);
  co_return run;
}

/// Whether the blocks still lie where they were looked for. Meanwhile the segment may have been sealed, cut, removed, or
/// evicted further.
bool PartitionLog::still_there(const BlockRun& run) const {
  if (run.index) {
    auto found = std::ranges::find(sealed_, run.segment, &SealedSegment::base);
    return found != sealed_.end() && found->bytes == run.source.end;
  }
  const OpenSegment* s = find_open(run.segment);
  if (!s || s->index.blocks() <= run.last) return false;
  SegmentIndex::Block first = s->index.block(run.first);
  return first.begin == run.begin && first.first == run.base && std::min(s->index.block(run.last).end, disk_end(*s)) == run.end;
}

/// Whether the block's bytes, those of the disk and what the hot tail holds of it, are what was written.
bool PartitionLog::adds_up(const BlockRun& run, const SegmentIndex::Block& block) const {
  std::uint32_t on_disk = std::min(block.end, run.end);
  if (run.bytes.end() < on_disk) return false;
  std::uint32_t crc = run.bytes.crc(block.begin, on_disk);
  std::uint32_t at = on_disk;
  for (std::size_t i = hot_.find_position(run.segment, at); at < block.end && i < hot_.size(); ++i) {
    const HotBatch& b = hot_.at(i);
    if (b.segment != run.segment || b.position != at) return false;
    crc = crc32c(b.bytes.bytes(), crc);
    at = b.end();
  }
  return at == block.end && crc == block.crc;
}

/// A block does not add up: which batch is it? Those before it can be had.
void PartitionLog::blame(BlockRun& run, const SegmentIndex::Block& block, std::optional<Error> refused) const {
  std::uint32_t end = std::min({block.end, run.end, run.bytes.end()});
  BatchWalk walk{run.bytes, block.begin, std::max(end, block.begin), block.first, terms_, BatchWalk::Checksums::each};
  bool short_of_bytes = run.bytes.end() < std::min(block.end, run.end);
  for (;;) {
    auto header = walk.next();
    if (header && *header) continue;
    run.good_end = walk.position();
    run.error = header ? Error{} : header.error();
    if (short_of_bytes && (header || header.error().code == Errc::unexpected_end)) {
      run.error = refused ? *refused : Error{Errc::corrupt, "the file ends early"};
      if (run.error->code == Errc::not_found) run.error = Error{Errc::corrupt, "its file is missing"};
    } else if (header) {
      // Every batch fits, and together they are not what was written: nothing in the block can be trusted.
      run.good_end = block.begin;
      run.error = Error{Errc::corrupt, "the block does not match its checksum in the index"};
    } else {
      run.error->code = Errc::corrupt;
    }
    run.error->detail = fmt::format("segment {} position {}: {}", run.segment.value(), run.good_end, run.error->detail);
    return;
  }
}

Task<Result<PartitionLog::BlockRun>> PartitionLog::read_blocks(Offset offset, std::uint32_t bytes) {
  bool second_look = false;
  for (;;) {
    while (laying_anew_ && usable()) co_await advanced_.wait();
    TAILRACE_CO_TRY_VOID(usable());
    if (offset >= hot_begin()) co_return BlockRun{};
    TAILRACE_CO_TRY(BlockRun run, co_await locate(offset, bytes));
    auto loaded = co_await shard_.cold.load(run.source, run.begin, run.end);
    if (!still_there(run)) continue;
    run.bytes = std::move(loaded.bytes);
    run.good_end = run.end;
    const SegmentIndex& index = run.index ? *run.index : find_open(run.segment)->index;
    std::size_t bad = run.first;
    while (bad <= run.last && adds_up(run, index.block(bad))) ++bad;
    if (bad > run.last) co_return run;
    if (!second_look && !loaded.error) {
      second_look = true;  // at the device, not at what is kept
      shard_.cold.forget(run.source.key, run.begin, run.end);
      continue;
    }
    blame(run, index.block(bad), std::move(loaded.error));
    co_return run;
  }
}

}  // namespace tailrace::broker::log
