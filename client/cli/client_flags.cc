// The flags of topic, pub, tail and bench.
#include "command_flags.h"

namespace tailrace::cli {
namespace {

constexpr std::int64_t kPartitionsMax = 10'000;
constexpr std::uint64_t kBenchValueMin = 16, kBenchValueMax = 32u << 20;

/// "1k,5k,20k"
Parsed<std::vector<double>> parse_rates(const std::string& text) {
  std::vector<double> rates;
  for (std::size_t at = 0; at <= text.size();) {
    const auto comma = std::min(text.find(',', at), text.size());
    auto rate = parse_rate(std::string_view{text}.substr(at, comma - at));
    if (!rate) return std::unexpected(rate.error());
    rates.push_back(*rate);
    at = comma + 1;
  }
  return rates;
}

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
  add_number(*create, "--partitions", flags.topic.partitions, 1, kPartitionsMax, "How many partitions (default 1)");
  each(create->add_option("-c,--config", flags.topic.config, "A topic key, repeatable: retention_time=7d; keys: tailrace config explain topic"))->type_name("KEY=VALUE");
  create->add_flag("--if-not-exists", flags.topic.if_not_exists, "Succeed when it is there already");
  add_plan_flags(create, flags, false);
  add_common_flags(*create, flags, Talks::to_a_broker, {Format::table, Format::json, Format::jsonl, Format::raw});
  create->footer("examples:\n  tailrace topic create orders --partitions 4\n  tailrace topic create logs -c retention_time=7d -c retention_bytes=10GiB\n\nNothing is deleted from a topic unless its retention_time or retention_bytes says so.");
  runs(create, flags, [](Context& c, AllFlags& f) { return topic_create(c, f.topic); });

  auto* list = topic->add_subcommand("ls", "List topics")->alias("list");
  list->add_flag("--internal", flags.topic.internal, "Also the broker's own (names that begin with __)");
  add_common_flags(*list, flags, Talks::to_a_broker, {Format::table, Format::json, Format::jsonl, Format::raw});
  list->footer("examples:\n  tailrace topic ls\n  tailrace topic ls -o raw | xargs -n1 tailrace topic describe");
  runs(list, flags, [](Context& c, AllFlags& f) { return topic_list(c, f.topic); });

  auto* describe = topic->add_subcommand("describe", "Partitions, sizes, first and last offset and time, configuration");
  topic_argument(describe, flags.topic.name);
  add_common_flags(*describe, flags, Talks::to_a_broker, {Format::table, Format::json, Format::jsonl});
  describe->footer("examples:\n  tailrace topic describe orders\n  tailrace topic describe orders -o json | jq '.partitions[].bytes'");
  runs(describe, flags, [](Context& c, AllFlags& f) { return topic_describe(c, f.topic); });

  auto* alter = topic->add_subcommand("alter", "Change a topic's keys or add partitions");
  topic_argument(alter, flags.topic.name);
  add_number(*alter, "--partitions", flags.topic.partitions, 1, kPartitionsMax, "Grow to this many; keyed records then land elsewhere than before");
  each(alter->add_option("-c,--config", flags.topic.config, "Set a topic key, repeatable"))->type_name("KEY=VALUE");
  each(alter->add_option("--unset", flags.topic.unset, "Back to the default, repeatable"))->type_name("KEY");
  add_plan_flags(alter, flags, false);
  add_common_flags(*alter, flags, Talks::to_a_broker, {Format::table, Format::json, Format::jsonl});
  alter->footer("examples:\n  tailrace topic alter orders -c retention_time=30d\n  tailrace topic alter orders --unset retention_time --dry-run");
  runs(alter, flags, [](Context& c, AllFlags& f) { return topic_alter(c, f.topic); });

  auto* remove = topic->add_subcommand("delete", "Delete a topic and its records");
  topic_argument(remove, flags.topic.name);
  add_plan_flags(remove, flags, true);
  add_common_flags(*remove, flags, Talks::to_a_broker, {Format::table, Format::json, Format::jsonl});
  remove->footer("examples:\n  tailrace topic delete scratch --dry-run\n  tailrace topic delete scratch --yes");
  runs(remove, flags, [](Context& c, AllFlags& f) { return topic_delete(c, f.topic); });

