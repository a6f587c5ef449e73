#include "stream/warm_heads.h"

#include <gtest/gtest.h>

namespace tailrace::broker::stream {
namespace {

TEST(WarmHeads, TheLeastRecentlyUsedGoesFirst) {
  WarmHeads pool{1'000};
  std::size_t put = 0;
  while (pool.size() == put) pool.put(1, "s" + std::to_string(put), {.last = static_cast<Version>(put)}), ++put;
  EXPECT_LE(pool.bytes(), 1'000u);
  EXPECT_FALSE(pool.find(1, "s0"));
  ASSERT_TRUE(pool.find(1, "s1"));  // used now
  pool.put(1, "one more", {});
  EXPECT_TRUE(pool.find(1, "s1"));
  EXPECT_FALSE(pool.find(1, "s2"));
}

TEST(WarmHeads, PartitionsDoNotMeet) {
  WarmHeads pool{10'000};
  pool.put(1, "s", {.last = 4});
  pool.put(2, "s", {.last = 9});
  EXPECT_EQ(pool.find(1, "s")->last, 4);
  pool.forget(1);
  EXPECT_FALSE(pool.find(1, "s"));
  EXPECT_EQ(pool.find(2, "s")->last, 9);
  pool.forget(2);
  EXPECT_EQ(pool.bytes(), 0u);
}

}  // namespace
}  // namespace tailrace::broker::stream
