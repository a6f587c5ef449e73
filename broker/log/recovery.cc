#include "log/recovery.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "base/planted.h"
#include "log/partition_log.h"
#include "log/segment_files.h"
#include "log/term_history.h"

namespace tailrace::broker::log {
namespace {

/// Applies frames in order to what the checkpoint knew.
class Replay {
 public:
  Replay(RecoveredShard& shard, std::uint64_t bytes_max) : shard_{shard}, bytes_left_{bytes_max} {}

  /// Payloads behind what segments hold, oldest first as far as the budget goes: those are needed first, since the oldest file
  /// is the first to be recycled. The rest is read again when its partition is opened.
  bool wants(const FrameHeader& h) {
    auto found = shard_.partitions.find(h.partition);
    if (found == shard_.partitions.end() || found->second.removed || h.sequence <= found->second.state.applied_through) return false;
    if (h.length > bytes_left_) {
      bytes_left_ = 0;
      return false;
    }
    bytes_left_ -= h.length;
    return true;
  }

  Result<void> apply(ScannedFrame&& frame) {
    const FrameHeader& h = frame.header;
    if (h.type == FrameType::mark) return {};
    if (h.type == FrameType::file_prepared) {
      if (frame.payload.length >= 8) prepared_ = std::max(prepared_, load_le<std::uint64_t>(frame.payload.bytes().data()));
      return {};
    }
    if (h.type == FrameType::partition_create) return create(frame);
    auto found = shard_.partitions.find(h.partition);
    if (found == shard_.partitions.end()) {
      ++unknown_partition_;
      return {};
    }
    RecoveredPartition& p = found->second;
    bool old = h.sequence <= p.state.applied_through;
    if (old && !(planted(PlantedBug::replay_old_truncation) && h.type == FrameType::truncate)) return {};
    if (p.removed) return {};
    ++shard_.report.frames_applied;
    apply_to(p, std::move(frame));
    return {};
  }

  [[nodiscard]] std::uint64_t prepared() const { return prepared_; }
  [[nodiscard]] std::uint64_t unknown_partition() const { return unknown_partition_; }

  /// Frames [first, next) are lost, of partitions unknown: everyone whose log did not visibly go on behind them may have
  /// lost its end.
  void suspect(std::uint64_t first, std::uint64_t next) {
    for (auto& [number, p] : shard_.partitions) {
      if (p.removed || p.state.applied_through + 1 >= next) continue;
      auto last = last_batch_.find(number);
      if (last != last_batch_.end() && last->second > first) continue;
      damage(p);
    }
  }
  void damage(RecoveredPartition& p) {
    bool known = std::ranges::any_of(p.state.holes, [&](const Hole& h) { return !h.accepted && h.from <= p.end && (h.to == h.from || h.to > p.end); });
    if (!known) p.state.holes.push_back({p.end, p.end, false});
  }

 private:
  Result<void> create(const ScannedFrame& frame) {
    std::uint32_t number = frame.header.partition;
    shard_.next_number = std::max(shard_.next_number, number + 1);
    std::size_t length = frame.payload.length;
    if (length < kPartitionCreateBytes || length > kPartitionCreateBytes + kMembersBytesMax || shard_.partitions.contains(number)) return {};
    RecoveredPartition p;
    p.state.number = number;
    std::memcpy(p.state.id.topic.bytes.data(), frame.payload.bytes().data(), 16);
    p.state.id.index = PartitionIndex{load_le<std::int32_t>(frame.payload.bytes().data() + 16)};
    Bytes members = frame.payload.bytes().subspan(kPartitionCreateBytes);
    p.state.history.members.assign(members.begin(), members.end());
    if (frame.header.position == kBeginsLost) p.state.holes.push_back({});
    // Deleted and created again under another number: the older one is gone.
    shard_.partitions.emplace(number, std::move(p));
    ++shard_.report.frames_applied;
    return {};
  }

