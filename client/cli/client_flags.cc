// The flags of topic, pub, tail and bench.
#include "command_flags.h"

namespace tailrace::cli {
namespace {

template <class F>
void runs(CLI::App* command, AllFlags& flags, F action) {
  command->callback([&flags, action] { flags.action = [&flags, action](Context& context) { return action(context, flags); }; });
}

/// One value per mention: `--file a --file b`, and what follows is an argument again.
CLI::Option* each(CLI::Option* option) { return option->type_size(1)->allow_extra_args(false)->take_all(); }

CLI::Option* topic_argument(CLI::App* command, std::string& target) {
  return command->add_option(kTopicArgument, target, "The topic's name")->required()->type_name("");
}

void add_plan_flags(CLI::App* command, AllFlags& flags, bool destructive) {
  command->add_flag("--dry-run", flags.topic.dry_run, "Let the broker judge it and change nothing; exit code 6 if it would change something");
  if (destructive) command->add_flag("-y,--yes", flags.topic.yes, "Do not ask for the name; required without a terminal");
}

void add_topic(CLI::App& root, AllFlags& flags) {
  auto* topic = root.add_subcommand("topic", "Create, list, describe, change, empty and delete topics");
  topic->require_subcommand(1);

  auto* create = topic->add_subcommand("create", "Create a topic");
  topic_argument(create, flags.topic.name);
  create->add_option("--partitions", flags.topic.partitions, "How many partitions (default 1)")->check(CLI::Range(1, 10'000).description(""))->type_name("N");
  each(create->add_option("-c,--config", flags.topic.config, "A topic key, repeatable: retention_time=7d; keys: tailrace config explain topic"))->type_name("KEY=VALUE");
  create->add_flag("--if-not-exists", flags.topic.if_not_exists, "Succeed when it is there already");
  add_plan_flags(create, flags, false);
  add_common_flags(*create, flags, true);
  create->footer("examples:\n  tailrace topic create orders --partitions 4\n  tailrace topic create logs -c retention_time=7d -c retention_bytes=10GiB\n\nNothing is deleted from a topic unless its retention_time or retention_bytes says so.");
  runs(create, flags, [](Context& c, AllFlags& f) { return topic_create(c, f.topic); });

  auto* list = topic->add_subcommand("ls", "List topics")->alias("list");
  list->add_flag("--internal", flags.topic.internal, "Also the broker's own (names that begin with __)");
  add_common_flags(*list, flags, true);
  list->footer("examples:\n  tailrace topic ls\n  tailrace topic ls -o raw | xargs -n1 tailrace topic describe");
  runs(list, flags, [](Context& c, AllFlags& f) { return topic_list(c, f.topic); });

  auto* describe = topic->add_subcommand("describe", "Partitions, sizes, first and last offset and time, configuration");
  topic_argument(describe, flags.topic.name);
  add_common_flags(*describe, flags, true);
  describe->footer("examples:\n  tailrace topic describe orders\n  tailrace topic describe orders -o json | jq '.partitions[].bytes'");
  runs(describe, flags, [](Context& c, AllFlags& f) { return topic_describe(c, f.topic); });

  auto* alter = topic->add_subcommand("alter", "Change a topic's keys or add partitions");
  topic_argument(alter, flags.topic.name);
  alter->add_option("--partitions", flags.topic.partitions, "Grow to this many; keyed records then land elsewhere than before")->check(CLI::Range(1, 10'000).description(""))->type_name("N");
  each(alter->add_option("-c,--config", flags.topic.config, "Set a topic key, repeatable"))->type_name("KEY=VALUE");
  each(alter->add_option("--unset", flags.topic.unset, "Back to the default, repeatable"))->type_name("KEY");
  add_plan_flags(alter, flags, false);
  add_common_flags(*alter, flags, true);
  alter->footer("examples:\n  tailrace topic alter orders -c retention_time=30d\n  tailrace topic alter orders --unset retention_time --dry-run");
  runs(alter, flags, [](Context& c, AllFlags& f) { return topic_alter(c, f.topic); });

  auto* remove = topic->add_subcommand("delete", "Delete a topic and its records");
  topic_argument(remove, flags.topic.name);
  add_plan_flags(remove, flags, true);
  add_common_flags(*remove, flags, true);
  remove->footer("examples:\n  tailrace topic delete scratch --dry-run\n  tailrace topic delete scratch --yes");
  runs(remove, flags, [](Context& c, AllFlags& f) { return topic_delete(c, f.topic); });

  auto* purge = topic->add_subcommand("purge", "Delete records before an offset or a time; offsets stay as they are");
  topic_argument(purge, flags.topic.name);
  purge->add_option("--before", flags.topic.before, "end (default: all records), OFFSET (with -p), -7d, or an RFC 3339 time")->type_name("WHERE");
  each(purge->add_option("-p,--partition", flags.topic.partition, "Only this partition, repeatable"))->type_name("N");
  add_plan_flags(purge, flags, true);
  add_common_flags(*purge, flags, true);
  purge->footer("examples:\n  tailrace topic purge orders --before -30d --dry-run\n  tailrace topic purge orders -p 0 --before 1000 --yes");
  runs(purge, flags, [](Context& c, AllFlags& f) { return topic_purge(c, f.topic); });
}

void add_pub(CLI::App& root, AllFlags& flags) {
  auto* pub = root.add_subcommand("pub", "Publish records: arguments, a file, or a pipe that runs for hours");
  auto& f = flags.pub;
  topic_argument(pub, f.topic);
  pub->add_option("BODY", f.bodies, "Each is one record; without any, standard input is read")->type_name("");
  pub->add_option("-k,--key", f.key, "Key of every record; decides the partition")->type_name("KEY");
  pub->add_option("--key-sep", f.key_separator, "Each line is KEY SEP VALUE, cut at the first SEP")->type_name("SEP");
  pub->add_option("--key-regex", f.key_regex, "The key is what this POSIX extended expression (or its first group) matches in the line; the line stays whole")->type_name("RE");
  pub->add_flag("--allow-no-key", f.allow_no_key, "With --key-sep or --key-regex: a line without a key is published without one instead of being an error");
  each(pub->add_option("-H,--header", f.headers, "A header, repeatable; order and repeats are kept"))->type_name("KEY=VALUE");
  pub->add_option("-p,--partition", f.partition, "Publish to this partition")->type_name("N");
  pub->add_flag("--keep-partition", f.keep_partition, "With -f jsonl: to the partition that each line names");
  pub->add_option("-f,--format", f.format, "lines: one record a line (default); jsonl: what `tail -o jsonl` wrote; raw: each file, or the whole input, is one record")
      ->transform(named(std::map<std::string, InputFormat>{{"lines", InputFormat::lines}, {"jsonl", InputFormat::jsonl}, {"raw", InputFormat::raw}}))
      ->type_name("lines|jsonl|raw");
  each(pub->add_option("--file", f.files, "Read this file, repeatable; - is standard input"))->type_name("FILE");
  pub->add_option("--count", f.count, "Stop after N records; bodies given as arguments are repeated until there are N")->type_name("N");
  pub->add_option("--rate", f.rate, "At most this many records per second")->check(CLI::Validator{CLI::PositiveNumber}.description(""))->type_name("R");
  pub->add_option("--skip", f.skip, "Leave out the first N lines: resumes after an interruption")->type_name("N");
  pub->add_option("--compression", f.compression, "none, lz4 or zstd")->check(one_of({"none", "lz4", "zstd"}))->type_name("none|lz4|zstd");
  pub->add_option("--linger", f.linger, "Gather records this long before a batch is sent (default 0: send when nothing is in flight)")->type_name("DURATION");
  pub->add_flag("--tombstone", f.tombstone, "Publish one record with the key and no value");
  pub->add_flag("--create", f.create, "Create the topic, with one partition, if it does not exist; a `tailrace dev` broker lets pub do so anyway");
  add_common_flags(*pub, flags, true);
  pub->footer(
      "examples:\n"
      "  tailrace pub orders '{\"id\":1}' -k alice -H source=cli\n"
      "  tail -F access.log | tailrace pub access --key-regex '^[^ ]+'\n"
      "  tailrace pub orders --file dump.jsonl -f jsonl -o jsonl > receipts.jsonl\n"
      "  tailrace tail a -o jsonl | tailrace pub b -f jsonl            # a copy: keys, values, headers, times\n"
      "\n"
      "A line's end is its newline, which is not published; a last line without one counts, an empty line is an empty record,\n"
      "and a carriage return is part of the line. Exit codes: 7 some records are acknowledged and some are not, 8 some may\n"
      "be stored although no acknowledgement came, 130 interrupted; the summary then says which --skip goes on.");
  runs(pub, flags, [](Context& c, AllFlags& all) { return cli::pub(c, all.pub); });
}

void add_tail(CLI::App& root, AllFlags& flags) {
  auto* tail = root.add_subcommand("tail", "Read records: from anywhere, to anywhere, or for ever");
  auto& f = flags.tail;
  topic_argument(tail, f.topic);
  tail->add_option("--from", f.from, "start, end, OFFSET (of -p), -N (the last N of all partitions, by time), -1h, or an RFC 3339 time or date")->type_name("WHERE");
  tail->add_option("--until", f.until, "Stop before: end (as it is now), OFFSET (of -p), -1h, or an RFC 3339 time")->type_name("WHERE");
  tail->add_option("-n,--count", f.count, "Stop after N records")->type_name("N");
  tail->add_flag("-F,--follow", f.follow, "Wait for new records at the end");
  each(tail->add_option("-p,--partition", f.partitions, "Only this partition, repeatable"))->type_name("N");
  tail->add_option("--key", f.key, "Only records with exactly this key")->type_name("KEY");
  tail->add_option("--out-of-range", f.out_of_range, "What to do when the offset is not there: error (default), earliest, latest")
      ->check(one_of({"error", "earliest", "latest"}))
      ->type_name("error|earliest|latest");
  tail->add_flag("--no-value", f.no_value, "Leave values out");
  tail->add_flag("--fail-empty", f.fail_empty, "Exit code 3 when there was no record");
  add_common_flags(*tail, flags, true);
  tail->footer(
      "examples:\n"
      "  tailrace tail orders                                   # terminal: the last 10, then follow. Pipe: all as jsonl, to the end\n"
      "  tailrace tail orders --from -1h --until end -o jsonl | jq .value\n"
      "  tailrace tail orders -p 0 --from 1000 -n 5 -o table\n"
      "  tailrace tail orders --from start -o raw > values.txt  # values, one a line (an empty line for null)\n"
      "\n"
      "Order holds within a partition. Ctrl-C ends it with a summary on standard error.");
  runs(tail, flags, [](Context& c, AllFlags& all) { return cli::tail(c, all.tail); });
}

void add_bench(CLI::App& root, AllFlags& flags) {
  auto* bench = root.add_subcommand("bench", "Measure a broker: throughput, and latency under a given load");
  bench->require_subcommand(1);
  auto add = [&](const char* kind, const char* what) {
    auto* command = bench->add_subcommand(kind, what);
    auto& f = flags.bench;
    command->add_option("--topic", f.topic, "Use this topic and keep it; default: one of its own, deleted afterwards")->type_name("TOPIC");
    if (std::string_view{kind} != "sub") {
      each(command->add_option("--rate", f.rate, "Offered load in records per second (5000, 20k); repeat it or write 1k,5k,20k for a sweep"))->type_name("R");
      command->add_flag("--max", f.max, "As fast as acknowledgements come, instead of a given load");
      command->add_option("--duration", f.duration, "How long each load is measured (default 10s)")->type_name("DURATION");
      command->add_option("--warmup", f.warmup, "Before each load, not measured (default 1s)")->type_name("DURATION");
      command->add_option("--producers", f.producers, "Clients, each with its own connection")->check(CLI::Range(1, 64).description(""))->type_name("N");
      command->add_option("--keys", f.keys, "Different keys; 0: records without keys")->type_name("N");
      command->add_option("--compression", f.compression, "none, lz4 or zstd")->check(one_of({"none", "lz4", "zstd"}))->type_name("none|lz4|zstd");
    }
    command->add_option("--size", f.size, "Bytes of each value (default 1KiB)")->type_name("SIZE");
    command->add_option("--records", f.records, "Stop after this many; sub: how many to publish first (default 1,000,000)")->type_name("N");
    command->add_option("--partitions", f.partitions, "Of a topic of its own")->check(CLI::Range(1, 10'000).description(""))->type_name("N");
    command->add_option("--durability", f.durability, "Of a topic of its own: quorum, leader or relaxed")->check(one_of({"quorum", "leader", "relaxed"}))->type_name("quorum|leader|relaxed");
    command->add_option("--svg", f.svg, "Write a picture of latency against load, or of the percentiles of one load")->type_name("FILE");
    add_common_flags(*command, flags, true);
    command->footer(
        "examples:\n  tailrace bench pub --rate 20k --duration 30s\n  tailrace bench e2e --rate 1k,5k,20k,50k --svg latency.svg -o json\n  tailrace bench pub --max --size 100\n\n"
        "Latency counts from when a record was meant to be sent, also while the broker or this client was late.");
    command->callback([&flags, kind = std::string{kind}] {
      flags.bench.kind = kind;
      flags.action = [&flags](Context& context) { return cli::bench(context, flags.bench); };
    });
  };
  add("pub", "Intended send to acknowledgement");
  add("sub", "How fast a topic is read");
  add("e2e", "Intended send to delivery");
}

}  // namespace

void add_client_commands(CLI::App& root, AllFlags& flags) {
  add_topic(root, flags);
  add_pub(root, flags);
  add_tail(root, flags);
  add_bench(root, flags);
}

}  // namespace tailrace::cli
