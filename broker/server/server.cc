#include "server/server.h"

#include <fmt/format.h>
#include <sys/random.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <future>

#include "base/log.h"
#include "http/http_server.h"
#include "http/metrics.h"
#include "io_asio/tcp.h"
#include "server/node_metrics.h"
#include "server/shard_host.h"
#include "server/stream_indexes.h"
#include "service/broker_service.h"
#include "shard/shards.h"

#ifndef TAILRACE_VERSION
#error "the build names the version"
#endif

namespace tailrace::broker::server {
namespace {

constexpr std::chrono::milliseconds kAnswerMax{1'000};  // of a shard that is asked for its figures

/// The soft limit to the hard one; answers what may be opened.
std::uint64_t raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1'024;
  if (limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = limit.rlim_max;
    if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) ::getrlimit(RLIMIT_NOFILE, &limit);
  }
  return limit.rlim_cur;
}

// An empty broker holds 5 and 10 a shard (docs/performance.md, B13); a shard keeps 64 files open at least, and clients are to come.
constexpr std::uint64_t kDescriptorsLeast = 32, kDescriptorsPerShard = 80;

std::uint64_t seed_from_kernel() {
  std::uint64_t seed = 0;
  if (::getrandom(&seed, sizeof seed, 0) != sizeof seed) seed = static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
  return seed;
}

StartError start_error(const Error& error) {
  const ErrcInfo& info = describe(error.code);
  std::string_view sentence = info.sentence;
  if (sentence.ends_with('.')) sentence.remove_suffix(1);
  return {error.code, error.detail.empty() ? std::string{info.sentence} : fmt::format("{}: {}.", sentence, error.detail), std::string{info.hint}};
}

/// A device that hangs without an error: nothing fails, and nobody is acknowledged either.
constexpr std::chrono::seconds kWriteStalls{10};
std::string stalled(const service::ShardHealth& shard) {
  return fmt::format("storage stalled: a write to the log has been under way for {} s", std::chrono::duration_cast<std::chrono::seconds>(shard.oldest_write).count());
}

enum class Phase : std::uint8_t { starting, serving, stopping, stopped };

}  // namespace

struct Server::Impl {
  explicit Impl(ServerOptions its_options) : options{std::move(its_options)} {}

  ServerOptions options;
  std::chrono::steady_clock::time_point began = std::chrono::steady_clock::now();
  std::vector<std::unique_ptr<ShardHost>> shards;
  std::unique_ptr<shard::Shards> links;
  std::unique_ptr<service::BrokerService> broker;  // of shard 0's thread
  std::unique_ptr<http::HttpServer> http_port;
  service::StartReport report;
  HostPort native_bound, http_bound;
  std::vector<std::string> backends;
  std::atomic<Phase> phase{Phase::starting};
  std::atomic<std::size_t> restart_pending{0};

  [[nodiscard]] ShardHost& first() { return *shards.front(); }

  Result<void> start();
  Result<void> start_threads();
  Result<void> start_http();
  Result<void> try_native_port();
  Result<void> start_broker(std::uint64_t descriptors);
  Result<void> start_listeners();
  /// What of them may change while they serve.
  [[nodiscard]] native::FrontOptions front_options_from(const ServerOptions& from) const;
  void reload(const ServerOptions& fresh, std::size_t pending);
  bool stop(std::chrono::milliseconds deadline);
  void end_threads();

  // Called on HTTP threads.
  std::string metrics();
  http::Health alive();
  http::Health ready();
  /// Asks every shard, on its own thread; those that do not answer within kAnswerMax are missing.
  template <class T>
  std::vector<T> ask_shards(std::function<T(ShardHost&, service::ShardService&)> question);
  std::vector<service::ShardHealth> ask_health();
};

