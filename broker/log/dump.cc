// Prints one file of ours, a line for each thing in it, past damage.
#include <fmt/format.h>

#include <algorithm>

#include "log/checkpoint.h"
#include "log/offline_report.h"
#include "log/producer_state.h"
#include "log/segment_files.h"
#include "log/segment_index.h"
#include "log/segment_walk.h"
#include "log/wal_walk.h"

namespace tailrace::broker::log {
namespace {

constexpr std::size_t kControlPayloadMax = 64 * limits::kKiB;

std::string hex(std::span<const std::uint8_t> bytes) {
  std::string out;
  for (auto b : bytes) out += fmt::format("{:02x}", b);
  return out;
}
std::string hex(Bytes bytes) { return hex(std::span{reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()}); }

void add_batch_fields(JsonLine& line, const BatchHeader& h) {
  line.number("base_offset", h.base_offset.value()).number("last_offset", h.last_offset().value()).number("records", h.record_count);
  line.number("leader_epoch", h.leader_epoch.value()).hex32("crc", h.crc).number("attributes", h.attributes);
  line.number("compression", static_cast<int>(h.compression())).flag("log_append_time", h.has_log_append_time());
  line.flag("transactional", h.is_transactional()).flag("control", h.is_control());
  line.number("base_timestamp_ms", h.base_timestamp).number("max_timestamp_ms", h.max_timestamp).time("max_timestamp", h.max_timestamp);
  line.number("producer_id", h.producer_id.value()).number("producer_epoch", h.producer_epoch.value()).number("base_sequence", h.base_sequence);
}

class Dump {
 public:
  Dump(io::Runtime& runtime, OfflineReport& report, std::string path) : runtime_{runtime}, report_{report}, path_{std::move(path)} {}

  Task<Result<void>> run() {
    TAILRACE_CO_TRY(FileWindow file, co_await FileWindow::open(runtime_, report_.reads, path_));
    ++report_.counts.files;
    report_.counts.bytes = file.size();
    Bytes front = co_await file.at(0, limits::kWalBlock);
    std::uint32_t magic = front.size() >= 4 ? load_le<std::uint32_t>(front.data()) : 0;
    std::string_view name{path_};
    name.remove_prefix(name.rfind('/') == std::string_view::npos ? 0 : name.rfind('/') + 1);
    bool slot = name.size() == 6 && name.ends_with(".log") && std::ranges::all_of(name.substr(0, 2), [](char c) { return c >= '0' && c <= '9'; });
    // A name says it even where the first bytes are damaged.
    if (slot || magic == kWalFileMagic) co_return co_await wal(file);
    if (auto base = parse_segment_name(name, "log")) co_return co_await segment(file, *base);
    if (parse_segment_name(name, "idx") || magic == 0x58495254) co_return co_await index();
    if (parse_segment_name(name, "snap") || magic == 0x4e535254) co_return co_await snapshot();
    if (name.starts_with("checkpoint") || magic == 0x50435254) co_return co_await checkpoint();
    if (name == "node.toml" || name == "shards" || name == "clean" || name == "plan") co_return co_await text();
    bool batch = front.size() >= batch_layout::kHeaderBytes && static_cast<std::int8_t>(front[batch_layout::kMagic]) == batch_layout::kMagicValue;
    if (batch) co_return co_await segment(file, std::nullopt);
    co_return fail(Errc::invalid_argument, path_ + " is no WAL, checkpoint, segment, index, snapshot or node file");
  }

 private:
  JsonLine line(std::string_view kind, std::uint64_t position, std::uint64_t bytes) {
    JsonLine l{kind};
    l.number("position", position).number("bytes", bytes);
    return l;
  }
  void say(JsonLine line) { report_.entry(std::move(line)); }

  // --- WAL ---

