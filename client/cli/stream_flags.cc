// The flags of stream.
#include "command_flags.h"

namespace tailrace::cli {
namespace {

CLI::Option* name_argument(CLI::App* command, AllFlags& flags) {
  return command->add_option("STREAM", flags.stream.name, "TOPIC/STREAM, as in orders/cart-7")->required()->type_name("");
}
void add_plan(CLI::App* command, AllFlags& flags) {
  command->add_flag("--dry-run", flags.stream.dry_run, "Change nothing; exit code 6 if it would hide something");
  command->add_flag("-y,--yes", flags.stream.yes, "Do not ask for the name; required without a terminal");
}

}  // namespace

void add_stream_commands(CLI::App& root, AllFlags& flags) {
  auto* stream = root.add_subcommand("stream", "Event streams: append with an expected version, read one stream without the others");
  stream->require_subcommand(1);
  auto& f = flags.stream;
  const std::vector<Format> all{Format::table, Format::json, Format::jsonl};

  auto* append = stream->add_subcommand("append", "Append events to a stream, all of them or nothing");
  name_argument(append, flags);
  append->add_option("DATA", f.data, "Each is one event; without any, standard input is read, one event a line")->type_name("");
  append->add_option("--expect", f.expect, "none (it has no event), the version of its last event, exists, or any")->required()->type_name("VERSION");
  append->add_option("--type", f.type, "The events' type")->type_name("TYPE");
  append->add_option("--id", f.id, "The event's id, by which a repeated append is known; default: a random one")->type_name("ID");
  add_choice<bool>(*append, "-f,--format", f.jsonl, {{"lines", false}, {"jsonl", true}}, "lines: one event a line (default); jsonl: what `stream read -o jsonl` wrote");
  add_common_flags(*append, flags, Talks::to_a_broker, all);
  append->footer(
      "examples:\n  tailrace topic create orders -c streams=true --partitions 4\n  tailrace stream append orders/cart-7 --expect none --type created '{\"by\":\"alice\"}'\n  tailrace stream append orders/cart-7 --expect 0 --type item-added --id add-1 '{\"sku\":9}'\n"
      "  tailrace stream read orders/cart-7 -o jsonl | tailrace stream append copy/cart-7 --expect none -f jsonl\n\n"
      "Exit code 6: the stream is not where it was expected to be; the message says where it is. Repeating an append with the same ids,\nnone or a version, is answered as before. More than 1,000 events go as several appends.");
  runs(append, flags, [](Context& c, AllFlags& a) { return stream_append(c, a.stream); });

  auto* read = stream->add_subcommand("read", "The events of one stream");
  name_argument(read, flags);
  add_number(*read, "--from", f.from, 0, kNoLimit, "Begin with this version; default: the first, or backwards the last", "VERSION");
  read->add_flag("--backwards", f.backwards, "The newest first");
  add_number(*read, "-n,--count", f.count, 1, kNoLimit, "Stop after N events");
  read->add_flag("--fail-empty", f.fail_empty, "Exit code 3 when there was no event");
  add_common_flags(*read, flags, Talks::to_a_broker, {Format::table, Format::jsonl, Format::raw});
  read->footer("examples:\n  tailrace stream read orders/cart-7\n  tailrace stream read orders/cart-7 --backwards -n 1 -o raw");
  runs(read, flags, [](Context& c, AllFlags& a) { return stream_read(c, a.stream); });

  auto* list = stream->add_subcommand("ls", "Streams of a topic, in order of their names")->alias("list");
  list->add_option(kTopicArgument, f.name, "The topic's name")->required()->type_name("");
  list->add_option("PREFIX", f.prefix, "Only names that begin so")->type_name("");
  add_number(*list, "-n,--count", f.count, 1, kNoLimit, "Stop after N streams");
  add_common_flags(*list, flags, Talks::to_a_broker, {Format::table, Format::json, Format::jsonl, Format::raw});
  list->footer("examples:\n  tailrace stream ls orders\n  tailrace stream ls orders cart- -o raw");
  runs(list, flags, [](Context& c, AllFlags& a) { return stream_list(c, a.stream); });

  auto* describe = stream->add_subcommand("describe", "First and last version of a stream, and when it was appended to last");
  name_argument(describe, flags);
  add_common_flags(*describe, flags, Talks::to_a_broker, all);
  describe->footer("examples:\n  tailrace stream describe orders/cart-7");
  runs(describe, flags, [](Context& c, AllFlags& a) { return stream_describe(c, a.stream); });

  auto* truncate = stream->add_subcommand("truncate", "Hide the events below a version; versions go on");
  name_argument(truncate, flags);
  add_number(*truncate, "--before", f.from, 0, kNoLimit, "The first version that stays", "VERSION")->required();
  add_plan(truncate, flags);
  add_common_flags(*truncate, flags, Talks::to_a_broker, all);
  truncate->footer("examples:\n  tailrace stream truncate orders/cart-7 --before 100 --dry-run\n  tailrace stream truncate orders/cart-7 --before 100 --yes");
  runs(truncate, flags, [](Context& c, AllFlags& a) { return stream_hide(c, a.stream); });

  auto* remove = stream->add_subcommand("delete", "Hide all events of a stream; versions go on, and --expect none stays wrong");
  name_argument(remove, flags);
  add_plan(remove, flags);
  add_common_flags(*remove, flags, Talks::to_a_broker, all);
  remove->footer("examples:\n  tailrace stream delete orders/cart-7 --yes");
  runs(remove, flags, [](Context& c, AllFlags& a) { return stream_hide(c, a.stream); });
}

}  // namespace tailrace::cli
