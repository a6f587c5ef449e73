// One shard of a data directory: both checkpoint copies, every WAL slot, and the frames that recovery would read.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "log/partition_log.h"
#include "log/recovery.h"
#include "log/segment_files.h"
#include "log/verify_parts.h"
#include "log/wal_walk.h"

namespace tailrace::broker::log {
namespace {

constexpr std::size_t kUnprovenMax = 4'096;
constexpr std::size_t kControlPayloadMax = 64 * limits::kKiB;  // of frames other than batch and remainder

struct Slot {
  std::string path{};
  std::uint64_t size = 0;
  WalHeaders headers{};
  bool used = false;        // has valid headers of ours
  std::uint64_t frames = 0;
};

class ShardCheck {
 public:
  ShardCheck(io::Runtime& runtime, OfflineReport& report, const DirectoryFacts& facts, std::uint32_t shard, ShardSeen& seen)
      : runtime_{runtime}, report_{report}, facts_{facts}, shard_{shard}, folder_{shard_folder(facts.root, ShardIndex{shard})}, seen_{seen} {}

  Task<Result<void>> run() {
    TAILRACE_CO_TRY_VOID(co_await checkpoints());
    TAILRACE_CO_TRY_VOID(co_await slots());
    TAILRACE_CO_TRY_VOID(co_await frames());
    judge_slots();
    co_return Result<void>{};
  }

 private:
  Task<Result<void>> checkpoints() {
    int there = 0;
    int good = 0;
    for (int copy = 0; copy < 2; ++copy) {
      std::string path = checkpoint_path(folder_, copy);
      auto file = co_await read_whole_file(runtime_, path, kCheckpointBytesMax + limits::kWalBlock);
      if (!file && file.error().code == Errc::not_found) continue;
      if (!file && file.error().code == Errc::descriptors_exhausted) co_return std::unexpected(file.error());
      ++there;
      ++report_.counts.files;
      seen_.begun = true;
      if (!file) {
        report_.damage(path, 0, 0, file.error().detail);
        continue;
      }
      report_.counts.bytes += file->length;
      auto decoded = decode_checkpoint(file->bytes());
      if (!decoded && decoded.error().code == Errc::newer_format) co_return fail(Errc::newer_format, path);
      if (!decoded) {
        report_.damage(path, 0, file->length, decoded.error().detail);
        continue;
      }
      ++good;
      Checkpoint& c = *decoded;
      if (c.shard != shard_) report_.damage(path, 0, file->length, fmt::format("written for shard {}", c.shard));
      if (facts_.identity_known && c.directory_id != facts_.directory_id && c.directory_id != std::array<std::uint8_t, 16>{}) {
        report_.damage(path, 0, file->length, "written for another data directory");
      }
      JsonLine line{"file"};
      line.text("file", path).text("type", "checkpoint").number("bytes", file->length).number("sequence", c.sequence).number("partitions", c.partitions.size());
      report_.entry(std::move(line));
      if (!seen_.checkpoint_good || c.sequence > seen_.checkpoint.sequence) seen_.checkpoint = std::move(c);
      seen_.checkpoint_good = true;
    }
    // The very first checkpoint writes two copies; between them one is there.
    if (there == 1 && good == 1 && seen_.checkpoint.sequence > 1) {
      report_.damage(folder_, 0, 0, "one of the two checkpoint copies is missing");
    }
    for (const PartitionCheckpoint& p : seen_.checkpoint.partitions) {
      KnownPartition known{.state = p, .end = p.flushed_offset, .removed = p.removed};
      seen_.partitions.emplace(p.number, std::move(known));
    }
    co_return Result<void>{};
  }

