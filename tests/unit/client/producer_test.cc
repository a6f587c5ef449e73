#include <set>

#include "support.h"

namespace tailrace {
namespace {

// The first thing anyone does: a record sent is stored once, and the receipt says where.
TEST(Producer, AnswersWhereARecordIsStored) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  auto client = client_of(broker);
  auto producer = producer_of(client);
  auto first = producer.send(record_of("a")).get();
  auto second = producer.send(record_of("b")).get();
  ASSERT_TRUE(first && second) << first.error().to_string();
  EXPECT_EQ(first->offset, 0);
  EXPECT_EQ(second->offset, 1);
  EXPECT_EQ(values_of(broker.records("orders", 0)), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(producer.durability("orders"), Durability::quorum);
}

// A record is more than its value: key, headers with repeats, null against empty and the time all travel.
TEST(Producer, KeepsKeyHeadersTimeAndTheDifferenceOfNullAndEmpty) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  auto client = client_of(broker);
  auto producer = producer_of(client);
  Instant time{Milliseconds{1'700'000'000'123}};
  Record full{.topic = "orders", .key = std::string("k\0y", 3), .value = "", .headers = {{"h", "1"}, {"h", std::nullopt}, {"g", ""}}, .time = time};
  Record tombstone{.topic = "orders", .key = ""};
  auto receipt = producer.send(full).get();
  ASSERT_TRUE(receipt);
  EXPECT_EQ(receipt->time, time);
  ASSERT_TRUE(producer.send(tombstone).get());
  auto stored = broker.records("orders", 0);
  ASSERT_EQ(stored.size(), 2u);
  EXPECT_EQ(stored[0].key_text(), std::string_view("k\0y", 3));
  ASSERT_TRUE(stored[0].value);
  EXPECT_TRUE(stored[0].value->empty());
  EXPECT_EQ(stored[0].headers, full.headers);
  EXPECT_EQ(stored[0].time, time);
  ASSERT_TRUE(stored[1].key);
  EXPECT_FALSE(stored[1].value);
}

// Keys decide the partition as Java's client does (murmur2 of "alice" etc. is checked in codec); here: same key, same place.
TEST(Producer, PutsOneKeyInOnePartitionAndSpreadsRecordsWithoutKey) {
  FakeBroker broker;
  broker.create_topic("orders", 8);
  auto client = client_of(broker);
  auto producer = producer_of(client);
  std::set<std::int32_t> of_key, of_none;
  for (int i = 0; i < 40; ++i) {
    auto keyed = producer.send(Record{.topic = "orders", .key = "alice", .value = "x"}).get();
    auto plain = producer.send(Record{.topic = "orders", .value = "x"}).get();
    ASSERT_TRUE(keyed && plain);
    of_key.insert(keyed->partition);
    of_none.insert(plain->partition);
  }
  EXPECT_EQ(of_key.size(), 1u);
  EXPECT_EQ(of_none.size(), 8u);
}

// Many records, many partitions, one thread: everything arrives, per partition in the order of send().
TEST(Producer, KeepsTheOrderOfEachPartition) {
  FakeBroker broker;
  broker.create_topic("orders", 4);
  auto client = client_of(broker);
  auto producer = producer_of(client, {.batch_bytes = 1024});
  constexpr int kRecords = 20'000;
  for (int i = 0; i < kRecords; ++i) producer.send(record_of(std::to_string(i / 4), i % 4)).then([](Result<Receipt> r) { ASSERT_TRUE(r); });
  ASSERT_TRUE(producer.flush(30s));
  for (int p = 0; p < 4; ++p) EXPECT_EQ(values_of(broker.records("orders", p)), numbered(kRecords / 4));
  EXPECT_EQ(producer.pending(), 0u);
  EXPECT_LE(broker.counters().unanswered_batches_max, 5u);  // R12: the broker remembers five
  EXPECT_LT(broker.counters().publishes, kRecords / 4u);    // and they did gather into batches
}

// Several threads share a producer: nothing is lost, and each thread's records keep their order.
TEST(Producer, IsSharedByThreads) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  auto client = client_of(broker);
  auto producer = producer_of(client);
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&producer, t] {
        for (int i = 0; i < 1000; ++i) EXPECT_TRUE(producer.send(record_of(std::to_string(t) + ":" + std::to_string(i))).valid());
      });
    }
  }
  ASSERT_TRUE(producer.flush());
  auto stored = values_of(broker.records("orders", 0));
  ASSERT_EQ(stored.size(), 4000u);
  std::vector<int> next(4, 0);
  for (const auto& value : stored) EXPECT_EQ(std::stoi(value.substr(2)), next[static_cast<std::size_t>(value[0] - '0')]++);
}