Result<void> Server::Impl::start() {
  std::signal(SIGPIPE, SIG_IGN);  // a peer that went away is an error of the write, not of the process
  std::uint64_t descriptors = raise_descriptor_limit();
  std::uint64_t least = kDescriptorsLeast + kDescriptorsPerShard * options.shards;
  if (descriptors < least) {
    return fail(Errc::descriptors_exhausted, fmt::format("the limit is {}, {} shards need {} (ulimit -n; LimitNOFILE= of systemd)", descriptors, options.shards, least));
  }
  TAILRACE_TRY_VOID(start_threads());
  TAILRACE_TRY_VOID(start_http());
  TAILRACE_TRY_VOID(try_native_port());
  TAILRACE_TRY_VOID(start_broker(descriptors));
  TAILRACE_TRY_VOID(start_listeners());
  phase = Phase::serving;
  return {};
}

Result<void> Server::Impl::start_threads() {
  for (std::uint32_t i = 0; i < options.shards; ++i) {
    shards.push_back(std::make_unique<ShardHost>(ShardIndex{i}, options.io_backend, seed_from_kernel()));
    if (auto begun = shards.back()->thread().start(); !begun) {
      shards.pop_back();
      return begun;
    }
    backends.emplace_back(shards.back()->thread().files().name());
  }
  std::vector<shard::Endpoint> endpoints;
  for (auto& shard : shards) endpoints.push_back(shard->thread().endpoint());
  links = std::make_unique<shard::Shards>(std::move(endpoints));
  return {};
}

Result<void> Server::Impl::start_http() {
  http::Handlers handlers{.metrics = [this] { return metrics(); }, .alive = [this] { return alive(); }, .ready = [this] { return ready(); }};
  TAILRACE_TRY(http_port, http::HttpServer::start(options.listen_http.host, options.listen_http.port, options.http_threads, std::move(handlers)));
  http_bound = {options.listen_http.host, http_port->port()};
  return {};
}

/// A port in use is better known before a data directory is made or recovered than after. It is listened on for good once
/// there is something to serve.
Result<void> Server::Impl::try_native_port() {
  if (options.listen_native.port == 0) return {};
  auto once = [this]() -> Task<Result<void>> {
    auto listener = io_asio::listen(first().loop(), options.listen_native.host, options.listen_native.port, {.share_port = false, .first = true});
    if (!listener) co_return std::unexpected{std::move(listener).error()};
    co_return Result<void>{};
  };
  return first().run_on<Result<void>>(std::move(once));
}

