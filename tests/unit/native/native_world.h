#pragma once
/// Native clients against a real broker on simulated time and disk, over streams in memory.
///
///   NativeWorld world;
///   Client client{world};
///   client.greet();
///   auto created = client.call<proto::CreateTopicReply>(FrameType::create_topic, request);
#include <gtest/gtest.h>

#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "flow/memory_budget.h"
#include "native/front.h"
#include "proto/native/native.pb.h"
#include "tests/unit/native/frames.h"
#include "tests/unit/service/broker_world.h"

namespace tailrace::broker::native {

using proto::FrameType;

/// The wire between one client and the broker. The client's half is plain bytes; the broker's half is an io::Stream.
struct Wires {
  std::string to_broker;            // sent by the client, not yet read
  std::string to_client;            // written by the broker
  std::size_t client_takes = ~std::size_t{0};  // bytes the client's side still accepts: a client that does not read
  std::size_t read_at_most = ~std::size_t{0};  // per read: the network's cuts
  bool client_closed = false;       // end of the client's side
  bool broker_shut = false;
};

class MemoryStream final : public io::Stream {
 public:
  MemoryStream(Executor& executor, std::shared_ptr<Wires> wires, std::string peer) : executor_{executor}, wires_{std::move(wires)}, peer_{std::move(peer)} {
    read_.run = [](Runnable* self) noexcept { static_cast<Side*>(self)->finish(); };
    write_.run = read_.run;
  }
  ~MemoryStream() override { wires_->broker_shut = true; }

  void read_some(io::Operation& op, MutableBytes into) override {
    EXPECT_EQ(read_.operation, nullptr) << "one read at a time";
    EXPECT_FALSE(into.empty());
    read_.operation = &op;
    into_ = into;
    move_bytes();
  }
  void write(io::Operation& op, std::span<const iovec> parts) override {
    EXPECT_EQ(write_.operation, nullptr) << "one write at a time";
    write_.operation = &op;
    left_.assign(parts.begin(), parts.end());
    written_ = 0;
    move_bytes();
  }
  void shut() override {
    wires_->broker_shut = true;
    move_bytes();
  }
  [[nodiscard]] std::string peer() const override { return peer_; }

  /// The client sent, closed, or took something.
  void move_bytes() {
    if (read_.pending()) {
      if (wires_->broker_shut) read_.complete(executor_, -ECANCELED);
      else if (!wires_->to_broker.empty()) {
        std::size_t count = std::min({into_.size(), wires_->to_broker.size(), wires_->read_at_most});
        std::memcpy(into_.data(), wires_->to_broker.data(), count);
        wires_->to_broker.erase(0, count);
        read_.complete(executor_, static_cast<std::int64_t>(count));
      } else if (wires_->client_closed) read_.complete(executor_, 0);
    }
    if (!write_.pending()) return;
    if (wires_->broker_shut) return write_.complete(executor_, -ECANCELED);
    while (!left_.empty() && wires_->client_takes > 0) {
      iovec& part = left_.front();
      std::size_t count = std::min(part.iov_len, wires_->client_takes);
      wires_->to_client.append(static_cast<const char*>(part.iov_base), count);
      wires_->client_takes -= count;
      written_ += static_cast<std::int64_t>(count);
      part.iov_base = static_cast<char*>(part.iov_base) + count;
      part.iov_len -= count;
      if (part.iov_len == 0) left_.erase(left_.begin());
    }
    if (left_.empty()) write_.complete(executor_, written_);
  }