  Task<Result<void>> wal(FileWindow& file) {
    TAILRACE_CO_TRY(WalHeaders headers, co_await read_wal_headers(file));
    const WalFileHeader& h = headers.header;
    if (headers.unused) {
      say(line("unused", 0, file.size()));
      co_return Result<void>{};
    }
    if (!headers.what.empty()) report_.damage(path_, headers.first_good ? h.file_bytes - limits::kWalBlock : 0, limits::kWalBlock, headers.what);
    if (h.sequence == 0) {
      report_.damage(path_, 0, file.size(), "neither copy of the header is good: no frame can be told from chance");
      co_return Result<void>{};
    }
    JsonLine top = line("wal_file", 0, limits::kWalBlock);
    top.number("shard", h.shard).number("slot", h.slot).number("sequence", h.sequence).number("file_bytes", h.file_bytes);
    top.raw("salt", fmt::format("\"{:016x}\"", h.salt)).number("previous_end", h.previous_end).number("first_frame", h.first_frame);
    top.hex32("previous_header_crc", h.previous_header_crc).text("directory_id", hex(h.directory_id)).flag("headers_differ", headers.differ);
    say(std::move(top));
    if (file.size() < h.file_bytes) report_.damage(path_, file.size(), h.file_bytes - file.size(), "the file ends early");
    WalChain chain{.next_frame = h.first_frame, .previous_crc = h.previous_header_crc};
    WalWalk walk{file, h, 0, chain};
    std::optional<WalItem> open;  // a gap not yet proven to have been durable
    for (;;) {
      WalItem item = co_await walk.next();
      if (item.kind == WalItem::Kind::end) {
        if (open) note_gap(*open, false);
        if (!item.what.empty()) {
          report_.note(path_, item.position, item.bytes,
                       fmt::format("frame {}: {}; a torn tail, unless a later file or the checkpoint says it was durable", item.first_frame, item.what));
        }
        say(line("end", item.position, item.bytes).number("next_frame", item.first_frame));
        co_return Result<void>{};
      }
      if (item.kind == WalItem::Kind::gap) {
        if (open) note_gap(*open, false);
        open = std::move(item);
        if (open->first_frame == open->next_frame) {
          report_.damage(path_, open->position, open->bytes, open->what.empty() ? "between two frames" : open->what);
          open.reset();
        }
        continue;
      }
      if (open && item.header.durable_up_to() >= open->first_frame) {
        note_gap(*open, true);
        open.reset();
      }
      co_await frame(file, item);
    }
  }

  void note_gap(const WalItem& gap, bool durable) {
    std::string which =
        gap.next_frame > gap.first_frame + 1 ? fmt::format("frames {} to {}", gap.first_frame, gap.next_frame - 1) : fmt::format("frame {}", gap.first_frame);
    std::string what = fmt::format("{} {}: {}", which, durable ? "was durable" : "is not there", gap.what.empty() ? "no frame where one belongs" : gap.what);
    if (durable)
      report_.damage(path_, gap.position, gap.bytes, std::move(what));
    else
      report_.note(path_, gap.position, gap.bytes, what + "; nothing in this file says that it was durable");
  }

  Task<void> frame(FileWindow& file, const WalItem& item) {
    const FrameHeader& h = item.header;
    ++report_.counts.frames;
    JsonLine l = line("frame", item.position, item.bytes);
    l.text("type", name_of(h.type))
        .number("type_code", static_cast<int>(h.type))
        .number("flags", h.flags)
        .number("sequence", h.sequence)
        .number("length", h.length);
    l.number("file_sequence", h.file_sequence).number("durable_up_to", h.durable_up_to()).hex32("header_crc", h.header_crc);
    l.hex32("payload_crc", h.payload_crc).hex32("previous_crc", h.previous_crc).flag("payload_good", item.payload_good);
    if (h.partition == kNoPartition)
      l.null("partition");
    else
      l.number("partition", h.partition);
    l.number("base_offset", h.base_offset.value()).number("sub", h.sub).number("segment_base", h.segment_base.value()).number("segment_position", h.position);
    l.number("term", h.term.value()).number("append_time_ms", h.append_time_ms);
    std::uint64_t payload = item.position + kFrameHeaderBytes;
    if (h.type == FrameType::batch) {
      auto header = read_batch_header(co_await file.at(payload, batch_layout::kHeaderBytes), limits::kMessageBytesCeiling);
      if (header && item.payload_good) {
        JsonLine batch;
        add_batch_fields(batch, *header);
        l.raw("batch", batch.finish());
      }
    } else if (h.type != FrameType::remainder && item.payload_good && h.length > 0 && h.length <= kControlPayloadMax) {
      std::vector<std::byte> bytes;
      auto add = [&](Bytes part) { bytes.insert(bytes.end(), part.begin(), part.end()); };
      co_await file.each(payload, h.length, add);
      add_control(l, h.type, bytes);
    }
    say(std::move(l));
    if (!item.payload_good) report_.damage(path_, item.position, item.bytes, fmt::format("frame {}: {}", h.sequence, item.what));
  }

  static void add_hard_state(JsonLine& l, const HardState& state) {
    l.number("vote", state.vote_node.value());
    if (state.vote_directory != decltype(state.vote_directory){}) l.text("vote_directory", hex(state.vote_directory));  // none: no vote
    l.number("suspicion", state.suspicion);
    l.number("floor_term", state.floor_term.value()).number("floor_offset", state.floor.offset.value()).number("floor_sub", state.floor.sub);
  }

