#pragma once
/// A few threads for calls that block: names and directories for every file backend, all file operations for io_threads.
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <thread>
#include <vector>

namespace tailrace::broker::io {

/// Thread   the owner's (a shard's) for everything; only `work` runs elsewhere.
/// Bound    holds no more jobs than its callers have operations; threads start as needed, up to `threads_max`.
/// Order    with one thread, jobs run in the order they were submitted.
/// After    end() or destruction: every submitted job ran, and was delivered.
class WorkerPool {
 public:
  /// Intrusive; in place until `done` was called.
  struct Job {
    void (*work)(Job*) noexcept = nullptr;  // on a worker
    void (*done)(Job*) noexcept = nullptr;  // on the owner's thread, inside deliver()
    Job* next = nullptr;
  };

  /// `event_fd` is written when finished jobs wait for deliver(); it stays the caller's and outlives the pool.
  WorkerPool(std::size_t threads_max, int event_fd) : threads_max_{threads_max}, event_fd_{event_fd} {}
  ~WorkerPool() { end(); }
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  void submit(Job& job);
  /// Calls `done` of every job that finished since the last call; answers how many.
  std::size_t deliver();
  /// Waits for all jobs and ends the threads. Nothing may be submitted afterwards.
  void end();

 private:
  void start_thread();
  void run_worker();
  void finish(Job& job) noexcept;

  std::size_t threads_max_;
  int event_fd_;
  std::mutex mutex_;
  std::condition_variable work_waits_;
  Job* first_ = nullptr;  // these five under the mutex
  Job* last_ = nullptr;
  std::size_t idle_ = 0;
  std::size_t queued_ = 0;
  bool ending_ = false;
  std::vector<std::thread> threads_;
  std::atomic<Job*> finished_{nullptr};  // newest first
};

}  // namespace tailrace::broker::io
