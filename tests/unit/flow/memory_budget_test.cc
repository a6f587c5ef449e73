#include "flow/memory_budget.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <deque>
#include <vector>

#include "base/task.h"

namespace tailrace::broker::flow {
namespace {

/// A loop that runs what was posted, when told to.
class Loop final : public Executor {
 public:
  void post(Runnable& work) override { queue_.push_back(&work); }
  void run() {
    while (!queue_.empty()) {
      Runnable* first = queue_.front();
      queue_.pop_front();
      first->run(first);
    }
  }

 private:
  std::deque<Runnable*> queue_;
};

struct Waiting : MemoryPool::Waiter {
  explicit Waiting(std::uint64_t wanted, std::vector<int>& order, int name) : order_{order}, name_{name} {
    bytes = wanted;
    granted = [](MemoryPool::Waiter* self, Result<Reservation> outcome) noexcept {
      auto* me = static_cast<Waiting*>(self);
      me->order_.push_back(me->name_);
      me->outcome = std::move(outcome);
    };
  }
  Result<Reservation> outcome{};

 private:
  std::vector<int>& order_;
  int name_;
};

// A reservation is the right to hold bytes; whoever drops it gives them back, on every path.
TEST(MemoryPool, GivesBackWhatAReservationHeld) {
  MemoryPool pool{"requests", 100, 4};
  {
    auto first = pool.try_reserve(60);
    ASSERT_TRUE(first);
    EXPECT_EQ(pool.used(), 60u);
    Reservation moved = *std::move(first);
    moved.shrink_to(10);
    EXPECT_EQ(pool.used(), 10u);
    EXPECT_EQ(pool.try_reserve(91).error().code, Errc::no_credit);
    EXPECT_TRUE(pool.try_reserve(90));
  }
  EXPECT_EQ(pool.used(), 0u);
  EXPECT_EQ(pool.used_max(), 100u);
}

// More than the whole pool can never be granted: waiting for it would be for ever.
TEST(MemoryPool, RefusesAtOnceWhatCanNeverFit) {
  MemoryPool pool{"requests", 100, 4};
  EXPECT_EQ(pool.try_reserve(101).error().code, Errc::too_large);
  std::vector<int> order;
  Waiting huge{101, order, 1};
  EXPECT_EQ(pool.wait(huge).error().code, Errc::too_large);
}

// A large request at the head would starve if small ones could pass it while memory trickles back.
TEST(MemoryPool, ServesWaitersInOrderEvenWhenALaterOneWouldFit) {
  MemoryPool pool{"requests", 100, 4};
  auto held = pool.try_reserve(80);
  std::vector<int> order;
  Waiting large{90, order, 1};
  Waiting small{10, order, 2};
  ASSERT_TRUE(pool.wait(large));
  ASSERT_TRUE(pool.wait(small));
  EXPECT_TRUE(order.empty());
  EXPECT_EQ(pool.try_reserve(5).error().code, Errc::no_credit);  // nor may a newcomer pass them
  held->release();
  EXPECT_EQ(order, (std::vector<int>{1, 2}));
  large.outcome->release();
  small.outcome->release();
}

// Waiting places are memory too.
TEST(MemoryPool, BoundsTheQueue) {
  MemoryPool pool{"requests", 10, 1};
  auto held = pool.try_reserve(10);
  std::vector<int> order;
  Waiting first{10, order, 1};
  Waiting second{10, order, 2};
  ASSERT_TRUE(pool.wait(first));
  EXPECT_EQ(pool.wait(second).error().code, Errc::too_many);
  pool.remove(first);
  EXPECT_EQ(pool.waiting(), 0u);
}

// A waiter that gives up must not hold up those behind it.
TEST(MemoryPool, ALeavingWaiterLetsTheNextOneIn) {
  MemoryPool pool{"requests", 100, 4};
  auto held = pool.try_reserve(50);
  std::vector<int> order;
  Waiting large{90, order, 1};
  Waiting small{10, order, 2};
  ASSERT_TRUE(pool.wait(large));
  ASSERT_TRUE(pool.wait(small));
  pool.remove(large);
  EXPECT_EQ(order, (std::vector<int>{2}));
  small.outcome->release();
}

Task<void> acquire_into(MemoryPool& pool, Executor& executor, std::uint64_t bytes, Result<Reservation>& into) {
  into = co_await pool.acquire(executor, bytes);
}

// At shutdown nobody may hang on memory that nobody will give back.
TEST(MemoryPool, ClosingEndsAllWaits) {
  Loop loop;
  MemoryPool pool{"requests", 100, 4};
  TaskScope scope;
  Result<Reservation> first{}, second{};
  scope.spawn(acquire_into(pool, loop, 70, first));
  ASSERT_TRUE(first && first->bytes() == 70);  // there was room: no turn of the loop was needed
  scope.spawn(acquire_into(pool, loop, 70, second));
  EXPECT_EQ(scope.running(), 1u);
  pool.close();
  loop.run();
  EXPECT_EQ(scope.running(), 0u);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Errc::closed);
  EXPECT_EQ(pool.try_reserve(1).error().code, Errc::closed);
}

// The sum of what is held never passes the limit, and everyone who waits is served once enough came back.
TEST(MemoryPool, HoldsItsLimitUnderAnyOrder) {
  rc::check([](std::vector<std::uint8_t> wishes, std::uint64_t seed) {
    MemoryPool pool{"requests", 300, 1'000};
    std::vector<int> order;
    std::deque<Waiting> waiting;
    std::size_t held_from = 0;
    for (std::size_t i = 0; i < wishes.size(); ++i) {
      waiting.emplace_back(wishes[i], order, static_cast<int>(i));
      RC_ASSERT(pool.wait(waiting.back()).has_value());
      RC_ASSERT(pool.used() <= pool.limit());
      seed = seed * 6364136223846793005ULL + 1;
      if (seed >> 63 && held_from < order.size()) waiting[static_cast<std::size_t>(order[held_from++])].outcome->release();
      RC_ASSERT(pool.used() <= pool.limit());
    }
    while (held_from < order.size()) waiting[static_cast<std::size_t>(order[held_from++])].outcome->release();
    RC_ASSERT(order.size() == wishes.size());
    RC_ASSERT(std::is_sorted(order.begin(), order.end()));
    RC_ASSERT(pool.used() == 0u);
  });
}

// The shares are the design: one kind of request must not eat what replies need.
TEST(MemoryBudget, OnePoolCannotTakeAnothersShare) {
  MemoryBudget budget{1'000'000, 8};
  auto all = budget.pool(Pool::requests).try_reserve(budget.pool(Pool::requests).limit());
  ASSERT_TRUE(all);
  EXPECT_FALSE(budget.pool(Pool::requests).try_reserve(1));
  EXPECT_TRUE(budget.pool(Pool::replies).try_reserve(1));
  EXPECT_LE(budget.limit(), 1'400'000u) << "streams on top";
}

}  // namespace
}  // namespace tailrace::broker::flow
