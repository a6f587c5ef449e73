// tail: reads a topic from anywhere to anywhere.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "commands.h"
#include "interrupt.h"
#include "record_printer.h"
#include "session.h"
#include "tail_plan.h"
#include "text.h"

namespace tailrace::cli {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr std::size_t kBatch = 4'096;
constexpr milliseconds kWait{100};
// -N of several partitions is merged by time, for which all candidates are held at once.
constexpr std::uint64_t kMergedRecordsMax = 1'000'000;
constexpr std::uint64_t kMergedBytesMax = 256u << 20;

ConsumerOptions options_for(const std::vector<TailRange>& ranges, bool bounded, OutOfRange policy) {
  ConsumerOptions options;
  options.out_of_range = policy;
  for (const auto& r : ranges) {
    options.partitions.push_back(r.partition);
    PartitionStart start;
    start.partition = r.partition;
    start.start = From::offset(r.from);
    if (bounded) start.until = From::offset(r.until);
    options.starts.push_back(std::move(start));
  }
  return options;
}

enum class Ended { range, printer, interrupted };

/// Reads until the ranges are done (bounded), the visitor has enough, or Ctrl-C.
template <class Visit>
Outcome<Ended> read(Session& session, const std::string& topic, const ConsumerOptions& options, bool bounded, Context& context, Progress& progress, std::uint64_t total, const Visit& visit) {
  if (options.partitions.empty()) return Ended::range;
  auto consumer = session.client().consumer(topic, options);
  if (!consumer) return std::unexpected(session.failure(consumer.error(), topic));
  std::uint64_t seen = 0;
  auto ended = Ended::range;
  // What is deleted while it is read, or was given up as damaged, is stepped over: with a word.
  std::map<std::int32_t, std::int64_t> expected;
  auto follow = expected.end();
  auto note_gap = [&](const Message& message) {
    if (follow == expected.end() || follow->first != message.partition) follow = expected.try_emplace(message.partition, message.offset).first;
    if (message.offset > follow->second) context.warn(fmt::format("{}[{}]: offsets {} to {} are not there any more", topic, message.partition, follow->second, message.offset - 1));
    follow->second = message.offset + 1;
  };
  for (;;) {
    if (interrupt::requested()) {
      ended = Ended::interrupted;
      break;
    }
    auto messages = consumer->next_batch(kBatch, kWait);
    if (!messages) return std::unexpected(session.failure(messages.error(), topic));
    bool enough = false;
    for (const auto& message : *messages) {
      ++seen;
      note_gap(message);
      if (!visit(message)) {
        enough = true;
        break;
      }
    }
    if (enough) {
      ended = Ended::printer;
      break;
    }
    progress.update(seen, total, counted(seen, "record"));
    if (bounded) {
      if (consumer->finished()) break;
    } else {
      context.out.flush();
      if (context.out.closed()) {
        ended = Ended::printer;
        break;
      }
    }
  }
  (void)consumer->close(milliseconds{500});
  return ended;
}

Outcome<OffsetsByTime> offsets_at(Session& session, const std::string& topic, Time time) {
  auto listed = Session::wait(session.admin().list_offsets(topic, From::time(time)));
  if (!listed) return std::unexpected(session.failure(listed.error(), topic));
  OffsetsByTime offsets;
  for (const auto& o : *listed) offsets[o.partition] = o.offset;
  return offsets;
}

/// The last N of all partitions together. One partition needs no merging: the broker finds its last N.
Outcome<Ended> read_last(Session& session, const std::string& topic, const TailPlan& plan, OutOfRange policy, Context& context, Progress& progress, RecordPrinter& printer) {
  std::vector<TailRange> ranges;
  for (const auto& r : plan.ranges) {
    if (r.until > r.from) ranges.push_back(r);
  }
  if (ranges.empty()) return Ended::range;
  auto options = options_for(ranges, true, policy);
  for (auto& start : options.starts) start.start = From::last(plan.last);
  if (ranges.size() == 1) {
    return read(session, topic, options, true, context, progress, plan.last, [&](const Message& m) { return printer.print(m); });
  }
  auto too_much = [&] {
    return failed(Errc::too_large, fmt::format("the last {} of {} partitions do not fit in memory to be merged by time", human_count(plan.last), ranges.size()), "Ask for fewer, or for one partition with -p", kFailed);
  };
  if (plan.last > kMergedRecordsMax / ranges.size()) return too_much();
  std::map<std::int32_t, std::size_t> list_of;
  for (const auto& r : ranges) list_of.emplace(r.partition, list_of.size());
  std::vector<std::vector<Message>> lists(ranges.size());
  std::uint64_t bytes = 0;
  auto ended = read(session, topic, options, true, context, progress, plan.last * ranges.size(), [&](const Message& m) {
    bytes += (m.key ? m.key->size() : 0) + (m.value ? m.value->size() : 0);
    lists[list_of[m.partition]].push_back(m);
    return bytes <= kMergedBytesMax;
  });
  if (!ended) return ended;
  if (*ended == Ended::printer) return too_much();
  if (*ended == Ended::interrupted) return ended;
  std::vector<std::vector<std::int64_t>> times(lists.size());
  for (std::size_t i = 0; i < lists.size(); ++i) {
    for (const auto& m : lists[i]) times[i].push_back(m.time.time_since_epoch().count());
  }
  for (const auto& pick : last_by_time(times, plan.last)) {
    if (!printer.print(lists[pick.list][pick.index])) return Ended::printer;
  }
  return Ended::range;
}

}  // namespace