  Task<Result<void>> slots() {
    std::string wal = folder_ + "/wal";
    auto files = co_await runtime_.files.list(wal);
    if (!files && files.error().code != Errc::not_found) co_return std::unexpected(files.error());
    if (!files) files = std::vector<io::DirectoryEntry>{};
    for (const io::DirectoryEntry& e : *files) {
      std::uint32_t number = 0;
      auto [end, error] = std::from_chars(e.name.data(), e.name.data() + std::min<std::size_t>(e.name.size(), 2), number);
      bool named = e.name.size() == 6 && e.name.ends_with(".log") && error == std::errc{} && end == e.name.data() + 2;
      Slot slot{.path = wal + "/" + e.name, .size = e.size};
      if (!named) {
        report_.note(slot.path, 0, e.size, "not a file of ours");
        continue;
      }
      ++report_.counts.files;
      auto file = co_await FileWindow::open(runtime_, report_.reads, slot.path);
      if (!file && file.error().code == Errc::descriptors_exhausted) co_return std::unexpected(file.error());
      if (!file) {
        report_.damage(slot.path, 0, e.size, file.error().detail);
        continue;
      }
      TAILRACE_CO_TRY(slot.headers, co_await read_wal_headers(*file));
      const WalFileHeader& h = slot.headers.header;
      bool any = slot.headers.first_good || slot.headers.last_good || h.sequence > 0;
      bool ours = any && h.slot == number && h.shard == shard_ && (!facts_.identity_known || h.directory_id == facts_.directory_id);
      if (any && !ours) report_.damage(slot.path, 0, e.size, fmt::format("written as slot {} of shard {}, or for another data directory", h.slot, h.shard));
      slot.used = ours;
      seen_.begun |= ours;
      if (ours && e.size < h.file_bytes) report_.damage(slot.path, e.size, h.file_bytes - e.size, "the file ends early");
      slots_.push_back(std::move(slot));
    }
    if (seen_.checkpoint_good && slots_.size() < seen_.checkpoint.slots) {
      report_.damage(wal, 0, 0, fmt::format("{} of {} WAL files are there", slots_.size(), seen_.checkpoint.slots));
    }
    co_return Result<void>{};
  }