struct LostAnswer {
  Action action;
  int skip;
};
class ProducerResend : public ::testing::TestWithParam<LostAnswer> {};

// The connection breaks around a publish, with and without the broker having stored it: nothing twice, nothing lost, no
// reordering, and no error, since the producer is idempotent and there is time.
TEST_P(ProducerResend, StoresEverythingOnceInOrder) {
  FakeBroker broker;
  broker.create_topic("orders", 2);
  auto client = client_of(broker);
  auto producer = producer_of(client, {.batch_bytes = 512});
  broker.inject({.on = Request::publish, .action = GetParam().action, .skip = GetParam().skip, .times = 3});
  std::vector<Task<Receipt>> sent;
  for (int i = 0; i < 2000; ++i) sent.push_back(producer.send(record_of(std::to_string(i / 2), i % 2)));
  std::int64_t next[2] = {0, 0};
  for (auto& task : sent) {
    auto receipt = task.get();
    ASSERT_TRUE(receipt) << receipt.error().to_string();
    EXPECT_EQ(receipt->offset, next[receipt->partition]++);
  }
  EXPECT_EQ(values_of(broker.records("orders", 0)), numbered(1000));
  EXPECT_EQ(values_of(broker.records("orders", 1)), numbered(1000));
  EXPECT_EQ(broker.counters().producers_opened - broker.counters().connections, 0u);  // one stream per connection
}
INSTANTIATE_TEST_SUITE_P(Faults, ProducerResend,
                         ::testing::Values(LostAnswer{Action::drop_before_apply, 0}, LostAnswer{Action::drop_after_apply, 0},
                                           LostAnswer{Action::drop_after_apply, 3}, LostAnswer{Action::drop_before_apply, 5},
                                           LostAnswer{Action::truncate, 2}, LostAnswer{Action::garbage, 2}, LostAnswer{Action::oversize, 2},
                                           LostAnswer{Action::wrong_type, 4}));

// The duplicate is told as such, with the offset of the first time.
TEST(Producer, LearnsTheOriginalOffsetOfADuplicate) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  auto client = client_of(broker);
  auto producer = producer_of(client);
  ASSERT_TRUE(producer.send(record_of("before")).get());
  broker.inject({.on = Request::publish, .action = Action::drop_after_apply});
  auto receipt = producer.send(record_of("once")).get();
  ASSERT_TRUE(receipt);
  EXPECT_TRUE(receipt->duplicate);
  EXPECT_EQ(receipt->offset, 1);
  EXPECT_EQ(broker.records("orders", 0).size(), 2u);
  EXPECT_EQ(broker.counters().duplicates, 1u);
}

// A broker restart under load: connections refused for a while, then everything goes on by itself.
TEST(Producer, OutlivesARestartOfTheBroker) {
  std::atomic<int> failed = 0;  // outlives the client: the last callbacks may run after flush() answered
  FakeBroker broker;
  broker.create_topic("orders", 1);
  auto client = client_of(broker);
  auto producer = producer_of(client, {.batch_bytes = 512});
  std::jthread sender([&] {
    for (int i = 0; i < 3000; ++i) {
      producer.send(record_of(std::to_string(i))).then([&](Result<Receipt> r) { failed += !r; });
      if (i % 100 == 0) std::this_thread::sleep_for(2ms);
    }
  });
  for (int round = 0; round < 3; ++round) {
    std::this_thread::sleep_for(10ms);
    broker.stop();
    std::this_thread::sleep_for(20ms);
    broker.start();
  }
  sender.join();
  ASSERT_TRUE(producer.flush(30s));
  EXPECT_EQ(failed, 0);
  EXPECT_EQ(values_of(broker.records("orders", 0)), numbered(3000));
}