  static void add_control(JsonLine& l, FrameType type, Bytes p) {
    if (type == FrameType::hard_state) {
      if (auto state = decode_hard_state(p, {})) add_hard_state(l, *state);
    }
    if (type == FrameType::log_start_entry && p.size() == 8) l.number("first_kept", load_le<std::int64_t>(p.data()));
    if (type == FrameType::members) l.text("members", hex(p));
    if (type == FrameType::partition_create && p.size() >= kPartitionCreateBytes) {
      TopicId topic;
      std::memcpy(topic.bytes.data(), p.data(), topic.bytes.size());
      l.text("topic_id", hex(topic.bytes)).number("partition_index", load_le<std::int32_t>(p.data() + 16));
      if (p.size() > kPartitionCreateBytes) l.text("members", hex(p.subspan(kPartitionCreateBytes)));
    }
    if (type == FrameType::file_prepared && p.size() >= 24) {
      l.number("prepared_sequence", load_le<std::uint64_t>(p.data())).raw("prepared_salt", fmt::format("\"{:016x}\"", load_le<std::uint64_t>(p.data() + 8)));
      l.number("prepared_slot", load_le<std::uint32_t>(p.data() + 16));
    }
    if (type == FrameType::skip_damage) {
      std::string holes = "[";
      for (std::size_t at = 0; at + 16 <= p.size(); at += 16) {
        holes += fmt::format("{}[{},{}]", at == 0 ? "" : ",", load_le<std::int64_t>(p.data() + at), load_le<std::int64_t>(p.data() + at + 8));
      }
      l.raw("holes", holes + "]");
    }
  }

  // --- Segment ---

  Task<Result<void>> segment(FileWindow& file, std::optional<Offset> base) {
    SegmentWalk walk{file, file.size(), base};
    std::uint64_t good_to = 0;
    for (;;) {
      BatchItem item = co_await walk.next();
      if (item.kind == BatchItem::Kind::end) {
        if (!item.what.empty()) {
          report_.damage(path_, item.position, item.bytes, fmt::format("offset {}: {}", item.header.base_offset.value(), item.what));
          good_to = file.size();
        }
        break;
      }
      if (item.kind == BatchItem::Kind::bad) {
        std::uint64_t behind = item.position + item.bytes;
        if (behind >= file.size()) {
          // Nothing follows. Allocated and not yet written: zeros. A batch whose later blocks are not written yet: zeros from
          // a block boundary inside it on.
          std::uint64_t used_to = co_await file.end_of_nonzero(item.position, behind);
          if (used_to == item.position) break;
          auto header = read_batch_header(co_await file.at(item.position, batch_layout::kHeaderBytes), limits::kMessageBytesCeiling);
          bool unfinished =
              header && (!walk.next_offset() || header->base_offset == *walk.next_offset()) && align_up(used_to) < item.position + header->total_bytes();
          if (unfinished) {
            report_.note(path_, item.position, used_to - item.position,
                         fmt::format("offset {}: the batch goes on behind what is written; the WAL has the rest", header->base_offset.value()));
            break;
          }
        }
        report_.damage(path_, item.position, item.bytes, item.what);
        good_to = behind;
        continue;
      }
      ++report_.counts.batches;
      report_.counts.records += static_cast<std::uint64_t>(std::max(item.header.record_count, 0));
      JsonLine l = line("batch", item.position, item.bytes);
      add_batch_fields(l, item.header);
      say(l.flag("crc_good", item.crc_good));
      good_to = item.position + item.bytes;
      if (!item.crc_good) report_.damage(path_, item.position, item.bytes, fmt::format("offset {}: {}", item.header.base_offset.value(), item.what));
    }
    {
      JsonLine l = line("end", good_to, file.size() - std::min(good_to, file.size()));
      if (walk.next_offset()) l.number("next_offset", walk.next_offset()->value());
      say(std::move(l));
    }
    co_return Result<void>{};
  }

  // --- Whole files ---

