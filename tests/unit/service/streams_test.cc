/// Event streams, as front ends see them: expected versions, retries, reads, truncation, and what a crash or a lost index leaves.
#include <map>
#include <random>

#include "tests/support/map_index.h"
#include "tests/unit/service/broker_world.h"

namespace tailrace::broker::service {
namespace {

using stream::Expected;
using stream::Version;
constexpr Expected kNone{Expected::Kind::none, stream::kNoVersion}, kAny{Expected::Kind::any, stream::kNoVersion}, kExists{Expected::Kind::exists, stream::kNoVersion};
Expected exactly(Version version) { return {Expected::Kind::exactly, version}; }

/// Indexes that outlive the broker, as files would; each look-up takes a turn of the loop.
struct Shelf {
  std::map<PartitionId, std::shared_ptr<stream::MapIndex>> indexes{};
  std::size_t lookups = 0;
  bool broken = false;  // nothing is taken any more
};
class ShelvedIndex final : public stream::StreamIndex {
 public:
  ShelvedIndex(Shelf& shelf, std::shared_ptr<stream::MapIndex> map, Executor& executor) : shelf_{shelf}, map_{std::move(map)}, executor_{executor} {}
  Task<Result<Offset>> reached() override { co_return co_await map_->reached(); }
  Task<Result<stream::Head>> head(std::string stream) override {
    ++shelf_.lookups;
    co_await yield_to(executor_);
    co_return co_await map_->head(std::move(stream));
  }
  Task<Result<std::vector<stream::Place>>> places(std::string stream, Version from, bool backwards, std::size_t max) override {
    co_await yield_to(executor_);
    co_return co_await map_->places(std::move(stream), from, backwards, max);
  }
  Task<Result<std::vector<stream::Listed>>> list(std::string prefix, std::string after, std::size_t max) override {
    co_return co_await map_->list(std::move(prefix), std::move(after), max);
  }
  Task<Result<void>> apply(std::vector<stream::Ledger::Update> updates, Offset reached) override {
    co_await yield_to(executor_);
    if (shelf_.broken) co_return fail(Errc::io_error, "the index takes nothing");
    co_return co_await map_->apply(std::move(updates), reached);
  }
  Task<Result<void>> clear() override { co_return co_await map_->clear(); }

 private:
  Shelf& shelf_;
  std::shared_ptr<stream::MapIndex> map_;
  Executor& executor_;
};
class Shelved final : public StreamIndexes {
 public:
  Shelved(Shelf& shelf, Executor& executor) : shelf_{shelf}, executor_{executor} {}
  std::unique_ptr<stream::StreamIndex> index(const PartitionId& partition) override {
    auto& map = shelf_.indexes[partition];
    if (!map) map = std::make_shared<stream::MapIndex>();
    return std::make_unique<ShelvedIndex>(shelf_, map, executor_);
  }
  Task<void> close() override { co_return; }