 private:
  struct Side : Runnable {
    io::Operation* operation = nullptr;
    std::int64_t result = 0;
    bool queued = false;
    [[nodiscard]] bool pending() const { return operation && !queued; }
    void complete(Executor& executor, std::int64_t value) {
      result = value;
      queued = true;
      executor.post(*this);
    }
    void finish() {
      queued = false;
      io::Operation* op = std::exchange(operation, nullptr);
      op->result = result;
      op->complete(op);
    }
  };
  Executor& executor_;
  std::shared_ptr<Wires> wires_;
  std::string peer_;
  Side read_, write_;
  MutableBytes into_;
  std::deque<iovec> left_;
  std::int64_t written_ = 0;
};

struct NativeOptions {
  service::WorldOptions broker{};
  std::chrono::milliseconds idle_timeout{300'000};
  std::size_t connections_max = 10'000;
  std::size_t connections_per_address_max = 10'000;
};

class NativeWorld {
 public:
  explicit NativeWorld(NativeOptions options = {}) : broker{options.broker} {
    broker.start();
    FrontOptions front_options;
    front_options.node = NodeId{1};
    front_options.cluster_id = "test";
    front_options.idle_timeout = options.idle_timeout;
    front_options.connections_max = options.connections_max;
    front_options.connections_per_address_max = options.connections_per_address_max;
    runtime.emplace(io::Runtime{broker.disk(), loop(), loop(), loop(), loop().random()});
    front.emplace(broker.shard(), *runtime, front_options);
  }
  ~NativeWorld() {
    if (front) drain();
  }
  std::size_t drain(Duration within = 5s) {
    std::size_t cut = broker.run(front->drain(loop().now() + within));
    settle();
    front.reset();
    return cut;
  }
  sim::SimLoop& loop() { return broker.loop(); }
  /// Everything that can happen without time passing much.
  void settle(Duration duration = 10ms) { loop().run_for(duration); }

  service::BrokerWorld broker;
  std::optional<io::Runtime> runtime;
  std::optional<Front> front;
};

struct ReceivedFrame {
  proto::FrameHeader header;
  std::string control;
  std::string payload;
  template <class Message>
  [[nodiscard]] Message as() const {
    Message message;
    EXPECT_TRUE(message.ParseFromString(control));
    return message;
  }
};

class Client {
 public:
  explicit Client(NativeWorld& world, std::string peer = "10.0.0.1:5000") : world_{world}, wires_{std::make_shared<Wires>()} {
    auto stream = std::make_unique<MemoryStream>(world.loop(), wires_, std::move(peer));
    stream_ = stream.get();
    world.front->serve(std::move(stream));
  }

  void send(std::string bytes) {
    wires_->to_broker += bytes;
    poke();
  }
  template <class Message>
  void send(FrameType type, std::uint64_t id, const Message& message, std::string_view payload = {}) {
    send(frame_of(type, id, message, payload));
  }
  void close_side() {
    wires_->client_closed = true;
    poke();
  }
  void take_at_most(std::size_t bytes) {
    wires_->client_takes = bytes;
    poke();
  }
  void cut_reads_to(std::size_t bytes) { wires_->read_at_most = bytes; }
  [[nodiscard]] bool closed() const { return wires_->broker_shut; }
  [[nodiscard]] std::size_t unread_by_broker() const { return wires_->to_broker.size(); }
  [[nodiscard]] std::size_t bytes_waiting() const { return wires_->to_client.size(); }

  /// The next frame, if one comes within `within` of virtual time.
  std::optional<ReceivedFrame> next(Duration within = 1s) {
    (void)world_.loop().run_until([&] { return whole() || closed(); }, within);
    if (!whole()) return std::nullopt;
    const auto* bytes = reinterpret_cast<const std::byte*>(wires_->to_client.data());
    ReceivedFrame frame{proto::read_frame_header(bytes), {}, {}};
    EXPECT_TRUE(frame.header.is_consistent());
    frame.control = wires_->to_client.substr(proto::kFrameHeaderBytes, frame.header.control_length);
    frame.payload = wires_->to_client.substr(proto::kFrameHeaderBytes + frame.header.control_length, frame.header.payload_bytes());
    wires_->to_client.erase(0, frame.header.total_bytes());
    return frame;
  }
  /// The next frame must be of this type.
  template <class Message>
  Message expect(FrameType type, std::optional<std::uint64_t> id = std::nullopt, std::string* payload = nullptr) {
    auto frame = next();
    while (frame && frame->header.type == FrameType::producer_window && type != FrameType::producer_window) frame = next();  // at any time
    EXPECT_TRUE(frame.has_value()) << "no frame came; closed: " << closed();
    if (!frame) return {};
    if (frame->header.type == FrameType::error && type != FrameType::error) {
      ADD_FAILURE() << "an error instead: " << frame->as<proto::ErrorReply>().message();
      return {};
    }
    EXPECT_EQ(static_cast<int>(frame->header.type), static_cast<int>(type));
    if (id) EXPECT_EQ(frame->header.id, *id);
    if (payload) *payload = frame->payload;
    return frame->as<Message>();
  }
  Errc expect_error(std::optional<std::uint64_t> id = std::nullopt) {
    return static_cast<Errc>(expect<proto::ErrorReply>(FrameType::error, id).code());
  }
  void expect_close(Duration within = 5s) {
    EXPECT_TRUE(world_.loop().run_until([&] { return closed(); }, within)) << "the broker did not close";
    world_.settle();
  }