  /// Reads the file and judges it; when only its checksum is wrong, makes that right in the copy, so that what it says can be
  /// printed all the same.
  template <class Decode>
  Task<Result<bool>> whole(std::size_t bytes_max, std::vector<std::byte>& bytes, std::uint64_t checked_at, Decode decode) {
    TAILRACE_CO_TRY(Slice file, co_await read_whole_file(runtime_, path_, bytes_max));
    bytes.assign(file.bytes().begin(), file.bytes().end());
    auto decoded = decode(Bytes{bytes});
    if (decoded) co_return true;
    if (decoded.error().code == Errc::newer_format) co_return fail(Errc::newer_format, path_);
    report_.damage(path_, 0, bytes.size(), decoded.error().detail);
    std::uint64_t total = checked_at == 0 ? bytes.size() : bytes.size() >= checked_at + 8 ? load_le<std::uint64_t>(bytes.data() + checked_at) : 0;
    if (total < 4 || total > bytes.size()) co_return false;
    store_le(bytes.data() + total - 4, crc32c(Bytes{bytes}.first(static_cast<std::size_t>(total) - 4)));
    co_return decode(Bytes{bytes}).has_value();
  }

  Task<Result<void>> index() {
    std::vector<std::byte> bytes;
    TAILRACE_CO_TRY(bool readable, co_await whole(kIndexFileBytesMax, bytes, 0, [](Bytes b) { return SegmentIndex::decode(b); }));
    if (!readable) co_return Result<void>{};
    auto decoded = SegmentIndex::decode(bytes);
    const SegmentIndex& i = decoded->index;
    JsonLine top = line("index", 0, bytes.size());
    top.flag("sealed", decoded->sealed).number("base_offset", i.base().value()).number("next_offset", i.next().value()).number("covered", i.covered());
    if (i.max_time())
      top.number("max_time_ms", *i.max_time());
    else
      top.null("max_time_ms");
    top.number("first_append_ms", i.first_append_ms()).number("last_append_ms", i.last_append_ms()).number("entries", i.entries().size());
    top.number("snapshot_bytes", decoded->extra.size());
    say(std::move(top));
    std::uint64_t at = kIndexHeaderBytes;
    for (const IndexEntry& e : i.entries()) {
      JsonLine l = line("entry", at, sizeof(IndexEntry));
      l.number("offset", i.base().value() + e.offset_delta).number("segment_position", e.position).number("max_time_delta_ms", e.max_time_delta);
      say(l.hex32("block_crc", e.block_crc));
      at += sizeof(IndexEntry);
    }
    if (!decoded->extra.empty()) producers(decoded->extra, at);
    co_return Result<void>{};
  }

  Task<Result<void>> snapshot() {
    std::vector<std::byte> bytes;
    TAILRACE_CO_TRY(bool readable, co_await whole(kSnapshotBytesMax, bytes, 0, [](Bytes b) { return decode_snapshot(b); }));
    if (!readable) co_return Result<void>{};
    auto decoded = decode_snapshot(bytes);
    say(line("snapshot", 0, bytes.size()).number("offset", decoded->at.value()).number("state_bytes", decoded->state.size()));
    producers(decoded->state, static_cast<std::uint64_t>(decoded->state.data() - bytes.data()));
    co_return Result<void>{};
  }

  /// Spec: docs/storage-format.md, "Snapshot file", producer state.
  void producers(Bytes state, std::uint64_t position) {
    ByteReader in{state};
    auto version = in.le<std::uint16_t>();
    in.le<std::uint16_t>();
    auto last_sweep = in.le<std::int64_t>();
    auto forgot_at = in.le<std::int64_t>();
    auto count = in.le<std::uint32_t>();
    say(line("producers", position, state.size())
            .number("version", version)
            .number("last_sweep_ms", last_sweep)
            .number("forgot_at", forgot_at)
            .number("count", count));
    for (std::uint32_t n = 0; n < count && in.ok(); ++n) {
      JsonLine l = line("producer", position + (state.size() - in.remaining()), 0);
      l.number("producer_id", in.le<std::int64_t>()).number("producer_epoch", in.le<std::int16_t>());
      auto kept = in.le<std::uint8_t>();
      l.flag("forgotten", in.le<std::uint8_t>() != 0);
      std::string batches = "[";
      for (int i = 0; i < kept && in.ok(); ++i) {
        JsonLine one;
        one.number("base_offset", in.le<std::int64_t>()).number("base_sequence", in.le<std::int32_t>());
        one.number("last_offset_delta", in.le<std::int32_t>()).number("append_time_ms", in.le<std::int64_t>());
        batches += (i == 0 ? "" : ",") + one.finish();
      }
      if (in.ok()) say(l.raw("batches", batches + "]"));
    }
    if (!in.ok() || in.remaining() != 0) report_.damage(path_, position, state.size(), "producer state: not as long as its counts say");
  }

