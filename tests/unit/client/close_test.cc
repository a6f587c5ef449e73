// close() keeps its word. Each test is named after a hang that users of other clients met.
#include "support.h"

namespace tailrace {
namespace {

template <class F>
Milliseconds took(F f) {
  auto before = SteadyClock::now();
  f();
  return std::chrono::duration_cast<Milliseconds>(SteadyClock::now() - before);
}

// confluentinc/librdkafka#230, cppkafka#314, #262: the last records of a process must not be lost by closing.
TEST(Close, DeliversTheLastMessages) {
  FakeBroker broker;
  broker.create_topic("orders", 4);
  {
    auto client = client_of(broker);
    auto producer = producer_of(client, {.linger = 100ms});
    for (int i = 0; i < 5000; ++i) ASSERT_TRUE(producer.send(record_of("x", i % 4)).valid());
    auto report = producer.close(20s);
    ASSERT_TRUE(report);
    EXPECT_EQ(report->undelivered, 0u);
    EXPECT_EQ(report->unknown, 0u);
    EXPECT_TRUE(report->finished);
  }
  EXPECT_EQ(broker.record_count("orders"), 5000u);
}

// The same when the handles simply go out of scope.
TEST(Close, DestructionDeliversTheLastMessages) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  {
    auto client = client_of(broker);
    auto producer = producer_of(client);
    for (int i = 0; i < 1000; ++i) ASSERT_TRUE(producer.send(record_of("x")).valid());
  }
  EXPECT_EQ(broker.record_count("orders"), 1000u);
  EXPECT_TRUE(eventually([&] { return broker.counters().goodbyes == 1; }));
}

// librdkafka#800, #1272, #3127: closing with the broker gone.
TEST(Close, ReturnsByItsDeadlineWithTheBrokerGone) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  auto client = client_of(broker);
  auto producer = producer_of(client);
  ASSERT_TRUE(producer.send(record_of("0")).get());
  broker.stop();
  std::vector<Task<Receipt>> sent;
  for (int i = 0; i < 100; ++i) sent.push_back(producer.send(record_of("lost")));
  Result<CloseReport> report;
  auto time = took([&] { report = client.close(500ms); });
  EXPECT_LT(time, 500ms + kGrace);
  ASSERT_TRUE(report);
  EXPECT_EQ(report->undelivered + report->unknown, 100u);
  for (auto& task : sent) {
    auto result = task.get();  // every record has its answer by then
    ASSERT_FALSE(result);
    EXPECT_TRUE(result.error().code == Errc::closed || result.error().code == Errc::outcome_unknown) << result.error().to_string();
    EXPECT_EQ(result.error().maybe_applied, result.error().code == Errc::outcome_unknown);
  }
}

// A broker that is there and does not answer (stopped process, lost packets): what was sent is unknown, and counted.
TEST(Close, CountsWhatIsUnknownWhenTheBrokerIsFrozen) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  auto client = client_of(broker);
  auto producer = producer_of(client);
  ASSERT_TRUE(producer.send(record_of("0")).get());
  broker.freeze(true);
  auto sent = producer.send(record_of("perhaps"));
  std::this_thread::sleep_for(50ms);
  Result<CloseReport> report;
  auto time = took([&] { report = producer.close(300ms); });
  EXPECT_LT(time, 300ms + kGrace);
  ASSERT_TRUE(report);
  EXPECT_EQ(report->unknown, 1u);
  EXPECT_EQ(sent.get().error().code, Errc::outcome_unknown);
  EXPECT_LT(took([&] { EXPECT_TRUE(client.close(300ms)); }), 300ms + kGrace);
  broker.freeze(false);
}

// No broker ever: construct and destroy.
TEST(Close, ReturnsWithoutABrokerEverSeen) {
  ClientOptions options{.servers = {"127.0.0.1:1", "192.0.2.1:9"}};
  auto client = Client::open(options);
  ASSERT_TRUE(client);
  EXPECT_LT(took([&] { EXPECT_TRUE(client->close(1s)); }), 1s + kGrace);
}