Outcome<int> tail(Context& context, const TailFlags& flags) {
  if (flags.commit && flags.group.empty()) return usage("--commit stores the offsets of a group", "Name it with -g GROUP");
  if (flags.commit) return tail_group(context, flags);
  if (!flags.group.empty() && !flags.from.empty()) return usage("-g and --from both say where to begin", "Without --from it begins where the group stands");
  interrupt::install();
  const auto format = context.format(context.terminal.stdout_is_terminal ? Format::table : Format::jsonl);
  if (flags.no_value && format == Format::raw) return usage("-o raw prints values and --no-value leaves them out", "Use -o jsonl or -o table");
  auto request = tail_request(flags, context.terminal.stdout_is_terminal, std::chrono::time_point_cast<milliseconds>(std::chrono::system_clock::now()));
  if (!request) return std::unexpected(request.error());
  auto session = Session::open(context);
  if (!session) return std::unexpected(session.error());
  auto description = Session::wait(session->admin().describe_topic(flags.topic));
  if (!description) return std::unexpected(session->failure(description.error(), flags.topic));
  std::vector<Bounds> bounds;
  for (const auto& p : description->partitions) bounds.push_back({p.partition, p.log_start, p.high_watermark});

  // What is lost can lie at the very end, where no read ever meets it: then the end of the partition is not the end of its records.
  std::string damage;
  for (const auto& p : description->partitions) {
    const bool chosen = request->partitions.empty() || std::ranges::find(request->partitions, p.partition) != request->partitions.end();
    if (chosen && !p.damage.empty()) damage += fmt::format("{}{}[{}]: {}", damage.empty() ? "" : "; ", flags.topic, p.partition, p.damage);
  }
  if (!damage.empty()) context.warn(fmt::format("damaged: {}", printable(damage)));

  OffsetsByTime from_times, until_times;
  if (!flags.group.empty()) {
    auto group = Session::wait(session->admin().describe_group(flags.group));
    if (!group) return std::unexpected(session->failure(group.error(), flags.topic));
    for (const auto& b : bounds) from_times[b.partition] = b.start;
    for (const auto& p : group->partitions) {
      if (p.topic == flags.topic && p.committed >= 0) from_times[p.partition] = p.committed;
    }
  } else if (const auto* at = std::get_if<AtTime>(&request->from)) {
    auto offsets = offsets_at(*session, flags.topic, at->time);
    if (!offsets) return std::unexpected(offsets.error());
    from_times = std::move(*offsets);
  }
  if (request->until && std::holds_alternative<AtTime>(*request->until)) {
    auto offsets = offsets_at(*session, flags.topic, std::get<AtTime>(*request->until).time);
    if (!offsets) return std::unexpected(offsets.error());
    until_times = std::move(*offsets);
  }
  auto plan = tail_plan(flags.topic, *request, bounds, from_times, until_times);
  if (!plan) return std::unexpected(plan.error());

  const auto started = Clock::now();
  RecordPrinter printer{context, flags, format};
  // A bar between the lines of a terminal would only disturb.
  Progress progress{context.terminal.stderr_is_terminal && !context.terminal.stdout_is_terminal && !context.flags.quiet && !request->follow, "reading", context.terminal.columns};
  auto print = [&](const Message& m) { return printer.print(m); };
  Outcome<Ended> ended = Ended::range;
  if (plan->last > 0) {
    ended = read_last(*session, flags.topic, *plan, request->out_of_range, context, progress, printer);
    for (auto& range : plan->ranges) range.from = range.until;  // what follows begins where the last N ended
  } else if (!request->follow) {
    std::erase_if(plan->ranges, [](const TailRange& r) { return r.until <= r.from; });
    ended = read(*session, flags.topic, options_for(plan->ranges, true, request->out_of_range), true, context, progress, plan->records(), print);
  }
  if (ended && *ended == Ended::range && request->follow) {
    context.out.flush();
    ended = read(*session, flags.topic, options_for(plan->ranges, false, request->out_of_range), false, context, progress, 0, print);
  }
  progress.clear();
  context.out.flush();
  const auto elapsed = std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - started);
  if (!context.out.closed()) {
    auto summary = fmt::format("{}, {}, {}", counted(printer.records(), "record"), human_bytes(printer.bytes()), human_duration(elapsed));
    if (ended && *ended == Ended::range && (request->by_default || plan->beyond_end)) summary += fmt::format("; stopped at the end of {}, -F follows", flags.topic);
    context.tell(summary);
  }
  session->close();
  if (!ended) return std::unexpected(ended.error());
  if (*ended == Ended::interrupted) return finished(context, kInterrupted);
  const bool to_the_end = *ended == Ended::range && (!request->until || std::holds_alternative<AtEnd>(*request->until));
  if (!damage.empty() && to_the_end) return failed(Errc::corrupt, fmt::format("read to the end, and records are missing: {}", damage));
  if (printer.records() == 0 && flags.fail_empty && !context.out.closed()) return finished(context, kNotFound);
  return finished(context);
}

}  // namespace tailrace::cli
