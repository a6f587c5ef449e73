#include "src/link.h"

#include <algorithm>
#include <random>

#include "model/limits.h"

namespace tailrace::inline v1::detail {
namespace {
constexpr Milliseconds kTick{20};            // how late a call's timeout may be
constexpr Milliseconds kLeavingMax{5'000};   // a broker that said goodbye closes within this
constexpr Milliseconds kIdleDefault{30'000};
constexpr const char* kSoftware = "tailrace-cpp/" TAILRACE_VERSION;

std::uint64_t seed() {
  std::random_device device;
  return (std::uint64_t{device()} << 32) ^ device();
}
std::string seconds(Clock::duration d) {
  auto tenths = std::chrono::duration_cast<Milliseconds>(d).count() / 100;
  return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + " s";
}
}  // namespace

Link::Link(Loop& loop, const ClientOptions& options, std::vector<Server> servers, EventSink events)
    : loop_{loop}, connect_timeout_{options.connect_timeout}, unreachable_after_{options.unreachable_after},
      backoff_first_{options.reconnect_backoff}, backoff_max_{options.reconnect_backoff_max}, client_id_{options.client_id},
      servers_{std::move(servers)}, events_{std::move(events)}, attempt_timer_{loop}, tick_timer_{loop}, alive_timer_{loop},
      random_{seed()}, failures_(servers_.size()), backoff_{options.reconnect_backoff} {}
Link::~Link() = default;

void Link::event(ClientEvent::Level level, ClientEvent::Kind kind, std::string message) {
  if (events_) events_({level, kind, std::move(message)});
}

template <class F>
void Link::each_listener(F f) {
  auto copy = listeners_;  // a listener may leave inside its own call
  for (LinkListener* listener : copy) {
    if (std::ranges::find(listeners_, listener) != listeners_.end()) f(*listener);
  }
}

void Link::start() {
  down_since_ = Clock::now();
  connect();
}

void Link::connect() {
  if (state_ == State::stopped) return;
  state_ = State::connecting;
  hello_error_.clear();
  const Server& server = servers_[server_];
  event(ClientEvent::Level::debug, ClientEvent::Kind::connecting, "connecting to " + server.to_string());
  // Runs from start() or the timer, so never inside a callback of the connection it replaces.
  connection_ = std::make_unique<Connection>(
      loop_,
      Connection::Events{.connected = [this] { on_connected(); }, .frame = [this](IncomingFrame& f) { on_frame(f); },
                         .lost = [this](const std::string& why) { on_lost(why); }},
      broker::limits::kFrameBytesMax);
  connection_->connect(server);
  attempt_timer_.arm(Clock::now() + connect_timeout_, [this] {
    connection_->close();
    on_lost("no greeting from " + servers_[server_].to_string() + " within " + seconds(connect_timeout_));
  });
}

void Link::on_connected() {
  proto::Hello hello;
  hello.set_major(proto::kProtocolMajor);
  hello.set_minor(proto::kProtocolMinor);
  hello.set_client_id(client_id_);
  hello.set_software(kSoftware);
  connection_->send(encode_frame(proto::FrameType::hello, 0, hello));
}

void Link::on_hello(IncomingFrame& frame) {
  proto::HelloReply reply;
  if (!decode_control(frame.control, reply)) return protocol_error("the hello reply cannot be read");
  if (reply.major() != proto::kProtocolMajor) return protocol_error("protocol major version " + std::to_string(reply.major()) + " is not ours");
  if (reply.frame_bytes_max() != 0 && reply.frame_bytes_max() < broker::limits::kFrameBytesBeforeHelloMax) {
    return protocol_error("a frame limit of " + std::to_string(reply.frame_bytes_max()) + " bytes is too small for any batch");
  }
  if (!broker_.cluster_id.empty() && reply.cluster_id() != broker_.cluster_id) {
    // Offsets and producer ids of one cluster mean nothing in another.
    return protocol_error(servers_[server_].to_string() + " now belongs to another cluster (" + reply.cluster_id() + ", before " + broker_.cluster_id + ")");
  }
  attempt_timer_.cancel();
  state_ = State::up;
  broker_ = {.cluster_id = reply.cluster_id(), .node_id = reply.node_id(), .software = reply.software(),
             .features = {reply.features().begin(), reply.features().end()},
             .address = servers_[server_].to_string(), .frame_bytes_max = reply.frame_bytes_max(),
             .calls_in_flight_max = reply.calls_in_flight_max()};
  if (broker_.frame_bytes_max == 0) broker_.frame_bytes_max = broker::limits::kFrameBytesMax;
  if (broker_.calls_in_flight_max == 0) broker_.calls_in_flight_max = 64;
  idle_timeout_ = reply.idle_timeout_ms() == 0 ? kIdleDefault : Milliseconds{std::min(reply.idle_timeout_ms(), 3'600'000u)};
  attempts_ = 0;
  backoff_ = backoff_first_;
  std::ranges::fill(failures_, std::string{});
  event(ClientEvent::Level::info, ClientEvent::Kind::connected, "connected to " + broker_.address);
  keep_alive();
  auto waiters = std::exchange(up_waiters_, {});
  for (auto& waiter : waiters) waiter.done({});
  if (state_ != State::up) return;
  each_listener([](LinkListener& l) { l.on_up(); });
  if (state_ == State::up) send_waiting_calls();
}

void Link::on_frame(IncomingFrame& frame) {
  using proto::FrameType;
  if (frame.control.size() > broker::limits::kControlBytesMax && state_ != State::connecting) {
    // Replies about many partitions may be large; what we cannot bound we do not parse.
    if (frame.control.size() > 64 * broker::limits::kControlBytesMax) return protocol_error("a control message is too large");
  }
  FrameType type = frame.header.type;
  if (state_ == State::connecting) {
    if (type == FrameType::hello_reply) return on_hello(frame);
    if (type == FrameType::error) {
      proto::ErrorReply reply;
      std::string why = "it refused us";
      if (decode_control(frame.control, reply)) why = to_error(reply).message;
      connection_->close();
      return on_lost(servers_[server_].to_string() + ": " + why);
    }
    return protocol_error("a frame of type " + std::to_string(static_cast<int>(type)) + " before the hello reply");
  }
  switch (type) {
    case FrameType::ping: {
      proto::Ping ping;
      if (!decode_control(frame.control, ping)) return protocol_error("a ping cannot be read");
      proto::Pong pong;
      pong.set_token(ping.token());
      connection_->send(encode_frame(FrameType::pong, frame.header.id, pong));
      return;
    }
    case FrameType::pong: return;
    case FrameType::goodbye:
      if (state_ == State::up) {
        state_ = State::leaving;
        event(ClientEvent::Level::info, ClientEvent::Kind::disconnected, broker_.address + " is stopping");
        attempt_timer_.arm(Clock::now() + kLeavingMax, [this] {
          connection_->close();
          on_lost("the broker said goodbye and did not close");
        });
      }
      return;
    default: break;
  }
  if (auto call = calls_.find(frame.header.id); call != calls_.end() && call->second.sent) {
    if (type == FrameType::error) {
      proto::ErrorReply reply;
      if (!decode_control(frame.control, reply)) return protocol_error("an error reply cannot be read");
      return finish_call(frame.header.id, std::unexpected(to_error(reply)));
    }
    if (type != call->second.reply_type) return protocol_error("a reply of the wrong type");
    return finish_call(frame.header.id, &frame);
  }
  if (auto stream = streams_.find(frame.header.id); stream != streams_.end()) return stream->second->on_frame(frame);
  if (frame.header.id == 0 && type == FrameType::error) {
    proto::ErrorReply reply;
    std::string why = "the broker ended the connection";
    if (decode_control(frame.control, reply)) why = to_error(reply).message;
    connection_->close();
    return on_lost(why);
  }
  // Answers to what is forgotten (a call that timed out, a stream that was closed), and messages newer than we: ignored.
}

void Link::protocol_error(std::string why) {
  if (connection_) connection_->close();
  on_lost("protocol error: " + std::move(why));
}

void Link::on_lost(const std::string& why) {
  if (state_ == State::stopped) {
    if (auto done = std::exchange(stopped_, nullptr)) done();
    return;
  }
  bool was_up = state_ == State::up || state_ == State::leaving;
  attempt_timer_.cancel();
  alive_timer_.cancel();
  failures_[server_] = why;
  ++attempts_;
  if (was_up) {
    down_since_ = Clock::now();
    attempts_ = 0;
    event(ClientEvent::Level::warn, ClientEvent::Kind::disconnected, "lost " + broker_.address + ": " + why + "; reconnecting");
  } else {
    event(ClientEvent::Level::debug, ClientEvent::Kind::retrying, why);
  }
  state_ = State::pausing;
  calls_sent_ = 0;
  std::vector<std::uint64_t> ended;
  for (auto& [id, call] : calls_) {
    if (!call.sent) continue;
    if (call.policy == CallPolicy::repeat) call.sent = false;
    else ended.push_back(id);
  }
  for (std::uint64_t id : ended) finish_call(id, std::unexpected(make_error(Errc::connection_lost, why)));
  streams_.clear();
  if (was_up) each_listener([](LinkListener& l) { l.on_down(); });
  if (state_ == State::pausing) pause();
}

void Link::pause() {
  server_ = (server_ + 1) % servers_.size();
  // A whole round of servers is tried before the pause grows; a connection that was up is tried again after the shortest.
  if (attempts_ > 0 && attempts_ % servers_.size() == 0) backoff_ = std::min(backoff_ * 2, backoff_max_);
  auto half = std::max<std::int64_t>(backoff_.count() / 2, 1);
  Milliseconds wait{half + static_cast<std::int64_t>(random_.below(static_cast<std::uint64_t>(half)))};
  if (attempts_ % servers_.size() != 0) wait = Milliseconds{1};
  attempt_timer_.arm(Clock::now() + wait, [this] { connect(); });
  arm_tick();
}

std::string Link::last_failure() const {
  std::string text;
  for (std::size_t i = 0; i < servers_.size(); ++i) {
    if (failures_[i].empty()) continue;
    if (!text.empty()) text += "; ";
    text += failures_[i];
  }
  return text;
}

void Link::call(proto::FrameType type, std::function<broker::Slice(std::uint64_t, Milliseconds)> make, proto::FrameType reply_type,
                TimePoint deadline, CallPolicy policy, Reply reply) {
  if (state_ == State::stopped) return reply(std::unexpected(make_error(Errc::closed, "the client is closed")));
  std::uint64_t id = next_id();
  auto [at, added] = calls_.emplace(id, Call{.type = type, .reply_type = reply_type, .make = std::move(make), .deadline = deadline,
                                             .policy = policy, .reply = std::move(reply)});
  if (state_ == State::up) send_call(id, at->second);
  arm_tick();
}

void Link::send_call(std::uint64_t id, Call& call) {
  if (calls_sent_ >= broker_.calls_in_flight_max) return;
  auto remaining = std::chrono::duration_cast<Milliseconds>(call.deadline - Clock::now());
  call.sent = true;
  ++calls_sent_;
  connection_->send(call.make(id, std::max(remaining, Milliseconds{1})));
}

void Link::send_waiting_calls() {
  for (auto& [id, call] : calls_) {
    if (calls_sent_ >= broker_.calls_in_flight_max) return;
    if (!call.sent) send_call(id, call);
  }
}

void Link::finish_call(std::uint64_t id, Result<IncomingFrame*> result) {
  auto at = calls_.find(id);
  if (at == calls_.end()) return;
  Reply reply = std::move(at->second.reply);
  if (at->second.sent && calls_sent_ > 0) --calls_sent_;
  calls_.erase(at);
  reply(std::move(result));
  if (state_ == State::up && calls_.size() > calls_sent_) send_waiting_calls();
}

void Link::when_up(TimePoint deadline, std::function<void(Result<void>)> done) {
  if (state_ == State::up) return done({});
  if (state_ == State::stopped) return done(std::unexpected(make_error(Errc::closed, "the client is closed")));
  up_waiters_.push_back({deadline, std::move(done)});
  arm_tick();
}

void Link::arm_tick() {
  if (!tick_timer_.armed() && (!calls_.empty() || !up_waiters_.empty())) tick_timer_.arm(Clock::now() + kTick, [this] { tick(); });
}

void Link::tick() {
  auto now = Clock::now();
  bool unreachable = (state_ == State::pausing || state_ == State::connecting) && attempts_ >= servers_.size() &&
                     unreachable_after_ > Milliseconds{0} && now - down_since_ >= unreachable_after_;
  if (unreachable) {
    fail_unreachable();
  }
  std::vector<std::uint64_t> expired;
  for (auto& [id, call] : calls_) {
    if (call.deadline <= now) expired.push_back(id);
  }
  for (std::uint64_t id : expired) {
    auto at = calls_.find(id);
    if (at == calls_.end()) continue;
    Error error = at->second.sent ? make_error(Errc::timeout, "no answer within the time allowed")
                                  : make_error(Errc::timeout, "not sent within the time allowed" + (last_failure().empty() ? "" : ": " + last_failure()));
    if (at->second.sent && at->second.policy == CallPolicy::once) {
      error = make_error(Errc::outcome_unknown, "no answer within the time allowed");
    }
    finish_call(id, std::unexpected(std::move(error)));
  }
  auto waiters = std::exchange(up_waiters_, {});
  for (auto& waiter : waiters) {
    if (waiter.deadline > now) up_waiters_.push_back(std::move(waiter));
    else waiter.done(std::unexpected(make_error(Errc::unreachable, last_failure())));
  }
  arm_tick();
}

void Link::fail_unreachable() {
  std::map<std::string, std::string> at;
  std::string tried = last_failure() + " (tried " + std::to_string(attempts_) + "x in " + seconds(Clock::now() - down_since_) + ")";
  Error error = make_error(Errc::unreachable, std::move(tried), std::move(at));
  std::vector<std::uint64_t> unsent;
  for (auto& [id, call] : calls_) {
    if (!call.sent) unsent.push_back(id);
  }
  for (std::uint64_t id : unsent) finish_call(id, std::unexpected(error));
  auto waiters = std::exchange(up_waiters_, {});
  for (auto& waiter : waiters) waiter.done(std::unexpected(error));
}

void Link::send(broker::Slice head, broker::Slice payload) {
  if (state_ == State::up || state_ == State::leaving) connection_->send(std::move(head), std::move(payload));
}

void Link::keep_alive() {
  alive_timer_.arm(Clock::now() + idle_timeout_ / 3, [this] {
    if (Clock::now() - connection_->last_received() > idle_timeout_) {
      connection_->close();
      return on_lost("nothing was heard from " + broker_.address + " for " + seconds(idle_timeout_));
    }
    proto::Ping ping;
    ping.set_token(1);
    connection_->send(encode_frame(proto::FrameType::ping, 0, ping));
    keep_alive();
  });
}

void Link::stop(TimePoint deadline, std::function<void()> done) {
  if (state_ == State::stopped) return done();
  bool was_up = state_ == State::up || state_ == State::leaving;
  state_ = State::stopped;
  alive_timer_.cancel();
  tick_timer_.cancel();
  attempt_timer_.cancel();
  stopped_ = std::move(done);
  Error closed = make_error(Errc::closed, "the client was closed");
  while (!calls_.empty()) {
    Error error = closed;
    error.maybe_applied = calls_.begin()->second.sent && calls_.begin()->second.policy == CallPolicy::once;
    finish_call(calls_.begin()->first, std::unexpected(std::move(error)));
  }
  auto waiters = std::exchange(up_waiters_, {});
  for (auto& waiter : waiters) waiter.done(std::unexpected(closed));
  streams_.clear();
  if (!was_up) {
    if (connection_) connection_->close();
    if (auto finished = std::exchange(stopped_, nullptr)) finished();
    return;
  }
  proto::Goodbye goodbye;
  goodbye.set_reason("closed by the client");
  connection_->send(encode_frame(proto::FrameType::goodbye, 0, goodbye));
  connection_->close_after_sending();
  attempt_timer_.arm(deadline, [this] {
    connection_->close();
    if (auto finished = std::exchange(stopped_, nullptr)) finished();
  });
}

}  // namespace tailrace::inline v1::detail
