#include "tests/support/disk_image.h"

#include <fmt/core.h>

#include <algorithm>

#include "base/check.h"

namespace tailrace::broker::sim {

Content::Page& Content::writable(std::size_t index) {
  if (index >= pages_.size()) pages_.resize(index + 1);
  auto& page = pages_[index];
  if (!page) {
    page = std::make_shared<Page>();
  } else if (page.use_count() > 1) {
    page = std::make_shared<Page>(*page);
  }
  return *page;
}

void Content::resize(std::uint64_t size) {
  if (size < size_) {
    std::size_t whole = (size + kPage - 1) / kPage;
    if (pages_.size() > whole) pages_.resize(whole);
    std::size_t rest = size % kPage;
    if (rest != 0 && size / kPage < pages_.size() && pages_[size / kPage]) {
      auto& page = writable(size / kPage);
      std::fill(page.begin() + static_cast<std::ptrdiff_t>(rest), page.end(), std::byte{0});
    }
  }
  size_ = size;
}

void Content::read(MutableBytes into, std::uint64_t position) const {
  while (!into.empty()) {
    std::size_t index = position / kPage;
    std::size_t at = position % kPage;
    std::size_t n = std::min(into.size(), kPage - at);
    if (index < pages_.size() && pages_[index]) {
      std::memcpy(into.data(), pages_[index]->data() + at, n);
    } else {
      std::memset(into.data(), 0, n);
    }
    into = into.subspan(n);
    position += n;
  }
}

void Content::write(Bytes from, std::uint64_t position) {
  size_ = std::max(size_, position + from.size());
  while (!from.empty()) {
    std::size_t at = position % kPage;
    std::size_t n = std::min(from.size(), kPage - at);
    std::memcpy(writable(position / kPage).data() + at, from.data(), n);
    from = from.subspan(n);
    position += n;
  }
}

std::vector<std::byte> Content::bytes(std::uint64_t position, std::size_t length) const {
  std::vector<std::byte> out(length);
  read(out, position);
  return out;
}

bool operator==(const Content& a, const Content& b) {
  if (a.size_ != b.size_) return false;
  static const Content::Page kZero{};
  std::size_t count = std::max(a.pages_.size(), b.pages_.size());
  for (std::size_t i = 0; i < count; ++i) {
    const Content::Page* left = i < a.pages_.size() && a.pages_[i] ? a.pages_[i].get() : &kZero;
    const Content::Page* right = i < b.pages_.size() && b.pages_[i] ? b.pages_[i].get() : &kZero;
    if (left != right && *left != *right) return false;
  }
  return true;
}

std::uint64_t Content::hash() const {
  std::uint64_t h = 0xcbf29ce484222325ULL ^ size_;
  for (std::size_t i = 0; i < pages_.size(); ++i) {
    if (!pages_[i]) continue;
    bool zero = true;
    std::uint64_t page_hash = i;
    for (std::size_t at = 0; at < kPage; at += 8) {
      auto word = load_le<std::uint64_t>(pages_[i]->data() + at);
      zero = zero && word == 0;
      page_hash = (page_hash ^ word) * 0x100000001b3ULL;
      page_hash ^= page_hash >> 29;
    }
    if (!zero) h = (h ^ page_hash) * 0xff51afd7ed558ccdULL;
  }
  return h;
}

Content& DiskImage::file(const std::string& path) {
  auto found = files.find(path);
  TAILRACE_CHECK(found != files.end(), "damage names a file of the image");
  return found->second;
}

const Content& DiskImage::file(const std::string& path) const {
  auto found = files.find(path);
  TAILRACE_CHECK(found != files.end(), "a test names a file of the image");
  return found->second;
}

void DiskImage::flip_bit(const std::string& path, std::uint64_t position, int bit) {
  Content& content = file(path);
  TAILRACE_CHECK(position < content.size(), "a flipped bit lies inside its file");
  auto byte = content.bytes(position, 1);
  byte[0] ^= std::byte{1} << bit;
  content.write(byte, position);
}

void DiskImage::zero(const std::string& path, std::uint64_t position, std::uint64_t length) {
  Content& content = file(path);
  if (position >= content.size()) return;
  content.write(std::vector<std::byte>(std::min(length, content.size() - position)), position);
}

void DiskImage::make_unreadable(const std::string& path, std::uint64_t sector) {
  (void)file(path);
  unreadable[path].insert(sector);
}

void DiskImage::truncate(const std::string& path, std::uint64_t size) { file(path).resize(size); }

void DiskImage::remove(const std::string& path) {
  (void)file(path);
  files.erase(path);
  unreadable.erase(path);
}

void DiskImage::remove_tree(const std::string& directory) {
  std::string below = directory + "/";
  std::erase_if(files, [&](const auto& entry) { return entry.first.starts_with(below); });
  std::erase_if(unreadable, [&](const auto& entry) { return entry.first.starts_with(below); });
  std::erase_if(directories, [&](const auto& path) { return path == directory || path.starts_with(below); });
}

void DiskImage::restore(const std::string& path, const DiskImage& older) { files[path] = older.file(path); }

std::vector<std::string> DiskImage::paths(std::string_view part) const {
  std::vector<std::string> out;
  for (const auto& [path, content] : files) {
    if (path.find(part) != std::string::npos) out.push_back(path);
  }
  return out;
}

std::uint64_t DiskImage::hash() const {
  std::uint64_t h = 0x9e3779b97f4a7c15ULL;
  auto add = [&](std::uint64_t value) { h = (h ^ value) * 0xff51afd7ed558ccdULL; };
  for (const auto& directory : directories) {
    for (char c : directory) add(static_cast<unsigned char>(c));
  }
  for (const auto& [path, content] : files) {
    for (char c : path) add(static_cast<unsigned char>(c));
    add(content.hash());
  }
  return h;
}

std::string DiskImage::difference(const DiskImage& other) const {
  for (const auto& directory : directories) {
    if (!other.directories.contains(directory)) return fmt::format("directory {} is missing", directory);
  }
  for (const auto& directory : other.directories) {
    if (!directories.contains(directory)) return fmt::format("directory {} is new", directory);
  }
  for (const auto& [path, content] : files) {
    auto found = other.files.find(path);
    if (found == other.files.end()) return fmt::format("{} is missing", path);
    if (content == found->second) continue;
    if (content.size() != found->second.size()) {
      return fmt::format("{} has {} bytes, then {}", path, content.size(), found->second.size());
    }
    auto left = content.bytes();
    auto right = found->second.bytes();
    auto at = static_cast<std::size_t>(std::ranges::mismatch(left, right).in1 - left.begin());
    return fmt::format("{} differs at byte {}", path, at);
  }
  for (const auto& [path, content] : other.files) {
    if (!files.contains(path)) return fmt::format("{} is new", path);
  }
  return {};
}

}  // namespace tailrace::broker::sim
