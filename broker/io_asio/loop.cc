#include "io_asio/loop.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/steady_timer.hpp>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <thread>
#include <vector>

#include "base/check.h"
#include "model/limits.h"
#include "shard/ready_queue.h"
#include "shard/timer_queue.h"

namespace tailrace::broker::io_asio {
namespace {

Instant monotonic_now() {
  return Instant{std::chrono::duration_cast<Duration>(std::chrono::steady_clock::now().time_since_epoch())};
}


}  // namespace

struct Loop::Impl : shard::Wake {
  /// Shared with its pending handler, which may come after unwatch().
  struct Watch {
    Watch(asio::io_context& context, int fd) : descriptor{context, fd} {}
    asio::posix::stream_descriptor descriptor;
    std::move_only_function<void()> on_event;
    bool fired = false;
  };

  Impl() : timer{context} {
    int fd = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    TAILRACE_CHECK(fd >= 0, "a loop needs a descriptor for its wake; raise the limit on open files");
    wake_fd = fd;
    watch(fd, [fd] {
      std::uint64_t count = 0;
      while (::read(fd, &count, sizeof count) == sizeof count) {
      }
    });
  }
  ~Impl() override {
    for (auto& entry : watches) {
      if (entry->descriptor.is_open()) entry->descriptor.release();
    }
    // Posts that nobody will run any more: destroyed, so that whoever waits for them learns it.
    abandoned = true;
    inbox.deliver();
    ::close(wake_fd);
  }

  void wake() noexcept override {
    std::uint64_t one = 1;
    // EAGAIN would mean a full counter, which wakes as well.
    while (::write(wake_fd, &one, sizeof one) < 0 && errno == EINTR) {
    }
  }

  void watch(int fd, std::move_only_function<void()> on_event) {
    auto entry = std::make_shared<Watch>(context, fd);
    entry->on_event = std::move(on_event);
    watches.push_back(entry);
    wait(std::move(entry));
  }
  void wait(std::shared_ptr<Watch> entry) {
    Watch* it = entry.get();
    it->descriptor.async_wait(asio::posix::stream_descriptor::wait_read, [entry = std::move(entry)](std::error_code error) {
      if (!error) entry->fired = true;
    });
  }
  void run_watches() {
    for (std::size_t i = 0; i < watches.size(); ++i) {
      if (!watches[i]->fired) continue;
      watches[i]->fired = false;
      watches[i]->on_event();
      wait(watches[i]);
    }
  }
  /// The one Asio timer follows the queue's head, but only towards earlier: one that fires too early costs an empty turn,
  /// less than a system call for each armed timer.
  void follow_timers() {
    auto due = timers.next_due();
    if (!due || *due >= armed_for) return;
    armed_for = *due;
    timer.expires_at(std::chrono::steady_clock::time_point{due->time_since_epoch()});
    timer.async_wait([this](std::error_code error) {
      if (!error) armed_for = Instant::max();
    });
  }

  asio::io_context context{1};
  asio::executor_work_guard<asio::io_context::executor_type> guard{context.get_executor()};
  asio::steady_timer timer;
  Instant armed_for = Instant::max();
  shard::TimerQueue timers;
  shard::ReadyQueue ready;
  std::vector<std::shared_ptr<Watch>> watches;
  int wake_fd = -1;
  std::atomic<bool> stopped{false};
  std::atomic<std::size_t> outside_posts{0};
  bool abandoned = false;
  shard::Inbox inbox{*this};
  Counters counters;
};

Loop::Loop() : impl_{std::make_unique<Impl>()} {}
Loop::~Loop() = default;

void Loop::run() {
  Impl& loop = *impl_;
  while (!loop.stopped.load(std::memory_order_acquire)) {
    loop.counters.turns.add();
    loop.follow_timers();
    if (loop.ready.empty() && loop.inbox.may_sleep()) {
      loop.counters.sleeps.add();
      loop.context.run_one();
    }
    loop.context.poll();
    loop.run_watches();
    if (loop.timers.next_due()) loop.timers.fire_due(monotonic_now());
    loop.counters.mail.add(loop.inbox.deliver());
    loop.counters.work.add(loop.ready.run(limits::kLoopTurnMax));
  }
}

void Loop::stop() noexcept {
  impl_->stopped.store(true, std::memory_order_release);
  impl_->wake();
}

void Loop::post(Runnable& work) { impl_->ready.post(work); }
void Loop::arm(io::Timer& timer, Instant due) { impl_->timers.arm(timer, due); }
void Loop::disarm(io::Timer& timer) { impl_->timers.disarm(timer); }
Instant Loop::now() const { return monotonic_now(); }
WallTime Loop::wall() const { return std::chrono::floor<std::chrono::milliseconds>(std::chrono::system_clock::now()); }

bool Loop::post_from_outside(std::move_only_function<void()> work) {
  if (impl_->stopped.load(std::memory_order_acquire)) return false;
  if (impl_->outside_posts.fetch_add(1, std::memory_order_relaxed) >= limits::kOutsidePostsMax) {
    impl_->outside_posts.fetch_sub(1, std::memory_order_relaxed);
    return false;
  }
  struct Post : shard::Message {
    Post(Impl& l, std::move_only_function<void()> w) : loop{l}, work{std::move(w)} {
      arrive = [](shard::Message* message) noexcept {
        std::unique_ptr<Post> self{static_cast<Post*>(message)};
        self->loop.outside_posts.fetch_sub(1, std::memory_order_relaxed);
        if (!self->loop.abandoned) self->work();
      };
    }
    Impl& loop;
    std::move_only_function<void()> work;
  };
  impl_->inbox.push(*std::make_unique<Post>(*impl_, std::move(work)).release());
  return true;
}

shard::Inbox& Loop::inbox() { return impl_->inbox; }
void Loop::watch(int event_fd, std::move_only_function<void()> on_event) { impl_->watch(event_fd, std::move(on_event)); }

void Loop::unwatch(int event_fd) {
  std::erase_if(impl_->watches, [&](const std::shared_ptr<Impl::Watch>& entry) {
    if (entry->descriptor.native_handle() != event_fd) return false;
    entry->descriptor.release();  // cancels the wait; the descriptor is the caller's
    return true;
  });
}

const Loop::Counters& Loop::counters() const { return impl_->counters; }
asio::io_context& Loop::context() { return impl_->context; }

}  // namespace tailrace::broker::io_asio
