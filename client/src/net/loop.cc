#include "src/net/loop.h"

#include <asio/post.hpp>
#include <asio/steady_timer.hpp>

#include "src/net/loop_impl.h"

namespace tailrace::inline v1::detail {

Loop::Loop() : impl_{std::make_unique<Impl>()} {}
Loop::~Loop() = default;

void Loop::run() {
  impl_->thread.store(std::this_thread::get_id());
  impl_->context.run();
  // What was posted before the stop still runs: somebody may be waiting for it, and it may hold what holds this loop.
  impl_->context.restart();
  impl_->context.poll();
}
void Loop::stop() { impl_->context.stop(); }
void Loop::post(std::move_only_function<void()> function) {
  asio::post(impl_->context, [f = std::move(function)]() mutable { f(); });
}
bool Loop::on_loop_thread() const { return impl_->thread.load() == std::this_thread::get_id(); }

struct LoopTimer::Impl {
  explicit Impl(asio::io_context& context) : timer{context} {}
  asio::steady_timer timer;
  std::move_only_function<void()> function{};
  std::uint64_t arming = 0;  // a callback of an earlier arming may already be queued when the timer is armed anew
};

LoopTimer::LoopTimer(Loop& loop) : impl_{std::make_shared<Impl>(loop.impl().context)} {}
LoopTimer::~LoopTimer() { cancel(); }

void LoopTimer::arm(TimePoint at, std::move_only_function<void()> function) {
  impl_->function = std::move(function);
  std::uint64_t arming = ++impl_->arming;
  impl_->timer.expires_at(at);
  impl_->timer.async_wait([weak = std::weak_ptr<Impl>(impl_), arming](std::error_code error) {
    auto self = weak.lock();
    if (error || !self || self->arming != arming || !self->function) return;
    auto function = std::exchange(self->function, nullptr);
    function();
  });
}
void LoopTimer::cancel() {
  ++impl_->arming;
  impl_->function = nullptr;
  impl_->timer.cancel();
}
bool LoopTimer::armed() const { return static_cast<bool>(impl_->function); }

}  // namespace tailrace::inline v1::detail
