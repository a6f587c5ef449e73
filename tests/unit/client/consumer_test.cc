#include <set>

#include "support.h"

namespace tailrace {
namespace {

Consumer consumer_of(Client& client, ConsumerOptions options = {}) {
  auto consumer = client.consumer("orders", std::move(options));
  EXPECT_TRUE(consumer) << consumer.error().to_string();
  return *consumer;
}

// From the start, in order, with everything a record has.
TEST(Consumer, ReadsAPartitionFromTheStart) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  Record full{.topic = "orders", .key = "k", .value = "0", .headers = {{"h", "1"}, {"h", std::nullopt}}, .time = Instant{Milliseconds{1234}}};
  broker.append("orders", 0, {&full, 1});
  fill(broker, 99, 0, 10, 1);
  auto client = client_of(broker);
  auto consumer = consumer_of(client);
  auto first = consumer.next(5s);
  ASSERT_TRUE(first && *first);
  const Message& message = **first;
  EXPECT_EQ(message.topic, "orders");
  EXPECT_EQ(message.at(), (Position{"orders", 0, 0}));
  EXPECT_EQ(message.key_text(), "k");
  EXPECT_EQ(message.headers, full.headers);
  EXPECT_EQ(message.time, *full.time);
  EXPECT_EQ(read_values(consumer, 99), numbered(99, 1));
  EXPECT_TRUE(eventually([&] { return consumer.caught_up(); }));
  EXPECT_FALSE(consumer.finished());  // there is no `until`
}

struct StartCase {
  From start;
  int first;
};
class ConsumerStart : public ::testing::TestWithParam<StartCase> {};
TEST_P(ConsumerStart, BeginsWhereItIsTold) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  std::vector<Record> records;
  for (int i = 0; i < 50; ++i) {
    records.push_back(record_of(std::to_string(i)));
    records.back().time = Instant{Milliseconds{1000 + i}};
  }
  broker.append("orders", 0, records);
  auto client = client_of(broker);
  auto consumer = consumer_of(client, {.start = GetParam().start});
  fill(broker, 1, 0, 1, 50);
  EXPECT_EQ(read_values(consumer, static_cast<std::size_t>(51 - GetParam().first)), numbered(51 - GetParam().first, GetParam().first));
}
INSTANTIATE_TEST_SUITE_P(Places, ConsumerStart,
                         ::testing::Values(StartCase{From::earliest(), 0}, StartCase{From::latest(), 50}, StartCase{From::offset(17), 17},
                                           StartCase{From::time(Instant{Milliseconds{1030}}), 30}, StartCase{From::last(5), 45},
                                           StartCase{From::last(500), 0}, StartCase{From::time(Instant{Milliseconds{99'999'999'999'999}}), 50}));

// `until` ends the reading in every partition, and finished() says so; next() then answers at once.
TEST(Consumer, StopsAtUntil) {
  FakeBroker broker;
  broker.create_topic("orders", 3);
  fill(broker, 30, 0);
  fill(broker, 25, 1);
  auto client = client_of(broker);
  auto consumer = consumer_of(client, {.until = From::latest()});
  fill(broker, 10, 0, 10, 1000);  // after it was opened: not read
  EXPECT_EQ(read_values(consumer, 1000, 5s).size(), 55u);
  EXPECT_TRUE(consumer.finished());
  auto before = SteadyClock::now();
  auto after = consumer.next(10s);
  ASSERT_TRUE(after);
  EXPECT_FALSE(*after);
  EXPECT_LT(SteadyClock::now() - before, 5s);
}

TEST(Consumer, StopsInsideABatchAtAnOffset) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  fill(broker, 30, 0, 30);
  auto client = client_of(broker);
  auto consumer = consumer_of(client, {.start = From::offset(3), .until = From::offset(7)});
  EXPECT_EQ(read_values(consumer, 100, 5s), numbered(4, 3));
  EXPECT_TRUE(consumer.finished());
}

