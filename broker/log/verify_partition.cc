// One partition's folder: names, segments batch by batch, indexes against their segments, snapshots.
#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "log/producer_state.h"
#include "log/segment_files.h"
#include "log/segment_index.h"
#include "log/segment_walk.h"
#include "log/term_history.h"
#include "log/verify_parts.h"

namespace tailrace::broker::log {
namespace {

/// What an index must say, gathered batch by batch and compared as soon as a block is whole.
class IndexCheck {
 public:
  explicit IndexCheck(SegmentIndex::Decoded index) : decoded_{std::move(index)} {}

  [[nodiscard]] const SegmentIndex& index() const { return decoded_.index; }
  [[nodiscard]] bool sealed() const { return decoded_.sealed; }
  /// CRC of the block so far, for the walk to go on with.
  [[nodiscard]] std::uint32_t block_crc() const { return crc_; }

  /// In order. The first thing that does not agree is kept.
  void batch(const BatchItem& item, Offset base) {
    if (!wrong_.empty() || closed_) return;
    if (item.position >= index().covered()) {  // saved while the segment was shorter
      if (item.position > index().covered()) complain(index().covered(), "ends inside a batch");
      close_block();
      closed_ = true;
      return;
    }
    const auto& entries = index().entries();
    if (at_ < entries.size() && entries[at_].position == item.position) {
      close_block();
      if (entries[at_].offset_delta != item.header.base_offset - base) {
        complain(item.position, fmt::format("entry {}: offset {} where the segment has {}", at_, base.value() + entries[at_].offset_delta, item.header.base_offset.value()));
      }
      ++at_;
    } else if (at_ < entries.size() && entries[at_].position < item.position) {
      complain(item.position, fmt::format("entry {}: no batch begins at position {}", at_, entries[at_].position));
    }
    if (!begun_) base_time_ = std::max<std::int64_t>(item.header.max_timestamp, 0);
    begun_ = true;
    digest_ = batch_digest(item.header, digest_);
    max_time_ = std::max(max_time_, item.header.max_timestamp);
    next_ = item.header.next_offset();
  }
  /// After batch(): what the block adds up to with it.
  void set_block_crc(std::uint32_t crc) { crc_ = crc; }
  /// A block is about to begin at this position: its CRC starts anew.
  [[nodiscard]] bool begins_block(std::uint64_t position) const {
    const auto& entries = index().entries();
    return at_ < entries.size() && entries[at_].position == position;
  }
  /// Part of the segment is damaged: nothing more is compared.
  void give_up() { given_up_ = true; }

  [[nodiscard]] std::pair<std::uint64_t, std::string> finish(std::uint64_t walked_to) {
    if (given_up_ || !wrong_.empty()) return {wrong_at_, wrong_};
    if (!closed_) close_block();
    if (wrong_.empty() && index().covered() > walked_to) complain(walked_to, fmt::format("covers {} bytes of {}", index().covered(), walked_to));
    if (wrong_.empty() && at_ < index().entries().size()) complain(walked_to, fmt::format("entry {} lies behind the last batch", at_));
    if (wrong_.empty() && begun_ && index().digest() != digest_) complain(walked_to, "made for other batches than the segment's");
    if (wrong_.empty() && begun_ && sealed() && index().next() != next_) complain(walked_to, fmt::format("ends at offset {}, the segment at {}", index().next().value(), next_.value()));
    return {wrong_at_, wrong_};
  }

 private:
  void close_block() {
    if (at_ == 0 || !wrong_.empty()) return;
    const IndexEntry& block = index().entries()[at_ - 1];
    if (block.block_crc != crc_) complain(block.position, fmt::format("entry {}: the block's checksum is not what the segment's bytes add up to", at_ - 1));
    std::uint64_t delta = max_time_ <= base_time_ ? 0 : static_cast<std::uint64_t>(max_time_) - static_cast<std::uint64_t>(base_time_);
    std::uint32_t wanted = static_cast<std::uint32_t>(std::min<std::uint64_t>(delta, std::numeric_limits<std::uint32_t>::max()));
    if (wrong_.empty() && block.max_time_delta != wanted) complain(block.position, fmt::format("entry {}: its latest timestamp is not the segment's", at_ - 1));
  }
  void complain(std::uint64_t position, std::string what) {
    wrong_ = std::move(what);
    wrong_at_ = position;
  }