  void greet() {
    proto::Hello hello;
    hello.set_major(proto::kProtocolMajor);
    hello.set_client_id("test");
    send(FrameType::hello, 1, hello);
    auto reply = expect<proto::HelloReply>(FrameType::hello_reply, 1);
    EXPECT_EQ(reply.major(), proto::kProtocolMajor);
  }
  template <class Reply, class Request>
  Reply call(FrameType type, const Request& request) {
    std::uint64_t id = next_id_++;
    send(type, id, request);
    return expect<Reply>(static_cast<FrameType>(static_cast<std::uint16_t>(type) + 1), id);
  }
  void create(std::string name, int partitions = 1, std::vector<std::pair<std::string, std::string>> config = {}) {
    proto::CreateTopicRequest request;
    request.set_name(std::move(name));
    request.set_partitions(partitions);
    for (auto& [key, value] : config) {
      auto& entry = *request.add_config();
      entry.set_key(key);
      entry.set_value(value);
    }
    call<proto::CreateTopicReply>(FrameType::create_topic, request);
  }
  proto::OpenProducerReply open(std::uint64_t stream, std::string topic, bool idempotent = false) {
    proto::OpenProducerRequest request;
    request.set_topic(std::move(topic));
    request.set_not_idempotent(!idempotent);
    send(FrameType::open_producer, stream, request);
    return expect<proto::OpenProducerReply>(FrameType::open_producer_reply, stream);
  }
  void publish(std::uint64_t stream, std::uint64_t ticket, std::string_view batch, int partition = 0) {
    proto::Publish request;
    request.set_ticket(ticket);
    request.set_partition(partition);
    send(FrameType::publish, stream, request, batch);
  }
  void subscribe(std::uint64_t stream, std::string topic, proto::StartAt start, std::uint64_t records, std::uint64_t bytes,
                 std::vector<int> partitions = {0}, proto::OutOfRange policy = proto::OUT_OF_RANGE_ERROR) {
    proto::SubscribeRequest request;
    request.set_topic(std::move(topic));
    for (int partition : partitions) {
      auto& to = *request.add_partitions();
      to.set_partition(partition);
      *to.mutable_start() = start;
    }
    request.set_credit_records(records);
    request.set_credit_bytes(bytes);
    request.set_out_of_range(policy);
    send(FrameType::subscribe, stream, request);
  }

 private:
  [[nodiscard]] bool whole() const {
    if (wires_->to_client.size() < proto::kFrameHeaderBytes) return false;
    auto header = proto::read_frame_header(reinterpret_cast<const std::byte*>(wires_->to_client.data()));
    return wires_->to_client.size() >= header.total_bytes();
  }
  void poke() {
    if (!wires_->broker_shut) stream_->move_bytes();
  }
  NativeWorld& world_;
  std::shared_ptr<Wires> wires_;
  MemoryStream* stream_;
  std::uint64_t next_id_ = 1'000;
};

inline proto::StartAt at_start() {
  proto::StartAt at;
  at.set_start(true);
  return at;
}
inline proto::StartAt at_offset(std::int64_t offset) {
  proto::StartAt at;
  at.set_offset(offset);
  return at;
}
inline proto::StartAt at_end() {
  proto::StartAt at;
  at.set_end(true);
  return at;
}

/// A batch as an SDK sends it.
inline std::string batch(const std::vector<std::string>& values, codec::ProducerStamp stamp = {}) {
  return std::string{as_text(service::batch_of(values, stamp).batch.bytes())};
}
/// (offset, value) of all records in a records frame's payload.
inline std::vector<std::pair<std::int64_t, std::string>> records_of(std::string_view payload) {
  std::vector<std::pair<std::int64_t, std::string>> out;
  while (!payload.empty()) {
    auto reader = codec::BatchReader::open(as_bytes(payload));
    if (!reader) {
      ADD_FAILURE() << reader.error().detail;
      return out;
    }
    codec::RecordView record;
    while (reader->next(record)) out.emplace_back(record.offset.value(), std::string{as_text(record.value.value_or(Bytes{}))});
    payload.remove_prefix(reader->batch_bytes());
  }
  return out;
}

}  // namespace tailrace::broker::native