// An empty topic read until its end is finished at once: never "no messages" after a hidden timeout.
TEST(Consumer, IsFinishedAtOnceWhenThereIsNothing) {
  FakeBroker broker;
  broker.create_topic("orders", 2);
  auto client = client_of(broker);
  auto consumer = consumer_of(client, {.until = From::latest()});
  EXPECT_TRUE(read_values(consumer, 1, 5s).empty());
  EXPECT_TRUE(consumer.finished());
  EXPECT_TRUE(consumer.caught_up());
}

// Each partition may begin and end elsewhere.
TEST(Consumer, TakesPlacesPerPartition) {
  FakeBroker broker;
  broker.create_topic("orders", 2);
  fill(broker, 20, 0);
  fill(broker, 20, 1);
  auto client = client_of(broker);
  auto consumer = consumer_of(client, {.starts = {{.partition = 1, .start = From::offset(15), .until = From::offset(18)}}, .until = From::offset(2)});
  std::multiset<std::string> got;
  for (auto& value : read_values(consumer, 100, 5s)) got.insert(value);
  EXPECT_EQ(got, (std::multiset<std::string>{"0", "1", "15", "16", "17"}));
}

// The connection breaks again and again: no record twice, none skipped, no error.
TEST(Consumer, GoesOnAtTheNextOffsetAfterALostConnection) {
  FakeBroker broker;
  broker.create_topic("orders", 2);
  auto client = client_of(broker);
  auto consumer = consumer_of(client);
  std::jthread writer([&](std::stop_token stop) {
    for (int i = 0; i < 300 && !stop.stop_requested(); ++i) {
      fill(broker, 5, i % 2, 5, i / 2 * 5);
      if (i % 20 == 10) broker.drop_connections();
      std::this_thread::sleep_for(1ms);
    }
  });
  std::vector<int> next(2, 0);
  int count = 0;
  while (count < 1500) {
    auto message = consumer.next(10s);
    ASSERT_TRUE(message) << message.error().to_string();
    ASSERT_TRUE(*message) << "only " << count;
    EXPECT_EQ((*message)->value_text(), std::to_string(next[static_cast<std::size_t>((*message)->partition)]++));
    ++count;
  }
  EXPECT_GT(broker.counters().connections, 3u);
}

TEST(Consumer, OutlivesARestartOfTheBroker) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  fill(broker, 10);
  auto client = client_of(broker);
  auto consumer = consumer_of(client);
  EXPECT_EQ(read_values(consumer, 10), numbered(10));
  broker.stop();
  auto nothing = consumer.next(50ms);
  ASSERT_TRUE(nothing);
  EXPECT_FALSE(*nothing);
  broker.start();
  fill(broker, 10, 0, 10, 10);
  EXPECT_EQ(read_values(consumer, 10), numbered(10, 10));
}

// The window bounds what is buffered: a slow reader gets everything, and the broker never has more outstanding than granted.
TEST(Consumer, ReadsEverythingThroughASmallWindow) {
  FakeBroker broker;
  broker.create_topic("orders", 3);
  for (int p = 0; p < 3; ++p) fill(broker, 500, p, 7);
  auto client = client_of(broker);
  for (auto [records, bytes] : {std::pair<std::uint64_t, std::size_t>{1, 1u << 20}, {10, 1u << 20}, {100'000, 1}, {100'000, 300}}) {
    auto consumer = consumer_of(client, {.until = From::latest(), .credit_records = records, .credit_bytes = bytes});
    EXPECT_EQ(read_values(consumer, 5000, 20s).size(), 1500u) << records << " records, " << bytes << " bytes";
  }
}

TEST(Consumer, SeeksBackAndForth) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  fill(broker, 1000, 0, 10);
  auto client = client_of(broker);
  auto consumer = consumer_of(client, {.credit_records = 50});
  EXPECT_EQ(read_values(consumer, 15), numbered(15));
  ASSERT_TRUE(consumer.seek(Position{"orders", 0, 900}));
  EXPECT_EQ(read_values(consumer, 100), numbered(100, 900));
  ASSERT_TRUE(consumer.seek(From::earliest()));
  EXPECT_EQ(read_values(consumer, 3), numbered(3));
  ASSERT_TRUE(consumer.seek(From::last(2)));
  EXPECT_EQ(read_values(consumer, 2), numbered(2, 998));
  EXPECT_EQ(consumer.positions()[0].next_offset, 1000);
  EXPECT_EQ(consumer.seek(Position{"orders", 5, 0}).error().code, Errc::no_such_partition);
  EXPECT_EQ(consumer.seek(Position{"other", 0, 0}).error().code, Errc::invalid_argument);
}