  Task<Result<void>> checkpoint() {
    std::vector<std::byte> bytes;
    TAILRACE_CO_TRY(bool readable, co_await whole(kCheckpointBytesMax + limits::kWalBlock, bytes, 8, [](Bytes b) { return decode_checkpoint(b); }));
    if (!readable) co_return Result<void>{};
    auto c = decode_checkpoint(bytes);
    JsonLine top = line("checkpoint", 0, bytes.size());
    top.number("sequence", c->sequence).number("shard", c->shard).flag("clean", c->clean).number("slots", c->slots).text("directory_id", hex(c->directory_id));
    top.number("wal_file_bytes", c->wal_file_bytes).number("oldest_file", c->oldest_file).number("oldest_frame", c->oldest_frame);
    top.number("newest_file", c->newest_file)
        .number("durable_frame", c->durable_frame)
        .number("next_number", c->next_number)
        .number("incarnation", c->incarnation)
        .number("partitions", c->partitions.size());
    say(std::move(top));
    for (const PartitionCheckpoint& p : c->partitions) {
      JsonLine l{"partition"};
      l.number("number", p.number).text("topic_id", hex(p.id.topic.bytes)).number("partition_index", p.id.index.value()).number("term", p.hard.term.value());
      add_hard_state(l, p.hard);
      l.flag("removed", p.removed).number("log_start", p.log_start.value());
      l.number("commit_offset", p.commit.offset.value())
          .number("commit_sub", p.commit.sub)
          .number("flushed_segment", p.flushed_segment.value())
          .number("flushed_position", p.flushed_position);
      l.number("flushed_offset", p.flushed_offset.value()).number("last_append_ms", p.last_append_ms);
      if (p.first_digest) l.number("first_digest", *p.first_digest);
      if (p.flushed_digest) l.number("flushed_digest", *p.flushed_digest);
      l.number("hard_frame", p.hard_frame).number("applied_through", p.applied_through).number("snapshot", p.snapshot.value());
      std::string terms = "[";
      for (const TermEntry& t : p.terms)
        terms += fmt::format("{}{{\"term\":{},\"start\":{},\"sub\":{}}}", terms.size() > 1 ? "," : "", t.term.value(), t.start.value(), t.sub);
      std::string holes = "[";
      for (const Hole& h : p.holes)
        holes += fmt::format("{}{{\"from\":{},\"to\":{},\"accepted\":{}}}", holes.size() > 1 ? "," : "", h.from.value(), h.to.value(), h.accepted);
      std::string marks = "[";
      for (const Mark& m : p.marks) {
        marks += fmt::format("{}{{\"kind\":\"{}\",\"term\":{},\"offset\":{},\"sub\":{},\"first_kept\":{},\"members\":\"{}\"}}", marks.size() > 1 ? "," : "",
                             m.kind == MarkKind::members ? "members" : "log_start", m.term.value(), m.begin.offset.value(), m.begin.sub, m.log_start.value(),
                             hex(Bytes{m.members}));
      }
      l.number("history_offset", p.history.position.offset.value())
          .number("history_sub", p.history.position.sub)
          .number("history_term", p.history.term.value());
      say(l.text("history_members", hex(Bytes{p.history.members})).raw("terms", terms + "]").raw("marks", marks + "]").raw("holes", holes + "]"));
    }
    co_return Result<void>{};
  }

  Task<Result<void>> text() {
    TAILRACE_CO_TRY(Slice file, co_await read_whole_file(runtime_, path_, kTextFileBytesMax));
    std::string_view rest = as_text(file.bytes());
    std::uint64_t at = 0;
    while (!rest.empty()) {
      std::string_view one = rest.substr(0, rest.find('\n'));
      std::size_t step = std::min(rest.size(), one.size() + 1);
      say(line("line", at, step).text("text", one));
      bool plain = std::ranges::all_of(one, [](char c) { return c >= ' ' && c < 0x7f; });
      if (!plain) report_.damage(path_, at, step, "bytes that are no text");
      rest.remove_prefix(step);
      at += step;
    }
    co_return Result<void>{};
  }

  io::Runtime& runtime_;
  OfflineReport& report_;
  std::string path_;
};

}  // namespace

Task<Result<VerifyCounts>> dump_file(io::Runtime& runtime, std::string path, LineSink& sink) {
  OfflineReport report{sink};
  Dump dump{runtime, report, std::move(path)};
  auto done = co_await dump.run();
  co_await report.reads.drain();
  if (!done) co_return std::unexpected(std::move(done.error()));
  co_return report.counts;
}

}  // namespace tailrace::broker::log