// A retriable refusal in the middle of a full pipeline: those behind it are refused as out of order, and all are sent again
// in order.
TEST(Producer, RetriesARefusalWithoutReordering) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  auto client = client_of(broker);
  auto producer = producer_of(client, {.batch_bytes = 512});
  broker.inject({.on = Request::publish, .action = Action::error, .skip = 4, .times = 3, .code = Errc::storage_full});
  std::vector<Task<Receipt>> sent;
  for (int i = 0; i < 1000; ++i) sent.push_back(producer.send(record_of(std::to_string(i))));
  for (auto& task : sent) ASSERT_TRUE(task.get());
  EXPECT_EQ(values_of(broker.records("orders", 0)), numbered(1000));
}

// A batch refused for good gets its error, certainly not applied; those behind it are neither lost, reordered nor refused.
TEST(Producer, ARefusedBatchDoesNotHoldUpTheOnesBehindIt) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  auto client = client_of(broker);
  auto producer = producer_of(client, {.batch_bytes = 512});
  broker.inject({.on = Request::publish, .action = Action::error, .skip = 3, .code = Errc::invalid_record});
  std::vector<Task<Receipt>> sent;
  for (int i = 0; i < 1000; ++i) sent.push_back(producer.send(record_of(std::to_string(i))));
  std::vector<std::string> stored;
  int refused = 0;
  for (int i = 0; i < 1000; ++i) {
    auto receipt = sent[static_cast<std::size_t>(i)].get();
    if (receipt) {
      EXPECT_EQ(receipt->offset, static_cast<std::int64_t>(stored.size()));
      stored.push_back(std::to_string(i));
    } else {
      EXPECT_EQ(receipt.error().code, Errc::invalid_record);
      EXPECT_FALSE(receipt.error().maybe_applied);
      ++refused;
    }
  }
  EXPECT_GT(refused, 0);
  EXPECT_LT(refused, 200);
  EXPECT_EQ(values_of(broker.records("orders", 0)), stored);
}

// The broker forgot the producer (its state expired): what is certainly not stored goes on under a new id.
TEST(Producer, TakesAFreshIdWhenTheBrokerForgotIt) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  auto client = client_of(broker);
  auto producer = producer_of(client);
  ASSERT_TRUE(producer.send(record_of("0")).get());
  ASSERT_TRUE(producer.send(record_of("1")).get());
  broker.forget_producers();
  auto receipt = producer.send(record_of("2")).get();
  ASSERT_TRUE(receipt) << receipt.error().to_string();
  ASSERT_TRUE(producer.send(record_of("3")).get());
  EXPECT_EQ(values_of(broker.records("orders", 0)), numbered(4));
  EXPECT_EQ(broker.counters().producers_opened, 2u);
}

// No answer in time although it was sent: nobody can know, and the error says so. What was never sent goes on, in order,
// and cannot be mistaken for a duplicate.
TEST(Producer, SaysOutcomeUnknownOnlyForWhatWasSent) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  auto client = client_of(broker);
  auto producer = producer_of(client, {.delivery_timeout = 300ms});
  ASSERT_TRUE(producer.send(record_of("0")).get());
  broker.inject({.on = Request::publish, .action = Action::swallow});
  auto lost = producer.send(record_of("lost")).get();
  ASSERT_FALSE(lost);
  EXPECT_EQ(lost.error().code, Errc::outcome_unknown);
  EXPECT_TRUE(lost.error().maybe_applied);
  EXPECT_TRUE(lost.error().retriable);
}

