// Reads: the hot tail without a copy, sealed and half-open segments through the cold reader. Nothing above the high watermark.
#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "base/planted.h"
#include "log/partition_log.h"

namespace tailrace::broker::log {
namespace {

constexpr std::uint64_t kIndexBytesMax = 32 * limits::kMiB;  // of sealed segments in memory, per shard

}  // namespace

const Hole* PartitionLog::hole_at(Offset offset) const {
  for (const Hole& h : holes_) {
    if (offset >= h.from && (offset < h.to || (h.to == h.from && !h.accepted))) return &h;
  }
  return nullptr;
}

Error PartitionLog::corrupt_at(Offset offset, std::string what) {
  ++shard_.stats.corrupt_reads;
  log_error("read.corrupt", "{} offset {}: {}", folder(), offset.value(), what);
  return {Errc::corrupt, fmt::format("offset {}: {}", offset.value(), what)};
}

Task<Result<ReadResult>> PartitionLog::read(Offset from, ReadLimits limits) {
  TAILRACE_CO_TRY_VOID(usable());
  ReadResult out{.next = from, .high_watermark = high_watermark_, .log_start = log_start_};
  if (from < log_start_ || from > high_watermark_) {
    co_return fail(Errc::offset_out_of_range, fmt::format("offset {}; valid: {} to {}", from.value(), log_start_.value(), high_watermark_.value()));
  }
  while (const Hole* hole = hole_at(from)) {
    if (!hole->accepted) co_return fail(Errc::corrupt, fmt::format("offsets {} to {} are lost", hole->from.value(), hole->to.value()));
    from = hole->to;
  }
  out.next = from;
  if (from >= high_watermark_) co_return out;
  if (from >= hot_begin()) {
    ++shard_.stats.hot_reads;
    read_hot(from, limits, out);
    co_return out;
  }
  auto done = co_await read_cold(from, limits, out);
  if (removed_ || closed_) co_return std::unexpected(usable().error());
  if (from < log_start_) {  // deleted while it was read
    co_return fail(Errc::offset_out_of_range, fmt::format("offset {}; valid: {} to {}", from.value(), log_start_.value(), high_watermark_.value()));
  }
  if (!done && out.batches.empty()) co_return std::unexpected(std::move(done.error()));
  out.high_watermark = high_watermark_;
  out.log_start = log_start_;
  co_return out;
}

void PartitionLog::read_hot(Offset from, const ReadLimits& limits, ReadResult& into) {
  std::size_t bytes = 0;
  for (std::size_t i = hot_.find(from); i < hot_.size(); ++i) {
    const HotBatch& b = hot_.at(i);
    if (b.next > high_watermark_) break;
    if (b.base > from && hole_at(into.next)) break;
    bool first = into.batches.empty();
    if (!first && (bytes + b.bytes.length > limits.bytes_max || into.batches.size() >= limits.batches_max)) break;
    bytes += b.bytes.length;
    into.batches.push_back(b.bytes);
    into.next = b.next;
  }
}

Task<Result<std::shared_ptr<SegmentIndex>>> PartitionLog::rebuild_index(Offset base, Offset next_base) {
  // Derived data: a lost or damaged index is made anew from the batches, and a damaged batch shows here.
  auto found = std::ranges::find(sealed_, base, &SealedSegment::base);
  if (found == sealed_.end()) co_return fail(Errc::offset_out_of_range, "the segment was removed");
  ColdReader::Source source{key_of(base), segment_path(folder(), base, "log"), static_cast<std::uint32_t>(found->bytes)};
  auto index = std::make_shared<SegmentIndex>(base);
  std::uint32_t at = 0;
  while (at + batch_layout::kHeaderBytes <= source.end && index->next() < next_base) {
    auto head = co_await shard_.cold.read(source, at, batch_layout::kHeaderBytes, true);
    if (!head || head->length < batch_layout::kHeaderBytes) break;
    auto header = read_batch_header(head->bytes(), limits::kMessageBytesCeiling);
    // The planted decoder bug, as in scan_segment().
    if (planted(PlantedBug::decoder_length) && header) static_cast<void>(batch_crc(Bytes{head->bytes().data(), header->total_bytes()}));
    if (!header || !header->offsets_make_sense() || header->base_offset != index->next() || at + header->total_bytes() > source.end) break;
    auto batch = co_await shard_.cold.read(source, at, static_cast<std::uint32_t>(header->total_bytes()), true);
    if (!batch || batch->length < header->total_bytes() || batch_crc(batch->bytes()) != header->crc) break;
    index->add(*header, batch->bytes(), last_append_ms_);
    at += static_cast<std::uint32_t>(header->total_bytes());
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
  auto file = co_await read_whole_file(shard_.runtime, segment_path(folder(), base, "idx"), kIndexFileBytesMax);
  auto decoded = file ? SegmentIndex::decode(file->bytes()) : Result<SegmentIndex::Decoded>{std::unexpected(file.error())};
  std::shared_ptr<SegmentIndex> index;
  if (decoded && decoded->sealed && decoded->index.base() == base &&
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

/// Where to begin reading for `offset`: at a batch at or before it.
Task<Result<PartitionLog::Location>> PartitionLog::locate(Offset offset) {
  for (std::size_t i = 0; i < open_.size(); ++i) {
    OpenSegment& s = *open_[open_.size() - 1 - i];
    if (s.base > offset) continue;
    if (i + 1 == open_.size() || s.base <= offset) {
      Offset segment_end = i == 0 ? end_ : open_[open_.size() - i]->base;
      // Bytes behind the last whole synced block are served from the hot tail.
      std::uint32_t readable = s.synced;
      Location at{{key_of(s.base), segment_path(folder(), s.base, "log"), readable}, s.index.position_before(offset), s.base, segment_end};
      co_return at;
    }
  }
  auto after = std::ranges::upper_bound(sealed_, offset, {}, &SealedSegment::base);
  if (after == sealed_.begin()) co_return std::unexpected(corrupt_at(offset, "no segment holds it"));
  Offset base = std::prev(after)->base;
  TAILRACE_CO_TRY(auto index, co_await index_of(base));
  auto found = std::ranges::find(sealed_, base, &SealedSegment::base);
  if (found == sealed_.end()) co_return fail(Errc::offset_out_of_range, "the segment was removed");
  Offset segment_end = std::next(found) != sealed_.end() ? std::next(found)->base : open_.front()->base;
  Location at{{key_of(base), segment_path(folder(), base, "log"), static_cast<std::uint32_t>(found->bytes)}, index->position_before(offset), base, segment_end};
  co_return at;
}

bool PartitionLog::grown_since(const Location& at) const {
  for (const auto& s : open_) {
    if (s->base == at.segment) return s->synced > at.source.end;
  }
  auto sealed = std::ranges::find(sealed_, at.segment, &SealedSegment::base);
  return sealed != sealed_.end() && sealed->bytes > at.source.end;
}

Task<Result<void>> PartitionLog::read_cold(Offset from, ReadLimits limits, ReadResult& into) {
  bool sequential = from == Offset{0} || from == log_start_ || last_cold_next_ == from;
  std::size_t bytes = 0;
  while (into.next < hot_begin() && into.next < high_watermark_) {
    if (const Hole* hole = hole_at(into.next)) {
      if (!hole->accepted) break;
      into.next = hole->to;
      continue;
    }
    TAILRACE_CO_TRY(Location at, co_await locate(into.next));
    std::optional<Offset> expected;
    bool whole_segment = false;
    while (at.position + batch_layout::kHeaderBytes <= at.source.end) {
      TAILRACE_CO_TRY(Slice rest, co_await shard_.cold.chunk_rest(at.source, at.position, sequential));
      if (rest.length < batch_layout::kHeaderBytes) {
        TAILRACE_CO_TRY(rest, co_await shard_.cold.read(at.source, at.position, batch_layout::kHeaderBytes, sequential));
      }
      auto header = read_batch_header(rest.bytes(), limits::kMessageBytesCeiling);
      bool in_place = header && (!expected || header->base_offset == *expected) && header->last_offset_delta >= 0 &&
                      header->base_offset >= at.segment && at.position + header->total_bytes() <= at.source.end;
      if (!in_place && grown_since(at)) break;  // written further, and evicted, while this read waited: look again
      if (!in_place) co_return std::unexpected(corrupt_at(into.next, fmt::format("segment {} position {}: no batch where one belongs", at.segment.value(), at.position)));
      auto total = static_cast<std::uint32_t>(header->total_bytes());
      if (header->next_offset() > into.next) {
        if (header->base_offset > into.next) co_return std::unexpected(corrupt_at(into.next, fmt::format("segment {} position {}: offset {} comes next", at.segment.value(), at.position, header->base_offset.value())));
        bool first = into.batches.empty();
        if (!first && (bytes + total > limits.bytes_max || into.batches.size() >= limits.batches_max)) {
          last_cold_next_ = into.next;
          co_return Result<void>{};
        }
        Slice batch = rest.length >= total ? rest.part(0, total) : Slice{};
        if (batch.length == 0) {
          TAILRACE_CO_TRY(batch, co_await shard_.cold.read(at.source, at.position, total, sequential));
        }
        if (batch.length < total || batch_crc(batch.bytes()) != header->crc) {
          shard_.cold.forget(at.source.key);  // a second look goes to the device again
          TAILRACE_CO_TRY(batch, co_await shard_.cold.read(at.source, at.position, total, false));
          if (batch.length < total || batch_crc(batch.bytes()) != header->crc) {
            co_return std::unexpected(corrupt_at(into.next, fmt::format("segment {} position {}: checksum", at.segment.value(), at.position)));
          }
        }
        if (header->next_offset() > high_watermark_) {
          // The base offset lies outside the checksum. An empty answer below the high watermark would be asked for for ever.
          if (first) co_return std::unexpected(corrupt_at(into.next, fmt::format("segment {} position {}: a batch ends behind the high watermark", at.segment.value(), at.position)));
          co_return Result<void>{};
        }
        bytes += total;
        into.next = header->next_offset();
        into.batches.push_back(std::move(batch));
      }
      expected = header->next_offset();
      at.position += total;
      if (*expected >= hot_begin() || removed_) break;
      whole_segment = *expected == at.segment_end;
      if (whole_segment) break;
    }
    last_cold_next_ = into.next;
    if (removed_ || into.next >= hot_begin()) break;
    if (!whole_segment && !hole_at(into.next) && !grown_since(at)) {
      co_return std::unexpected(corrupt_at(into.next, fmt::format("segment {} ends at position {}", at.segment.value(), at.position)));
    }
  }
  if (into.batches.empty() && into.next >= hot_begin() && into.next < high_watermark_) read_hot(into.next, limits, into);
  co_return Result<void>{};
}

Task<Result<std::optional<OffsetAtTime>>> PartitionLog::find_time(std::int64_t time_ms) {
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
    if (b.next > high_watermark_) break;
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
    auto index = co_await index_of(base);
    if (!index) {
      if (index.error().code == Errc::offset_out_of_range) continue;
      co_return std::unexpected(index.error());
    }
    auto position = (*index)->position_at_time(time_ms);
    if (!position) continue;
    auto found = std::ranges::find(sealed_, base, &SealedSegment::base);
    if (found == sealed_.end()) continue;
    ColdReader::Source source{key_of(base), segment_path(folder(), base, "log"), static_cast<std::uint32_t>(found->bytes)};
    TAILRACE_CO_TRY(auto hit, co_await scan_for_time(source, *position, time_ms));
    if (hit) co_return hit;
  }
  for (std::size_t i = 0; i < open_.size(); ++i) {
    const OpenSegment& s = *open_[i];
    auto position = s.index.position_at_time(time_ms);
    if (!position) continue;
    ColdReader::Source source{key_of(s.base), segment_path(folder(), s.base, "log"), s.synced};
    if (!hot_.empty() && hot_.front().segment == s.base) source.end = std::min(source.end, hot_.front().position);
    if (*position < source.end) {
      TAILRACE_CO_TRY(auto hit, co_await scan_for_time(source, *position, time_ms));
      if (hit) co_return hit;
    }
    break;  // the rest is in memory
  }
  co_return std::optional<OffsetAtTime>{};
}

Task<Result<std::optional<OffsetAtTime>>> PartitionLog::scan_for_time(ColdReader::Source source, std::uint32_t at, std::int64_t time_ms) {
  while (at + batch_layout::kHeaderBytes <= source.end) {
    TAILRACE_CO_TRY(Slice head, co_await shard_.cold.read(source, at, batch_layout::kHeaderBytes, false));
    auto header = read_batch_header(head.bytes(), limits::kMessageBytesCeiling);
    if (!header) co_return std::unexpected(corrupt_at(source.key.base, fmt::format("segment {} position {}: {}", source.key.base.value(), at, header.error().detail)));
    if (header->max_timestamp >= time_ms && header->next_offset() > log_start_) co_return OffsetAtTime{header->base_offset, header->max_timestamp};
    at += static_cast<std::uint32_t>(header->total_bytes());
  }
  co_return std::optional<OffsetAtTime>{};
}

}  // namespace tailrace::broker::log