  SegmentIndex::Decoded decoded_;
  std::size_t at_ = 0;  // next entry
  std::uint32_t crc_ = 0;
  std::uint32_t digest_ = 0;
  bool begun_ = false;
  std::int64_t base_time_ = 0;
  std::int64_t max_time_ = -1;
  Offset next_{};
  bool given_up_ = false;
  bool closed_ = false;
  std::string wrong_{};
  std::uint64_t wrong_at_ = 0;
};

class PartitionCheck {
 public:
  PartitionCheck(io::Runtime& runtime, OfflineReport& report, std::string folder, const KnownPartition* known)
      : runtime_{runtime}, report_{report}, folder_{std::move(folder)}, known_{known} {}

  Task<Result<void>> run() {
    auto listed = co_await runtime_.files.list(folder_);
    bool expected = known_ && (known_->state.flushed_position > 0 || known_->state.flushed_segment > known_->state.log_start);
    if (!listed && listed.error().code == Errc::not_found) {
      if (expected) report_.damage(folder_, 0, 0, fmt::format("the folder is missing; offsets {} to {} were in it", known_->state.log_start.value(), known_->state.flushed_offset.value()));
      co_return Result<void>{};
    }
    if (!listed) {
      report_.damage(folder_, 0, 0, listed.error().detail);
      co_return Result<void>{};
    }
    ++report_.counts.partitions;
    sort_out(*listed);
    report_holes();
    TAILRACE_CO_TRY_VOID(co_await segments());
    TAILRACE_CO_TRY_VOID(co_await snapshots());
    co_return Result<void>{};
  }

 private:
  struct Named {
    Offset base{};
    std::uint64_t size = 0;
  };

  void sort_out(const std::vector<io::DirectoryEntry>& entries) {
    for (const io::DirectoryEntry& e : entries) {
      if (auto base = parse_segment_name(e.name, "log")) logs_.push_back({*base, e.size});
      else if (auto idx = parse_segment_name(e.name, "idx")) indexes_.push_back({*idx, e.size});
      else if (auto snap = parse_segment_name(e.name, "snap")) snapshots_.push_back({*snap, e.size});
      else if (e.name.ends_with(".tmp")) report_.note(path_of(e.name), 0, e.size, "left by a crash while it was written");
      else if (e.name.ends_with(".orphan")) report_.note(path_of(e.name), 0, e.size, "set aside by an earlier start");
      else report_.note(path_of(e.name), 0, e.size, "not a file of ours");
    }
    for (auto* list : {&logs_, &indexes_, &snapshots_}) std::ranges::sort(*list, {}, &Named::base);
  }
  [[nodiscard]] std::string path_of(std::string_view name) const { return fmt::format("{}/{}", folder_, name); }

  void report_holes() {
    if (!known_) return;
    for (const Hole& h : known_->state.holes) {
      std::string what = h.to == h.from ? fmt::format("offsets from {} on are known to be lost", h.from.value())
                                        : fmt::format("offsets {} to {} are known to be lost", h.from.value(), h.to.value() - 1);
      if (h.accepted) report_.note(folder_, 0, 0, what + ", and were given up by an operator");
      else report_.damage(folder_, 0, 0, std::move(what));
    }
  }
  /// Known already, and reported as such.
  [[nodiscard]] bool known_gap(Offset from, Offset to) const {
    return known_ && std::ranges::any_of(known_->state.holes, [&](const Hole& h) { return h.from <= from && (h.to == h.from || h.to >= to); });
  }

