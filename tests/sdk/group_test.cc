// Group consumers against the real broker.
#include <atomic>
#include <map>
#include <mutex>

#include "tests/sdk/broker_fixture.h"

namespace tailrace {
namespace {

using SdkGroups = SdkWithBroker;

GroupOptions quick(GroupOptions options = {}) {
  options.commit_interval = 50ms;
  options.session_timeout = 1'500ms;
  return options;
}

struct Seen {
  std::mutex mutex{};
  std::map<std::pair<std::int32_t, std::int64_t>, int> times{};
  std::size_t count() {
    std::lock_guard lock{mutex};
    return times.size();
  }
};

/// A member on a thread of its own, with a client of its own.
class Reader {
 public:
  Reader(const std::string& address, Seen& seen, GroupOptions options = quick()) : seen_{seen} {
    auto client = Client::open({.servers = {address}});
    EXPECT_TRUE(client);
    client_ = *client;
    auto consumer = client_.group_consumer("readers", {"orders"}, std::move(options));
    EXPECT_TRUE(consumer);
    consumer_ = *consumer;
    thread_ = std::jthread{[this](std::stop_token stop) {
      ended_ = consumer_.run([&](const Message& message) -> Result<void> {
        std::lock_guard lock{seen_.mutex};
        ++seen_.times[{message.partition, message.offset}];
        return {};
      }, stop);
    }};
  }
  void leave() {
    thread_.request_stop();
    thread_.join();
    EXPECT_TRUE(ended_) << ended_.error().to_string();
    EXPECT_TRUE(consumer_.close());
  }

