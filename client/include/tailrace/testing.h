#pragma once
/// A broker for tests: real TCP on loopback, the real protocol, logs in memory, and faults on demand.
///
///     testing::FakeBroker broker;
///     broker.create_topic("orders", 4);
///     auto client = Client::open({.servers = {broker.address()}});
///     broker.inject({.on = testing::Request::publish, .action = testing::Action::drop_after_apply});
///     auto receipt = client->producer()->send({.topic = "orders", .value = "once"}).get();   // reconnects, resends
///     EXPECT_EQ(broker.records("orders", receipt->partition).size(), 1);                     // and nothing is there twice
///
/// It checks sequences as the real broker does (last five batches of a producer), refuses gaps, answers duplicates with
/// their original offset, and sends only into credit. It has one node, no disk, no retention. Link tailrace::testing.
/// Threads  all members from any thread. The destructor stops it.
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tailrace/record.h"

namespace tailrace {
inline namespace v1 {
namespace testing {

enum class Request : std::uint8_t { hello, metadata, create_topic, open_producer, publish, subscribe, seek, credit, any };

enum class Action : std::uint8_t {
  drop_before_apply,  ///< close the connection, do nothing
  drop_after_apply,   ///< do it, close the connection without an answer
  error,              ///< answer `code`, do nothing
  error_after_apply,  ///< do it, answer `code` all the same
  delay,              ///< do it, answer `delay` later (what follows on the connection waits too)
  swallow,            ///< do nothing and answer nothing
  truncate,           ///< do it, send half of the answer's frame and close
  garbage,            ///< do it, answer bytes that are no frame
  oversize,           ///< do it, answer a header that announces a frame above every limit
  wrong_type,         ///< do it, answer with a frame of another type
};

struct Fault {
  Request on = Request::publish;
  Action action = Action::drop_before_apply;
  int skip = 0;   ///< so many requests pass first
  int times = 1;  ///< then it strikes so many; -1: for ever
  Errc code = Errc::internal;
  Milliseconds delay{0};
};

struct BrokerOptions {
  std::uint16_t port = 0;  ///< 0: a free one
  std::uint64_t window_bytes = 4u << 20;
  std::uint64_t message_bytes_max = 1u << 20;
  Milliseconds idle_timeout{30'000};
  std::int32_t auto_create_partitions = 0;  ///< more than 0: topics come into being when they are used
};

struct Counters {
  std::uint64_t connections = 0;
  std::uint64_t publishes = 0;
  std::uint64_t duplicates = 0;          ///< batches found stored already
  std::uint64_t sequence_refusals = 0;   ///< out_of_order_sequence answered
  std::uint64_t goodbyes = 0;
  std::uint64_t unanswered_bytes_max = 0;   ///< most publish bytes without an answer, of one stream
  std::uint64_t unanswered_batches_max = 0; ///< most batches of one partition without an answer
  std::uint64_t producers_opened = 0;
};

class FakeBroker {
 public:
  explicit FakeBroker(BrokerOptions options = {});
  ~FakeBroker();
  FakeBroker(const FakeBroker&) = delete;
  FakeBroker& operator=(const FakeBroker&) = delete;

  [[nodiscard]] std::string address() const;  ///< 127.0.0.1:port
  [[nodiscard]] std::uint16_t port() const;

  void create_topic(std::string_view name, std::int32_t partitions, bool log_append_time = false);
  void delete_topic(std::string_view name);
  /// Appends one batch as if somebody else had published it; answers the offset of its first record.
  std::int64_t append(std::string_view topic, std::int32_t partition, std::span<const Record> records);
  /// Moves the log start, as retention or a purge would.
  void trim(std::string_view topic, std::int32_t partition, std::int64_t log_start);
  [[nodiscard]] std::vector<Message> records(std::string_view topic, std::int32_t partition) const;
  [[nodiscard]] std::size_t record_count(std::string_view topic) const;

  void inject(Fault fault);
  void clear_faults();
  /// Flips a byte in the next `times` batches that are delivered (the stored ones stay good).
  void corrupt_deliveries(int times);
  /// New connections are closed at once.
  void refuse_connections(bool refuse);
  /// Reads nothing and answers nothing until thawed; connections stay open, as with a stopped process.
  void freeze(bool frozen);
  void set_window(std::uint64_t bytes);  ///< tells every open producer
  void drop_connections();
  /// Says goodbye on every connection, answers what is there, closes.
  void say_goodbye();
  /// Closes everything; logs stay. start() comes back on the same port.
  void stop();
  void start();
  /// Producer ids and sequences are forgotten, as after their expiry.
  void forget_producers();

  [[nodiscard]] Counters counters() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace testing
}  // namespace v1
}  // namespace tailrace