  Task<Result<void>> segments() {
    std::vector<Named> part;  // those that hold the log
    std::optional<Offset> active;
    if (known_) active = known_->state.flushed_segment;
    else if (!logs_.empty()) active = logs_.back().base;
    for (const Named& s : logs_) {
      std::string path = segment_path(folder_, s.base, "log");
      if (!known_ || s.base <= *active) {
        part.push_back(s);
        continue;
      }
      ++report_.counts.files;
      if (known_->wal_segments.contains(s.base)) continue;  // will be written again from the WAL
      report_.note(path, 0, s.size, known_->truncated ? "left by a truncation" : "behind everything the log knows");
    }
    if (!known_ && !part.empty()) report_.note(folder_, 0, 0, "no shard knows this partition; what is in it is checked by itself");
    Offset log_start = known_ ? known_->state.log_start : part.empty() ? Offset{0} : part.front().base;
    Offset first = part.empty() ? active.value_or(log_start) : part.front().base;
    if (first > log_start && !known_gap(log_start, first)) {
      report_.damage(segment_path(folder_, log_start, "log"), 0, 0, fmt::format("segments with offsets {} to {} are missing", log_start.value(), first.value() - 1));
    }
    bool active_found = false;
    for (std::size_t i = 0; i < part.size(); ++i) {
      bool is_active = part[i].base == *active;
      active_found |= is_active;
      std::optional<Offset> next;
      if (i + 1 < part.size()) next = part[i + 1].base;
      else if (!is_active) next = active;
      TAILRACE_CO_TRY_VOID(co_await segment(part[i], next, is_active, log_start));
    }
    if (known_ && !active_found && known_->state.flushed_position > 0) {
      report_.damage(segment_path(folder_, *active, "log"), 0, 0, fmt::format("missing; it held {} synced bytes", known_->state.flushed_position));
    }
    for (const Named& i : indexes_) {
      if (std::ranges::find(logs_, i.base, &Named::base) == logs_.end()) report_.note(segment_path(folder_, i.base, "idx"), 0, i.size, "an index without its segment");
    }
    co_return Result<void>{};
  }

