// The flags of group.
#include "command_flags.h"

namespace tailrace::cli {
namespace {

CLI::Option* group_argument(CLI::App* command, AllFlags& flags) {
  return command->add_option("GROUP", flags.group.group, "The group's name")->required()->type_name("");
}

}  // namespace

void add_group_commands(CLI::App& root, AllFlags& flags) {
  auto* group = root.add_subcommand("group", "Consumer groups: who reads what, how far behind, where to go on");
  group->require_subcommand(1);
  const std::vector<Format> all{Format::table, Format::json, Format::jsonl};

  auto* list = group->add_subcommand("ls", "List groups")->alias("list");
  add_common_flags(*list, flags, Talks::to_a_broker, {Format::table, Format::json, Format::jsonl, Format::raw});
  list->footer("examples:\n  tailrace group ls\n  tailrace group ls -o raw | xargs -n1 tailrace group lag");
  runs(list, flags, [](Context& c, AllFlags& f) { return group_list(c, f.group); });

  auto* describe = group->add_subcommand("describe", "State, members and their partitions, offsets, lag");
  group_argument(describe, flags);
  add_common_flags(*describe, flags, Talks::to_a_broker, all);
  describe->footer("examples:\n  tailrace group describe billing\n  tailrace group describe billing -o json | jq .generation");
  runs(describe, flags, [](Context& c, AllFlags& f) { return group_describe(c, f.group); });

  auto* members = group->add_subcommand("members", "Who is in the group, and what each reads");
  group_argument(members, flags);
  add_common_flags(*members, flags, Talks::to_a_broker, all);
  members->footer("examples:\n  tailrace group members billing");
  runs(members, flags, [](Context& c, AllFlags& f) { return group_members(c, f.group); });

  auto* lag = group->add_subcommand("lag", "How far behind each partition is: in records, and in time");
  lag->add_option("GROUP", flags.group.group, "Only this group; default: all")->type_name("");
  lag->add_flag("-w,--watch", flags.group.watch, "Again every two seconds, until Ctrl-C");
  add_common_flags(*lag, flags, Talks::to_a_broker, all);
  lag->footer("examples:\n  tailrace group lag\n  tailrace group lag billing -w\n  tailrace group lag billing -o json | jq '[.partitions[].lag_records] | add'\n\nBEHIND is the age of the oldest record that was not read, by its own timestamp.");
  runs(lag, flags, [](Context& c, AllFlags& f) { return group_lag(c, f.group); });

  auto* explain = group->add_subcommand("explain", "Why a group does not go on, partition by partition");
  group_argument(explain, flags);
  add_common_flags(*explain, flags, Talks::to_a_broker, all);
  explain->footer("examples:\n  tailrace group explain billing");
  runs(explain, flags, [](Context& c, AllFlags& f) { return group_explain(c, f.group); });

  auto* reset = group->add_subcommand("reset", "Set where a group goes on: shows the plan, and does it with --apply");
  group_argument(reset, flags);
  reset->add_option("--to", flags.group.to, "start, end, OFFSET (of -p), -N (the last N of each partition), -1h, an RFC 3339 time or date, or undo:FILE")->required()->type_name("WHERE");
  reset->add_option("--topic", flags.group.topic, "Only this topic; required where the group has stored nothing yet")->type_name("TOPIC");
  add_number(*reset, "-p,--partition", flags.group.partitions, 0, 9'999, "Only this partition, repeatable");
  reset->add_flag("--apply", flags.group.apply, "Do it; without this, only the plan is shown (exit code 6 if it would change something)");
  reset->add_flag("--kick", flags.group.kick, "Remove members that are reading first; they join again by themselves and go on at the new offsets");
  reset->add_option("--undo-file", flags.group.undo_file, "Where the offsets of before are kept (default: group-GROUP-TIME.undo.json here)")->type_name("FILE");
  add_common_flags(*reset, flags, Talks::to_a_broker, all);
  reset->footer("examples:\n  tailrace group reset billing --to -2h                    # the plan\n  tailrace group reset billing --to -2h --apply\n  tailrace group reset billing --to undo:group-billing-20261125T101500Z.undo.json --apply\n  tailrace group reset fresh --topic orders --to end --apply");
  runs(reset, flags, [](Context& c, AllFlags& f) { return group_reset(c, f.group); });

  auto* remove = group->add_subcommand("delete", "Forget a group and its offsets");
  group_argument(remove, flags);
  remove->add_flag("--dry-run", flags.group.dry_run, "Change nothing; exit code 6 if there is something to delete");
  remove->add_flag("-y,--yes", flags.group.yes, "Do not ask for the name; required without a terminal");
  add_common_flags(*remove, flags, Talks::to_a_broker, all);
  remove->footer("examples:\n  tailrace group delete billing --yes");
  runs(remove, flags, [](Context& c, AllFlags& f) { return group_delete(c, f.group); });
}

}  // namespace tailrace::cli
