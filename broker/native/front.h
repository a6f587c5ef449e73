#pragma once
/// The native protocol on one shard: accepts connections and serves them until they end.
///
///   native::Front front{service, runtime, options};
///   scope.spawn(front.accept_from(*listener));        // until the listener is closed
///   ...
///   listener->close();
///   co_await front.drain(deadline);                   // goodbye to all, answers finish; cut off at the deadline
///
/// Owns     the connections, each a coroutine in its task scope.
/// Thread   its shard's, all of it. counters() may be copied by a message to the shard.
/// Bound    options.connections_max; each connection is bounded by model/limits.h and by the shard's memory pools.
#include <array>
#include <chrono>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "base/notifier.h"
#include "base/task.h"
#include "flow/memory_budget.h"
#include "io/runtime.h"
#include "io/stream.h"
#include "model/ids.h"
#include "proto/native/frame.h"
#include "service/broker_service.h"

namespace tailrace::broker::native {

struct FrontOptions {
  NodeId node{};
  std::string cluster_id;
  std::string software = "tailrace";          // for HelloReply
  std::vector<std::string> features;          // for HelloReply
  std::string advertise_host;                 // empty: the address the client dialled
  std::uint16_t advertise_port = 0;
  std::chrono::milliseconds idle_timeout{300'000};
  std::size_t connections_max = 10'000;       // of this shard
  std::size_t connections_per_address_max = 10'000;
};

/// The requests a client makes, for counting. `count_` is not one.
enum class Api : std::uint8_t {
  hello, ping, metadata, create_topic, alter_topic, describe_topic, delete_topic, delete_records, list_offsets, skip_damage, open_producer, publish,
  close_producer, subscribe, credit, seek, unsubscribe,
  join_group, group_heartbeat, leave_group, commit_offsets, stored_offsets, list_groups, describe_group, reset_offsets, delete_group,
  append_stream, read_stream, list_streams, describe_stream, truncate_stream, other, count_,
};
inline constexpr std::size_t kApiCount = static_cast<std::size_t>(Api::count_);
[[nodiscard]] std::string_view name_of(Api api);
[[nodiscard]] Api api_of(proto::FrameType type);

struct FrontCounters {
  struct PerApi {
    std::uint64_t ok = 0;
    std::map<Errc, std::uint64_t> refused;
    log::LatencyHistogram latency{};   // receipt of the request to its reply in the outbox
  };
  std::array<PerApi, kApiCount> apis;
  std::uint64_t connections_open = 0, connections_total = 0, connections_refused = 0, connections_garbage = 0;
  std::uint64_t bytes_in = 0, bytes_out = 0, frames_in = 0, frames_out = 0;
  std::uint64_t streams_publish = 0, streams_subscribe = 0;  // open now
  std::uint64_t reader_pauses = 0;                           // backpressure: a socket was not read for a while
  std::uint64_t closed_hello = 0, closed_frame = 0, closed_idle = 0, closed_write = 0, closed_stalled = 0;  // by which deadline
};

class Connection;

class Front {
 public:
  Front(service::ShardService& service, io::Runtime& runtime, FrontOptions options);
  ~Front();
  Front(const Front&) = delete;
  Front& operator=(const Front&) = delete;

  /// Serves what the listener accepts, until it is closed or fails; the reason is logged.
  [[nodiscard]] Task<void> accept_from(io::Listener& listener);
  /// Serves one stream in the background.
  void serve(std::unique_ptr<io::Stream> stream);
  /// After the listeners were closed: connections finish what they have, new requests are answered shutting_down, and at
  /// the deadline the rest is cut. Answers how many were cut.
  [[nodiscard]] Task<std::size_t> drain(Instant deadline);

  /// Takes over features, limits and the idle timeout of `changed`, for connections that come from now on.
  void reconfigure(const FrontOptions& changed);

  [[nodiscard]] FrontCounters counters() const;  // with the connections' own figures added up
  [[nodiscard]] std::size_t connections() const { return open_.size(); }

  // For the connections.
  [[nodiscard]] service::ShardService& service() { return service_; }
  [[nodiscard]] io::Runtime& runtime() { return runtime_; }
  [[nodiscard]] const FrontOptions& options() const { return options_; }
  [[nodiscard]] FrontCounters& count() { return counters_; }
  [[nodiscard]] bool draining() const { return draining_; }
  /// Places for fetches of readers that have not reached the end: what these hold was read before anybody paid for it.
  [[nodiscard]] flow::MemoryPool& catching_up() { return catching_up_; }
  /// One line a second for what strangers send, with the number of lines left out.
  void log_garbage(std::string_view peer, std::string_view what);

 private:
  /// Hears of changed producer windows and tells all connections, from the flat loop.
  struct WindowWatch : Notifier::Waiter, Runnable {
    explicit WindowWatch(Front& f) : front{f} {}
    Front& front;
    bool queued = false;
  };
  /// While connections wait for memory: once a second, those that hold some and do not move are cut.
  struct Relief : io::Timer {
    explicit Relief(Front& f) : front{f} {}
    Front& front;
  };
  Task<void> run(std::unique_ptr<io::Stream> stream);
  void watch_window();
  void relieve();

  service::ShardService& service_;
  io::Runtime& runtime_;
  FrontOptions options_;
  FrontCounters counters_;
  std::list<Connection*> open_;
  std::map<std::string, std::size_t, std::less<>> per_address_;
  flow::MemoryPool catching_up_;
  WindowWatch window_watch_;
  Relief relief_;
  TaskScope scope_;
  Notifier ended_;
  bool draining_ = false;
  Instant garbage_quiet_until_{};
  std::uint64_t garbage_left_out_ = 0;
};

}  // namespace tailrace::broker::native
