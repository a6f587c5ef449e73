// Kills a real broker again and again under load and checks every acknowledgement afterwards. `./dev crash` runs it.
//
//   crash_driver --binary PATH [--cycles N] [--producers K] [--partitions P] [--seed S] [--keep-history FILE]
//   crash_driver --binary PATH --flush-proof
//
// Acknowledgements are recorded here, outside the broker, as a history for the checker of tests/support. A kill keeps the
// page cache, so it proves recovery and not flushing; --flush-proof shows the other half: the block layer's flush counter
// grows with the commits, and stands still with the planted bug `no_dsync`.
#include <atomic>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <mutex>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <thread>

#include "base/crc32c.h"
#include "base/random.h"
#include "tailrace/tailrace.h"
#include "tests/process/broker_process.h"
#include "tests/support/history.h"
#include "tests/support/history_checker.h"

namespace {

namespace history = tailrace::broker::history;
using namespace std::chrono_literals;
using tailrace::process::BrokerProcess;
using tailrace::process::BrokerSettings;

struct Arguments {
  std::string binary, keep_history;
  int cycles = 300, producers = 4, partitions = 4;
  std::uint64_t seed = 1;
  bool flush_proof = false;
};

std::int64_t now_us() {
  return std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Every record names its sender and its number, so that it is unique and an altered one belongs to nobody.
std::string make_value(std::uint32_t process, std::uint64_t counter) {
  tailrace::broker::Random random{(std::uint64_t{process} << 40) ^ counter};
  std::string text = std::to_string(process) + "." + std::to_string(counter) + ".";
  text.append(random.below(400), static_cast<char>('a' + random.below(26)));
  return text;
}
history::Value value_of(std::string_view text) {
  history::Value v;
  auto dot = text.find('.');
  if (dot != std::string_view::npos) {
    std::from_chars(text.data(), text.data() + dot, v.process);
    auto second = text.find('.', dot + 1);
    if (second != std::string_view::npos) std::from_chars(text.data() + dot + 1, text.data() + second, v.counter);
  }
  v.length = static_cast<std::uint32_t>(text.size());
  v.crc = tailrace::broker::crc32c(tailrace::broker::as_bytes(text));
  return v;
}

struct Recorder {
  std::mutex mutex;
  history::History log;
  std::vector<std::uint32_t> keys;
};

/// One client with one producer, sending as fast as 500 unanswered records allow.
class Sender {
 public:
  Sender(std::uint32_t process, std::string server, Recorder& recorder) : process_{process}, recorder_{recorder} {
    tailrace::ClientOptions options;
    options.servers = {std::move(server)};
    options.client_id = "crash-" + std::to_string(process);
    client_ = tailrace::Client::open(options).value();
    tailrace::ProducerOptions producer_options;
    producer_options.delivery_timeout = 120s;  // a kill must never turn into an error
    producer_options.batch_bytes = 8 << 10;
    producer_options.on_delivered = [this](std::span<const tailrace::Delivered> done) { delivered(done); };
    producer_ = client_.producer(producer_options).value();
    thread_ = std::jthread{[this](std::stop_token stop) { run(stop); }};
  }
  void finish() {
    thread_.request_stop();
    thread_.join();
    auto report = producer_.close(60s);
    if (!report || report->undelivered != 0 || report->unknown != 0) ++unfinished;
    (void)client_.close(5s);
  }
  std::atomic<std::uint64_t> acknowledged = 0, failed = 0, unfinished = 0;

 private:
  void run(const std::stop_token& stop) {
    for (std::uint64_t counter = 0; !stop.stop_requested(); ++counter) {
      while (producer_.pending() > 500 && !stop.stop_requested()) std::this_thread::sleep_for(1ms);
      auto partition = static_cast<std::int32_t>(counter % recorder_.keys.size());
      std::string text = make_value(process_, counter);
      tailrace::RecordView record{"crash", std::nullopt, text};
      record.partition = partition;
      std::size_t event = 0;
      {
        std::lock_guard lock{recorder_.mutex};
        event = recorder_.log.send(process_, now_us(), recorder_.keys[static_cast<std::size_t>(partition)], {value_of(text)}, false);
      }
      if (auto posted = producer_.post(record, event); !posted) {
        std::lock_guard lock{recorder_.mutex};
        recorder_.log.sent(event, history::Type::fail, now_us());
        ++failed;
      }
    }
  }
  void delivered(std::span<const tailrace::Delivered> done) {
    std::lock_guard lock{recorder_.mutex};
    for (const auto& d : done) {
      if (!d.error) {
        recorder_.log.sent(d.tag, history::Type::ok, now_us(), d.offset);
        ++acknowledged;
      } else {
        recorder_.log.sent(d.tag, d.error->maybe_applied ? history::Type::info : history::Type::fail, now_us());
        if (failed++ == 0) std::cerr << "a send failed: " << d.error->to_string() << "\n";
      }
    }
  }

  std::uint32_t process_;
  Recorder& recorder_;
  tailrace::Client client_;
  tailrace::Producer producer_;
  std::jthread thread_;
};

/// The final drain: a fresh client reads every partition from its start to its end.
std::uint64_t drain(const std::string& server, Recorder& recorder) {
  tailrace::ClientOptions options;
  options.servers = {server};
  auto client = tailrace::Client::open(options).value();
  std::uint64_t total = 0;
  for (std::size_t p = 0; p < recorder.keys.size(); ++p) {
    tailrace::ConsumerOptions reading;
    reading.partitions = {static_cast<std::int32_t>(p)};
    reading.until = tailrace::From::latest();
    auto consumer = client.consumer("crash", reading);
    if (!consumer) {
      std::cerr << "cannot read back: " << consumer.error().to_string() << "\n";
      return 0;
    }
    std::vector<history::History::Read> reads;
    auto started = now_us();
    auto give_up = std::chrono::steady_clock::now() + 120s;
    while (!consumer->finished() && std::chrono::steady_clock::now() < give_up) {
      auto batch = consumer->next_batch(10'000, 1s);
      if (!batch) {
        std::cerr << "cannot read back: " << batch.error().to_string() << "\n";
        break;
      }
      for (const auto& m : *batch) reads.push_back({m.offset, value_of(m.value_text())});
    }
    total += reads.size();
    recorder.log.poll(1'000 + static_cast<std::uint32_t>(p), started, now_us(), recorder.keys[p], reads, consumer->finished());
    (void)consumer->close();
  }
  (void)client.close(5s);
  return total;
}

int crash(const Arguments& args) {
  auto folder = std::filesystem::temp_directory_path() / ("tailrace-crash." + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  // Small WAL files and segments, so that rotation, recycling and rolling fall into the kills.
  BrokerProcess broker{{.binary = args.binary, .data = folder / "data", .log_file = folder / "broker.log",
                        .arguments = {"--set", "wal.file_bytes=1MiB", "--set", "wal.files=4"}}};
  if (!broker.start()) {
    std::cerr << "the broker did not start; see " << folder / "broker.log" << "\n";
    return 1;
  }
  {
    tailrace::ClientOptions options;
    options.servers = {broker.address()};
    auto client = tailrace::Client::open(options).value();
    tailrace::TopicSpec spec;
    spec.partitions = args.partitions;
    spec.config["segment_bytes_max"] = "1MiB";
    if (auto made = client.admin().create_topic("crash", spec).get(); !made) {
      std::cerr << "cannot create the topic: " << made.error().to_string() << "\n";
      return 1;
    }
  }
  Recorder recorder;
  for (int p = 0; p < args.partitions; ++p) recorder.keys.push_back(recorder.log.key("crash-" + std::to_string(p)));
  std::vector<std::unique_ptr<Sender>> senders;
  for (int k = 0; k < args.producers; ++k) senders.push_back(std::make_unique<Sender>(static_cast<std::uint32_t>(k), broker.address(), recorder));

  tailrace::broker::Random random{args.seed};
  int kills = 0, kills_in_recovery = 0;
  std::chrono::steady_clock::duration longest{};
  for (; kills < args.cycles; ++kills) {
    std::this_thread::sleep_for(std::chrono::milliseconds{random.between(10, 120)});
    broker.kill();
    while (random.chance(1, 5)) {  // a recovery is cut short too
      if (!broker.launch()) break;
      std::this_thread::sleep_for(std::chrono::milliseconds{random.between(0, 40)});
      broker.kill();
      ++kills_in_recovery;
    }
    auto from = std::chrono::steady_clock::now();
    if (!broker.start()) {
      std::cerr << "no start after kill " << kills << "; data kept in " << folder << "\n";
      return 1;
    }
    longest = std::max(longest, std::chrono::steady_clock::now() - from);
    if (kills % 25 == 24) std::cerr << kills + 1 << " kills\n";
  }
  std::uint64_t acknowledged = 0, failed = 0, unfinished = 0;
  for (auto& s : senders) {
    s->finish();
    acknowledged += s->acknowledged, failed += s->failed, unfinished += s->unfinished;
  }
  std::uint64_t read = drain(broker.address(), recorder);
  int stopped = broker.stop();
  if (!args.keep_history.empty()) {
    std::ofstream out{args.keep_history};
    history::write_json_lines(recorder.log, out);
  }
  auto verdict = history::check(recorder.log);
  std::cout << kills << " kills under load and " << kills_in_recovery << " during recovery, longest start "
            << std::chrono::duration_cast<std::chrono::milliseconds>(longest).count() << " ms\n"
            << acknowledged << " records acknowledged, " << read << " read back, " << failed << " failed, " << unfinished
            << " producers with unanswered records\n"
            << verdict.summary() << "\n";
  bool good = verdict.fatal() == 0 && acknowledged > 0 && read >= acknowledged && failed == 0 && unfinished == 0 && stopped == 0;
  if (stopped != 0) std::cout << "the broker's last stop was not clean\n";
  if (good) {
    std::filesystem::remove_all(folder);
  } else {
    for (const auto& a : verdict.examples) std::cout << history::name_of(a.rule) << ": " << a.text << "\n";
    std::cout << "data and broker log kept in " << folder.string() << "\n";
  }
  std::cout << (good ? "nothing lost, duplicated or reordered" : "FAILED") << "\n";
  return good ? 0 : 1;
}

/// Completed flush requests of the block device below `path`: field 16 of its stat file (kernel: Documentation/block/stat.rst).
std::optional<std::uint64_t> flushes_below(const std::filesystem::path& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return std::nullopt;
  std::ifstream in{"/sys/dev/block/" + std::to_string(major(info.st_dev)) + ":" + std::to_string(minor(info.st_dev)) + "/stat"};
  std::uint64_t value = 0;
  for (int field = 1; field <= 16; ++field) {
    if (!(in >> value)) return std::nullopt;
  }
  return value;
}

struct FlushRun {
  std::uint64_t acknowledged = 0, flushes = 0;
};
std::optional<FlushRun> flush_run(const Arguments& args, const std::filesystem::path& folder, const std::string& plant) {
  BrokerSettings settings{.binary = args.binary, .data = folder / ("data-" + (plant.empty() ? "sound" : plant)), .log_file = folder / "broker.log"};
  if (!plant.empty()) settings.environment["TAILRACE_PLANT"] = plant;
  BrokerProcess broker{settings};
  if (!broker.start()) return std::nullopt;
  tailrace::ClientOptions options;
  options.servers = {broker.address()};
  auto client = tailrace::Client::open(options).value();
  if (!client.admin().create_topic("flush").get()) return std::nullopt;
  auto producer = client.producer().value();
  for (int i = 0; i < 50; ++i) (void)producer.send(tailrace::RecordView{"flush", std::nullopt, "warm up"}).get();
  std::this_thread::sleep_for(500ms);  // the WAL's further files are zero-filled and synced by now
  auto before = flushes_below(folder);
  FlushRun run;
  for (int i = 0; i < 1'000; ++i) {  // one record, one acknowledgement, one commit each
    if (producer.send(tailrace::RecordView{"flush", std::nullopt, "one"}).get()) ++run.acknowledged;
  }
  auto after = flushes_below(folder);
  (void)client.close(5s);
  broker.stop();
  if (!before || !after) return std::nullopt;
  run.flushes = *after - *before;
  return run;
}

int flush_proof(const Arguments& args) {
  auto folder = std::filesystem::temp_directory_path() / ("tailrace-flush." + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  if (!flushes_below(folder)) {
    std::cout << "skipped: no flush counter for the device below " << folder.string() << "\n";
    return 77;  // check.sh: not run
  }
  auto sound = flush_run(args, folder, "");
  // Others share the device, and their flushes fall into the planted run; a quieter moment may come.
  auto planted = flush_run(args, folder, "no_dsync");
  for (int i = 0; i < 4 && planted && planted->flushes >= planted->acknowledged / 5; ++i) {
    auto again = flush_run(args, folder, "no_dsync");
    if (again && again->flushes < planted->flushes) planted = again;
  }
  std::filesystem::remove_all(folder);
  if (!sound || !planted) {
    std::cout << "FAILED: a broker did not run\n";
    return 1;
  }
  std::cout << "sound: " << sound->acknowledged << " acknowledged one by one, " << sound->flushes << " device flushes\n"
            << "planted no_dsync: " << planted->acknowledged << " acknowledged one by one, " << planted->flushes << " device flushes\n";
  bool good = sound->acknowledged == 1'000 && planted->acknowledged == 1'000 && sound->flushes >= sound->acknowledged &&
              planted->flushes < planted->acknowledged / 5;
  std::cout << (good ? "acknowledgements flush, and the check can fail" : "FAILED") << "\n";
  return good ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  Arguments args;
  for (int i = 1; i < argc; ++i) {
    std::string_view word = argv[i];
    auto next = [&]() -> std::string { return i + 1 < argc ? argv[++i] : ""; };
    if (word == "--binary") args.binary = std::filesystem::absolute(next());
    else if (word == "--cycles") args.cycles = std::atoi(next().c_str());
    else if (word == "--producers") args.producers = std::atoi(next().c_str());
    else if (word == "--partitions") args.partitions = std::atoi(next().c_str());
    else if (word == "--seed") args.seed = std::strtoull(next().c_str(), nullptr, 10);
    else if (word == "--keep-history") args.keep_history = next();
    else if (word == "--flush-proof") args.flush_proof = true;
    else {
      std::cerr << "unknown argument " << word << "; see the top of crash_driver.cc\n";
      return 2;
    }
  }
  if (args.binary.empty() || args.cycles <= 0 || args.producers <= 0 || args.partitions <= 0) {
    std::cerr << "usage: crash_driver --binary PATH [--cycles N] [--producers K] [--partitions P] [--seed S] | --flush-proof\n";
    return 2;
  }
  return args.flush_proof ? flush_proof(args) : crash(args);
}
