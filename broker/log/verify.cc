#include "log/verify.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>

#include "base/crc32c.h"
#include "log/checkpoint.h"
#include "log/recovery.h"
#include "log/segment_files.h"
#include "log/segment_index.h"
#include "log/verify_lines.h"
#include "log/wal_reader.h"

namespace tailrace::broker::log {
namespace {

/// What the checkpoints say must be there, by partition.
using Known = std::map<PartitionId, PartitionCheckpoint>;

class Verifier {
 public:
  Verifier(io::Runtime& runtime, std::string root, LineSink& sink) : runtime_{runtime}, root_{std::move(root)}, sink_{sink} {}

  Task<Result<VerifyCounts>> run() {
    TAILRACE_CO_TRY(auto lock, co_await runtime_.files.lock(root_));
    TAILRACE_CO_TRY(auto entries, co_await runtime_.files.list(root_));
    bool ours = std::ranges::any_of(entries, [](const auto& e) { return e.name == "node.toml"; });
    if (!ours) co_return fail(Errc::foreign_data_directory, root_ + " has no node.toml");
    for (const io::DirectoryEntry& e : entries) {
      if (e.is_directory && e.name.starts_with("shard-")) TAILRACE_CO_TRY_VOID(co_await shard(root_ + "/" + e.name));
    }
    auto topics = co_await runtime_.files.list(topics_folder(root_));
    if (topics) {
      for (const io::DirectoryEntry& topic : *topics) {
        auto id = parse_topic_id(topic.name);
        if (!id) continue;
        auto partitions = co_await runtime_.files.list(topics_folder(root_) + "/" + topic.name);
        if (!partitions) continue;
        for (const io::DirectoryEntry& p : *partitions) {
          if (!std::ranges::all_of(p.name, [](char c) { return c >= '0' && c <= '9'; }) || p.name.size() > 9) continue;
          co_await partition({*id, PartitionIndex{std::atoi(p.name.c_str())}});
        }
      }
    }
    for (const auto& [id, state] : known_) {
      if (!state.removed && state.flushed_offset > state.log_start && !seen_.contains(id)) {
        damage(partition_folder(root_, id), 0, "the folder is missing");
      }
    }
    co_return counts_;
  }

 private:
  void damage(std::string_view file, std::uint64_t position, std::string_view what) {
    ++counts_.damaged;
    sink_.line(fmt::format(R"({{"file":{},"position":{},"damage":{}}})", json_text(file), position, json_text(what)));
  }
  void report(std::string_view file, std::string_view kind, std::uint64_t bytes, std::string_view more) {
    ++counts_.files;
    counts_.bytes += bytes;
    sink_.line(fmt::format(R"({{"file":{},"kind":"{}","bytes":{}{}}})", json_text(file), kind, bytes, more));
  }

  Task<Result<void>> shard(std::string folder) {
    std::optional<Checkpoint> best;
    int copies = 0;
    for (int copy = 0; copy < 2; ++copy) {
      std::string path = checkpoint_path(folder, copy);
      auto file = co_await read_whole_file(runtime_, path, kCheckpointBytesMax);
      if (!file && file.error().code == Errc::not_found) continue;
      ++copies;
      auto decoded = file ? decode_checkpoint(file->bytes()) : Result<Checkpoint>{std::unexpected(file.error())};
      if (!decoded) {
        damage(path, 0, decoded.error().detail);
        continue;
      }
      report(path, "checkpoint", file->length, fmt::format(R"(,"sequence":{},"partitions":{})", decoded->sequence, decoded->partitions.size()));
      if (!best || decoded->sequence > best->sequence) best = *std::move(decoded);
    }
    if (!best && copies == 0) damage(checkpoint_path(folder, 0), 0, "no checkpoint");
    if (best) {
      for (const PartitionCheckpoint& p : best->partitions) {
        known_[p.id] = p;
        for (const Hole& h : p.holes) {
          if (!h.accepted) damage(partition_folder(root_, p.id), 0, fmt::format("offsets {} to {} are known to be lost", h.from.value(), h.to.value()));
        }
      }
    }
    co_return co_await wal(folder + "/wal", best ? *best : Checkpoint{});
  }

