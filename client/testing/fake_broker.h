#pragma once
/// The sockets of the fake broker: an accepting thread, and a reading and a writing thread per connection. Plain POSIX: it
/// must not share the client's reactor, or both would have the same bugs.
///
/// Thread   everything below is guarded by Impl::mutex; threads let go of it only to wait and to use their socket.
#include <condition_variable>
#include <functional>
#include <list>
#include <mutex>
#include <set>
#include <thread>

#include "proto/native/frame.h"
#include "proto/native/native.pb.h"
#include "testing/fake_state.h"

namespace tailrace::inline v1::testing {

using Clock = std::chrono::steady_clock;

struct ProducerStream {
  std::string topic{};
  std::int64_t producer_id = -1;
  std::uint64_t unanswered_bytes = 0;
  std::map<std::int32_t, std::uint64_t> unanswered_batches{};
};

struct Reader {
  std::int64_t next = 0;
  std::optional<std::int64_t> until{};
  bool paused = false;
  bool finished = false;
  bool reset = false;
  std::int64_t told_end = -1;
};
struct SubscribeStream {
  std::string topic{};
  std::map<std::int32_t, Reader> readers{};
  std::int64_t credit_records = 0, credit_bytes = 0;
  std::uint64_t seek_count = 0;
  proto::OutOfRange policy = proto::OUT_OF_RANGE_ERROR;
};

struct Outgoing {
  std::vector<std::byte> bytes{};
  Clock::time_point due{};
  std::function<void()> before{};  // under the lock, when it is about to be sent
  bool then_close = false;
};

struct FakeBroker::Impl {
  struct Connection {
    int fd = -1;
    std::thread reader{}, writer{};
    std::deque<Outgoing> outbox{};
    std::condition_variable changed{};
    bool greeted = false;
    bool dead = false;
    bool readers_done = false, writers_done = false;
    std::map<std::uint64_t, ProducerStream> producers{};
    std::map<std::uint64_t, SubscribeStream> subscriptions{};
  };
  using Lock = std::unique_lock<std::mutex>;

  BrokerOptions options{};
  mutable std::mutex mutex{};
  std::condition_variable thawed{};
  std::map<std::string, FakeTopic, std::less<>> topics{};
  std::vector<Fault> faults{};
  Counters counters{};
  std::list<std::unique_ptr<Connection>> connections{};
  std::thread acceptor{};
  int listener = -1;
  std::uint16_t bound_port = 0;
  bool running = false;
  bool refusing = false;
  bool frozen = false;
  int corrupting = 0;
  std::int64_t next_producer_id = 1;
  std::set<std::int64_t> given_ids{};
  std::uint64_t window = 0;

  // fake_broker.cc
  void start();
  void stop();
  void accept_loop();
  void read_loop(Connection& connection);
  void write_loop(Connection& connection);
  void kill(Connection& connection);
  void reap(Lock& lock, bool all);

  // fake_requests.cc
  void handle(Connection& connection, const proto::FrameHeader& header, broker::Bytes control, broker::Bytes payload);
  std::optional<Fault> strike(Request request);
  bool before(Connection& connection, std::uint64_t id, const std::optional<Fault>& fault, std::uint64_t ticket = 0);
  void answer(Connection& connection, proto::FrameType type, std::uint64_t id, const google::protobuf::MessageLite& message,
              const std::optional<Fault>& fault, std::function<void()> before_sending = {}, std::uint64_t ticket = 0);
  void refuse(Connection& connection, std::uint64_t id, Errc code, std::string message, std::map<std::string, std::string> facts = {},
              std::uint64_t ticket = 0, std::function<void()> before_sending = {});
  void push(Connection& connection, proto::FrameType type, std::uint64_t id, const google::protobuf::MessageLite& message,
            broker::Bytes payload = {}, std::function<void()> before_sending = {});
  void on_publish(Connection& connection, std::uint64_t id, broker::Bytes control, broker::Bytes payload);
  void on_open_producer(Connection& connection, std::uint64_t id, broker::Bytes control);
  void on_subscribe(Connection& connection, std::uint64_t id, broker::Bytes control);
  void on_seek(Connection& connection, std::uint64_t id, broker::Bytes control);
  void on_list_offsets(Connection& connection, std::uint64_t id, broker::Bytes control);
  FakeTopic* find_topic(const std::string& name);
  FakeTopic& make_topic(const std::string& name, std::int32_t partitions);
  void describe(const FakeTopic& topic, proto::TopicInfo& to) const;
  broker::Result<std::int64_t> resolve(const FakePartition& partition, const proto::StartAt& at, proto::OutOfRange policy, bool& reset) const;
  void pump_all();
  void pump(Connection& connection, std::uint64_t id, SubscribeStream& stream);
  void end_stream(Connection& connection, std::uint64_t id, Errc code, const std::string& message, std::map<std::string, std::string> facts);
};

}  // namespace tailrace::inline v1::testing
