#include "flow/credit_window.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <limits>
#include <vector>

namespace tailrace::broker::flow {
namespace {

// The protocol sends whole batches: without overdraw a batch larger than the credit could never be sent.
TEST(CreditWindow, OverdrawsByOneBatchAndThenWaits) {
  CreditWindow credit{10, 1000};
  ASSERT_TRUE(credit.may_send());
  credit.spend(4, 900);
  ASSERT_TRUE(credit.may_send());
  credit.spend(4, 900);
  EXPECT_EQ(credit.bytes(), -800);
  EXPECT_FALSE(credit.may_send());
  credit.grant(0, 800);
  EXPECT_FALSE(credit.may_send());  // zero is not positive
  credit.grant(0, 1);
  EXPECT_TRUE(credit.may_send());
}

// Both bounds hold: a consumer that counts records only must not be flooded with bytes, and the other way round.
TEST(CreditWindow, EitherBoundAloneStopsSending) {
  EXPECT_FALSE((CreditWindow{0, 1000}).may_send());
  EXPECT_FALSE((CreditWindow{1000, 0}).may_send());
}

// A hostile peer grants 2^64-1 again and again; the count must neither wrap nor become stuck.
TEST(CreditWindow, GrantsWithoutEndDoNotOverflow) {
  CreditWindow credit;
  for (int i = 0; i < 10'000; ++i) credit.grant(std::numeric_limits<std::uint64_t>::max(), std::numeric_limits<std::uint64_t>::max());
  EXPECT_EQ(credit.records(), CreditWindow::kMax);
  for (int i = 0; i < 4; ++i) credit.spend(std::numeric_limits<std::uint64_t>::max(), 1);
  EXPECT_EQ(credit.records(), -CreditWindow::kMax);
  EXPECT_FALSE(credit.may_send());
}

// Whatever the order of grants and batches, what is sent beyond the grants is less than the one batch that overdrew.
TEST(CreditWindow, NeverOverdrawsByMoreThanOneBatch) {
  rc::check([] {
    CreditWindow credit;
    std::int64_t granted = 0, sent = 0, largest = 0;
    for (auto step : *rc::gen::container<std::vector<std::pair<bool, std::uint16_t>>>(
             rc::gen::pair(rc::gen::arbitrary<bool>(), rc::gen::arbitrary<std::uint16_t>()))) {
      if (step.first) {
        credit.grant(step.second, 1 << 20);
        granted += step.second;
      } else if (credit.may_send()) {
        std::int64_t batch = step.second + 1;
        credit.spend(static_cast<std::uint64_t>(batch), 1);
        sent += batch;
        largest = std::max(largest, batch);
      }
      RC_ASSERT(credit.records() == granted - sent);
      RC_ASSERT(sent < granted + largest || sent == 0);
    }
  });
}

}  // namespace
}  // namespace tailrace::broker::flow
