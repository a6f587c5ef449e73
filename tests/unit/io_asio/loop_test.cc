#include "io_asio/loop.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <future>
#include <thread>
#include <vector>

#include "base/task.h"
#include "io/wait.h"
#include "model/limits.h"
#include "shard/shards.h"

namespace tailrace::broker::io_asio {
namespace {

struct StopAt : io::Timer {
  Loop& loop;
  StopAt(Loop& l, Duration in) : loop{l} {
    fire = [](io::Timer* self) noexcept { static_cast<StopAt*>(self)->loop.stop(); };
    loop.arm(*this, loop.now() + in);
  }
};
struct Fired : io::Timer {
  std::vector<int>* log;
  int name;
  Instant at{};
  Loop* loop;
  Fired(Loop* l, std::vector<int>* v, int n, Duration in) : log{v}, name{n}, loop{l} {
    fire = [](io::Timer* self) noexcept {
      auto* me = static_cast<Fired*>(self);
      me->log->push_back(me->name);
      me->at = me->loop->now();
    };
    loop->arm(*this, loop->now() + in);
  }
};

// A far timer must not hold a broker that wants to stop.
TEST(Loop, StopsPromptlyWithAFarTimerArmed) {
  Loop loop;
  std::vector<int> log;
  Fired far{&loop, &log, 1, 1h};
  std::jthread stopper{[&] {
    std::this_thread::sleep_for(20ms);
    loop.stop();
  }};
  Instant start = loop.now();
  loop.run();
  EXPECT_LT(loop.now() - start, 5s);
  EXPECT_TRUE(log.empty());
  loop.disarm(far);
}

// A stop that comes before run() counts as well: a shard may be told to stop while its thread still starts.
TEST(Loop, AStopBeforeRunIsNotForgotten) {
  Loop loop;
  loop.stop();
  loop.run();
  EXPECT_FALSE(loop.post_from_outside([] {}));
}

// Timers never fire early, fire in order, and a nearer one armed later is not held up by a farther one.
TEST(Loop, TimersFireInOrderAndNeverEarly) {
  Loop loop;
  std::vector<int> log;
  Instant start = loop.now();
  Fired third{&loop, &log, 3, 30ms}, first{&loop, &log, 1, 5ms}, second{&loop, &log, 2, 15ms};
  StopAt stop{loop, 40ms};
  loop.run();
  EXPECT_EQ(log, (std::vector{1, 2, 3}));
  EXPECT_GE(first.at - start, 5ms);
  EXPECT_GE(second.at - start, 15ms);
  EXPECT_GE(third.at - start, 30ms);
}

// Every function that was taken runs once, on the loop's thread, in its sender's order.
TEST(Loop, RunsWhatOtherThreadsPost) {
  constexpr int kThreads = 4, kEach = 5'000;
  Loop loop;
  std::thread::id loop_thread;
  std::vector<int> next(kThreads, 0);
  int ran = 0;
  bool ordered = true, right_thread = true;
  std::vector<std::jthread> senders;
  for (int t = 0; t < kThreads; ++t) {
    senders.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        auto work = [&, t, i] {
          ordered &= next[static_cast<std::size_t>(t)]++ == i;
          right_thread &= std::this_thread::get_id() == loop_thread;
          if (++ran == kThreads * kEach) loop.stop();
        };
        while (!loop.post_from_outside(work)) std::this_thread::yield();  // full: wait, as a caller would
      }
    });
  }
  loop_thread = std::this_thread::get_id();
  loop.run();
  senders.clear();
  EXPECT_EQ(ran, kThreads * kEach);
  EXPECT_TRUE(ordered);
  EXPECT_TRUE(right_thread);
}

// The queue of outside posts is bounded, and what never ran is destroyed with the loop: a waiting thread learns it.
TEST(Loop, RefusesPostsBeyondTheLimitAndDropsUnrunOnes) {
  std::future<void> result;
  {
    Loop loop;
    auto promise = std::make_unique<std::promise<void>>();
    result = promise->get_future();
    EXPECT_TRUE(loop.post_from_outside([promise = std::move(promise)] { promise->set_value(); }));
    for (std::size_t i = 1; i < limits::kOutsidePostsMax; ++i) ASSERT_TRUE(loop.post_from_outside([] {}));
    EXPECT_FALSE(loop.post_from_outside([] {}));
  }
  EXPECT_THROW(result.get(), std::future_error);
}

// An event descriptor may be written at any time, from any thread; no count is lost, whatever turn it falls into.
TEST(Loop, LosesNoEventOfAWatchedDescriptor) {
  constexpr std::uint64_t kEvents = 20'000;
  Loop loop;
  int fd = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  ASSERT_GE(fd, 0);
  std::uint64_t seen = 0;
  loop.watch(fd, [&] {
    std::uint64_t count = 0;
    while (::read(fd, &count, sizeof count) > 0) seen += count;
    if (seen == kEvents) loop.stop();
  });
  std::jthread writer{[&] {
    for (std::uint64_t i = 0; i < kEvents; ++i) {
      std::uint64_t one = 1;
      ASSERT_EQ(::write(fd, &one, sizeof one), static_cast<ssize_t>(sizeof one));
    }
  }};
  loop.run();
  EXPECT_EQ(seen, kEvents);
  loop.unwatch(fd);
  writer.join();
  ::close(fd);
}

Task<void> call_many(shard::Port* port, ShardIndex target, std::uint64_t* theirs, int count) {
  for (int i = 0; i < count; ++i) {
    co_await port->call_on(target, [theirs]() -> Task<void> {
      ++*theirs;
      co_return;
    });
  }
}
Task<void> call_and_report(shard::Port* port, ShardIndex target, std::uint64_t* theirs, std::atomic<int>* finished, Loop* loops) {
  TaskScope scope;
  for (int i = 0; i < 10; ++i) scope.spawn(call_many(port, target, theirs, 5'000));
  co_await scope.drain();
  if (finished->fetch_add(1) == 1) {  // both directions are through: no reply is owed any more
    loops[0].stop();
    loops[1].stop();
  }
}

// The production loop and the calls between shards together: 100,000 calls, both ways at once, each answered once.
TEST(Loop, CarriesAHundredThousandCallsBetweenTwoShards) {
  Loop loops[2];
  shard::Shards shards{{{loops[0].inbox(), loops[0]}, {loops[1].inbox(), loops[1]}}};
  std::uint64_t counts[2] = {0, 0};
  std::atomic<int> finished{0};
  TaskScope scopes[2];
  auto shard = [&](std::uint32_t self) {
    scopes[self].spawn(call_and_report(&shards.port(ShardIndex{self}), ShardIndex{1 - self}, &counts[1 - self], &finished, loops));
    loops[self].run();
  };
  std::jthread other{[&] { shard(1); }};
  shard(0);
  other.join();
  EXPECT_EQ(counts[0], 50'000u);
  EXPECT_EQ(counts[1], 50'000u);
}

}  // namespace
}  // namespace tailrace::broker::io_asio
