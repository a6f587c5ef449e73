/// The life of a broker process, in a child: its ready line, its signals, its exit codes, what systemd hears.
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "server/server.h"
#include "tests/support/scratch_directory.h"
#include "tests/unit/server/blocking_client.h"

namespace tailrace::broker::server {
namespace {

using namespace std::chrono_literals;

LoadedConfig config_for(const std::string& directory) {
  ConfigSources sources;
  sources.dev = true;
  sources.flags = {{"data.directory", directory, ""}, {"listen.native", "127.0.0.1:0", ""}, {"listen.http", "127.0.0.1:0", ""},
                   {"shards", "1", ""}, {"wal.file_bytes", "1MiB", ""}, {"log.format", "json", ""}};
  auto loaded = load_config(sources);
  EXPECT_TRUE(loaded.has_value());
  return *std::move(loaded);
}

class Child {
 public:
  explicit Child(const LoadedConfig& config, RunHooks hooks = {}) {
    int out[2], err[2];
    EXPECT_EQ(::pipe(out), 0);
    EXPECT_EQ(::pipe(err), 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(out[1], STDOUT_FILENO);
      ::dup2(err[1], STDERR_FILENO);
      for (int fd : {out[0], out[1], err[0], err[1]}) ::close(fd);
      ::_exit(run_server(config, std::move(hooks)));
    }
    ::close(out[1]);
    ::close(err[1]);
    out_ = out[0];
    err_ = err[0];
  }
  ~Child() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
    ::close(out_);
    ::close(err_);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  /// One line of stdout, or what came within 10 s.
  std::string line() {
    std::string text;
    pollfd wait{.fd = out_, .events = POLLIN, .revents = 0};
    char c;
    while (::poll(&wait, 1, 10'000) == 1 && ::read(out_, &c, 1) == 1 && c != '\n') text += c;
    return text;
  }
  std::string errors() {
    std::string text;
    char block[4'096];
    for (ssize_t got; (got = ::read(err_, block, sizeof block)) > 0;) text.append(block, static_cast<std::size_t>(got));
    return text;
  }
  void signal(int number) { ::kill(pid_, number); }
  /// Exit code; -1: it did not end in time, or by a signal.
  int wait(std::chrono::seconds within = 10s) {
    auto deadline = std::chrono::steady_clock::now() + within;
    while (std::chrono::steady_clock::now() < deadline) {
      int status = 0;
      if (::waitpid(pid_, &status, WNOHANG) == pid_) {
        pid_ = -1;
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
      }
      std::this_thread::sleep_for(5ms);
    }
    return -1;
  }

 private:
  pid_t pid_ = -1;
  int out_ = -1, err_ = -1;
};

std::uint16_t native_port(const std::string& ready) {
  auto at = ready.find("native=127.0.0.1:");
  return at == std::string::npos ? std::uint16_t{0} : static_cast<std::uint16_t>(std::atoi(ready.c_str() + at + 17));
}

// Scripts wait for this line and take the ports from it; SIGTERM and SIGINT both leave the clean mark.
TEST(RunServer, ItSaysReadyAndEndsCleanlyOnASignal) {
  for (int number : {SIGTERM, SIGINT, SIGHUP}) {
    testing_support::ScratchDirectory scratch;
    Child child{config_for(scratch.path() + "/data")};
    std::string ready = child.line();
    EXPECT_TRUE(ready.starts_with("ready native=127.0.0.1:")) << ready;
    EXPECT_NE(ready.find(" http=127.0.0.1:"), std::string::npos) << ready;
    EXPECT_TRUE(BlockingClient{native_port(ready)}.connected());
    EXPECT_FALSE(std::filesystem::exists(scratch.path() + "/data/clean")) << "while it runs the data is not clean";
    child.signal(number);
    EXPECT_EQ(child.wait(), 0);
    EXPECT_TRUE(std::filesystem::exists(scratch.path() + "/data/clean"));
    EXPECT_EQ(child.line(), "") << "nothing else goes to stdout";
    EXPECT_NE(child.errors().find("\"event\":\"server.stopped\""), std::string::npos);
  }
}

// An impatient operator presses Ctrl-C twice.
TEST(RunServer, ASecondSignalEndsItAtOnce) {
  testing_support::ScratchDirectory scratch;
  Child child{config_for(scratch.path() + "/data")};
  BlockingClient holds_it{native_port(child.line())};
  holds_it.greet();
  child.signal(SIGINT);
  ASSERT_EQ(holds_it.next()->header.type, proto::FrameType::goodbye);  // the drain has begun, and waits for us to close
  child.signal(SIGINT);
  EXPECT_EQ(child.wait(), 130);
}

TEST(RunServer, AStartThatFailsSaysOneThingAndItsExitCode) {
  testing_support::ScratchDirectory scratch;
  Child first{config_for(scratch.path() + "/data")};
  ASSERT_NE(first.line(), "");
  Child second{config_for(scratch.path() + "/data")};
  EXPECT_EQ(second.wait(), 1);
  EXPECT_EQ(second.line(), "");
  std::string said = second.errors();
  EXPECT_NE(said.find("error E5305: "), std::string::npos) << said;
  EXPECT_NE(said.find("another directory"), std::string::npos) << said;
  std::ofstream{scratch.path() + "/notes.txt"} << "not ours";
  Child foreign{config_for(scratch.path())};
  EXPECT_EQ(foreign.wait(), 1);
  EXPECT_NE(foreign.errors().find("error E5306: "), std::string::npos);
}

// A reload is all or nothing, and says what it did and what has to wait.
TEST(RunServer, AReloadTakesOverWhatCanChangeAndRefusesWhatIsWrong) {
  testing_support::ScratchDirectory scratch;
  LoadedConfig config = config_for(scratch.path() + "/data");
  std::string file = scratch.path() + "/tailrace.toml";
  RunHooks hooks;
  hooks.load = [&] {
    ConfigSources sources;
    sources.dev = true;
    sources.file = file;
    for (const auto& [key, value] : config.values) {
      if (value.origin.kind == OriginKind::flag) sources.flags.push_back({key, value.text, ""});
    }
    return load_config(sources);
  };
  Child child{config, hooks};
  std::string ready = child.line();
  auto http = static_cast<std::uint16_t>(std::atoi(ready.c_str() + ready.rfind(':') + 1));
  auto pending = [&] {
    std::string page = http_get(http, "/metrics").second;
    auto at = page.find("\ntailrace_config_restart_pending ");
    return at == std::string::npos ? std::string{} : page.substr(at + 33, page.find('\n', at + 1) - at - 33);
  };
  auto idle_timeout = [&] {
    BlockingClient client{native_port(ready)};
    proto::Hello hello;
    hello.set_major(proto::kProtocolMajor);
    return client.call<proto::HelloReply>(proto::FrameType::hello, 0, hello).idle_timeout_ms();
  };
  auto eventually = [](auto condition) {
    for (int i = 0; i < 1'000 && !condition(); ++i) std::this_thread::sleep_for(10ms);
    return condition();
  };
  EXPECT_EQ(pending(), "0");
  EXPECT_EQ(idle_timeout(), 300'000u);
  std::ofstream{file} << "[limits]\nidle_timeout = \"40s\"\n[wal]\nfiles = 7\n";
  child.signal(SIGHUP);
  EXPECT_TRUE(eventually([&] { return pending() == "1"; })) << pending();
  EXPECT_EQ(idle_timeout(), 40'000u);
  std::ofstream{file} << "[limits]\nidle_timeout = \"50s\"\nconections = 3\n";
  child.signal(SIGHUP);
  std::this_thread::sleep_for(100ms);
  EXPECT_EQ(idle_timeout(), 40'000u);
  child.signal(SIGTERM);
  EXPECT_EQ(child.wait(), 0);
  std::string log = child.errors();
  EXPECT_NE(log.find("wal.files = 7 applies at the next start"), std::string::npos) << log;
  EXPECT_NE(log.find("Did you mean \\\"limits.connections\\\"?"), std::string::npos) << log;
}

TEST(RunServer, TheServiceManagerHearsReadyAndStopping) {
  testing_support::ScratchDirectory scratch;
  std::string path = scratch.path() + "/notify";
  int fd = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  timeval patience{.tv_sec = 10, .tv_usec = 0};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ::setenv("NOTIFY_SOCKET", path.c_str(), 1);
  Child child{config_for(scratch.path() + "/data")};
  ::unsetenv("NOTIFY_SOCKET");
  auto heard = [&] {
    char text[64] = {};
    for (;;) {
      ssize_t got = ::recv(fd, text, sizeof text - 1, 0);
      if (got < 0) return std::string{};
      std::string word{text, static_cast<std::size_t>(got)};
      if (word != "WATCHDOG=1") return word;
    }
  };
  EXPECT_EQ(heard(), "READY=1");
  child.signal(SIGTERM);
  EXPECT_EQ(heard(), "STOPPING=1");
  EXPECT_EQ(child.wait(), 0);
  ::close(fd);
}

}  // namespace
}  // namespace tailrace::broker::server