  Task<Result<void>> segment(Named s, std::optional<Offset> next, bool is_active, Offset log_start) {
    std::string path = segment_path(folder_, s.base, "log");
    ++report_.counts.files;
    auto file = co_await FileWindow::open(runtime_, report_.reads, path);
    if (!file && file.error().code == Errc::descriptors_exhausted) co_return std::unexpected(file.error());
    if (!file) {
      report_.damage(path, 0, s.size, file.error().detail);
      co_return Result<void>{};
    }
    TAILRACE_CO_TRY(auto index, co_await load_index(s.base, is_active, next));
    std::uint64_t end = file->size();
    if (is_active && known_) {
      end = known_->state.flushed_position;
      if (file->size() < end) report_.damage(path, file->size(), end - file->size(), fmt::format("the file ends early: {} bytes were synced", end));
    }
    SegmentWalk walk{*file, end, s.base};
    std::uint64_t batches = 0;
    std::uint64_t good_to = 0;  // behind the last batch
    std::uint64_t damaged = report_.counts.damaged;
    Offset reached = s.base;
    std::uint32_t digest = 0;
    std::string cut_short;
    for (;;) {
      if (next && reached >= *next) break;
      bool fresh_block = index && index->begins_block(walk.position());
      BatchItem item = co_await walk.next(fresh_block || !index ? 0 : index->block_crc());
      if (item.kind == BatchItem::Kind::end) {
        cut_short = item.what;
        break;
      }
      if (item.kind == BatchItem::Kind::bad) {
        if (index) index->give_up();
        bool nothing_behind = item.position + item.bytes >= end;
        if (!is_active && nothing_behind && next && known_gap(reached, *next)) break;  // the reason of a hole that is known
        std::uint64_t zeros_from = co_await file->first_nonzero(item.position, item.position + item.bytes);
        bool zeros = zeros_from >= item.position + item.bytes;
        if (!known_ && is_active && nothing_behind && zeros) break;  // allocated, not written
        report_.damage(path, item.position, item.bytes, fmt::format("offset {}: {}", reached.value(), zeros ? "zeros where a batch belongs" : item.what));
        if (walk.next_offset() && !nothing_behind) reached = *walk.next_offset();
        continue;
      }
      if (index) {
        index->batch(item, s.base);
        index->set_block_crc(item.bytes_crc);
      }
      if (!item.crc_good) {
        report_.damage(path, item.position, item.bytes, fmt::format("offsets {} to {}: {}", item.header.base_offset.value(), item.header.last_offset().value(), item.what));
        if (index) index->give_up();
      }
      if (known_ && !epoch_fits(known_->state.terms, item.header.base_offset, item.header.leader_epoch)) {
        report_.damage(path, item.position, item.bytes,
                       fmt::format("offset {}: leader epoch {}, which is not that of the history", item.header.base_offset.value(), item.header.leader_epoch.value()));
      }
      digest = batch_digest(item.header, digest);
      if (batches == 0 && is_active && known_ && known_->state.first_digest.value_or(digest) != digest) {
        report_.damage(path, item.position, end, "begins with another batch than was written there: another partition's segment, or an older one");
      }
      ++batches;
      ++report_.counts.batches;
      report_.counts.records += static_cast<std::uint64_t>(std::max(item.header.record_count, 0));
      report_.checked(item.bytes);
      good_to = item.position + item.bytes;
      reached = item.header.next_offset();
    }
    bool whole = report_.counts.damaged == damaged;
    if (next && reached < *next && !known_gap(reached, *next)) {
      bool below_start = *next <= log_start;  // being deleted: files go in any order
      std::string what = fmt::format("offsets {} to {} are missing{}", reached.value(), next->value() - 1, cut_short.empty() ? "" : ": " + cut_short);
      if (below_start) report_.note(path, good_to, 0, what + "; the log begins behind them");
      else if (whole) report_.damage(path, good_to, file->size() - good_to, std::move(what));
    } else if (next && reached > *next) {
      report_.damage(path, good_to, 0, fmt::format("goes to offset {}, and the next segment begins at {}", reached.value(), next->value()));
    } else if (next && file->size() > good_to && whole) {
      report_.note(path, good_to, file->size() - good_to, "bytes behind the segment's end; they are no part of the log");
    }
    if (is_active && known_ && whole) {
      bool all_there = reached == known_->state.flushed_offset;
      if (all_there && known_->state.flushed_digest.value_or(digest) != digest) {
        report_.damage(path, 0, end, "its batches are not those that were written there: another partition's segment, or an older one");
      }
      if (!all_there && !known_gap(reached, known_->state.flushed_offset)) {
        report_.damage(path, good_to, end - good_to, fmt::format("ends at offset {}, and the checkpoint says {}", reached.value(), known_->state.flushed_offset.value()));
      }
    }
    if (index && whole) {
      auto [position, wrong] = index->finish(good_to);
      if (!wrong.empty()) report_.damage(segment_path(folder_, s.base, "idx"), 0, 0, fmt::format("against the segment at position {}: {}", position, wrong));
    }
    JsonLine line{"file"};
    line.text("file", path).text("type", "segment").number("bytes", file->size()).number("base_offset", s.base.value()).number("next_offset", reached.value());
    line.number("batches", batches).flag("sealed", !is_active);
    report_.entry(std::move(line));
    co_return Result<void>{};
  }

