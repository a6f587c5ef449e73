#pragma once
/// The batches of one segment, one after the other, for the offline tools: in bounded memory and past damage.
#include <optional>
#include <string>

#include "log/file_window.h"
#include "model/record_batch.h"

namespace tailrace::broker::log {

struct BatchItem {
  enum class Kind : std::uint8_t {
    batch,  // `header` stands where it should; its covered bytes may not add up
    bad,    // no batch where one belongs; the next item is the first good batch behind it, or the end
    end,    // of what was asked for, or nothing whole follows
  };
  Kind kind = Kind::end;
  BatchHeader header{};
  bool crc_good = true;
  std::uint64_t position = 0;
  std::uint64_t bytes = 0;
  std::uint32_t bytes_crc = 0;  // of all bytes of a batch, `previous_crc` before them
  std::string what{};
};

class SegmentWalk {
 public:
  /// Batches of [0, end). `first`: the offset the first one has.
  SegmentWalk(FileWindow& file, std::uint64_t end, std::optional<Offset> first) : file_{file}, end_{std::min(end, file.size())}, next_{first} {}

  /// `previous_crc`: what the block's bytes before this batch add up to (see BatchItem::bytes_crc).
  Task<BatchItem> next(std::uint32_t previous_crc = 0);
  /// The offset that would come next; none before the first batch.
  [[nodiscard]] std::optional<Offset> next_offset() const { return next_; }
  [[nodiscard]] std::uint64_t position() const { return at_; }
  /// Everything from here on belongs to somebody else: the next item is the end.
  void stop() { end_ = at_; }

 private:
  struct Found {
    BatchHeader header{};
    bool crc_good = false;
    std::uint32_t bytes_crc = 0;
  };
  Task<Result<BatchHeader>> header_at(std::uint64_t position);
  Task<Found> check(BatchHeader header, std::uint64_t position, std::uint32_t previous_crc);
  Task<void> go_on_at(std::uint64_t position);
  Task<std::optional<std::uint64_t>> find_batch(std::uint64_t from);

  FileWindow& file_;
  std::uint64_t end_;
  std::optional<Offset> next_;
  LeaderEpoch epoch_{-1};
  std::uint64_t at_ = 0;
};

}  // namespace tailrace::broker::log
