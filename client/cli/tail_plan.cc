#include "tail_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <queue>

namespace tailrace::cli {

Outcome<TailRequest> tail_request(const TailFlags& flags, bool stdout_is_terminal, Time now) {
  TailRequest request;
  request.partitions = flags.partitions;
  std::ranges::sort(request.partitions);
  request.partitions.erase(std::ranges::unique(request.partitions).begin(), request.partitions.end());
  if (!flags.group.empty()) {
    request.from = AtGroup{};
  } else if (!flags.from.empty()) {
    auto from = parse_from(flags.from, now);
    if (!from) return usage(fmt::format("--from: {}", from.error()));
    request.from = *from;
  } else if (stdout_is_terminal) {
    constexpr std::uint64_t kDefaultLast = 10;
    request.from = LastRecords{flags.count > 0 ? std::min(flags.count, kDefaultLast) : kDefaultLast};
  }
  if (!flags.until.empty()) {
    if (flags.follow) return usage("-F follows for ever and --until stops; give one of them");
    auto until = parse_until(flags.until, now);
    if (!until) return usage(fmt::format("--until: {}", until.error()));
    request.until = *until;
  }
  const bool from_end = std::holds_alternative<AtEnd>(request.from);
  request.follow = flags.follow || (from_end && !request.until) || (stdout_is_terminal && !request.until && flags.count == 0);
  request.by_default = !request.follow && !request.until;
  // A place named by number is there or it is not. The start, the end and a time are wherever they are by now.
  const bool named = std::holds_alternative<AtOffset>(request.from) || flags.out_of_range == "error";
  request.out_of_range = flags.out_of_range == "end" ? OutOfRange::latest : named && flags.out_of_range != "start" ? OutOfRange::error : OutOfRange::earliest;
  return request;
}

Outcome<TailPlan> tail_plan(const std::string& topic, const TailRequest& request, const std::vector<Bounds>& bounds, const OffsetsByTime& from_times, const OffsetsByTime& until_times) {
  std::vector<Bounds> chosen;
  if (request.partitions.empty()) {
    chosen = bounds;
  } else {
    for (auto p : request.partitions) {
      auto found = std::ranges::find(bounds, p, &Bounds::partition);
      if (found == bounds.end()) return failed(Errc::no_such_partition, fmt::format("{} has no partition {}, it has {}", topic, p, counted(bounds.size(), "partition")), fmt::format("See: tailrace topic describe {}", topic));
      chosen.push_back(*found);
    }
  }
  const bool by_offset = std::holds_alternative<AtOffset>(request.from) || (request.until && std::holds_alternative<AtOffset>(*request.until));
  if (by_offset && chosen.size() != 1) return usage(fmt::format("an OFFSET belongs to one partition and {} has {}", topic, chosen.size()), "Name it with -p N");
  TailPlan plan;
  for (const auto& b : chosen) {
    TailRange range{b.partition, b.start, b.end};
    if (std::holds_alternative<AtEnd>(request.from)) range.from = b.end;
    if (const auto* at = std::get_if<AtOffset>(&request.from)) {
      range.from = at->offset;
      if (at->offset < b.start || at->offset > b.end) {
        switch (request.out_of_range) {
          case OutOfRange::error:
            return failed(Errc::offset_out_of_range, fmt::format("{}[{}] holds offsets {} to {} (end exclusive), not {}", topic, b.partition, b.start, b.end, at->offset),
                          "Read from start, end, a time or an offset in that range, or say --out-of-range start");
          case OutOfRange::earliest: range.from = b.start; break;
          case OutOfRange::latest: range.from = b.end; break;
        }
      }
    }
    if (std::holds_alternative<AtTime>(request.from) || std::holds_alternative<AtGroup>(request.from)) {
      auto at = from_times.find(b.partition);
      range.from = at == from_times.end() ? b.end : at->second;
    }
    if (request.until) {
      if (const auto* at = std::get_if<AtOffset>(&*request.until)) {
        range.until = std::min(b.end, at->offset);
        plan.beyond_end |= at->offset > b.end;
      }
      if (std::holds_alternative<AtTime>(*request.until)) {
        auto at = until_times.find(b.partition);
        if (at != until_times.end()) range.until = std::min(b.end, at->second);
      }
    }
    range.from = std::max(range.from, b.start);
    range.until = std::max(range.until, range.from);
    plan.ranges.push_back(range);
  }
  if (const auto* last = std::get_if<LastRecords>(&request.from)) plan.last = last->count;
  return plan;
}

std::vector<Pick> last_by_time(const std::vector<std::vector<std::int64_t>>& times, std::uint64_t count) {
  struct End {
    std::int64_t time;
    std::size_t list, left;
    bool operator<(const End& other) const { return std::pair{time, list} < std::pair{other.time, other.list}; }
  };
  std::priority_queue<End> ends;
  for (std::size_t i = 0; i < times.size(); ++i) {
    if (!times[i].empty()) ends.push({times[i].back(), i, times[i].size()});
  }
  std::vector<Pick> picks;
  while (!ends.empty() && picks.size() < count) {
    const auto end = ends.top();
    ends.pop();
    picks.push_back({end.list, end.left - 1});
    if (end.left > 1) ends.push({times[end.list][end.left - 2], end.list, end.left - 1});
  }
  std::ranges::reverse(picks);
  return picks;
}

}  // namespace tailrace::cli