// After an unknown outcome the broker may or may not expect the next sequence. Going on under a fresh id works either way.
TEST(Producer, GoesOnAfterAnUnknownOutcome) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  auto client = client_of(broker);
  auto producer = producer_of(client, {.delivery_timeout = 200ms});
  ASSERT_TRUE(producer.send(record_of("0")).get());
  for (auto action : {Action::drop_before_apply, Action::drop_after_apply}) {
    broker.inject({.on = Request::publish, .action = action});
    broker.inject({.on = Request::hello, .action = Action::drop_before_apply, .times = -1});
    auto lost = producer.send(record_of("perhaps")).get();
    ASSERT_FALSE(lost);
    EXPECT_EQ(lost.error().code, Errc::outcome_unknown);
    broker.clear_faults();
    bool stored = eventually([&] { return producer.send(record_of("after")).get().has_value(); });
    EXPECT_TRUE(stored);
  }
  auto all = values_of(broker.records("orders", 0));
  EXPECT_EQ(std::ranges::count(all, "perhaps"), 1);  // only the one whose answer was dropped after it was applied
}

// Never sent: certainly not stored, and the error says that.
TEST(Producer, SaysTimeoutForWhatWasNeverSent) {
  ClientOptions options;
  FakeBroker broker;
  broker.stop();
  auto client = client_of(broker);
  auto producer = producer_of(client, {.delivery_timeout = 200ms});
  auto never = producer.send(record_of("never")).get();
  ASSERT_FALSE(never);
  EXPECT_EQ(never.error().code, Errc::timeout);
  EXPECT_FALSE(never.error().maybe_applied);
  EXPECT_NE(never.error().message.find("127.0.0.1"), std::string::npos) << never.error().message;
}

// A refused batch that runs out of time is certainly not stored, and the last refusal is named.
TEST(Producer, NamesTheLastRefusalWhenTimeRunsOut) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  auto client = client_of(broker);
  auto producer = producer_of(client, {.delivery_timeout = 200ms});
  broker.inject({.on = Request::publish, .action = Action::error, .times = -1, .code = Errc::storage_full});
  // The deadline may come just while an attempt is under way; then nobody can know. That is rare.
  for (int i = 0; i < 10; ++i) {
    auto full = producer.send(record_of("x")).get();
    ASSERT_FALSE(full);
    EXPECT_EQ(full.error().maybe_applied, full.error().code == Errc::outcome_unknown);
    if (full.error().code == Errc::outcome_unknown) continue;
    EXPECT_EQ(full.error().code, Errc::timeout);
    EXPECT_NE(full.error().message.find("injected"), std::string::npos) << full.error().message;
    break;
  }
  broker.clear_faults();
  auto after = producer.send(record_of("y")).get();
  ASSERT_TRUE(after) << after.error().to_string();
  EXPECT_EQ(after->offset, 0);
}

// Without idempotence nothing is sent twice: a lost answer is an error that says it may have been applied.
TEST(Producer, DoesNotResendWhenNotIdempotent) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  auto client = client_of(broker);
  auto producer = producer_of(client, {.idempotent = false});
  ASSERT_TRUE(producer.send(record_of("0")).get());
  broker.inject({.on = Request::publish, .action = Action::drop_after_apply});
  auto lost = producer.send(record_of("1")).get();
  ASSERT_FALSE(lost);
  EXPECT_EQ(lost.error().code, Errc::connection_lost);
  EXPECT_TRUE(lost.error().maybe_applied);
  ASSERT_TRUE(producer.send(record_of("2")).get());
  EXPECT_EQ(values_of(broker.records("orders", 0)), numbered(3));
}

// The broker's window bounds what is unanswered, and follows changes; a batch above it still goes, alone.
TEST(Producer, KeepsWithinTheBrokersWindow) {
  FakeBroker broker{{.window_bytes = 4096}};
  broker.create_topic("orders", 4);
  auto client = client_of(broker);
  auto producer = producer_of(client, {.batch_bytes = 1024});
  for (int i = 0; i < 4000; ++i) producer.send(record_of(std::string(50, 'x'), i % 4)).then([](Result<Receipt> r) { ASSERT_TRUE(r); });
  ASSERT_TRUE(producer.flush(30s));
  EXPECT_LE(broker.counters().unanswered_bytes_max, 4096u);
  broker.set_window(100);
  auto large = producer.send(record_of(std::string(3000, 'y'))).get();
  EXPECT_TRUE(large);
}