 private:
  Seen& seen_;
  Client client_{};
  GroupConsumer consumer_{};
  Result<void> ended_{};
  std::jthread thread_{};
};

template <class F>
bool soon(F condition, std::chrono::seconds within = std::chrono::seconds{30}) {
  auto until = std::chrono::steady_clock::now() + within;
  while (std::chrono::steady_clock::now() < until) {
    if (condition()) return true;
    std::this_thread::sleep_for(10ms);
  }
  return false;
}

// Members come and go, and each record is handled once: those that leave store what they handled.
TEST_F(SdkGroups, MembersShareTheWorkAndHandItOver) {
  create(6);
  for (int p = 0; p < 6; ++p) publish(100, p);
  Seen seen;
  {
    Reader first{broker.address(), seen};
    ASSERT_TRUE(soon([&] { return seen.count() >= 100; }));
    Reader second{broker.address(), seen};
    ASSERT_TRUE(soon([&] {
      auto described = client.admin().describe_group("readers").get();
      return described && described->members.size() == 2 && described->state == GroupState::stable;
    }));
    for (int p = 0; p < 6; ++p) publish(100, p, 100);
    ASSERT_TRUE(soon([&] { return seen.count() == 1'200; }));
    first.leave();
    for (int p = 0; p < 6; ++p) publish(50, p, 200);
    ASSERT_TRUE(soon([&] { return seen.count() == 1'500; }));
    second.leave();
  }
  for (const auto& [place, times] : seen.times) EXPECT_EQ(times, 1) << place.first << "@" << place.second;
  auto described = client.admin().describe_group("readers").get();
  ASSERT_TRUE(described);
  EXPECT_EQ(described->state, GroupState::empty);
  for (const auto& partition : described->partitions) {
    EXPECT_EQ(partition.committed, 250);
    EXPECT_EQ(partition.lag, 0);
  }
}

// A broker that restarts is no event for a member: it stays one, and no offset goes back.
TEST_F(SdkGroups, ARestartOfTheBrokerIsNotNoticed) {
  create(3);
  std::atomic<int> assigned{0}, revoked{0};
  GroupOptions options = quick();
  options.session_timeout = 10s;
  options.on_assigned = [&](std::span<const Position>) { ++assigned; };
  options.on_revoked = [&](std::span<const Position>) { ++revoked; };
  Seen seen;
  Reader reader{broker.address(), seen, options};
  for (int round = 0; round < 3; ++round) {
    for (int p = 0; p < 3; ++p) publish(40, p, round * 40);
    ASSERT_TRUE(soon([&] { return seen.count() == static_cast<std::size_t>(120 * (round + 1)); }));
    broker.stop();
    broker.start();
  }
  for (int p = 0; p < 3; ++p) publish(1, p, 120);
  ASSERT_TRUE(soon([&] { return seen.count() == 363; }));
  EXPECT_EQ(assigned, 1);
  EXPECT_EQ(revoked, 0);
  reader.leave();
  for (const auto& [place, times] : seen.times) EXPECT_EQ(times, 1) << place.first << "@" << place.second;
}

// The member of a slow handler is alive: heartbeats are not its thread's.
TEST_F(SdkGroups, ASlowHandlerIsNotADeadMember) {
  create(2);
  publish(2, 0);
  auto consumer = client.group_consumer("readers", {"orders"}, quick());
  ASSERT_TRUE(consumer);
  ASSERT_TRUE(soon([&] { return consumer->next(100ms).value_or(std::nullopt).has_value(); }));
  std::string member = consumer->member_id();
  EXPECT_FALSE(member.empty());
  std::this_thread::sleep_for(3s);  // two sessions long it handles the first message
  auto described = client.admin().describe_group("readers").get();
  ASSERT_TRUE(described);
  ASSERT_EQ(described->members.size(), 1U);
  EXPECT_EQ(described->members[0].member, member);
  EXPECT_TRUE(consumer->commit());
  EXPECT_EQ(consumer->member_id(), member);
  EXPECT_TRUE(consumer->close());
}

TEST_F(SdkGroups, AFailedMessageComesAgain) {
  create(1);
  publish(10);
  auto consumer = client.group_consumer("readers", {"orders"}, quick());
  ASSERT_TRUE(consumer);
  std::vector<std::string> handled;
  auto ended = consumer->run([&](const Message& message) -> Result<void> {
    if (message.offset == 4 && handled.size() == 4) return std::unexpected(make_error(Errc::internal, "not this time"));
    handled.emplace_back(message.value_text());
    return {};
  });
  ASSERT_FALSE(ended);
  EXPECT_EQ(ended.error().at["offset"], "4");
  EXPECT_TRUE(consumer->close());
  auto described = client.admin().describe_group("readers").get();
  ASSERT_TRUE(described);
  EXPECT_EQ(described->partitions[0].committed, 4);
  auto again = client.group_consumer("readers", {"orders"}, quick());
  ASSERT_TRUE(again);
  std::optional<Message> message;
  ASSERT_TRUE(soon([&] { return (message = again->next(100ms).value_or(std::nullopt)).has_value(); }));
  EXPECT_EQ(message->offset, 4);
}

TEST_F(SdkGroups, ManualCommitsAndSeeks) {
  create(2);
  for (int p = 0; p < 2; ++p) publish(20, p);
  GroupOptions options = quick();
  options.commit = CommitMode::manual;
  auto consumer = client.group_consumer("readers", {"orders"}, options);
  ASSERT_TRUE(consumer);
  std::size_t count = 0;
  ASSERT_TRUE(soon([&] {
    auto some = consumer->next_batch(100, 100ms);
    EXPECT_TRUE(some) << some.error().to_string();
    count += some ? some->size() : 0;
    return count == 40;
  }));
  EXPECT_TRUE(soon([&] { return consumer->caught_up(); }));
  auto nothing = client.admin().describe_group("readers").get();
  ASSERT_TRUE(nothing);
  for (const auto& partition : nothing->partitions) EXPECT_EQ(partition.committed, -1);
  std::vector<Position> half{{"orders", 0, 10}};
  ASSERT_TRUE(consumer->commit(half));
  ASSERT_TRUE(consumer->seek(Position{"orders", 1, 15}));
  std::vector<Position> zero{{"orders", 0, 0}};
  ASSERT_TRUE(consumer->pause(zero));
  auto message = consumer->next(5s);
  ASSERT_TRUE(message && *message);
  EXPECT_EQ((*message)->partition, 1);
  EXPECT_EQ((*message)->offset, 15);
  ASSERT_TRUE(consumer->commit());
  auto described = client.admin().describe_group("readers").get();
  ASSERT_TRUE(described);
  EXPECT_EQ(described->partitions[0].committed, 20);
  EXPECT_EQ(described->partitions[1].committed, 16);
  std::vector<Position> elsewhere{{"orders", 7, 1}};
  EXPECT_EQ(consumer->commit(elsewhere).error().code, Errc::no_such_partition);
  EXPECT_TRUE(consumer->close());
  EXPECT_EQ(consumer->next(1s).error().code, Errc::closed);
}

TEST_F(SdkGroups, AKickedMemberComesBackAtTheNewOffsets) {
  create(1);
  publish(10);
  Seen seen;
  Reader reader{broker.address(), seen};
  ASSERT_TRUE(soon([&] { return seen.count() == 10; }));
  std::vector<Position> back{{"orders", 0, 5}};
  EXPECT_EQ(client.admin().reset_offsets("readers", back).get().error().code, Errc::group_not_empty);
  ASSERT_TRUE(client.admin().reset_offsets("readers", back, true).get());
  ASSERT_TRUE(soon([&] {
    std::lock_guard lock{seen.mutex};
    return seen.times[{0, 9}] == 2;
  }));
  reader.leave();
  std::lock_guard lock{seen.mutex};
  for (std::int64_t i = 0; i < 10; ++i) EXPECT_EQ((seen.times[{0, i}]), i < 5 ? 1 : 2) << i;
}

// A process that comes back under its name takes its place: nothing moves, and nobody waits for a session to end.
TEST_F(SdkGroups, ANamedInstanceTakesItsPlace) {
  create(4);
  GroupOptions options = quick();
  options.session_timeout = 60s;
  options.instance = "one";
  auto joined = [&](GroupConsumer& consumer) {
    return soon([&] {
      (void)consumer.next(20ms);
      return consumer.assignment().size() == 4;
    });
  };
  auto gone = Client::open({.servers = {broker.address()}});
  ASSERT_TRUE(gone);
  auto first = gone->group_consumer("readers", {"orders"}, options);
  ASSERT_TRUE(first);
  ASSERT_TRUE(joined(*first));
  auto second = client.group_consumer("readers", {"orders"}, options);
  ASSERT_TRUE(second);
  EXPECT_TRUE(joined(*second));
  auto described = client.admin().describe_group("readers").get();
  ASSERT_TRUE(described);
  EXPECT_EQ(described->members.size(), 1U);
  EXPECT_TRUE(first->close());
}

TEST_F(SdkGroups, WhatCannotBeIsSaidAtOnce) {
  create(1);
  EXPECT_EQ(client.group_consumer("", {"orders"}).error().code, Errc::invalid_argument);
  EXPECT_EQ(client.group_consumer("g", {}).error().code, Errc::invalid_argument);
  EXPECT_EQ(client.group_consumer("g", {"orders", "orders"}).error().code, Errc::invalid_argument);
  GroupOptions absurd;
  absurd.session_timeout = 0ms;
  absurd.commit_interval = 0ms;
  EXPECT_EQ(absurd.validate().size(), 2U);
  auto nowhere = client.group_consumer("g", {"none"});
  ASSERT_TRUE(nowhere);
  auto error = nowhere->next(10s);
  ASSERT_FALSE(error);
  EXPECT_EQ(error.error().code, Errc::no_such_topic);
}

}  // namespace
}  // namespace tailrace
