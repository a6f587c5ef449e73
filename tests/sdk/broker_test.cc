// The SDK and the broker together, over loopback, on a real data directory.
#include "tests/sdk/broker_fixture.h"

namespace tailrace {
namespace {

// The whole path: everything a record has comes back as it was sent.
TEST_F(SdkWithBroker, ARecordComesBackAsItWasSent) {
  create(3);
  auto p = producer();
  Record full{.topic = "orders", .key = std::string("k\0\xff", 3), .value = "", .headers = {{"h", "1"}, {"h", std::nullopt}, {"", ""}},
              .time = Instant{Milliseconds{1'700'000'000'123}}};
  Record tombstone{.topic = "orders", .key = "gone"};
  auto first = p.send(full).get();
  auto second = p.send(tombstone).get();
  ASSERT_TRUE(first && second) << first.error().to_string();
  EXPECT_EQ(p.durability("orders"), Durability::quorum);
  auto c = consumer({.until = From::latest()});
  std::vector<Message> all;
  ASSERT_TRUE(c.run([&](const Message& m) -> Result<void> { return all.push_back(m), Result<void>{}; }));
  ASSERT_EQ(all.size(), 2u);
  for (const Message& m : all) {
    if (m.partition == first->partition && m.offset == first->offset) {
      auto copy = m.to_record("orders");
      EXPECT_EQ(copy.key, full.key);
      EXPECT_EQ(copy.value, full.value);
      EXPECT_EQ(copy.headers, full.headers);
      EXPECT_EQ(copy.time, full.time);
    } else {
      EXPECT_FALSE(m.value);
    }
  }
}

TEST_F(SdkWithBroker, EachPartitionKeepsItsOrder) {
  create(5);
  auto p = producer();
  for (int i = 0; i < 50'000; ++i) {
    Record record{.topic = "orders", .value = std::to_string(i / 5), .partition = i % 5};
    p.send(record).then([](Result<Receipt> r) { EXPECT_TRUE(r) << r.error().to_string(); });
  }
  ASSERT_TRUE(p.flush(30s));
  auto c = consumer({.until = From::latest()});
  std::vector<int> next(5, 0);
  int count = 0;
  ASSERT_TRUE(c.run([&](const Message& m) -> Result<void> {
    EXPECT_EQ(m.value_text(), std::to_string(next[static_cast<std::size_t>(m.partition)]++));
    ++count;
    return {};
  }));
  EXPECT_EQ(count, 50'000);
  EXPECT_TRUE(c.finished());
}

// The broker stops and starts under load: producers resend, consumers go on, nothing is lost, twice or out of order.
TEST_F(SdkWithBroker, RestartsAreInvisible) {
  create(2);
  auto p = producer({.batch_bytes = 2048});
  auto c = consumer();
  std::jthread writer([&] {
    for (int i = 0; i < 20'000; ++i) {
      Record record{.topic = "orders", .value = std::to_string(i / 2), .partition = i % 2};
      p.send(record).then([](Result<Receipt> r) { EXPECT_TRUE(r) << r.error().to_string(); });
      if (i % 200 == 0) std::this_thread::sleep_for(5ms);
    }
  });
  std::jthread operator_thread([&] {
    for (int round = 0; round < 3; ++round) {
      std::this_thread::sleep_for(120ms);
      broker.stop();
      broker.start();
    }
  });
  std::vector<int> next(2, 0);
  for (int count = 0; count < 20'000; ++count) {
    auto message = c.next(30s);
    ASSERT_TRUE(message) << message.error().to_string();
    ASSERT_TRUE(*message) << count << " came";
    ASSERT_EQ((*message)->value_text(), std::to_string(next[static_cast<std::size_t>((*message)->partition)]++));
  }
  ASSERT_TRUE(p.flush(30s));
}

// A producer with an idempotent identity survives the restart of its broker: sequences go on.
TEST_F(SdkWithBroker, ProducersKeepTheirIdentityOverARestart) {
  create(1);
  auto p = producer();
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 5; ++i) {
      Record record{.topic = "orders", .value = std::to_string(round * 5 + i), .partition = 0};
      auto receipt = p.send(record).get();
      ASSERT_TRUE(receipt) << receipt.error().to_string();
      EXPECT_EQ(receipt->offset, round * 5 + i);
      EXPECT_FALSE(receipt->duplicate);
    }
    broker.stop();
    broker.start();
  }
}

TEST_F(SdkWithBroker, StartsAndStopsWhereItIsTold) {
  create(1);
  publish(1000);
  for (auto [from, first] : {std::pair{From::earliest(), 0}, {From::offset(17), 17}, {From::last(5), 995}, {From::last(5000), 0}}) {
    auto c = consumer({.start = from, .until = From::latest()});
    EXPECT_EQ(read(c, 2000), numbered(1000 - first, first));
    EXPECT_TRUE(c.finished());
  }
  auto latest = consumer({.start = From::latest()});
  publish(3, 0, 1000);
  EXPECT_EQ(read(latest, 3), numbered(3, 1000));
  auto part = consumer({.start = From::offset(3), .until = From::offset(7)});
  EXPECT_EQ(read(part, 100), numbered(4, 3));
  EXPECT_TRUE(part.finished());
  auto nothing = consumer({.start = From::latest(), .until = From::latest()});
  EXPECT_TRUE(read(nothing, 1).empty());
  EXPECT_TRUE(nothing.finished());
}

TEST_F(SdkWithBroker, FindsByTime) {
  create(1);
  auto p = producer();
  for (int i = 0; i < 100; ++i) {
    Record record{.topic = "orders", .value = std::to_string(i), .time = Instant{Milliseconds{1'000'000 + i * 10}}};
    ASSERT_TRUE(p.send(record).get());
  }
  auto c = consumer({.start = From::time(Instant{Milliseconds{1'000'255}}), .until = From::time(Instant{Milliseconds{1'000'500}})});
  EXPECT_EQ(read(c, 100), numbered(24, 26));
  EXPECT_TRUE(c.finished());
}

TEST_F(SdkWithBroker, SeeksPausesAndReplays) {
  create(2);
  publish(1000, 0);
  publish(1000, 1);
  auto c = consumer({.credit_records = 100});
  std::int32_t zero = 0, one = 1;
  ASSERT_TRUE(c.pause({&one, 1}));
  ASSERT_TRUE(c.seek(Position{"", 0, 900}));
  EXPECT_EQ(read(c, 100), numbered(100, 900));
  ASSERT_TRUE(c.seek(Position{"", 0, 10}));
  EXPECT_EQ(read(c, 5), numbered(5, 10));
  ASSERT_TRUE(c.pause({&zero, 1}));
  ASSERT_TRUE(c.resume({&one, 1}));
  EXPECT_EQ(read(c, 1000), numbered(1000));
  ASSERT_TRUE(c.resume());
  EXPECT_EQ(read(c, 985), numbered(985, 15));
  for (int round = 0; round < 3; ++round) {
    ASSERT_TRUE(c.replay(From::offset(50), From::offset(60)));
    EXPECT_EQ(read(c, 1000).size(), 20u);
    EXPECT_TRUE(c.finished());
  }
  for (int round = 0; round < 30; ++round) {
    for (int to : {100, 700, 3, 555}) ASSERT_TRUE(c.replay(From::offset(to), From::latest()));
    ASSERT_TRUE(c.pause({&one, 1}));
    EXPECT_EQ(read(c, 3), numbered(3, 555));
    ASSERT_TRUE(c.resume());
  }
}

TEST_F(SdkWithBroker, TellsTheValidRangeAndGoesOnFromThere) {
  create(2);
  publish(100, 0);
  publish(5, 1);
  PartitionOffset before{0, 40};
  auto purged = client.admin().delete_records("orders", {&before, 1}).get();
  ASSERT_TRUE(purged) << purged.error().to_string();
  EXPECT_EQ(purged->at(0).offset, 40);
  auto c = consumer({.starts = {{.partition = 0, .start = From::offset(10), .until = {}}}});
  std::optional<Error> error;
  std::vector<std::string> values;
  while (values.size() < 5 || !error) {
    auto message = c.next(5s);
    if (!message) {
      ASSERT_FALSE(error) << message.error().to_string();
      error = message.error();
      continue;
    }
    ASSERT_TRUE(*message);
    values.emplace_back((*message)->value_text());
  }
  EXPECT_EQ(error->code, Errc::offset_out_of_range);
  EXPECT_EQ(error->at["partition"], "0");
  EXPECT_EQ(error->at["log_start"], "40");
  EXPECT_EQ(error->at["log_end"], "100");
  ASSERT_TRUE(c.seek(Position{"", 0, 40}));
  EXPECT_EQ(read(c, 60), numbered(60, 40));
  auto moved = consumer({.partitions = {0}, .start = From::offset(10), .out_of_range = OutOfRange::earliest});
  EXPECT_EQ(read(moved, 60), numbered(60, 40));
  auto last = consumer({.partitions = {0}, .start = From::offset(999), .out_of_range = OutOfRange::latest});
  publish(3, 0, 100);
  EXPECT_EQ(read(last, 3), numbered(3, 100));
}

TEST_F(SdkWithBroker, AdminAgreesWithWhatItDid) {
  auto admin = client.admin();
  TopicSpec spec{.partitions = 3, .config = {{"retention_time", "7d"}}};
  ASSERT_TRUE(admin.create_topic("orders", spec).get());
  EXPECT_EQ(admin.create_topic("orders", spec).get().error().code, Errc::topic_exists);
  EXPECT_EQ(admin.create_topic("no/name", TopicSpec{}).get().error().code, Errc::invalid_topic_name);
  TopicSpec wrong{.config = {{"retention_tim", "7d"}}};
  EXPECT_EQ(admin.create_topic("other", wrong).get().error().code, Errc::unknown_key);
  auto altered = admin.alter_topic("orders", {.partitions = 5}).get();
  ASSERT_TRUE(altered) << altered.error().to_string();
  EXPECT_EQ(altered->partitions.size(), 5u);
  publish(10, 4);
  auto described = admin.describe_topic("orders").get();
  ASSERT_TRUE(described);
  ASSERT_EQ(described->partitions.size(), 5u);
  EXPECT_EQ(described->partitions[4].high_watermark, 10);
  auto retention = std::ranges::find(described->config, std::string{"retention_time"}, &ConfigValue::key);
  ASSERT_NE(retention, described->config.end());
  EXPECT_FALSE(retention->is_default);
  auto ends = admin.list_offsets("orders", From::latest()).get();
  ASSERT_TRUE(ends);
  EXPECT_EQ(ends->at(4).offset, 10);
  auto cluster = admin.cluster().get();
  ASSERT_TRUE(cluster);
  EXPECT_EQ(cluster->connected_to, broker.address());
  ASSERT_FALSE(cluster->brokers.empty());
  EXPECT_EQ(cluster->brokers[0].address, broker.address());
  ASSERT_TRUE(admin.delete_topic("orders").get());
  EXPECT_EQ(admin.delete_topic("orders").get().error().code, Errc::no_such_topic);
  EXPECT_TRUE(admin.list_topics().get()->empty());
}

// Deleting a topic under producers and consumers: each is told, nothing hangs; one of the same name is another topic.
TEST_F(SdkWithBroker, DeletingATopicEndsItsUsers) {
  create(1);
  publish(10);
  auto c = consumer();
  EXPECT_EQ(read(c, 10), numbered(10));
  auto p = producer();
  Record record{.topic = "orders", .value = "x"};
  ASSERT_TRUE(p.send(record).get());
  ASSERT_TRUE(client.admin().delete_topic("orders").get());
  Result<std::optional<Message>> gone;
  for (int i = 0; i < 20; ++i) {
    gone = c.next(1s);
    if (!gone) break;
  }
  ASSERT_FALSE(gone);
  EXPECT_EQ(gone.error().code, Errc::no_such_topic);
  EXPECT_EQ(p.send(record).get().error().code, Errc::no_such_topic);
  create(1);
  auto again = p.send(record).get();
  ASSERT_TRUE(again) << again.error().to_string();
  EXPECT_EQ(again->offset, 0);
}

TEST_F(SdkWithBroker, AppendsOnlyAtTheExpectedEnd) {
  create(1);
  auto p = producer();
  std::vector<Record> pair{{.topic = "orders", .value = "a"}, {.topic = "orders", .value = "b"}};
  ASSERT_TRUE(p.send_if_end("orders", 0, 0, pair).get());
  auto wrong = p.send_if_end("orders", 0, 1, pair).get();
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().code, Errc::wrong_version);
  EXPECT_EQ(wrong.error().at["actual_end_offset"], "2");
  auto right = p.send_if_end("orders", 0, 2, pair).get();
  ASSERT_TRUE(right) << right.error().to_string();
  EXPECT_EQ(right->at(1).offset, 3);
}

