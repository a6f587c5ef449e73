#include "io/wait.h"

#include <gtest/gtest.h>

#include <optional>

#include "shard/ready_queue.h"
#include "shard/timer_queue.h"

namespace tailrace::broker::io {
namespace {

/// Time that the test moves, on the shard's own queues.
class ManualLoop final : public Clock, public Timers {
 public:
  [[nodiscard]] Instant now() const override { return now_; }
  [[nodiscard]] WallTime wall() const override { return WallTime{}; }
  void arm(Timer& timer, Instant due) override { timers_.arm(timer, due); }
  void disarm(Timer& timer) override { timers_.disarm(timer); }
  shard::ReadyQueue& ready() { return ready_; }
  [[nodiscard]] std::size_t armed() const { return timers_.size(); }
  void advance(Duration by) {
    now_ += by;
    timers_.fire_due(now_);
    ready_.run(1'000);
  }

 private:
  Instant now_{};
  shard::TimerQueue timers_;
  shard::ReadyQueue ready_;
};
class NoFiles final : public FileSystem {
 public:
  Task<Result<std::unique_ptr<File>>> open(std::string, OpenOptions) override { co_return fail(Errc::closed); }
  Task<Result<void>> remove(std::string) override { co_return fail(Errc::closed); }
  Task<Result<void>> remove_directory(std::string) override { co_return fail(Errc::closed); }
  Task<Result<void>> rename(std::string, std::string) override { co_return fail(Errc::closed); }
  Task<Result<void>> make_directory(std::string) override { co_return fail(Errc::closed); }
  Task<Result<void>> sync_directory(std::string) override { co_return fail(Errc::closed); }
  Task<Result<std::vector<DirectoryEntry>>> list(std::string) override { co_return fail(Errc::closed); }
  Task<Result<Space>> space(std::string) override { co_return fail(Errc::closed); }
  Task<Result<std::unique_ptr<Lock>>> lock(std::string) override { co_return fail(Errc::closed); }
  [[nodiscard]] std::string_view name() const override { return "none"; }
};

struct World {
  ManualLoop loop;
  NoFiles files;
  Random random{1};
  Runtime runtime{files, loop, loop, loop.ready(), random};
  Notifier notifier{loop.ready()};
  TaskScope scope;
};

Task<void> wait_until(World* world, Duration time, std::optional<bool>* notified) {
  *notified = co_await WaitUntil{world->notifier, world->runtime, world->loop.now() + time};
}
Task<void> sleep_for(World* world, Duration time, bool* woken) {
  co_await SleepUntil{world->runtime, world->loop.now() + time};
  *woken = true;
}

// Whichever comes first decides, and the other is taken back: no timer stays armed, nobody stays in the queue.
TEST(WaitUntil, AnswersWhatCameFirstAndForgetsTheOther) {
  World world;
  std::optional<bool> early, late;
  world.scope.spawn(wait_until(&world, 10ms, &early));
  world.scope.spawn(wait_until(&world, 30ms, &late));
  world.loop.advance(9ms);
  EXPECT_FALSE(early.has_value());
  world.loop.advance(1ms);
  EXPECT_EQ(early, false);
  EXPECT_FALSE(late.has_value());
  world.notifier.notify_all();
  EXPECT_FALSE(late.has_value()) << "waiters run from the flat loop, not inside notify";
  EXPECT_EQ(world.loop.armed(), 0u);
  world.loop.advance(0ms);
  EXPECT_EQ(late, true);
  EXPECT_FALSE(world.notifier.has_waiters());
  EXPECT_EQ(world.scope.running(), 0u);
}

// Both in the same turn: the waiter runs once, whichever order they come in.
TEST(WaitUntil, ANotifyAndADeadlineTogetherResumeOnce) {
  World world;
  std::optional<bool> first;
  world.scope.spawn(wait_until(&world, 10ms, &first));
  world.notifier.notify_all();
  world.loop.advance(10ms);
  EXPECT_EQ(first, true);
  EXPECT_EQ(world.scope.running(), 0u);
}

TEST(SleepUntil, SleepsUntilItsTime) {
  World world;
  bool woken = false;
  world.scope.spawn(sleep_for(&world, 5ms, &woken));
  world.loop.advance(4ms);
  EXPECT_FALSE(woken);
  world.loop.advance(1ms);
  EXPECT_TRUE(woken);
}

}  // namespace
}  // namespace tailrace::broker::io
