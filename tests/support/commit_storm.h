#pragma once
/// Durable commits and shortages, for both real backends.
#include <sys/resource.h>
#include <unistd.h>

#include "tests/support/event_file_system_world.h"

namespace tailrace::broker::testing_support {

struct CommitStorm {
  io::File* file = nullptr;
  std::size_t left = 0;       // to start
  std::size_t completed = 0;
  std::size_t failed = 0;
};

/// One committer: overwrites its own block durably, again and again, as a WAL at depth 1 does.
inline Task<void> commit_repeatedly(CommitStorm* storm, std::size_t block) {
  Buffer data = conformance::block(block + 1);
  while (storm->left > 0) {
    --storm->left;
    auto written = co_await io::write_all(*storm->file, data.bytes(), block * io::kDirectAlignment, io::Durable::yes);
    ++storm->completed;
    storm->failed += !written;
  }
}

inline Task<void> commit_storm_story(EventFileSystemWorld* world, std::size_t commits, std::size_t depth, CommitStorm* storm) {
  auto file = co_await world->files().open(world->root() + "/wal", conformance::kCreateDirect);
  TAILRACE_CO_ASSERT(file);
  for (std::size_t i = 0; i < depth; ++i) {  // written once before, as the WAL's files are
    EXPECT_TRUE(co_await io::write_all(**file, conformance::block(0).bytes(), i * io::kDirectAlignment, io::Durable::no));
  }
  storm->file = file->get();
  storm->left = commits;
  TaskScope scope;
  for (std::size_t i = 0; i < depth; ++i) scope.spawn(commit_repeatedly(storm, i));
  co_await scope.drain();
  for (std::size_t i = 0; i < depth; ++i) {
    Buffer back = conformance::block(0);
    EXPECT_TRUE(co_await io::read_exactly(**file, back.bytes(), i * io::kDirectAlignment));
    EXPECT_TRUE(conformance::same(back.bytes(), conformance::block(i + 1).bytes()));
  }
}

/// All commits complete; a lost wakeup shows as a test that runs into its time limit.
inline void commit_storm(EventFileSystemWorld& world, std::size_t commits, std::size_t depth) {
  CommitStorm storm;
  world.run(commit_storm_story(&world, commits, depth, &storm));
  EXPECT_EQ(storm.completed, commits);
  EXPECT_EQ(storm.failed, 0u);
  const auto& counters = world.files().counters();
  EXPECT_GE(counters.durable_writes.value(), commits);
  EXPECT_EQ(counters.in_flight.value(), 0u);
  EXPECT_EQ(counters.failures.value(), 0u);
}

inline Task<void> run_out_of_descriptors(io::FileSystem& files, std::string root) {
  auto open_one = co_await files.open(root + "/before", conformance::kCreate);
  TAILRACE_CO_ASSERT(open_one);
  int free_fd = ::dup(0);
  ::close(free_fd);
  rlimit before{};
  ::getrlimit(RLIMIT_NOFILE, &before);
  rlimit none = before;
  none.rlim_cur = static_cast<rlim_t>(free_fd);
  ::setrlimit(RLIMIT_NOFILE, &none);
  auto refused = co_await files.open(root + "/refused", conformance::kCreate);
  auto not_listed = co_await files.list(root);
  auto written = co_await io::write_all(**open_one, as_bytes("still works"), 0, io::Durable::yes);
  ::setrlimit(RLIMIT_NOFILE, &before);
  EXPECT_EQ(conformance::code_of(refused), Errc::descriptors_exhausted);
  EXPECT_EQ(conformance::code_of(not_listed), Errc::descriptors_exhausted);
  EXPECT_TRUE(written);
  EXPECT_TRUE(co_await files.open(root + "/refused", conformance::kCreate));
}

}  // namespace tailrace::broker::testing_support