TEST_F(SdkWithBroker, CompressionTravels) {
  create(1);
  int next = 0;
  for (auto compression : {Compression::lz4, Compression::zstd, Compression::none}) {
    auto p = producer({.linger = 5ms, .compression = compression});
    for (int i = 0; i < 2000; ++i) {
      Record record{.topic = "orders", .value = std::to_string(next++)};
      p.send(record).then([](Result<Receipt> r) { EXPECT_TRUE(r) << r.error().to_string(); });
    }
    ASSERT_TRUE(p.flush());
  }
  auto c = consumer({.until = From::latest()});
  EXPECT_EQ(read(c, 10'000), numbered(6000));
}

TEST_F(SdkWithBroker, RefusesWhatIsTooLarge) {
  create(1, {{"message_bytes_max", "10KiB"}});
  auto p = producer();
  Record large{.topic = "orders", .value = std::string(20'000, 'x')};
  EXPECT_EQ(p.send(large).get().error().code, Errc::too_large);
  Record small{.topic = "orders", .value = std::string(2'000, 'x')};
  for (int i = 0; i < 100; ++i) p.send(small).then([](Result<Receipt> r) { EXPECT_TRUE(r) << r.error().to_string(); });
  EXPECT_TRUE(p.flush());
}

// A window of one record still brings everything, over several partitions.
TEST_F(SdkWithBroker, SmallCreditsAreEnough) {
  create(3);
  for (int p = 0; p < 3; ++p) publish(300, p);
  for (auto [records, bytes] : {std::pair<std::uint64_t, std::size_t>{1, 1u << 20}, {50, 1u << 20}, {100'000, 1}}) {
    auto c = consumer({.until = From::latest(), .credit_records = records, .credit_bytes = bytes});
    EXPECT_EQ(read(c, 2000).size(), 900u);
  }
}

}  // namespace
}  // namespace tailrace
