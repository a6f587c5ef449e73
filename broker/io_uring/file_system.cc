#include "io_uring/file_system.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <liburing.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/check.h"
#include "base/log.h"
#include "model/limits.h"

namespace tailrace::broker::io_uring {
namespace {

struct Step {
  unsigned flags;
  std::string_view name;
};
constexpr unsigned kDeferred = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
constexpr std::array<Step, 4> kSteps{{
    {kDeferred | IORING_SETUP_SUBMIT_ALL, "single issuer, deferred task work"},                                               // 6.1
    {IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL, "cooperative task work"},                                           // 5.19
    {IORING_SETUP_SUBMIT_ALL, "submit all"},                                                                                  // 5.18
    {0, "plain"},
}};
// Room for completions, and so the bound on operations that the kernel holds.
constexpr unsigned kCompletions = 4 * limits::kRingEntries;
// One operation moves at most this much; the caller goes on, as after any short write. The kernel's own bound is 2 GiB - 4 KiB.
constexpr std::size_t kBytesMax = std::size_t{1} << 30;

std::string why_refused(int number) {
  switch (number) {
    case EPERM: return "EPERM: blocked here, typical of a container's default seccomp profile or of kernel.io_uring_disabled";
    case EACCES: return "EACCES: a security module forbids it";
    case ENOSYS: return "ENOSYS: the kernel has none, or a seccomp profile hides it";
    case ENOMEM: return "ENOMEM: the limit on locked memory (ulimit -l) is too low";
    default: {
      char text[128] = {};
      return fmt::format("errno {}: {}", number, ::strerror_r(number, text, sizeof text));
    }
  }
}
std::unexpected<Error> refused(int number) { return fail(Errc::io_uring_refused, why_refused(number)); }

}  // namespace

struct FileSystem::Ring {
  struct ::io_uring ring{};
  unsigned in_kernel = 0;  // prepared or submitted, and not completed
  std::array<MutableBytes, limits::kRingPinnedMax> pinned{};  // by their number in the ring; empty: not used
  bool may_pin = false;
  std::string_view mode;
  bool deferred = false;  // completions appear only in io_uring_get_events, and IORING_SQ_TASKRUN says that some wait
  bool open = false;
  ~Ring() {
    if (open) ::io_uring_queue_exit(&ring);
  }

  /// Whether a call of io_uring_get_events would bring completions.
  [[nodiscard]] bool more_waits() {
    return ::io_uring_cq_ready(&ring) != 0 || (__atomic_load_n(ring.sq.kflags, __ATOMIC_ACQUIRE) & IORING_SQ_TASKRUN) != 0;
  }

  /// The number of the registered memory that holds these bytes, or -1.
  [[nodiscard]] int pinned_index(const std::byte* data, std::size_t length) const {
    for (std::size_t i = 0; i < pinned.size(); ++i) {
      if (data >= pinned[i].data() && data < pinned[i].data() + pinned[i].size()) {
        return data + length <= pinned[i].data() + pinned[i].size() ? static_cast<int>(i) : -1;
      }
    }
    return -1;
  }
  /// 0 or an errno value. Empty memory gives the number back.
  int register_memory(std::size_t index, MutableBytes memory) {
    iovec part{memory.data(), memory.size()};
    std::uint64_t tag = 0;
    int done = ::io_uring_register_buffers_update_tag(&ring, static_cast<unsigned>(index), &part, reinterpret_cast<__u64*>(&tag), 1);
    return done < 0 ? -done : 0;
  }

