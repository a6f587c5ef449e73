#pragma once
/// WAL files read front to back, one after the other, through a few buffers: several reads in flight, nothing copied, memory
/// bounded however long the log is.
///
/// A part of a file that the file does not have reads as zeros. A read that fails is tried again block by block; a block that
/// cannot be read then is an error.
#include <deque>
#include <optional>
#include <vector>

#include "base/buffer.h"
#include "base/notifier.h"
#include "io/runtime.h"
#include "model/limits.h"

namespace tailrace::broker::log {

class WalStream {
 public:
  static constexpr std::size_t kChunkBytes = limits::kMiB;
  static constexpr std::size_t kDepth = 8;  // chunks in flight; the next file's are asked for while the last one's are checked

  struct Part {
    io::File* file = nullptr;
    std::uint64_t sequence = 0;  // for errors
    std::uint64_t from = 0;      // a block boundary
    std::uint64_t to = 0;
  };

  WalStream(io::Runtime& runtime, std::vector<Part> parts) : runtime_{runtime}, parts_{std::move(parts)} {}

  /// The bytes at hand from `position` of part `part` on; empty: load() first. Valid until the next load().
  [[nodiscard]] Bytes at(std::size_t part, std::uint64_t position) const {
    if (chunks_.empty()) return {};
    const Chunk& c = *chunks_.front();
    if (c.loading || c.part != part || position < c.from || position >= c.to) return {};
    return {c.bytes.data() + (position - c.from), static_cast<std::size_t>(c.to - position)};
  }
  /// Forward only. Errors: io_error.
  Task<Result<void>> load(std::size_t part, std::uint64_t position);
  /// Waits for reads in flight; before destruction.
  Task<void> close();

 private:
  struct Chunk {
    explicit Chunk(Executor& executor) : loaded{executor} {}
    std::size_t part = 0;
    std::uint64_t from = 0;
    std::uint64_t to = 0;
    Buffer bytes{};
    bool loading = true;
    std::optional<Error> error{};
    Notifier loaded;
  };

  void ask();
  Task<void> read(Chunk& chunk);

  io::Runtime& runtime_;
  std::vector<Part> parts_;
  std::size_t next_part_ = 0;        // the next chunk to ask for
  std::uint64_t next_position_ = 0;  // in it; 0: from its beginning
  std::deque<std::unique_ptr<Chunk>> chunks_{};
  std::vector<Buffer> spare_{};
  TaskScope reads_{};
};

}  // namespace tailrace::broker::log
