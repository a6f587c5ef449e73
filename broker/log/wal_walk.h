#pragma once
/// The frames of one WAL file, one after the other, for the offline tools: in bounded memory, past damage, deciding nothing.
/// Recovery's own reader is WalScanner; this one is written apart from it on purpose, and a test compares the two.
#include <deque>
#include <string>

#include "log/file_window.h"
#include "log/wal_format.h"

namespace tailrace::broker::log {

/// What goes on from one file to the next.
struct WalChain {
  std::uint64_t next_frame = 0;      // 0: whatever comes first
  std::uint32_t previous_crc = 0;    // 0: not known
};

struct WalItem {
  enum class Kind : std::uint8_t {
    frame,  // `header` is good; its payload may not be
    gap,    // frames [first_frame, next_frame) are not there; equal: bytes between commits that should be zero are not
    end,    // no valid frame follows; `what` is set when something that looks like a part of the log does
  };
  Kind kind = Kind::end;
  FrameHeader header{};
  bool payload_good = true;
  std::uint64_t position = 0;
  std::uint64_t bytes = 0;
  std::uint64_t first_frame = 0;
  std::uint64_t next_frame = 0;
  std::string what{};
};

class WalWalk {
 public:
  /// `known_end`: the next file says that this one ends there; 0: it does not.
  WalWalk(FileWindow& file, const WalFileHeader& header, std::uint64_t known_end, WalChain& chain);
  /// After the end, the end again.
  Task<WalItem> next();

 private:
  Task<void> look_at_tail(std::uint64_t position);

  FileWindow& file_;
  WalFileHeader header_;
  WalChain& chain_;
  std::uint64_t at_ = kWalDataStart;
  std::uint64_t end_;
  std::uint64_t clean_end_ = kWalDataStart;  // behind the last valid frame
  bool resync_ = false;                      // only block boundaries may hold a frame
  std::deque<WalItem> ready_{};
  std::uint64_t bad_at_ = 0;                 // first place behind clean_end_ that is neither a frame nor padding; 0: none
  bool in_commit_ = false;                   // that place lies inside a commit's last block
  std::string bad_what_{};
};

struct WalHeaders {
  bool first_good = false;
  bool last_good = false;
  bool unused = false;        // both blocks are zero, or not there yet: a slot never used, its filling perhaps cut off by a crash
  WalFileHeader header{};     // the newer of the good ones
  bool differ = false;
  std::string what{};         // of a copy that is bad
};
/// Errors: newer_format.
Task<Result<WalHeaders>> read_wal_headers(FileWindow& file);

}  // namespace tailrace::broker::log
