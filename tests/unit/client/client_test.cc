#include <coroutine>
#include <mutex>
#include <set>

#include "src/callbacks.h"
#include "support.h"

namespace tailrace {
namespace {

// A coroutine that starts at once and ends by itself: all that is needed to co_await a handle.
struct Detached {
  struct promise_type {
    Detached get_return_object() { return {}; }
    std::suspend_never initial_suspend() { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() {}
    void unhandled_exception() { std::terminate(); }
  };
};

Detached send_two(Producer producer, std::promise<std::pair<std::int64_t, std::thread::id>>& done) {
  Record first = record_of("0");
  auto a = co_await producer.send(first);
  Record second = record_of("1");
  auto b = co_await producer.send(second);
  done.set_value({a && b ? b->offset : -1, std::this_thread::get_id()});
}

// One handle, four ways to finish it; the user's code runs on the callback thread, not on the I/O thread or the sender's.
TEST(TaskHandle, CanBeFinishedInFourWays) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  auto client = client_of(broker);
  auto producer = producer_of(client);
  std::promise<std::pair<std::int64_t, std::thread::id>> done;
  send_two(producer, done);
  auto [offset, coroutine_thread] = done.get_future().get();
  EXPECT_EQ(offset, 1);
  std::promise<std::thread::id> called;
  producer.send(record_of("2")).then([&](Result<Receipt>) { called.set_value(std::this_thread::get_id()); });
  auto callback_thread = called.get_future().get();
  EXPECT_NE(callback_thread, std::this_thread::get_id());
  EXPECT_EQ(callback_thread, coroutine_thread);
  EXPECT_EQ(producer.send(record_of("3")).to_future().get()->offset, 3);
  EXPECT_EQ(producer.send(record_of("4")).get()->offset, 4);
}

// get() inside a callback: results do not need the callback thread to arrive.
TEST(TaskHandle, MayBeWaitedForInsideACallback) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  auto client = client_of(broker);
  auto producer = producer_of(client);
  std::promise<bool> done;
  producer.send(record_of("0")).then([&](Result<Receipt>) { done.set_value(producer.send(record_of("1")).get().has_value()); });
  auto future = done.get_future();
  ASSERT_EQ(future.wait_for(10s), std::future_status::ready);
  EXPECT_TRUE(future.get());
}

TEST(TaskHandle, GivesUpWaitingAndComesBack) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  auto client = client_of(broker);
  auto producer = producer_of(client);
  ASSERT_TRUE(producer.send(record_of("0")).get());
  broker.inject({.on = Request::publish, .action = Action::delay, .delay = 300ms});
  auto task = producer.send(record_of("1"));
  EXPECT_FALSE(task.get_for(20ms));
  EXPECT_FALSE(task.ready());
  EXPECT_TRUE(task.get());
  EXPECT_TRUE(task.get_for(0ms));
  EXPECT_EQ(Task<Receipt>{}.get().error().code, Errc::invalid_argument);
}

// An exception from a callback is caught and told, and those after it run.
TEST(Callbacks, ExceptionsAreCaughtAndReported) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  std::mutex mutex;
  std::vector<std::string> told;
  ClientOptions options;
  options.on_event = [&](const ClientEvent& event) {
    std::lock_guard lock{mutex};
    if (event.kind == ClientEvent::Kind::callback_failed) told.push_back(event.message);
    if (event.kind == ClientEvent::Kind::connected) throw std::runtime_error("even the handler of events");
  };
  auto client = client_of(broker, options);
  auto producer = producer_of(client);
  std::promise<void> after;
  producer.send(record_of("0")).then([](Result<Receipt>) { throw std::runtime_error("boom"); });
  producer.send(record_of("1")).then([](Result<Receipt>) { throw 7; });
  producer.send(record_of("2")).then([&](Result<Receipt>) { after.set_value(); });
  ASSERT_EQ(after.get_future().wait_for(10s), std::future_status::ready);
  std::lock_guard lock{mutex};
  EXPECT_TRUE(std::ranges::any_of(told, [](const std::string& t) { return t.contains("boom"); }));
  EXPECT_GE(told.size(), 2u);
}

