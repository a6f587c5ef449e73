#pragma once
/// Reads the WAL of one shard front to back: tells frames, holes, torn tails and rot apart.
/// Spec     docs/storage-format.md, "Recovery".
///
/// A bad place is *proven* when anything shows that frames behind it were durable: a later valid frame's durable-up-to, a
/// checkpoint, a successor's header written by an earlier recovery. Proven: damage; frames behind it count. Not proven:
/// a torn tail; neither it nor anything behind it was acknowledged, and all of it is dropped.
///
/// Memory   the buffers of WalStream, and the payloads that the caller wants to keep. Every payload's checksum is computed.
#include <array>
#include <functional>
#include <optional>
#include <vector>

#include "base/buffer.h"
#include "io/runtime.h"
#include "log/wal_format.h"
#include "log/wal_stream.h"
#include "model/record_batch.h"

namespace tailrace::broker::log {

/// One file with a valid header.
struct WalFileFound {
  WalFileHeader header{};
  io::File* file = nullptr;
};

struct ScannedFrame {
  FrameHeader header{};
  Slice payload{};             // its own copy, if Keep said so; control frames always
  std::array<std::byte, batch_layout::kHeaderBytes> front{};  // of the payload, as far as it goes
  std::uint64_t file = 0;      // file sequence
  std::uint64_t position = 0;  // of the frame in the file
};

struct BadPlace {
  std::uint64_t file = 0;
  std::uint64_t position = 0;
  std::uint64_t first_frame = 0;            // first sequence that is missing or broken
  std::uint64_t next_frame = 0;             // first valid one behind it; 0: none
  std::optional<FrameHeader> header{};      // only the payload is bad: the partition is known
};

struct ScanResult {
  std::uint64_t frames = 0;
  std::uint64_t bytes = 0;
  std::uint64_t next_frame = 1;             // the sequence that follows
  std::uint32_t previous_header_crc = 0;
  std::uint64_t end_file = 0;               // where the valid log ends
  std::uint64_t end_position = 0;
  std::vector<BadPlace> damage{};           // proven, in order
  bool torn = false;                        // an unproven bad place was cut
  std::uint64_t cut_frames = 0;             // valid frames dropped behind it
  std::vector<std::pair<std::uint32_t, Offset>> cut_batches{};  // partition number, offset: readable in the cut (bounded)
  std::uint64_t padding_repaired = 0;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> file_starts{};  // file sequence, its first valid frame
};

class WalScanner {
 public:
  using Sink = std::move_only_function<Result<void>(ScannedFrame&&)>;
  /// Called, in order, for a proven bad place before the first frame behind it.
  using DamageSink = std::move_only_function<void(const BadPlace&)>;

  /// Whether the payload of this batch or remainder is wanted.
  using Keep = std::move_only_function<bool(const FrameHeader&)>;

  /// `proven_frame`: frames up to it are known durable (checkpoint). `first_frame`: the first of the first file; 0: take
  /// what comes (offline tools).
  WalScanner(io::Runtime& runtime, std::uint64_t proven_frame, std::uint64_t first_frame, Keep keep, Sink sink, DamageSink damage)
      : runtime_{runtime}, proven_{proven_frame}, keep_{std::move(keep)}, sink_{std::move(sink)}, damage_sink_{std::move(damage)},
        expected_{first_frame} {}

  /// Files ascending by sequence. Errors: io_error, newer_format.
  Task<Result<void>> scan(std::vector<WalFileFound> files);
  /// What is still undecided is a torn tail.
  [[nodiscard]] ScanResult finish();

 private:
  /// `end`: of the frames in it.
  Task<Result<void>> scan_file(WalStream& stream, std::size_t part, const WalFileHeader& header, std::uint64_t end);
  Result<void> accept(ScannedFrame&& frame);
  void note_gap(std::uint64_t file, std::uint64_t position, std::uint64_t next);
  Result<void> release();
  Result<void> deliver(ScannedFrame&& frame);

  io::Runtime& runtime_;
  std::uint64_t proven_;
  Keep keep_;
  Sink sink_;
  DamageSink damage_sink_;
  std::uint64_t expected_;     // 0: nothing seen yet
  ScanResult result_{};
  std::uint32_t chain_ = 0;
  std::optional<BadPlace> open_bad_{};      // met, its end not yet known
  std::vector<BadPlace> unproven_{};
  std::vector<ScannedFrame> held_{};        // frames behind the first unproven bad place
};

}  // namespace tailrace::broker::log
