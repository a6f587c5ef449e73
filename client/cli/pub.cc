// pub: publishes a stream of records with bounded memory, and knows at every moment which of them are acknowledged.
#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "ack_tracker.h"
#include "bench/load/schedule.h"
#include "commands.h"
#include "interrupt.h"
#include "json_writer.h"
#include "pub_input.h"
#include "session.h"
#include "text.h"

namespace tailrace::cli {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kRoomPoll{20};

/// What became of the records. Written on the client's callback thread, read on main: hence the mutex.
class Fate {
 public:
  Fate(Stdout* receipts, std::uint64_t first) : acks_(first), receipts_(receipts) {}

  void on_delivered(std::span<const Delivered> batch) {
    std::lock_guard lock{mutex_};
    std::string lines;
    for (const auto& d : batch) {
      ++settled_;
      if (d.error == nullptr) {
        acks_.acknowledged(d.tag);
        last_topic_ = d.topic;
        last_ = {d.partition, d.offset, d.time, d.duplicate};
        if (receipts_ != nullptr) append_receipt(lines, d);
      } else {
        ++failures_;
        if (d.error->maybe_applied) ++unknown_;
        if (!first_error_ || d.tag < first_error_line_) {
          first_error_ = *d.error;
          first_error_line_ = d.tag;
        }
      }
    }
    // Flushed with every batch of acknowledgements: never later than they came, and once per batch under load.
    if (!lines.empty()) {
      receipts_->write(lines);
      receipts_->flush();
      reader_left_ |= receipts_->closed() || receipts_->error() != 0;
    }
    changed_.notify_all();
  }

  /// Waits until something settled or `wait` passed; answers whether there is a reason to stop publishing.
  bool wait_for_room(milliseconds wait) {
    std::unique_lock lock{mutex_};
    const auto before = settled_;
    changed_.wait_for(lock, wait, [&] { return settled_ != before; });
    return stop();
  }
  bool wait_until_settled(std::uint64_t posted, milliseconds wait) {
    std::unique_lock lock{mutex_};
    return changed_.wait_for(lock, wait, [&] { return settled_ >= posted; });
  }
  bool should_stop() {
    std::lock_guard lock{mutex_};
    return stop();
  }
  struct Snapshot {
    std::uint64_t settled, acknowledged, prefix, beyond_prefix, failures, unknown;
    bool reader_left;
    std::optional<Error> first_error;
    std::uint64_t first_error_line;
    std::string last_topic;
    Receipt last;
  };
  Snapshot snapshot() {
    std::lock_guard lock{mutex_};
    return {settled_, acks_.count(), acks_.prefix(), acks_.beyond_prefix(), failures_, unknown_, reader_left_, first_error_, first_error_line_, last_topic_, last_};
  }