// The user's executor runs everything, and nothing of ours runs a callback elsewhere.
TEST(Callbacks, RunOnTheUsersExecutor) {
  FakeBroker broker;
  broker.create_topic("orders", 1);
  std::mutex mutex;
  std::vector<std::function<void()>> posted;
  ClientOptions options;
  options.callbacks.post = [&](std::function<void()> function) {
    std::lock_guard lock{mutex};
    posted.push_back(std::move(function));
  };
  std::atomic<bool> ran = false;
  std::thread::id where;
  {
    auto client = client_of(broker, options);
    auto producer = producer_of(client);
    auto task = producer.send(record_of("0"));
    task.then([&](Result<Receipt>) {
      where = std::this_thread::get_id();
      ran = true;
    });
    ASSERT_TRUE(task.get());
    EXPECT_FALSE(ran);
    ASSERT_TRUE(eventually([&] {
      std::lock_guard lock{mutex};
      return !posted.empty();
    }));
    std::lock_guard lock{mutex};
    for (auto& function : posted) function();
    posted.clear();
    EXPECT_TRUE(ran);
    EXPECT_EQ(where, std::this_thread::get_id());
  }
}

// Results of callbacks that an executor drops or throws away are no backlog: sends would wait for them for ever.
TEST(Callbacks, WhatTheExecutorDropsIsNoBacklog) {
  std::size_t failed = 0;
  auto dropping = std::make_shared<detail::Callbacks>(Executor{[](std::function<void()>) {}}, [&](std::string) { ++failed; });
  auto throwing = std::make_shared<detail::Callbacks>(Executor{[](std::function<void()>) { throw std::bad_alloc{}; }}, [&](std::string) { ++failed; });
  for (int i = 0; i < 3; ++i) {
    dropping->post([] {}, detail::kCallbackBacklogMax);
    throwing->post([] {}, detail::kCallbackBacklogMax);
  }
  EXPECT_EQ(dropping->backlog(), 0u);
  EXPECT_EQ(throwing->backlog(), 0u);
  EXPECT_EQ(failed, 3u);
}

// Several bootstrap servers: the first that answers is used; when it goes, the next one is.
TEST(Client, TriesItsServersInTurn) {
  FakeBroker gone, first, second;
  for (auto* broker : {&first, &second}) broker->create_topic("orders", 1);
  gone.stop();
  ClientOptions options{.servers = {gone.address(), first.address(), second.address()}};
  options.reconnect_backoff = 5ms;
  auto client = Client::open(options);
  ASSERT_TRUE(client);
  ASSERT_TRUE(client->connected().get());
  auto admin = client->admin();
  auto cluster = admin.cluster().get();
  ASSERT_TRUE(cluster);
  EXPECT_EQ(cluster->connected_to, first.address());
  first.stop();
  EXPECT_TRUE(eventually([&] {
    auto again = admin.cluster().get();
    return again && again->connected_to == second.address();
  }));
}

// No broker: the error says whom it tried and what they said, and comes well before the call's own timeout.
TEST(Client, SaysThatNoBrokerCanBeReached) {
  FakeBroker gone;
  gone.stop();
  ClientOptions options;
  options.unreachable_after = 100ms;
  options.request_timeout = 20s;
  auto client = client_of(gone, options);
  auto before = SteadyClock::now();
  auto topics = client.admin().list_topics().get();
  ASSERT_FALSE(topics);
  EXPECT_EQ(topics.error().code, Errc::unreachable);
  EXPECT_NE(topics.error().message.find("refused"), std::string::npos) << topics.error().message;
  EXPECT_NE(topics.error().message.find("tried"), std::string::npos);
  EXPECT_LT(SteadyClock::now() - before, 10s);
  EXPECT_EQ(client.connected().get().error().code, Errc::unreachable);
  EXPECT_EQ(client.consumer("orders").error().code, Errc::unreachable);
}

// What the client does with its connection is told as events, in words.
TEST(Client, TellsWhatItsConnectionDoes) {
  FakeBroker broker;
  std::mutex mutex;
  std::vector<ClientEvent::Kind> kinds;
  ClientOptions options;
  options.on_event = [&](const ClientEvent& event) {
    std::lock_guard lock{mutex};
    kinds.push_back(event.kind);
  };
  {
    auto client = client_of(broker, options);
    ASSERT_TRUE(client.connected().get());
    broker.drop_connections();
    ASSERT_TRUE(eventually([&] { return broker.counters().connections >= 2 && client.connected().get(); }));
    ASSERT_TRUE(client.admin().list_topics().get());
    ASSERT_TRUE(client.close());
  }
  std::lock_guard lock{mutex};
  using Kind = ClientEvent::Kind;
  EXPECT_EQ(kinds.front(), Kind::connecting);
  EXPECT_NE(std::ranges::find(kinds, Kind::connected), kinds.end());
  EXPECT_NE(std::ranges::find(kinds, Kind::disconnected), kinds.end());
  EXPECT_EQ(kinds.back(), Kind::closed);
}