Result<void> Server::Impl::start_broker(std::uint64_t descriptors) {
  service::BrokerOptions broker_options{.data_directory = options.data_directory};
  broker_options.log.wal_file_bytes = options.wal_file_bytes;
  broker_options.log.wal_files = options.wal_files;
  broker_options.log.hot_tail_bytes = options.hot_tail_bytes;
  broker_options.log.read_pool_bytes = options.read_pool_bytes;
  // The rest is for connections; an idle segment's descriptor is closed and opened again, a connection's is not.
  broker_options.log.open_files_max = std::clamp<std::size_t>(descriptors * 6 / 10 / shards.size(), 64, 4'096);
  broker_options.memory_bytes = options.client_bytes;
  broker_options.retention_interval = options.retention_interval;
  broker_options.stream_indexes = [this](io::Runtime&, ShardIndex shard) { return open_stream_indexes(shards[shard.value()]->loop(), options.data_directory, shard); };
  std::vector<io::Runtime*> runtimes;
  for (auto& shard : shards) runtimes.push_back(&shard->runtime());
  auto begin = [this, &broker_options, &runtimes]() -> Task<Result<service::StartReport>> {
    broker = std::make_unique<service::BrokerService>(std::move(broker_options), std::move(runtimes), *links);
    Result<service::StartReport> started = co_await broker->start();
    if (!started) broker.reset();
    co_return started;
  };
  TAILRACE_TRY(report, first().run_on<Result<service::StartReport>>(std::move(begin)));
  return {};
}

Result<void> Server::Impl::start_listeners() {
  std::uint16_t port = options.listen_native.port;
  for (auto& shard : shards) {
    auto listen = [this, &shard, port]() -> Task<Result<void>> {
      auto listener = io_asio::listen(shard->loop(), options.listen_native.host, port,
                                      {.share_port = shards.size() > 1, .first = shard->index() == ShardIndex{0}});
      if (!listener) co_return std::unexpected{std::move(listener).error()};
      shard->listener = *std::move(listener);
      co_return Result<void>{};
    };
    TAILRACE_TRY_VOID(shard->run_on<Result<void>>(std::move(listen)));
    port = shard->listener->port();
  }
  native_bound = {options.listen_native.host, port};
  bool any_address = native_bound.host == "0.0.0.0" || native_bound.host == "::";
  native::FrontOptions front_options = front_options_from(options);
  front_options.node = broker->node_id();
  front_options.cluster_id = broker->cluster_id();
  front_options.software = "tailrace/" TAILRACE_VERSION;
  front_options.advertise_host = !options.advertise_host.empty() ? options.advertise_host : any_address ? "" : native_bound.host;
  front_options.advertise_port = port;
  for (auto& shard : shards) {
    auto begin = [this, &shard, &front_options]() -> Task<bool> {
      shard->front = std::make_unique<native::Front>(broker->shard(shard->index()), shard->runtime(), front_options);
      shard->scope().spawn(shard->front->accept_from(*shard->listener));
      co_return true;
    };
    shard->run_on<bool>(std::move(begin));
  }
  return {};
}

native::FrontOptions Server::Impl::front_options_from(const ServerOptions& from) const {
  native::FrontOptions out;
  if (from.auto_create_topics) out.features.emplace_back("auto_create_topics");
  out.idle_timeout = from.idle_timeout;
  out.connections_max = std::max<std::size_t>(1, from.connections_max / shards.size());
  out.connections_per_address_max = std::max<std::size_t>(1, from.connections_per_address_max / shards.size());
  return out;
}

void Server::Impl::reload(const ServerOptions& fresh, std::size_t pending) {
  restart_pending = pending;
  set_log_threshold(fresh.log_level);
  options.shutdown_deadline = fresh.shutdown_deadline;
  for (auto& shard : shards) {
    auto change = [&shard, changed = front_options_from(fresh)]() -> Task<bool> {
      shard->front->reconfigure(changed);
      co_return true;
    };
    shard->run_on<bool>(std::move(change));
  }
}

bool Server::Impl::stop(std::chrono::milliseconds deadline) {
  if (phase.exchange(Phase::stopped) == Phase::stopped) return true;
  phase = Phase::stopping;
  bool clean = true;
  // A fifth of the time is the logs'.
  auto give_up = [&](ShardHost& shard, std::chrono::milliseconds after) { return shard.loop().now() + after; };
  std::vector<std::future<std::size_t>> drains;
  for (auto& shard : shards) {
    auto drain = [&shard, due = give_up(*shard, deadline * 4 / 5)]() -> Task<std::size_t> {
      if (shard->listener) shard->listener->close();
      std::size_t cut = 0;
      if (shard->front) cut = co_await shard->front->drain(due);
      co_await shard->scope().drain();
      shard->listener.reset();
      co_return cut;
    };
    drains.push_back(shard->start_on<std::size_t>(std::move(drain)));
  }
  std::size_t cut = 0;
  for (auto& drained : drains) cut += drained.get();
  if (cut > 0) log_warn("server.stop", "{} connections were cut off at the deadline", cut);
  if (broker) {
    auto end = [this, due = give_up(first(), deadline / 5)]() -> Task<bool> {
      service::StopReport stopped = co_await broker->stop(due);
      co_return stopped.clean;
    };
    clean = first().run_on<bool>(std::move(end));
  }
  for (auto& shard : shards) {
    auto drop = [&shard]() -> Task<bool> {
      // What the service's stop queued for the front has its turn first.
      for (int i = 0; i < 3; ++i) co_await yield_to(shard->runtime().executor);
      shard->front.reset();
      co_return true;
    };
    shard->run_on<bool>(std::move(drop));
  }
  phase = Phase::stopped;
  http_port.reset();  // its threads ask the shards: it goes before they do
  if (broker) {
    auto drop = [this]() -> Task<bool> {
      broker.reset();
      co_return true;
    };
    first().run_on<bool>(std::move(drop));
  }
  end_threads();
  return clean;
}

void Server::Impl::end_threads() {
  for (auto& shard : shards) shard->thread().finish();
  links.reset();
  shards.clear();
}

template <class T>
std::vector<T> Server::Impl::ask_shards(std::function<T(ShardHost&, service::ShardService&)> question) {
  std::vector<T> out;
  if (phase != Phase::serving) return out;
  std::vector<std::future<T>> answers;
  for (auto& shard : shards) {
    auto promise = std::make_shared<std::promise<T>>();
    auto answer = promise->get_future();
    bool taken = shard->loop().post_from_outside(
        [this, promise, raw = shard.get(), question] { promise->set_value(question(*raw, broker->shard(raw->index()))); });
    if (taken) answers.push_back(std::move(answer));
  }
  auto deadline = std::chrono::steady_clock::now() + kAnswerMax;
  for (auto& answer : answers) {
    if (answer.wait_until(deadline) == std::future_status::ready) out.push_back(answer.get());
  }
  return out;
}

std::vector<service::ShardHealth> Server::Impl::ask_health() {
  return ask_shards<service::ShardHealth>([](ShardHost&, service::ShardService& service) { return service.health(); });
}

std::string Server::Impl::metrics() {
  http::NodeMetrics node;
  node.version = TAILRACE_VERSION;
  node.config_restart_pending = restart_pending;
  node.up_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  if (phase == Phase::serving) {
    for (const log::RecoveryReport& recovery : report.recovery) {
      node.recovery_seconds = std::max(node.recovery_seconds, recovery.seconds);
      node.torn_tails += recovery.torn;
      node.corrupt_frames += recovery.corrupt;
      node.damaged_partitions += recovery.damaged_partitions;
    }
    node.shards = ask_shards<http::ShardMetrics>(gather);
    node.shards_silent = options.shards - node.shards.size();
  }
  gather_process(node);
  return http::render_metrics(node);
}

http::Health Server::Impl::alive() {
  if (phase != Phase::serving) return {true, "alive"};  // recovering or stopping: not to be killed for it
  std::size_t answered = ask_health().size();
  if (phase == Phase::serving && answered < options.shards) return {false, fmt::format("{} of {} shards do not answer", options.shards - answered, options.shards)};
  return {true, "alive"};
}

http::Health Server::Impl::ready() {
  switch (phase.load()) {
    case Phase::starting: return {false, "starting: the log is being recovered"};
    case Phase::stopping:
    case Phase::stopped: return {false, "stopping"};
    case Phase::serving: break;
  }
  std::vector<service::ShardHealth> all = ask_health();
  if (all.size() < options.shards) return {false, fmt::format("{} of {} shards do not answer", options.shards - all.size(), options.shards)};
  for (const service::ShardHealth& shard : all) {
    if (shard.storage_failed) return {false, fmt::format("storage failed: {}", shard.failure)};
    if (shard.oldest_write >= kWriteStalls) return {false, stalled(shard)};
  }
  return {true, "ready"};
}

Server::Server(std::unique_ptr<Impl> impl) : impl_{std::move(impl)} {}
Server::~Server() { stop(impl_->options.shutdown_deadline); }

std::expected<std::unique_ptr<Server>, StartError> Server::start(const ServerOptions& options) {
  auto impl = std::make_unique<Impl>(options);
  if (Result<void> started = impl->start(); !started) {
    impl->stop(options.shutdown_deadline);
    return std::unexpected{start_error(started.error())};
  }
  return std::unique_ptr<Server>{new Server{std::move(impl)}};
}

HostPort Server::native_address() const { return impl_->native_bound; }
HostPort Server::http_address() const { return impl_->http_bound; }
const std::vector<std::string>& Server::io_backends() const { return impl_->backends; }
bool Server::stop(std::chrono::milliseconds deadline) { return impl_->stop(deadline); }
void Server::reload(const ServerOptions& fresh, std::size_t restart_pending) { impl_->reload(fresh, restart_pending); }

Server::Condition Server::condition() const {
  Condition out;
  std::vector<service::ShardHealth> all = impl_->ask_health();
  out.shards_silent = impl_->options.shards - all.size();
  for (const service::ShardHealth& shard : all) {
    if (shard.storage_failed) out.failure = shard.failure.empty() ? "a write to the log failed" : shard.failure;
    if (shard.oldest_write >= kWriteStalls) out.stalled = stalled(shard);
  }
  return out;
}

}  // namespace tailrace::broker::server
