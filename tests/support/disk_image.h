#pragma once
/// What a simulated disk holds: file contents in shared pages, so that copying a whole disk costs a few hundred
/// pointers, and an image of all paths that a crash leaves behind and a new disk starts from.
#include <array>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/bytes.h"

namespace tailrace::broker::sim {

inline constexpr std::size_t kSector = 512;

/// The bytes of one file. Copies share pages until written.
class Content {
 public:
  static constexpr std::size_t kPage = 4096;
  [[nodiscard]] std::uint64_t size() const { return size_; }
  /// Cut bytes are gone: growing again shows zeros.
  void resize(std::uint64_t size);
  /// Bytes past the end read as zeros.
  void read(MutableBytes into, std::uint64_t position) const;
  void write(Bytes from, std::uint64_t position);
  [[nodiscard]] std::vector<std::byte> bytes(std::uint64_t position, std::size_t length) const;
  [[nodiscard]] std::vector<std::byte> bytes() const { return bytes(0, size_); }
  friend bool operator==(const Content& a, const Content& b);
  [[nodiscard]] std::uint64_t hash() const;

 private:
  using Page = std::array<std::byte, kPage>;
  Page& writable(std::size_t index);
  std::vector<std::shared_ptr<Page>> pages_;  // null: zeros
  std::uint64_t size_ = 0;
};

/// A disk at rest. Paths are absolute ("/data/node.toml"); every parent of a file is in `directories`.
struct DiskImage {
  std::map<std::string, Content> files;
  std::set<std::string> directories;
  std::map<std::string, std::set<std::uint64_t>> unreadable;  // sectors that answer EIO

  /// Damage, as storage.md section 5 items 6, 7 and 8 name it. Each stops the process when the path is not there.
  void flip_bit(const std::string& path, std::uint64_t position, int bit);
  void zero(const std::string& path, std::uint64_t position, std::uint64_t length);
  void make_unreadable(const std::string& path, std::uint64_t sector);
  void truncate(const std::string& path, std::uint64_t size);
  void remove(const std::string& path);
  void remove_tree(const std::string& directory);
  void restore(const std::string& path, const DiskImage& older);
  [[nodiscard]] Content& file(const std::string& path);
  [[nodiscard]] const Content& file(const std::string& path) const;
  /// Paths that contain `part`, sorted.
  [[nodiscard]] std::vector<std::string> paths(std::string_view part = {}) const;
  [[nodiscard]] std::uint64_t hash() const;
  /// The first difference, in words; empty when equal.
  [[nodiscard]] std::string difference(const DiskImage& other) const;
};

}  // namespace tailrace::broker::sim
