// The life of a broker process: signals, the ready line, systemd.
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <mutex>
#include <thread>

#include "base/log.h"
#include "server/log_sink.h"
#include "server/server.h"
#include "server/service_manager.h"

namespace tailrace::broker::server {
namespace {

constexpr std::chrono::milliseconds kHealthCheck{1'000};
constexpr std::chrono::milliseconds kStopGrace{1'000};  // beyond shutdown.deadline, for what is nearly done

/// SIGTERM, SIGINT and SIGHUP of the whole process, taken one by one with a timeout. Threads that start later inherit the mask.
class StopSignals {
 public:
  StopSignals() {
    sigemptyset(&set_);
    sigaddset(&set_, SIGTERM);
    sigaddset(&set_, SIGINT);
    sigaddset(&set_, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set_, &before_);
  }
  ~StopSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  /// Its number, or 0 when none came in time.
  int wait(std::chrono::milliseconds timeout) {
    timespec wait{.tv_sec = timeout.count() / 1'000, .tv_nsec = (timeout.count() % 1'000) * 1'000'000};
    int number = sigtimedwait(&set_, nullptr, &wait);
    return number > 0 ? number : 0;
  }
  [[nodiscard]] const sigset_t& set() const { return set_; }

 private:
  sigset_t set_{}, before_{};
};

/// A stop that does not come to its end, because a disk hangs, say, is ended by force: the next start recovers, as after a crash.
class StopDeadline {
 public:
  explicit StopDeadline(std::chrono::milliseconds deadline) {
    thread_ = std::thread{[this, deadline] {
      std::unique_lock lock{mutex_};
      if (changed_.wait_for(lock, deadline + kStopGrace, [this] { return stopped_; })) return;
      log_error("server.stop_forced", "the stop did not end within {} ms; the process ends without the clean mark, the next start recovers", (deadline + kStopGrace).count());
      std::_Exit(1);
    }};
  }
  ~StopDeadline() {
    {
      std::lock_guard lock{mutex_};
      stopped_ = true;
    }
    changed_.notify_one();
    thread_.join();
  }
  StopDeadline(const StopDeadline&) = delete;
  StopDeadline& operator=(const StopDeadline&) = delete;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopped_ = false;
  std::thread thread_;
};

/// During the drain a second signal ends the process at once: the data is safe either way, the next start recovers.
class SecondSignal {
 public:
  explicit SecondSignal(const StopSignals& signals) {
    struct sigaction action{};
    action.sa_handler = [](int) { std::_Exit(130); };
    sigaction(SIGTERM, &action, nullptr);
    sigaction(SIGINT, &action, nullptr);
    sigset_t stops = signals.set();
    sigdelset(&stops, SIGHUP);  // there is nothing to reload for any more
    pthread_sigmask(SIG_UNBLOCK, &stops, nullptr);
  }
};

/// During a start, which may recover for minutes, a signal ends the process at once: recovery can be done again. A thread takes
/// it, since threads that the start makes must inherit a mask that leaves signals to the main one.
class StartSignals {
 public:
  explicit StartSignals(const StopSignals& signals) : wake_{::eventfd(0, EFD_CLOEXEC)} {
    sigset_t stops = signals.set();
    sigdelset(&stops, SIGHUP);  // the configuration is read again once it runs
    taken_ = ::signalfd(-1, &stops, SFD_CLOEXEC);
    if (wake_ < 0 || taken_ < 0) return;  // out of descriptors: the start says so
    thread_ = std::thread{[this] {
      pollfd both[] = {{taken_, POLLIN, 0}, {wake_, POLLIN, 0}};
      while (::poll(both, 2, -1) < 0) continue;
      signalfd_siginfo signal{};
      if (both[0].revents == 0 || ::read(taken_, &signal, sizeof signal) != sizeof signal) return;
      log_warn("server.start_ended", "a signal came before the broker was ready; whatever the start was doing, the next one does again");
      std::_Exit(signal.ssi_signo == SIGTERM ? 0 : 130);  // SIGTERM: it did what it was told
    }};
  }
  ~StartSignals() {
    std::uint64_t one = 1;
    if (thread_.joinable()) {
      (void)!::write(wake_, &one, sizeof one);
      thread_.join();
    }
    if (wake_ >= 0) ::close(wake_);
    if (taken_ >= 0) ::close(taken_);
  }
  StartSignals(const StartSignals&) = delete;
  StartSignals& operator=(const StartSignals&) = delete;

 private:
  int wake_, taken_ = -1;
  std::thread thread_;
};

/// All or nothing. Answers what runs now.
void reload(Server& server, LoadedConfig& running, const LoadedConfig& started, const RunHooks& hooks) {
  auto fresh = hooks.load();
  if (!fresh) {
    for (const ConfigProblem& problem : fresh.error()) log_error("config.reload_refused", "{} Nothing was changed.", problem.message);
    return;
  }
  ConfigChanges now = changes_between(running, *fresh);
  std::vector<std::string> pending = changes_between(started, *fresh).restart;
  server.reload(fresh->options, pending.size());
  for (const std::string& change : now.live) log_info("config.changed", "{}", change);
  for (const std::string& change : pending) log_warn("config.restart_pending", "{} applies at the next start", change);
  log_info("config.reloaded", "{} keys changed, {} wait for the next start, config={}", now.live.size(), pending.size(), fresh->digest);
  running = *std::move(fresh);
}

}  // namespace

int run_server(const LoadedConfig& config, RunHooks hooks) {
  install_log_sink(config.options.log_level, config.options.log_format);
  for (const ConfigProblem& warning : config.warnings) log_warn("config.unknown_key", "{}", warning.message);
  StopSignals signals;
  auto server = [&] {
    StartSignals at_once{signals};
    return Server::start(config.options);
  }();
  if (!server) {
    if (hooks.on_error) hooks.on_error(server.error());
    else std::fprintf(stderr, "error E%u: %s %s\n", static_cast<unsigned>(server.error().code), server.error().message.c_str(), server.error().hint.c_str());
    return describe(server.error().code).exit_code;
  }
  std::string addresses = fmt::format("native={} http={}", (*server)->native_address().to_string(), (*server)->http_address().to_string());
  log_info("server.ready", "{} config={} data={}", addresses, config.digest, config.options.data_directory);
  std::printf("ready %s\n", addresses.c_str());
  std::fflush(stdout);
  tell_service_manager("READY=1");
  if (hooks.on_ready) hooks.on_ready(**server);

  auto wait = kHealthCheck;
  if (auto interval = watchdog_interval()) wait = std::min(wait, std::chrono::duration_cast<std::chrono::milliseconds>(*interval));
  int exit_code = 0;
  bool stalled = false;
  LoadedConfig running = config;
  for (;;) {
    if (int number = signals.wait(wait); number == SIGHUP && hooks.load) {
      reload(**server, running, config, hooks);
      continue;
    } else if (number != 0) {
      log_info("server.stopping", "signal {}; at most {} ms", number == SIGTERM ? "TERM" : number == SIGINT ? "INT" : "HUP", running.options.shutdown_deadline.count());
      break;
    }
    Server::Condition condition = (*server)->condition();
    if (!condition.failure.empty()) {
      log_error("server.storage_failed", "{}. Nothing is acknowledged any more; the broker stops. Look at the kernel log and the health of the device.", condition.failure);
      exit_code = 1;
      break;
    }
    if (!condition.stalled.empty() && !stalled) log_error("server.storage_stalled", "{}. Nothing is acknowledged until it ends. Look at the kernel log and the health of the device.", condition.stalled);
    if (condition.stalled.empty() && stalled) log_warn("server.storage_goes_on", "the write to the log has ended");
    stalled = !condition.stalled.empty();
    // A shard that does not answer is not alive, whatever this thread thinks: the service manager is to see it.
    if (condition.shards_silent == 0) tell_service_manager("WATCHDOG=1");
  }
  tell_service_manager("STOPPING=1");
  SecondSignal second{signals};
  bool clean = false;
  {
    StopDeadline deadline{running.options.shutdown_deadline};
    clean = (*server)->stop(running.options.shutdown_deadline);
  }
  log_info("server.stopped", "{}", clean ? "clean" : "not clean: the next start recovers from the WAL");
  return exit_code;
}

}  // namespace tailrace::broker::server
