#pragma once
/// A real file backend on a real loop and a scratch directory.
#include "io_asio/loop.h"
#include "io/event_file_system.h"
#include "tests/support/file_system_conformance.h"
#include "tests/support/scratch_directory.h"

namespace tailrace::broker::testing_support {

class EventFileSystemWorld final : public FileSystemWorld {
 public:
  using Make = std::function<std::unique_ptr<io::EventFileSystem>(Executor&)>;
  explicit EventFileSystemWorld(const Make& make) : files_{make(loop_)} {
    loop_.watch(files_->event_fd(), [this] { files_->on_event(); });
  }
  ~EventFileSystemWorld() override { loop_.unwatch(files_->event_fd()); }
  [[nodiscard]] io::EventFileSystem& files() override { return *files_; }
  [[nodiscard]] io_asio::Loop& loop() { return loop_; }
  [[nodiscard]] std::string root() override { return directory_.path(); }
  void run(Task<void> task) override {
    TaskScope scope;
    scope.spawn(then_stop(std::move(task)));
    loop_.run();
  }

 private:
  Task<void> then_stop(Task<void> task) {
    {
      Task<void> owned = std::move(task);
      co_await std::move(owned);
    }
    loop_.stop();
  }
  ScratchDirectory directory_;
  io_asio::Loop loop_;
  std::unique_ptr<io::EventFileSystem> files_;
};

}  // namespace tailrace::broker::testing_support