// A broker that went silent without closing is noticed, and the next one is used.
TEST(Client, NoticesASilentBroker) {
  FakeBroker silent{{.idle_timeout = 300ms}}, other;
  ClientOptions options{.servers = {silent.address(), other.address()}};
  options.connect_timeout = 300ms;
  auto client = Client::open(options);
  ASSERT_TRUE(client && client->connected().get());
  silent.freeze(true);
  EXPECT_TRUE(eventually([&] { return other.counters().connections > 0; }));
  silent.freeze(false);
}

// A server that accepts and says nothing, or nonsense, is given up after connect_timeout and the next one is tried.
TEST(Client, GivesUpOnAServerThatDoesNotGreet) {
  for (auto action : {Action::swallow, Action::garbage, Action::oversize, Action::truncate, Action::error}) {
    FakeBroker odd, good;
    odd.inject({.on = Request::hello, .action = action, .times = -1, .code = Errc::unsupported_version});
    ClientOptions options{.servers = {odd.address(), good.address()}};
    options.connect_timeout = 200ms;
    auto client = Client::open(options);
    ASSERT_TRUE(client);
    auto cluster = client->admin().cluster().get();
    ASSERT_TRUE(cluster) << cluster.error().to_string();
    EXPECT_EQ(cluster->connected_to, good.address());
  }
}

TEST(Client, FindsAllProblemsOfItsOptions) {
  ClientOptions options;
  options.servers = {"no port:", "[::1", "ok:1"};
  options.memory_limit = 1;
  options.connect_timeout = 0ms;
  EXPECT_EQ(options.validate().size(), 4u);
  EXPECT_EQ(Client::open(options).error().code, Errc::invalid_argument);
  EXPECT_FALSE(ClientOptions{.servers = {}}.validate().empty());
  EXPECT_TRUE((ClientOptions{.servers = {"localhost", "[::1]:7070", "h:1"}}.validate().empty()));
  ProducerOptions producer;
  producer.batch_bytes = 1;
  producer.linger = -1ms;
  EXPECT_EQ(producer.validate().size(), 2u);
  ConsumerOptions consumer;
  consumer.partitions = {1, 1, -1};
  consumer.start = From::offset(-5);
  EXPECT_EQ(consumer.validate().size(), 3u);
}

TEST(Client, LoadsItsOptionsFromTheEnvironment) {
  ::setenv("TAILRACE_SERVERS", "a:1, b:2", 1);
  ::setenv("TAILRACE_CLIENT_ID", "me", 1);
  auto options = ClientOptions::load();
  ASSERT_TRUE(options);
  EXPECT_EQ(options->servers, (std::vector<std::string>{"a:1", "b:2"}));
  EXPECT_EQ(options->client_id, "me");
  ::setenv("TAILRACE_SERVERS", "a:x", 1);
  EXPECT_EQ(ClientOptions::load().error().code, Errc::invalid_argument);
  ::unsetenv("TAILRACE_SERVERS");
  ::unsetenv("TAILRACE_CLIENT_ID");
}

