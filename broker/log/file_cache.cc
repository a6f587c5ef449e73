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

Task<Result<std::unique_ptr<io::File>>> FileCache::open(Key key, std::string path, bool create) {
  for (;;) {
    auto opening = openings_.insert(openings_.end(), Opening{key});
    auto opened = co_await runtime_.files.open(path, io::OpenOptions{.create = create, .write = true, .direct = true});
    bool dropped = opening->dropped;
    openings_.erase(opening);
    if (opened && dropped) continue;
    bool none_left = !opened && opened.error().code == Errc::descriptors_exhausted;
    if (none_left && !items_.empty()) {
      close_down_to(items_.size() / 2);
      continue;
    }
    co_return opened;
  }
}

Task<Result<std::shared_ptr<io::File>>> FileCache::get(Key key, std::string path, bool create) {
  for (;;) {
    if (auto found = by_key_.find(key); found != by_key_.end()) {
      items_.splice(items_.begin(), items_, found->second);
      items_.front().used = runtime_.clock.now();
      co_return items_.front().file;
    }
    TAILRACE_CO_TRY(auto opened, co_await open(key, path, create));
    if (by_key_.contains(key)) continue;  // another caller was faster; ours closes
    close_down_to(files_max_ > 0 ? files_max_ - 1 : 0);
    items_.push_front({key, std::shared_ptr<io::File>{std::move(opened)}, runtime_.clock.now()});
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
  drop_if([&](const Key& k) { return k == key; });
}
void FileCache::drop_partition(std::uint32_t partition) {
  drop_if([&](const Key& k) { return k.partition == partition; });
}

template <class Match>
void FileCache::drop_if(Match match) {
  for (Opening& o : openings_) o.dropped |= match(o.key);
  std::erase_if(by_key_, [&](const auto& entry) { return match(entry.first); });
  std::erase_if(items_, [&](const Item& item) { return match(item.key); });
  stats_.open_files = items_.size();
}

}  // namespace tailrace::broker::log