// Many seeks in a row without reading: what the broker sent for the earlier ones never shows.
TEST(Consumer, ManySeeksInARowLeadToTheLast) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  fill(broker, 1000, 0, 10);
  auto client = client_of(broker);
  auto consumer = consumer_of(client);
  for (int round = 0; round < 20; ++round) {
    for (int to : {100, 700, 3, 555}) ASSERT_TRUE(consumer.seek(Position{"", 0, to + round}));
    EXPECT_EQ(read_values(consumer, 5), numbered(5, 555 + round));
    if (round % 5 == 4) broker.drop_connections();
  }
}

TEST(Consumer, ReplaysARangeAndFinishesAgain) {
  FakeBroker broker;
  broker.create_topic("orders", 2);
  fill(broker, 100, 0);
  fill(broker, 100, 1);
  auto client = client_of(broker);
  auto consumer = consumer_of(client, {.start = From::latest()});
  for (int round = 0; round < 3; ++round) {
    ASSERT_TRUE(consumer.replay(From::offset(20), From::offset(30)));
    auto values = read_values(consumer, 1000, 5s);
    EXPECT_EQ(values.size(), 20u);
    EXPECT_TRUE(consumer.finished());
  }
  ASSERT_TRUE(consumer.replay(From::earliest(), From::latest()));
  EXPECT_EQ(read_values(consumer, 1000, 5s).size(), 200u);
}

// Paused partitions give nothing while others do; what was received before the pause is not lost.
TEST(Consumer, PausesAndLosesNothing) {
  FakeBroker broker;
  broker.create_topic("orders", 2);
  fill(broker, 100, 0, 10);
  fill(broker, 100, 1, 10);
  auto client = client_of(broker);
  auto consumer = consumer_of(client);
  auto first = consumer.next(5s);
  ASSERT_TRUE(first && *first);
  std::int32_t quiet = (*first)->partition;
  ASSERT_TRUE(consumer.pause({&quiet, 1}));
  fill(broker, 10, quiet, 10, 100);
  std::vector<std::string> other;
  while (true) {
    auto message = consumer.next(200ms);
    ASSERT_TRUE(message);
    if (!*message) break;
    EXPECT_NE((*message)->partition, quiet);
    other.emplace_back((*message)->value_text());
  }
  EXPECT_EQ(other, numbered(100));
  EXPECT_TRUE(consumer.positions()[static_cast<std::size_t>(quiet)].paused);
  broker.drop_connections();  // a pause outlives the connection
  auto still = consumer.next(200ms);
  ASSERT_TRUE(still);
  EXPECT_FALSE(*still);
  ASSERT_TRUE(consumer.resume({&quiet, 1}));
  EXPECT_EQ(read_values(consumer, 109), numbered(109, 1));
}

// Out of range, the default: an error with the valid range; the partition stops, the others go on, seek() goes on from there.
TEST(Consumer, TellsTheValidRangeWhenOutOfRange) {
  FakeBroker broker;
  broker.create_topic("orders", 2);
  fill(broker, 100, 0);
  fill(broker, 5, 1);
  broker.trim("orders", 0, 40);
  auto client = client_of(broker);
  auto consumer = consumer_of(client, {.starts = {{.partition = 0, .start = From::offset(10)}}});
  std::optional<Error> error;
  std::vector<std::string> values;
  while (values.size() < 5 || !error) {
    auto message = consumer.next(5s);
    if (!message) {
      ASSERT_FALSE(error) << message.error().to_string();
      error = message.error();
      continue;
    }
    ASSERT_TRUE(*message);
    values.emplace_back((*message)->value_text());
  }
  EXPECT_EQ(error->code, Errc::offset_out_of_range);
  EXPECT_EQ(error->at.at("partition"), "0");
  EXPECT_EQ(error->at.at("log_start"), "40");
  EXPECT_EQ(error->at.at("log_end"), "100");
  EXPECT_EQ(values, numbered(5));
  ASSERT_TRUE(consumer.seek(Position{"orders", 0, std::stoll(error->at.at("log_start"))}));
  EXPECT_EQ(read_values(consumer, 60), numbered(60, 40));
}

