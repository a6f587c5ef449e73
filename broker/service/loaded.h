#pragma once
/// State that is read from a log when it is first needed: once, however many ask at the same time, and anew when it failed. Private to `service`.
/// T        has load() (a Task<Answer<void>>), failed() and stop(). Shard: the core's.
#include <map>
#include <memory>

#include "service/shard_core.h"

namespace tailrace::broker::service {

template <class Key, class T>
class Loaded {
 public:
  explicit Loaded(ShardCore& core) : core_{core}, changed_{core.runtime.executor} {}
  Loaded(const Loaded&) = delete;
  Loaded& operator=(const Loaded&) = delete;

  /// `make()` gives a fresh one, which is then loaded. Errors: shutting_down, and those of load().
  template <class Make>
  [[nodiscard]] Task<Answer<std::shared_ptr<T>>> get(Key key, Make make) {
    for (;;) {
      if (core_.stopping || !core_.catalog) co_return refuse(Errc::shutting_down);
      if (auto found = all_.find(key); found != all_.end() && !found->second->failed()) co_return found->second;
      if (!loading_.contains(key)) break;
      co_await changed_.wait();
    }
    loading_.insert(key);
    std::shared_ptr<T> fresh = make();
    Answer<void> loaded = co_await fresh->load();
    loading_.erase(key);
    if (loaded) all_[key] = fresh;
    changed_.notify_all();
    if (!loaded) co_return std::unexpected(std::move(loaded).error());
    co_return fresh;
  }
  void forget(const Key& key) {
    auto found = all_.find(key);
    if (found == all_.end()) return;
    found->second->stop();
    all_.erase(found);
  }
  /// Whoever waits, for a load or within one of them, is answered.
  void stop() {
    for (auto& [key, one] : all_) one->stop();
    changed_.notify_all();
  }
  [[nodiscard]] const std::map<Key, std::shared_ptr<T>>& all() const { return all_; }
  /// Another one was loaded, or stop().
  [[nodiscard]] Notifier& changed() { return changed_; }

 private:
  ShardCore& core_;
  std::map<Key, std::shared_ptr<T>> all_{};
  std::set<Key> loading_{};
  Notifier changed_;
};

}  // namespace tailrace::broker::service
