// bench pub|sub|e2e
#include <fmt/format.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "bench/load/runner.h"
#include "commands.h"
#include "interrupt.h"
#include "session.h"
#include "text.h"
#include "version.h"

namespace tailrace::cli {
namespace {

std::string kernel() {
  utsname name{};
  return ::uname(&name) == 0 ? fmt::format("{} {}", name.sysname, name.release) : "unknown";
}

}  // namespace

Outcome<int> bench(Context& context, const BenchFlags& flags) {
  interrupt::install();
  const auto format = context.format(Format::table);
  std::vector<double> rates;
  for (const auto& list : flags.rate) rates.insert(rates.end(), list.begin(), list.end());
  if (flags.max && !rates.empty()) return usage("--max and --rate exclude each other");
  if (flags.kind != "sub" && rates.empty() && !flags.max) return usage(fmt::format("bench {} needs --rate R, or --max", flags.kind), "For example: --rate 5000");
  if (rates.empty()) rates.push_back(0);
  if (!flags.topic.empty() && (flags.partitions != 1 || !flags.durability.empty())) return usage("--partitions and --durability are of a topic of its own; leave out --topic");

  if (!flags.svg.empty() && !std::ofstream{flags.svg, std::ios::binary | std::ios::app}) {
    return failed(Errc::io_error, fmt::format("--svg {}: {}", flags.svg, std::strerror(errno)), "Name another file; nothing was measured", kFailed);
  }
  auto session = Session::open(context);
  if (!session) return std::unexpected(session.error());
  const bool own = flags.topic.empty();
  const auto topic = own ? fmt::format("bench-{}-{}", ::getpid(), std::chrono::system_clock::now().time_since_epoch().count() / 1'000'000) : flags.topic;
  load::Conditions conditions;
  if (own) {
    TopicSpec spec;
    spec.partitions = flags.partitions;
    if (!flags.durability.empty()) spec.config["durability"] = flags.durability;
    auto created = Session::wait(session->admin().create_topic(topic, std::move(spec)));
    if (!created) return std::unexpected(session->failure(created.error(), topic));
    conditions.partitions = flags.partitions;
  } else {
    auto described = Session::wait(session->admin().describe_topic(topic));
    if (!described) return std::unexpected(session->failure(described.error(), topic));
    conditions.partitions = static_cast<int>(described->partitions.size());
  }

  load::LoadOptions options;
  options.servers = servers_of(context.flags, std::getenv("TAILRACE_SERVERS"));
  options.topic = topic;
  options.duration = flags.kind == "sub" || (flags.records > 0 && flags.max) ? std::chrono::nanoseconds{0} : flags.duration;
  options.warmup = flags.warmup;
  options.records = flags.kind == "sub" && flags.records == 0 ? 1'000'000 : flags.records;
  options.record_bytes = flags.size;
  options.producers = flags.producers;
  options.keys = flags.keys;
  options.compression = flags.compression == "lz4" ? Compression::lz4 : flags.compression == "zstd" ? Compression::zstd : Compression::none;
  options.timeout = session->timeout();
  options.stop = [] { return interrupt::requested(); };

  std::vector<load::RunResult> runs;
  std::optional<Failure> failure;
  for (const double rate : rates) {
    if (interrupt::requested()) break;
    Progress progress{context.terminal.stderr_is_terminal && !context.flags.quiet, rate > 0 ? fmt::format("bench {} {:g}/s", flags.kind, rate) : fmt::format("bench {}", flags.kind), context.terminal.columns};
    options.rate = rate;
    options.progress = [&](std::uint64_t done, std::uint64_t total) { progress.update(done, total, counted(done, "record")); };
    auto measured = flags.kind == "pub" ? load::run_pub(options) : flags.kind == "e2e" ? load::run_e2e(options) : load::run_sub(options);
    progress.clear();
    if (!measured) {
      failure = session->failure(measured.error(), topic);
      break;
    }
    conditions.durability = measured->durability;
    runs.push_back(std::move(measured->result));
  }
  if (own) {
    if (auto deleted = session->admin().delete_topic(topic).get(); !deleted) context.warn(fmt::format("topic {} was not deleted: {}", topic, deleted.error().message));
  }
  const auto name = session->name();
  session->close();
  if (failure) return std::unexpected(std::move(*failure));

  conditions.kind = flags.kind;
  conditions.compression = flags.compression;
  conditions.commit = commit();
  conditions.kernel = kernel();
  conditions.servers = name;
  conditions.topic = topic;
  conditions.record_bytes = flags.size;
  if (flags.kind == "sub" && !runs.empty() && runs.front().records > 0) {
    // What was read, not what would have been published.
    conditions.record_bytes = runs.front().bytes / runs.front().records;
    if (!own) conditions.compression = "as stored";
  }
  conditions.producers = flags.kind == "sub" ? 0 : flags.producers;
  conditions.open_loop = flags.kind != "sub" && !flags.max;
  context.out.write(format == Format::json ? load::json_report(conditions, runs) : load::text_report(conditions, runs));
  if (!flags.svg.empty()) {
    std::ofstream file{flags.svg, std::ios::binary};
    file << load::svg_report(conditions, runs);
    file.close();
    if (!file) return failed(Errc::io_error, fmt::format("--svg {}: cannot be written", flags.svg), "Name another file");
  }
  std::uint64_t lost = 0;
  for (const auto& run : runs) lost += run.failed;
  if (lost > 0) return failed(Errc::timeout, fmt::format("{} failed or did not arrive", counted(lost, "record")), "The figures are of the others", kPartial);
  return finished(context, interrupt::requested() ? kInterrupted : kOk);
}

}  // namespace tailrace::cli
