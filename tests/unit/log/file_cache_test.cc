#include "log/file_cache.h"

#include <gtest/gtest.h>

#include "tests/support/sim_disk.h"
#include "tests/support/sim_runtime.h"

namespace tailrace::broker::log {
namespace {

/// Opens a file at once and hands it out when it is told to, as a kernel's worker may.
class SlowToAnswer final : public io::FileSystem {
 public:
  explicit SlowToAnswer(io::Runtime& runtime) : inner_{runtime.files}, go_{runtime.executor} {}
  void hold() { held_ = true; }
  void let_go() {
    held_ = false;
    go_.notify_all();
  }
  Task<Result<std::unique_ptr<io::File>>> open(std::string path, io::OpenOptions options) override {
    auto file = co_await inner_.open(std::move(path), options);
    while (held_) co_await go_.wait();
    co_return file;
  }
  Task<Result<void>> remove(std::string path) override { return inner_.remove(std::move(path)); }
  Task<Result<void>> remove_directory(std::string path) override { return inner_.remove_directory(std::move(path)); }
  Task<Result<void>> rename(std::string from, std::string to) override { return inner_.rename(std::move(from), std::move(to)); }
  Task<Result<void>> make_directory(std::string path) override { return inner_.make_directory(std::move(path)); }
  Task<Result<void>> sync_directory(std::string path) override { return inner_.sync_directory(std::move(path)); }
  Task<Result<std::vector<io::DirectoryEntry>>> list(std::string path) override { return inner_.list(std::move(path)); }
  Task<Result<io::Space>> space(std::string path) override { return inner_.space(std::move(path)); }
  Task<Result<std::unique_ptr<io::Lock>>> lock(std::string path) override { return inner_.lock(std::move(path)); }
  std::string_view name() const override { return inner_.name(); }

 private:
  io::FileSystem& inner_;
  Notifier go_;
  bool held_ = false;
};

// A file is replaced by another of its name while a reader is opening it. The reader's descriptor is of the old one, and
// whoever writes next must not be given it: the bytes would go to a file without a name.
TEST(FileCache, ADescriptorOpenedBeforeItsFileWasReplacedIsNotKept) {
  sim::SimMachine machine{1};
  SlowToAnswer files{machine.runtime};
  io::Runtime runtime{files, machine.loop, machine.loop, machine.loop, machine.loop.random()};
  ShardLogStats stats;
  auto make = [&] {
    auto file = machine.loop.run(machine.disk.open("/f", {.create = true, .write = true}));
    ASSERT_TRUE(file && *file);
  };
  make();
  struct Opener {
    static Task<void> open(FileCache* cache, FileCache::Key key, std::shared_ptr<io::File>* out) {
      auto file = co_await cache->get(key, "/f", false);
      if (file) *out = *file;
    }
  };
  {
    FileCache cache{runtime, 10, stats};
    FileCache::Key key{1, Offset{0}};
    std::shared_ptr<io::File> readers;
    TaskScope scope;
    files.hold();
    scope.spawn(Opener::open(&cache, key, &readers));
    machine.loop.run_for(std::chrono::milliseconds{10});
    cache.drop(key);
    auto removed = machine.loop.run(machine.disk.remove("/f"));
    ASSERT_TRUE(removed && *removed);
    make();
    files.let_go();
    machine.loop.run_for(std::chrono::milliseconds{10});
    ASSERT_EQ(scope.running(), 0u);
    auto writers = machine.loop.run(cache.get(key, "/f", false));
    ASSERT_TRUE(writers && *writers);
    auto grown = machine.loop.run(io::truncate(***writers, 4'096));
    ASSERT_TRUE(grown && *grown);
  }
  machine.loop.run_until_idle();
  EXPECT_EQ(machine.disk.visible_image().file("/f").size(), 4'096u);
}
// Every descriptor of ours that nobody uses goes before a read is refused for want of one.
TEST(FileCache, AllIdleDescriptorsGoBeforeOneIsRefused) {
  sim::SimMachine machine{1};
  ShardLogStats stats;
  {
    FileCache cache{machine.runtime, 100, stats};
    for (int i = 0; i < 20; ++i) {
      auto file = machine.loop.run(cache.get({1, Offset{i}}, "/f" + std::to_string(i), true));
      ASSERT_TRUE(file && *file);
    }
    EXPECT_EQ(stats.open_files, 20u);
    // Somebody else holds nearly all descriptors there are.
    machine.disk.set_descriptors_max(1);
    auto file = machine.loop.run(cache.get({1, Offset{20}}, "/f20", true));
    ASSERT_TRUE(file);
    EXPECT_TRUE(*file) << (*file).error().detail;
    EXPECT_EQ(stats.open_files, 1u);
    machine.disk.set_descriptors_max(0);
    auto none = machine.loop.run(cache.get({1, Offset{21}}, "/f21", true));
    ASSERT_TRUE(none);
    ASSERT_FALSE(*none);
    EXPECT_EQ(none->error().code, Errc::descriptors_exhausted);
  }
  machine.loop.run_until_idle();
}

}  // namespace
}  // namespace tailrace::broker::log
