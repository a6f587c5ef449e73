#include "native/front.h"

#include "base/log.h"
#include "flow/memory_budget.h"
#include "io/wait.h"
#include "native/connection.h"

namespace tailrace::broker::native {
namespace {

constexpr std::uint64_t kCatchingUpMax = 16;  // of a shard: enough to keep a device busy, of 1 MiB or one batch each
constexpr flow::Pool kPools[] = {flow::Pool::requests, flow::Pool::replies, flow::Pool::control, flow::Pool::streams, flow::Pool::receiving};

}  // namespace

std::string_view name_of(Api api) {
  static constexpr std::string_view kNames[kApiCount] = {
      "hello", "ping", "metadata", "create_topic", "alter_topic", "describe_topic", "delete_topic", "delete_records", "list_offsets", "skip_damage",
      "open_producer", "publish", "close_producer", "subscribe", "credit", "seek", "unsubscribe",
      "join_group", "group_heartbeat", "leave_group", "commit_offsets", "stored_offsets", "list_groups", "describe_group", "reset_offsets", "delete_group", "append_stream", "read_stream", "list_streams", "describe_stream", "truncate_stream", "other"};
  return kNames[static_cast<std::size_t>(api)];
}

Api api_of(proto::FrameType type) {
  using enum proto::FrameType;
  switch (type) {
    case hello: return Api::hello;
    case ping: return Api::ping;
    case metadata: return Api::metadata;
    case create_topic: return Api::create_topic;
    case alter_topic: return Api::alter_topic;
    case describe_topic: return Api::describe_topic;
    case delete_topic: return Api::delete_topic;
    case delete_records: return Api::delete_records;
    case list_offsets: return Api::list_offsets;
    case skip_damage: return Api::skip_damage;
    case open_producer: return Api::open_producer;
    case publish: return Api::publish;
    case close_producer: return Api::close_producer;
    case subscribe: return Api::subscribe;
    case credit: return Api::credit;
    case seek: return Api::seek;
    case unsubscribe: return Api::unsubscribe;
    case join_group: return Api::join_group;
    case group_heartbeat: return Api::group_heartbeat;
    case leave_group: return Api::leave_group;
    case commit_offsets: return Api::commit_offsets;
    case stored_offsets: return Api::stored_offsets;
    case list_groups: return Api::list_groups;
    case describe_group: return Api::describe_group;
    case reset_offsets: return Api::reset_offsets;
    case delete_group: return Api::delete_group;
    case append_stream: return Api::append_stream;
    case read_stream: return Api::read_stream;
    case list_streams: return Api::list_streams;
    case describe_stream: return Api::describe_stream;
    case truncate_stream: return Api::truncate_stream;
    default: return Api::other;  // replies, goodbye, and what a newer client may send
  }
}

Front::Front(service::ShardService& service, io::Runtime& runtime, FrontOptions options)
    : service_{service}, runtime_{runtime}, options_{std::move(options)}, catching_up_{"catching up", kCatchingUpMax, limits::kMemoryWaitersMax}, window_watch_{*this}, relief_{*this}, ended_{runtime.executor} {
  window_watch_.fire = [](Notifier::Waiter* waiter) noexcept {
    auto* watch = static_cast<WindowWatch*>(waiter);
    if (std::exchange(watch->queued, true)) return;
    watch->front.runtime_.executor.post(*watch);
  };
  window_watch_.run = [](Runnable* self) noexcept {
    auto* watch = static_cast<WindowWatch*>(self);
    watch->queued = false;
    for (Connection* connection : watch->front.open_) connection->window_changed();
    watch->front.watch_window();
  };
  watch_window();
  relief_.fire = [](io::Timer* timer) noexcept { static_cast<Relief*>(timer)->front.relieve(); };
  for (flow::Pool which : kPools) {
    service_.memory().pool(which).on_wait = [this] {
      if (relief_.place == io::Timer::kIdle) runtime_.timers.arm(relief_, runtime_.clock.now() + 1s);
    };
  }
}

Front::~Front() {
  for (flow::Pool which : kPools) service_.memory().pool(which).on_wait = nullptr;
  runtime_.timers.disarm(relief_);
  TAILRACE_CHECK(open_.empty(), "connections are drained before their front goes away");
  TAILRACE_CHECK(!window_watch_.queued, "the loop runs dry before the front goes away");
  service_.window_changed().remove(window_watch_);
}

void Front::watch_window() {
  if (!window_watch_.linked) service_.window_changed().add(window_watch_);
}

void Front::relieve() {
  std::size_t waiting = 0;
  for (flow::Pool which : kPools) waiting += service_.memory().pool(which).waiting();
  if (waiting == 0) return;
  for (Connection* connection : open_) connection->cut_if_stalled(waiting);
  runtime_.timers.arm(relief_, runtime_.clock.now() + 1s);
}

void Front::reconfigure(const FrontOptions& changed) {
  options_.features = changed.features;
  options_.idle_timeout = changed.idle_timeout;
  options_.connections_max = changed.connections_max;
  options_.connections_per_address_max = changed.connections_per_address_max;
}

Task<void> Front::accept_from(io::Listener& listener) {
  for (;;) {
    Result<std::unique_ptr<io::Stream>> stream = co_await listener.accept();
    if (!stream) {
      if (stream.error().code != Errc::closed) log_error("native.listener_failed", "{}", stream.error().detail);
      co_return;
    }
    serve(*std::move(stream));
  }
}

void Front::serve(std::unique_ptr<io::Stream> stream) {
  std::string peer = stream->peer();
  std::string_view address = std::string_view{peer}.substr(0, peer.rfind(':'));
  auto at = per_address_.find(address);
  bool too_many = open_.size() >= options_.connections_max || (at != per_address_.end() && at->second >= options_.connections_per_address_max);
  if (draining_ || too_many) {
    ++counters_.connections_refused;
    if (too_many) log_garbage(peer, open_.size() >= options_.connections_max ? "refused: limits.connections is reached"
                                                                            : "refused: limits.connections_per_address is reached");
    stream->shut();
    return;
  }
  scope_.spawn(run(std::move(stream)));
}

Task<void> Front::run(std::unique_ptr<io::Stream> stream) {
  std::string peer = stream->peer();
  std::string address = peer.substr(0, peer.rfind(':'));
  ++per_address_[address];
  ++counters_.connections_total;
  {
    Connection connection{*this, std::move(stream)};
    auto place = open_.insert(open_.end(), &connection);
    co_await connection.run();
    open_.erase(place);
    counters_.bytes_in += connection.bytes_in();
    counters_.bytes_out += connection.bytes_out();
    counters_.frames_in += connection.frames_in();
    counters_.frames_out += connection.frames_out();
  }
  if (auto at = per_address_.find(address); --at->second == 0) per_address_.erase(at);
  ended_.notify_all();
}

Task<std::size_t> Front::drain(Instant deadline) {
  draining_ = true;
  service_.end_waits();
  for (Connection* connection : open_) connection->drain();
  while (!open_.empty()) {
    io::WaitUntil ended{ended_, runtime_, deadline};
    if (co_await ended) continue;
    break;
  }
  std::size_t cut = open_.size();
  for (Connection* connection : open_) connection->cut();
  co_await scope_.drain();
  co_return cut;
}

FrontCounters Front::counters() const {
  FrontCounters out = counters_;
  out.connections_open = open_.size();
  for (const Connection* connection : open_) {
    out.bytes_in += connection->bytes_in();
    out.bytes_out += connection->bytes_out();
    out.frames_in += connection->frames_in();
    out.frames_out += connection->frames_out();
    out.streams_publish += connection->publish_streams();
    out.streams_subscribe += connection->subscriptions();
  }
  return out;
}

void Front::log_garbage(std::string_view peer, std::string_view what) {
  Instant now = runtime_.clock.now();
  if (now < garbage_quiet_until_) {
    ++garbage_left_out_;
    return;
  }
  garbage_quiet_until_ = now + 1s;
  if (garbage_left_out_ == 0) {
    log_warn("native.refused", "{}: {}", peer, what);
  } else {
    log_warn("native.refused", "{}: {} (and {} like it not shown)", peer, what, std::exchange(garbage_left_out_, 0));
  }
}

}  // namespace tailrace::broker::native
