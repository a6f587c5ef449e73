#pragma once
/// Descriptors of segment files: opened on first use, least recently used ones closed past the limit, all idle ones after a
/// while. An idle partition holds none.
#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>

#include "io/runtime.h"
#include "log/shard_log.h"

namespace tailrace::broker::log {

class FileCache {
 public:
  struct Key {
    std::uint32_t partition = 0;  // shard-local number
    Offset base{};
    friend bool operator==(const Key&, const Key&) = default;
  };
  FileCache(io::Runtime& runtime, std::size_t files_max, ShardLogStats& stats);
  ~FileCache();

  /// Always opened for reading and writing, direct. With `create`, a missing file is made (the folder is not synced). What was
  /// dropped while it was being opened is opened anew: it may be of a file that is gone.
  /// Errors: not_found, storage_full, descriptors_exhausted (after everything idle was closed), io_error.
  Task<Result<std::shared_ptr<io::File>>> get(Key key, std::string path, bool create);
  void drop(Key key);
  void drop_partition(std::uint32_t partition);

 private:
  struct Item {
    Key key{};
    std::shared_ptr<io::File> file{};
    Instant used{};
  };
  struct Hash {
    std::size_t operator()(const Key& k) const noexcept {
      return static_cast<std::size_t>(static_cast<std::uint64_t>(k.base.value()) * 0x9e3779b97f4a7c15ULL + k.partition);
    }
  };
  struct Opening {
    Key key{};
    bool dropped = false;
  };
  struct IdleTimer : io::Timer {
    FileCache* cache = nullptr;
  };
  Task<Result<std::unique_ptr<io::File>>> open(Key key, std::string path, bool create);
  template <class Match>
  void drop_if(Match match);
  void close_down_to(std::size_t count);
  void close_idle();

  io::Runtime& runtime_;
  std::size_t files_max_;
  ShardLogStats& stats_;
  std::list<Item> items_;  // most recently used first
  std::list<Opening> openings_;
  std::unordered_map<Key, std::list<Item>::iterator, Hash> by_key_;
  IdleTimer timer_{};
};

}  // namespace tailrace::broker::log
