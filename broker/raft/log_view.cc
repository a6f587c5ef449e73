#include "raft/log_view.h"

#include <algorithm>

#include "base/check.h"
#include "base/planted.h"

namespace tailrace::broker::raft {

LogView::LogView(LogPosition start, LeaderEpoch start_term, const Membership& members)
    : start_{start}, start_term_{start_term}, end_{start}, members_{{start, members}} {}

std::optional<LeaderEpoch> LogView::term_at(LogPosition at) const {
  if (at < start_ || at > end_) return std::nullopt;
  if (!marks_.empty() && marks_.back().begin < at) return marks_.back().term;  // the usual question is about the tail
  auto after = std::ranges::lower_bound(marks_, at, {}, &Mark::begin);
  return after == marks_.begin() ? start_term_ : std::prev(after)->term;
}

bool LogView::matches(LogPosition at, LeaderEpoch term) const {
  auto mine = term_at(at);
  return mine && *mine == term;
}

LogPosition LogView::highest_with_term(LogPosition at, LeaderEpoch term) const {
  at = std::clamp(at, start_, end_);
  auto after = std::ranges::lower_bound(marks_, at, {}, &Mark::begin);
  while (after != marks_.begin() && std::prev(after)->term > term) {
    --after;
    at = after->begin;
  }
  return at;
}

const Mark* LogView::mark_from(LogPosition at) const {
  if (marks_.empty() || marks_.back().begin < at) return nullptr;
  return &*std::ranges::lower_bound(marks_, at, {}, &Mark::begin);
}

const Membership& LogView::members_at(LogPosition at) const {
  auto after = std::ranges::lower_bound(members_, at, {}, &MembersAt::begin);
  return after == members_.begin() ? members_.front().members : std::prev(after)->members;
}

const Membership* LogView::members_of(const Mark& mark) const {
  auto found = std::ranges::lower_bound(members_, mark.begin, {}, &MembersAt::begin);
  // The one in force at `start` may lie where a mark begins: the mark's own comes behind it.
  while (found != members_.end() && found->begin == mark.begin) {
    if (found != members_.begin()) return &found->members;
    ++found;
  }
  return nullptr;
}

bool LogView::append_mark(MarkKind kind, LeaderEpoch term, Offset log_start, const Membership& members, LogPosition committed) {
  if (marks_.size() >= kMarksMax) {
    // A quarter at once, so that this is not done for each further mark.
    LogPosition to = std::min(marks_[kMarksMax / 4].begin, committed);
    if (to <= marks_.front().begin) return false;
    trim(to);
  }
  marks_.push_back({end_, term, kind, log_start});
  if (kind == MarkKind::members) members_.push_back({end_, members});
  end_ = marks_.back().end();
  return true;
}

void LogView::truncate(LogPosition to) {
  while (!marks_.empty() && marks_.back().begin >= to) marks_.pop_back();
  while (members_.size() > 1 && members_.back().begin >= to && !planted(PlantedBug::raft_keep_rolled_back_members)) members_.pop_back();
  end_ = to;
}

void LogView::trim(LogPosition to) {
  if (to <= start_) return;
  start_term_ = *term_at(to);
  std::size_t old = 0;
  while (old + 1 < members_.size() && members_[old + 1].begin < to) ++old;
  members_.erase(members_.begin(), members_.begin() + static_cast<std::ptrdiff_t>(old));
  members_.front().begin = to;
  auto kept = std::ranges::lower_bound(marks_, to, {}, &Mark::begin);
  marks_.erase(marks_.begin(), kept);
  start_ = to;
}

void LogView::check_invariants() const {
  TAILRACE_CHECK(start_ <= end_, "a log begins before it ends");
  LogPosition at = start_;
  LeaderEpoch term = start_term_;
  for (const Mark& mark : marks_) {
    TAILRACE_CHECK(mark.begin >= at, "marks stand in order");
    TAILRACE_CHECK(mark.term >= term, "terms never go back along a log");
    TAILRACE_CHECK(mark.term == term || mark.kind == MarkKind::term_start, "a term begins with its term start");
    at = mark.end();
    term = mark.term;
  }
  TAILRACE_CHECK(at <= end_, "marks lie inside the log");
  TAILRACE_CHECK(!members_.empty(), "some membership is in force");
}

}  // namespace tailrace::broker::raft