 private:
  bool stop() const { return failures_ > 0 || reader_left_; }
  static void append_receipt(std::string& out, const Delivered& d) {
    out += "{\"schema\":\"tailrace.receipt.v1\",\"line\":";
    fmt::format_to(std::back_inserter(out), "{},\"topic\":", d.tag + 1);
    append_json_string(out, d.topic);
    fmt::format_to(std::back_inserter(out), ",\"partition\":{},\"offset\":{},\"timestamp\":", d.partition, d.offset);
    append_json_time(out, d.time);
    out += "}\n";
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  AckTracker acks_;
  Stdout* receipts_;
  std::uint64_t settled_ = 0;
  std::uint64_t failures_ = 0;
  std::uint64_t unknown_ = 0;  // of the failures, those that may be stored
  std::uint64_t first_error_line_ = 0;
  std::optional<Error> first_error_;
  std::string last_topic_;
  Receipt last_;
  bool reader_left_ = false;
};

Compression compression_of(std::string_view name) { return name == "lz4" ? Compression::lz4 : name == "zstd" ? Compression::zstd : Compression::none; }

/// Sleeps until `when`; false if interrupted before.
bool sleep_until(Clock::time_point when) {
  for (;;) {
    if (interrupt::requested()) return false;
    const auto left = when - Clock::now();
    if (left <= Clock::duration::zero()) return true;
    if (left < milliseconds{2}) {
      std::this_thread::sleep_for(left);
      continue;
    }
    pollfd wake{interrupt::descriptor(), POLLIN, 0};
    ::poll(&wake, 1, static_cast<int>(std::chrono::duration_cast<milliseconds>(left).count()));
  }
}

}  // namespace

Outcome<int> pub(Context& context, const PubFlags& flags) {
  interrupt::install();
  const auto format = context.format(Format::table);
  auto input = PubInput::open(flags, interrupt::descriptor());
  if (!input) return std::unexpected(input.error());
  if (flags.linger >= context.flags.timeout) return usage("--linger must be shorter than --timeout");

  auto session = Session::open(context);
  if (!session) return std::unexpected(session.error());
  // Asked first: a topic that is not there is said before anything is read, with the names that are close.
  auto described = Session::wait(session->admin().describe_topic(flags.topic));
  auto may_create = [&] {
    if (flags.create) return true;
    auto cluster = Session::wait(session->admin().cluster());
    return cluster && std::ranges::find(cluster->features, "auto_create_topics") != cluster->features.end();
  };
  if (!described && described.error().code == Errc::no_such_topic && may_create()) {
    auto created = Session::wait(session->admin().create_topic(flags.topic));
    if (!created && created.error().code != Errc::topic_exists) return std::unexpected(session->failure(created.error(), flags.topic));
    context.tell(fmt::format("created topic {} with 1 partition", flags.topic));
    described = Session::wait(session->admin().describe_topic(flags.topic));
  }
  if (!described) return std::unexpected(session->failure(described.error(), flags.topic));
  const auto partition_count = static_cast<std::int32_t>(described->topic.partitions.size());
  if (flags.partition && (*flags.partition < 0 || *flags.partition >= partition_count)) {
    return failed(Errc::no_such_partition, fmt::format("{} has no partition {}, it has {}", flags.topic, *flags.partition, counted(static_cast<std::uint64_t>(partition_count), "partition")),
                  fmt::format("See: tailrace topic describe {}", flags.topic));
  }

  auto fate = std::make_shared<Fate>(format == Format::jsonl ? &context.out : nullptr, flags.skip);
  ProducerOptions options;
  options.compression = compression_of(flags.compression);
  options.linger = std::chrono::duration_cast<milliseconds>(flags.linger);
  options.delivery_timeout = session->timeout();
  options.when_full = WhenFull::fail;  // waits are ours, so that Ctrl-C can end them
  options.on_delivered = [fate](std::span<const Delivered> batch) { fate->on_delivered(batch); };
  auto producer = session->client().producer(std::move(options));
  if (!producer) return std::unexpected(session->failure(producer.error(), flags.topic));

  if (input->reads_stdin() && context.terminal.stdin_is_terminal && flags.format != InputFormat::raw) context.tell("reading one record a line; end with Ctrl-D");
  Progress progress{context.terminal.stderr_is_terminal && !context.flags.quiet, "publishing", context.terminal.columns};
  const auto started = Clock::now();
  std::optional<load::Schedule> schedule;
  if (flags.rate > 0) schedule.emplace(started, flags.rate);

  std::uint64_t posted = 0, bytes = 0;
  std::optional<Failure> stopped;  // why reading ended before the input did
  bool interrupted = false;
  while (!interrupted && !stopped && !fate->should_stop()) {
    auto next = input->next(200);
    if (!next) {
      stopped = next.error();
      break;
    }
    if (*next == PubInput::Next::end) break;
    if (*next == PubInput::Next::interrupted || interrupt::requested()) {
      interrupted = true;
      break;
    }
    if (*next == PubInput::Next::idle) {
      progress.update(input->bytes_taken(), input->bytes_total(), counted(posted, "record"));
      continue;
    }
    if (schedule && !sleep_until(schedule->intended(posted))) {
      interrupted = true;
      break;
    }
    RecordView record = input->record();
    record.topic = flags.topic;
    auto progressed = Clock::now();
    for (;;) {
      auto accepted = producer->post(record, input->index());
      if (accepted) {
        ++posted;
        bytes += (record.key ? record.key->size() : 0) + (record.value ? record.value->size() : 0);
        break;
      }
      if (accepted.error().code != Errc::queue_full) {
        stopped = session->failure(accepted.error(), flags.topic);
        stopped->message = fmt::format("record {}: {}", input->index() + 1, stopped->message);
        break;
      }
      const auto settled = fate->snapshot().settled;
      if (fate->wait_for_room(kRoomPoll)) break;
      if (interrupt::requested()) {
        interrupted = true;
        break;
      }
      if (fate->snapshot().settled != settled) progressed = Clock::now();
      // Records in flight time out by themselves; this bound only catches a client that lost track of them.
      if (Clock::now() - progressed > 2 * session->timeout()) {
        stopped = Failure{Errc::queue_full, "no room for more records, and no acknowledgement came", {}};
        break;
      }
    }
    if (schedule || (posted & 1023) == 0) progress.update(input->bytes_taken(), input->bytes_total(), counted(posted, "record"));
  }
  progress.clear();
  if (interrupted && fate->snapshot().settled < posted) context.tell("waiting for acknowledgements; Ctrl-C again leaves at once");
  (void)producer->flush(session->timeout());
  (void)producer->close(milliseconds{1'000});  // what flush could not get answered gets its error here
  fate->wait_until_settled(posted, milliseconds{5'000});
  session->close();
  const auto elapsed = std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - started);

  const auto end = fate->snapshot();
  const bool whole = !interrupted && !stopped && end.failures == 0 && !end.reader_left && end.settled == posted;
  std::string summary = fmt::format("{}, {}, {}", counted(end.acknowledged, "record"), human_bytes(bytes), human_duration(elapsed));
  if (end.acknowledged == 1) summary += fmt::format(": {}[{}]@{}{}", end.last_topic, end.last.partition, end.last.offset, end.last.duplicate ? " (was stored before)" : "");
  else if (end.acknowledged > 0 && elapsed.count() > 0) summary += fmt::format(", {} records/s", human_count(static_cast<std::uint64_t>(static_cast<double>(end.acknowledged) / std::chrono::duration<double>(elapsed).count())));
  const auto unsettled = posted - end.settled;
  const auto unknown = end.unknown + unsettled;
  if (whole) {
    context.tell(summary);
  } else if (end.acknowledged > 0 || unknown > 0 || interrupted) {
    summary = fmt::format("{} acknowledged, the first {} without a gap; to go on: --skip {}", counted(end.acknowledged, "record"), human_count(end.prefix), end.prefix);
    if (end.beyond_prefix > 0) summary += fmt::format(" (publishes {} again)", counted(end.beyond_prefix, "acknowledged record"));
    if (unknown > 0) summary += fmt::format("; {} behind them may be stored or not", counted(unknown, "record"));
    note(summary);
  }
  // A run has a producer of its own: what it repeats of another run is stored again.
  const auto look_first = fmt::format("A new run would store again what was stored after all. See what is there: tailrace tail {} --from -3; then choose --skip", flags.topic);
  auto code = [&](const Failure& failure) {
    if (unknown > 0) return static_cast<int>(kUnknown);
    if (end.acknowledged > 0 || failure.exit() == kOk) return static_cast<int>(kPartial);
    return failure.exit();
  };
  if (end.first_error) {
    auto failure = session->failure(*end.first_error, flags.topic);
    failure.message = fmt::format("record {}: {}", end.first_error_line + 1, failure.message);
    failure.exit_code = code(failure);
    if (unknown > 0) failure.hint = look_first;
    return std::unexpected(std::move(failure));
  }
  if (stopped) {
    stopped->exit_code = code(*stopped);
    return std::unexpected(std::move(*stopped));
  }
  if (end.settled < posted) return failed(Errc::outcome_unknown, fmt::format("{} not answered in time", counted(unsettled, "record")), look_first);
  if (interrupted) return finished(context, kInterrupted);
  return finished(context, end.reader_left ? kPartial : kOk);
}

}  // namespace tailrace::cli