  Task<Result<void>> wal(std::string folder, Checkpoint checkpoint) {
    auto slots = co_await runtime_.files.list(folder);
    if (!slots) co_return Result<void>{};
    std::vector<std::unique_ptr<io::File>> open;
    std::vector<WalFileFound> files;
    std::map<std::uint64_t, std::string> paths;
    for (const io::DirectoryEntry& e : *slots) {
      std::string path = folder + "/" + e.name;
      io::OpenOptions options{.direct = true};
      TAILRACE_CO_TRY(auto file, co_await runtime_.files.open(path, options));
      TAILRACE_CO_TRY(SlotHeader header, co_await read_slot_header(*file));
      if (header.one_copy_bad) damage(path, 0, "one of the two header copies is damaged");
      report(path, "wal", e.size, header.valid ? fmt::format(R"(,"sequence":{})", header.header.sequence) : std::string{R"(,"unused":true)"});
      if (header.valid && header.header.sequence >= checkpoint.oldest_file) {
        files.push_back({header.header, file.get()});
        paths[header.header.sequence] = path;
      }
      open.push_back(std::move(file));
    }
    std::ranges::sort(files, {}, [](const WalFileFound& f) { return f.header.sequence; });
    if (!files.empty() && checkpoint.sequence > 0 && files.front().header.sequence > checkpoint.oldest_file) {
      damage(folder, 0, fmt::format("file {} is missing", checkpoint.oldest_file));
    }
    WalScanner scanner{runtime_, checkpoint.durable_frame, checkpoint.oldest_frame,
                       [&](ScannedFrame&&) -> Result<void> { return {}; },
                       [&](const BadPlace& bad) {
                         damage(paths.contains(bad.file) ? paths[bad.file] : folder, bad.position,
                                fmt::format("frames {} to {} were durable and are damaged", bad.first_frame, bad.next_frame));
                       }};
    TAILRACE_CO_TRY_VOID(co_await scanner.scan(std::move(files)));
    ScanResult result = scanner.finish();
    counts_.frames += result.frames;
    if (result.padding_repaired > 0) damage(folder, 0, fmt::format("{} damaged places that hold nothing", result.padding_repaired));
    if (result.torn) {
      ++counts_.torn;
      sink_.line(fmt::format(R"({{"file":{},"torn_at":{},"frames_behind":{}}})", json_text(folder), result.end_position, result.cut_frames));
    }
    co_return Result<void>{};
  }

  Task<void> partition(PartitionId id) {
    seen_.insert({id, true});
    ++counts_.partitions;
    std::string folder = partition_folder(root_, id);
    auto files = co_await runtime_.files.list(folder);
    if (!files) {
      damage(folder, 0, files.error().detail);
      co_return;
    }
    auto found = known_.find(id);
    const PartitionCheckpoint* state = found == known_.end() ? nullptr : &found->second;
    std::vector<std::pair<Offset, std::uint64_t>> segments;
    for (const io::DirectoryEntry& e : *files) {
      if (auto base = parse_segment_name(e.name, "log")) segments.emplace_back(*base, e.size);
    }
    std::ranges::sort(segments);
    std::optional<Offset> expected;
    for (std::size_t i = 0; i < segments.size(); ++i) {
      auto [base, size] = segments[i];
      bool last = state ? base == state->flushed_segment : i + 1 == segments.size();
      if (state && base > state->flushed_segment) break;  // written behind the checkpoint: the WAL defines it
      if (expected && *expected != base) damage(segment_path(folder, base, "log"), 0, fmt::format("offset {} comes next, and no segment begins there", expected->value()));
      std::uint64_t end = last && state ? state->flushed_position : size;
      expected = co_await segment(folder, base, end, last);
    }
    bool has_active = state && std::ranges::any_of(segments, [&](const auto& s) { return s.first == state->flushed_segment; });
    if (state && !state->removed && state->flushed_position > 0 && !has_active) {
      damage(segment_path(folder, state->flushed_segment, "log"), 0, "the segment is missing");
    }
    for (const io::DirectoryEntry& e : *files) {
      if (auto base = parse_segment_name(e.name, "snap")) {
        std::string path = folder + "/" + e.name;
        auto file = co_await read_whole_file(runtime_, path, kSnapshotBytesMax);
        auto decoded = file ? decode_snapshot(file->bytes()) : Result<DecodedSnapshot>{std::unexpected(file.error())};
        if (!decoded || decoded->at != *base) damage(path, 0, decoded ? "another offset than its name" : decoded.error().detail);
        else report(path, "snapshot", file->length, "");
      }
    }
  }

