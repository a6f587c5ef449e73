#pragma once
/// The event loop of one shard, on Asio's epoll reactor. Everything a shard's code needs of time and order comes from here;
/// files are told to it as event descriptors (`watch`), sockets live in io_asio/tcp.h.
///
///   io_asio::Loop loop;                                        // any thread, before the shard's thread starts
///   std::jthread thread{[&] {
///     auto files = io_uring::FileSystem::create(loop);         // on the shard's own thread
///     loop.watch((*files)->event_fd(), [&] { (*files)->on_event(); });
///     io::Runtime runtime{**files, loop, loop, loop, random};
///     ...
///     loop.run();
///     loop.unwatch((*files)->event_fd());
///   }};
///
/// Turn     sleep until something happens; take all socket, descriptor and timer events; deliver the inbox; run posted work
///          flat, at most limits::kLoopTurnMax pieces; again. Handlers of events only queue or run to their next wait, so a
///          turn is bounded, and what they start (ring submissions above all) is handed to the kernel once per turn.
#include <functional>
#include <memory>

#include "base/executor.h"
#include "io/clock.h"
#include "io/counters.h"
#include "io/timer.h"
#include "shard/inbox.h"

namespace asio {
class io_context;
}

namespace tailrace::broker::io_asio {

/// Thread   run() and everything else belong to one thread, but for stop(), post_from_outside(), now() and wall(), which any
///          may call, and for set-up before run().
/// Lives    longer than all that posts to it, arms timers in it, or is watched by it.
class Loop final : public Executor, public io::Timers, public io::Clock {
 public:
  Loop();
  ~Loop() override;
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  /// Until stop(): also returns at once if that came first. Work still queued then is not run: drain scopes before.
  void run();
  void stop() noexcept;  // any thread; also from inside the loop

  void post(Runnable& work) override;
  void arm(io::Timer& timer, Instant due) override;
  void disarm(io::Timer& timer) override;
  [[nodiscard]] Instant now() const override;
  [[nodiscard]] WallTime wall() const override;

  /// Runs `work` on the loop's thread. False: limits::kOutsidePostsMax are waiting already, or the loop was stopped; `work`
  /// was not taken. What is still waiting when the loop is destroyed is destroyed unrun. Any thread; not for hot paths.
  [[nodiscard]] bool post_from_outside(std::move_only_function<void()> work);
  /// Where other shards put their messages (shard::Shards).
  [[nodiscard]] shard::Inbox& inbox();

  /// Calls `on_event` once in each turn in which `event_fd` (an eventfd, non-blocking) was written; it must read the
  /// descriptor empty. The descriptor stays the caller's, open until unwatch(). Not from inside an `on_event`.
  void watch(int event_fd, std::move_only_function<void()> on_event);
  void unwatch(int event_fd);

  struct Counters {
    io::Counter turns;
    io::Counter sleeps;  // turns that found nothing to do first
    io::Counter work;    // posted pieces that ran
    io::Counter mail;    // messages from other threads
  };
  [[nodiscard]] const Counters& counters() const;
  /// For this room's sockets.
  [[nodiscard]] asio::io_context& context();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tailrace::broker::io_asio
