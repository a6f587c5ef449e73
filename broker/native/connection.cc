// Reading, deadlines, and how a connection ends. What the frames mean: connection_requests.cc.
#include "native/connection.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "io/file.h"

namespace tailrace::broker::native {
namespace {

constexpr Duration kEndDeadline = 2s;         // for the last error to reach a client that does not read
constexpr Duration kDrainGrace = 500ms;       // after the last answer, for the client to close first
// While others wait for memory: how long a half-read frame or a write may take, and how fast it must move beyond that.
constexpr Duration kStallMax = 2s;
constexpr std::uint64_t kStallBytesPerSecond = 256 * limits::kKiB;

/// Holds nothing once it is handled.
bool is_slight(const FrameReader::Frame& frame) {
  using enum proto::FrameType;
  auto type = frame.header.type;
  return (type == credit || type == ping || type == pong || type == goodbye) && frame.control.size() <= limits::kKiB;
}

}  // namespace

Connection::Connection(Front& front, std::unique_ptr<io::Stream> stream)
    : front_{front}, stream_{std::move(stream)}, peer_{stream_->peer()}, wire_{*stream_, front.runtime(), front.service().memory().pool(flow::Pool::replies)},
      idle_timeout_{front.options().idle_timeout}, reader_wake_{front.runtime().executor}, call_ended_{front.runtime().executor}, memory_wait_{*this}, alarm_{*this} {
  alarm_.fire = [](io::Timer* timer) noexcept { static_cast<Alarm*>(timer)->connection.on_alarm(); };
  memory_wait_.granted = [](flow::MemoryPool::Waiter* waiter, Result<flow::Reservation> outcome) noexcept {
    Connection& connection = static_cast<MemoryWait*>(waiter)->connection;
    if (outcome) connection.memory_wait_.held = *std::move(outcome);
    connection.memory_wait_.pool = nullptr;
    connection.reader_wake_.notify_all();
  };
  wire_.on_written = [this] { when_written(); };
}

Connection::~Connection() { front_.runtime().timers.disarm(alarm_); }

Task<void> Connection::run() {
  last_frame_ = now();
  greeted_by_ = last_frame_ + limits::kHelloDeadline;
  scope_.spawn(wire_.write_loop());
  if (front_.draining()) drain();
  arm();
  co_await read_loop();
  held_ = Held{};
  receiving_ = Held{};
  frame_began_.reset();
  stop_subscriptions();
  while (calls_ > 0) co_await call_ended_.wait();
  wire_.finish();
  if (!end_by_) end_by_ = now() + kEndDeadline;
  arm();
  co_await scope_.drain();
}

Task<void> Connection::read_loop() {
  for (;;) {
    bool go_on = co_await take_frames();
    if (!go_on) co_return;
    if (!reader_.in_frame()) {
      frame_began_.reset();
    } else if (!frame_began_) {
      frame_began_ = now();
      arm();
    }
    MutableBytes space = reader_.space();
    std::int64_t count = co_await io::FileOp{[&](io::Operation& op) { stream_->read_some(op, space); }};
    if (count <= 0) {
      // The end of its side is a goodbye; a broken stream can take no answers either.
      if (count < 0) wire_.cut();
      if (state_ != State::ending) state_ = State::leaving;
      co_return;
    }
    bytes_in_ += static_cast<std::uint64_t>(count);
    reader_.received(static_cast<std::size_t>(count));
  }
}

Task<bool> Connection::take_frames() {
  while (reading()) {
    switch (reader_.next()) {
      case FrameReader::Step::need_bytes: co_return reading();
      case FrameReader::Step::bad:
        ++front_.count().connections_garbage;
        front_.log_garbage(peer_, fmt::format("not a frame of this protocol: {}", reader_.bad_reason()));
        if (state_ == State::greeting) {
          wire_.cut();  // whoever that is does not speak our language
        } else {
          end(Errc::protocol, std::string{reader_.bad_reason()});
        }
        co_return false;
      case FrameReader::Step::large: {
        std::optional<std::uint64_t> bytes = judge_large(reader_.large_header());
        if (!bytes) {
          reader_.discard_payload();
          break;
        }
        std::uint64_t half_read = std::min(*bytes, front_.service().memory().pool(flow::Pool::receiving).limit());
        if (!try_reserve(flow::Pool::receiving, half_read, receiving_)) {
          bool held = co_await reserve(flow::Pool::receiving, half_read, receiving_);
          if (!held) co_return false;
        }
        if (!try_reserve(flow::Pool::requests, *bytes, held_)) {
          bool held = co_await reserve(flow::Pool::requests, *bytes, held_);
          if (!held) co_return false;
        }
        reader_.admit();
        break;
      }
      case FrameReader::Step::frame: {
        const Frame& frame = reader_.frame();
        ++frames_in_;
        last_frame_ = now();
        if (frame_began_) frame_began_ = last_frame_;  // the next frame's time begins here
        receiving_ = Held{};
        bool publish = frame.header.type == proto::FrameType::publish;
        if (!(held_ && publish) && state_ != State::greeting && !is_slight(frame)) {
          // A parsed message is larger than its bytes; one pool's half is the most one call may take.
          std::uint64_t bytes = kCallBytes + (publish ? frame.payload.size() : frame.control.size() * kParsedBytesPerWireByte);
          flow::Pool pool = publish ? flow::Pool::requests : flow::Pool::control;
          bytes = std::min(bytes, front_.service().memory().pool(pool).limit() / 2);
          if (!try_reserve(pool, bytes, held_)) {
            bool held = co_await reserve(pool, bytes, held_);
            if (!held) co_return false;
          }
        }
        on_frame(frame);
        held_ = Held{};
        if (must_pause()) {
          bool go_on = co_await pause();
          if (!go_on) co_return false;
        }
        break;
      }
    }
  }
  co_return false;
}

bool Connection::must_pause() const {
  return calls_ >= limits::kCallsInFlightPerConnectionMax || unanswered_ >= limits::kCallsInFlightPerConnectionMax || large_answers_ >= kLargeAnswersMax || wire_.full() || wire_.crowded();
}

Task<bool> Connection::pause() {
  ++front_.count().reader_pauses;
  frame_began_.reset();  // it is us who do not read
  while (must_pause() && reading()) co_await reader_wake_.wait();
  co_return reading();
}

bool Connection::try_reserve(flow::Pool pool, std::uint64_t bytes, Held& held) {
  Result<Held> taken = front_.service().memory().pool(pool).try_reserve(bytes);
  if (!taken) return false;
  held = *std::move(taken);
  return true;
}

Task<bool> Connection::reserve(flow::Pool which, std::uint64_t bytes, Held& held) {
  ++front_.count().reader_pauses;
  frame_began_.reset();
  flow::MemoryPool& pool = front_.service().memory().pool(which);
  memory_wait_.bytes = bytes;
  memory_wait_.pool = &pool;
  if (Result<void> queued = pool.wait(memory_wait_); !queued) {
    memory_wait_.pool = nullptr;
    end(queued.error().code, fmt::format("no memory for a frame of {} bytes", bytes));
    co_return false;
  }
  while (memory_wait_.pool && reading()) co_await reader_wake_.wait();
  if (memory_wait_.pool) {
    pool.remove(memory_wait_);
    memory_wait_.pool = nullptr;
    co_return false;
  }
  held = std::exchange(memory_wait_.held, Held{});
  if (!held) {
    end(Errc::shutting_down, "");
    co_return false;
  }
  co_return reading();
}

void Connection::end(Errc code, std::string detail) {
  if (state_ == State::ending) return;
  wire_.send_error(0, service::Refusal{code, std::move(detail)});
  state_ = State::ending;
  stop_subscriptions();
  end_by_ = now() + kEndDeadline;
  wire_.finish();  // ends the read as well, once the error is sent
  reader_wake_.notify_all();
  arm();
}

void Connection::cut() {
  wire_.cut();
  stop_subscriptions();
  reader_wake_.notify_all();
}

void Connection::cut_if_stalled(std::size_t waiting) {
  std::size_t own = std::size_t{wire_.waits_for_memory()} + std::size_t{answer_waits_} + std::size_t{memory_wait_.pool != nullptr};
  if (waiting <= own) return;
  auto stalled = [&](Instant since, std::uint64_t bytes) {
    return now() >= since + kStallMax + std::chrono::milliseconds{bytes * 1'000 / kStallBytesPerSecond};
  };
  bool reads_none = wire_.writing_since() && stalled(*wire_.writing_since(), std::min(wire_.outbox().unsent_bytes(), Outbox::kBytesPerWriteMax));
  bool sends_none = receiving_ && frame_began_ && stalled(*frame_began_, receiving_.bytes());
  if (!reads_none && !sends_none) return;
  ++front_.count().closed_stalled;
  front_.log_garbage(peer_, reads_none ? "does not read, and others wait for the memory of its answers"
                                       : "does not finish its frame, and others wait for the memory");
  cut();
}

void Connection::drain() {
  if (state_ == State::leaving || state_ == State::ending) return;
  proto::Goodbye goodbye;
  goodbye.set_code(static_cast<std::uint32_t>(Errc::shutting_down));
  goodbye.set_reason("the broker is stopping");
  stop_subscriptions();
  wire_.send(proto::FrameType::goodbye, 0, goodbye);
  state_ = State::draining;
  finish_draining_if_done();
}

void Connection::stop_subscriptions() {
  for (auto& [id, subscription] : subscriptions_) subscription->stop();
  subscriptions_.clear();
}

void Connection::after_call() {
  --calls_;
  call_ended_.notify_all();
  reader_wake_.notify_all();
  finish_draining_if_done();
}

void Connection::when_written() {
  reader_wake_.notify_all();
  if (!wire_.full()) {
    for (auto& [id, subscription] : subscriptions_) subscription->room();
  }
  finish_draining_if_done();
}

void Connection::finish_draining_if_done() {
  if (state_ != State::draining || calls_ > 0 || !wire_.flushed() || end_by_) return;
  end_by_ = now() + kDrainGrace;
  arm();
}

Instant Connection::next_due() const {
  Instant due = last_frame_ + idle_timeout_;
  if (state_ == State::greeting) due = std::min(due, greeted_by_);
  if (frame_began_) due = std::min(due, *frame_began_ + limits::kFrameDeadline);
  if (auto since = wire_.writing_since()) due = std::min(due, *since + idle_timeout_);
  if (end_by_) due = *end_by_;
  return due;
}

void Connection::arm() {
  Instant due = next_due();
  if (alarm_.place == io::Timer::kIdle || due < alarm_.due) front_.runtime().timers.arm(alarm_, due);
}

void Connection::on_alarm() {
  if (wire_.broken()) return;  // on its way out
  Instant time = now();
  if (end_by_ && time >= *end_by_) return cut();
  if (!end_by_) {
    if (state_ == State::greeting && time >= greeted_by_) {
      ++front_.count().closed_hello;
      front_.log_garbage(peer_, "no hello within 10 s");
      return cut();
    }
    if (frame_began_ && time >= *frame_began_ + limits::kFrameDeadline) {
      ++front_.count().closed_frame;
      front_.log_garbage(peer_, "a frame was not complete within 30 s");
      return end(Errc::timeout, "a frame was not complete within 30 s");
    }
    if (auto since = wire_.writing_since(); since && time >= *since + idle_timeout_) {
      ++front_.count().closed_write;
      front_.log_garbage(peer_, "the client does not read");
      return cut();
    }
    // A call that takes long is not silence, and neither is a pause that we impose.
    if (time >= last_frame_ + idle_timeout_) {
      if (calls_ == 0 && !must_pause()) {
        ++front_.count().closed_idle;
        return end(Errc::timeout, fmt::format("nothing was sent for {} s", std::chrono::duration_cast<std::chrono::seconds>(idle_timeout_).count()));
      }
      last_frame_ = time;
    }
  }
  arm();
}

}  // namespace tailrace::broker::native
