#include "io_asio/ask.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>

#include "io/wait.h"

namespace tailrace::broker::io_asio {
namespace {

struct Sleeper : private io::Timer {
  Loop& loop;
  Duration time;
  std::coroutine_handle<> handle;
  Sleeper(Loop& l, Duration t) : loop{l}, time{t} {}
  [[nodiscard]] bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> h) {
    handle = h;
    fire = [](io::Timer* self) noexcept { static_cast<Sleeper*>(self)->handle.resume(); };
    loop.arm(*this, loop.now() + time);
  }
  void await_resume() const noexcept {}
};
Task<std::string> answer_later(Loop* loop, Duration time) {
  Sleeper sleep{*loop, time};
  co_await sleep;
  co_return "later";
}

// Metrics and start-up ask shards from outside: values, tasks and nothing at all come back to the thread that asked.
TEST(Ask, AnswersFromTheLoop) {
  Loop loop;
  std::jthread shard{[&] { loop.run(); }};
  EXPECT_EQ(ask(loop, [] { return 42; }, 10s), 42);
  EXPECT_EQ(ask(loop, [&] { return std::this_thread::get_id() == shard.get_id(); }, 10s), true);
  EXPECT_TRUE(ask(loop, [] {}, 10s));
  EXPECT_EQ(ask(loop, [&] { return answer_later(&loop, 5ms); }, 10s), "later");
  loop.stop();
}

// Whoever asks has a deadline, and a loop that ended is noticed at once: a scrape must never hang on a stuck shard.
TEST(Ask, GivesUpAtTheDeadlineOrWhenTheLoopHasEnded) {
  Loop loop;
  std::jthread shard{[&] { loop.run(); }};
  EXPECT_FALSE(ask(loop, [&] { return answer_later(&loop, 300ms); }, 10ms));
  EXPECT_EQ(ask(loop, [&] { return answer_later(&loop, 400ms); }, 10s), "later");  // outlives the first question's task
  loop.stop();
  shard.join();
  Instant start = loop.now();
  EXPECT_FALSE(ask(loop, [] { return 1; }, 10s));
  EXPECT_LT(loop.now() - start, 5s);
}

}  // namespace
}  // namespace tailrace::broker::io_asio
