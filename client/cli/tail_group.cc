// tail -g GROUP --commit: reads as a member of a group, and stores the offset behind what was printed.
#include <fmt/format.h>

#include <map>

#include "commands.h"
#include "interrupt.h"
#include "read_point.h"
#include "record_printer.h"
#include "session.h"

namespace tailrace::cli {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr std::size_t kBatch = 1'024;
constexpr milliseconds kWait{100};
constexpr milliseconds kCommitEvery{500};

/// Where the group begins in partitions of which nothing is stored.
Outcome<From> start_of(const TailFlags& flags) {
  if (flags.from.empty()) return From::earliest();
  auto point = parse_from(flags.from, std::chrono::time_point_cast<milliseconds>(std::chrono::system_clock::now()));
  if (!point) return usage(fmt::format("--from: {}", point.error()));
  if (std::holds_alternative<AtStart>(*point)) return From::earliest();
  if (std::holds_alternative<AtEnd>(*point)) return From::latest();
  if (const auto* time = std::get_if<AtTime>(&*point)) return From::time(time->time);
  if (const auto* last = std::get_if<LastRecords>(&*point)) return From::last(last->count);
  return usage("with -g and --commit, --from says where the group begins in partitions of which it has stored nothing: start, end, -N, -1h or a time",
               "To move a group: tailrace group reset GROUP --to WHERE");
}

}  // namespace

Outcome<int> tail_group(Context& context, const TailFlags& flags) {
  interrupt::install();
  if (!flags.until.empty()) return usage("--until is a place, and a group goes on from where it stands", "Stop with -n N, or read without --commit");
  if (!flags.partitions.empty()) return usage("a member of a group reads what it is given, not -p N", "Read one partition without --commit");
  const auto format = context.format(context.terminal.stdout_is_terminal ? Format::table : Format::jsonl);
  if (flags.no_value && format == Format::raw) return usage("-o raw prints values and --no-value leaves them out", "Use -o jsonl or -o table");
  const bool follow = flags.follow || (context.terminal.stdout_is_terminal && flags.count == 0);
  auto start = start_of(flags);
  if (!start) return std::unexpected(start.error());
  auto session = Session::open(context);
  if (!session) return std::unexpected(session.error());
  GroupOptions options;
  options.start = *start;
  options.commit = CommitMode::manual;
  if (flags.out_of_range == "error") options.out_of_range = OutOfRange::error;
  if (flags.out_of_range == "end") options.out_of_range = OutOfRange::latest;
  auto consumer = session->client().group_consumer(flags.group, {flags.topic}, options);
  if (!consumer) return std::unexpected(session->failure(consumer.error(), flags.topic));

  RecordPrinter printer{context, flags, format};
  const auto began = Clock::now();
  auto commit_at = began + kCommitEvery;
  std::map<std::int32_t, std::int64_t> printed;  // by partition: behind the last
  std::optional<Failure> failure;
  // Only what has left this process counts as read.
  auto commit = [&]() -> bool {
    context.out.flush();
    if (context.out.closed() || context.out.error() != 0 || printed.empty()) return true;
    std::vector<Position> offsets;
    for (const auto& one : consumer->assignment()) {
      if (auto at = printed.find(one.partition); at != printed.end()) offsets.push_back({flags.topic, one.partition, at->second});
    }
    printed.clear();
    if (offsets.empty()) return true;
    auto stored = consumer->commit(offsets);
    if (stored || stored.error().code == Errc::unknown_member || stored.error().code == Errc::fenced) return true;  // others go on where it was stored last
    failure = session->failure(stored.error(), flags.topic);
    return false;
  };
  bool interrupted = false;
  for (;;) {
    if ((interrupted = interrupt::requested())) break;
    auto messages = consumer->next_batch(kBatch, kWait);
    if (!messages) {
      failure = session->failure(messages.error(), flags.topic);
      break;
    }
    bool enough = false;
    for (const auto& message : *messages) {
      printed[message.partition] = message.offset + 1;
      if (!printer.print(message)) {
        enough = true;
        break;
      }
    }
    if (enough) break;
    if (messages->empty() && !follow && consumer->caught_up()) break;
    if (messages->empty()) context.out.flush();
    if (context.out.closed()) break;
    if (Clock::now() < commit_at) continue;
    commit_at = Clock::now() + kCommitEvery;
    if (!commit()) break;
  }
  if (!failure) (void)commit();
  (void)consumer->close(milliseconds{2'000});
  const auto elapsed = std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - began);
  if (!context.out.closed()) context.tell(fmt::format("{}, {}, {}; offsets of group {} are stored", counted(printer.records(), "record"), human_bytes(printer.bytes()), human_duration(elapsed), printable(flags.group)));
  session->close();
  if (failure) return std::unexpected(*failure);
  if (interrupted) return finished(context, kInterrupted);
  if (printer.records() == 0 && flags.fail_empty && !context.out.closed()) return finished(context, kNotFound);
  return finished(context);
}

}  // namespace tailrace::cli
