#pragma once
/// One shard of a broker process: its thread, and what listens on it.
#include <functional>
#include <future>
#include <memory>

#include "base/task.h"
#include "io/stream.h"
#include "native/front.h"
#include "server/io_backend.h"

namespace tailrace::broker::server {

/// Thread   constructed, begun, ended and destroyed by the thread that starts the broker; run_on() blocks that thread. What
///          is behind `listener` and `front` belongs to the shard's own thread.
class ShardHost {
 public:
  ShardHost(ShardIndex index, IoBackend backend, std::uint64_t seed) : index_{index}, thread_{index, backend, seed} {}
  ShardHost(const ShardHost&) = delete;
  ShardHost& operator=(const ShardHost&) = delete;

  [[nodiscard]] ShardIndex index() const { return index_; }
  [[nodiscard]] ShardThread& thread() { return thread_; }
  [[nodiscard]] io_asio::Loop& loop() { return thread_.loop(); }
  [[nodiscard]] io::Runtime& runtime() { return thread_.runtime(); }
  /// For work that outlives a run_on(): the accept loop.
  [[nodiscard]] TaskScope& scope() { return scope_; }

  /// Runs a task on the shard and waits for its value, however long it takes. For start and stop only.
  template <class T>
  T run_on(std::move_only_function<Task<T>()> make) {
    return start_on<T>(std::move(make)).get();
  }
  /// The same without waiting for it.
  template <class T>
  std::future<T> start_on(std::move_only_function<Task<T>()> make) {
    auto promise = std::make_shared<std::promise<T>>();
    std::future<T> future = promise->get_future();
    auto made = std::make_shared<std::move_only_function<Task<T>()>>(std::move(make));
    bool taken = loop().post_from_outside([this, promise, made] { control_.spawn(fulfil<T>(made, promise)); });
    TAILRACE_CHECK(taken, "start and stop queue little, and do so before the loop ends");
    return future;
  }

  std::unique_ptr<io::Listener> listener;
  std::unique_ptr<native::Front> front;

 private:
  template <class T>
  static Task<void> fulfil(std::shared_ptr<std::move_only_function<Task<T>()>> make, std::shared_ptr<std::promise<T>> promise) {
    promise->set_value(co_await (*make)());
  }
  ShardIndex index_;
  TaskScope scope_;
  TaskScope control_;
  ShardThread thread_;
};

}  // namespace tailrace::broker::server