  void apply_to(RecoveredPartition& p, ScannedFrame&& frame) {
    const FrameHeader& h = frame.header;
    PartitionCheckpoint& s = p.state;
    switch (h.type) {
      case FrameType::batch: {
        auto header = read_batch_header(Bytes{frame.front}.first(std::min<std::size_t>(frame.front.size(), h.length)), limits::kMessageBytesCeiling);
        if (!header || header->total_bytes() != h.length || !header->offsets_make_sense()) return;
        last_batch_[s.number] = h.sequence;
        Offset next = header->next_offset();
        bool again = !p.tail.empty() && p.tail.back().type == FrameType::batch && next <= p.tail.back().next;
        if (again) return;
        p.tail.push_back({h.type, std::move(frame.payload), header->base_offset, next, h.segment_base, h.position, h.sequence, h.append_time_ms, h.length,
                          h.length, static_cast<std::uint32_t>(frame.position), frame.file});
        p.end = std::max(p.end, next);
        return;
      }
      case FrameType::remainder:
        last_batch_[s.number] = h.sequence;
        p.tail.push_back({h.type, std::move(frame.payload), h.base_offset, h.base_offset, h.segment_base, h.position, h.sequence, h.append_time_ms, h.length,
                          h.length, static_cast<std::uint32_t>(frame.position), frame.file});
        p.end = std::max(p.end, h.base_offset);
        return;
      case FrameType::hard_state:
        // What the checkpoint says may be newer than frames that are read for the sake of others; what a start found out is.
        if (h.sequence <= s.hard_frame) return;
        if (auto state = decode_hard_state(frame.payload.bytes(), h.term)) {
          s.hard = *state;
          s.hard_frame = h.sequence;
        }
        return;
      case FrameType::term_start:
        raise_term(s, h.term);
        note_term(s.terms, {h.term, h.base_offset, h.sub});
        return;
      case FrameType::members:
      case FrameType::log_start_entry:
        note_mark(s, frame);
        return;
      case FrameType::install:
        begin_anew(p, std::move(frame));
        return;
      case FrameType::truncate:
        truncate(p, h);
        return;
      case FrameType::log_start:
        s.log_start = std::max(s.log_start, h.base_offset);
        return;
      case FrameType::partition_delete:
        p.removed = true;
        p.tail.clear();
        return;
      case FrameType::skip_damage:
        for (std::size_t at = 0; at + 16 <= frame.payload.length; at += 16) {
          const std::byte* pair = frame.payload.bytes().data() + at;
          Hole hole{Offset{load_le<std::int64_t>(pair)}, Offset{load_le<std::int64_t>(pair + 8)}, true};
          std::erase_if(s.holes, [&](const Hole& known) { return known.from == hole.from; });
          if (s.holes.size() < kHolesMax) s.holes.push_back(hole);
        }
        std::ranges::sort(s.holes, {}, &Hole::from);
        return;
      case FrameType::partition_create:
      case FrameType::mark:
      case FrameType::file_prepared:
        return;
    }
  }

  /// A frame that was lost may have said it; whom this directory voted for in that term is not known then.
  static void raise_term(PartitionCheckpoint& s, LeaderEpoch term) {
    if (term <= s.hard.term) return;
    s.hard.term = term;
    s.hard.vote_node = NodeId{-1};
    s.hard.vote_directory = {};
  }

  static void note_mark(PartitionCheckpoint& s, const ScannedFrame& frame) {
    const FrameHeader& h = frame.header;
    if (h.sub == 0 || h.base_offset < Offset{0}) return;  // a writer never makes this, nor what is refused below
    Mark mark{.begin = {h.base_offset, h.sub - 1}, .term = h.term, .kind = MarkKind::members, .log_start = {}, .members = {}};
    Bytes payload = frame.payload.bytes();
    if (h.type == FrameType::log_start_entry) {
      if (payload.size() != 8) return;
      mark.kind = MarkKind::log_start;
      mark.log_start = Offset{load_le<std::int64_t>(payload.data())};
    } else {
      if (payload.empty() || payload.size() > kMembersBytesMax) return;
      mark.members.assign(payload.begin(), payload.end());
    }
    if (!s.marks.empty() && s.marks.back().begin >= mark.begin) return;
    s.marks.push_back(std::move(mark));
  }

  static void begin_anew(RecoveredPartition& p, ScannedFrame&& frame) {
    const FrameHeader& h = frame.header;
    auto payload = decode_install(frame.payload.bytes());
    if (!payload || h.base_offset < Offset{0}) return;  // a writer never makes this
    HistoryStart start{.position = {h.base_offset, h.sub}, .term = h.term, .members = {payload->members.begin(), payload->members.end()}};
    begin_state_anew(p.state, start, payload->log_start);
    p.tail.clear();
    auto length = static_cast<std::uint32_t>(payload->producers.size());
    p.tail.push_back({h.type, frame.payload.part(frame.payload.length - length, length), h.base_offset, h.base_offset, h.base_offset, 0, h.sequence,
                      h.append_time_ms, length, h.length, static_cast<std::uint32_t>(frame.position), frame.file});
    p.end = h.base_offset;
    p.truncated = true;
  }