  /// The index to compare with; none where there is none, or where it does not count.
  Task<Result<std::optional<IndexCheck>>> load_index(Offset base, bool is_active, std::optional<Offset> next) {
    std::string path = segment_path(folder_, base, "idx");
    auto entry = std::ranges::find(indexes_, base, &Named::base);
    if (entry == indexes_.end()) {
      if (!is_active && next) report_.note(path, 0, 0, "a segment without an index; it is made anew when somebody reads there");
      co_return std::optional<IndexCheck>{};
    }
    ++report_.counts.files;
    auto file = co_await read_whole_file(runtime_, path, kIndexFileBytesMax);
    if (!file && file.error().code == Errc::descriptors_exhausted) co_return std::unexpected(file.error());
    if (!file) {
      report_.damage(path, 0, entry->size, file.error().detail);
      co_return std::optional<IndexCheck>{};
    }
    report_.counts.bytes += file->length;
    auto decoded = SegmentIndex::decode(file->bytes());
    if (!decoded && decoded.error().code == Errc::newer_format) co_return fail(Errc::newer_format, path);
    if (!decoded) {
      report_.damage(path, 0, entry->size, decoded.error().detail);
      co_return std::optional<IndexCheck>{};
    }
    if (decoded->index.base() != base) {
      report_.damage(path, 0, entry->size, fmt::format("made for segment {}", decoded->index.base().value()));
      co_return std::optional<IndexCheck>{};
    }
    if (!decoded->sealed) {
      ProducerState producers;
      auto loaded = producers.load(decoded->extra);
      if (!loaded) report_.damage(path, 0, decoded->extra.size(), loaded.error().detail);
    }
    bool ahead = is_active && known_ && decoded->index.covered() > known_->state.flushed_position;
    if (ahead || (!is_active && !decoded->sealed)) {
      // Written before the checkpoint that would count it, or before the segment was sealed; nobody looks at it then.
      report_.note(path, 0, entry->size, ahead ? "ahead of the checkpoint; not used" : "saved before the segment was sealed; not used");
      co_return std::optional<IndexCheck>{};
    }
    JsonLine line{"file"};
    line.text("file", path).text("type", "index").number("bytes", file->length).number("entries", decoded->index.entries().size());
    report_.entry(std::move(line));
    co_return std::optional<IndexCheck>{IndexCheck{*std::move(decoded)}};
  }

  Task<Result<void>> snapshots() {
    for (const Named& s : snapshots_) {
      std::string path = segment_path(folder_, s.base, "snap");
      ++report_.counts.files;
      auto file = co_await read_whole_file(runtime_, path, kSnapshotBytesMax);
      if (!file && file.error().code == Errc::descriptors_exhausted) co_return std::unexpected(file.error());
      if (!file) {
        report_.damage(path, 0, s.size, file.error().detail);
        continue;
      }
      report_.counts.bytes += file->length;
      auto decoded = decode_snapshot(file->bytes());
      if (!decoded && decoded.error().code == Errc::newer_format) co_return fail(Errc::newer_format, path);
      if (!decoded) {
        report_.damage(path, 0, s.size, decoded.error().detail);
        continue;
      }
      if (decoded->at != s.base) {
        report_.damage(path, 0, s.size, fmt::format("made at offset {}", decoded->at.value()));
        continue;
      }
      ProducerState producers;
      auto loaded = producers.load(decoded->state);
      if (!loaded) {
        report_.damage(path, 0, s.size, loaded.error().detail);
        continue;
      }
      JsonLine line{"file"};
      line.text("file", path).text("type", "snapshot").number("bytes", file->length).number("producers", producers.size());
      report_.entry(std::move(line));
    }
    bool wanted = known_ && known_->state.snapshot.value() >= 0 && known_->state.snapshot <= known_->state.flushed_segment;
    if (wanted && std::ranges::find(snapshots_, known_->state.snapshot, &Named::base) == snapshots_.end()) {
      report_.damage(segment_path(folder_, known_->state.snapshot, "snap"), 0, 0, "missing; the checkpoint relies on it");
    }
    co_return Result<void>{};
  }

  io::Runtime& runtime_;
  OfflineReport& report_;
  std::string folder_;
  const KnownPartition* known_;
  std::vector<Named> logs_{};
  std::vector<Named> indexes_{};
  std::vector<Named> snapshots_{};
};

}  // namespace

Task<Result<void>> verify_partition(io::Runtime& runtime, OfflineReport& report, std::string folder, const KnownPartition* known) {
  PartitionCheck check{runtime, report, std::move(folder), known};
  co_return co_await check.run();
}

}  // namespace tailrace::broker::log
