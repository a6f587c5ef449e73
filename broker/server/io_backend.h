#pragma once
/// Which file backend a shard gets (`io.backend`), and the thread it runs on.
#include <memory>
#include <optional>

#include "base/random.h"
#include "base/result.h"
#include "io/event_file_system.h"
#include "io/runtime.h"
#include "io_asio/ask.h"
#include "io_asio/loop.h"
#include "model/ids.h"
#include "server/config.h"
#include "shard/shards.h"

namespace tailrace::broker::server {

/// On the shard's own thread. `automatic` takes io_uring, and where the kernel refuses it, threads with one warning for the
/// process (W5001) that names the fix. Errors: io_uring_refused, only if io_uring was asked for by name.
[[nodiscard]] Result<std::unique_ptr<io::EventFileSystem>> make_file_system(IoBackend choice, Executor& executor);

/// The thread of one shard: loop, file backend, runtime.
///
///   std::vector<std::unique_ptr<ShardThread>> threads;             // made first, so that Shards can be told their endpoints
///   shard::Shards shards{endpoints};
///   for (auto& t : threads) if (auto started = t->start(); !started) ...
///   auto opened = threads[0]->ask([&]() -> Task<Result<void>> { ... }, 60s);   // open logs, start listeners
///   ...                                                            // drain everything, by asking
///   for (auto& t : threads) t->finish();
///
/// Thread   made, started and finished by one thread, which outlives it. runtime() and files() belong to the shard's thread,
///          but for the counters.
class ShardThread {
 public:
  ShardThread(ShardIndex index, IoBackend backend, std::uint64_t seed);
  ~ShardThread();
  ShardThread(const ShardThread&) = delete;
  ShardThread& operator=(const ShardThread&) = delete;

  [[nodiscard]] io_asio::Loop& loop() { return loop_; }
  [[nodiscard]] shard::Endpoint endpoint() { return {loop_.inbox(), loop_}; }
  /// Starts the thread and waits until its file backend is there, or is refused. The thread is pinned to a processor if the
  /// process may use more than one.
  [[nodiscard]] Result<void> start();
  [[nodiscard]] io::Runtime& runtime() { return *runtime_; }
  [[nodiscard]] io::EventFileSystem& files() { return *files_; }
  template <class F>
  auto ask(F fn, Duration deadline) {
    return io_asio::ask(loop_, std::move(fn), deadline);
  }
  /// Stops the loop and waits for the thread. What the shard's code started must have been drained before.
  void finish();

 private:
  struct Thread;
  ShardIndex index_;
  IoBackend backend_;
  Random random_;
  io_asio::Loop loop_;
  std::unique_ptr<io::EventFileSystem> files_;
  std::optional<io::Runtime> runtime_;
  std::unique_ptr<Thread> thread_;
};

}  // namespace tailrace::broker::server
