// topic skip-damage: an operator gives up the damaged offsets of a partition.
#include <fmt/format.h>

#include <algorithm>

#include "commands.h"
#include "interrupt.h"
#include "json_writer.h"
#include "session.h"
#include "text.h"

namespace tailrace::cli {

Outcome<int> topic_skip_damage(Context& context, const TopicFlags& flags) {
  interrupt::install();
  const auto format = context.format(Format::table);
  auto session = Session::open(context);
  if (!session) return std::unexpected(session.error());
  auto description = Session::wait(session->admin().describe_topic(flags.name));
  if (!description) return std::unexpected(session->failure(description.error(), flags.name, Advice::none));
  const auto wanted = flags.partition.front();
  auto found = std::ranges::find(description->partitions, wanted, &PartitionDescription::partition);
  if (found == description->partitions.end()) {
    return failed(Errc::no_such_partition, fmt::format("{} has no partition {}, it has {}", flags.name, wanted, counted(description->partitions.size(), "partition")),
                  fmt::format("See: tailrace topic describe {}", flags.name));
  }
  const auto place = fmt::format("{}[{}]", flags.name, wanted);
  const auto damage = found->damage;
  if (damage.empty()) {
    context.tell(fmt::format("{}: no damage is known, there is nothing to give up", place));
  } else if (!flags.dry_run) {
    if (!flags.yes) note(fmt::format("will give up for good, of {}: {}\nReaders then go on behind it, and the partition takes records again. What is lost stays lost.", place, printable(damage)));
    if (auto confirmed = confirm(context, flags.yes, fmt::format("giving up the damaged offsets of {}", place), flags.name); !confirmed) return std::unexpected(confirmed.error());
    if (auto done = Session::wait(session->admin().skip_damage(flags.name, wanted)); !done) return std::unexpected(session->failure(done.error(), flags.name, Advice::none));
  }
  if (format != Format::table) {
    JsonWriter json;
    json.begin_object().field("schema", "tailrace.skip_damage.v1").field("topic", flags.name).field("partition", wanted).field("dry_run", flags.dry_run).field("damage", damage).end_object();
    context.out.write(json.take() + "\n");
  } else if (!damage.empty() && (flags.dry_run || !context.flags.quiet)) {
    context.out.write(fmt::format("{} of {}: {}\n", flags.dry_run ? "would give up" : "gave up", place, printable(damage)));
  }
  session->close();
  return finished(context, flags.dry_run && !damage.empty() ? kConflict : kOk);
}

}  // namespace tailrace::cli
