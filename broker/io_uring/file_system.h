#pragma once
/// Files over a shard's own io_uring. The fastest way to a durable append on Linux that we measured (storage.md 0).
#include <memory>

#include "base/executor.h"
#include "io/event_file_system.h"

namespace tailrace::broker::io_uring {

/// Whether rings can be made and used here. The error says why not, for a person: "EPERM, typical of ...".
[[nodiscard]] Result<void> probe();

struct Options {
  /// Set-up flags are tried from the best to the plainest; tests start lower to see that each step works.
  int first_step = 0;
};

/// Kernel   best with 6.1 (SINGLE_ISSUER and DEFER_TASKRUN: completions are taken when we ask, on our thread); steps down to
///          what 5.6 had.
/// Turn     operations collect and go to the kernel with one system call, from a piece of work posted to `executor`; at
///          once when they move limits::kRingSubmitBytes, so that the device does not wait for the rest of a long turn.
/// Full     beyond the completion queue's size, requests wait in order for a place: it never overflows.
/// Workers  the kernel uses threads of its own for what it cannot issue inline (fsync, growing files); at most
///          limits::kRingWorkersMax. Overwrites of written blocks, the WAL's way, need none.
/// Trap     only the registered event descriptor may be polled. Polling the ring's own descriptor with deferred task work
///          was seen to lose wakeups, and completions come only after io_uring_get_events, which on_event() calls.
class FileSystem final : public io::EventFileSystem {
 public:
  /// On the shard's own thread, whose loop runs `executor`; a ring made elsewhere refuses to submit here.
  [[nodiscard]] static Result<std::unique_ptr<FileSystem>> create(Executor& executor, Options options = {});
  ~FileSystem() override;

  void on_event() override;
  /// At most limits::kRingPinnedMax at a time are registered with the ring, and only as much as the limit on locked memory allows
  /// (none of it for whoever may lock memory freely); the rest is used as any other memory.
  void pin(MutableBytes memory) override;
  void unpin(MutableBytes memory) override;
  [[nodiscard]] std::string_view name() const override { return "io_uring"; }
  /// The flags the ring runs with, for a log line: "single issuer, deferred task work".
  [[nodiscard]] std::string_view mode() const;

 protected:
  void start(Request& request) override;

 private:
  friend Result<void> probe();
  struct Ring;
  FileSystem(Executor& executor, std::unique_ptr<Ring> ring);
  bool prepare(Request& request);
  void flush();
  void submit_waiting();
  void post_flush();

  struct Flush : Runnable {
    FileSystem* owner = nullptr;
    bool posted = false;
  };
  Executor& executor_;
  std::unique_ptr<Ring> ring_;
  Flush flush_;
  std::size_t prepared_bytes_ = 0;  // of reads and writes that the kernel was not told of
  Request* first_waiting_ = nullptr;
  Request* last_waiting_ = nullptr;
};

}  // namespace tailrace::broker::io_uring