// memory_limit holds while the broker takes nothing: with `fail` the answer is queue_full, at once.
TEST(Producer, AnswersQueueFullAtTheMemoryLimit) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  ClientOptions options;
  options.memory_limit = 256 * 1024;
  auto client = client_of(broker, options);
  auto producer = producer_of(client, {.when_full = WhenFull::fail});
  ASSERT_TRUE(producer.send(record_of("0")).get());
  broker.freeze(true);
  std::size_t accepted = 0;
  std::optional<Error> full;
  for (int i = 0; i < 10'000 && !full; ++i) {
    auto sent = producer.try_send(record_of(std::string(1000, 'x')));
    if (sent) ++accepted;
    else full = sent.error();
  }
  ASSERT_TRUE(full);
  EXPECT_EQ(full->code, Errc::queue_full);
  EXPECT_LE(accepted, 262u);
  EXPECT_GT(accepted, 150u);
  broker.freeze(false);
  ASSERT_TRUE(producer.flush());
  EXPECT_TRUE(producer.send(record_of("room again")).get());
}

// With `block` a sender waits for room and loses nothing (the last records of a burst included).
TEST(Producer, BlocksAtTheMemoryLimitAndLosesNothing) {
  FakeBroker broker;
  broker.create_topic("orders", 2);
  ClientOptions options;
  options.memory_limit = 128 * 1024;
  auto client = client_of(broker, options);
  auto producer = producer_of(client, {.linger = 20ms});
  std::atomic<int> stored = 0;
  for (int i = 0; i < 3000; ++i) {
    producer.send(record_of(std::string(500, 'x'), i % 2)).then([&](Result<Receipt> r) { stored += r.has_value(); });
  }
  ASSERT_TRUE(producer.flush(30s));
  EXPECT_TRUE(eventually([&] { return stored == 3000; }));
  EXPECT_EQ(broker.record_count("orders"), 3000u);
}

// post() reports every record once, in the order of acknowledgement, with its tag.
TEST(Producer, ReportsPostsByTag) {
  FakeBroker broker;
  broker.create_topic("orders", 3);
  auto client = client_of(broker);
  std::mutex mutex;
  std::vector<std::uint64_t> tags;
  std::vector<std::int64_t> next(3, 0);
  bool in_order = true;
  ProducerOptions options;
  options.on_delivered = [&](std::span<const Delivered> delivered) {
    std::lock_guard lock{mutex};
    for (const auto& one : delivered) {
      EXPECT_EQ(one.error, nullptr);
      in_order &= one.offset == next[static_cast<std::size_t>(one.partition)]++;
      tags.push_back(one.tag);
    }
  };
  auto producer = producer_of(client, options);
  for (std::uint64_t i = 0; i < 6000; ++i) {
    RecordView record{"orders", std::nullopt, "v"};
    ASSERT_TRUE(producer.post(record, i));
  }
  ASSERT_TRUE(producer.flush());
  EXPECT_TRUE(eventually([&] {
    std::lock_guard lock{mutex};
    return tags.size() == 6000;
  }));
  EXPECT_TRUE(in_order);
  EXPECT_EQ(std::set<std::uint64_t>(tags.begin(), tags.end()).size(), 6000u);
}

TEST(Producer, SendBatchGivesReceiptsInTheOrderOfTheRecords) {
  FakeBroker broker;
  broker.create_topic("orders", 2);
  auto client = client_of(broker);
  auto producer = producer_of(client);
  std::vector<Record> records;
  for (int i = 0; i < 100; ++i) records.push_back(record_of(std::to_string(i), i % 2));
  auto receipts = producer.send_batch(records).get();
  ASSERT_TRUE(receipts);
  ASSERT_EQ(receipts->size(), 100u);
  for (std::size_t i = 0; i < 100; ++i) {
    EXPECT_EQ((*receipts)[i].partition, static_cast<std::int32_t>(i % 2));
    EXPECT_EQ((*receipts)[i].offset, static_cast<std::int64_t>(i / 2));
  }
}