  Task<Result<void>> frames() {
    std::vector<Slot*> live;
    for (Slot& s : slots_) {
      if (s.used && s.headers.header.sequence >= seen_.checkpoint.oldest_file) live.push_back(&s);
    }
    std::ranges::sort(live, {}, [](const Slot* s) { return s->headers.header.sequence; });
    const Checkpoint& c = seen_.checkpoint;
    if (seen_.checkpoint_good) proven_ = c.durable_frame;
    WalChain chain{.next_frame = seen_.checkpoint_good ? c.oldest_frame : 0};
    if (!seen_.checkpoint_good && !live.empty()) chain.next_frame = live.front()->headers.header.first_frame;
    std::uint64_t expected = seen_.checkpoint_good ? c.oldest_file : 1;
    if (!seen_.checkpoint_good && !live.empty()) {
      expected = live.front()->headers.header.sequence;
      if (expected > 1) report_.damage(folder_, 0, 0, "no checkpoint is valid, and the WAL does not go back to the beginning");
    }
    std::string end_path = folder_ + "/wal";
    std::uint64_t end_position = 0;
    for (std::size_t i = 0; i < live.size(); ++i) {
      Slot& slot = *live[i];
      const WalFileHeader& h = slot.headers.header;
      if (h.sequence != expected) {
        std::string what = h.sequence < expected ? fmt::format("a second file with sequence {}", h.sequence)
                                                 : fmt::format("WAL files {} to {} are missing", expected, h.sequence - 1);
        report_.damage(slot.path, 0, 0, std::move(what));
        for (auto& [number, p] : seen_.partitions) p.incomplete = true;
      }
      expected = h.sequence + 1;
      if (i > 0 && h.previous_end != 0 && h.first_frame > 0) proven_ = std::max(proven_, h.first_frame - 1);
      std::uint64_t known_end = i + 1 < live.size() ? live[i + 1]->headers.header.previous_end : 0;
      auto file = co_await FileWindow::open(runtime_, report_.reads, slot.path);
      if (!file) {
        report_.damage(slot.path, 0, slot.size, file.error().detail);
        continue;
      }
      path_ = slot.path;
      WalWalk walk{*file, h, known_end, chain};
      for (;;) {
        WalItem item = co_await walk.next();
        if (item.kind == WalItem::Kind::end) {
          end_path = slot.path;
          end_position = item.position;
          if (!item.what.empty()) open_end_ = Unproven{slot.path, item.position, item.bytes, item.first_frame, item.first_frame, item.what, kNoPartition};
          break;
        }
        if (item.kind == WalItem::Kind::gap) {
          gap(item);
          continue;
        }
        open_end_.reset();
        ++slot.frames;
        ++report_.counts.frames;
        report_.checked(item.bytes);
        proven_ = std::max(proven_, item.header.durable_up_to());
        if (!is_known(item.header.type)) {
          co_return fail(Errc::newer_format, fmt::format("{} position {}: frame type {}", slot.path, item.position, static_cast<int>(item.header.type)));
        }
        if (item.payload_good) {
          co_await apply(*file, item);
        } else {
          bool holds_data = item.header.type == FrameType::batch || item.header.type == FrameType::remainder;
          hold({slot.path, item.position, item.bytes, item.header.sequence, item.header.sequence + 1, item.what, holds_data ? item.header.partition : kNoPartition});
        }
        release();
      }
      JsonLine line{"file"};
      line.text("file", slot.path).text("type", "wal").number("bytes", slot.size).number("sequence", h.sequence).number("frames", slot.frames);
      report_.entry(std::move(line));
    }
    std::uint64_t newest = live.empty() ? 0 : live.back()->headers.header.sequence;
    std::uint64_t known = std::max(prepared_, seen_.checkpoint_good ? c.newest_file : 0);
    if (known > newest) {
      report_.damage(folder_ + "/wal", 0, 0, fmt::format("WAL file {} was in use and is missing", known));
      for (auto& [number, p] : seen_.partitions) p.incomplete = true;
    }
    // Something ends the log that was durable, and nothing valid follows it.
    if (chain.next_frame != 0 && chain.next_frame <= proven_ && !live.empty()) {
      Unproven end = open_end_.value_or(Unproven{end_path, end_position, 0, chain.next_frame, chain.next_frame, {}, kNoPartition});
      end.next = proven_ + 1;
      if (end.what.empty()) end.what = "the log ends here";
      hold(std::move(end));
      open_end_.reset();
    }
    release();
    for (const Unproven& u : unproven_) {
      report_.torn(u.path, u.position, u.bytes, fmt::format("torn tail at frame {}: {}; nothing says that it was acknowledged", u.first, u.what));
    }
    if (open_end_ && unproven_.empty()) {
      report_.torn(open_end_->path, open_end_->position, open_end_->bytes,
                   fmt::format("torn tail at frame {}: {}; nothing says that it was acknowledged", open_end_->first, open_end_->what));
    }
    co_return Result<void>{};
  }

  struct Unproven {
    std::string path{};
    std::uint64_t position = 0;
    std::uint64_t bytes = 0;
    std::uint64_t first = 0;
    std::uint64_t next = 0;
    std::string what{};
    std::uint32_t partition = kNoPartition;
  };

