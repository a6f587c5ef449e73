#include "log/file_window.h"

namespace tailrace::broker::log {

Task<Result<FileWindow>> FileWindow::open(io::Runtime& runtime, std::string path) {
  io::OpenOptions options{.direct = true};  // the page cache may hold what the disk does not
  TAILRACE_CO_TRY(auto file, co_await runtime.files.open(path, options));
  TAILRACE_CO_TRY(std::uint64_t size, file->size());
  co_return FileWindow{std::move(path), std::move(file), size};
}

Task<void> FileWindow::load(std::uint64_t position) {
  from_ = position / io::kDirectAlignment * io::kDirectAlignment;
  length_ = static_cast<std::size_t>(std::min<std::uint64_t>(kBufferBytes, size_ - from_));
  auto got = co_await io::read_up_to(*file_, buffer_.bytes(), from_);
  std::size_t whole = got ? std::min(*got, length_) : 0;
  if (got) {
    std::memset(buffer_.data() + whole, 0, length_ - whole);  // cut while we read: the size says there was more
    co_return;
  }
  for (std::size_t block = 0; block < length_; block += io::kDirectAlignment) {
    MutableBytes one = buffer_.bytes().subspan(block, io::kDirectAlignment);
    auto again = co_await io::read_up_to(*file_, one, from_ + block);
    std::size_t read = again ? *again : 0;
    std::memset(one.data() + read, 0, one.size() - read);
    if (!again) note_refused(from_ + block, std::min<std::uint64_t>(from_ + block + one.size(), size_));
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
