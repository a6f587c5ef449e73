#include "interrupt.h"

#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <ctime>

namespace tailrace::cli::interrupt {
namespace {

std::atomic<int> count{0};
std::atomic<int> event{-1};
std::atomic<std::int64_t> first_at{0};
constexpr std::int64_t kOneKeystroke = 300'000'000;  // nanoseconds
static_assert(std::atomic<std::int64_t>::is_always_lock_free, "used in a signal handler");
static_assert(std::atomic<int>::is_always_lock_free, "used in a signal handler");

void on_signal(int) {
  const int saved = errno;
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);  // async-signal-safe
  const std::int64_t at = now.tv_sec * 1'000'000'000 + now.tv_nsec;
  // One Ctrl-C may come as two signals: `timeout` sends its own to the process and to the group.
  if (count.fetch_add(1) > 0) {
    if (at - first_at.load() > kOneKeystroke) ::_exit(130);
    errno = saved;
    return;
  }
  first_at = at;
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto written = ::write(event.load(), &one, sizeof one);
  errno = saved;
}

}  // namespace

void install() {
  ::signal(SIGPIPE, SIG_IGN);
  event = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  struct sigaction action {};
  action.sa_handler = on_signal;
  ::sigemptyset(&action.sa_mask);
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

bool requested() { return count.load() > 0; }
int descriptor() { return event.load(); }

}  // namespace tailrace::cli::interrupt
