#pragma once
/// The client's connection to a broker, kept up: bootstrap, greeting, calls, streams, keep-alive, reconnect.
///
///   state        event                        next
///   idle         start()                      connecting
///   connecting   hello reply                  up: listeners' on_up(), waiting calls are sent
///   connecting   refused, timeout, lost       pausing (backoff, doubled with jitter), then connecting to the next server
///   up           lost, protocol error         pausing; listeners' on_down(); sent calls end or wait again (CallPolicy)
///   up           goodbye from the broker      leaving: nothing new is sent; the broker answers what it has and closes
///   leaving      lost, 5 s                    as up
///   any          stop()                       stopped: all calls end with `closed`
///
/// Thread   the loop's.
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/random.h"
#include "src/net/connection.h"
#include "src/wire.h"
#include "tailrace/client.h"

namespace tailrace::inline v1::detail {

/// What happens to a call that was sent when the connection is lost.
enum class CallPolicy : std::uint8_t {
  repeat,  // harmless to do twice: sent again on the next connection
  once,    // ends with connection_lost, maybe_applied
};

/// Receives the frames of one stream id. Lives until it is unregistered.
class StreamHandler {
 public:
  virtual void on_frame(IncomingFrame& frame) = 0;

 protected:
  ~StreamHandler() = default;
};

class LinkListener {
 public:
  virtual void on_up() = 0;
  virtual void on_down() = 0;

 protected:
  ~LinkListener() = default;
};

struct BrokerFacts {
  std::string cluster_id{};
  std::int32_t node_id = 0;
  std::string software{};
  std::vector<std::string> features{};
  std::string address{};
  std::size_t frame_bytes_max = 0;
  std::uint32_t calls_in_flight_max = 0;
};

class Link {
 public:
  using Reply = std::function<void(Result<IncomingFrame*>)>;  // the frame is valid during the call
  using EventSink = std::function<void(ClientEvent)>;

  Link(Loop& loop, const ClientOptions& options, std::vector<Server> servers, EventSink events);
  ~Link();

  void start();
  /// Says goodbye if it can, and calls `done` when the connection is closed or `deadline` passed.
  void stop(TimePoint deadline, std::function<void()> done);

  [[nodiscard]] bool up() const { return state_ == State::up; }
  [[nodiscard]] const BrokerFacts& broker() const { return broker_; }
  /// What the last attempts said; for the messages of errors.
  [[nodiscard]] std::string last_failure() const;

  /// The answer comes through `reply`, once: the frame, or the broker's error, or unreachable, timeout, connection_lost,
  /// closed. `make` is called with the remaining time each time the call is sent.
  void call(proto::FrameType type, std::function<broker::Slice(std::uint64_t id, Milliseconds remaining)> make,
            proto::FrameType reply_type, TimePoint deadline, CallPolicy policy, Reply reply);
  /// Completes when up.
  void when_up(TimePoint deadline, std::function<void(Result<void>)> done);

  [[nodiscard]] std::uint64_t next_id() { return next_id_++; }
  void open_stream(std::uint64_t id, StreamHandler& handler) { streams_[id] = &handler; }
  void close_stream(std::uint64_t id) { streams_.erase(id); }
  /// Only while up; otherwise dropped.
  void send(broker::Slice head, broker::Slice payload = {});
  /// The peer broke the protocol: say why, drop the connection, reconnect.
  void protocol_error(std::string why);

  void add_listener(LinkListener& listener) { listeners_.push_back(&listener); }
  void remove_listener(LinkListener& listener) { std::erase(listeners_, &listener); }
  [[nodiscard]] Loop& loop() { return loop_; }
  [[nodiscard]] std::uint64_t jitter(std::uint64_t bound) { return random_.below(bound); }

 private:
  enum class State : std::uint8_t { idle, connecting, pausing, up, leaving, stopped };
  struct Call {
    proto::FrameType type{};
    proto::FrameType reply_type{};
    std::function<broker::Slice(std::uint64_t, Milliseconds)> make{};
    TimePoint deadline{};
    CallPolicy policy{};
    Reply reply{};
    bool sent = false;
  };
  struct UpWaiter {
    TimePoint deadline;
    std::function<void(Result<void>)> done;
  };

  void connect();
  void on_connected();
  void on_frame(IncomingFrame& frame);
  void on_hello(IncomingFrame& frame);
  void on_lost(const std::string& why);
  void pause();
  void send_call(std::uint64_t id, Call& call);
  void send_waiting_calls();
  void finish_call(std::uint64_t id, Result<IncomingFrame*> result);
  void keep_alive();
  void tick();
  void arm_tick();
  void fail_unreachable();
  void event(ClientEvent::Level level, ClientEvent::Kind kind, std::string message);
  template <class F>
  void each_listener(F f);

  Loop& loop_;
  Milliseconds connect_timeout_, unreachable_after_, backoff_first_, backoff_max_;
  std::string client_id_;
  std::vector<Server> servers_;
  EventSink events_;
  State state_ = State::idle;
  std::unique_ptr<Connection> connection_{};
  LoopTimer attempt_timer_, tick_timer_, alive_timer_;
  broker::Random random_;
  std::size_t server_ = 0;  // index of the one in use or tried next
  std::vector<std::string> failures_{};  // last failure by server, empty: none
  std::uint32_t attempts_ = 0;  // failed in a row
  TimePoint down_since_{};
  Milliseconds backoff_{};
  std::string hello_error_{};
  BrokerFacts broker_{};
  Milliseconds idle_timeout_{};
  std::uint64_t next_id_ = 1;
  std::map<std::uint64_t, Call> calls_{};  // by id, so that waiting calls are sent in order
  std::uint32_t calls_sent_ = 0;
  std::vector<UpWaiter> up_waiters_{};
  std::unordered_map<std::uint64_t, StreamHandler*> streams_{};
  std::vector<LinkListener*> listeners_{};
  std::function<void()> stopped_{};
};

}  // namespace tailrace::inline v1::detail
