#pragma once
/// One shard of the process: a thread, its event loop, its files, and what listens on it.
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "base/random.h"
#include "base/task.h"
#include "io/event_file_system.h"
#include "io/runtime.h"
#include "io_asio/loop.h"
#include "io_asio/tcp.h"
#include "model/ids.h"
#include "native/front.h"
#include "server/config.h"

namespace tailrace::broker::server {

/// Thread   constructed, begun, ended and destroyed by the thread that starts the broker; run_on() blocks that thread. What
///          is behind `listener` and `front` belongs to the shard's own thread.
class ShardThread {
 public:
  explicit ShardThread(ShardIndex index) : index_{index} {}
  ~ShardThread();
  ShardThread(const ShardThread&) = delete;
  ShardThread& operator=(const ShardThread&) = delete;

  /// Starts the thread and opens its file backend. `backend` automatic: io_uring, or threads where it is refused.
  /// Errors: io_uring_refused (only if it was asked for), io_error.
  [[nodiscard]] Result<void> begin(IoBackend backend);
  /// After everything on it was drained.
  void end();

  [[nodiscard]] ShardIndex index() const { return index_; }
  [[nodiscard]] io_asio::Loop& loop() { return loop_; }
  [[nodiscard]] io::Runtime& runtime() { return *runtime_; }
  [[nodiscard]] const io::EventFileSystem& files() const { return *files_; }
  /// For work that outlives a run_on(): the accept loop.
  [[nodiscard]] TaskScope& scope() { return scope_; }

  /// Runs a task on the shard and waits for its value. For start and stop only.
  template <class T>
  T run_on(std::move_only_function<Task<T>()> make) {
    return start_on<T>(std::move(make)).get();
  }
  /// The same without waiting for it.
  template <class T>
  std::future<T> start_on(std::move_only_function<Task<T>()> make) {
    auto promise = std::make_shared<std::promise<T>>();
    std::future<T> future = promise->get_future();
    bool taken = loop_.post_from_outside([this, promise, made = std::make_shared<std::move_only_function<Task<T>()>>(std::move(make))] {
      control_.spawn(fulfil<T>(made, promise));
    });
    TAILRACE_CHECK(taken, "start and stop are the only ones to queue work from outside, and do so before the loop ends");
    return future;
  }

  std::unique_ptr<io::Listener> listener;
  std::unique_ptr<native::Front> front;

 private:
  template <class T>
  static Task<void> fulfil(std::shared_ptr<std::move_only_function<Task<T>()>> make, std::shared_ptr<std::promise<T>> promise) {
    promise->set_value(co_await (*make)());
  }
  void run(IoBackend backend, std::promise<Result<void>> begun);

  ShardIndex index_;
  io_asio::Loop loop_;
  std::unique_ptr<io::EventFileSystem> files_;  // made and destroyed on the thread
  std::optional<Random> random_;
  std::optional<io::Runtime> runtime_;
  TaskScope scope_;
  TaskScope control_;
  std::thread thread_;
};

}  // namespace tailrace::broker::server
