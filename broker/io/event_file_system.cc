#include "io/event_file_system.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <coroutine>
#include <optional>
#include <type_traits>

#include "base/check.h"
#include "io/names.h"

namespace tailrace::broker::io {
namespace {

/// `auto answer = co_await OnWorker{workers, work}`: runs `work` on a worker and goes on, on the shard, with its answer.
template <class Work>
class OnWorker : private WorkerPool::Job {
 public:
  using Answer = std::invoke_result_t<Work&>;
  OnWorker(WorkerPool& pool, Work call) : pool_{pool}, call_{std::move(call)} {}
  [[nodiscard]] bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) {
    handle_ = handle;
    work = [](Job* job) noexcept {
      auto* self = static_cast<OnWorker*>(job);
      self->answer_.emplace(self->call_());
    };
    done = [](Job* job) noexcept { static_cast<OnWorker*>(job)->handle_.resume(); };
    pool_.submit(*this);
  }
  Answer await_resume() { return *std::move(answer_); }

 private:
  WorkerPool& pool_;
  Work call_;
  std::optional<Answer> answer_;
  std::coroutine_handle<> handle_;
};

/// Closing the last descriptor of a removed file frees its blocks, which takes a while: not on the shard.
struct CloseJob : WorkerPool::Job {
  explicit CloseJob(int f) : fd{f} {
    work = [](Job* job) noexcept { ::close(static_cast<CloseJob*>(job)->fd); };
    done = [](Job* job) noexcept { delete static_cast<CloseJob*>(job); };
  }
  int fd;
};

class DirectoryLock final : public Lock {
 public:
  explicit DirectoryLock(int fd) : fd_{fd} {}
  ~DirectoryLock() override { ::close(fd_); }
  DirectoryLock(const DirectoryLock&) = delete;
  DirectoryLock& operator=(const DirectoryLock&) = delete;

 private:
  int fd_;
};

}  // namespace

/// A file is its descriptor; what happens to a request is its file system's business.
class EventFile final : public File {
 public:
  EventFile(EventFileSystem& owner, int fd) : owner_{owner}, fd_{fd} {}
  ~EventFile() override { owner_.workers_.submit(*std::make_unique<CloseJob>(fd_).release()); }
  void read(Operation& op, MutableBytes into, std::uint64_t position) override {
    owner_.begin(Kind::read, fd_, op, into.data(), into.size(), position, false);
  }
  void write(Operation& op, Bytes from, std::uint64_t position, Durable durable) override {
    owner_.begin(Kind::write, fd_, op, const_cast<std::byte*>(from.data()), from.size(), position, durable == Durable::yes);
  }
  void sync(Operation& op) override { owner_.begin(Kind::sync, fd_, op, nullptr, 0, 0, false); }
  void allocate(Operation& op, std::uint64_t position, std::uint64_t length) override {
    owner_.begin(Kind::allocate, fd_, op, nullptr, length, position, false);
  }
  void truncate(Operation& op, std::uint64_t size) override { owner_.begin(Kind::truncate, fd_, op, nullptr, 0, size, false); }
  Result<std::uint64_t> size() override {
    struct stat status{};
    if (::fstat(fd_, &status) != 0) return std::unexpected(error_of(-errno, "size"));
    return static_cast<std::uint64_t>(status.st_size);
  }

 private:
  using Kind = EventFileSystem::Kind;
  EventFileSystem& owner_;
  int fd_;
};

EventFileSystem::EventFileSystem(std::size_t threads_max)
    : event_fd_{::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)}, workers_{threads_max, event_fd_} {
  TAILRACE_CHECK(event_fd_ >= 0, "a file backend needs a descriptor for its events; raise the limit on open files");
}

EventFileSystem::~EventFileSystem() {
  TAILRACE_CHECK(counters_.in_flight.value() == 0, "no operation outlives its file system");
  workers_.end();  // they write to the descriptor until then
  ::close(event_fd_);
}

void EventFileSystem::begin(Kind kind, int fd, Operation& op, std::byte* data, std::size_t length, std::uint64_t position, bool durable) {
  if (!free_) free_ = &requests_.emplace_back();
  Request& request = *free_;
  free_ = request.after;
  request.owner = this;
  request.operation = &op;
  request.data = data;
  request.length = length;
  request.position = position;
  request.fd = fd;
  request.kind = kind;
  request.durable = durable;
  request.after = nullptr;
  counters_.in_flight.add();
  switch (kind) {
    case Kind::read: counters_.reads.add(); break;
    case Kind::write: (durable ? counters_.durable_writes : counters_.writes).add(); break;
    case Kind::sync: counters_.syncs.add(); break;
    case Kind::allocate:
    case Kind::truncate: counters_.others.add(); break;
  }
  start(request);
}

