#pragma once
/// Files over a small pool of threads with plain system calls: where io_uring is refused, or by choice.
#include "io/event_file_system.h"
#include "model/limits.h"

namespace tailrace::broker::io_threads {

/// Each operation is one pread, pwritev2 (RWF_DSYNC), fdatasync, fallocate or ftruncate on a worker; as many run at once as
/// there are threads, the rest waits in order. One for each shard, like a ring.
class FileSystem final : public io::EventFileSystem {
 public:
  explicit FileSystem(std::size_t threads = limits::kFileThreads) : EventFileSystem{threads} {}
  void on_event() override {
    counters_.wakes.add();
    clear_event();
    deliver_workers();
  }
  [[nodiscard]] std::string_view name() const override { return "threads"; }

 protected:
  void start(Request& request) override { start_on_worker(request); }
};

}  // namespace tailrace::broker::io_threads
