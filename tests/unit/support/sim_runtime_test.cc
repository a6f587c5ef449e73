#include "tests/support/sim_runtime.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "io/wait.h"
#include "tests/support/sim_disk.h"

namespace tailrace::broker::sim {
namespace {

struct Alarm : io::Timer {
  std::vector<int>* fired = nullptr;
  int number = 0;
};

// The heap must give timers in order of time, ties in order of arming, whatever was disarmed in between: everything else
// in the simulator leans on this order.
TEST(SimLoop, FiresTimersInOrderOfTimeThenOfArming) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    SimLoop loop{seed};
    Random random{seed};
    std::vector<int> fired;
    std::vector<Alarm> alarms(64);
    std::vector<std::pair<std::int64_t, int>> expected;
    for (int i = 0; i < 64; ++i) {
      auto& alarm = alarms[static_cast<std::size_t>(i)];
      alarm.fired = &fired;
      alarm.number = i;
      alarm.fire = [](io::Timer* timer) noexcept {
        auto* self = static_cast<Alarm*>(timer);
        self->fired->push_back(self->number);
      };
      auto due = static_cast<std::int64_t>(random.below(20));
      loop.arm(alarm, Instant{Duration{due}});
      expected.emplace_back(due, i);
    }
    for (int i = 0; i < 64; i += 3) {
      loop.disarm(alarms[static_cast<std::size_t>(i)]);
      std::erase_if(expected, [&](const auto& e) { return e.second == i; });
    }
    std::ranges::sort(expected);  // by time, then by number, which is the order of arming
    EXPECT_TRUE(loop.run_until_idle());
    std::vector<int> order;
    for (const auto& [due, number] : expected) order.push_back(number);
    ASSERT_EQ(fired, order) << "seed " << seed;
  }
}

Task<int> sleeps(io::Runtime* runtime, Duration duration) {
  co_await io::SleepUntil{*runtime, runtime->clock.now() + duration};
  co_return 7;
}

// An hour of sleep costs no real time, and a wall clock that jumps or stops moves no timer.
TEST(SimLoop, MovesTimeOnlyToTimersAndKeepsThemApartFromTheWallClock) {
  SimMachine machine{1};
  WallTime wall = machine.loop.wall();
  machine.loop.jump_wall(-1h);
  machine.loop.stop_wall();
  EXPECT_EQ(machine.loop.run(sleeps(&machine.runtime, 30min), 1h), 7);
  EXPECT_EQ(machine.loop.now(), Instant{30min});
  EXPECT_EQ(machine.loop.wall(), wall - 1h);
  machine.loop.start_wall();
  machine.loop.run_for(5s);
  EXPECT_EQ(machine.loop.wall(), wall - 1h + 5s);
}

Task<int> never(Notifier* notifier) {
  co_await notifier->wait();
  co_return 1;
}

// A hang must end a test, not hold it: a run without an end answers nothing after its limit of virtual time.
TEST(SimLoop, GivesUpOnATaskThatHangs) {
  auto* machine = new SimMachine{1};  // both live on, as the hanging frame that points to them does
  auto* notifier = new Notifier{machine->loop};
  keep_forever(machine);
  keep_forever(notifier);
  EXPECT_FALSE(machine->loop.run(never(notifier), 1s).has_value());
}

// A draw more in one stream must not shift another, or a failing seed changes with every new draw.
TEST(SimLoop, StreamsAreIndependent) {
  SimLoop a{5}, b{5}, c{6};
  Random disk = a.stream("disk");
  Random other = a.stream("workload");
  (void)other.next();
  EXPECT_EQ(disk.next(), b.stream("disk").next());
  EXPECT_NE(a.stream("disk").next(), a.stream("workload").next());
  EXPECT_NE(b.stream("disk").next(), c.stream("disk").next());
}

}  // namespace
}  // namespace tailrace::broker::sim
