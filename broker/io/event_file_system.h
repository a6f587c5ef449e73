#pragma once
/// What the two real file backends share: names and directories on a worker, operations as requests, and completions that
/// reach the shard through one event descriptor. A backend adds only how a request is executed.
#include <deque>
#include <memory>
#include <string>

#include "io/counters.h"
#include "io/file.h"
#include "io/worker_pool.h"

namespace tailrace::broker::io {

/// Thread   one shard's, on which it was made. Only the counters may be read elsewhere.
/// Lives    longer than its files and locks. When it is destroyed nothing may be in flight, and every task that it handed
///          out has ended; files that were dropped just before are closed by then.
/// Bound    as many requests as its callers have operations in flight; their memory is kept for the next ones.
class EventFileSystem : public FileSystem {
 public:
  EventFileSystem(const EventFileSystem&) = delete;
  EventFileSystem& operator=(const EventFileSystem&) = delete;
  ~EventFileSystem() override;

  /// Readable when on_event() should be called (an eventfd, non-blocking).
  [[nodiscard]] int event_fd() const { return event_fd_; }
  /// Takes all completions and calls `complete` of each operation, flat.
  virtual void on_event() = 0;
  [[nodiscard]] const FileCounters& counters() const { return counters_; }

  Task<Result<std::unique_ptr<File>>> open(std::string path, OpenOptions options) override;
  Task<Result<void>> remove(std::string path) override;
  Task<Result<void>> remove_directory(std::string path) override;
  Task<Result<void>> rename(std::string from, std::string to) override;
  Task<Result<void>> make_directory(std::string path) override;
  Task<Result<void>> sync_directory(std::string path) override;
  Task<Result<std::vector<DirectoryEntry>>> list(std::string path) override;
  Task<Result<Space>> space(std::string path) override;
  Task<Result<std::unique_ptr<Lock>>> lock(std::string path) override;

 protected:
  enum class Kind : std::uint8_t { read, write, sync, allocate, truncate };
  struct Request : WorkerPool::Job {
    EventFileSystem* owner = nullptr;
    Operation* operation = nullptr;
    std::byte* data = nullptr;
    std::size_t length = 0;
    std::uint64_t position = 0;
    std::int64_t result = 0;
    int fd = -1;
    Kind kind{};
    bool durable = false;
    Request* after = nullptr;  // in a backend's list, or in the list of free ones
  };

  explicit EventFileSystem(std::size_t threads_max);
  /// Begins a request. It ends, at some later time and never inside this call, with finish().
  virtual void start(Request& request) = 0;
  /// Counts, gives the request back and calls the operation's `complete`.
  void finish(Request& request, std::int64_t result);
  /// Executes the request on a worker.
  void start_on_worker(Request& request);
  /// on_event() is made of these. What is signalled after clear_event() is signalled again; what was done before it is
  /// delivered after it: clear first, deliver then.
  void clear_event();
  void signal_event();
  void deliver_workers() { workers_.deliver(); }

  FileCounters counters_;

 private:
  friend class EventFile;
  void begin(Kind kind, int fd, Operation& op, std::byte* data, std::size_t length, std::uint64_t position, bool durable);
  static std::int64_t execute(const Request& request) noexcept;

  int event_fd_;
  std::deque<Request> requests_;
  Request* free_ = nullptr;
  WorkerPool workers_;
};

}  // namespace tailrace::broker::io
