// log verify and log dump: the offline tools of the log room, on a shard thread of their own.
#include <fmt/format.h>

#include "commands.h"
#include "json_writer.h"
#include "log/verify.h"
#include "server/io_backend.h"
#include "text.h"

namespace tailrace::cli {
namespace {

namespace log_ns = broker::log;

constexpr std::chrono::hours kNoHurry{24 * 7};  // a large data directory takes its time; Ctrl-C ends it

class Lines final : public log_ns::LineSink {
 public:
  Lines(Context& context, bool only_damage) : context_(context), only_damage_(only_damage) {}
  void line(std::string_view json) override {
    if (only_damage_ && json.find("\"damage\"") == std::string_view::npos) return;
    context_.out.write(json);
    context_.out.write("\n");
    // What was found must be there if the rest takes long or is interrupted.
    if (only_damage_) context_.out.flush();
  }

 private:
  Context& context_;
  bool only_damage_;
};

template <class F>
Outcome<log_ns::VerifyCounts> on_a_shard(F work) {
  // Threads: reading needs no ring, and works where io_uring is refused.
  broker::server::ShardThread thread{broker::ShardIndex{0}, broker::server::IoBackend::threads, 1};
  if (auto started = thread.start(); !started) return failed(started.error().code, started.error().detail);
  auto counts = thread.ask([&]() -> broker::Task<broker::Result<log_ns::VerifyCounts>> { co_return co_await work(thread.runtime()); }, kNoHurry);
  thread.finish();
  if (!counts) return failed(Errc::timeout, "the check did not end within a week");
  if (!*counts) return failed(counts->error().code, counts->error().detail);
  return **counts;
}

}  // namespace

Outcome<int> log_verify(Context& context, const LogFlags& flags) {
  const auto format = context.format(Format::table);
  Lines lines{context, format == Format::table};
  auto counts = on_a_shard([&](broker::io::Runtime& runtime) { return log_ns::verify_directory(runtime, flags.path, lines); });
  if (!counts) return std::unexpected(counts.error());
  if (format == Format::jsonl) {
    JsonWriter json;
    json.begin_object().field("schema", "tailrace.verify.v1").field("files", counts->files).field("bytes", counts->bytes).field("wal_frames", counts->frames);
    json.field("partitions", counts->partitions).field("batches", counts->batches).field("records", counts->records).field("damaged", counts->damaged).field("torn_tails", counts->torn).end_object();
    context.out.write(json.take() + "\n");
  } else {
    context.out.write(fmt::format("{}  {}, {}; {} with {} in {}; {} in the WAL{}\n", counts->damaged == 0 ? "ok" : fmt::format("DAMAGED in {}", counted(counts->damaged, "place")),
                                  counted(counts->files, "file"), human_bytes(counts->bytes), counted(counts->partitions, "partition"), counted(counts->records, "record"), counts->batches == 1 ? std::string{"1 batch"} : fmt::format("{} batches", human_count(counts->batches)),
                                  counted(counts->frames, "frame"), counts->torn == 0 ? "" : fmt::format("; {} (writes that were under way at a crash, never acknowledged)", counted(counts->torn, "torn tail"))));
  }
  return finished(context, counts->damaged == 0 ? kOk : kFailed);
}

Outcome<int> log_dump(Context& context, const LogFlags& flags) {
  Lines lines{context, false};
  auto counts = on_a_shard([&](broker::io::Runtime& runtime) { return log_ns::dump_file(runtime, flags.path, lines); });
  if (!counts) return std::unexpected(counts.error());
  if (counts->damaged > 0) note(fmt::format("damaged in {}", counted(counts->damaged, "place")));
  return finished(context, counts->damaged == 0 ? kOk : kFailed);
}

}  // namespace tailrace::cli
