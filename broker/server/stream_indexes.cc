#include "server/stream_indexes.h"

#include <fmt/format.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "io/worker_pool.h"
#include "stream_rocksdb/store.h"

namespace tailrace::broker::server {
namespace {

/// Look-ups wait for the disk: so many at a time of one shard.
constexpr std::size_t kIndexThreads = 4;

class PoolCalls final : public io::BlockingCalls {
 public:
  PoolCalls(io_asio::Loop& loop, int event_fd) : loop_{loop}, event_fd_{event_fd}, pool_{kIndexThreads, event_fd} {
    loop_.watch(event_fd_, [this] {
      std::uint64_t count = 0;
      while (::read(event_fd_, &count, sizeof count) > 0) {
      }
      pool_.deliver();
    });
  }
  ~PoolCalls() override {
    pool_.end();
    loop_.unwatch(event_fd_);
    ::close(event_fd_);
  }
  void call(std::move_only_function<void()> work, Runnable& after) override {
    auto* call = new Call{};
    call->pool = this;
    call->run = std::move(work);
    call->after = &after;
    call->work = [](io::WorkerPool::Job* job) noexcept { static_cast<Call*>(job)->run(); };
    call->done = [](io::WorkerPool::Job* job) noexcept {
      std::unique_ptr<Call> own{static_cast<Call*>(job)};
      own->pool->loop_.post(*own->after);
    };
    pool_.submit(*call);
  }

 private:
  struct Call : io::WorkerPool::Job {
    PoolCalls* pool = nullptr;
    std::move_only_function<void()> run{};
    Runnable* after = nullptr;
  };
  io_asio::Loop& loop_;
  int event_fd_;
  io::WorkerPool pool_;
};

class RocksIndexes final : public service::StreamIndexes {
 public:
  RocksIndexes(std::unique_ptr<PoolCalls> calls, std::unique_ptr<stream::RocksStore> store) : calls_{std::move(calls)}, store_{std::move(store)} {}
  std::unique_ptr<stream::StreamIndex> index(const PartitionId& partition) override { return store_->index(partition); }
  Task<void> close() override {
    if (auto closed = co_await store_->close(); !closed) log_warn("streams.index_not_closed", "{}; the next start fills it from the log", closed.error().detail);
  }

 private:
  std::unique_ptr<PoolCalls> calls_;  // outlives the store
  std::unique_ptr<stream::RocksStore> store_;
};

}  // namespace

Task<Result<std::unique_ptr<service::StreamIndexes>>> open_stream_indexes(io_asio::Loop& loop, std::string data_directory, ShardIndex shard) {
  int event_fd = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (event_fd < 0) co_return fail(Errc::io_error, "no eventfd for the index of streams");
  auto calls = std::make_unique<PoolCalls>(loop, event_fd);
  TAILRACE_CO_TRY(auto store, co_await stream::RocksStore::open({.path = fmt::format("{}/shard-{}/streams", data_directory, shard.value())}, *calls));
  if (store->begun_anew()) log_info("streams.index_begun", "shard {}: the index of streams is filled from the log", shard.value());
  co_return std::make_unique<RocksIndexes>(std::move(calls), std::move(store));
}

}  // namespace tailrace::broker::server
