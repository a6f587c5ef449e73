#include "log/wal_stream.h"

#include <fmt/format.h>

#include <algorithm>

#include "log/segment_files.h"
#include "log/wal_format.h"

namespace tailrace::broker::log {

void WalStream::ask() {
  while (chunks_.size() <= kDepth && next_part_ < parts_.size()) {
    const Part& part = parts_[next_part_];
    std::uint64_t from = std::max(next_position_, part.from);
    if (from >= part.to) {
      ++next_part_;
      next_position_ = 0;
      continue;
    }
    auto chunk = std::make_unique<Chunk>(runtime_.executor);
    chunk->part = next_part_;
    chunk->from = from;
    chunk->to = std::min<std::uint64_t>(part.to, from + kChunkBytes);
    next_position_ = chunk->to;
    if (spare_.empty()) {
      chunk->bytes = Buffer::allocate(kChunkBytes, io::kDirectAlignment);
    } else {
      chunk->bytes = std::move(spare_.back());
      spare_.pop_back();
    }
    chunks_.push_back(std::move(chunk));
    reads_.spawn(read(*chunks_.back()));
  }
}

Task<void> WalStream::read(Chunk& chunk) {
  const Part& part = parts_[chunk.part];
  MutableBytes into = chunk.bytes.bytes().first(align_up(chunk.to - chunk.from));
  auto got = co_await io::read_up_to(*part.file, into, chunk.from);
  if (got) {
    std::memset(into.data() + *got, 0, into.size() - *got);
  } else {
    for (std::size_t block = 0; block < into.size() && !chunk.error; block += limits::kWalBlock) {
      MutableBytes one = into.subspan(block, limits::kWalBlock);
      auto again = co_await io::read_up_to(*part.file, one, chunk.from + block);
      if (again) std::memset(one.data() + *again, 0, one.size() - *again);
      else chunk.error = Error{again.error().code, fmt::format("WAL file {} position {}: {}", part.sequence, chunk.from + block, again.error().detail)};
    }
  }
  chunk.loading = false;
  chunk.loaded.notify_all();
}

Task<Result<void>> WalStream::load(std::size_t part, std::uint64_t position) {
  ask();
  while (!chunks_.empty()) {
    Chunk& front = *chunks_.front();
    while (front.loading) co_await front.loaded.wait();
    if (front.part == part && position >= front.from && position < front.to) {
      if (front.error) co_return std::unexpected(*front.error);
      co_return Result<void>{};
    }
    spare_.push_back(std::move(front.bytes));
    chunks_.pop_front();
    ask();
  }
  co_return fail(Errc::internal, "behind the end of the WAL");
}

Task<void> WalStream::close() { co_await reads_.drain(); }

}  // namespace tailrace::broker::log
