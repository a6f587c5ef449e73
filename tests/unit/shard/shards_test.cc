#include "shard/shards.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "base/notifier.h"
#include "shard/ready_queue.h"

namespace tailrace::broker::shard {
namespace {

/// The smallest loop that can own an inbox: sleeps on a condition variable. It shows that shards need no reactor.
class ThreadLoop : private Wake {
 public:
  Inbox& inbox() { return inbox_; }
  ReadyQueue& ready() { return ready_; }
  void run_until(const bool& done) {  // `done` is set on this thread
    while (!done) {
      inbox_.deliver();
      ready_.run(64);
      if (!ready_.empty() || done || !inbox_.may_sleep()) continue;
      std::unique_lock lock{mutex_};
      awake_.wait(lock, [&] { return woken_; });
      woken_ = false;
    }
  }
  void turn() {  // for tests on one thread
    inbox_.deliver();
    ready_.run(1'000'000);
  }

 private:
  void wake() noexcept override {
    std::lock_guard lock{mutex_};
    woken_ = true;
    awake_.notify_one();
  }
  std::mutex mutex_;
  std::condition_variable awake_;
  bool woken_ = false;
  Inbox inbox_{*this};
  ReadyQueue ready_;
};

struct TwoShards {
  ThreadLoop loops[2];
  Shards shards{{{loops[0].inbox(), loops[0].ready()}, {loops[1].inbox(), loops[1].ready()}}};
  Port& a = shards.port(ShardIndex{0});
  Port& b = shards.port(ShardIndex{1});
};

Task<int> doubled(int n) { co_return 2 * n; }
Task<void> ask(Port* port, ShardIndex target, int n, int* answer) {
  *answer = co_await port->call_on(target, [n] { return doubled(n); });
}

// A call to oneself must not wait for a turn of the loop: it costs what a function call costs.
TEST(Shards, ACallToTheOwnShardRunsInline) {
  TwoShards two;
  TaskScope scope;
  int answer = 0;
  scope.spawn(ask(&two.a, ShardIndex{0}, 21, &answer));
  EXPECT_EQ(answer, 42);
  EXPECT_EQ(two.a.counters().calls, 0u);
}

Task<void> ask_in_every_way(Port* port, std::string* log) {
  std::string text = co_await port->call_on(ShardIndex{1}, [] { return std::string(100, 'v'); });  // a plain value
  co_await port->call_on(ShardIndex{1}, [log] { *log += "plain "; });                             // nothing
  co_await port->call_on(ShardIndex{1}, [log]() -> Task<void> {                                    // a task that answers nothing
    *log += "task ";
    co_return;
  });
  auto owned = std::make_unique<int>(7);  // captures and answers may be move-only
  auto back = co_await port->call_on(ShardIndex{1}, [owned = std::move(owned)]() mutable { return std::move(owned); });
  *log += std::to_string(text.size()) + " " + std::to_string(*back);
}

// Request and reply are one message each way, whatever the function answers.
TEST(Shards, AFunctionMayAnswerAValueNothingOrATask) {
  TwoShards two;
  TaskScope scope;
  std::string log;
  scope.spawn(ask_in_every_way(&two.a, &log));
  for (int i = 0; i < 10; ++i) {
    two.loops[1].turn();
    two.loops[0].turn();
  }
  EXPECT_EQ(log, "plain task 100 7");
  EXPECT_EQ(scope.running(), 0u);
  EXPECT_EQ(two.a.counters().calls, 4u);
  EXPECT_EQ(two.b.counters().served, 4u);
}

Task<void> hold(Port* port, Notifier* gate, int* served, int* done) {
  co_await port->call_on(ShardIndex{1}, [gate, served]() -> Task<void> {
    ++*served;
    co_await gate->wait();
  });
  ++*done;
}

// The bound on calls in flight: the surplus waits in order at the caller, and gets its turn as replies come back.
TEST(Shards, CallersBeyondTheLimitWaitAndNothingIsLost) {
  constexpr int kSurplus = 10;
  constexpr int kCalls = static_cast<int>(limits::kShardCallsInFlightMax) + kSurplus;
  TwoShards two;
  Notifier gate{two.loops[1].ready()};
  TaskScope scope;
  int served = 0, done = 0;
  for (int i = 0; i < kCalls; ++i) scope.spawn(hold(&two.a, &gate, &served, &done));
  two.loops[1].turn();
  EXPECT_EQ(served, kCalls - kSurplus);
  EXPECT_EQ(two.a.counters().waits, static_cast<std::uint64_t>(kSurplus));
  EXPECT_EQ(two.b.serving(), static_cast<std::size_t>(kCalls - kSurplus));
  gate.notify_one();
  two.loops[1].turn();
  two.loops[0].turn();
  two.loops[1].turn();
  EXPECT_EQ(done, 1);
  EXPECT_EQ(served, kCalls - kSurplus + 1);
  for (int i = 0; i < kCalls; ++i) {
    gate.notify_all();
    two.loops[1].turn();
    two.loops[0].turn();
  }
  EXPECT_EQ(done, kCalls);
  EXPECT_EQ(scope.running(), 0u);
}

/// Everything here is one shard's state: the thread sanitizer sees it if a call runs on the wrong thread.
struct CounterState {
  std::uint64_t value = 0;
};

Task<void> add_many(Port* port, ShardIndex target, CounterState* theirs, std::uint64_t count, std::uint64_t* sum) {
  for (std::uint64_t i = 1; i <= count; ++i) {
    *sum += co_await port->call_on(target, [theirs, i]() -> Task<std::uint64_t> {
      theirs->value += i;
      co_return i;
    });
  }
}
Task<void> spawn_and_drain(Port* port, ShardIndex target, CounterState* theirs, std::uint64_t* sum, bool* done) {
  constexpr int kTasks = 50;
  TaskScope scope;
  std::vector<std::uint64_t> sums(kTasks);
  for (int i = 0; i < kTasks; ++i) scope.spawn(add_many(port, target, theirs, 1'000, &sums[static_cast<std::size_t>(i)]));
  co_await scope.drain();
  for (auto s : sums) *sum += s;
  *done = true;
}

// 100,000 calls between two threads, 50 at a time each way: every one arrives once and its reply comes home.
TEST(Shards, AHundredThousandCallsBetweenTwoThreads) {
  TwoShards two;
  CounterState states[2];
  std::uint64_t sums[2] = {0, 0};
  std::atomic<int> finished{0};
  auto shard = [&](std::uint32_t self) {
    bool ours_done = false, all_done = false;
    TaskScope scope;
    scope.spawn(spawn_and_drain(&two.shards.port(ShardIndex{self}), ShardIndex{1 - self}, &states[1 - self], &sums[self], &ours_done));
    two.loops[self].run_until(ours_done);
    finished.fetch_add(1);
    // The other side may still need answers: serve until both are through.
    while (!all_done) {
      two.loops[self].turn();
      all_done = finished.load() == 2;
      std::this_thread::yield();
    }
    two.loops[self].turn();
  };
  std::thread other{[&] { shard(1); }};
  shard(0);
  other.join();
  constexpr std::uint64_t kSum = 50 * (1'000 * 1'001 / 2);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(states[i].value, kSum);
    EXPECT_EQ(sums[i], kSum);
  }
  EXPECT_EQ(two.a.counters().calls + two.b.counters().calls, 100'000u);
}

}  // namespace
}  // namespace tailrace::broker::shard