class ConsumerPolicy : public ::testing::TestWithParam<OutOfRange> {};
// The stated policies move on by themselves: at the start, and under a live reader whose records are purged.
TEST_P(ConsumerPolicy, GoesOnByItself) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  fill(broker, 100, 0, 10);
  broker.trim("orders", 0, 40);
  auto client = client_of(broker);
  auto consumer = consumer_of(client, {.start = From::offset(GetParam() == OutOfRange::earliest ? 3 : 5000), .out_of_range = GetParam(), .credit_records = 10});
  int first = GetParam() == OutOfRange::earliest ? 40 : 100;
  fill(broker, 100, 0, 10, 100);
  EXPECT_EQ(read_values(consumer, 10), numbered(10, first));
  broker.trim("orders", 0, 190);
  fill(broker, 10, 0, 10, 200);
  std::vector<std::string> rest;
  for (int i = 0; i < 1000; ++i) {
    auto message = consumer.next(300ms);
    ASSERT_TRUE(message) << message.error().to_string();
    if (!*message) break;
    rest.emplace_back((*message)->value_text());
  }
  ASSERT_FALSE(rest.empty());
  if (GetParam() == OutOfRange::earliest) {
    EXPECT_EQ(rest.back(), "209");
  }
  EXPECT_TRUE(std::ranges::is_sorted(rest, {}, [](const std::string& v) { return std::stoi(v); }));
}
INSTANTIATE_TEST_SUITE_P(Policies, ConsumerPolicy, ::testing::Values(OutOfRange::earliest, OutOfRange::latest));

// A batch damaged on the way is noticed by its checksum and fetched again; damaged for good, it is an error, and never data.
TEST(Consumer, NoticesDamagedBatches) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  fill(broker, 100, 0, 10);
  auto client = client_of(broker);
  {
    broker.corrupt_deliveries(1);
    auto consumer = consumer_of(client);
    EXPECT_EQ(read_values(consumer, 100), numbered(100));
  }
  broker.corrupt_deliveries(1'000'000);
  auto consumer = consumer_of(client);
  auto message = consumer.next(5s);
  ASSERT_FALSE(message);
  EXPECT_EQ(message.error().code, Errc::corrupt);
  EXPECT_EQ(message.error().at.at("offset"), "0");
  broker.corrupt_deliveries(0);
  ASSERT_TRUE(consumer.seek(Position{"orders", 0, 50}));
  EXPECT_EQ(read_values(consumer, 50), numbered(50, 50));
}

// Messages keep their batch alive, beyond consumer and client.
TEST(Consumer, MessagesOutliveTheirConsumer) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  fill(broker, 100, 0, 10);
  std::vector<Message> kept;
  {
    auto client = client_of(broker);
    auto consumer = consumer_of(client);
    while (kept.size() < 100) {
      auto batch = consumer.next_batch(30, 5s);
      ASSERT_TRUE(batch);
      ASSERT_LE(batch->size(), 30u);
      for (auto& message : *batch) kept.push_back(std::move(message));
    }
  }
  EXPECT_EQ(values_of(kept), numbered(100));
  EXPECT_EQ(kept[0].topic, "orders");
}

// Used from two threads at once: an error that names both, not a race.
TEST(Consumer, RefusesASecondThread) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  auto client = client_of(broker);
  auto consumer = consumer_of(client);
  std::jthread waiting([&] { EXPECT_TRUE(consumer.next(1s)); });
  std::this_thread::sleep_for(200ms);
  auto second = consumer.next(1ms);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Errc::internal);
  EXPECT_NE(second.error().message.find("thread"), std::string::npos);
  waiting.join();
  EXPECT_TRUE(consumer.next(1ms));
}

