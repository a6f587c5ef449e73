#include "tests/support/history_checker.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <tuple>
#include <unordered_map>

namespace tailrace::broker::history {

std::string_view name_of(Rule rule) {
  static constexpr std::array<std::string_view, static_cast<std::size_t>(Rule::count_)> kNames{
      "inconsistent-offset", "duplicate", "lost-write", "unseen", "phantom", "aborted-read", "torn-batch", "int-poll-skip",
      "int-nonmonotonic-poll", "poll-skip", "nonmonotonic-poll", "int-nonmonotonic-send", "nonmonotonic-send",
      "offset-realtime", "stale-tail", "watermark-regress", "replay-differs", "stale", "duplicate-allowed"};
  return kNames[static_cast<std::size_t>(rule)];
}

bool is_fatal(Rule rule) { return rule != Rule::stale && rule != Rule::duplicate_allowed; }

std::uint64_t Verdict::fatal() const {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    if (is_fatal(static_cast<Rule>(i))) sum += counts[i];
  }
  return sum;
}

std::string Verdict::summary() const {
  std::string out = fmt::format("{} events, {} micro-ops, {} acknowledged, {} read: {} fatal", events, micro_ops, acknowledged, read, fatal());
  for (std::size_t i = 0; i < counts.size(); ++i) {
    if (counts[i] > 0) out += fmt::format("\n  {} x {}", name_of(static_cast<Rule>(i)), counts[i]);
  }
  for (const auto& example : examples) out += fmt::format("\n  {}: {}", name_of(example.rule), example.text);
  return out;
}

namespace {

/// What is known of the sends of one value.
struct Sent {
  Value value;
  std::uint32_t event;
  std::uint32_t position;  // among the micro-ops of its event
  std::int64_t offset;
  bool read_ok = false;
};
struct Seen {
  Value value;
  std::int64_t offset;
  std::uint32_t event;
};
struct Evidence {
  std::int64_t offset;
  Value value;
  friend auto operator<=>(const Evidence&, const Evidence&) = default;
};
struct TimedOffset {
  std::int64_t time;
  std::int64_t offset;
};

class Checker {
 public:
  Checker(const History& history, CheckOptions options) : history_{history}, options_{options} {}
  Verdict run();

 private:
  void report(Rule rule, std::string text) {
    if (rule == Rule::duplicate && !options_.duplicates_are_fatal) rule = Rule::duplicate_allowed;
    auto& count = verdict_.counts[static_cast<std::size_t>(rule)];
    if (count++ < options_.examples_per_rule) verdict_.examples.push_back({rule, std::move(text)});
  }
  void load(std::size_t first, std::size_t last);
  void find_committed();
  void order_versions();
  void check_reads();
  void check_losses();
  void check_batches();
  void check_polls();
  void check_sends();
  void check_ends();
  void check_replays();
  /// No crash and no assignment without the key between two events of a process.
  [[nodiscard]] bool keeps_place(std::uint32_t process, std::uint32_t key, std::uint32_t after, std::uint32_t before) const;
  [[nodiscard]] std::size_t index_of(std::int64_t offset) const {
    return static_cast<std::size_t>(std::ranges::lower_bound(offsets_, offset) - offsets_.begin());
  }
  /// The highest log start that any answer invoked before `time` may have seen.
  [[nodiscard]] std::int64_t start_known_by(std::int64_t time) const {
    auto after = std::ranges::upper_bound(starts_, time, {}, &TimedOffset::time);
    return after == starts_.begin() ? kUnknown : std::prev(after)->offset;
  }
  [[nodiscard]] const Event& event(std::uint32_t index) const { return history_.events()[index]; }
  [[nodiscard]] std::string where(std::int64_t offset) const { return fmt::format("{} offset {}", key_name_, offset); }
  /// Is stepping from `from` to `to` (both with evidence) legal at `time`? -1: back or the same, 1: skips a readable record.
  [[nodiscard]] int step(std::int64_t from, std::int64_t to, std::int64_t time) const {
    if (to <= from) return -1;
    std::size_t next = index_of(from) + 1;
    if (next < offsets_.size() && offsets_[next] < to) {
      std::int64_t start = start_known_by(time);
      auto first_readable = std::lower_bound(offsets_.begin() + static_cast<std::ptrdiff_t>(next), offsets_.end(), start);
      if (first_readable != offsets_.end() && *first_readable < to) return 1;
    }
    return 0;
  }

