#include "src/engine.h"

#include <algorithm>
#include <thread>

namespace tailrace::inline v1::detail {
namespace {
/// The loop gives up a little before the caller does, so that the report is there when the caller's deadline comes.
Milliseconds margin(Milliseconds deadline) { return std::clamp(deadline / 10, Milliseconds{1}, Milliseconds{100}); }
}  // namespace

Engine::Engine(ClientOptions options, std::vector<Server> servers, std::shared_ptr<Callbacks> callbacks)
    : options_{std::move(options)}, callbacks_{std::move(callbacks)}, budget_{options_.memory_limit},
      link_{loop_, options_, std::move(servers), [this](ClientEvent e) { event(std::move(e)); }}, close_timer_{loop_} {}
Engine::~Engine() = default;

std::shared_ptr<Engine> Engine::start(ClientOptions options, std::vector<Server> servers) {
  std::function<void(std::string)> failed;
  if (options.on_event) {
    // The handler itself may be what throws: its failures are not reported to it again.
    failed = [handler = options.on_event, reporting = std::make_shared<std::atomic<bool>>(false)](std::string why) {
      if (reporting->exchange(true)) return;
      try {
        handler({ClientEvent::Level::warn, ClientEvent::Kind::callback_failed, std::move(why)});
      } catch (...) {
        // A handler that throws while it is told about an exception gets no third chance.
      }
      reporting->store(false);
    };
  }
  auto callbacks = std::make_shared<Callbacks>(options.callbacks, std::move(failed));
  auto self = std::make_shared<Engine>(std::move(options), std::move(servers), callbacks);
  callbacks->when_drained([weak = std::weak_ptr<Engine>(self)] {
    if (auto engine = weak.lock()) engine->budget_.wake();
  });
  callbacks->start();
  self->loop_.post([engine = self.get()] { engine->link_.start(); });
  std::thread([self] {
    self->loop_.run();
    std::vector<std::unique_ptr<Part>> gone;
    {
      std::lock_guard lock{self->mutex_};
      self->loop_ended_ = true;
      gone.swap(self->gone_);
      self->changed_.notify_all();
    }
  }).detach();
  return self;
}

void Engine::event(ClientEvent event) {
  if (!options_.on_event || callbacks_->backlog() > kEventBacklogMax) return;
  callbacks_->post([handler = options_.on_event, event = std::move(event)] { handler(event); });
}

bool Engine::post(std::move_only_function<void()> function) {
  std::lock_guard lock{mutex_};
  if (report_ready_) return false;
  loop_.post(std::move(function));
  return true;
}

void Engine::add(std::shared_ptr<Part> part) {
  std::lock_guard lock{mutex_};
  parts_.push_back(std::move(part));
}
void Engine::remove(const Part* part) {
  std::shared_ptr<Part> last;  // destroyed outside the lock
  std::lock_guard lock{mutex_};
  auto at = std::ranges::find_if(parts_, [&](const auto& p) { return p.get() == part; });
  if (at == parts_.end()) return;
  last = std::move(*at);
  parts_.erase(at);
}

void Engine::bury(std::unique_ptr<Part> part) {
  // The part holds this engine, so the engine lives until the part is destroyed, and may go with it.
  {
    std::lock_guard lock{mutex_};
    if (!loop_ended_) {
      bool first = gone_.empty();
      gone_.push_back(std::move(part));
      if (first) {
        loop_.post([this] {
          std::vector<std::unique_ptr<Part>> gone;
          std::lock_guard inside{mutex_};
          gone.swap(gone_);
        });
      }
      return;
    }
  }
  part.reset();  // no handler of the loop runs any more
}

CloseReport Engine::close(Milliseconds deadline) {
  auto now = Clock::now();
  auto give_up = now + deadline;
  closing_.store(true);
  post([weak = weak_from_this(), at = give_up - margin(deadline)] {
    if (auto self = weak.lock()) self->begin_close(at);
  });
  budget_.wake();
  CloseReport unfinished{.undelivered = 0, .unknown = 0, .finished = false};
  if (must_not_wait()) return unfinished;
  bool ended = false;
  CloseReport report;
  {
    std::unique_lock lock{mutex_};
    ended = changed_.wait_until(lock, give_up, [&] { return report_ready_ && loop_ended_; });
    report = report_ready_ ? report_ : unfinished;
  }
  bool drained = callbacks_->join(give_up);
  report.finished = ended && drained;
  return report;
}

void Engine::begin_close(TimePoint deadline) {
  if (report_ready_) return;
  if (close_deadline_ != TimePoint{}) {  // called again: the earlier deadline holds
    if (deadline >= close_deadline_) return;
  }
  bool first = close_deadline_ == TimePoint{};
  close_deadline_ = deadline;
  std::vector<std::shared_ptr<Part>> parts;
  {
    std::lock_guard lock{mutex_};
    parts = parts_;
  }
  if (first) parts_open_ = parts.size();
  if (first && parts.empty()) return parts_closed();
  for (auto& part : parts) {
    std::function<void(CloseReport)> done;
    if (first) {
      done = [this, part = part.get()](CloseReport report) {
        {
          std::lock_guard lock{mutex_};
          report_.undelivered += report.undelivered;
          report_.unknown += report.unknown;
        }
        if (--parts_open_ == 0) parts_closed();
      };
    }
    part->begin_close(deadline, std::move(done));
  }
}

void Engine::parts_closed() {
  // The goodbye gets whatever time is left, but not more than a moment: nothing depends on it any more.
  auto until = std::min(close_deadline_ + Milliseconds{1}, Clock::now() + Milliseconds{200});
  link_.stop(std::max(until, Clock::now() + Milliseconds{1}), [this] { finish(); });
}

void Engine::finish() {
  event({ClientEvent::Level::info, ClientEvent::Kind::closed, "closed"});
  callbacks_->stop();
  std::vector<std::shared_ptr<Part>> parts;
  {
    std::lock_guard lock{mutex_};
    report_ready_ = true;
    parts.swap(parts_);
    changed_.notify_all();
  }
  loop_.stop();
}

CloseReport Engine::close_part(const std::shared_ptr<Part>& part, Milliseconds deadline) {
  auto give_up = Clock::now() + deadline;
  struct Waiter {
    std::mutex mutex{};
    std::condition_variable changed{};
    std::optional<CloseReport> report{};
  };
  auto waiter = std::make_shared<Waiter>();
  bool posted = post([part, at = give_up - margin(deadline), waiter] {
    part->begin_close(at, [waiter](CloseReport report) {
      std::lock_guard lock{waiter->mutex};
      waiter->report = report;
      waiter->changed.notify_all();
    });
  });
  budget_.wake();
  if (!posted) return {};
  CloseReport unfinished{.undelivered = 0, .unknown = 0, .finished = false};
  if (must_not_wait()) return unfinished;
  std::unique_lock lock{waiter->mutex};
  waiter->changed.wait_until(lock, give_up, [&] { return waiter->report.has_value(); });
  return waiter->report.value_or(unfinished);
}

ClientCore::~ClientCore() {
  if (engine_->closing()) {
    engine_->close(Milliseconds{5'000});  // waits for an earlier close() that is still under way, unless inside a callback
    return;
  }
  auto report = engine_->close(Milliseconds{5'000});
  if (report.undelivered + report.unknown > 0) {
    engine_->event({ClientEvent::Level::warn, ClientEvent::Kind::closed,
                    "the client was destroyed with " + std::to_string(report.undelivered) + " records undelivered and " +
                        std::to_string(report.unknown) + " of unknown outcome"});
  }
}

}  // namespace tailrace::inline v1::detail
