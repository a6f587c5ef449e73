#pragma once
/// Runs the user's functions: on the client's own callback thread, or through the user's Executor.
///
/// Thread   any. Functions run one after the other in the order posted (own thread), or as the user's executor has it.
/// Errors   an exception that leaves a function is caught and reported to `failed`.
/// Bounds   what waits here is counted; producers stop accepting records while more than kCallbackBacklogMax results wait to be
///          told, and events beyond kEventBacklogMax are dropped. The rest is bounded by the calls in flight.
#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include "src/net/loop.h"
#include "tailrace/executor.h"

namespace tailrace::inline v1::detail {

inline constexpr std::uint64_t kCallbackBacklogMax = 1'000'000;
inline constexpr std::uint64_t kEventBacklogMax = 10'000;

class Callbacks : public std::enable_shared_from_this<Callbacks> {
 public:
  Callbacks(Executor executor, std::function<void(std::string)> failed);
  ~Callbacks();

  void start();
  /// After stop() the function runs at once, on the caller's thread: nothing posted is ever dropped.
  /// `results`: how many the function tells, for the backlog.
  void post(std::move_only_function<void()> function, std::uint64_t results = 1);
  [[nodiscard]] std::uint64_t backlog() const { return backlog_.load(std::memory_order_relaxed); }
  /// Called on whichever thread brings the backlog below kCallbackBacklogMax again. Before start().
  void when_drained(std::function<void()> function) { drained_ = std::move(function); }
  /// The thread runs what was posted, then ends. Does not wait.
  void stop();
  /// Waits for the own thread to end; answers whether it did. At once false inside a callback.
  bool join(TimePoint deadline);
  /// True on a thread that is running one of this client's callbacks.
  [[nodiscard]] bool inside() const;

 private:
  struct Item {
    Item(std::move_only_function<void()> f, std::uint64_t r, Callbacks* o) : function{std::move(f)}, results{r}, owner{o} {}
    Item(Item&& other) noexcept : function{std::move(other.function)}, results{other.results}, owner{std::exchange(other.owner, nullptr)} {}
    Item& operator=(Item&&) = delete;
    ~Item();  // its results are no backlog any more, run or not
    std::move_only_function<void()> function;
    std::uint64_t results;
    Callbacks* owner;
  };
  void done(std::uint64_t results);
  void run_one(Item& item);
  void loop();

  Executor executor_;
  std::function<void(std::string)> failed_;
  std::mutex mutex_{};
  std::condition_variable changed_{};
  std::deque<Item> queue_{};
  std::atomic<std::uint64_t> backlog_{0};
  std::function<void()> drained_{};
  bool stopped_ = false;
  bool ended_ = true;  // the own thread is not running
};

}  // namespace tailrace::inline v1::detail