  const History& history_;
  CheckOptions options_;
  Verdict verdict_;
  std::unordered_map<std::uint32_t, std::vector<std::uint32_t>> resets_;  // by process: events of assign and crash
  std::vector<std::uint32_t> by_key_;  // micro-ops, grouped by key, in order
  // Of the key at hand:
  std::string key_name_;
  std::vector<std::uint32_t> ops_;
  std::vector<Sent> sent_;      // by value
  std::vector<Seen> seen_;      // by value
  std::vector<Evidence> evidence_;
  std::vector<std::int64_t> offsets_;
  std::vector<TimedOffset> starts_;  // running maximum, by invocation
  std::int64_t highest_read_ = kUnknown;
  bool drained_ = false;
};

Verdict Checker::run() {
  const auto& ops = history_.ops();
  verdict_.events = history_.events().size();
  verdict_.micro_ops = ops.size();
  // Grouped by key with a counting sort; the order inside a key stays that of the history.
  std::vector<std::size_t> bounds(history_.keys() + 1);
  for (const auto& op : ops) ++bounds[op.key + 1];
  for (std::size_t i = 1; i < bounds.size(); ++i) bounds[i] += bounds[i - 1];
  by_key_.resize(ops.size());
  {
    auto next = bounds;
    for (std::uint32_t i = 0; i < ops.size(); ++i) by_key_[next[ops[i].key]++] = i;
  }
  for (std::uint32_t i = 0; i < history_.events().size(); ++i) {
    Function f = event(i).f;
    if (f == Function::assign || f == Function::crash) resets_[event(i).process].push_back(i);
  }
  for (std::uint32_t key = 0; key < history_.keys(); ++key) {
    if (options_.skip_keys.contains(key)) continue;
    key_name_ = history_.key_name(key);
    load(bounds[key], bounds[key + 1]);
    find_committed();
    order_versions();
    check_reads();
    check_losses();
    check_batches();
    check_polls();
    check_sends();
    check_ends();
    check_replays();
  }
  return std::move(verdict_);
}

void Checker::load(std::size_t first, std::size_t last) {
  ops_.assign(by_key_.begin() + static_cast<std::ptrdiff_t>(first), by_key_.begin() + static_cast<std::ptrdiff_t>(last));
  sent_.clear();
  seen_.clear();
  evidence_.clear();
  offsets_.clear();
  starts_.clear();
  highest_read_ = kUnknown;
  drained_ = false;
  for (std::uint32_t index : ops_) {
    const MicroOp& op = history_.ops()[index];
    const Event& e = event(op.event);
    switch (op.kind()) {
      case Op::send:
        sent_.push_back({op.value, op.event, static_cast<std::uint32_t>(index - e.first), op.offset});
        if (e.type == Type::ok) ++verdict_.acknowledged;
        break;
      case Op::poll:
        if (e.final && e.type == Type::ok) drained_ = true;
        if (op.offset == kUnknown) break;
        seen_.push_back({op.value, op.offset, op.event});
        if (e.type == Type::ok) {
          ++verdict_.read;
          highest_read_ = std::max(highest_read_, op.offset);
        }
        break;
      case Op::start: starts_.push_back({e.invoke, op.offset}); break;
      case Op::end:
      case Op::watermark:
      case Op::replay:
      case Op::assign:
      case Op::seek: break;
    }
  }
  std::ranges::sort(sent_, {}, [](const Sent& s) { return std::tie(s.value, s.event, s.position); });
  std::ranges::sort(seen_, {}, [](const Seen& s) { return std::tie(s.value, s.offset, s.event); });
  std::ranges::sort(starts_, {}, [](const TimedOffset& s) { return std::pair{s.time, s.offset}; });
  for (std::size_t i = 1; i < starts_.size(); ++i) starts_[i].offset = std::max(starts_[i].offset, starts_[i - 1].offset);
}

/// Marks the sends whose values were read, and collects evidence.
void Checker::find_committed() {
  for (const Seen& seen : seen_) evidence_.push_back({seen.offset, seen.value});
  std::size_t at = 0;
  for (Sent& sent : sent_) {
    while (at < seen_.size() && seen_[at].value < sent.value) ++at;
    for (std::size_t i = at; i < seen_.size() && seen_[i].value == sent.value && !sent.read_ok; ++i) {
      sent.read_ok = event(seen_[i].event).type == Type::ok;
    }
  }
  for (const Sent& sent : sent_) {
    const Event& e = event(sent.event);
    bool committed = e.type == Type::ok || (e.type == Type::info && sent.read_ok);
    if (committed && sent.offset != kUnknown) evidence_.push_back({sent.offset, sent.value});
  }
}

void Checker::order_versions() {
  std::ranges::sort(evidence_);
  auto repeated = std::ranges::unique(evidence_);
  evidence_.erase(repeated.begin(), repeated.end());
  for (std::size_t i = 0; i < evidence_.size(); ++i) {
    if (i > 0 && evidence_[i].offset == evidence_[i - 1].offset) {
      report(Rule::inconsistent_offset,
             fmt::format("{} holds {} and {}", where(evidence_[i].offset), to_string(evidence_[i - 1].value), to_string(evidence_[i].value)));
    } else {
      offsets_.push_back(evidence_[i].offset);
    }
  }
  std::vector<Evidence> by_value = evidence_;
  std::ranges::sort(by_value, {}, [](const Evidence& e) { return std::tie(e.value, e.offset); });
  for (std::size_t i = 1; i < by_value.size(); ++i) {
    if (by_value[i].value != by_value[i - 1].value) continue;
    report(Rule::duplicate, fmt::format("{} holds {} too, which is at offset {}", where(by_value[i].offset), to_string(by_value[i].value),
                                        by_value[i - 1].offset));
  }
}

void Checker::check_reads() {
  std::size_t at = 0;
  for (std::size_t i = 0; i < seen_.size(); ++i) {
    if (i > 0 && seen_[i].value == seen_[i - 1].value) continue;
    while (at < sent_.size() && sent_[at].value < seen_[i].value) ++at;
    if (at == sent_.size() || sent_[at].value != seen_[i].value) {
      report(Rule::phantom, fmt::format("{} holds {}, which nobody sent (event {})", where(seen_[i].offset), to_string(seen_[i].value), seen_[i].event));
      continue;
    }
    bool possible = false;
    for (std::size_t j = at; j < sent_.size() && sent_[j].value == seen_[i].value; ++j) {
      possible = possible || event(sent_[j].event).type != Type::fail;
    }
    if (!possible) {
      report(Rule::aborted_read, fmt::format("{} holds {}, whose send failed (event {})", where(seen_[i].offset), to_string(seen_[i].value), sent_[at].event));
    }
  }
}

void Checker::check_losses() {
  std::int64_t start = starts_.empty() ? kUnknown : starts_.back().offset;
  for (const Sent& sent : sent_) {
    if (event(sent.event).type != Type::ok || sent.read_ok || sent.offset == kUnknown) continue;
    if (sent.offset < start) continue;  // deleted by now
    if (highest_read_ != kUnknown && sent.offset <= highest_read_) {
      report(Rule::lost_write, fmt::format("{}: {} was acknowledged (event {}) and is in no read, though offset {} was read",
                                           where(sent.offset), to_string(sent.value), sent.event, highest_read_));
    } else {
      report(drained_ ? Rule::unseen : Rule::stale,
             fmt::format("{}: {} was acknowledged (event {}) and never read", where(sent.offset), to_string(sent.value), sent.event));
    }
  }
}

void Checker::check_batches() {
  // Back in order of events: the values of one batch are neighbours then.
  std::vector<const Sent*> order;
  for (const Sent& sent : sent_) {
    if (event(sent.event).batch) order.push_back(&sent);
  }
  std::ranges::sort(order, {}, [](const Sent* s) { return std::pair{s->event, s->position}; });
  std::int64_t start = starts_.empty() ? kUnknown : starts_.back().offset;
  for (std::size_t i = 0; i < order.size();) {
    std::size_t end = i;
    while (end < order.size() && order[end]->event == order[i]->event) ++end;
    std::int64_t base = kUnknown;
    std::vector<std::int64_t> missing;  // positions
    bool apart = false;
    for (std::size_t j = i; j < end; ++j) {
      auto lower = std::ranges::lower_bound(seen_, order[j]->value, {}, &Seen::value);
      if (lower == seen_.end() || lower->value != order[j]->value) {
        missing.push_back(static_cast<std::int64_t>(j - i));
        continue;
      }
      std::int64_t implied = lower->offset - static_cast<std::int64_t>(j - i);
      apart = apart || (base != kUnknown && base != implied);
      base = implied;
    }
    if (base != kUnknown) {
      std::erase_if(missing, [&](std::int64_t position) { return base + position < start; });
      bool past_end = drained_ || highest_read_ >= base + static_cast<std::int64_t>(end - i);
      if (apart) report(Rule::torn_batch, fmt::format("{}: the batch of event {} does not lie side by side", where(base), order[i]->event));
      else if (!missing.empty() && past_end)
        report(Rule::torn_batch, fmt::format("{}: {} of {} values of the batch of event {} are missing", where(base), missing.size(), end - i, order[i]->event));
    }
    i = end;
  }
}

void Checker::check_polls() {
  struct Last {
    std::int64_t offset;
    std::uint32_t event;
  };
  std::unordered_map<std::uint32_t, Last> last;  // by process
  for (std::uint32_t index : ops_) {
    const MicroOp& op = history_.ops()[index];
    const Event& e = event(op.event);
    if (op.kind() == Op::seek) last.erase(e.process);
    if (op.kind() != Op::poll || e.type != Type::ok || op.offset == kUnknown) continue;
    auto found = last.find(e.process);
    if (found != last.end()) {
      Last before = found->second;
      bool inside = before.event == op.event;
      int verdict = inside || keeps_place(e.process, op.key, before.event, op.event) ? step(before.offset, op.offset, e.done) : 0;
      if (verdict != 0) {
        Rule rule = verdict > 0 ? (inside ? Rule::poll_skip_inside : Rule::poll_skip)
                                : (inside ? Rule::poll_nonmonotonic_inside : Rule::poll_nonmonotonic);
        report(rule, fmt::format("{} follows offset {} at process {} (events {} and {})", where(op.offset), before.offset, e.process,
                                 before.event, op.event));
      }
    }
    last.insert_or_assign(e.process, Last{op.offset, op.event});
  }
}

bool Checker::keeps_place(std::uint32_t process, std::uint32_t key, std::uint32_t after, std::uint32_t before) const {
  auto found = resets_.find(process);
  if (found == resets_.end()) return true;
  for (auto at = std::ranges::upper_bound(found->second, after); at != found->second.end() && *at < before; ++at) {
    const Event& e = event(*at);
    bool assigned = false;
    for (std::uint32_t i = 0; i < e.count; ++i) assigned = assigned || history_.ops()[e.first + i].key == key;
    if (!assigned) return false;
  }
  return true;
}

void Checker::check_sends() {
  struct Last {
    std::int64_t offset;
    std::uint32_t event;
  };
  std::unordered_map<std::uint32_t, Last> last;  // by process
  std::vector<TimedOffset> acknowledged;
  for (std::uint32_t index : ops_) {
    const MicroOp& op = history_.ops()[index];
    const Event& e = event(op.event);
    if (op.kind() != Op::send || e.type != Type::ok || op.offset == kUnknown) continue;
    acknowledged.push_back({e.done, op.offset});
    auto [found, first] = last.try_emplace(e.process, Last{op.offset, op.event});
    if (!first && op.offset <= found->second.offset) {
      report(found->second.event == op.event ? Rule::send_nonmonotonic_inside : Rule::send_nonmonotonic,
             fmt::format("{} of event {} follows offset {} of event {} at process {}", where(op.offset), op.event, found->second.offset,
                         found->second.event, e.process));
    }
    found->second = {op.offset, op.event};
  }
  std::ranges::sort(acknowledged, {}, [](const TimedOffset& t) { return std::pair{t.time, t.offset}; });
  for (std::size_t i = 1; i < acknowledged.size(); ++i) acknowledged[i].offset = std::max(acknowledged[i].offset, acknowledged[i - 1].offset);
  auto highest_before = [&](std::int64_t time) {
    auto at = std::ranges::lower_bound(acknowledged, time, {}, &TimedOffset::time);
    return at == acknowledged.begin() ? kUnknown : std::prev(at)->offset;
  };
  for (std::uint32_t index : ops_) {
    const MicroOp& op = history_.ops()[index];
    const Event& e = event(op.event);
    if (e.type != Type::ok || op.offset == kUnknown) continue;
    if (op.kind() != Op::send && op.kind() != Op::end) continue;
    std::int64_t highest = highest_before(e.invoke);
    if (op.offset > highest) continue;
    if (op.kind() == Op::send) {
      report(Rule::offset_realtime, fmt::format("{} was given to event {} after offset {} had been acknowledged", where(op.offset), op.event, highest));
    } else {
      report(Rule::stale_tail, fmt::format("{}: event {} answers end {} after offset {} had been acknowledged", key_name_, op.event, op.offset, highest));
    }
  }
}

void Checker::check_ends() {
  std::map<std::pair<std::uint32_t, Op>, std::int64_t> last;
  for (std::uint32_t index : ops_) {
    const MicroOp& op = history_.ops()[index];
    if (op.kind() != Op::end && op.kind() != Op::start && op.kind() != Op::watermark) continue;
    auto [found, first] = last.try_emplace({event(op.event).process, op.kind()}, op.offset);
    if (!first && op.offset < found->second) {
      report(Rule::watermark_regress, fmt::format("{}: {} goes from {} back to {} (event {})", key_name_,
                                                  op.kind() == Op::start ? "log start" : op.kind() == Op::end ? "end" : "high watermark",
                                                  found->second, op.offset, op.event));
    }
    found->second = op.offset;
  }
}

void Checker::check_replays() {
  struct Replay {
    std::int64_t from;
    std::uint64_t to;
    std::uint32_t crc;
    std::uint32_t event;
  };
  std::vector<Replay> replays;
  for (std::uint32_t index : ops_) {
    const MicroOp& op = history_.ops()[index];
    if (op.kind() == Op::replay && event(op.event).type == Type::ok) replays.push_back({op.offset, op.value.counter, op.value.crc, op.event});
  }
  std::ranges::sort(replays, {}, [](const Replay& r) { return std::tuple{r.from, r.to, r.event}; });
  for (std::size_t i = 1; i < replays.size(); ++i) {
    const Replay& a = replays[i - 1];
    const Replay& b = replays[i];
    if (a.from == b.from && a.to == b.to && a.crc != b.crc) {
      report(Rule::replay_differs, fmt::format("{}: [{}, {}) reads {:08x} in event {} and {:08x} in event {}", key_name_, a.from, a.to, a.crc, a.event, b.crc, b.event));
    }
  }
}

}  // namespace

Verdict check(const History& history, CheckOptions options) { return Checker{history, options}.run(); }

}  // namespace tailrace::broker::history