// Optimistic appends: only at the expected end, and the actual one is told.
TEST(Producer, AppendsOnlyAtTheExpectedEnd) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  auto client = client_of(broker);
  auto producer = producer_of(client);
  std::vector<Record> pair{record_of("0"), record_of("1")};
  auto first = producer.send_if_end("orders", 0, 0, pair).get();
  ASSERT_TRUE(first) << first.error().to_string();
  EXPECT_EQ((*first)[1].offset, 1);
  auto wrong = producer.send_if_end("orders", 0, 1, pair).get();
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().code, Errc::wrong_version);
  EXPECT_EQ(wrong.error().at.at("actual_end_offset"), "2");
  auto right = producer.send_if_end("orders", 0, 2, pair).get();
  ASSERT_TRUE(right);
  EXPECT_EQ(broker.records("orders", 0).size(), 4u);
}

TEST(Producer, RefusesWhatCanNeverBeStored) {
  FakeBroker broker{{.message_bytes_max = 10'000}};
  broker.create_topic("orders", 2);
  auto client = client_of(broker);
  auto producer = producer_of(client);
  EXPECT_EQ(producer.send(record_of("x", 0, "no/such/name")).get().error().code, Errc::invalid_topic_name);
  EXPECT_EQ(producer.send(record_of("x", 0, "absent")).get().error().code, Errc::no_such_topic);
  EXPECT_EQ(producer.send(record_of("x", 2)).get().error().code, Errc::no_such_partition);
  EXPECT_EQ(producer.send(record_of(std::string(20'000, 'x'))).get().error().code, Errc::too_large);
  EXPECT_EQ(producer.send(record_of("x", 7)).get().error().code, Errc::no_such_partition);
  EXPECT_TRUE(producer.send(record_of("fine")).get());
  EXPECT_EQ(producer.pending(), 0u);
}

// A topic that was not there at first is found when it is.
TEST(Producer, FindsATopicThatWasCreatedLater) {
  FakeBroker broker;
  auto client = client_of(broker);
  auto producer = producer_of(client);
  EXPECT_EQ(producer.send(record_of("early")).get().error().code, Errc::no_such_topic);
  broker.create_topic("orders", 1);
  EXPECT_TRUE(producer.send(record_of("late")).get());
}

// A topic grows under a living producer: the new partitions are found without a reconnect.
TEST(Producer, FindsThePartitionsOfAGrownTopic) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  auto client = client_of(broker);
  auto producer = producer_of(client);
  ASSERT_TRUE(producer.send(record_of("0")).get());
  ASSERT_TRUE(client.admin().alter_topic("orders", {.partitions = 3}).get());
  EXPECT_TRUE(eventually([&] { return producer.send(record_of("1", 2)).get().has_value(); }));
  EXPECT_EQ(broker.counters().connections, 1u);
}

// A topic made anew under the same name is learned again, smaller or larger.
TEST(Producer, LearnsATopicMadeAnew) {
  FakeBroker broker;
  broker.create_topic("orders", 4);
  auto client = client_of(broker);
  auto producer = producer_of(client);
  ASSERT_TRUE(producer.send(record_of("0", 3)).get());
  broker.delete_topic("orders");
  EXPECT_EQ(producer.send(record_of("1", 3)).get().error().code, Errc::no_such_topic);
  broker.create_topic("orders", 2);
  EXPECT_TRUE(eventually([&] { return producer.send(record_of("2", 1)).get().has_value(); }));
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(producer.send(record_of("x", std::nullopt)).get());
  EXPECT_EQ(producer.send(record_of("3", 3)).get().error().code, Errc::no_such_partition);
}

// A callback that sends, at the memory limit: it waits for room like anyone, and nothing locks up.
TEST(Producer, CallbacksMaySendAtTheMemoryLimit) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  ClientOptions options;
  options.memory_limit = 64 * 1024;
  auto client = client_of(broker, options);
  auto producer = producer_of(client);
  std::atomic<int> stored = 0;
  std::string value(500, 'x');
  for (int i = 0; i < 1000; ++i) {
    producer.send(record_of(value)).then([&](Result<Receipt> first) {
      EXPECT_TRUE(first);
      producer.send(record_of(value)).then([&](Result<Receipt> second) { stored += second.has_value(); });
    });
  }
  EXPECT_TRUE(eventually([&] { return stored == 1000; }, 30s));
}

// The user's partitioner may use the producer itself, and an answer out of range is an error, not a crash.
TEST(Producer, AsksTheUsersPartitionerWithoutHoldingLocks) {
  FakeBroker broker;
  broker.create_topic("orders", 4);
  auto client = client_of(broker);
  std::optional<Producer> self;
  ProducerOptions options;
  options.by = [&](const RecordView& record, std::uint32_t count) -> std::uint32_t {
    EXPECT_EQ(count, 4u);
    if (self) (void)self->pending();
    return record.value == "bad" ? 99 : 3;
  };
  auto producer = producer_of(client, options);
  self = producer;
  auto receipt = producer.send(record_of("x", std::nullopt)).get();
  ASSERT_TRUE(receipt) << receipt.error().to_string();
  EXPECT_EQ(receipt->partition, 3);
  EXPECT_EQ(producer.send(record_of("bad", std::nullopt)).get().error().code, Errc::invalid_argument);
  self.reset();
}

class ProducerCompression : public ::testing::TestWithParam<Compression> {};
TEST_P(ProducerCompression, ArrivesAsItWasSent) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  auto client = client_of(broker);
  auto producer = producer_of(client, {.linger = 5ms, .compression = GetParam()});
  for (int i = 0; i < 1000; ++i) ASSERT_TRUE(producer.send(record_of(std::to_string(i))).valid());
  ASSERT_TRUE(producer.flush());
  EXPECT_EQ(values_of(broker.records("orders", 0)), numbered(1000));
}
INSTANTIATE_TEST_SUITE_P(Codecs, ProducerCompression, ::testing::Values(Compression::none, Compression::lz4, Compression::zstd));

// The broker's clock rules where the topic says so, and the receipt tells its time.
TEST(Producer, TellsTheAppendTimeOfTheBroker) {
  FakeBroker broker;
  broker.create_topic("orders", 1, true);
  auto client = client_of(broker);
  auto producer = producer_of(client);
  Record old = record_of("x");
  old.time = Instant{Milliseconds{1}};
  auto receipt = producer.send(old).get();
  ASSERT_TRUE(receipt);
  EXPECT_GT(receipt->time.time_since_epoch().count(), 1'000'000'000'000);
  EXPECT_EQ(broker.records("orders", 0)[0].time, receipt->time);
}

// linger gathers: far fewer publishes than records although nothing was in flight.
TEST(Producer, LingersAsAsked) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  auto client = client_of(broker);
  auto producer = producer_of(client, {.linger = 50ms});
  ASSERT_TRUE(producer.send(record_of("warm")).get());
  auto before = broker.counters().publishes;
  std::vector<Task<Receipt>> sent;
  for (int i = 0; i < 20; ++i) {
    sent.push_back(producer.send(record_of("x")));
    std::this_thread::sleep_for(1ms);
  }
  for (auto& task : sent) ASSERT_TRUE(task.get());
  EXPECT_LE(broker.counters().publishes - before, 3u);
}

// A goodbye is not an error: what is there is answered, the rest waits for the next connection.
TEST(Producer, FollowsAGoodbyeToTheNextConnection) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  auto client = client_of(broker);
  auto producer = producer_of(client, {.batch_bytes = 512});
  std::vector<Task<Receipt>> sent;
  for (int i = 0; i < 2000; ++i) {
    sent.push_back(producer.send(record_of(std::to_string(i))));
    if (i % 500 == 250) broker.say_goodbye();
  }
  for (auto& task : sent) ASSERT_TRUE(task.get()) << task.get().error().to_string();
  EXPECT_EQ(values_of(broker.records("orders", 0)), numbered(2000));
}

}  // namespace
}  // namespace tailrace
