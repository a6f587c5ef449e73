// Prints any file of ours, one JSON object a line, told by its content.
#include <fmt/format.h>

#include <algorithm>

#include "base/crc32c.h"
#include "log/checkpoint.h"
#include "log/segment_files.h"
#include "log/segment_index.h"
#include "log/verify.h"
#include "log/verify_lines.h"
#include "log/wal_format.h"

namespace tailrace::broker::log {

std::string json_text(std::string_view text) {
  std::string out = "\"";
  for (char c : text) {
    auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') out += '\\', out += c;
    else if (byte < 0x20) out += fmt::format("\\u{:04x}", byte);
    else out += c;
  }
  return out + '"';
}

namespace {

class Dumper {
 public:
  explicit Dumper(LineSink& sink) : sink_{sink} {}
  VerifyCounts counts{};

  void wal(Bytes bytes) {
    std::optional<WalFileHeader> header;
    for (std::size_t at : {std::size_t{0}, bytes.size() >= limits::kWalBlock ? bytes.size() - limits::kWalBlock : std::size_t{0}}) {
      auto decoded = decode_wal_file_header(bytes.subspan(at));
      if (!decoded) {
        damage(at, decoded.error().detail);
        continue;
      }
      if (header) continue;
      header = *decoded;
      sink_.line(fmt::format(R"({{"position":{},"kind":"wal_file","shard":{},"slot":{},"sequence":{},"file_bytes":{},"previous_end":{},"first_frame":{}}})", at,
                             header->shard, header->slot, header->sequence, header->file_bytes, header->previous_end, header->first_frame));
    }
    if (!header) return;
    std::size_t end = static_cast<std::size_t>(std::min<std::uint64_t>(bytes.size(), header->file_bytes) - limits::kWalBlock);
    std::uint64_t expected = 0;
    bool tail = false;  // behind the last frame: other uses' bytes, not damage
    std::size_t gap_at = 0;
    for (std::size_t at = kWalDataStart; at + kFrameHeaderBytes <= end;) {
      Bytes rest = bytes.subspan(at, end - at);
      auto frame = may_be_frame(rest) ? decode_frame_header(rest, header->salt) : fail(Errc::corrupt);
      if (!frame || frame->stored_bytes() > rest.size() || frame->sequence < expected) {
        if (!tail) gap_at = at;
        tail = true;
        at = static_cast<std::size_t>(align_down(at) + limits::kWalBlock);
        continue;
      }
      if (expected != 0 && frame->sequence != expected) damage(gap_at, fmt::format("frames {} to {} are missing", expected, frame->sequence));
      tail = false;
      Bytes payload = rest.subspan(kFrameHeaderBytes, frame->length);
      bool whole = crc32c(payload) == frame->payload_crc;
      sink_.line(fmt::format(R"({{"position":{},"kind":"frame","type":"{}","sequence":{},"durable_up_to":{},"partition":{},"base_offset":{},"segment":{},"segment_position":{},"term":{},"sub":{},"append_time_ms":{},"bytes":{}}})",
                             at, name_of(frame->type), frame->sequence, frame->durable_up_to(), static_cast<std::int64_t>(static_cast<std::int32_t>(frame->partition)),
                             frame->base_offset.value(), frame->segment_base.value(), frame->position, frame->term.value(), frame->sub, frame->append_time_ms, frame->length));
      ++counts.frames;
      if (!whole) damage(at, "the payload does not match its checksum");
      expected = frame->sequence + 1;
      at += frame->stored_bytes();
    }
  }

  void checkpoint(Bytes bytes) {
    auto c = decode_checkpoint(bytes);
    if (!c) return damage(0, c.error().detail);
    sink_.line(fmt::format(R"({{"kind":"checkpoint","sequence":{},"shard":{},"slots":{},"oldest_file":{},"oldest_frame":{},"newest_file":{},"durable_frame":{},"clean":{},"partitions":{}}})",
                           c->sequence, c->shard, c->slots, c->oldest_file, c->oldest_frame, c->newest_file, c->durable_frame, c->clean, c->partitions.size()));
    for (const PartitionCheckpoint& p : c->partitions) {
      ++counts.partitions;
      sink_.line(fmt::format(R"({{"kind":"partition","number":{},"topic":"{}","index":{},"term":{},"vote":{},"log_start":{},"high_watermark":{},"flushed_segment":{},"flushed_position":{},"flushed_offset":{},"applied_through":{},"snapshot":{},"removed":{},"terms":{},"holes":{}}})",
                             p.number, p.id.topic.to_string(), p.id.index.value(), p.term.value(), p.vote.value(), p.log_start.value(), p.high_watermark.value(),
                             p.flushed_segment.value(), p.flushed_position, p.flushed_offset.value(), p.applied_through, p.snapshot.value(), p.removed, p.terms.size(), p.holes.size()));
    }
  }