// The same as handles: a callback, and one at a time.
TEST(Consumer, GivesMessagesThroughHandles) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  fill(broker, 3);
  auto client = client_of(broker);
  auto consumer = consumer_of(client);
  auto first = consumer.next().get();
  ASSERT_TRUE(first);
  EXPECT_EQ(first->value_text(), "0");
  auto two = consumer.next_batch(10).get();
  ASSERT_TRUE(two);
  EXPECT_EQ(values_of(*two), numbered(2, 1));
  auto pending = consumer.next();
  EXPECT_EQ(consumer.next(1ms).error().code, Errc::internal);  // the handle holds the consumer
  fill(broker, 1, 0, 1, 3);
  auto last = pending.get();
  ASSERT_TRUE(last);
  EXPECT_EQ(last->value_text(), "3");
  auto never = consumer.next();
  ASSERT_TRUE(consumer.close());
  EXPECT_EQ(never.get().error().code, Errc::closed);
}

TEST(Consumer, RunsAHandlerUntilTheEndAnErrorOrAStop) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  fill(broker, 20);
  auto client = client_of(broker);
  {
    auto consumer = consumer_of(client, {.until = From::latest()});
    int count = 0;
    EXPECT_TRUE(consumer.run([&](const Message&) -> Result<void> { return ++count, Result<void>{}; }));
    EXPECT_EQ(count, 20);
  }
  auto consumer = consumer_of(client);
  auto failed = consumer.run([](const Message& message) -> Result<void> {
    if (message.offset == 7) return std::unexpected(make_error(Errc::invalid_record, "no good"));
    return {};
  });
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().at.at("offset"), "7");
  auto threw = consumer.run([](const Message&) -> Result<void> { throw std::runtime_error("boom"); });
  ASSERT_FALSE(threw);
  EXPECT_EQ(threw.error().code, Errc::internal);
  EXPECT_NE(threw.error().message.find("boom"), std::string::npos);
  std::stop_source stop;
  std::jthread stopper([&] {
    std::this_thread::sleep_for(100ms);
    stop.request_stop();
  });
  EXPECT_TRUE(consumer.run([](const Message&) -> Result<void> { return {}; }, stop.get_token()));
}

TEST(Consumer, RefusesWhatIsNotThere) {
  FakeBroker broker;
  broker.create_topic("orders", 2);
  auto client = client_of(broker);
  EXPECT_EQ(client.consumer("absent").error().code, Errc::no_such_topic);
  EXPECT_EQ(client.consumer("orders", {.partitions = {5}}).error().code, Errc::no_such_partition);
  EXPECT_EQ(client.consumer("orders", {.starts = {{.partition = 5}}}).error().code, Errc::no_such_partition);
  EXPECT_EQ(client.consumer("orders", {.until = From::earliest()}).error().code, Errc::invalid_argument);
  EXPECT_EQ(client.consumer("orders", {.credit_records = 0}).error().code, Errc::invalid_argument);
}

// A topic deleted under a live reader: an error with its reason, not silence.
TEST(Consumer, TellsThatItsTopicWasDeleted) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  fill(broker, 3);
  auto client = client_of(broker);
  auto consumer = consumer_of(client);
  EXPECT_EQ(read_values(consumer, 3), numbered(3));
  broker.delete_topic("orders");
  auto gone = consumer.next(5s);
  ASSERT_FALSE(gone);
  EXPECT_EQ(gone.error().code, Errc::no_such_topic);
}

class ConsumerBadFrames : public ::testing::TestWithParam<Action> {};
// A broker that sends nonsense: the connection is dropped and made anew, nothing crashes.
TEST_P(ConsumerBadFrames, SurvivesThem) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  fill(broker, 20);
  broker.inject({.on = Request::subscribe, .action = GetParam(), .times = 2});
  auto client = client_of(broker);
  auto consumer = consumer_of(client);
  EXPECT_EQ(read_values(consumer, 20), numbered(20));
}
INSTANTIATE_TEST_SUITE_P(Nonsense, ConsumerBadFrames,
                         ::testing::Values(Action::garbage, Action::oversize, Action::truncate, Action::wrong_type, Action::drop_after_apply));

}  // namespace
}  // namespace tailrace