  auto* purge = topic->add_subcommand("purge", "Delete records before an offset or a time; offsets stay as they are");
  topic_argument(purge, flags.topic.name);
  purge->add_option("--before", flags.topic.before, "end (default: all records), OFFSET (with -p), -7d, or an RFC 3339 time")->type_name("WHERE");
  add_number(*purge, "-p,--partition", flags.topic.partition, 0, kPartitionsMax - 1, "Only this partition, repeatable");
  add_plan_flags(purge, flags, true);
  add_common_flags(*purge, flags, Talks::to_a_broker, {Format::table, Format::json, Format::jsonl});
  purge->footer("examples:\n  tailrace topic purge orders --before -30d --dry-run\n  tailrace topic purge orders -p 0 --before 1000 --yes");
  runs(purge, flags, [](Context& c, AllFlags& f) { return topic_purge(c, f.topic); });

  auto* skip = topic->add_subcommand("skip-damage", "Give up the damaged offsets of a partition, for good");
  topic_argument(skip, flags.topic.name);
  add_number(*skip, "-p,--partition", flags.topic.partition, 0, kPartitionsMax - 1, "The damaged partition")->required()->expected(1);
  add_plan_flags(skip, flags, true);
  add_common_flags(*skip, flags, Talks::to_a_broker, {Format::table, Format::json, Format::jsonl});
  skip->footer(
      "examples:\n  tailrace topic describe orders                          # the column DAMAGE\n  tailrace topic skip-damage orders -p 0 --dry-run\n  tailrace topic skip-damage orders -p 0 --yes\n\n"
      "A damaged partition is read up to the hole and takes no records until this is said. What to do before: tailrace explain E5303");
  runs(skip, flags, [](Context& c, AllFlags& f) { return topic_skip_damage(c, f.topic); });
}

void add_pub(CLI::App& root, AllFlags& flags) {
  auto* pub = root.add_subcommand("pub", "Publish records: arguments, a file, or a pipe that runs for hours");
  auto& f = flags.pub;
  topic_argument(pub, f.topic);
  pub->add_option("BODY", f.bodies, "Each is one record; without any, standard input is read")->type_name("");
  pub->add_option("-k,--key", f.key, "Key of every record; decides the partition")->type_name("KEY");
  pub->add_option("--key-sep", f.key_separator, "Each line is KEY SEP VALUE, cut at the first SEP; \\t is a tab")->type_name("SEP");
  pub->add_option("--key-regex", f.key_regex, "The key is what this POSIX extended expression (or its first group) matches in the line; the line stays whole")->type_name("RE");
  pub->add_flag("--allow-no-key", f.allow_no_key, "With --key-sep or --key-regex: a line without a key is published without one instead of being an error");
  each(pub->add_option("-H,--header", f.headers, "A header, repeatable; order and repeats are kept"))->type_name("KEY=VALUE");
  add_number(*pub, "-p,--partition", f.partition, 0, kPartitionsMax - 1, "Publish to this partition");
  pub->add_flag("--keep-partition", f.keep_partition, "With -f jsonl: to the partition that each line names");
  add_choice<InputFormat>(*pub, "-f,--format", f.format, {{"lines", InputFormat::lines}, {"jsonl", InputFormat::jsonl}, {"raw", InputFormat::raw}},
                          "lines: one record a line (default); jsonl: what `tail -o jsonl` wrote; raw: each file, or the whole input, is one record");
  each(pub->add_option("--file", f.files, "Read this file, repeatable; - is standard input"))->type_name("FILE");
  add_number(*pub, "--count", f.count, 1, kNoLimit, "Stop after N records; bodies given as arguments are repeated until there are N");
  add_value(*pub, "--rate", f.rate, parse_rate, "At most this many records per second (100, 20k)", "R");
  add_number(*pub, "--skip", f.skip, 0, kNoLimit, "Leave out the first N lines: resumes after an interruption");
  add_choice(*pub, "--compression", f.compression, {"none", "lz4", "zstd"}, "Of the batches, on the wire and on the disk");
  add_duration(*pub, "--linger", f.linger, std::chrono::nanoseconds{0}, "Gather records this long before a batch is sent (default 0: send when nothing is in flight)");
  pub->add_flag("--tombstone", f.tombstone, "Publish one record with the key and no value");
  pub->add_flag("--create", f.create, "Create the topic, with one partition, if it does not exist; a `tailrace dev` broker lets pub do so anyway");
  add_common_flags(*pub, flags, Talks::to_a_broker, {Format::table, Format::jsonl});
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
  add_number(*tail, "-n,--count", f.count, 1, kNoLimit, "Stop after N records");
  tail->add_flag("-F,--follow", f.follow, "Wait for new records at the end, for ever, also for a broker that is gone; of the partitions there are now");
  add_number(*tail, "-p,--partition", f.partitions, 0, kPartitionsMax - 1, "Only this partition, repeatable");
  tail->add_option("--key", f.key, "Only records with exactly this key")->type_name("KEY");
  add_choice(*tail, "--out-of-range", f.out_of_range, {"error", "start", "end"}, "Where to read when the offset is not there; default: an error for --from OFFSET, otherwise start");
  tail->add_option("-g,--group", f.group, "From where this group stands, without being part of it; with --commit as a member")->type_name("GROUP");
  tail->add_flag("--commit", f.commit, "With -g: join the group, share its partitions, and store the offset behind what was printed");
  tail->add_flag("--no-value", f.no_value, "Leave values out");
  tail->add_flag("--fail-empty", f.fail_empty, "Exit code 3 when there was no record");
  add_common_flags(*tail, flags, Talks::to_a_broker, {Format::table, Format::jsonl, Format::raw});
  tail->footer(
      "examples:\n"
      "  tailrace tail orders                                   # terminal: the last 10, then follow. Pipe: all as jsonl, to the end\n"
      "  tailrace tail orders --from -1h --until end -o jsonl | jq .value\n"
      "  tailrace tail orders -p 0 --from 1000 -n 5 -o table\n"
      "  tailrace tail orders --from start -o raw > values.txt  # values, one a line (an empty line for null)\n"
      "  tailrace tail orders -g billing -n 5                   # what the group billing would read next; changes nothing\n"
      "  tailrace tail orders -g billing --commit -F            # as a member of it\n"
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
    const bool is_sub = std::string_view{kind} == "sub";
    if (!is_sub) {
      add_value(*command, "--rate", f.rate, parse_rates, "Offered load in records per second (5000, 20k); repeat it or write 1k,5k,20k for a sweep", "R");
      command->add_flag("--max", f.max, "As fast as acknowledgements come, instead of a given load");
      add_duration(*command, "--duration", f.duration, std::chrono::milliseconds{1}, "How long each load is measured (default 10s)");
      add_duration(*command, "--warmup", f.warmup, std::chrono::nanoseconds{0}, "Before each load, not measured (default 1s)");
      add_number(*command, "--producers", f.producers, 1, 64, "Clients, each with its own connection (default 1)");
      add_number(*command, "--keys", f.keys, 0, 1'000'000'000, "Different keys; 0 (default): records without keys");
      add_choice(*command, "--compression", f.compression, {"none", "lz4", "zstd"}, "Of the batches; values compress to about half");
    }
    add_size(*command, "--size", f.size, kBenchValueMin, kBenchValueMax, "Bytes of each value (default 1KiB); the first 16 tell when it was due");
    add_number(*command, "--records", f.records, 1, kNoLimit, is_sub ? "How many the topic has to hold; the missing ones are published first (default 1,000,000)" : "Stop after this many");
    add_number(*command, "--partitions", f.partitions, 1, kPartitionsMax, "Of a topic of its own");
    add_choice(*command, "--durability", f.durability, {"quorum", "leader", "relaxed"}, "Of a topic of its own");
    command->add_option("--svg", f.svg, "Write a picture of latency against load, or of the percentiles of one load")->type_name("FILE");
    add_common_flags(*command, flags, Talks::to_a_broker, {Format::table, Format::json});
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
  add_group_commands(root, flags);
  add_stream_commands(root, flags);
  add_bench(root, flags);
}

}  // namespace tailrace::cli