// A name whose resolution blocks must not hold up the end.
TEST(Close, DoesNotWaitForANameToResolve) {
  ClientOptions options{.servers = {"no-such-host.invalid:7070"}};
  auto client = Client::open(options);
  ASSERT_TRUE(client);
  EXPECT_LT(took([&] { EXPECT_TRUE(client->close(1s)); }), 1s + kGrace);
}

// pulsar-client-cpp#63, apache/pulsar#4070: close inside a callback, the thread would join itself.
TEST(Close, InsideACallbackReturnsAtOnceAndFinishesInTheBackground) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  auto client = client_of(broker);
  auto producer = producer_of(client);
  std::promise<CloseReport> report;
  producer.send(record_of("x")).then([&](Result<Receipt> r) {
    EXPECT_TRUE(r);
    EXPECT_TRUE(producer.close(5s));
    auto closed = client.close(5s);
    EXPECT_TRUE(closed);
    report.set_value(*closed);
  });
  auto future = report.get_future();
  ASSERT_EQ(future.wait_for(10s), std::future_status::ready);
  EXPECT_FALSE(future.get().finished);
  EXPECT_LT(took([&] { EXPECT_TRUE(client.close(5s)); }), 5s + kGrace);
  EXPECT_EQ(producer.send(record_of("y")).get().error().code, Errc::closed);
}

// The last handle dropped inside a callback: destructors run on the callback thread.
TEST(Close, LastHandleMayGoInsideACallback) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  std::promise<void> done;
  {
    auto client = std::make_shared<std::optional<Client>>(client_of(broker));
    auto producer = std::make_shared<std::optional<Producer>>(producer_of(**client));
    auto consumer = std::make_shared<std::optional<Consumer>>(*(*client)->consumer("orders"));
    (*producer)->send(record_of("x")).then([client, producer, consumer, &done](Result<Receipt>) {
      consumer->reset();
      producer->reset();
      client->reset();
      done.set_value();
    });
  }
  ASSERT_EQ(done.get_future().wait_for(10s), std::future_status::ready);
  EXPECT_TRUE(eventually([&] { return broker.counters().goodbyes == 1; }));
}

// What the broker still sends must not turn the end into a reset that overtakes the goodbye.
TEST(Close, SaysGoodbyeWhileRecordsStream) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  std::vector<Record> records(100, record_of(std::string(1000, 'x')));
  for (int i = 0; i < 100; ++i) broker.append("orders", 0, records);
  for (int i = 1; i <= 20; ++i) {
    {
      auto client = client_of(broker);
      auto consumer = *client.consumer("orders");
      ASSERT_TRUE(consumer.next(10s));
    }
    ASSERT_TRUE(eventually([&] { return broker.counters().goodbyes == static_cast<std::uint64_t>(i); })) << i;
  }
}

// Twice, from several threads, mixed with destruction.
TEST(Close, MayBeCalledTwiceAndFromManyThreads) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  auto client = client_of(broker);
  auto producer = producer_of(client);
  ASSERT_TRUE(producer.send(record_of("x")).get());
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] {
        EXPECT_TRUE(producer.close(5s));
        EXPECT_TRUE(client.close(5s));
      });
    }
  }
  EXPECT_TRUE(client.close(5s));
  EXPECT_TRUE(producer.close());
  EXPECT_EQ(producer.send(record_of("y")).get().error().code, Errc::closed);
  EXPECT_EQ(client.producer().error().code, Errc::closed);
  EXPECT_EQ(client.consumer("orders").error().code, Errc::closed);
  EXPECT_EQ(client.admin().list_topics().get().error().code, Errc::closed);
}

// librdkafka#3954, rust-rdkafka#453: closing while another thread waits in next().
TEST(Close, WakesAWaitingConsumer) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  auto client = client_of(broker);
  auto consumer = *client.consumer("orders");
  std::jthread closer([&] {
    std::this_thread::sleep_for(100ms);
    EXPECT_TRUE(consumer.close());
  });
  Result<std::optional<Message>> message;
  auto time = took([&] { message = consumer.next(20s); });
  EXPECT_LT(time, 10s);
  ASSERT_FALSE(message);
  EXPECT_EQ(message.error().code, Errc::closed);
}

