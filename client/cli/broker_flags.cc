// The flags of server, dev, config, log, explain and gen.
#include "command_flags.h"
#include "command_tree.h"

namespace tailrace::cli {
namespace {

void add_configuration_flags(CLI::App* command, AllFlags& flags) {
  auto& f = flags.server;
  command->add_option("-c,--config", f.file, "Configuration file (TOML)")->type_name("FILE");
  command->add_option("--data", f.data, "Data directory")->type_name("DIR");
  command->add_option("--listen", f.listen, "Address of the native protocol; port 0: any free one")->type_name("HOST:PORT");
  command->add_option("--http-listen", f.http_listen, "Address of /metrics, /healthz and /readyz")->type_name("HOST:PORT");
  each(command->add_option("--set", f.set, "Any configuration key, repeatable; beats environment and file"))->type_name("SECTION.KEY=VALUE");
}

}  // namespace

void add_broker_commands(CLI::App& root, AllFlags& flags) {
  auto* server = root.add_subcommand("server", "Run the broker");
  add_configuration_flags(server, flags);
  server->add_flag("--check", flags.server.check, "Only check the configuration, and print its digest");
  add_common_flags(*server, flags, Talks::to_nobody, {});
  server->footer(
      "examples:\n  tailrace server --data /var/lib/tailrace\n  tailrace server -c /etc/tailrace/tailrace.toml --set log.level=debug\n\n"
      "When it serves, it prints one line on standard output: ready native=HOST:PORT http=HOST:PORT\nSIGTERM drains and stops. Keys: tailrace config explain");
  runs(server, flags, [](Context& c, AllFlags& f) { return cli::server(c, f.server); });

  auto* dev = root.add_subcommand("dev", "Run a broker for development on ./.tailrace");
  add_configuration_flags(dev, flags);
  dev->add_flag("--ephemeral", flags.server.ephemeral, "Data in a temporary directory, removed at the end");
  add_choice(*dev, "--seed", flags.server.seed, {"orders"}, "A sample topic with a live producer");
  add_common_flags(*dev, flags, Talks::to_nobody, {});
  dev->footer("examples:\n  tailrace dev\n  tailrace dev --ephemeral --seed orders      # then, elsewhere: tailrace tail orders");
  runs(dev, flags, [](Context& c, AllFlags& f) { return cli::dev(c, f.server); });

  auto* config = root.add_subcommand("config", "Check, show and explain the broker's configuration");
  config->require_subcommand(1);
  auto* check = config->add_subcommand("check", "Every problem of a configuration, with its place");
  check->add_option(kFileArgument, flags.server.file, "Configuration file (also -c)")->type_name("");
  add_configuration_flags(check, flags);
  add_common_flags(*check, flags, Talks::to_nobody, {Format::table, Format::json});
  check->footer("examples:\n  tailrace config check /etc/tailrace/tailrace.toml");
  runs(check, flags, [](Context& c, AllFlags& f) { return config_check(c, f.server); });
  auto* show = config->add_subcommand("show", "The effective values, as a file that would give them");
  add_configuration_flags(show, flags);
  show->add_flag("--origin", flags.server.origin, "Say which layer set each value");
  add_common_flags(*show, flags, Talks::to_nobody, {Format::table, Format::json});
  show->footer("examples:\n  tailrace config show -c tailrace.toml --origin\n  tailrace config show > tailrace.toml");
  runs(show, flags, [](Context& c, AllFlags& f) { return config_show(c, f.server); });
  auto* explain_key = config->add_subcommand("explain", "What a key means, its unit, default and bounds");
  explain_key->add_option("KEY", flags.server.key, "A key, a section, or `topic`; default: all")->type_name("");
  add_common_flags(*explain_key, flags, Talks::to_nobody, {Format::table, Format::json});
  explain_key->footer("examples:\n  tailrace config explain wal.file_bytes\n  tailrace config explain topic");
  runs(explain_key, flags, [](Context& c, AllFlags& f) { return config_explain(c, f.server); });

  auto* log = root.add_subcommand("log", "Look into data files, with the broker stopped");
  log->require_subcommand(1);
  auto* verify = log->add_subcommand("verify", "Re-check every file of a data directory; exit code 1 if any is damaged");
  verify->add_option(kFileArgument, flags.log.path, "Data directory")->required()->type_name("");
  add_common_flags(*verify, flags, Talks::to_nobody, {Format::table, Format::jsonl});
  verify->footer("examples:\n  tailrace log verify /var/lib/tailrace");
  runs(verify, flags, [](Context& c, AllFlags& f) { return log_verify(c, f.log); });
  auto* dump = log->add_subcommand("dump", "Print a WAL, segment, index, snapshot or checkpoint, one JSON object a line");
  dump->add_option(kFileArgument, flags.log.path, "File")->required()->type_name("");
  add_common_flags(*dump, flags, Talks::to_nobody, {Format::jsonl});
  dump->footer("examples:\n  tailrace log dump .tailrace/shard-0/wal/00.log\n  tailrace log dump .tailrace/shard-0/checkpoint-0 | jq .");
  runs(dump, flags, [](Context& c, AllFlags& f) { return log_dump(c, f.log); });

  auto* explain = root.add_subcommand("explain", "What an error code means and what to do");
  explain->add_option("CODE", flags.explain.code, "E2031, 2031 or no_such_topic; default: all")->type_name("");
  add_common_flags(*explain, flags, Talks::to_nobody, {Format::table, Format::json, Format::jsonl});
  explain->footer("examples:\n  tailrace explain E2031\n  tailrace explain -o jsonl | jq .hint");
  runs(explain, flags, [](Context& c, AllFlags& f) { return cli::explain(c, f.explain); });

  auto* gen = root.add_subcommand("gen", "Generate completion scripts and sample data");
  gen->require_subcommand(1);
  auto* completion = gen->add_subcommand("completion", "A completion script");
  add_choice(*completion, "SHELL", flags.gen.shell, {"bash", "zsh"}, "bash or zsh")->required()->type_name("");
  add_common_flags(*completion, flags, Talks::to_nobody, {});
  completion->footer("examples:\n  source <(tailrace gen completion bash)\n  tailrace gen completion zsh > \"${fpath[1]}/_tailrace\"");
  runs(completion, flags, [](Context& c, AllFlags& f) -> Outcome<int> {
    c.out.write(f.gen.shell == "bash" ? bash_completion(command_tree()) : zsh_completion(command_tree()));
    return finished(c);
  });
  auto* orders = gen->add_subcommand("orders", "Order events, one JSON object a line; the same seed gives the same bytes");
  add_number(*orders, "--count", flags.gen.count, 0, kNoLimit, "How many (default 1000)");
  add_number(*orders, "--seed", flags.gen.seed, 0, kNoLimit, "Any whole number (default 1)");
  add_common_flags(*orders, flags, Talks::to_nobody, {});
  orders->footer("examples:\n  tailrace gen orders --count 100000 --seed 7 | tailrace pub orders");
  runs(orders, flags, [](Context& c, AllFlags& f) { return gen_orders(c, f.gen); });
}

}  // namespace tailrace::cli
