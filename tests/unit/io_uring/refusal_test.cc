#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "io_uring/file_system.h"
#include "shard/ready_queue.h"
#include "tests/support/refuse_io_uring.h"

namespace tailrace::broker::io_uring {
namespace {

/// The child's verdict as an exit code: 0 as it should be, else which step was wrong.
int refused_with(int number, const char* name) {
  if (!testing_support::refuse_io_uring(number)) return 1;
  auto probed = probe();
  if (probed || probed.error().code != Errc::io_uring_refused) return 2;
  if (probed.error().detail.find(name) == std::string::npos) return 3;
  shard::ReadyQueue executor;
  auto made = FileSystem::create(executor);
  if (made || made.error().code != Errc::io_uring_refused) return 4;
  return 0;
}
int in_child(int number, const char* name) {
  pid_t child = ::fork();
  if (child == 0) ::_exit(refused_with(number, name));
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// A container's default profile answers EPERM, some others ENOSYS; both must be an answer with the reason, not a crash.
TEST(Probe, NamesTheReasonWhenIoUringIsRefused) {
  EXPECT_EQ(in_child(EPERM, "EPERM"), 0);
  EXPECT_EQ(in_child(ENOSYS, "ENOSYS"), 0);
}

// And where the kernel allows it, the probe says yes: otherwise every broker would fall back unnoticed.
TEST(Probe, AcceptsAKernelThatAllowsIt) {
  auto probed = probe();
  EXPECT_TRUE(probed) << probed.error().detail;
}

}  // namespace
}  // namespace tailrace::broker::io_uring
