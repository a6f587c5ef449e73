#include "server/io_backend.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <atomic>
#include <future>
#include <thread>

#include "base/check.h"
#include "base/log.h"
#include "io_threads/file_system.h"
#include "io_uring/file_system.h"

namespace tailrace::broker::server {

Result<std::unique_ptr<io::EventFileSystem>> make_file_system(IoBackend choice, Executor& executor) {
  if (choice != IoBackend::threads) {
    auto ring = io_uring::FileSystem::create(executor);
    if (ring) {
      log_debug("io.backend", "io_uring ({})", (*ring)->mode());
      return std::unique_ptr<io::EventFileSystem>{*std::move(ring)};
    }
    if (choice == IoBackend::io_uring) return std::unexpected(std::move(ring).error());
    static std::atomic<bool> said{false};
    if (!said.exchange(true)) {
      log_warn("io.backend_fallback",
               "W5001: io_uring is not usable here ({}); using thread-pool I/O, about half as many small durable writes a "
               "second. Fix: --security-opt seccomp=tailrace-seccomp.json, or set io.backend = \"threads\" to accept it",
               ring.error().detail);
    }
  }
  return std::make_unique<io_threads::FileSystem>();
}

struct ShardThread::Thread {
  std::thread thread;
  std::promise<Result<void>> ready;
};

ShardThread::ShardThread(ShardIndex index, IoBackend backend, std::uint64_t seed) : index_{index}, backend_{backend}, random_{seed} {}
ShardThread::~ShardThread() { finish(); }

namespace {

/// The index-th of the processors this process may use; the scheduler keeps the rest of its freedom if there is only one.
void pin_to_processor(std::uint32_t index) {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (::sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  int count = CPU_COUNT(&allowed);
  if (count < 2) return;
  int nth = static_cast<int>(index) % count;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed) || nth-- > 0) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    ::pthread_setaffinity_np(::pthread_self(), sizeof one, &one);
    return;
  }
}

}  // namespace

Result<void> ShardThread::start() {
  TAILRACE_CHECK(!thread_, "a shard is started once");
  thread_ = std::make_unique<Thread>();
  auto ready = thread_->ready.get_future();
  sigset_t all, before;  // signals are the main thread's business
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_->thread = std::thread{[this] {
    std::string name = "shard-" + std::to_string(index_.value());
    ::pthread_setname_np(::pthread_self(), name.c_str());
    pin_to_processor(index_.value());
    auto files = make_file_system(backend_, loop_);
    if (!files) {
      thread_->ready.set_value(std::unexpected(std::move(files).error()));
      return;
    }
    files_ = *std::move(files);
    runtime_.emplace(io::Runtime{*files_, loop_, loop_, loop_, random_});
    loop_.watch(files_->event_fd(), [this] { files_->on_event(); });
    thread_->ready.set_value({});
    loop_.run();
    loop_.unwatch(files_->event_fd());
    runtime_.reset();
    files_.reset();  // a ring ends on the thread that made it
  }};
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  auto result = ready.get();
  if (!result) finish();
  return result;
}

void ShardThread::finish() {
  if (!thread_ || !thread_->thread.joinable()) return;
  loop_.stop();
  thread_->thread.join();
}

}  // namespace tailrace::broker::server
