#pragma once
/// What a client is behind its handles: the I/O thread, the callback thread, the link, and everything made from them.
///
/// Life     threads hold the engine, so it outlives both; nothing ever joins the thread it runs on. Parts are destroyed on the
///          loop, whoever lets go of them last: their timers are the loop's (make_part). close() starts an orderly
///          end on the loop: publishers flush, subscriptions end, the link says goodbye, the loop stops, the callbacks drain.
///          At the deadline what is left is given its error and the loop stops all the same.
/// Thread   close(), post() and the accessors from anywhere; members marked "loop" on the loop's thread.
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

#include "src/budget.h"
#include "src/callbacks.h"
#include "src/completion.h"
#include "src/link.h"

namespace tailrace::inline v1::detail {

/// A publisher or a subscription, as the engine closes it.
class Part {
 public:
  virtual ~Part() = default;
  /// Loop. Begins the end; calls `done` once, at the deadline at the latest. Called again: as if it were the first time, and
  /// the earlier deadline holds.
  virtual void begin_close(TimePoint deadline, std::function<void(CloseReport)> done) = 0;
};

class Engine : public std::enable_shared_from_this<Engine> {
 public:
  static std::shared_ptr<Engine> start(ClientOptions options, std::vector<Server> servers);
  Engine(ClientOptions options, std::vector<Server> servers, std::shared_ptr<Callbacks> callbacks);
  ~Engine();

  [[nodiscard]] const ClientOptions& options() const { return options_; }
  [[nodiscard]] Link& link() { return link_; }  // loop
  [[nodiscard]] Loop& loop() { return loop_; }
  [[nodiscard]] Budget& budget() { return budget_; }
  [[nodiscard]] const std::shared_ptr<Callbacks>& callbacks() const { return callbacks_; }
  [[nodiscard]] bool closing() const { return closing_.load(); }
  void event(ClientEvent event);

  /// Runs on the loop unless that has ended; answers false if it has (nothing will run).
  bool post(std::move_only_function<void()> function);
  void add(std::shared_ptr<Part> part);     // any thread
  void remove(const Part* part);            // any thread

  /// A part of this engine, from make_shared's arguments but the engine. Any thread.
  template <class P, class... Args>
  static std::shared_ptr<P> make_part(const std::shared_ptr<Engine>& engine, Args&&... args) {
    auto part = std::make_unique<P>(engine, std::forward<Args>(args)...);
    return std::shared_ptr<P>(part.release(), [raw = engine.get()](P* gone) { raw->bury(std::unique_ptr<Part>{gone}); });
  }

  CloseReport close(Milliseconds deadline);

  /// Starts begin_close of one part and waits for its report, as close() does for all.
  CloseReport close_part(const std::shared_ptr<Part>& part, Milliseconds deadline);
  /// On a thread that must not wait for the loop or for callbacks.
  [[nodiscard]] bool must_not_wait() const { return callbacks_->inside() || loop_.on_loop_thread(); }

  /// A call with the client's request_timeout; `parse` turns the reply frame into the result.
  template <class T, class Message, class Reply, class Parse>
  Task<T> call(proto::FrameType type, Message message, proto::FrameType reply_type, CallPolicy policy, Parse parse) {
    auto completion = std::make_shared<Single<T>>(callbacks_);
    auto deadline = Clock::now() + options_.request_timeout;
    bool posted = post([weak = weak_from_this(), completion, message = std::move(message), type, reply_type, policy, deadline,
                        parse = std::move(parse)]() mutable {
      auto self = weak.lock();
      if (!self) return;
      self->start_call<T, Message, Reply>(completion, type, std::move(message), reply_type, policy, deadline, std::move(parse));
    });
    if (!posted) completion->complete(std::unexpected(make_error(Errc::closed, "the client is closed")));
    return Task<T>{completion};
  }
  /// Loop.
  template <class T, class Message, class Reply, class Parse>
  void start_call(std::shared_ptr<Single<T>> completion, proto::FrameType type, Message message, proto::FrameType reply_type,
                  CallPolicy policy, TimePoint deadline, Parse parse) {
    link_.call(
        type,
        [type, message = std::move(message)](std::uint64_t id, Milliseconds remaining) mutable {
          message.mutable_call()->set_deadline_ms(static_cast<std::uint32_t>(remaining.count()));
          return encode_frame(type, id, message);
        },
        reply_type, deadline, policy, [this, completion, parse = std::move(parse)](Result<IncomingFrame*> frame) mutable {
          if (!frame) {
            completion->complete(std::unexpected(std::move(frame).error()));
            return;
          }
          Reply reply;
          if (!decode_control((*frame)->control, reply)) {
            completion->complete(std::unexpected(make_error(Errc::protocol, "a reply cannot be read")));
            return link_.protocol_error("a reply cannot be read");
          }
          if constexpr (std::is_invocable_v<Parse&, const Reply&, broker::Bytes>) {
            completion->complete(parse(reply, (*frame)->payload.bytes()));
          } else {
            completion->complete(parse(reply));
          }
        });
  }

 private:
  void bury(std::unique_ptr<Part> part);  // any thread
  void begin_close(TimePoint deadline);  // loop
  void parts_closed();                   // loop
  void finish();                         // loop

  ClientOptions options_;
  std::shared_ptr<Callbacks> callbacks_;
  Budget budget_;
  Loop loop_;
  Link link_;
  LoopTimer close_timer_;

  mutable std::mutex mutex_{};
  std::condition_variable changed_{};
  std::vector<std::shared_ptr<Part>> parts_{};
  std::vector<std::unique_ptr<Part>> gone_{};  // to be destroyed on the loop; each holds this engine
  std::atomic<bool> closing_{false};
  bool loop_ended_ = false;
  bool report_ready_ = false;
  CloseReport report_{};
  std::size_t parts_open_ = 0;   // loop, while closing
  TimePoint close_deadline_{};
};

/// What public handles share: its destruction closes the client.
class ClientCore {
 public:
  explicit ClientCore(std::shared_ptr<Engine> engine) : engine_{std::move(engine)} {}
  ~ClientCore();
  ClientCore(const ClientCore&) = delete;
  ClientCore& operator=(const ClientCore&) = delete;
  [[nodiscard]] const std::shared_ptr<Engine>& engine() const { return engine_; }

 private:
  std::shared_ptr<Engine> engine_;
};

}  // namespace tailrace::inline v1::detail
