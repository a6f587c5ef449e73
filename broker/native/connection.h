#pragma once
/// One client's connection as a state machine on a stream.
///
///   state      what may come                         what ends it
///   greeting   hello, nothing else                   10 s without a whole hello; any other frame; another major version
///   serving    everything but hello                  bad frame, 30 s for one frame, silence for the idle timeout
///   leaving    nothing is read any more              (client said goodbye, or closed its side): answers under way are sent, then closed
///   draining   requests are answered shutting_down   (broker stops): closed when all is answered and the client has gone, or soon after
///   ending     nothing is read any more              an error on id 0 was queued: closed when it is sent, or after 2 s
///
/// Owns     stream, reader, wire, streams, and one coroutine for each call under way.
/// Bound    calls: limits::kCallsInFlightPerConnectionMax; streams: limits::kStreamsPerConnectionMax; unsent bytes:
///          Outbox::full(), answers that no pool pays for: Wire::crowded(); payload bytes unanswered: the shard's `requests` pool.
///          Past any of them the socket is not read. Large answers wait for memory before they are made.
/// Thread   its shard's.
/// Spec     docs/native-protocol.md.
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>

#include "flow/memory_budget.h"
#include "io/stream.h"
#include "native/frame_reader.h"
#include "native/front.h"
#include "native/group_requests.h"
#include "native/publish_stream.h"
#include "native/stream_requests.h"
#include "native/subscription.h"
#include "native/wire.h"

namespace tailrace::broker::native {

class Connection {
 public:
  Connection(Front& front, std::unique_ptr<io::Stream> stream);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  /// From hello to the end; when it returns nothing of this connection runs any more.
  [[nodiscard]] Task<void> run();
  /// The broker stops: says goodbye.
  void drain();
  /// At once.
  void cut();
  /// So many wait for memory: cuts this connection if it holds some, has not moved for kStallMax, and is not the only one waiting.
  void cut_if_stalled(std::size_t waiting);
  /// The shard's producer window moved.
  void window_changed();

  [[nodiscard]] std::uint64_t bytes_in() const { return bytes_in_; }
  [[nodiscard]] std::uint64_t bytes_out() const { return wire_.outbox().sent_bytes(); }
  [[nodiscard]] std::uint64_t frames_in() const { return frames_in_; }
  [[nodiscard]] std::uint64_t frames_out() const { return wire_.outbox().frames(); }
  [[nodiscard]] std::size_t publish_streams() const { return publish_.size(); }
  [[nodiscard]] std::size_t subscriptions() const { return subscriptions_.size(); }

 private:
  enum class State : std::uint8_t { greeting, serving, leaving, draining, ending };
  using Frame = FrameReader::Frame;
  using Held = flow::Reservation;

  // ---- connection.cc: reading, deadlines, the end
  [[nodiscard]] Task<void> read_loop();
  /// False: nothing more is to be read.
  [[nodiscard]] Task<bool> take_frames();
  [[nodiscard]] bool reading() const { return state_ != State::leaving && state_ != State::ending && !wire_.ended(); }
  [[nodiscard]] bool must_pause() const;
  /// Waits while must_pause(). False: the connection ended meanwhile.
  [[nodiscard]] Task<bool> pause();
  /// Takes memory into `held`, waiting for it if need be. False: the connection ended meanwhile.
  [[nodiscard]] Task<bool> reserve(flow::Pool pool, std::uint64_t bytes, Held& held);
  [[nodiscard]] bool try_reserve(flow::Pool pool, std::uint64_t bytes, Held& held);
  void end(Errc code, std::string detail);
  void stop_subscriptions();
  void after_call();
  void when_written();
  void finish_draining_if_done();
  [[nodiscard]] Instant now() const { return front_.runtime().clock.now(); }
  [[nodiscard]] Instant next_due() const;
  void arm();
  void on_alarm();

  struct CallDeadline;

  // ---- connection_requests.cc: frames to calls
  void on_frame(const Frame& frame);
  void on_hello(const Frame& frame);
  void on_request(const Frame& frame);
  void on_publish(const Frame& frame);
  void on_credit(const Frame& frame);
  /// Decides about a large frame before its payload is received: bytes to reserve, or nullopt to drop the payload.
  [[nodiscard]] std::optional<std::uint64_t> judge_large(const proto::FrameHeader& header) const;
  /// Parses and starts `Handler` as a call; a control part that is no Request ends the connection.
  template <class Request, class Reply>
  void start_call(const Frame& frame, proto::FrameType reply_type, Task<service::Answer<Reply>> (Connection::*handler)(std::uint64_t, Request));
  /// The same for a call that is about no stream of this connection.
  template <class Request, class Reply>
  void start_call(const Frame& frame, proto::FrameType reply_type, Task<service::Answer<Reply>> (*handler)(Caller, Request));
  template <class Request, class F>
  void start(const Frame& frame, proto::FrameType reply_type, F handler);
  template <class Reply>
  Task<void> run_call(Api api, std::uint64_t id, proto::FrameType reply_type, Task<service::Answer<Reply>> call, Held held,
                      std::uint64_t answer_bytes, std::string traceparent, std::shared_ptr<CallDeadline> deadline);
  Task<void> run_publish(std::shared_ptr<PublishStream> stream, std::uint64_t place, service::ProduceRequest request, std::string traceparent, Held held);
  void refuse_publish(PublishStream& stream, std::uint64_t place, service::Refusal refusal);
  void counted(Api api, Instant began, const service::Refusal* refusal);
  /// For whoever looks for a request by the trace it is part of.
  void log_refused(Api api, const service::Refusal& refusal, const std::string& traceparent) const;

