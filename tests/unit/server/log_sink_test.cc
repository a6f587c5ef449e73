#include "server/log_sink.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <sstream>

#include "server/service_manager.h"
#include "tests/support/scratch_directory.h"

namespace tailrace::broker::server {
namespace {

std::vector<std::string> lines_of(LogFormat format, LogLevel threshold, const std::function<void()>& write) {
  testing::internal::CaptureStderr();
  install_log_sink(threshold, format);
  write();
  std::stringstream text{testing::internal::GetCapturedStderr()};
  set_log_sink(nullptr, LogLevel::warn);
  std::vector<std::string> out;
  for (std::string line; std::getline(text, line);) out.push_back(line);
  return out;
}

// What a client sends ends up in log lines: it must not be able to forge a line or a field.
TEST(LogSink, JsonLinesStayJsonWhateverIsLogged) {
  std::string nasty = "a \"quote\" \\ and\na line\x01\x1b[31m end";
  auto lines = lines_of(LogFormat::json, LogLevel::info, [&] {
    log_info("test.json", "{}", nasty);
    log_debug("test.hidden", "below the threshold");
    log_error("test.error", "code {}", 7);
  });
  ASSERT_EQ(lines.size(), 2u);
  auto first = nlohmann::json::parse(lines[0]);
  EXPECT_EQ(first["event"], "test.json");
  EXPECT_EQ(first["level"], "info");
  EXPECT_EQ(first["message"], nasty);
  EXPECT_TRUE(first.contains("time"));
  EXPECT_EQ(nlohmann::json::parse(lines[1])["level"], "error");
}

TEST(LogSink, LogfmtQuotesItsValues) {
  auto lines = lines_of(LogFormat::logfmt, LogLevel::info, [&] { log_warn("test.logfmt", "say \"hi\"\n"); });
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_NE(lines[0].find(" level=warning event=test.logfmt message=\"say \\\"hi\\\"\\n\""), std::string::npos) << lines[0];
}

// A fault that repeats a thousand times a second must not fill the disk with its log.
TEST(LogSink, RepeatsAreLeftOut) {
  auto lines = lines_of(LogFormat::json, LogLevel::info, [&] {
    for (int i = 0; i < 1'000; ++i) log_warn("test.repeat", "again {}", i);
    log_warn("test.other", "heard");
  });
  EXPECT_EQ(lines.size(), kRepeatsMax + 1);
}

TEST(ServiceManager, HearsReadyOnItsSocket) {
  testing_support::ScratchDirectory scratch;
  std::string path = scratch.path() + "/notify";
  int fd = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  ASSERT_LT(path.size(), sizeof address.sun_path);
  path.copy(address.sun_path, path.size());
  ASSERT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ::unsetenv("NOTIFY_SOCKET");
  EXPECT_FALSE(tell_service_manager("READY=1")) << "nobody asked";
  ::setenv("NOTIFY_SOCKET", path.c_str(), 1);
  EXPECT_TRUE(tell_service_manager("READY=1"));
  char got[32] = {};
  EXPECT_EQ(::recv(fd, got, sizeof got, 0), 7);
  EXPECT_STREQ(got, "READY=1");
  ::setenv("NOTIFY_SOCKET", "/nonexistent/socket", 1);
  EXPECT_FALSE(tell_service_manager("READY=1"));
  ::unsetenv("NOTIFY_SOCKET");
  ::close(fd);
}

TEST(ServiceManager, WatchdogIntervalIsHalfAndOnlyForThisProcess) {
  ::setenv("WATCHDOG_USEC", "3000000", 1);
  EXPECT_EQ(watchdog_interval(), std::chrono::milliseconds{1'500});
  ::setenv("WATCHDOG_PID", "1", 1);
  EXPECT_EQ(watchdog_interval(), std::nullopt);
  ::unsetenv("WATCHDOG_PID");
  ::setenv("WATCHDOG_USEC", "soon", 1);
  EXPECT_EQ(watchdog_interval(), std::nullopt);
  ::unsetenv("WATCHDOG_USEC");
}

}  // namespace
}  // namespace tailrace::broker::server
