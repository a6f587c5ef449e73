#pragma once
/// The fixed slots of one shard's WAL: made and zero-filled off the hot path, given out in sequence, recycled in place.
/// Spec     docs/storage-format.md, "WAL file".
///
///   absent -> filling -> free -> preparing -> prepared -> active -> full -> free ...
///
/// A prepared file has its header on stable storage, both copies, before the first frame goes into it.
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "io/runtime.h"
#include "log/recovered.h"
#include "log/wal_format.h"

namespace tailrace::broker::log {

struct WalSlot {
  enum class State : std::uint8_t { filling, free, preparing, prepared, active, full };
  std::uint32_t slot = 0;
  State state = State::filling;
  bool filled = false;                 // all blocks written once, at the size that its header says
  std::unique_ptr<io::File> file{};
  WalFileHeader header{};              // of the current use; sequence 0: none
};

struct WalFilesOptions {
  std::string folder{};                // of the slots
  std::uint32_t shard = 0;
  std::array<std::uint8_t, 16> directory_id{};
  std::uint64_t file_bytes = 0;
  int files = 0;                       // slots that take turns; one more is kept back for a start
};

/// Shard    one. Nothing here is on the append path but activate().
class WalFiles {
 public:
  WalFiles(io::Runtime& runtime, WalFilesOptions options) : runtime_{runtime}, options_{std::move(options)} {}

  /// Recovery found this slot; `live`: its frames are still needed.
  void adopt(WalSlot slot, bool live);

  [[nodiscard]] WalSlot* active() { return active_; }
  [[nodiscard]] WalSlot* prepared() { return prepared_; }
  [[nodiscard]] std::uint64_t data_end(const WalSlot& slot) const { return slot.header.file_bytes - limits::kWalBlock; }
  /// Slots whose file is there.
  [[nodiscard]] std::size_t slot_count() const;
  [[nodiscard]] const WalFilesOptions& options() const { return options_; }
  [[nodiscard]] std::uint64_t next_sequence() const { return next_sequence_; }
  void set_next_sequence(std::uint64_t sequence) { next_sequence_ = sequence; }

  /// Where frames of this file are read, while it is in use.
  [[nodiscard]] WalSource source(std::uint64_t sequence) const;

  /// Sequence of the oldest file that still holds frames (full or active); 0: none.
  [[nodiscard]] std::uint64_t oldest_in_use() const;
  [[nodiscard]] std::size_t full_count() const;
  /// True when prepare() would find a slot without recycling.
  [[nodiscard]] bool can_prepare() const;
  /// Filled, and used only by a start that finds all others needed and no space to write out what they hold. Answers at once
  /// when it is there, or when not all others are. Errors: storage_full, io_error; to be tried again.
  Task<Result<void>> keep_one_back();

  struct Chain {  // where recovery closed the predecessor; zeros in ordinary rotation
    std::uint64_t previous_end = 0;
    std::uint64_t first_frame = 0;
    std::uint32_t previous_header_crc = 0;
  };
  /// Takes a free slot, or makes one, and writes the header of the next sequence. One call at a time. `kept_back_too`:
  /// a start. Errors: storage_full (a new slot does not fit), no_credit (every slot is in use), io_error.
  Task<Result<void>> prepare(Chain chain, bool kept_back_too = false);
  /// The prepared file becomes the active one; the active one becomes full.
  void activate();
  /// Every file before `sequence` is free again.
  std::size_t free_before(std::uint64_t sequence);

 private:
  Task<Result<void>> fill(WalSlot& slot);
  Task<Result<void>> write_zeros(WalSlot& slot);
  WalSlot* slot_to_use(bool kept_back_too);
  [[nodiscard]] std::size_t free_count() const;

  io::Runtime& runtime_;
  WalFilesOptions options_;
  std::vector<std::unique_ptr<WalSlot>> slots_;
  WalSlot* active_ = nullptr;
  WalSlot* prepared_ = nullptr;
  std::uint64_t next_sequence_ = 1;
};

[[nodiscard]] std::string wal_slot_path(const std::string& folder, std::uint32_t slot);

}  // namespace tailrace::broker::log
