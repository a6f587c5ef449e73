#include "server/io_backend.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <string>

#include "base/log.h"
#include "shard/ready_queue.h"
#include "tests/support/refuse_io_uring.h"
#include "tests/support/scratch_directory.h"

namespace tailrace::broker::server {
namespace {

std::string& warnings() {
  static std::string text;
  return text;
}
int& warning_count() {
  static int count = 0;
  return count;
}
void remember_warnings(LogLevel level, std::string_view event, std::string_view message) {
  if (level != LogLevel::warn) return;
  warnings() += std::string{event} + " " + std::string{message};
  ++warning_count();
}

/// In a child without io_uring: 0 as it should be, else the number of the step that was wrong.
int falls_back(int number) {
  if (!testing_support::refuse_io_uring(number)) return 1;
  set_log_sink(&remember_warnings, LogLevel::info);
  shard::ReadyQueue executor;
  auto first = make_file_system(IoBackend::automatic, executor);
  auto second = make_file_system(IoBackend::automatic, executor);
  if (!first || !second || (*first)->name() != "threads") return 2;
  if (warning_count() != 1) return 3;
  if (warnings().find("W5001") == std::string::npos || warnings().find("seccomp=") == std::string::npos) return 4;
  if (warnings().find(number == EPERM ? "EPERM" : "ENOSYS") == std::string::npos) return 5;
  auto forced = make_file_system(IoBackend::io_uring, executor);
  if (forced || forced.error().code != Errc::io_uring_refused) return 6;
  // And a whole shard works like this.
  testing_support::ScratchDirectory directory;
  ShardThread shard{ShardIndex{0}, IoBackend::automatic, 1};
  if (!shard.start()) return 7;
  auto made = shard.ask([&] { return shard.files().make_directory(directory.path() + "/d"); }, 10s);
  if (!made || !*made) return 8;
  return 0;
}
int in_child(int number) {
  pid_t child = ::fork();
  if (child == 0) ::_exit(falls_back(number));
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// In an ordinary container the broker must run, slower, and say once what to do about it; a backend asked for by name is
// never replaced silently.
TEST(IoBackend, FallsBackToThreadsWithOneWarningThatNamesTheFix) {
  EXPECT_EQ(in_child(EPERM), 0);
  EXPECT_EQ(in_child(ENOSYS), 0);
}

TEST(IoBackend, TakesWhatTheConfigurationNames) {
  shard::ReadyQueue executor;
  EXPECT_EQ((*make_file_system(IoBackend::threads, executor))->name(), "threads");
  EXPECT_EQ((*make_file_system(IoBackend::io_uring, executor))->name(), "io_uring");
  EXPECT_EQ((*make_file_system(IoBackend::automatic, executor))->name(), "io_uring");
}

Task<bool> write_and_read(ShardThread* shard, std::string path) {
  auto file = co_await shard->files().open(path, {.create = true, .write = true});
  if (!file) co_return false;
  if (!co_await io::write_all(**file, as_bytes("shard"), 0, io::Durable::yes)) co_return false;
  std::array<std::byte, 5> back{};
  co_return (co_await io::read_exactly(**file, back, 0)).has_value() && as_text(back) == "shard";
}
Task<bool> write_on_both(shard::Port* port, ShardThread* own, ShardThread* other, std::string path) {
  bool here = co_await write_and_read(own, path + "/here");
  auto on_other = [other, path] { return write_and_read(other, path + "/there"); };
  co_return here && co_await port->call_on(ShardIndex{1}, on_other);
}

// Two shards, each with its own ring or its own threads, calling each other: the skeleton every broker runs on.
TEST(ShardThread, TwoShardsServeFilesAndEachOther) {
  for (auto backend : {IoBackend::io_uring, IoBackend::threads}) {
    testing_support::ScratchDirectory directory;
    ShardThread a{ShardIndex{0}, backend, 1}, b{ShardIndex{1}, backend, 2};
    shard::Shards shards{{a.endpoint(), b.endpoint()}};
    ASSERT_TRUE(a.start());
    ASSERT_TRUE(b.start());
    auto both = a.ask([&] { return write_on_both(&shards.port(ShardIndex{0}), &a, &b, directory.path()); }, 30s);
    EXPECT_EQ(both, true);
    EXPECT_GE(b.files().counters().durable_writes.value(), 1u);  // counters may be read from anywhere
    a.finish();
    b.finish();
    EXPECT_FALSE(a.ask([] { return true; }, 1s));
  }
}

}  // namespace
}  // namespace tailrace::broker::server
