#include "queue/queue.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "base/planted.h"
#include "model/limits.h"

namespace tailrace::broker::queue {
namespace {

constexpr std::uint16_t kSnapshotVersion = 1;
constexpr std::size_t kLiveBytes = 8 + 1 + 1 + 4 + 8 + 8 + 8;

}  // namespace

Result<void> check(const QueueOptions& o) {
  auto wrong = [](std::string what) { return fail(Errc::invalid_argument, std::move(what)); };
  if (o.attempts_max < 1 || o.attempts_max > limits::kQueueAttemptsMax) return wrong(fmt::format("attempts_max: 1 to {}, not {}", limits::kQueueAttemptsMax, o.attempts_max));
  if (o.lease_ms < 1'000 || o.lease_ms > limits::kQueueDelayMsMax) return wrong(fmt::format("lease: 1 s to a week, not {} ms", o.lease_ms));
  if (o.backoff_min_ms < 0 || o.backoff_max_ms < o.backoff_min_ms || o.backoff_max_ms > limits::kQueueDelayMsMax) return wrong("backoff: from 0 to a week, and not above its cap");
  if (o.live_max < 1 || o.live_max > limits::kQueueLiveMax) return wrong(fmt::format("live records: 1 to {}, not {}", limits::kQueueLiveMax, o.live_max));
  return {};
}

Result<std::pair<std::uint32_t, Reason>> Queue::attempts(Offset offset) const {
  auto found = live_.find(offset);
  if (found == live_.end()) return fail(Errc::not_found, "settled, or never delivered");
  return std::pair{found->second.attempts, found->second.reason};
}

TimeMs Queue::backoff(std::uint32_t attempts) const {
  TimeMs wait = options_.backoff_min_ms;
  for (std::uint32_t i = 1; i < attempts && wait < options_.backoff_max_ms; ++i) wait *= 2;
  return std::min(wait, options_.backoff_max_ms);
}

/// The dead-letter topic's producer window remembers five: no more moves may be under way (docs/queues.md, "Dead letters").
bool Queue::may_condemn() const { return condemned_.size() < limits::kDeadLettersPendingMax; }

Event Queue::now_happens(Event event) {
  auto done = apply(event);
  TAILRACE_CHECK(done.has_value(), "what is decided here can happen");
  return event;
}

std::vector<Event> Queue::deliver(WorkerId worker, std::size_t credit, std::span<const Waiting> log, TimeMs now) {
  std::vector<Event> out;
  TimeMs until = now + options_.lease_ms;
  auto attempt = [&](Offset offset, const Live& live) {
    out.push_back(now_happens(Attempted{offset, live.attempts + 1, worker, until, live.key}));
    --credit;
  };
  // What is due comes first: it is older, and it may be in the way of its key.
  std::vector<Offset> stuck;
  while (!due_.empty() && due_.begin()->first <= now) {
    Offset offset = due_.begin()->second;
    const Live& live = live_.at(offset);
    if (live.attempts >= options_.attempts_max) {
      if (!may_condemn()) {
        // It waits for room; the others do not wait for it.
        stuck.push_back(offset);
        due_.erase(due_.begin());
        continue;
      }
      out.push_back(now_happens(Condemned{offset, Reason::attempts}));
      continue;
    }
    if (credit == 0) break;
    attempt(offset, live);
  }
  for (Offset offset : stuck) due_.insert({live_.at(offset).until, offset});
  while (credit > 0 && !ready_.empty()) attempt(*ready_.begin(), live_.at(*ready_.begin()));
  for (const Waiting& record : log) {
    if ((credit == 0 && !planted(PlantedBug::queue_past_credit)) || live_.size() >= options_.live_max) break;
    if (record.offset < next_) continue;
    bool blocked = orders(record.key) && of_key_.contains(record.key) && !planted(PlantedBug::queue_key_order);
    if (blocked) {
      out.push_back(now_happens(Held{record.offset, record.key}));
      continue;
    }
    Live fresh;
    fresh.key = record.key;
    if (credit == 0) ++credit;
    attempt(record.offset, fresh);
  }
  return out;
}

Result<Queue::Lives::iterator> Queue::leased(WorkerId worker, Offset offset, std::uint32_t attempt, TimeMs now) {
  auto found = live_.find(offset);
  if (found == live_.end() || found->second.attempts == 0) return fail(Errc::not_found, "settled already, or never delivered");
  const Live& live = found->second;
  if (live.state != State::leased || live.attempts != attempt || live.worker != worker) return fail(Errc::fenced, fmt::format("attempt {} of offset {} has ended", attempt, offset.value()));
  if (live.until <= now) return fail(Errc::fenced, "the lease has ended");
  return found;
}

Result<Event> Queue::ack(WorkerId worker, Offset offset, std::uint32_t attempt, TimeMs now) {
  TAILRACE_TRY_VOID(leased(worker, offset, attempt, now));
  return now_happens(Acked{offset});
}

Result<Event> Queue::retry(WorkerId worker, Offset offset, std::uint32_t attempt, std::optional<TimeMs> delay_ms, TimeMs now) {
  TAILRACE_TRY(auto at, leased(worker, offset, attempt, now));
  if (delay_ms && (*delay_ms < 0 || *delay_ms > limits::kQueueDelayMsMax)) return fail(Errc::invalid_argument, "delay");
  if (at->second.attempts >= options_.attempts_max) {
    if (!may_condemn()) return fail(Errc::no_credit, "dead letters are pending");
    return now_happens(Condemned{offset, Reason::attempts});
  }
  return now_happens(Delayed{offset, now + delay_ms.value_or(backoff(at->second.attempts))});
}

Result<Event> Queue::reject(WorkerId worker, Offset offset, std::uint32_t attempt, TimeMs now) {
  TAILRACE_TRY_VOID(leased(worker, offset, attempt, now));
  if (!may_condemn()) return fail(Errc::no_credit, "dead letters are pending");
  return now_happens(Condemned{offset, Reason::rejected});
}

Result<Event> Queue::extend(WorkerId worker, Offset offset, std::uint32_t attempt, TimeMs by_ms, TimeMs now) {
  TAILRACE_TRY_VOID(leased(worker, offset, attempt, now));
  if (by_ms <= 0 || by_ms > limits::kQueueDelayMsMax) return fail(Errc::invalid_argument, "extension");
  return now_happens(Extended{offset, now + by_ms});
}

Result<Event> Queue::buried(Offset offset) {
  if (!condemned_.contains(offset)) return fail(Errc::not_found, "it is not on its way");
  return now_happens(Buried{offset});
}

Queue::Retired Queue::retire(Offset before) {
  Retired out;
  std::vector<std::pair<Offset, bool>> below;
  for (auto at = live_.begin(); at != live_.end() && at->first < before; ++at) {
    if (at->second.state != State::condemned) below.emplace_back(at->first, at->second.attempts > 0);
  }
  for (auto [offset, delivered] : below) {
    if (!delivered) out.events.push_back(now_happens(Expired{offset, offset + 1}));
    else if (may_condemn()) out.events.push_back(now_happens(Condemned{offset, Reason::retention}));
  }
  if (next_ < before) out.events.push_back(now_happens(Expired{next_, before}));
  out.deletable = live_.empty() ? before : std::min(before, live_.begin()->first);
  return out;
}

void Queue::leave_state(Lives::iterator at) {
  const Live& live = at->second;
  if (live.state == State::leased || live.state == State::delayed) due_.erase({live.until, at->first});
  if (live.state == State::held) ready_.erase(at->first);
  if (live.state == State::condemned) condemned_.erase(at->first);
}

void Queue::enter(Lives::iterator at, State state, TimeMs until) {
  leave_state(at);
  at->second.state = state;
  at->second.until = until;
  if (state == State::leased || state == State::delayed) due_.insert({until, at->first});
  if (state == State::condemned) condemned_.insert(at->first);
}

void Queue::settle(Lives::iterator at) {
  leave_state(at);
  KeyHash key = at->second.key;
  Offset offset = at->first;
  live_.erase(at);
  if (!orders(key)) return;
  auto found = of_key_.find(key);
  std::deque<Offset>& waiting = found->second;
  bool first = waiting.front() == offset;
  waiting.erase(std::ranges::find(waiting, offset));
  if (waiting.empty()) {
    of_key_.erase(found);
  } else if (first && live_.at(waiting.front()).state == State::held) {
    ready_.insert(waiting.front());
  }
}

Result<void> Queue::apply(const Event& event) {
  auto cannot = [](std::string_view what) { return fail(Errc::corrupt, fmt::format("queue event: {}", what)); };
  auto fresh = [&](Offset offset, KeyHash key) {
    auto at = live_.emplace(offset, Live{.key = key}).first;
    if (orders(key)) of_key_[key].push_back(offset);
    next_ = offset + 1;
    return at;
  };
  if (const auto* e = std::get_if<Attempted>(&event)) {
    auto at = live_.find(e->offset);
    if (at == live_.end()) {
      if (e->offset < next_ || e->attempt != 1) return cannot("an attempt at what is settled");
      at = fresh(e->offset, e->key);
    } else if (at->second.state == State::condemned || e->attempt != at->second.attempts + 1) {
      return cannot("an attempt out of order");
    }
    at->second.attempts = planted(PlantedBug::queue_forget_attempts) ? 1 : e->attempt;
    at->second.worker = e->worker;
    enter(at, State::leased, e->until);
    ++counters_.attempts;
    return {};
  }
  if (const auto* e = std::get_if<Held>(&event)) {
    if (e->offset < next_) return cannot("held, and not new");
    (void)fresh(e->offset, e->key);
    return {};
  }
  if (const auto* e = std::get_if<Expired>(&event)) {
    if (e->from < next_) {
      auto at = live_.find(e->from);
      if (at == live_.end() || at->second.state != State::held || e->to != e->from + 1) return cannot("expired, and not held");
      settle(at);
      ++counters_.expired;
      return {};
    }
    if (e->from != next_ || e->to <= e->from) return cannot("expired out of order");
    counters_.expired += static_cast<std::uint64_t>(e->to - e->from);
    next_ = e->to;
    return {};
  }
  Offset offset = std::visit([](const auto& e) { if constexpr (requires { e.offset; }) return e.offset; else return e.from; }, event);
  auto at = live_.find(offset);
  if (at == live_.end()) return cannot("of a record that is not here");
  bool is_leased = at->second.state == State::leased;
  if (std::holds_alternative<Acked>(event)) {
    if (!is_leased) return cannot("acked without a lease");
    settle(at);
    ++counters_.acked;
  } else if (const auto* e = std::get_if<Delayed>(&event)) {
    if (!is_leased) return cannot("delayed without a lease");
    enter(at, State::delayed, e->until);
  } else if (const auto* e = std::get_if<Extended>(&event)) {
    if (!is_leased) return cannot("extended without a lease");
    enter(at, State::leased, e->until);
  } else if (const auto* e = std::get_if<Condemned>(&event)) {
    if (at->second.attempts == 0 || at->second.state == State::condemned) return cannot("condemned without a delivery, or twice");
    at->second.reason = e->reason;
    enter(at, State::condemned, 0);
  } else {
    if (at->second.state != State::condemned) return cannot("buried alive");
    if (!planted(PlantedBug::queue_double_dead_letter)) settle(at);
    ++counters_.buried;
  }
  return {};
}

std::vector<std::byte> Queue::snapshot() const {
  std::vector<std::byte> out;
  auto put = [&](auto value) {
    std::size_t at = out.size();
    out.resize(at + sizeof(value));
    store_le(out.data() + at, value);
  };
  put(kSnapshotVersion);
  put(next_.value());
  for (std::uint64_t counter : {counters_.acked, counters_.buried, counters_.expired, counters_.attempts}) put(counter);
  put(static_cast<std::uint32_t>(live_.size()));
  for (const auto& [offset, live] : live_) {
    if (planted(PlantedBug::queue_snapshot_loses_delayed) && live.state == State::delayed) {
      put(offset.value());
      put(static_cast<std::uint8_t>(State::leased));
    } else {
      put(offset.value());
      put(static_cast<std::uint8_t>(live.state));
    }
    put(static_cast<std::uint8_t>(live.reason));
    put(live.attempts);
    put(live.until);
    put(live.worker);
    put(live.key);
  }
  return out;
}

Result<void> Queue::load(Bytes bytes) {
  ByteReader in{bytes};
  auto version = in.le<std::uint16_t>();
  if (!in.ok()) return fail(Errc::corrupt, "queue snapshot: empty");
  if (version > kSnapshotVersion) return fail(Errc::newer_format, "queue snapshot");
  Queue loaded{options_, Offset{in.le<std::int64_t>()}};
  for (std::uint64_t* counter : {&loaded.counters_.acked, &loaded.counters_.buried, &loaded.counters_.expired, &loaded.counters_.attempts}) *counter = in.le<std::uint64_t>();
  auto count = in.le<std::uint32_t>();
  if (!in.ok() || version != kSnapshotVersion || count > in.remaining() / kLiveBytes || loaded.next_ < Offset{0}) return fail(Errc::corrupt, "queue snapshot: header");
  for (std::uint32_t i = 0; i < count; ++i) {
    Offset offset{in.le<std::int64_t>()};
    auto state = in.le<std::uint8_t>();
    auto reason = in.le<std::uint8_t>();
    Live live;
    live.attempts = in.le<std::uint32_t>();
    live.until = in.le<std::int64_t>();
    live.worker = in.le<std::uint64_t>();
    live.key = in.le<std::uint64_t>();
    bool ordered = loaded.live_.empty() || offset > loaded.live_.rbegin()->first;
    bool sane = state <= static_cast<std::uint8_t>(State::condemned) && reason <= static_cast<std::uint8_t>(Reason::retention) && ordered && offset < loaded.next_ && offset >= Offset{0};
    if (!sane || (static_cast<State>(state) == State::held) != (live.attempts == 0)) return fail(Errc::corrupt, "queue snapshot: record");
    live.reason = static_cast<Reason>(reason);
    auto at = loaded.live_.emplace(offset, live).first;
    if (loaded.orders(live.key)) loaded.of_key_[live.key].push_back(offset);
    bool first = !loaded.orders(live.key) || loaded.of_key_[live.key].front() == offset;
    at->second.state = State::held;
    if (static_cast<State>(state) == State::held && first) loaded.ready_.insert(offset);
    if (static_cast<State>(state) != State::held) loaded.enter(at, static_cast<State>(state), live.until);
  }
  if (in.remaining() != 0) return fail(Errc::corrupt, "queue snapshot: longer than its count");
  *this = std::move(loaded);
  return {};
}

std::optional<TimeMs> Queue::due() const {
  if (due_.empty()) return std::nullopt;
  return due_.begin()->first;
}

Standstill Queue::standstill(bool more_in_log, TimeMs now) const {
  using Why = Standstill::Why;
  if (!due_.empty() && due_.begin()->first <= now && !may_condemn()) return {Why::dead_letters_pending, *condemned_.begin(), 0, 0};
  if (more_in_log && live_.size() >= options_.live_max) return {Why::live_limit, live_.begin()->first, 0, 0};
  if (!due_.empty()) {
    Offset offset = due_.begin()->second;
    const Live& live = live_.at(offset);
    bool blocks = orders(live.key) && of_key_.at(live.key).size() > 1;
    if (blocks) return {Why::key_blocked, offset, live.worker, live.until};
    return {live.state == State::leased ? Why::leased : Why::delayed, offset, live.state == State::leased ? live.worker : 0, live.until};
  }
  if (!condemned_.empty()) return {Why::dead_letters_pending, *condemned_.begin(), 0, 0};
  return {Why::end_of_log, next_, 0, 0};
}

void Queue::check_invariants() const {
  TAILRACE_CHECK(live_.empty() || live_.rbegin()->first < next_, "what is live was begun");
  std::size_t timed = 0, condemned = 0;
  for (const auto& [offset, live] : live_) {
    bool waits = live.state == State::leased || live.state == State::delayed;
    timed += waits ? 1 : 0;
    condemned += live.state == State::condemned ? 1 : 0;
    TAILRACE_CHECK(!waits || due_.contains({live.until, offset}), "what waits becomes due");
    TAILRACE_CHECK(live.state == State::held || live.attempts > 0, "what was not delivered is held");
    if (!orders(live.key)) continue;
    const std::deque<Offset>& all = of_key_.at(live.key);
    TAILRACE_CHECK(live.state == State::held || all.front() == offset || live.state == State::condemned, "of one key the first is at work");
    TAILRACE_CHECK(live.state != State::held || ready_.contains(offset) == (all.front() == offset), "who is first of its key is ready");
  }
  TAILRACE_CHECK(timed == due_.size() && condemned == condemned_.size(), "nobody is listed who is not there");
}

bool operator==(const Queue& a, const Queue& b) {
  return a.next_ == b.next_ && a.live_ == b.live_ && a.due_ == b.due_ && a.ready_ == b.ready_ && a.condemned_ == b.condemned_ && a.of_key_ == b.of_key_ && a.counters_ == b.counters_;
}

}  // namespace tailrace::broker::queue
