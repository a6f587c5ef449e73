#include "io_uring/file_system.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "model/limits.h"
#include "tests/support/commit_storm.h"
#include "tests/support/event_file_system_world.h"

namespace tailrace::broker::testing_support {
namespace {

template <int kFirstStep>
std::unique_ptr<EventFileSystemWorld> ring_world() {
  return std::make_unique<EventFileSystemWorld>([](Executor& executor) -> std::unique_ptr<io::EventFileSystem> {
    auto files = io_uring::FileSystem::create(executor, {.first_step = kFirstStep});
    TAILRACE_CHECK(files.has_value(), "these tests need a kernel that allows io_uring");
    return *std::move(files);
  });
}
template <int kFirstStep>
std::unique_ptr<FileSystemWorld> make_world() {
  return ring_world<kFirstStep>();
}
// Every set of flags that an older kernel may leave us with must behave alike.
INSTANTIATE_TEST_SUITE_P(Backend, FileSystemConformance,
                         ::testing::Values(&make_world<0>, &make_world<1>, &make_world<2>, &make_world<3>),
                         [](const auto& info) { return "io_uring_step_" + std::to_string(info.index); });

// Deferred task work once lost wakeups here: 10,000 commits at depth 16 must all come back, on each set of flags.
TEST(RingFiles, LosesNoneOfTenThousandDurableCommits) {
  auto world = ring_world<0>();
  commit_storm(*world, 10'000, 16);
  // One submission per turn, not per operation. The bound is loose: turns depend on the disk's timing.
  EXPECT_LT(world->files().counters().submits.value(), 10'000u);
}
TEST(RingFiles, LosesNoneOfTenThousandDurableCommitsWithoutDeferredTaskWork) {
  auto world = ring_world<1>();
  commit_storm(*world, 10'000, 16);
}

TEST(RingFiles, NamesTheShortageOfDescriptors) {
  auto world = ring_world<0>();
  world->run(run_out_of_descriptors(world->files(), world->root()));
}

Task<void> through_pinned_memory(io::FileSystem* files, std::string root) {
  auto file = co_await files->open(root + "/pinned", {.create = true, .write = true, .direct = true});
  TAILRACE_CO_ASSERT(file);
  // More pieces than a ring registers; what is given back may be used again as any memory.
  constexpr std::size_t kPieces = limits::kRingPinnedMax + 2, kBytes = 64 * limits::kKiB;
  Buffer memory = Buffer::allocate(kPieces * kBytes, io::kDirectAlignment), read = Buffer::allocate(kBytes, io::kDirectAlignment);
  auto piece = [&](std::size_t i) { return memory.bytes().subspan(i * kBytes, kBytes); };
  for (int round = 0; round < 3; ++round) {
    for (std::size_t i = 0; i < kPieces && round < 2; ++i) files->pin(piece(i));
    for (std::size_t i = 0; i < kPieces; ++i) {
      std::memset(piece(i).data(), static_cast<int>('a' + i) + round, kBytes);
      EXPECT_TRUE(co_await io::write_all(**file, piece(i).subspan(io::kDirectAlignment), i * kBytes, io::Durable::yes));
      EXPECT_TRUE(co_await io::read_exactly(**file, read.bytes().first(kBytes - io::kDirectAlignment), i * kBytes));
      EXPECT_EQ(std::memcmp(read.data(), piece(i).data(), kBytes - io::kDirectAlignment), 0) << "piece " << i << " of round " << round;
    }
    // A write that begins in one piece and ends in the next is none of either.
    EXPECT_TRUE(co_await io::write_all(**file, memory.bytes().subspan(kBytes / 2, kBytes), 0, io::Durable::no));
    for (std::size_t i = 0; i < kPieces; ++i) files->unpin(piece(i));
  }
}
TEST(RingFiles, MovesTheSameBytesThroughPinnedMemory) {
  auto world = ring_world<0>();
  world->run(through_pinned_memory(&world->files(), world->root()));
}

std::size_t kernel_workers() {
  std::size_t count = 0;
  DIR* tasks = ::opendir("/proc/self/task");
  while (dirent* entry = ::readdir(tasks)) {
    std::ifstream comm{"/proc/self/task/" + std::string{entry->d_name} + "/comm"};
    std::string name;
    std::getline(comm, name);
    count += name.starts_with("iou-wrk");
  }
  ::closedir(tasks);
  return count;
}

Task<void> sync_once(io::File* file, std::size_t* workers_max) {
  EXPECT_TRUE(co_await io::write_all(*file, as_bytes("dirty"), 0, io::Durable::no));
  EXPECT_TRUE(co_await io::sync(*file));
  *workers_max = std::max(*workers_max, kernel_workers());
}
Task<void> sync_many(io::FileSystem* files, std::string root, std::size_t* workers_max) {
  TaskScope scope;
  std::vector<std::unique_ptr<io::File>> open;
  for (int i = 0; i < 32; ++i) {
    auto file = co_await files->open(root + "/" + std::to_string(i), conformance::kCreate);
    TAILRACE_CO_ASSERT(file);
    open.push_back(*std::move(file));
  }
  for (auto& file : open) scope.spawn(sync_once(file.get(), workers_max));
  co_await scope.drain();
}

// fsync goes to the kernel's workers; without a cap 32 of them start 32 threads, which fight with the shards for cores.
TEST(RingFiles, KeepsTheKernelsWorkersWithinTheirCap) {
  auto world = ring_world<0>();
  std::size_t workers_max = 0;
  world->run(sync_many(&world->files(), world->root(), &workers_max));
  EXPECT_GE(workers_max, 1u);  // else the test looks at the wrong threads
  EXPECT_LE(workers_max, limits::kRingWorkersMax);
}

Task<void> overwrite_durably(io::FileSystem* files, std::string path, CommitStorm* storm) {
  auto file = co_await files->open(path, {.write = true, .direct = true});
  TAILRACE_CO_ASSERT(file);
  storm->file = file->get();
  TaskScope scope;
  for (std::size_t i = 0; i < 16; ++i) scope.spawn(commit_repeatedly(storm, i));
  co_await scope.drain();
}
/// How many of the kernel's workers 2,000 commits left behind; 99: the commits failed. They linger for seconds when idle.
int workers_after_overwrites() {
  auto world = ring_world<0>();
  std::string path = world->root() + "/wal";
  int fd = ::open(path.c_str(), O_CREAT | O_WRONLY | O_DIRECT | O_CLOEXEC, 0600);  // cached pages would need a worker to drop them
  Buffer zeros = conformance::block(0, 16 * io::kDirectAlignment);
  if (::pwrite(fd, zeros.data(), zeros.size(), 0) < 0 || ::fsync(fd) != 0 || ::close(fd) != 0) return 99;
  CommitStorm storm{.left = 2'000};
  world->run(overwrite_durably(&world->files(), path, &storm));
  return storm.completed == 2'000 && storm.failed == 0 ? static_cast<int>(kernel_workers()) : 99;
}

// The WAL's way to write, a durable overwrite of written blocks, must be issued inline: the hop to a worker costs more than
// the write. In a child, since workers of other tests linger.
TEST(RingFiles, OverwritesWrittenBlocksWithoutKernelWorkers) {
  pid_t child = ::fork();
  if (child == 0) ::_exit(workers_after_overwrites());
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

Task<void> fail_in_several_ways(io::EventFileSystem* files, std::string root) {
  auto file = co_await files->open(root + "/direct", conformance::kCreateDirect);
  auto read_only = co_await files->open(root + "/direct", {});
  TAILRACE_CO_ASSERT(file && read_only);
  Buffer data = conformance::block(1, 2 * io::kDirectAlignment);
  auto misaligned = co_await io::write_all(**file, Bytes{data.bytes()}.subspan(1, 100), 1, io::Durable::yes);
  EXPECT_EQ(conformance::code_of(misaligned), Errc::io_error);
  auto refused = co_await io::write_all(**read_only, data.bytes(), 0, io::Durable::no);
  EXPECT_EQ(conformance::code_of(refused), Errc::io_error);
  EXPECT_TRUE(co_await io::write_all(**file, data.bytes(), 0, io::Durable::yes));  // and an error breaks nothing else
}

// Errors of the disk come through as they are, and are counted by their number for the metrics.
TEST(RingFiles, CountsFailuresByErrno) {
  auto world = ring_world<0>();
  world->run(fail_in_several_ways(&world->files(), world->root()));
  const auto& counters = world->files().counters();
  EXPECT_EQ(counters.failures.value(), 2u);
  EXPECT_EQ(counters.failures_by_errno[EINVAL].value(), 1u);
  EXPECT_EQ(counters.failures_by_errno[EBADF].value(), 1u);
  EXPECT_EQ(counters.bytes_written.value(), 2 * io::kDirectAlignment);
}

}  // namespace
}  // namespace tailrace::broker::testing_support
