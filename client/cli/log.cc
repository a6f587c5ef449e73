// log verify and log dump: the offline tools of the log room, on a shard thread of their own.
#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>

#include "commands.h"
#include "json_writer.h"
#include "log/verify.h"
#include "server/io_backend.h"
#include "text.h"

namespace tailrace::cli {
namespace {

namespace log_ns = broker::log;

constexpr std::chrono::hours kNoHurry{24 * 7};  // a large data directory takes its time; Ctrl-C ends it

/// The log room's lines, as JSON with a schema or, of a check for people, only the damage, as a sentence.
class Lines final : public log_ns::LineSink {
 public:
  Lines(Context& context, Format format, std::string_view schema)
      : context_(context), schema_(schema), format_(format),
        // A bar between the lines of a terminal would only disturb.
        progress_{context.terminal.stderr_is_terminal && !context.flags.quiet && (format == Format::table || !context.terminal.stdout_is_terminal), "checking", context.terminal.columns},
        wants_progress_{context.terminal.stderr_is_terminal && !context.flags.quiet} {}
  void progress(const log_ns::VerifyCounts& so_far, std::uint64_t bytes_expected) override {
    progress_.update(so_far.bytes, bytes_expected, so_far.damaged == 0 ? human_bytes(so_far.bytes) : fmt::format("{}, DAMAGED in {}", human_bytes(so_far.bytes), counted(so_far.damaged, "place")));
  }
  void clear_progress() { progress_.clear(); }
  [[nodiscard]] bool wants_progress() const override { return wants_progress_; }
  void line(std::string_view json) override {
    if (format_ == Format::table) return damage(json);
    context_.out.write(fmt::format("{{\"schema\":\"{}\",", schema_));
    context_.out.write(json.substr(1));
    context_.out.write("\n");
  }

 private:
  void damage(std::string_view json) {
    const auto found = nlohmann::json::parse(json, nullptr, false);
    if (!found.is_object() || !found.contains("damage")) return;
    progress_.clear();
    const auto bytes = found.value("bytes", std::uint64_t{0});
    const auto place = bytes == 0 ? std::string{} : fmt::format(" at {}, {} B", found.value("position", std::uint64_t{0}), bytes);
    context_.out.write(fmt::format("DAMAGE  {}{}: {}\n", printable(found.value("file", std::string{})), place, printable(found.value("damage", std::string{}))));
    context_.out.flush();  // what was found must be there if the rest takes long or is interrupted
  }

  Context& context_;
  std::string_view schema_;
  Format format_;
  Progress progress_;
  bool wants_progress_;
};

/// The broker's error: its own sentence, and the particulars behind it.
Failure failure_of(const broker::Error& error, std::string hint = {}) {
  auto sentence = std::string{describe(error.code).sentence};
  while (sentence.ends_with('.')) sentence.pop_back();
  return {error.code, error.detail.empty() ? sentence : fmt::format("{}: {}", sentence, error.detail), std::move(hint)};
}

template <class F>
Outcome<log_ns::VerifyCounts> on_a_shard(F work) {
  // Threads: reading needs no ring, and works where io_uring is refused.
  broker::server::ShardThread thread{broker::ShardIndex{0}, broker::server::IoBackend::threads, 1};
  if (auto started = thread.start(); !started) return std::unexpected(failure_of(started.error()));
  auto counts = thread.ask([&]() -> broker::Task<broker::Result<log_ns::VerifyCounts>> { co_return co_await work(thread.runtime()); }, kNoHurry);
  thread.finish();
  if (!counts) return failed(Errc::timeout, "the check did not end within a week");
  if (!*counts) return std::unexpected(failure_of(counts->error()));
  return **counts;
}

}  // namespace

Outcome<int> log_verify(Context& context, const LogFlags& flags) {
  if (std::error_code none; std::filesystem::is_regular_file(flags.path, none)) {
    return failed(Errc::not_a_directory, fmt::format("{} is a file", flags.path), fmt::format("Name the data directory, or look at the file: tailrace log dump {}", flags.path));
  }
  const auto format = context.format(Format::table);
  Lines lines{context, format, "tailrace.verify_fact.v1"};
  auto counts = on_a_shard([&](broker::io::Runtime& runtime) { return log_ns::verify_directory(runtime, flags.path, lines); });
  lines.clear_progress();
  if (!counts) {
    auto failure = counts.error();
    if (failure.code == Errc::data_directory_locked) failure.hint = "Files can only be checked at rest: stop the broker first, or check a copy";
    return std::unexpected(std::move(failure));
  }
  if (format != Format::table) {
    JsonWriter json;
    json.begin_object().field("schema", "tailrace.verify.v1").field("files", counts->files).field("bytes", counts->bytes).field("wal_frames", counts->frames);
    json.field("partitions", counts->partitions).field("batches", counts->batches).field("records", counts->records).field("damaged", counts->damaged).field("torn_tails", counts->torn).end_object();
    context.out.write(json.take() + "\n");
  } else {
    context.out.write(fmt::format("{}  {}, {}; {} with {} in {}; {} in the WAL{}\n", counts->damaged == 0 ? "ok" : fmt::format("DAMAGED in {}", counted(counts->damaged, "place")),
                                  counted(counts->files, "file"), human_bytes(counts->bytes), counted(counts->partitions, "partition"), counted(counts->records, "record"), counts->batches == 1 ? std::string{"1 batch"} : fmt::format("{} batches", human_count(counts->batches)),
                                  counted(counts->frames, "frame"), counts->torn == 0 ? "" : fmt::format("; {} (writes that were under way at a crash, never acknowledged)", counted(counts->torn, "torn tail"))));
  }
  if (counts->damaged > 0) context.tell("What to do: tailrace explain E5303");
  return finished(context, counts->damaged == 0 ? kOk : kFailed);
}

Outcome<int> log_dump(Context& context, const LogFlags& flags) {
  if (std::error_code none; std::filesystem::is_directory(flags.path, none)) {
    return usage(fmt::format("{} is a directory", flags.path), fmt::format("Name one of its files, or check all of them: tailrace log verify {}", flags.path));
  }
  Lines lines{context, Format::jsonl, "tailrace.dump.v1"};
  auto counts = on_a_shard([&](broker::io::Runtime& runtime) { return log_ns::dump_file(runtime, flags.path, lines); });
  if (!counts) return std::unexpected(counts.error());
  if (counts->damaged > 0) note(fmt::format("damaged in {}", counted(counts->damaged, "place")));
  return finished(context, counts->damaged == 0 ? kOk : kFailed);
}

}  // namespace tailrace::cli
