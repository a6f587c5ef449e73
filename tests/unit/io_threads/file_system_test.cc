#include "io_threads/file_system.h"

#include "tests/support/commit_storm.h"
#include "tests/support/event_file_system_world.h"

namespace tailrace::broker::testing_support {
namespace {

std::unique_ptr<EventFileSystemWorld> threads_world() {
  return std::make_unique<EventFileSystemWorld>([](Executor&) { return std::make_unique<io_threads::FileSystem>(); });
}
INSTANTIATE_TEST_SUITE_P(Backend, FileSystemConformance,
                         ::testing::Values([]() -> std::unique_ptr<FileSystemWorld> { return threads_world(); }),
                         [](const auto&) { return "threads"; });

// Completions cross a thread and an eventfd: none may be lost, whatever turn it falls into.
TEST(ThreadFiles, LosesNoneOfTenThousandDurableCommits) {
  auto world = threads_world();
  commit_storm(*world, 10'000, 16);
}

// An exhausted process must say so, and recover when descriptors are there again.
TEST(ThreadFiles, NamesTheShortageOfDescriptors) {
  auto world = threads_world();
  world->run(run_out_of_descriptors(world->files(), world->root()));
}

}  // namespace
}  // namespace tailrace::broker::testing_support