  void gap(const WalItem& item) {
    if (item.first_frame == item.next_frame) {
      // The frame behind it is the expected one: only bytes that hold nothing.
      report_.damage(path_, item.position, item.bytes, item.what.empty() ? "between two frames" : item.what);
      return;
    }
    hold({path_, item.position, item.bytes, item.first_frame, item.next_frame, item.what, kNoPartition});
  }
  void hold(Unproven u) {
    if (unproven_.size() >= kUnprovenMax) {
      unproven_.back().next = u.next;
      return;
    }
    unproven_.push_back(std::move(u));
  }
  /// What is proven by now to have been durable is damage.
  void release() {
    std::size_t done = 0;
    while (done < unproven_.size() && unproven_[done].first <= proven_) {
      const Unproven& u = unproven_[done++];
      std::string which = u.next > u.first + 1 ? fmt::format("frames {} to {} were durable", u.first, u.next - 1) : fmt::format("frame {} was durable", u.first);
      report_.damage(u.path, u.position, u.bytes, u.what.empty() ? which + " and is not there" : which + ": " + u.what);
      for (auto& [number, p] : seen_.partitions) {
        if (u.partition == kNoPartition || u.partition == number) p.incomplete = true;
      }
    }
    unproven_.erase(unproven_.begin(), unproven_.begin() + static_cast<std::ptrdiff_t>(done));
  }

  /// Frames that belong to a torn tail are dropped by recovery; what they say still describes files that may be there.
  Task<void> apply(FileWindow& file, const WalItem& item) {
    const FrameHeader& h = item.header;
    if (h.type == FrameType::batch) {
      co_await apply_batch(file, item);
      co_return;
    }
    std::vector<std::byte> payload;
    if (h.type != FrameType::remainder && h.length <= kControlPayloadMax) {
      auto add = [&](Bytes bytes) { payload.insert(payload.end(), bytes.begin(), bytes.end()); };
      co_await file.each(item.position + kFrameHeaderBytes, h.length, add);
    }
    if (h.type == FrameType::file_prepared) {
      if (payload.size() >= 8) prepared_ = std::max(prepared_, load_le<std::uint64_t>(payload.data()));
      co_return;
    }
    if (h.type == FrameType::mark) co_return;
    if (h.type == FrameType::partition_create) {
      if (payload.size() < kPartitionCreateBytes || payload.size() > kPartitionCreateBytes + kMembersBytesMax) {
        report_.damage(path_, item.position, item.bytes, "partition_create: payload");
        co_return;
      }
      KnownPartition p;
      p.state.number = h.partition;
      std::memcpy(p.state.id.topic.bytes.data(), payload.data(), 16);
      p.state.id.index = PartitionIndex{load_le<std::int32_t>(payload.data() + 16)};
      if (h.position == kBeginsLost) p.state.holes.push_back({});
      seen_.partitions.emplace(h.partition, std::move(p));
      co_return;
    }
    auto found = seen_.partitions.find(h.partition);
    if (found == seen_.partitions.end()) co_return;
    KnownPartition& p = found->second;
    if (h.sequence <= p.state.applied_through || p.removed) co_return;
    switch (h.type) {
      case FrameType::remainder:
        p.end = std::max(p.end, h.base_offset);
        p.wal_segments.insert(h.segment_base);
        break;
      case FrameType::truncate:
        cut_state(p.state, {h.base_offset, h.sub}, h.segment_base, h.position);
        p.end = h.base_offset;
        p.truncated = true;
        break;
      case FrameType::install: {
        auto anew = decode_install(payload);
        if (!anew) {
          report_.damage(path_, item.position, item.bytes, "install: payload");
          break;
        }
        HistoryStart start{.position = {h.base_offset, h.sub}, .term = h.term, .members = {anew->members.begin(), anew->members.end()}};
        begin_state_anew(p.state, start, anew->log_start);
        p.end = h.base_offset;
        p.truncated = true;
        p.wal_segments.clear();
        break;
      }
      case FrameType::log_start:
        p.state.log_start = std::max(p.state.log_start, h.base_offset);
        break;
      case FrameType::partition_delete:
        p.removed = true;
        break;
      case FrameType::skip_damage:
        for (std::size_t at = 0; at + 16 <= payload.size(); at += 16) {
          Hole hole{Offset{load_le<std::int64_t>(payload.data() + at)}, Offset{load_le<std::int64_t>(payload.data() + at + 8)}, true};
          std::erase_if(p.state.holes, [&](const Hole& known) { return known.from == hole.from; });
          if (p.state.holes.size() < kHolesMax) p.state.holes.push_back(hole);
        }
        break;
      case FrameType::batch:
      case FrameType::hard_state:
      case FrameType::term_start:
      case FrameType::members:
      case FrameType::log_start_entry:
      case FrameType::partition_create:
      case FrameType::mark:
      case FrameType::file_prepared:
        break;
    }
  }

