#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "base/buffer.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/notifier.h"
#include "base/task.h"
#include "model/record_batch.h"
#include "model/topic.h"

namespace tailrace::broker {
namespace {

/// A flat loop without a reactor: enough to run any pure coroutine.
class ManualExecutor : public Executor {
 public:
  void post(Runnable& work) override {
    work.next = nullptr;
    (tail_ ? tail_->next : head_) = &work;
    tail_ = &work;
  }
  void run() {
    while (head_) {
      Runnable* first = head_;
      head_ = first->next;
      if (!head_) tail_ = nullptr;
      first->run(first);
    }
  }

 private:
  Runnable* head_ = nullptr;
  Runnable* tail_ = nullptr;
};

// The check value of the CRC catalogue, and chaining must agree with one call.
TEST(Crc32c, MatchesTheCatalogueAndChains) {
  EXPECT_EQ(crc32c(as_bytes("123456789")), 0xE3069283u);
  EXPECT_EQ(crc32c(as_bytes("56789"), crc32c(as_bytes("1234"))), 0xE3069283u);
  EXPECT_EQ(crc32c({}), 0u);
}

Task<int> add(int a, int b) { co_return a + b; }
Task<void> sum_into(int* out) {
  int first = co_await add(1, 2);
  *out = first + co_await add(3, 4);
}

// Symmetric transfer: a million awaits in one frame must not grow the stack.
Task<void> many(int* out) {
  for (int i = 0; i < 1'000'000; ++i) *out += co_await add(i & 1, 0);
}

TEST(Task, RunsToItsEndAndKeepsTheStackFlat) {
  TaskScope scope;
  int sum = 0, odd = 0;
  scope.spawn(sum_into(&sum));
  scope.spawn(many(&odd));
  EXPECT_EQ(sum, 10);
  EXPECT_EQ(odd, 500'000);
  EXPECT_EQ(scope.running(), 0u);
}

Task<void> wait_on(Notifier* notifier, int* woken) {
  co_await notifier->wait();
  ++*woken;
}

// Waiters run later from the flat loop, never inside notify.
TEST(Notifier, ResumesFromTheLoop) {
  ManualExecutor executor;
  Notifier notifier{executor};
  TaskScope scope;
  int woken = 0;
  for (int i = 0; i < 3; ++i) scope.spawn(wait_on(&notifier, &woken));
  notifier.notify_all();
  EXPECT_EQ(woken, 0);
  executor.run();
  EXPECT_EQ(woken, 3);
  EXPECT_EQ(scope.running(), 0u);
}

// A reader may read a whole group of fields and test once; nothing is read past the end.
RC_GTEST_PROP(ByteReader, NeverReadsPastTheEnd, (const std::vector<std::uint8_t>& input)) {
  ByteReader reader{std::as_bytes(std::span{input})};
  while (reader.ok()) {
    auto before = reader.remaining();
    (void)reader.varint();
    (void)reader.be<std::int32_t>();
    if (reader.ok()) RC_ASSERT(reader.remaining() + 5 <= before);
  }
  RC_ASSERT(reader.remaining() == 0u);
}

TEST(TopicName, AcceptsOnlyTheAllowList) {
  for (auto good : {"a", "orders", "Orders.v2_x-1", "x_"}) EXPECT_TRUE(check_topic_name(good)) << good;
  for (std::string bad : {"", ".", "..", "../x", "/abs", "a b", "a%2e", "a\n", "__metadata", "\xc3\xa4"}) EXPECT_FALSE(check_topic_name(bad)) << bad;
  EXPECT_TRUE(check_topic_name(std::string(249, 'a')));
  EXPECT_FALSE(check_topic_name(std::string(250, 'a')));
  EXPECT_FALSE(check_topic_name(std::string("a\0b", 3)));
  EXPECT_EQ(topic_clash_key("a.b"), topic_clash_key("a_b"));
}

TEST(BatchHeader, RefusesLengthsThatLie) {
  std::array<std::byte, batch_layout::kHeaderBytes> bytes{};
  bytes[batch_layout::kMagic] = std::byte{2};
  store_be(bytes.data() + batch_layout::kLength, std::int32_t{49});
  EXPECT_TRUE(read_batch_header(bytes, 1000));
  for (std::int32_t length : {48, 0, -1, 989, INT32_MAX}) {
    store_be(bytes.data() + batch_layout::kLength, length);
    EXPECT_FALSE(read_batch_header(bytes, 1000)) << length;
  }
  EXPECT_EQ(read_batch_header(Bytes{bytes}.first(60), 1000).error().code, Errc::unexpected_end);
}

}  // namespace
}  // namespace tailrace::broker