// Closing the client wakes everybody: a sender waiting for memory, a consumer, an admin call.
TEST(Close, WakesEveryoneWhoWaits) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  ClientOptions options;
  options.memory_limit = 64 * 1024;
  auto client = client_of(broker, options);
  auto producer = producer_of(client);
  auto consumer = *client.consumer("orders");
  ASSERT_TRUE(producer.send(record_of("0")).get());
  broker.freeze(true);
  std::atomic<int> ended = 0;
  std::vector<std::jthread> threads;
  threads.emplace_back([&] {
    while (true) {
      auto result = producer.try_send(record_of(std::string(1000, 'x')));
      if (!result && result.error().code == Errc::queue_full) break;
    }
    EXPECT_FALSE(producer.send(record_of(std::string(1000, 'x'))).get());
    ++ended;
  });
  threads.emplace_back([&] {
    while (consumer.next(20s)) {
    }
    ++ended;
  });
  threads.emplace_back([&] {
    EXPECT_FALSE(client.admin().list_topics().get());
    ++ended;
  });
  std::this_thread::sleep_for(200ms);
  EXPECT_LT(took([&] { EXPECT_TRUE(client.close(500ms)); }), 500ms + kGrace);
  threads.clear();
  EXPECT_EQ(ended, 3);
  broker.freeze(false);
}

// A callback that never returns cannot keep close() beyond its deadline.
TEST(Close, DoesNotWaitForACallbackThatHangs) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  auto release = std::make_shared<std::promise<void>>();
  std::shared_future<void> released{release->get_future()};
  auto client = client_of(broker);
  auto producer = producer_of(client);
  producer.send(record_of("x")).then([released](Result<Receipt>) { released.wait(); });
  ASSERT_TRUE(producer.flush());
  Result<CloseReport> report;
  EXPECT_LT(took([&] { report = client.close(300ms); }), 300ms + kGrace);
  ASSERT_TRUE(report);
  EXPECT_FALSE(report->finished);
  release->set_value();
}

// nats.c#735: callbacks registered before the end still run, once, and what they captured lives until then.
TEST(Close, RunsTheCallbacksOfEverythingThatEnded) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  auto counter = std::make_shared<std::atomic<int>>(0);
  {
    auto client = client_of(broker);
    auto producer = producer_of(client);
    for (int i = 0; i < 500; ++i) producer.send(record_of("x")).then([counter](Result<Receipt>) { ++*counter; });
    broker.freeze(true);
    for (int i = 0; i < 500; ++i) producer.send(record_of("x")).then([counter](Result<Receipt>) { ++*counter; });
    ASSERT_TRUE(client.close(300ms));
    broker.freeze(false);
  }
  EXPECT_TRUE(eventually([&] { return *counter == 1000; }));
}

// A handle outlives its client: its result stays, and late callbacks run.
TEST(Close, HandlesOutliveTheClient) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  Task<Receipt> task;
  {
    auto client = client_of(broker);
    task = producer_of(client).send(record_of("x"));
  }
  EXPECT_TRUE(task.get());
  bool ran = false;
  task.then([&](Result<Receipt> r) { ran = r.has_value(); });
  EXPECT_TRUE(ran);
  EXPECT_TRUE(task.to_future().get());
}

// pulsar-client-cpp#550, #56; aws-sdk-cpp#1550: a client with static storage, destroyed after main() has returned. The death
// test's child leaves through exit(), so its static objects are destroyed.
TEST(CloseDeathTest, AStaticClientEndsWithTheProcess) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        static FakeBroker broker;
        broker.create_topic("orders", 1);
        static Client client = client_of(broker);
        static Producer producer = producer_of(client);
        static Consumer consumer = *client.consumer("orders");
        bool sent = producer.send(record_of("x")).get().has_value();
        std::exit(sent ? 7 : 8);
      },
      ::testing::ExitedWithCode(7), "");
}

// Thousands of short clients: no thread, descriptor or memory stays behind.
TEST(Close, ManyClientsComeAndGo) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  for (int i = 0; i < 60; ++i) {
    auto client = client_of(broker);
    if (i % 3 == 0) EXPECT_TRUE(client.connected().get());
    if (i % 3 == 1) EXPECT_TRUE(producer_of(client).send(record_of("x")).get());
  }
  EXPECT_EQ(broker.record_count("orders"), 20u);
}

}  // namespace
}  // namespace tailrace