  Task<void> apply_batch(FileWindow& file, const WalItem& item) {
    const FrameHeader& h = item.header;
    Bytes front = co_await file.at(item.position + kFrameHeaderBytes, batch_layout::kHeaderBytes);
    auto header = read_batch_header(front, limits::kMessageBytesCeiling);
    bool whole = header && header->total_bytes() == h.length && header->base_offset == h.base_offset && header->last_offset_delta >= 0;
    if (whole) {
      std::uint32_t crc = co_await file.crc(item.position + kFrameHeaderBytes + batch_layout::kAttributes, h.length - batch_layout::kAttributes);
      whole = crc == header->crc;
    }
    if (!whole) {
      report_.damage(path_, item.position, item.bytes, "a frame whose own checksum holds carries a batch that does not add up");
      co_return;
    }
    auto found = seen_.partitions.find(h.partition);
    if (found == seen_.partitions.end()) co_return;
    KnownPartition& p = found->second;
    if (h.sequence <= p.state.applied_through || p.removed) co_return;
    p.wal_segments.insert(h.segment_base);
    if (header->base_offset > p.end && !p.incomplete && !accepted_gap(p, header->base_offset)) {
      report_.damage(path_, item.position, item.bytes,
                     fmt::format("partition {}: offset {} where {} belongs", h.partition, header->base_offset.value(), p.end.value()));
    }
    p.end = std::max(p.end, header->next_offset());
  }
  static bool accepted_gap(const KnownPartition& p, Offset to) {
    return std::ranges::any_of(p.state.holes, [&](const Hole& h) { return h.from <= p.end && (h.to >= to || h.to == h.from); });
  }

  /// A header is written twice before the first frame of its use; a copy that is bad is damage once that is certain.
  void judge_slots() {
    for (const Slot& s : slots_) {
      const WalHeaders& h = s.headers;
      bool in_use = s.frames > 0 || (h.header.sequence > 0 && h.header.sequence <= std::max(prepared_, seen_.checkpoint.newest_file));
      if (h.unused) continue;
      if (!s.used && !h.first_good && !h.last_good) {
        report_.damage(s.path, 0, s.size, h.what);
      } else if (h.differ || !h.first_good || !h.last_good) {
        std::string what = h.differ ? "its two headers differ" : h.what;
        std::uint64_t position = h.first_good ? h.header.file_bytes - limits::kWalBlock : 0;
        if (in_use) report_.damage(s.path, position, limits::kWalBlock, std::move(what));
        else report_.note(s.path, position, limits::kWalBlock, what + "; the file was not in use");
      }
    }
  }

  io::Runtime& runtime_;
  OfflineReport& report_;
  const DirectoryFacts& facts_;
  std::uint32_t shard_;
  std::string folder_;
  ShardSeen& seen_;
  std::vector<Slot> slots_{};
  std::string path_{};
  std::uint64_t proven_ = 0;
  std::uint64_t prepared_ = 0;
  std::vector<Unproven> unproven_{};
  std::optional<Unproven> open_end_{};
};

}  // namespace

Task<Result<void>> verify_shard(io::Runtime& runtime, OfflineReport& report, const DirectoryFacts& facts, std::uint32_t shard, ShardSeen& into) {
  ShardCheck check{runtime, report, facts, shard, into};
  co_return co_await check.run();
}

}  // namespace tailrace::broker::log
