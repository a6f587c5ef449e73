#pragma once
/// Judges a history of a log. O(n log n) in the number of micro-ops.
#include <array>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/history.h"

namespace tailrace::broker::history {

/// Words used below. Evidence of (offset, value): every poll whatever its type, since a consumer must never be shown unsafe
/// data, and every send that must have committed: ok, or info with one of its values in an ok poll. idx: the dense position
/// of an offset among those with evidence. Offsets below the highest log start known by then are out of every "must be read".
enum class Rule : std::uint8_t {
  inconsistent_offset,      // one offset, two values
  duplicate,                // one value at two offsets
  lost_write,               // must have committed, lies at or below the highest ok read of its key, and is in no ok read
  unseen,                   // acknowledged, and in no ok read although the key was drained at the end (not drained: `stale`)
  phantom,                  // a read value that nobody sent
  aborted_read,             // a read value whose send failed
  torn_batch,               // of one batch some values are read and others not, by readers past its end; or not side by side
  poll_skip_inside,         // one poll: idx of the next record - idx of this > 1
  poll_nonmonotonic_inside, // one poll: that difference < 1
  poll_skip,                // the same between the last record of a process's poll and the first of its next
  poll_nonmonotonic,
  send_nonmonotonic_inside, // one send: offsets do not rise
  send_nonmonotonic,        // two sends of a process, in program order: offsets do not rise
  offset_realtime,          // acknowledged at an offset not above one that was acknowledged before it was invoked
  stale_tail,               // a list-offsets end at or below an offset acknowledged before it was invoked
  watermark_regress,        // end, high watermark or log start seen going down by one process
  replay_differs,           // two replays of one range with different bytes
  stale,                    // acknowledged, never read, but nobody drained the key: counted, not fatal
  duplicate_allowed,        // a duplicate where producers are not idempotent: counted, not fatal
  count_
};
[[nodiscard]] std::string_view name_of(Rule rule);
[[nodiscard]] bool is_fatal(Rule rule);

struct Anomaly {
  Rule rule{};
  std::string text;  // key, offset, values and events
};

struct Verdict {
  std::array<std::uint64_t, static_cast<std::size_t>(Rule::count_)> counts{};
  std::vector<Anomaly> examples;  // the first few of each rule
  std::uint64_t events = 0, micro_ops = 0, acknowledged = 0, read = 0;
  [[nodiscard]] std::uint64_t count(Rule rule) const { return counts[static_cast<std::size_t>(rule)]; }
  [[nodiscard]] std::uint64_t fatal() const;
  [[nodiscard]] std::string summary() const;
};

struct CheckOptions {
  bool duplicates_are_fatal = true;  // producers are idempotent
  std::size_t examples_per_rule = 5;
  std::set<std::uint32_t> skip_keys{};  // logs that were cut or deleted on purpose: the rules know neither
};
[[nodiscard]] Verdict check(const History& history, CheckOptions options = {});

}  // namespace tailrace::broker::history