  /// 0 or an errno value.
  int set_up(std::size_t first_step) {
    int number = EINVAL;
    for (std::size_t i = first_step; i < kSteps.size(); ++i) {
      io_uring_params parameters{};
      parameters.flags = kSteps[i].flags | IORING_SETUP_CQSIZE;
      parameters.cq_entries = kCompletions;
      number = -::io_uring_queue_init_params(limits::kRingEntries, &ring, &parameters);
      if (number == 0) {
        mode = kSteps[i].name;
        deferred = (kSteps[i].flags & IORING_SETUP_DEFER_TASKRUN) != 0;
        open = true;
        return check_operations();
      }
      if (number != EINVAL) break;  // EINVAL: a flag this kernel does not know
    }
    return number;
  }
  /// The operations we use are there, and a round trip works: a filter may let set-up pass and refuse the rest.
  int check_operations() {
    io_uring_probe* known = ::io_uring_get_probe_ring(&ring);
    if (!known) return ENOSYS;
    bool all = true;
    for (int operation : {IORING_OP_READ, IORING_OP_WRITE, IORING_OP_FSYNC, IORING_OP_FALLOCATE}) {
      all = all && ::io_uring_opcode_supported(known, operation);
    }
    ::io_uring_free_probe(known);
    if (!all) return ENOSYS;
    ::io_uring_prep_nop(::io_uring_get_sqe(&ring));
    int submitted = ::io_uring_submit_and_wait(&ring, 1);
    if (submitted < 0) return -submitted;
    io_uring_cqe* cqe = nullptr;
    if (::io_uring_peek_cqe(&ring, &cqe) != 0) return EIO;
    ::io_uring_cqe_seen(&ring, cqe);
    return 0;
  }
};

Result<void> probe() {
  auto ring = std::make_unique<FileSystem::Ring>();
  if (int number = ring->set_up(0); number != 0) return refused(number);
  return {};
}

Result<std::unique_ptr<FileSystem>> FileSystem::create(Executor& executor, Options options) {
  auto ring = std::make_unique<Ring>();
  if (int number = ring->set_up(static_cast<std::size_t>(options.first_step)); number != 0) return refused(number);
  std::unique_ptr<FileSystem> files{new FileSystem{executor, std::move(ring)}};
  auto& raw = files->ring_->ring;
  if (int error = ::io_uring_register_eventfd(&raw, files->event_fd()); error != 0) return refused(-error);
  files->ring_->may_pin = ::io_uring_register_buffers_sparse(&raw, limits::kRingPinnedMax) == 0;  // from 5.19 on
  unsigned workers[2] = {limits::kRingWorkersMax, 0};  // bounded (files); 0 leaves the unbounded ones (sockets: unused)
  if (int error = ::io_uring_register_iowq_max_workers(&raw, workers); error != 0) {
    log_debug("io.workers_uncapped", "cannot cap the ring's kernel workers: {}", why_refused(-error));  // before 5.15
  }
  return files;
}

FileSystem::FileSystem(Executor& executor, std::unique_ptr<Ring> ring) : EventFileSystem{1}, executor_{executor}, ring_{std::move(ring)} {
  flush_.owner = this;
  flush_.run = [](Runnable* self) noexcept {
    auto* flush = static_cast<Flush*>(self);
    flush->posted = false;
    flush->owner->flush();
  };
}

FileSystem::~FileSystem() {
  TAILRACE_CHECK(!flush_.posted, "a file system's last submission runs before it goes away");
}

std::string_view FileSystem::mode() const { return ring_->mode; }

void FileSystem::post_flush() {
  if (flush_.posted) return;
  flush_.posted = true;
  executor_.post(flush_);
}

void FileSystem::start(Request& request) {
  if (request.kind == Kind::truncate) return start_on_worker(request);  // no ring operation before kernel 6.9
  post_flush();
  if (!first_waiting_ && prepare(request)) {
    if (prepared_bytes_ >= limits::kRingSubmitBytes) flush();
    return;
  }
  (last_waiting_ ? last_waiting_->after : first_waiting_) = &request;
  last_waiting_ = &request;
  counters_.queued.add();
}

void FileSystem::pin(MutableBytes memory) {
  if (!ring_->may_pin || memory.empty()) return;
  // Few large pages instead of many small ones make each operation's list of pages short; without them it works as well.
  ::madvise(memory.data(), memory.size(), MADV_HUGEPAGE);
  auto free = std::ranges::find_if(ring_->pinned, [](MutableBytes p) { return p.empty(); });
  if (free == ring_->pinned.end()) return;
  if (int error = ring_->register_memory(static_cast<std::size_t>(free - ring_->pinned.begin()), memory); error != 0) {
    return log_debug("io.not_pinned", "{} bytes stay unregistered: {}", memory.size(), why_refused(error));
  }
  *free = memory;
}

void FileSystem::unpin(MutableBytes memory) {
  auto found = std::ranges::find_if(ring_->pinned, [&](MutableBytes p) { return !p.empty() && p.data() == memory.data(); });
  if (found == ring_->pinned.end()) return;
  *found = {};  // from here on no operation names it; if the kernel keeps it none the less, then until the ring goes
  if (int error = ring_->register_memory(static_cast<std::size_t>(found - ring_->pinned.begin()), {}); error != 0) {
    log_debug("io.not_unpinned", "{} bytes stay registered: {}", memory.size(), why_refused(error));
  }
}

/// False: no room now.
bool FileSystem::prepare(Request& request) {
  if (ring_->in_kernel >= kCompletions) return false;
  io_uring_sqe* sqe = ::io_uring_get_sqe(&ring_->ring);
  if (!sqe) return false;
  auto length = static_cast<unsigned>(std::min(request.length, kBytesMax));
  bool moves_bytes = request.kind == Kind::read || request.kind == Kind::write;
  int pinned = moves_bytes ? ring_->pinned_index(request.data, length) : -1;
  switch (request.kind) {
    case Kind::read:
      if (pinned < 0) ::io_uring_prep_read(sqe, request.fd, request.data, length, request.position);
      else ::io_uring_prep_read_fixed(sqe, request.fd, request.data, length, request.position, pinned);
      break;
    case Kind::write:
      if (pinned < 0) ::io_uring_prep_write(sqe, request.fd, request.data, length, request.position);
      else ::io_uring_prep_write_fixed(sqe, request.fd, request.data, length, request.position, pinned);
      sqe->rw_flags = request.durable ? RWF_DSYNC : 0;
      break;
    case Kind::sync: ::io_uring_prep_fsync(sqe, request.fd, IORING_FSYNC_DATASYNC); break;
    case Kind::allocate:
      ::io_uring_prep_fallocate(sqe, request.fd, 0, static_cast<off_t>(request.position), static_cast<off_t>(request.length));
      break;
    case Kind::truncate: TAILRACE_CHECK(false, "truncation has no place in the ring"); break;
  }
  ::io_uring_sqe_set_data(sqe, &request);
  ++ring_->in_kernel;
  prepared_bytes_ += request.length;
  return true;
}

void FileSystem::submit_waiting() {
  while (first_waiting_) {
    Request* request = first_waiting_;
    Request* after = request->after;  // prepared requests are out of the list
    if (!prepare(*request)) return;
    request->after = nullptr;
    first_waiting_ = after;
    if (!after) last_waiting_ = nullptr;
    counters_.queued.subtract();
  }
}

void FileSystem::flush() {
  for (;;) {
    submit_waiting();
    if (::io_uring_sq_ready(&ring_->ring) == 0) return;
    int submitted = ::io_uring_submit(&ring_->ring);
    counters_.submits.add();
    prepared_bytes_ = 0;
    if (submitted > 0) continue;
    switch (-submitted) {
      // The kernel is short of memory, or wants its completions taken first: they come as events; try again after them.
      case 0: case EINTR: case EAGAIN: case ENOMEM: case EBUSY: return post_flush();
      default:
        log_error("io.submit_failed", "the ring refuses submissions: {}", why_refused(-submitted));
        TAILRACE_CHECK(false, "a ring is used by the thread that made it, and as the kernel expects");
    }
  }
}

void FileSystem::on_event() {
  counters_.wakes.add();
  clear_event();
  auto* ring = &ring_->ring;
  ::io_uring_get_events(ring);  // runs the deferred task work; without it no completion appears
  Request* first = nullptr;
  Request** end = &first;
  unsigned taken = 0, head = 0;
  io_uring_cqe* cqe = nullptr;
  io_uring_for_each_cqe(ring, head, cqe) {
    auto* request = static_cast<Request*>(::io_uring_cqe_get_data(cqe));
    request->result = cqe->res;
    *end = request;
    end = &request->after;
    ++taken;
  }
  *end = nullptr;
  ::io_uring_cq_advance(ring, taken);
  ring_->in_kernel -= taken;
  // Posting deferred completions has signalled the event descriptor once more; left there, it would cost an empty turn for
  // each full one. The kernel sets IORING_SQ_TASKRUN before it signals, so what comes in between is seen by one of the two.
  if (ring_->deferred) {
    clear_event();
    if (ring_->more_waits()) signal_event();
  }
  deliver_workers();
  if (first_waiting_) post_flush();
  while (first) {
    Request* request = first;
    first = request->after;
    finish(*request, request->result);
  }
}

}  // namespace tailrace::broker::io_uring