  Task<service::Answer<proto::MetadataReply>> metadata(std::uint64_t id, proto::MetadataRequest request);
  Task<service::Answer<proto::CreateTopicReply>> create_topic(std::uint64_t id, proto::CreateTopicRequest request);
  Task<service::Answer<proto::AlterTopicReply>> alter_topic(std::uint64_t id, proto::AlterTopicRequest request);
  Task<service::Answer<proto::DescribeTopicReply>> describe_topic(std::uint64_t id, proto::DescribeTopicRequest request);
  Task<service::Answer<proto::DeleteTopicReply>> delete_topic(std::uint64_t id, proto::DeleteTopicRequest request);
  Task<service::Answer<proto::DeleteRecordsReply>> delete_records(std::uint64_t id, proto::DeleteRecordsRequest request);
  Task<service::Answer<proto::ListOffsetsReply>> list_offsets(std::uint64_t id, proto::ListOffsetsRequest request);
  Task<service::Answer<proto::SkipDamageReply>> skip_damage(std::uint64_t id, proto::SkipDamageRequest request);
  Task<service::Answer<proto::OpenProducerReply>> open_producer(std::uint64_t id, proto::OpenProducerRequest request);
  Task<service::Answer<proto::CloseProducerReply>> close_producer(std::uint64_t id, proto::CloseProducerRequest request);
  Task<service::Answer<proto::SubscribeReply>> subscribe(std::uint64_t id, proto::SubscribeRequest request);
  Task<service::Answer<proto::SeekReply>> seek(std::uint64_t id, proto::SeekRequest request);
  Task<service::Answer<proto::UnsubscribeReply>> unsubscribe(std::uint64_t id, proto::UnsubscribeRequest request);
  /// Errors: too_many, invalid_argument (the id is 0 or in use).
  [[nodiscard]] service::Answer<void> check_new_stream(std::uint64_t id);
  /// For as long as the stream lives. Errors: too_many.
  [[nodiscard]] service::Answer<Held> stream_memory(std::uint64_t bytes);

  /// The client's deadline of one call. When it passes first, the client is told so, and the answer is dropped when it comes.
  struct CallDeadline : io::Timer {
    CallDeadline(Connection& c, Api a, std::uint64_t call_id) : connection{c}, api{a}, id{call_id} {}
    ~CallDeadline() { connection.front_.runtime().timers.disarm(*this); }
    Connection& connection;
    Api api;
    std::uint64_t id;
    bool passed = false;
  };
  struct Alarm : io::Timer {
    explicit Alarm(Connection& c) : connection{c} {}
    Connection& connection;
  };
  /// The reader's place in a memory pool's queue.
  struct MemoryWait : flow::MemoryPool::Waiter {
    explicit MemoryWait(Connection& c) : connection{c} {}
    Connection& connection;
    flow::MemoryPool* pool = nullptr;  // waited for now
    Held held{};
  };

  Front& front_;
  std::unique_ptr<io::Stream> stream_;
  std::string peer_;
  FrameReader reader_;
  Wire wire_;
  State state_ = State::greeting;
  std::string client_id_;
  const std::chrono::milliseconds idle_timeout_;  // as the client was told

  std::unordered_map<std::uint64_t, std::shared_ptr<PublishStream>> publish_;
  std::unordered_map<std::uint64_t, std::shared_ptr<Subscription>> subscriptions_;
  std::size_t opening_ = 0;          // streams whose opening is under way
  std::size_t calls_ = 0;            // under way, publishes included
  std::size_t unanswered_ = 0;       // publishes, the refused ones that wait for their turn included
  std::size_t large_answers_ = 0;    // calls under way whose answer needs memory of its own; one is made at a time
  bool answering_ = false;
  bool answer_waits_ = false;        // for memory
  TaskScope scope_;
  Notifier reader_wake_;             // the reader waits: for calls to end, room in the outbox, memory, or the end
  Notifier call_ended_;
  MemoryWait memory_wait_;
  Held held_;                        // memory for the frame at hand, until its call takes it
  Held receiving_;                   // for a large one until it is whole

  Alarm alarm_;
  Instant greeted_by_{};
  Instant last_frame_{};
  std::optional<Instant> frame_began_{};
  std::optional<Instant> end_by_{};
  std::uint64_t bytes_in_ = 0, frames_in_ = 0;
};

}  // namespace tailrace::broker::native