  void index(Bytes bytes) {
    auto decoded = SegmentIndex::decode(bytes);
    if (!decoded) return damage(0, decoded.error().detail);
    const SegmentIndex& i = decoded->index;
    sink_.line(fmt::format(R"({{"kind":"index","base":{},"next":{},"covered":{},"sealed":{},"first_append_ms":{},"last_append_ms":{},"state_bytes":{}}})", i.base().value(),
                           i.next().value(), i.covered(), decoded->sealed, i.first_append_ms(), i.last_append_ms(), decoded->extra.size()));
    for (const IndexEntry& e : i.entries()) {
      sink_.line(fmt::format(R"({{"kind":"entry","offset":{},"position":{},"max_time_delta_ms":{},"block_crc":"{:08x}"}})", i.base().value() + e.offset_delta, e.position,
                             e.max_time_delta, e.block_crc));
    }
  }

  void snapshot(Bytes bytes) {
    auto decoded = decode_snapshot(bytes);
    if (!decoded) return damage(0, decoded.error().detail);
    sink_.line(fmt::format(R"({{"kind":"snapshot","offset":{},"state_bytes":{}}})", decoded->at.value(), decoded->state.size()));
  }

  void segment(Bytes bytes) {
    for (std::size_t at = 0; at < bytes.size();) {
      Bytes rest = bytes.subspan(at);
      if (std::ranges::all_of(rest.first(std::min(rest.size(), batch_layout::kHeaderBytes)), [](std::byte b) { return b == std::byte{0}; })) {
        sink_.line(fmt::format(R"({{"position":{},"kind":"allocated","bytes":{}}})", at, rest.size()));
        return;
      }
      auto header = read_batch_header(rest, limits::kMessageBytesCeiling);
      if (!header) return damage(at, header.error().detail);
      if (header->total_bytes() > rest.size()) return damage(at, "the file ends inside a batch");
      bool whole = batch_crc(rest.first(header->total_bytes())) == header->crc;
      sink_.line(fmt::format(R"({{"position":{},"kind":"batch","base_offset":{},"last_offset":{},"records":{},"leader_epoch":{},"compression":{},"max_timestamp":{},"producer_id":{},"producer_epoch":{},"base_sequence":{},"bytes":{}}})",
                             at, header->base_offset.value(), header->last_offset().value(), header->record_count, header->leader_epoch.value(),
                             static_cast<int>(header->compression()), header->max_timestamp, header->producer_id.value(), header->producer_epoch.value(),
                             header->base_sequence, header->total_bytes()));
      ++counts.batches;
      counts.records += static_cast<std::uint64_t>(std::max(header->record_count, 0));
      if (!whole) damage(at, "the batch does not match its checksum");
      at += header->total_bytes();
    }
  }

 private:
  void damage(std::size_t at, std::string_view what) {
    ++counts.damaged;
    sink_.line(fmt::format(R"({{"position":{},"damage":{}}})", at, json_text(what)));
  }
  LineSink& sink_;
};

}  // namespace

Task<Result<VerifyCounts>> dump_file(io::Runtime& runtime, std::string path, LineSink& sink) {
  TAILRACE_CO_TRY(Slice file, co_await read_whole_file(runtime, path, std::size_t{1} << 31));
  Bytes bytes = file.bytes();
  Dumper dumper{sink};
  dumper.counts.files = 1;
  dumper.counts.bytes = bytes.size();
  std::string_view magic = as_text(bytes.first(std::min<std::size_t>(bytes.size(), 4)));
  std::string_view name = path;
  // By name where there is one: a damaged file has no magic to go by.
  if (name.ends_with(".idx") || magic == "TRIX") dumper.index(bytes);
  else if (name.ends_with(".snap") || magic == "TRSN") dumper.snapshot(bytes);
  else if (name.find("checkpoint-") != std::string_view::npos || magic == "TRCP") dumper.checkpoint(bytes);
  else if (magic == "TRWL" || (name.ends_with(".log") && name.find("/wal/") != std::string_view::npos)) dumper.wal(bytes);
  else if (name.ends_with(".log")) dumper.segment(bytes);
  else co_return fail(Errc::invalid_argument, path + " is no WAL, checkpoint, segment, index or snapshot file");
  co_return dumper.counts;
}

}  // namespace tailrace::broker::log