void EventFileSystem::finish(Request& request, std::int64_t result) {
  Operation* op = request.operation;
  bool moves_bytes = request.kind == Kind::read || request.kind == Kind::write;
  if (moves_bytes && result > 0) {
    (request.kind == Kind::read ? counters_.bytes_read : counters_.bytes_written).add(static_cast<std::uint64_t>(result));
  }
  counters_.finished(result, moves_bytes ? request.length : 0);
  request.after = free_;
  free_ = &request;
  op->result = result;
  op->complete(op);
}

std::int64_t EventFileSystem::execute(const Request& request) noexcept {
  iovec part{request.data, request.length};
  auto position = static_cast<off_t>(request.position);
  std::int64_t result = 0;
  switch (request.kind) {
    case Kind::read: result = ::pread(request.fd, request.data, request.length, position); break;
    case Kind::write: result = ::pwritev2(request.fd, &part, 1, position, request.durable ? RWF_DSYNC : 0); break;
    case Kind::sync: result = ::fdatasync(request.fd); break;
    case Kind::allocate: result = ::fallocate(request.fd, 0, position, static_cast<off_t>(request.length)); break;
    case Kind::truncate: result = ::ftruncate(request.fd, position); break;
  }
  return result < 0 ? -errno : result;
}

void EventFileSystem::start_on_worker(Request& request) {
  request.work = [](WorkerPool::Job* job) noexcept {
    auto* self = static_cast<Request*>(job);
    self->result = execute(*self);
  };
  request.done = [](WorkerPool::Job* job) noexcept {
    auto* self = static_cast<Request*>(job);
    self->owner->finish(*self, self->result);
  };
  workers_.submit(request);
}

void EventFileSystem::clear_event() {
  std::uint64_t count = 0;
  while (::read(event_fd_, &count, sizeof count) < 0 && errno == EINTR) {  // one read empties an eventfd
  }
}

void EventFileSystem::signal_event() {
  std::uint64_t one = 1;
  while (::write(event_fd_, &one, sizeof one) < 0 && errno == EINTR) {
  }
}

Task<Result<std::unique_ptr<File>>> EventFileSystem::open(std::string path, OpenOptions options) {
  auto work = [&] { return names::open(path, options); };
  TAILRACE_CO_TRY(int fd, co_await OnWorker(workers_, work));
  co_return std::make_unique<EventFile>(*this, fd);
}
Task<Result<void>> EventFileSystem::remove(std::string path) {
  auto work = [&] { return names::remove(path); };
  co_return co_await OnWorker(workers_, work);
}
Task<Result<void>> EventFileSystem::remove_directory(std::string path) {
  auto work = [&] { return names::remove_directory(path); };
  co_return co_await OnWorker(workers_, work);
}
Task<Result<void>> EventFileSystem::rename(std::string from, std::string to) {
  auto work = [&] { return names::rename(from, to); };
  co_return co_await OnWorker(workers_, work);
}
Task<Result<void>> EventFileSystem::make_directory(std::string path) {
  auto work = [&] { return names::make_directory(path); };
  co_return co_await OnWorker(workers_, work);
}
Task<Result<void>> EventFileSystem::sync_directory(std::string path) {
  auto work = [&] { return names::sync_directory(path); };
  co_return co_await OnWorker(workers_, work);
}
Task<Result<std::vector<DirectoryEntry>>> EventFileSystem::list(std::string path) {
  auto work = [&] { return names::list(path); };
  co_return co_await OnWorker(workers_, work);
}
Task<Result<Space>> EventFileSystem::space(std::string path) {
  auto work = [&] { return names::space(path); };
  co_return co_await OnWorker(workers_, work);
}
Task<Result<std::unique_ptr<Lock>>> EventFileSystem::lock(std::string path) {
  auto work = [&] { return names::lock(path); };
  TAILRACE_CO_TRY(int fd, co_await OnWorker(workers_, work));
  co_return std::make_unique<DirectoryLock>(fd);
}

}  // namespace tailrace::broker::io