  /// Answers the offset that follows; none where that cannot be said.
  Task<std::optional<Offset>> segment(std::string folder, Offset base, std::uint64_t end, bool active) {
    std::string path = segment_path(folder, base, "log");
    auto file = co_await read_whole_file(runtime_, path, std::size_t{1} << 31);
    if (!file) {
      damage(path, 0, file.error().detail);
      co_return std::nullopt;
    }
    Bytes bytes = file->bytes().first(static_cast<std::size_t>(std::min<std::uint64_t>(end, file->length)));
    SegmentIndex computed{base};
    Offset expected = base;
    std::size_t at = 0;
    std::uint64_t batches = 0, records = 0;
    bool good = true;
    while (at + batch_layout::kHeaderBytes <= bytes.size()) {
      auto header = read_batch_header(bytes.subspan(at), limits::kMessageBytesCeiling);
      if (!header || header->base_offset != expected || header->last_offset_delta < 0) {
        damage(path, at, header ? fmt::format("offset {} where {} belongs", header->base_offset.value(), expected.value()) : header.error().detail);
        good = false;
        break;
      }
      if (header->total_bytes() > bytes.size() - at) break;
      Bytes batch = bytes.subspan(at, header->total_bytes());
      if (batch_crc(batch) != header->crc) {
        damage(path, at, fmt::format("offset {}: the batch does not match its checksum", expected.value()));
        good = false;
      }
      if (good) computed.add(*header, batch, 0);
      ++batches;
      records += static_cast<std::uint64_t>(std::max(header->record_count, 0));
      expected = header->next_offset();
      at += header->total_bytes();
    }
    if (good && !active && at != bytes.size()) {
      damage(path, at, "the segment ends inside a batch");
      good = false;
    }
    counts_.batches += batches;
    counts_.records += records;
    report(path, "segment", file->length, fmt::format(R"(,"batches":{},"records":{},"next_offset":{})", batches, records, expected.value()));
    if (!active) co_await index(segment_path(folder, base, "idx"), good ? &computed : nullptr);
    if (!good) co_return std::nullopt;
    co_return expected;
  }

  Task<void> index(std::string path, const SegmentIndex* computed) {
    auto file = co_await read_whole_file(runtime_, path, kIndexFileBytesMax);
    if (!file && file.error().code == Errc::not_found) co_return;  // derived: made anew when needed
    auto decoded = file ? SegmentIndex::decode(file->bytes()) : Result<SegmentIndex::Decoded>{std::unexpected(file.error())};
    if (!decoded) {
      damage(path, 0, decoded.error().detail);
      co_return;
    }
    report(path, "index", file->length, fmt::format(R"(,"entries":{})", decoded->index.entries().size()));
    if (computed && decoded->sealed && decoded->index.entries() != computed->entries()) damage(path, 0, "it does not match its segment");
  }

  io::Runtime& runtime_;
  std::string root_;
  LineSink& sink_;
  VerifyCounts counts_{};
  Known known_{};
  std::map<PartitionId, bool> seen_{};
};

}  // namespace

Task<Result<VerifyCounts>> verify_directory(io::Runtime& runtime, std::string path, LineSink& sink) {
  Verifier verifier{runtime, std::move(path), sink};
  co_return co_await verifier.run();
}

}  // namespace tailrace::broker::log
