#include "io/worker_pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <system_error>

#include "base/log.h"

namespace tailrace::broker::io {

void WorkerPool::end() {
  {
    std::lock_guard lock{mutex_};
    ending_ = true;
  }
  work_waits_.notify_all();
  for (auto& thread : threads_) thread.join();
  threads_.clear();
  deliver();
}

void WorkerPool::submit(Job& job) {
  job.next = nullptr;
  bool more_threads;
  {
    std::lock_guard lock{mutex_};
    (last_ ? last_->next : first_) = &job;
    last_ = &job;
    ++queued_;
    more_threads = queued_ > idle_ && threads_.size() < threads_max_;
  }
  work_waits_.notify_one();
  if (more_threads) start_thread();
}

void WorkerPool::start_thread() {
  // Signals are the main thread's business: a worker that inherited them might be the one to get SIGTERM.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    threads_.emplace_back([this] { run_worker(); });
  } catch (const std::system_error& error) {
    log_warn("io.no_thread", "no further thread for files: {}", error.what());
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (!threads_.empty()) return;
  // Not a single thread is to be had: do it here, which blocks the shard but loses nothing.
  while (first_) {
    Job* job = first_;
    first_ = job->next;
    if (!first_) last_ = nullptr;
    --queued_;
    job->work(job);
    finish(*job);
  }
}

void WorkerPool::run_worker() {
  pthread_setname_np(pthread_self(), "tailrace-files");
  // A shard is pinned to its processor; its workers block there for their disk and may use any.
  cpu_set_t any;
  std::memset(&any, 0xff, sizeof any);
  pthread_setaffinity_np(pthread_self(), sizeof any, &any);
  std::unique_lock lock{mutex_};
  for (;;) {
    ++idle_;
    work_waits_.wait(lock, [&] { return first_ != nullptr || ending_; });
    --idle_;
    if (!first_) return;
    Job* job = first_;
    first_ = job->next;
    if (!first_) last_ = nullptr;
    --queued_;
    lock.unlock();
    job->work(job);
    finish(*job);
    lock.lock();
  }
}

void WorkerPool::finish(Job& job) noexcept {
  Job* head = finished_.load(std::memory_order_relaxed);
  do {
    job.next = head;
  } while (!finished_.compare_exchange_weak(head, &job, std::memory_order_acq_rel, std::memory_order_relaxed));
  if (head) return;  // whoever found the list empty has woken the owner, who takes all of it
  std::uint64_t one = 1;
  while (::write(event_fd_, &one, sizeof one) < 0 && errno == EINTR) {
  }
}

std::size_t WorkerPool::deliver() {
  Job* taken = finished_.exchange(nullptr, std::memory_order_acq_rel);
  Job* ordered = nullptr;
  while (taken) {
    Job* next = taken->next;
    taken->next = ordered;
    ordered = taken;
    taken = next;
  }
  std::size_t count = 0;
  for (; ordered; ++count) {
    Job* job = ordered;
    ordered = ordered->next;
    job->done(job);
  }
  return count;
}

}  // namespace tailrace::broker::io
