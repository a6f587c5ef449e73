#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <map>
#include <memory>

#include "shard/inbox.h"
#include "shard/ready_queue.h"
#include "shard/timer_queue.h"

namespace tailrace::broker::shard {
namespace {

Instant at(std::int64_t ns) { return Instant{Duration{ns}}; }

struct NamedTimer : io::Timer {
  int name = 0;
  std::vector<int>* fired = nullptr;
  NamedTimer(int n, std::vector<int>* log) : name{n}, fired{log} {
    fire = [](io::Timer* self) noexcept {
      auto* me = static_cast<NamedTimer*>(self);
      me->fired->push_back(me->name);
    };
  }
};

// A simulated run must repeat: equal due times fire in the order of arming, whatever the heap's shape.
TEST(TimerQueue, FiresByDueTimeThenByOrderOfArming) {
  TimerQueue queue;
  std::vector<int> fired;
  std::vector<std::unique_ptr<NamedTimer>> timers;
  for (int i = 0; i < 40; ++i) timers.push_back(std::make_unique<NamedTimer>(i, &fired));
  for (auto& timer : timers) queue.arm(*timer, at(timer->name % 2 == 0 ? 20 : 10));
  EXPECT_EQ(queue.next_due(), at(10));
  EXPECT_EQ(queue.fire_due(at(9)), 0u);
  EXPECT_EQ(queue.fire_due(at(20)), 40u);
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(fired[static_cast<std::size_t>(i)], 2 * i + 1);
    EXPECT_EQ(fired[static_cast<std::size_t>(i + 20)], 2 * i);
  }
  EXPECT_FALSE(queue.next_due());
}

struct Rearming : io::Timer {
  TimerQueue* queue = nullptr;
  int count = 0;
};

// A timer that arms itself for "now" must not keep the loop inside one call for ever.
TEST(TimerQueue, ATimerThatRearmsItselfForNowLetsTheCallEnd) {
  TimerQueue queue;
  Rearming timer;
  timer.queue = &queue;
  timer.fire = [](io::Timer* self) noexcept {
    auto* me = static_cast<Rearming*>(self);
    ++me->count;
    me->queue->arm(*me, me->due);
  };
  queue.arm(timer, at(1));
  EXPECT_EQ(queue.fire_due(at(5)), 1u);
  EXPECT_EQ(timer.count, 1);
  EXPECT_EQ(queue.next_due(), at(1));
  queue.disarm(timer);
  EXPECT_EQ(queue.size(), 0u);
}

// Against a sorted multimap: any sequence of arming, re-arming, disarming and firing gives the same order.
RC_GTEST_PROP(TimerQueue, AgreesWithASortedMap, ()) {
  TimerQueue queue;
  std::vector<int> fired, expected;
  std::vector<std::unique_ptr<NamedTimer>> timers;
  for (int i = 0; i < 12; ++i) timers.push_back(std::make_unique<NamedTimer>(i, &fired));
  std::multimap<std::int64_t, int> model;  // equal keys keep the order of insertion
  auto forget = [&](int name) { std::erase_if(model, [&](const auto& entry) { return entry.second == name; }); };
  auto steps = *rc::gen::container<std::vector<std::tuple<int, int, int>>>(
      rc::gen::tuple(rc::gen::inRange(0, 4), rc::gen::inRange(0, 12), rc::gen::inRange(0, 30)));
  for (auto [what, name, time] : steps) {
    if (what <= 1) {
      queue.arm(*timers[static_cast<std::size_t>(name)], at(time));
      forget(name);
      model.emplace(time, name);
    } else if (what == 2) {
      queue.disarm(*timers[static_cast<std::size_t>(name)]);
      forget(name);
    } else {
      queue.fire_due(at(time));
      while (!model.empty() && model.begin()->first <= time) {
        expected.push_back(model.begin()->second);
        model.erase(model.begin());
      }
    }
    RC_ASSERT(fired == expected);
    RC_ASSERT(queue.size() == model.size());
    RC_ASSERT(queue.next_due().has_value() == !model.empty());
    if (!model.empty()) RC_ASSERT(*queue.next_due() == at(model.begin()->first));
  }
}

struct Step : Runnable {
  std::vector<int>* log = nullptr;
  int name = 0;
  ReadyQueue* queue = nullptr;
  Step* then = nullptr;
  Step(std::vector<int>* l, int n, ReadyQueue* q = nullptr, Step* t = nullptr) : log{l}, name{n}, queue{q}, then{t} {
    run = [](Runnable* self) noexcept {
      auto* me = static_cast<Step*>(self);
      me->log->push_back(me->name);
      if (me->then) me->queue->post(*me->then);
    };
  }
};

// Posted work runs behind what was posted before it, never inside the handler that posted it, and the limit holds.
TEST(ReadyQueue, RunsInOrderAndStopsAtTheLimit) {
  ReadyQueue queue;
  std::vector<int> log;
  Step third{&log, 3};
  Step first{&log, 1, &queue, &third}, second{&log, 2};
  queue.post(first);
  queue.post(second);
  EXPECT_TRUE(log.empty());
  EXPECT_EQ(queue.run(2), 2u);
  EXPECT_EQ(log, (std::vector{1, 2}));
  EXPECT_FALSE(queue.empty());
  EXPECT_EQ(queue.run(100), 1u);
  EXPECT_EQ(log, (std::vector{1, 2, 3}));
  EXPECT_TRUE(queue.empty());
}

struct CountingWake : Wake {
  int wakes = 0;
  void wake() noexcept override { ++wakes; }
};
struct Letter : Message {
  std::vector<int>* log = nullptr;
  int name = 0;
  Letter(std::vector<int>* l, int n) : log{l}, name{n} {
    arrive = [](Message* self) noexcept {
      auto* me = static_cast<Letter*>(self);
      me->log->push_back(me->name);
    };
  }
};

// One wake for a batch, none while the owner is awake: a wake is a system call on the sender's path.
TEST(Inbox, WakesOnlyASleeperAndOncePerBatch) {
  CountingWake wake;
  Inbox inbox{wake};
  std::vector<int> log;
  Letter a{&log, 1}, b{&log, 2}, c{&log, 3};
  inbox.push(a);
  EXPECT_EQ(wake.wakes, 0);
  EXPECT_FALSE(inbox.may_sleep());
  EXPECT_EQ(inbox.deliver(), 1u);
  EXPECT_TRUE(inbox.may_sleep());
  EXPECT_TRUE(inbox.may_sleep());  // asking twice changes nothing
  inbox.push(b);
  inbox.push(c);
  EXPECT_EQ(wake.wakes, 1);
  EXPECT_FALSE(inbox.may_sleep());
  EXPECT_EQ(inbox.deliver(), 2u);
  EXPECT_EQ(inbox.deliver(), 0u);
  EXPECT_EQ(log, (std::vector{1, 2, 3}));
  EXPECT_TRUE(inbox.may_sleep());
  EXPECT_EQ(inbox.deliver(), 0u);  // woken for something else
  inbox.push(a);
  EXPECT_EQ(wake.wakes, 1);  // awake again since deliver()
}

}  // namespace
}  // namespace tailrace::broker::shard
