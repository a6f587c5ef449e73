// The SDK's fake broker as a program, so that the command line's tests can tell its own faults from the broker's.
#include <csignal>
#include <cstdio>

#include "tailrace/testing.h"

int main() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  tailrace::testing::FakeBroker broker;
  std::printf("ready native=%s http=-\n", broker.address().c_str());
  std::fflush(stdout);
  int received = 0;
  sigwait(&signals, &received);
  return 0;
}
