#include "interrupt.h"

#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>

namespace tailrace::cli::interrupt {
namespace {

std::atomic<int> count{0};
std::atomic<int> event{-1};
static_assert(std::atomic<int>::is_always_lock_free, "used in a signal handler");

void on_signal(int) {
  const int saved = errno;
  if (count.fetch_add(1) > 0) ::_exit(130);
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
