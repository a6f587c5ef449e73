#include "log/file_window.h"

namespace tailrace::broker::log {

namespace {

constexpr std::uint64_t kChunkBytes = limits::kMiB;

}  // namespace

Task<Result<FileWindow>> FileWindow::open(io::Runtime& runtime, TaskScope& reads, std::string path) {
  io::OpenOptions options{.direct = true};  // the page cache may hold what the disk does not
  TAILRACE_CO_TRY(auto file, co_await runtime.files.open(path, options));
  TAILRACE_CO_TRY(std::uint64_t size, file->size());
  co_return FileWindow{runtime, reads, std::move(path), std::shared_ptr<io::File>{std::move(file)}, size};
}

Task<void> FileWindow::fetch(std::shared_ptr<io::File> file, std::shared_ptr<Chunk> chunk) {
  auto got = co_await io::read_up_to(*file, chunk->bytes.bytes(), chunk->from);
  if (got) std::memset(chunk->bytes.data() + *got, 0, chunk->bytes.bytes().size() - *got);  // cut while we read: the size says there was more
  chunk->refused = !got;
  chunk->loading = false;
  chunk->loaded.notify_all();
}

/// Chunks from the one at `first` on are asked for, and those before it given up.
void FileWindow::ask(std::uint64_t first) {
  bool in_order = !chunks_.empty() && first >= chunks_.front()->from && first <= chunks_.back()->from + kChunkBytes;
  depth_ = in_order ? std::min(depth_ * 2, kDepth) : 1;
  while (!chunks_.empty() && (!in_order || chunks_.front()->from < first)) {
    if (!chunks_.front()->loading && chunks_.front()->length == kChunkBytes) spare_.push_back(std::move(chunks_.front()->bytes));
    chunks_.pop_front();
  }
  for (std::uint64_t from = chunks_.empty() ? first : chunks_.back()->from + kChunkBytes; from < size_ && chunks_.size() < depth_ + 1; from += kChunkBytes) {
    auto chunk = std::make_shared<Chunk>(*executor_);
    chunk->from = from;
    chunk->length = static_cast<std::size_t>(std::min(kChunkBytes, size_ - from));
    if (chunk->length == kChunkBytes && !spare_.empty()) {
      chunk->bytes = std::move(spare_.back());
      spare_.pop_back();
    } else {
      std::size_t aligned = (chunk->length + io::kDirectAlignment - 1) / io::kDirectAlignment * io::kDirectAlignment;
      chunk->bytes = Buffer::allocate(aligned, io::kDirectAlignment);
    }
    chunks_.push_back(chunk);
    reads_->spawn(fetch(file_, std::move(chunk)));
  }
}

Task<void> FileWindow::load(std::uint64_t position) {
  if (length_ == 0) buffer_ = Buffer::allocate(kBufferBytes, io::kDirectAlignment);
  from_ = position / io::kDirectAlignment * io::kDirectAlignment;
  length_ = static_cast<std::size_t>(std::min<std::uint64_t>(kBufferBytes, size_ - from_));
  std::uint64_t end = from_ + length_;
  ask(from_ / kChunkBytes * kChunkBytes);
  for (std::size_t i = 0; i < chunks_.size() && chunks_[i]->from < end; ++i) {
    std::shared_ptr<Chunk> chunk = chunks_[i];
    while (chunk->loading) co_await chunk->loaded.wait();
    std::uint64_t from = std::max(from_, chunk->from), to = std::min(end, chunk->from + chunk->length);
    if (chunk->refused) co_await block_by_block(from, to);
    else std::memcpy(buffer_.data() + (from - from_), chunk->bytes.data() + (from - chunk->from), to - from);
  }
}

Task<void> FileWindow::block_by_block(std::uint64_t from, std::uint64_t to) {
  for (std::uint64_t at = from; at < to; at += io::kDirectAlignment) {
    MutableBytes one = buffer_.bytes().subspan(at - from_, io::kDirectAlignment);
    auto again = co_await io::read_up_to(*file_, one, at);
    std::size_t read = again ? *again : 0;
    std::memset(one.data() + read, 0, one.size() - read);
    if (!again) note_refused(at, std::min<std::uint64_t>(at + one.size(), size_));
  }
}

void FileWindow::note_refused(std::uint64_t from, std::uint64_t to) {
  for (auto& r : unreadable_) {
    if (r.first <= from && r.second >= to) return;
    if (r.second == from) {
      r.second = to;
      return;
    }
  }
  if (unreadable_.size() < kRefusedMax) unreadable_.emplace_back(from, to);
  else unreadable_.back().second = to;  // more than anybody reads: what lies between counts as refused too
}

Task<std::uint64_t> FileWindow::first_nonzero(std::uint64_t position, std::uint64_t to) {
  while (position < to) {
    Bytes bytes = co_await at(position, 1);
    if (bytes.empty()) break;
    bytes = bytes.first(static_cast<std::size_t>(std::min<std::uint64_t>(bytes.size(), to - position)));
    auto found = std::ranges::find_if(bytes, [](std::byte b) { return b != std::byte{0}; });
    if (found != bytes.end()) co_return position + static_cast<std::uint64_t>(found - bytes.begin());
    position += bytes.size();
  }
  co_return to;
}

Task<std::uint64_t> FileWindow::end_of_nonzero(std::uint64_t position, std::uint64_t to) {
  std::uint64_t end = position;
  while (position < to) {
    Bytes bytes = co_await at(position, 1);
    if (bytes.empty()) break;
    bytes = bytes.first(static_cast<std::size_t>(std::min<std::uint64_t>(bytes.size(), to - position)));
    for (std::size_t i = bytes.size(); i > 0; --i) {
      if (bytes[i - 1] == std::byte{0}) continue;
      end = position + i;
      break;
    }
    position += bytes.size();
  }
  co_return end;
}

}  // namespace tailrace::broker::log
