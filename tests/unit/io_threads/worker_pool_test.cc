#include "io/worker_pool.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <thread>

namespace tailrace::broker::io {
namespace {

struct Step : WorkerPool::Job {
  std::vector<int>* ran;
  std::vector<int>* delivered;
  int name;
  std::thread::id on;
  Step(std::vector<int>* r, std::vector<int>* d, int n) : ran{r}, delivered{d}, name{n} {
    work = [](Job* job) noexcept {
      auto* me = static_cast<Step*>(job);
      me->ran->push_back(me->name);
      me->on = std::this_thread::get_id();
    };
    done = [](Job* job) noexcept {
      auto* me = static_cast<Step*>(job);
      me->delivered->push_back(me->name);
    };
  }
};

struct EventFd {
  int fd = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  ~EventFd() { ::close(fd); }
};

// One worker keeps the order of submission, so a close comes before the open that was asked for later.
TEST(WorkerPool, OneWorkerRunsAndDeliversInOrder) {
  EventFd event;
  std::vector<int> ran, delivered;
  std::vector<std::unique_ptr<Step>> steps;
  WorkerPool pool{1, event.fd};
  for (int i = 0; i < 200; ++i) {
    steps.push_back(std::make_unique<Step>(&ran, &delivered, i));
    pool.submit(*steps.back());
  }
  while (delivered.size() < 200) {
    pollfd waiting{event.fd, POLLIN, 0};
    ASSERT_EQ(::poll(&waiting, 1, 10'000), 1) << "a finished job wakes its owner";
    std::uint64_t count = 0;
    ASSERT_EQ(::read(event.fd, &count, sizeof count), static_cast<ssize_t>(sizeof count));
    pool.deliver();
  }
  for (int i = 0; i < 200; ++i) {
    EXPECT_EQ(ran[static_cast<std::size_t>(i)], i);
    EXPECT_EQ(delivered[static_cast<std::size_t>(i)], i);
    EXPECT_NE(steps[static_cast<std::size_t>(i)]->on, std::this_thread::get_id());
  }
}

// The end waits for all jobs: a file dropped at the last moment is closed, not leaked.
TEST(WorkerPool, EndRunsAndDeliversWhatIsLeft) {
  EventFd event;
  std::vector<int> ran, delivered;
  Step a{&ran, &delivered, 1}, b{&ran, &delivered, 2};
  WorkerPool pool{1, event.fd};
  pool.submit(a);
  pool.submit(b);
  pool.end();
  EXPECT_EQ(ran, (std::vector{1, 2}));
  EXPECT_EQ(delivered, (std::vector{1, 2}));
}

}  // namespace
}  // namespace tailrace::broker::io