 private:
  Shelf& shelf_;
  Executor& executor_;
};
OpenStreamIndexes from(Shelf& shelf) {
  return [&shelf](io::Runtime& runtime, ShardIndex) -> Task<Result<std::unique_ptr<StreamIndexes>>> {
    co_return std::make_unique<Shelved>(shelf, runtime.executor);
  };
}

struct Event {
  std::string id;
  std::string value;
  std::string type = "added";
};
TestBatch events(std::string_view stream, const std::vector<Event>& all) {
  codec::BatchBuilder builder{{.bytes_max = limits::kMessageBytesCeiling}};
  for (const Event& event : all) {
    std::vector<codec::HeaderView> headers;
    if (!event.id.empty()) headers.push_back({"tailrace-event-id", as_bytes(event.id)});
    if (!event.type.empty()) headers.push_back({"tailrace-event-type", as_bytes(event.type)});
    auto added = builder.add({.timestamp = 1'000, .key = as_bytes(stream), .value = as_bytes(event.value), .headers = headers});
    EXPECT_TRUE(added) << added.error().detail;
  }
  auto batch = builder.finish();
  EXPECT_TRUE(batch);
  auto header = codec::validate_batch(batch->bytes(), {.message_bytes_max = limits::kMessageBytesCeiling});
  EXPECT_TRUE(header) << header.error().detail;
  return {*batch, *header};
}

struct StreamWorld {
  Shelf shelf{};
  BrokerWorld world;
  explicit StreamWorld(std::uint32_t shards = 1, std::int32_t partitions = 1, std::uint64_t seed = 1)
      : world{{.shards = shards, .seed = seed, .stream_indexes = from(shelf)}} {
    world.start();
    world.create("orders", partitions, {{"streams", "true"}});
  }
  static StreamAppendRequest request(std::string stream, Expected expected, const std::vector<Event>& all) {
    TestBatch batch = events(stream, all);
    return {.topic = "orders", .stream = std::move(stream), .expected = expected, .batch = batch.batch, .header = batch.header};
  }
  Answer<StreamAppendReply> append(std::string stream, Expected expected, const std::vector<Event>& all) {
    return world.run(world.shard().append_stream(request(std::move(stream), expected, all)));
  }
  Answer<stream::Head> truncate(std::string stream, std::optional<Version> before) {
    return world.run(world.shard().truncate_stream({.topic = "orders", .stream = std::move(stream), .before = before}));
  }
  /// (version, value) of a whole stream, read in steps of `step` events.
  Answer<std::vector<std::pair<Version, std::string>>> read(std::string stream, Version at = 0, bool backwards = false, std::uint32_t step = 1'000) {
    std::vector<std::pair<Version, std::string>> out;
    for (;;) {
      auto reply = world.run(world.shard().read_stream({.topic = "orders", .stream = stream, .from = at, .backwards = backwards, .events_max = step}));
      if (!reply) return std::unexpected(std::move(reply).error());
      std::size_t before = out.size();
      for (const StreamBatch& batch : reply->batches) {
        auto reader = codec::BatchReader::open(batch.batch.bytes());
        EXPECT_TRUE(reader);
        std::vector<std::pair<Version, std::string>> in;
        codec::RecordView record;
        while (reader->next(record)) in.emplace_back(batch.first + record.offset_delta, std::string{as_text(*record.value)});
        if (backwards) std::ranges::reverse(in);
        for (auto& [version, value] : in) {
          bool wanted = backwards ? (at < 0 || version <= at) : version >= at;
          if (wanted && version >= reply->head.first && version <= reply->head.last) out.emplace_back(version, std::move(value));
        }
      }
      if (reply->end || out.size() == before) return out;
      at = out.back().first + (backwards ? -1 : 1);
    }
  }
};
using Read = std::vector<std::pair<Version, std::string>>;

std::string fact(const Refusal& refusal, std::string_view name) {
  for (const Fact& fact : refusal.facts) {
    if (fact.name == name) return fact.value;
  }
  return {};
}

TEST(Streams, AnAppendIsMadeWhereItIsExpectedAndNowhereElse) {
  StreamWorld w;
  auto first = w.append("cart-7", kNone, {{"a1", "one"}, {"a2", "two"}});
  ASSERT_TRUE(first) << first.error().detail;
  EXPECT_EQ(first->first, 0);
  EXPECT_EQ(first->last, 1);
  EXPECT_EQ(first->offset, Offset{0});
  EXPECT_FALSE(first->duplicate);
  auto late = w.append("cart-7", exactly(0), {{"b1", "other"}});
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, Errc::wrong_version);
  EXPECT_EQ(fact(late.error(), "actual_version"), "1");
  EXPECT_EQ(fact(late.error(), "actual_time_ms"), "1000");
  auto next = w.append("cart-7", exactly(1), {{"b1", "other"}});
  ASSERT_TRUE(next) << next.error().detail;
  EXPECT_EQ(next->first, 2);
  EXPECT_TRUE(w.append("cart-8", kNone, {{"a1", "elsewhere"}}));
  EXPECT_EQ(w.append("cart-9", kExists, {{"a1", "x"}}).error().code, Errc::wrong_version);
  EXPECT_EQ(w.append("cart-9", exactly(4), {{"a1", "x"}}).error().code, Errc::wrong_version);
  EXPECT_TRUE(w.append("cart-8", kExists, {{"a2", "more"}}));
  EXPECT_TRUE(w.append("cart-8", kAny, {{"a3", "and more"}}));
  EXPECT_EQ(*w.read("cart-7"), (Read{{0, "one"}, {1, "two"}, {2, "other"}}));
  EXPECT_EQ(*w.read("cart-7", -1, true), (Read{{2, "other"}, {1, "two"}, {0, "one"}}));
  EXPECT_EQ(*w.read("cart-7", 1), (Read{{1, "two"}, {2, "other"}}));
  EXPECT_EQ(*w.read("cart-8", 0, false, 1), (Read{{0, "elsewhere"}, {1, "more"}, {2, "and more"}}));
  EXPECT_EQ(w.read("cart-9").error().code, Errc::no_such_stream);
  EXPECT_EQ(w.read("cart-7", 4).error().code, Errc::invalid_argument);
  EXPECT_EQ(*w.read("cart-7", 3), Read{});
}

// However late, and after a restart: what was stored is answered as it was. Anything else is a conflict.
TEST(Streams, ARetryIsKnownByAllItsIds) {
  StreamWorld w;
  ASSERT_TRUE(w.append("s", kNone, {{"a", "1"}, {"b", "2"}}));
  ASSERT_TRUE(w.append("s", exactly(1), {{"c", "3"}}));
  for (int life = 0; life < 2; ++life) {
    auto again = w.append("s", kNone, {{"a", "1"}, {"b", "2"}});
    ASSERT_TRUE(again) << again.error().detail;
    EXPECT_TRUE(again->duplicate);
    EXPECT_EQ(again->first, 0);
    EXPECT_EQ(again->offset, Offset{0});
    auto third = w.append("s", exactly(1), {{"c", "3"}});
    ASSERT_TRUE(third);
    EXPECT_TRUE(third->duplicate);
    EXPECT_EQ(third->first, 2);
    EXPECT_EQ(third->offset, Offset{2});
    EXPECT_EQ(w.append("s", kNone, {{"a", "1"}, {"x", "2"}}).error().code, Errc::wrong_version);
    EXPECT_EQ(w.append("s", exactly(1), {{"c", "3"}, {"d", "4"}}).error().code, Errc::wrong_version);
    w.world.restart();
    w.world.start();
  }
  EXPECT_EQ(w.read("s")->size(), 3u);
}

TEST(Streams, TwoWritersOfOneVersionAndOnlyOneIsRight) {
  for (std::uint32_t shards : {1u, 2u}) {
    StreamWorld w{shards, 4};
    TaskScope scope;
    int right = 0, wrong = 0;
    auto one = [&](std::uint32_t at, std::string id) -> Task<void> {
      auto answer = co_await w.world.shard(at).append_stream(StreamWorld::request("s", kNone, {{id, id}}));
      if (answer) ++right;
      else if (answer.error().code == Errc::wrong_version) ++wrong;
    };
    for (int i = 0; i < 20; ++i) scope.spawn(one(static_cast<std::uint32_t>(i) % shards, fmt::format("w{}", i)));
    ASSERT_TRUE(w.world.loop().run_until([&] { return scope.running() == 0; }));
    EXPECT_EQ(right, 1);
    EXPECT_EQ(wrong, 19);
    EXPECT_EQ(w.read("s")->size(), 1u);
    EXPECT_EQ(w.shelf.lookups > 0, true);
  }
}

TEST(Streams, TruncatedEventsAreHiddenAndVersionsGoOn) {
  StreamWorld w;
  ASSERT_TRUE(w.append("s", kNone, {{"a", "1"}, {"b", "2"}, {"c", "3"}}));
  EXPECT_EQ(w.truncate("t", 1).error().code, Errc::no_such_stream);
  EXPECT_EQ(w.truncate("s", 4).error().code, Errc::invalid_argument);
  ASSERT_TRUE(w.truncate("s", 2));
  for (int life = 0; life < 2; ++life) {
    EXPECT_EQ(*w.read("s"), (Read{{2, "3"}}));
    EXPECT_EQ(*w.read("s", -1, true), (Read{{2, "3"}}));
    w.world.restart();
    w.world.start();
  }
  auto gone = w.truncate("s", std::nullopt);
  ASSERT_TRUE(gone);
  EXPECT_EQ(gone->first, 3);
  EXPECT_EQ(*w.read("s"), Read{});
  EXPECT_EQ(w.append("s", kNone, {{"x", "x"}}).error().code, Errc::wrong_version);
  auto next = w.append("s", exactly(2), {{"d", "4"}});
  ASSERT_TRUE(next);
  EXPECT_EQ(next->first, 3);
  EXPECT_EQ(*w.read("s"), (Read{{3, "4"}}));
}

TEST(Streams, NamesAreListedInOrderOverAllPartitions) {
  StreamWorld w{2, 5};
  for (int i = 0; i < 30; ++i) ASSERT_TRUE(w.append(fmt::format("cart-{:02}", i), kNone, {{"a", "1"}}));
  ASSERT_TRUE(w.append("user-1", kNone, {{"a", "1"}}));
  auto list = [&](std::string prefix, std::string after, std::uint32_t most) {
    auto listed = w.world.run(w.world.shard().list_streams({.topic = "orders", .prefix = std::move(prefix), .after = std::move(after), .most = most}));
    std::vector<std::string> names;
    if (listed) {
      for (auto& one : *listed) names.push_back(one.stream);
    }
    return names;
  };
  EXPECT_EQ(list("", "", 1'000).size(), 31u);
  EXPECT_EQ(list("cart-", "", 3), (std::vector<std::string>{"cart-00", "cart-01", "cart-02"}));
  EXPECT_EQ(list("cart-", "cart-02", 2), (std::vector<std::string>{"cart-03", "cart-04"}));
  EXPECT_EQ(list("user", "", 1'000), (std::vector<std::string>{"user-1"}));
  EXPECT_TRUE(list("nobody", "", 1'000).empty());
}

TEST(Streams, WhatIsNoAppendIsRefusedAndLeavesNothing) {
  StreamWorld w;
  auto code = [&](std::string stream, Expected expected, const std::vector<Event>& all) {
    auto answer = w.append(std::move(stream), expected, all);
    return answer ? Errc::internal : answer.error().code;
  };
  EXPECT_EQ(code("s", kAny, {{"a", "1"}, {"a", "2"}}), Errc::invalid_record);
  EXPECT_EQ(code("s", kAny, {{"", "1"}}), Errc::invalid_record);
  EXPECT_EQ(code("s", kAny, {{std::string(65, 'x'), "1"}}), Errc::invalid_record);
  EXPECT_EQ(code("s", kAny, {{"a", "1", ""}}), Errc::invalid_record);
  EXPECT_EQ(code("s", exactly(-1), {{"a", "1"}}), Errc::invalid_argument);
  EXPECT_EQ(code("s", exactly(INT64_MAX), {{"a", "1"}}), Errc::invalid_argument);
  EXPECT_EQ(code("s\n", kAny, {{"a", "1"}}), Errc::invalid_argument);
  EXPECT_EQ(code(std::string(256, 's'), kAny, {{"a", "1"}}), Errc::invalid_argument);
  std::vector<Event> many;
  for (int i = 0; i < 1'001; ++i) many.push_back({fmt::format("{}", i), "x"});
  EXPECT_EQ(code("s", kAny, many), Errc::invalid_record);
  StreamAppendRequest other = StreamWorld::request("s", kAny, {{"a", "1"}});
  other.stream = "t";
  auto two = w.world.run(w.world.shard().append_stream(std::move(other)));
  EXPECT_EQ(two.error().code, Errc::invalid_record);
  many.pop_back();
  EXPECT_TRUE(w.append("s", kNone, many));
  EXPECT_EQ(w.read("s")->size(), 1'000u);
  EXPECT_EQ(w.read("t").error().code, Errc::no_such_stream);
}

TEST(Streams, AStreamTopicStaysAsItWasMade) {
  StreamWorld w;
  auto alter = [&](AlterTopicRequest request) {
    auto answer = w.world.run(w.world.shard().alter_topic(std::move(request)));
    return answer ? Errc::internal : answer.error().code;
  };
  EXPECT_EQ(alter({.name = "orders", .partitions = 2}), Errc::invalid_argument);
  EXPECT_EQ(alter({.name = "orders", .set = {{"retention_time", "7d"}}}), Errc::invalid_argument);
  EXPECT_EQ(alter({.name = "orders", .set = {{"retention_bytes", "1GiB"}}}), Errc::invalid_argument);
  EXPECT_EQ(alter({.name = "orders", .set = {{"streams", "false"}}}), Errc::invalid_argument);
  EXPECT_EQ(alter({.name = "orders", .unset = {"streams"}}), Errc::invalid_argument);
  auto create = w.world.run(w.world.shard().create_topic({.name = "short", .partitions = 1, .config = {{"streams", "true"}, {"retention_time", "7d"}}}));
  EXPECT_EQ(create.error().code, Errc::invalid_argument);
  auto topic = w.world.topic("orders");
  EXPECT_EQ(w.world.produce(topic, 0, {"plain"}).error().code, Errc::stream_topic);
  EXPECT_EQ(w.world.run(w.world.shard().open_producer({.topic = "orders"})).error().code, Errc::stream_topic);
  auto cut = w.world.run(w.world.shard().delete_records({.topic = "orders", .before = {{PartitionIndex{0}, Offset{-1}}}}));
  EXPECT_EQ(cut.error().code, Errc::invalid_argument);
  w.world.create("plain");
  auto there = w.world.run(w.world.shard().append_stream([] {
    auto request = StreamWorld::request("s", kAny, {{"a", "1"}});
    request.topic = "plain";
    return request;
  }()));
  EXPECT_EQ(there.error().code, Errc::not_a_stream_topic);
  BrokerWorld without;
  without.start();
  EXPECT_EQ(without.run(without.shard().create_topic({.name = "orders", .partitions = 1, .config = {{"streams", "true"}}})).error().code, Errc::unsupported);
}

// A topic of the same name is another topic, and knows nothing of the streams of the first.
TEST(Streams, ADeletedTopicTakesItsStreamsWithIt) {
  StreamWorld w;
  ASSERT_TRUE(w.append("s", kNone, {{"a", "1"}}));
  PartitionId id{w.world.topic("orders")->id, PartitionIndex{0}};
  ASSERT_TRUE(w.world.run(w.world.shard().delete_topic("orders", false)));
  EXPECT_EQ(w.world.run(w.shelf.indexes.at(id)->list("", "", 10))->size(), 0u);
  w.world.create("orders", 1, {{"streams", "true"}});
  EXPECT_EQ(w.read("s").error().code, Errc::no_such_stream);
  EXPECT_TRUE(w.append("s", kNone, {{"a", "1"}}));
}

// The log decides: against a model, over power cuts, with the index as it was, an older one, one of nothing, or one that is ahead.
TEST(Streams, WhatWasAcknowledgedSurvivesAndTheIndexFollowsTheLog) {
  for (std::uint64_t seed = 1; seed <= 12; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    StreamWorld w{1, 2, seed};
    std::mt19937_64 random{seed};
    std::map<std::string, std::vector<std::string>> model;
    std::map<PartitionId, std::shared_ptr<stream::MapIndex>> older;
    int number = 0;
    for (int life = 0; life < 6; ++life) {
      w.shelf.broken = life == 2;
      for (int i = 0; i < 40; ++i) {
        std::string name = fmt::format("s{}", random() % 8);
        std::vector<std::string>& known = model[name];
        Version at = static_cast<Version>(known.size()) - 1;
        bool right = random() % 4 != 0;
        Expected expected = !right ? exactly(at + 3) : at < 0 ? kNone : exactly(at);
        std::vector<Event> all;
        for (std::uint64_t n = 0; n <= random() % 3; ++n, ++number) all.push_back({fmt::format("e{}", number), fmt::format("v{}", number)});
        auto answer = w.append(name, expected, all);
        ASSERT_EQ(answer.has_value(), right) << (answer ? "" : answer.error().detail);
        if (!right) {
          EXPECT_EQ(answer.error().code, Errc::wrong_version);
          EXPECT_EQ(fact(answer.error(), "actual_version"), fmt::format("{}", at));
          continue;
        }
        EXPECT_EQ(answer->first, at + 1);
        for (const Event& event : all) known.push_back(event.value);
      }
      if (life == 1) {
        for (auto& [id, map] : w.shelf.indexes) older[id] = std::make_shared<stream::MapIndex>(*map);
      }
      w.world.power_cut(sim::CrashPlan::lose_all());
      if (life == 3) w.shelf.indexes.clear();
      if (life == 4) {
        for (auto& [id, map] : older) w.shelf.indexes[id] = map;
      }
      if (life == 5) {
        for (auto& [id, map] : w.shelf.indexes) ASSERT_TRUE(w.world.run(map->apply({}, Offset{1'000'000})));
      }
      w.world.start();
      for (const auto& [name, values] : model) {
        if (values.empty()) continue;
        auto read = w.read(name, 0, false, 7);
        ASSERT_TRUE(read) << read.error().detail;
        ASSERT_EQ(read->size(), values.size());
        for (std::size_t v = 0; v < values.size(); ++v) EXPECT_EQ((*read)[v], (std::pair{static_cast<Version>(v), values[v]}));
      }
    }
  }
}

}  // namespace
}  // namespace tailrace::broker::service
