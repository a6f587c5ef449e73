#include "server/shard_thread.h"

#include <fmt/format.h>
#include <pthread.h>
#include <sys/random.h>

#include "base/log.h"
#include "io_threads/file_system.h"
#include "io_uring/file_system.h"

namespace tailrace::broker::server {
namespace {

std::uint64_t seed_from_kernel() {
  std::uint64_t seed = 0;
  if (::getrandom(&seed, sizeof seed, 0) != sizeof seed) seed = static_cast<std::uint64_t>(::time(nullptr));
  return seed;
}

Result<std::unique_ptr<io::EventFileSystem>> open_files(io_asio::Loop& loop, IoBackend backend) {
  if (backend == IoBackend::threads) return std::make_unique<io_threads::FileSystem>();
  auto ring = io_uring::FileSystem::create(loop);
  if (ring) return *std::move(ring);
  if (backend == IoBackend::io_uring) return std::unexpected{std::move(ring).error()};
  log_warn("io.fallback", "io_uring is not to be had here ({}); files go through a thread pool, which is slower. In a container: "
                          "--security-opt seccomp=tailrace-seccomp.json. io.backend = \"threads\" silences this.", ring.error().detail);
  return std::make_unique<io_threads::FileSystem>();
}

}  // namespace

ShardThread::~ShardThread() { end(); }

Result<void> ShardThread::begin(IoBackend backend) {
  std::promise<Result<void>> begun;
  auto outcome = begun.get_future();
  thread_ = std::thread{[this, backend, promise = std::move(begun)]() mutable { run(backend, std::move(promise)); }};
  Result<void> result = outcome.get();
  if (!result) thread_.join();
  return result;
}

void ShardThread::run(IoBackend backend, std::promise<Result<void>> begun) {
  ::pthread_setname_np(::pthread_self(), fmt::format("shard-{}", index_.value()).c_str());
  auto files = open_files(loop_, backend);
  if (!files) return begun.set_value(std::unexpected{std::move(files).error()});
  files_ = *std::move(files);
  random_.emplace(seed_from_kernel());
  runtime_.emplace(io::Runtime{*files_, loop_, loop_, loop_, *random_});
  int event = files_->event_fd();
  loop_.watch(event, [raw = files_.get()] { raw->on_event(); });
  begun.set_value({});
  loop_.run();
  loop_.unwatch(event);
  runtime_.reset();
  files_.reset();
}

void ShardThread::end() {
  if (!thread_.joinable()) return;
  loop_.stop();
  thread_.join();
}

}  // namespace tailrace::broker::server