TEST(Admin, ManagesTopics) {
  FakeBroker broker;
  auto client = client_of(broker);
  auto admin = client.admin();
  TopicSpec spec{.partitions = 3, .config = {{"retention_time", "7d"}}};
  auto created = admin.create_topic("orders", spec).get();
  ASSERT_TRUE(created) << created.error().to_string();
  EXPECT_EQ(created->partitions.size(), 3u);
  EXPECT_EQ(created->id.size(), 32u);
  EXPECT_EQ(admin.create_topic("orders", spec).get().error().code, Errc::topic_exists);
  EXPECT_EQ(admin.create_topic("no/name", spec).get().error().code, Errc::invalid_topic_name);
  EXPECT_EQ(admin.alter_topic("orders", {.partitions = 5}).get()->partitions.size(), 5u);
  EXPECT_EQ(admin.alter_topic("orders", {.partitions = 2}).get().error().code, Errc::invalid_argument);
  auto described = admin.describe_topic("orders").get();
  ASSERT_TRUE(described);
  EXPECT_EQ(described->partitions.size(), 5u);
  EXPECT_EQ(described->config.at(0).value, "7d");
  EXPECT_FALSE(described->partitions[0].first_time);
  fill(broker, 100, 1);
  auto ends = admin.list_offsets("orders", From::latest()).get();
  ASSERT_TRUE(ends);
  ASSERT_EQ(ends->size(), 5u);
  EXPECT_EQ((*ends)[1].offset, 100);
  std::int32_t one = 1;
  EXPECT_EQ(admin.list_offsets("orders", From::earliest(), {&one, 1}).get()->at(0).offset, 0);
  EXPECT_EQ(admin.list_offsets("orders", From::last(3)).get().error().code, Errc::invalid_argument);
  EXPECT_EQ(admin.list_offsets("absent", From::latest()).get().error().code, Errc::no_such_topic);
  PartitionOffset before{1, 60};
  EXPECT_EQ(admin.delete_records("orders", {&before, 1}).get()->at(0).offset, 60);
  EXPECT_EQ(admin.list_topics().get()->at(0).name, "orders");
  ASSERT_TRUE(admin.delete_topic("orders").get());
  EXPECT_EQ(admin.delete_topic("orders").get().error().code, Errc::no_such_topic);
  EXPECT_EQ(admin.describe_topic("orders").get().error().code, Errc::no_such_topic);
}

// Reading calls are repeated on the next connection; a create whose answer is lost says that it may have happened.
TEST(Admin, RepeatsOnlyWhatIsHarmless) {
  FakeBroker broker;
  auto client = client_of(broker);
  auto admin = client.admin();
  broker.inject({.on = Request::metadata, .action = Action::drop_before_apply, .times = 3});
  EXPECT_TRUE(admin.list_topics().get());
  broker.inject({.on = Request::create_topic, .action = Action::drop_after_apply});
  auto created = admin.create_topic("orders").get();
  ASSERT_FALSE(created);
  EXPECT_EQ(created.error().code, Errc::connection_lost);
  EXPECT_TRUE(created.error().maybe_applied);
  EXPECT_EQ(admin.list_topics().get()->size(), 1u);
}

// A broker that answers nothing: the call ends by its timeout, and says whether it can have been applied.
TEST(Admin, EndsByItsTimeout) {
  FakeBroker broker;
  ClientOptions options;
  options.request_timeout = 200ms;
  auto client = client_of(broker, options);
  ASSERT_TRUE(client.connected().get());
  broker.inject({.on = Request::metadata, .action = Action::swallow});
  broker.inject({.on = Request::create_topic, .action = Action::swallow});
  EXPECT_EQ(client.admin().list_topics().get().error().code, Errc::timeout);
  EXPECT_EQ(client.admin().create_topic("x").get().error().code, Errc::outcome_unknown);
}

TEST(ErrorText, NamesCodeSentenceParticularsAndHint) {
  auto error = make_error(Errc::no_such_topic, "order");
  EXPECT_TRUE(error.to_string().starts_with("error E2031: The topic does not exist: order.")) << error.to_string();
  error.message = "The topic does not exist: topic order";
  EXPECT_TRUE(error.to_string().starts_with("error E2031: The topic does not exist: topic order.")) << "said once: " << error.to_string();
  EXPECT_EQ(make_error(Errc::timeout).to_string().find("error E3005: No answer came in time"), 0u);
}

TEST(Partitioners, AgreeWithJava) {
  // Kafka's UtilsTest.testMurmur2 gives murmur2("21") = -973932308; toPositive and modulo as its DefaultPartitioner.
  RecordView record{"t", "21", std::nullopt};
  EXPECT_EQ(murmur2()(record, 7), (static_cast<std::uint32_t>(-973932308) & 0x7fffffffu) % 7);
  RecordView none{"t", std::nullopt, std::nullopt};
  auto go_round = sticky();
  std::set<std::uint32_t> seen;
  for (int i = 0; i < 5; ++i) seen.insert(go_round(none, 5));
  EXPECT_EQ(seen.size(), 5u);
}

}  // namespace
}  // namespace tailrace
