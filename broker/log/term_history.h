#pragma once
/// Which leader epoch the batch at an offset was written in. It lies outside the batch's checksum, so what is read from a
/// segment is held against this. Ascending by term and by start; the history kept is bounded (kTermsMax), older terms fall out.
#include <algorithm>
#include <vector>

#include "log/checkpoint.h"

namespace tailrace::broker::log {

/// A term begins. Terms said to begin behind it never held a batch (their frames were lost with a torn tail, or cut).
inline void note_term(std::vector<TermEntry>& terms, TermEntry entry) {
  if (!terms.empty() && terms.back().term >= entry.term) return;
  while (!terms.empty() && terms.back().start > entry.start) terms.pop_back();
  if (terms.size() == kTermsMax) terms.erase(terms.begin());
  terms.push_back(entry);
}

/// How many entries of length zero stand at `offset`, as far as the history knows.
[[nodiscard]] inline std::uint32_t sub_at(const std::vector<TermEntry>& terms, const std::vector<Mark>& marks, Offset offset) {
  std::uint32_t sub = 0;
  auto term = std::ranges::upper_bound(terms, offset, {}, &TermEntry::start);
  if (term != terms.begin() && std::prev(term)->start == offset) sub = std::prev(term)->sub;
  auto mark = std::ranges::upper_bound(marks, offset, {}, [](const Mark& m) { return m.begin.offset; });
  if (mark != marks.begin() && std::prev(mark)->begin.offset == offset) sub = std::max(sub, std::prev(mark)->end().sub);
  return sub;
}

/// The term of the entry before `at`: the last that begins before it; `before` where the history does not reach back.
[[nodiscard]] inline LeaderEpoch term_before(const std::vector<TermEntry>& terms, LogPosition at, LeaderEpoch before) {
  auto after = std::ranges::upper_bound(terms, at, {}, [](const TermEntry& t) { return t.behind(); });
  return after == terms.begin() ? before : std::prev(after)->term;
}

/// Whether a batch at `offset` may carry `epoch`: the one of the history; before the history begins, any older one.
[[nodiscard]] inline bool epoch_fits(const std::vector<TermEntry>& terms, Offset offset, LeaderEpoch epoch) {
  auto after = std::ranges::upper_bound(terms, offset, {}, &TermEntry::start);
  if (after != terms.begin()) return std::prev(after)->term == epoch;
  return terms.empty() || epoch < terms.front().term;
}

}  // namespace tailrace::broker::log