  static void truncate(RecoveredPartition& p, const FrameHeader& h) {
    Offset cut = h.base_offset;
    std::erase_if(p.tail, [&](const TailFrame& t) { return t.type == FrameType::batch && t.base >= cut; });
    for (TailFrame& t : p.tail) {
      if (t.type != FrameType::remainder) continue;
      t.next = std::min(t.next, cut);  // the cut may be named in a segment that its batches were moved to
      if (t.segment < h.segment_base) continue;
      if (t.segment > h.segment_base || t.position >= h.position)
        t.length = 0;
      else
        t.length = std::min(t.length, h.position - t.position);
      if (t.bytes.length > 0) t.bytes = t.bytes.part(0, t.length);
    }
    std::erase_if(p.tail, [](const TailFrame& t) { return t.length == 0; });
    p.cut_elsewhere |= h.segment_base > p.state.flushed_segment && cut <= p.state.flushed_offset;
    cut_state(p.state, {cut, h.sub}, h.segment_base, h.position);
    p.end = cut;
    p.truncated = true;
  }

  RecoveredShard& shard_;
  std::uint64_t bytes_left_;
  std::uint64_t prepared_ = 0;
  std::uint64_t unknown_partition_ = 0;
  std::map<std::uint32_t, std::uint64_t> last_batch_{};
};

/// Names that an earlier process made, and died before it had synced them, must last as long as what relies on them.
Task<Result<void>> sync_folders(io::Runtime& runtime, const ShardLogOptions& options) {
  std::string shard = shard_folder(options.data_directory, options.shard);
  TAILRACE_CO_TRY_VOID(co_await runtime.files.make_directory(shard + "/wal"));
  TAILRACE_CO_TRY_VOID(co_await runtime.files.sync_directory(options.data_directory));
  TAILRACE_CO_TRY_VOID(co_await runtime.files.sync_directory(shard));
  co_return co_await runtime.files.sync_directory(shard + "/wal");
}

Task<Result<void>> open_slots(io::Runtime& runtime, const ShardLogOptions& options, RecoveredShard& into) {
  std::string folder = shard_folder(options.data_directory, options.shard) + "/wal";
  TAILRACE_CO_TRY(auto files, co_await runtime.files.list(folder));
  auto directory = directory_id_bytes(options.directory_id);
  for (const io::DirectoryEntry& entry : files) {
    std::uint32_t number = 0;
    if (entry.name.size() != 6 || !entry.name.ends_with(".log") || entry.name[0] < '0' || entry.name[0] > '9' || entry.name[1] < '0' || entry.name[1] > '9')
      continue;
    number = static_cast<std::uint32_t>((entry.name[0] - '0') * 10 + (entry.name[1] - '0'));
    if (number >= static_cast<std::uint32_t>(limits::kWalSlotsMax)) continue;
    io::OpenOptions open{.write = true, .direct = true};
    TAILRACE_CO_TRY(auto file, co_await runtime.files.open(wal_slot_path(folder, number), open));
    TAILRACE_CO_TRY(SlotHeader header, co_await read_slot_header(*file));
    RecoveredShard::Slot slot{.slot = WalSlot{.slot = number, .file = std::move(file)}};
    bool ours = header.valid && header.header.slot == number && (options.directory_id.empty() || header.header.directory_id == directory);
    if (header.valid && !ours) log_error("wal.foreign", "{}: written as slot {} of another place; not used", entry.name, header.header.slot);
    slot.cut_short = ours && header.cut_short;
    if (ours && header.one_copy_bad) {
      ++into.report.padding_repaired;
      log_warn("wal.header_copy_bad", "{}: one of its two headers is damaged", entry.name);
    }
    if (ours) {
      slot.slot.header = header.header;
      slot.slot.filled = entry.size >= header.header.file_bytes;
    }
    into.slots.push_back(std::move(slot));
  }
  co_return Result<void>{};
}

}  // namespace

std::array<std::uint8_t, 16> directory_id_bytes(std::string_view hex) {
  auto id = parse_topic_id(hex);  // the same 32 hex digits
  return id ? id->bytes : std::array<std::uint8_t, 16>{};
}

Task<Result<SlotHeader>> read_slot_header(io::File& file) {
  SlotHeader out;
  TAILRACE_CO_TRY(std::uint64_t size, file.size());
  Buffer block = Buffer::allocate(limits::kWalBlock, io::kDirectAlignment);
  int good = 0;
  std::optional<Error> refused;
  std::uint64_t places[2] = {0, size >= 2 * limits::kWalBlock ? align_down(size) - limits::kWalBlock : 0};
  for (int i = 0; i < 2; ++i) {
    auto got = co_await io::read_up_to(file, block.bytes(), places[i]);
    if (!got) {
      refused = got.error();
      continue;
    }
    auto header = decode_wal_file_header(Bytes{block.data(), *got});
    if (!header && header.error().code == Errc::newer_format) co_return std::unexpected(header.error());
    if (!header) continue;
    ++good;
    if (!out.valid || header->sequence > out.header.sequence) out.header = *header;
    out.valid = true;
    // The last block of a file that was cut or grown is elsewhere: the first header says where.
    if (i == 0 && header->file_bytes >= 2 * limits::kWalBlock) places[1] = header->file_bytes - limits::kWalBlock;
  }
  if (!out.valid && refused) co_return std::unexpected(*std::move(refused));
  out.one_copy_bad = out.valid && good < 2;
  out.cut_short = out.valid && size < out.header.file_bytes;
  co_return out;
}

Task<Result<void>> recover(io::Runtime& runtime, ShardLogOptions options, RecoveredShard& into) {
  Instant begin = runtime.clock.now();
  std::string folder = shard_folder(options.data_directory, options.shard);
  std::optional<CheckpointOwner> owner;
  if (!options.directory_id.empty()) owner = {options.shard.value(), directory_id_bytes(options.directory_id)};
  TAILRACE_CO_TRY(LoadedCheckpoint loaded, co_await load_checkpoint(runtime, folder, owner));
  // The data directory gave every shard its first checkpoint before it counted the shard.
  if (!loaded.found) co_return fail(Errc::corrupt, folder + ": the shard's checkpoint is gone");
  TAILRACE_CO_TRY_VOID(co_await sync_folders(runtime, options));
  TAILRACE_CO_TRY_VOID(co_await open_slots(runtime, options, into));
  std::uint64_t newest = 0;
  for (const auto& s : into.slots) {
    std::uint64_t sequence = s.slot.header.sequence;
    if (sequence == 0) continue;
    newest = std::max(newest, sequence);
  }
  into.checkpoint = std::move(loaded.checkpoint);
  into.checkpoint_copies = loaded.copies;
  RecoveryReport& report = into.report;
  report.performed = newest > 0 || into.checkpoint.newest_file > 0 || !into.checkpoint.partitions.empty();
  if (loaded.bad_copies > 0) {
    ++report.padding_repaired;
    log_warn("checkpoint.copy_bad", "shard {}: one of two checkpoint copies is damaged", options.shard.value());
  }
  const Checkpoint& checkpoint = into.checkpoint;
  into.next_number = checkpoint.next_number;
  for (const PartitionCheckpoint& p : checkpoint.partitions) {
    RecoveredPartition r;
    r.state = p;
    r.end = p.flushed_offset;
    r.removed = p.removed;
    into.partitions.emplace(p.number, std::move(r));
  }

  // After a clean stop nothing in the WAL is needed, and every start writes its own checkpoint before its first frame.
  std::vector<WalFileFound> files;
  for (auto& s : into.slots) {
    if (checkpoint.clean) break;
    if (s.slot.header.sequence >= checkpoint.oldest_file && s.slot.header.sequence > 0) files.push_back({s.slot.header, s.slot.file.get()});
  }
  std::ranges::sort(files, {}, [](const WalFileFound& f) { return f.header.sequence; });
  Replay replay{into, options.hot_tail_bytes};
  std::vector<BadPlace> damage;
  std::uint64_t first_frame = checkpoint.clean ? checkpoint.durable_frame + 1 : checkpoint.oldest_frame;
  WalScanner scanner{runtime,
                     checkpoint.durable_frame,
                     first_frame,
                     [&](const FrameHeader& header) { return replay.wants(header); },
                     [&](ScannedFrame&& frame) { return replay.apply(std::move(frame)); },
                     [&](const BadPlace& bad) { damage.push_back(bad); }};
  TAILRACE_CO_TRY_VOID(co_await scanner.scan(files));
  ScanResult result = scanner.finish();
  report.wal_files = files.size();
  report.frames = result.frames;
  report.bytes = result.bytes;
  report.torn = result.torn ? 1 : 0;
  report.cut_frames = result.cut_frames;
  report.padding_repaired += result.padding_repaired;
  report.corrupt = damage.size();
  for (const BadPlace& bad : damage) {
    log_error("wal.corrupt", "shard {} file {} position {}: frames {} to {} were durable and are {}", options.shard.value(), bad.file, bad.position,
              bad.first_frame, bad.next_frame, bad.header ? "damaged" : "damaged or missing");
    if (bad.header) {
      auto found = into.partitions.find(bad.header->partition);
      bool holds_data = bad.header->type == FrameType::batch || bad.header->type == FrameType::remainder;
      if (found != into.partitions.end() && holds_data && found->second.state.applied_through < bad.first_frame &&
          found->second.end <= bad.header->base_offset) {
        replay.damage(found->second);
      }
    } else {
      replay.suspect(bad.first_frame, bad.next_frame);
    }
  }
  // A file that is known to have been begun, or made ready, is not there.
  std::uint64_t expected_newest = std::max(replay.prepared(), checkpoint.newest_file);
  if (!checkpoint.clean && expected_newest > newest) {
    ++report.corrupt;
    log_error("wal.file_missing", "shard {}: file {} was in use and is missing", options.shard.value(), expected_newest);
    replay.suspect(result.next_frame, ~std::uint64_t{0});
  }
  // A file is whole before its first frame: no crash makes it shorter, and what is missing may have been durable.
  std::uint64_t last = result.frames > 0 ? result.end_file : checkpoint.newest_file;
  bool cut_short = std::ranges::any_of(into.slots, [&](const auto& s) { return s.cut_short && s.slot.header.sequence == last; });
  if (!checkpoint.clean && cut_short) {
    ++report.corrupt;
    log_error("wal.file_short", "shard {}: file {} was in use and is shorter than it was made", options.shard.value(), last);
    replay.suspect(result.next_frame, ~std::uint64_t{0});
  }
  if (result.torn) {
    log_warn("wal.torn", "shard {} file {} position {}: the tail was cut; {} frames behind it may have been acknowledged only within the last milliseconds",
             options.shard.value(), result.end_file, result.end_position, result.cut_frames);
  }
  into.next_frame = std::max({result.next_frame, checkpoint.durable_frame + 1, std::uint64_t{1}});
  into.previous_header_crc = result.previous_header_crc;
  into.file_starts = result.file_starts;
  if (result.frames > 0) {
    into.next_file = result.end_file + 1;
    into.chain = {result.end_position, into.next_frame, into.previous_header_crc};
  } else {
    into.next_file = std::max<std::uint64_t>(checkpoint.clean ? checkpoint.newest_file + 1 : checkpoint.oldest_file, 1);
    into.chain = {0, into.next_frame, 0};
  }
  for (auto& s : into.slots) {
    std::uint64_t sequence = s.slot.header.sequence;
    s.live = !checkpoint.clean && sequence >= checkpoint.oldest_file && sequence > 0 && sequence < into.next_file;
  }
  for (auto& [number, p] : into.partitions) {
    bool damaged = !p.removed && std::ranges::any_of(p.state.holes, [](const Hole& h) { return !h.accepted; });
    if (damaged) ++report.damaged_partitions;
    // Told in the checkpoint of this start, before the evidence goes: the replica asks the others before it votes or leads.
    if (damaged)
      p.state.hard.suspicion = kLost;
    else if (result.torn && !p.removed)
      p.state.hard.suspicion = std::max(p.state.hard.suspicion, kCut);
  }
  for (const auto& [number, offset] : result.cut_batches) {
    auto found = into.partitions.find(number);
    if (found == into.partitions.end()) continue;
    HardState& hard = found->second.state.hard;
    hard.floor_term = hard.term;
    hard.floor = std::max(hard.floor, LogPosition{offset, 0});
  }
  report.seconds = std::chrono::duration<double>(runtime.clock.now() - begin).count();
  co_return Result<void>{};
}

}  // namespace tailrace::broker::log
