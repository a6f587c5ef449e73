#pragma once
/// Runs the user's functions: on the client's own callback thread, or through the user's Executor.
///
/// Thread   any. Functions run one after the other in the order posted (own thread), or as the user's executor has it.
/// Errors   an exception that leaves a function is caught and reported to `failed`.
/// Bounds   the queue holds one function per acknowledged batch, finished handle or event; producers stop accepting records
///          while kCallbackBacklogMax results wait to be reported (producer room), and the rest is bounded by the calls in flight.
#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "src/net/loop.h"
#include "tailrace/executor.h"

namespace tailrace::inline v1::detail {

class Callbacks : public std::enable_shared_from_this<Callbacks> {
 public:
  Callbacks(Executor executor, std::function<void(std::string)> failed);
  ~Callbacks();

  void start();
  /// After stop() the function runs at once, on the caller's thread: nothing posted is ever dropped.
  void post(std::move_only_function<void()> function);
  /// The thread runs what was posted, then ends. Does not wait.
  void stop();
  /// Waits for the own thread to end; answers whether it did. At once false inside a callback.
  bool join(TimePoint deadline);
  /// True on a thread that is running one of this client's callbacks.
  [[nodiscard]] bool inside() const;

 private:
  void run_one(std::move_only_function<void()>& function);
  void loop();

  Executor executor_;
  std::function<void(std::string)> failed_;
  std::mutex mutex_{};
  std::condition_variable changed_{};
  std::deque<std::move_only_function<void()>> queue_{};
  bool stopped_ = false;
  bool ended_ = true;  // the own thread is not running
};

}  // namespace tailrace::inline v1::detail
