#include "log/file_cache.h"

namespace tailrace::broker::log {
namespace {
constexpr std::chrono::seconds kIdleClose{30};
}

FileCache::FileCache(io::Runtime& runtime, std::size_t files_max, ShardLogStats& stats)
    : runtime_{runtime}, files_max_{files_max}, stats_{stats} {
  timer_.cache = this;
  timer_.fire = [](io::Timer* self) noexcept { static_cast<IdleTimer*>(self)->cache->close_idle(); };
}

FileCache::~FileCache() { runtime_.timers.disarm(timer_); }

Task<Result<std::shared_ptr<io::File>>> FileCache::get(Key key, std::string path, bool create) {
  for (int attempt = 0;; ++attempt) {
    if (auto found = by_key_.find(key); found != by_key_.end()) {
      items_.splice(items_.begin(), items_, found->second);
      items_.front().used = runtime_.clock.now();
      co_return items_.front().file;
    }
    io::OpenOptions options{.create = create, .write = true, .direct = true};
    auto opened = co_await runtime_.files.open(path, options);
    if (!opened && opened.error().code == Errc::descriptors_exhausted && attempt == 0 && !items_.empty()) {
      close_down_to(items_.size() / 2);
      continue;
    }
    if (!opened) co_return std::unexpected(std::move(opened.error()));
    if (by_key_.contains(key)) continue;  // another caller was faster; ours closes
    close_down_to(files_max_ > 0 ? files_max_ - 1 : 0);
    items_.push_front({key, std::shared_ptr<io::File>{*std::move(opened)}, runtime_.clock.now()});
    by_key_[key] = items_.begin();
    stats_.open_files = items_.size();
    if (timer_.place == io::Timer::kIdle) runtime_.timers.arm(timer_, runtime_.clock.now() + kIdleClose);
    co_return items_.front().file;
  }
}

void FileCache::close_down_to(std::size_t count) {
  while (items_.size() > count) {
    by_key_.erase(items_.back().key);
    items_.pop_back();
  }
  stats_.open_files = items_.size();
}

void FileCache::close_idle() {
  Instant now = runtime_.clock.now();
  while (!items_.empty() && now - items_.back().used >= kIdleClose) {
    by_key_.erase(items_.back().key);
    items_.pop_back();
  }
  stats_.open_files = items_.size();
  if (!items_.empty()) runtime_.timers.arm(timer_, items_.back().used + kIdleClose);
}

void FileCache::drop(Key key) {
  auto found = by_key_.find(key);
  if (found == by_key_.end()) return;
  items_.erase(found->second);
  by_key_.erase(found);
  stats_.open_files = items_.size();
}

void FileCache::drop_partition(std::uint32_t partition) {
  for (auto it = items_.begin(); it != items_.end();) {
    if (it->key.partition != partition) {
      ++it;
      continue;
    }
    by_key_.erase(it->key);
    it = items_.erase(it);
  }
  stats_.open_files = items_.size();
}

}  // namespace tailrace::broker::log
