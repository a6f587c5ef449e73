#include "bench/load/runner.h"

#include <sys/prctl.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <mutex>
#include <thread>

#include "base/random.h"
#include "bench/load/schedule.h"

namespace tailrace::load {
namespace {

using Clock = Schedule::Clock;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;

// What a value begins with, so that a consumer in the same process can tell when it was due.
struct Stamp {
  std::int64_t due_ns;  // steady clock
  std::uint32_t run;    // records of other runs on the same topic are not counted
  std::uint32_t measured;
};
static_assert(sizeof(Stamp) == 16);

/// Text that compresses to about half, as logs and JSON do: all zeros would flatter any codec, noise would flatter none.
class Values {
 public:
  Values(std::size_t bytes, std::uint64_t seed) : bytes_(std::max<std::size_t>(bytes, sizeof(Stamp))) {
    broker::Random random{seed};
    pool_.reserve(kPool + bytes_);
    while (pool_.size() < kPool + bytes_) {
      if (random.chance(1, 2)) pool_ += kWords[random.below(std::size(kWords))];
      else for (int i = 0; i < 6; ++i) pool_ += static_cast<char>('!' + random.below(90));
    }
    value_.resize(bytes_);
  }
  std::string_view next(const Stamp& stamp) {
    at_ = (at_ + 4099) % kPool;  // a prime step: successive values differ
    std::memcpy(value_.data(), pool_.data() + at_, bytes_);
    std::memcpy(value_.data(), &stamp, sizeof stamp);
    return value_;
  }

 private:
  static constexpr std::size_t kPool = 1u << 20;
  static constexpr std::string_view kWords[] = {"\"status\":200,", "\"path\":\"/api/v1/orders\",", "GET ", "\"customer\":", "HTTP/1.1\" ", "2026-01-05T"};
  std::string pool_, value_;
  std::size_t bytes_, at_ = 0;
};

std::uint64_t mixed(std::int32_t partition, std::int64_t offset) {
  return broker::Random{static_cast<std::uint64_t>(offset) * 1'000'003 + static_cast<std::uint64_t>(partition)}.next();
}

ClientOptions client_options(const LoadOptions& options, const char* id) {
  ClientOptions client;
  client.servers = options.servers;
  client.client_id = id;
  client.request_timeout = options.timeout;
  // Open loop: room for a stall of the broker, so that sends go on. --max: what waits here is latency and nothing else.
  client.memory_limit = options.rate > 0 ? 128u << 20 : 8u << 20;
  return client;
}

/// One producer with its connection and its sender thread.
class Sender {
 public:
  Sender(const LoadOptions& options, int index, Clock::time_point start) : options_(options), index_(index), start_(start) {
    const auto share = options.rate / options.producers;
    // Producers are due in turn, not all at once.
    if (share > 0) schedule_.emplace(start + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(index / options.rate)), share);
  }

  Result<void> open() {
    auto client = Client::open(client_options(options_, "tailrace-bench"));
    if (!client) return std::unexpected(client.error());
    client_ = std::move(*client);
    if (auto connected = client_.connected().get(); !connected) return std::unexpected(connected.error());
    ProducerOptions producer;
    producer.compression = options_.compression;
    producer.delivery_timeout = options_.timeout;
    producer.on_delivered = [this](std::span<const Delivered> batch) { on_delivered(batch); };
    auto opened = client_.producer(std::move(producer));
    if (!opened) return std::unexpected(opened.error());
    producer_ = std::move(*opened);
    return {};
  }

  void start(Clock::time_point measure_from, Clock::time_point until) {
    measure_from_ = measure_from;
    until_ = until;
    thread_ = std::thread{[this] { send_all(); }};
  }

  void finish() {
    thread_.join();
    (void)producer_.flush(options_.timeout);
    durability_ = producer_.durability(options_.topic);
    (void)client_.close(milliseconds{5'000});  // joins the callback thread: what it wrote may be read now
  }

  [[nodiscard]] std::uint64_t measured_sent() const { return measured_sent_.load(std::memory_order_relaxed); }
  [[nodiscard]] const RunResult& result() const { return result_; }
  [[nodiscard]] Clock::time_point last_ack() const { return last_ack_; }
  [[nodiscard]] std::optional<Durability> durability() const { return durability_; }
  [[nodiscard]] std::optional<Error> error() {
    std::lock_guard lock{mutex_};
    return error_;
  }

 private:
  // The tag carries the due time: no table of what is in flight is needed. The low bit says whether it is measured.
  [[nodiscard]] std::uint64_t tag_of(Clock::time_point due, bool measured) const {
    return static_cast<std::uint64_t>((due - start_ + kTagBase).count()) << 1 | (measured ? 1 : 0);
  }
  void on_delivered(std::span<const Delivered> batch) {
    const auto now = Clock::now();
    for (const auto& d : batch) {
      if (d.error != nullptr) {
        ++result_.failed;
        std::lock_guard lock{mutex_};
        if (!error_) error_ = *d.error;
        continue;
      }
      if ((d.tag & 1) == 0) continue;
      const auto due = start_ - kTagBase + Clock::duration{static_cast<Clock::rep>(d.tag >> 1)};
      result_.latency.record(now - due);
      result_.records += 1;
      result_.bytes += options_.record_bytes;
      result_.checksum ^= mixed(d.partition, d.offset);
      last_ack_ = now;
    }
  }

  /// False: asked to stop. At a low rate the next record may be due in hours.
  bool sleep_until(Clock::time_point when) {
    constexpr milliseconds kAsk{50};
    while (when - Clock::now() > kAsk) {
      if (options_.stop()) return false;
      std::this_thread::sleep_for(kAsk);
    }
    std::this_thread::sleep_until(when);
    return true;
  }

  void send_all() {
    ::prctl(PR_SET_TIMERSLACK, 1UL);  // sleeps end on time, not up to 50 us later
    Values values{options_.record_bytes, static_cast<std::uint64_t>(index_) + 1};
    broker::Random keys{static_cast<std::uint64_t>(index_) + 77};
    const auto share = options_.records == 0 ? ~std::uint64_t{0} : options_.records / static_cast<std::uint64_t>(options_.producers) + (static_cast<std::uint64_t>(index_) < options_.records % static_cast<std::uint64_t>(options_.producers) ? 1 : 0);
    std::string key;
    std::this_thread::sleep_until(start_);
    for (std::uint64_t i = 0;; ++i) {
      auto due = Clock::now();
      if (schedule_) {
        const auto now = due;
        due = schedule_->intended(i);
        if (due > now && !sleep_until(std::min(due, until_))) break;
      }
      if (due >= until_ || ((i & 63) == 0 && options_.stop())) break;
      const bool measured = due >= measure_from_;
      if (measured && measured_sent_.load(std::memory_order_relaxed) >= share) break;
      const Stamp stamp{due.time_since_epoch().count(), run_id(), measured ? 1u : 0u};
      RecordView record{options_.topic, std::nullopt, values.next(stamp)};
      if (options_.keys > 0) {
        key = "key-" + std::to_string(keys.below(options_.keys));
        record.key = key;
      }
      auto posted = producer_.post(record, tag_of(due, measured));
      if (!posted) {
        std::lock_guard lock{mutex_};
        if (!error_) error_ = posted.error();
        return;
      }
      if (measured) {
        if (schedule_) send_delay_.record(Clock::now() - due);
        measured_sent_.fetch_add(1, std::memory_order_relaxed);
      }
    }
    std::lock_guard lock{mutex_};
    result_.send_delay.merge(send_delay_);
  }

 public:
  /// The same in one process and run, other in the next.
  [[nodiscard]] std::uint32_t run_id() const { return static_cast<std::uint32_t>(start_.time_since_epoch().count() >> 10); }

 private:
  static constexpr Clock::duration kTagBase = std::chrono::hours{1};  // due times may lie a little before start
  const LoadOptions& options_;
  int index_;
  Clock::time_point start_, measure_from_{}, until_{}, last_ack_{};
  std::optional<Schedule> schedule_;
  Client client_;
  Producer producer_;
  std::thread thread_;
  std::atomic<std::uint64_t> measured_sent_{0};
  Histogram send_delay_;
  RunResult result_;  // callback thread; send_delay: under mutex_, by the sender at its end
  std::optional<Durability> durability_;
  std::mutex mutex_;
  std::optional<Error> error_;
};

std::string name_of(std::optional<Durability> d) {
  if (!d) return "unknown";
  switch (*d) {
    case Durability::quorum: return "quorum";
    case Durability::leader: return "leader";
    case Durability::relaxed: return "relaxed";
  }
  return "unknown";
}

/// Reads the topic from its present end, and takes the time of each record of this run.
class Receiver {
 public:
  Result<void> open(const LoadOptions& options) {
    auto client = Client::open(client_options(options, "tailrace-bench-reader"));
    if (!client) return std::unexpected(client.error());
    client_ = std::move(*client);
    ConsumerOptions reading;
    reading.start = From::latest();
    auto consumer = client_.consumer(options.topic, reading);
    if (!consumer) return std::unexpected(consumer.error());
    consumer_ = std::move(*consumer);
    return {};
  }
  void start(std::uint32_t run, std::size_t record_bytes) {
    thread_ = std::thread{[this, run, record_bytes] {
      while (!stop_) {
        auto messages = consumer_.next_batch(4'096, milliseconds{50});
        if (!messages) {
          failed_ = true;
          return;
        }
        const auto now = Clock::now();
        for (const auto& m : *messages) {
          Stamp stamp;
          if (!m.value || m.value->size() < sizeof stamp) continue;
          std::memcpy(&stamp, m.value->data(), sizeof stamp);
          if (stamp.run != run || stamp.measured == 0) continue;
          latency_.record(now - Clock::time_point{Clock::duration{stamp.due_ns}});
          checksum_ ^= mixed(m.partition, m.offset);
          bytes_ += record_bytes;
          last_ = now;
          received_.fetch_add(1, std::memory_order_release);
        }
      }
    }};
  }
  [[nodiscard]] std::uint64_t received() const { return received_.load(std::memory_order_acquire); }
  [[nodiscard]] bool failed() const { return failed_; }
  void stop_into(RunResult& result) {
    stop_ = true;
    thread_.join();
    result.latency = latency_;
    result.records = received();
    result.bytes = bytes_;
    result.checksum = checksum_;
  }
  [[nodiscard]] Clock::time_point last() const { return last_; }
  void close() { (void)client_.close(milliseconds{2'000}); }

 private:
  Client client_;
  Consumer consumer_;
  std::thread thread_;
  std::atomic<bool> stop_{false}, failed_{false};
  std::atomic<std::uint64_t> received_{0};
  Histogram latency_;
  std::uint64_t bytes_ = 0, checksum_ = 0;
  Clock::time_point last_{};
};

Result<Measured> run_senders(const LoadOptions& options, Receiver* receiver) {
  if (options.records == 0 && options.duration.count() <= 0) return std::unexpected(make_error(Errc::invalid_argument, "a load needs a duration or a number of records"));
  // Connections are made before the schedule begins.
  const auto start = Clock::now() + milliseconds{200} + milliseconds{20} * options.producers;
  std::vector<std::unique_ptr<Sender>> senders;
  for (int i = 0; i < options.producers; ++i) {
    senders.push_back(std::make_unique<Sender>(options, i, start));
    if (auto opened = senders.back()->open(); !opened) return std::unexpected(opened.error());
  }
  const auto measure_from = start + options.warmup;
  const auto until = options.duration.count() > 0 ? measure_from + options.duration : Clock::time_point::max();
  if (receiver != nullptr) receiver->start(senders.front()->run_id(), options.record_bytes);
  for (auto& sender : senders) sender->start(measure_from, until);
  std::atomic<bool> done{false};
  std::thread watcher{[&] {
    const auto total = options.records > 0 ? options.records : static_cast<std::uint64_t>(options.rate * std::chrono::duration<double>(options.duration).count());
    while (!done) {
      std::uint64_t sent = 0;
      for (auto& sender : senders) sent += sender->measured_sent();
      options.progress(sent, total);
      std::this_thread::sleep_for(milliseconds{100});
    }
  }};
  for (auto& sender : senders) sender->finish();
  done = true;
  watcher.join();
  Measured measured;
  auto& result = measured.result;
  result.offered_per_second = options.rate;
  measured.durability = name_of(senders.front()->durability());
  std::uint64_t sent = 0;
  auto last = measure_from;
  std::optional<Error> error;
  for (auto& sender : senders) {
    const auto& r = sender->result();
    result.records += r.records;
    result.failed += r.failed;
    result.bytes += r.bytes;
    result.checksum ^= r.checksum;
    result.latency.merge(r.latency);
    result.send_delay.merge(r.send_delay);
    sent += r.records;
    last = std::max(last, sender->last_ack());
    if (!error) error = sender->error();
  }
  if (receiver != nullptr) {
    const auto deadline = Clock::now() + options.timeout;
    while (receiver->received() < sent && Clock::now() < deadline && !receiver->failed() && !options.stop()) std::this_thread::sleep_for(milliseconds{5});
    const auto acknowledged = result.records;
    receiver->stop_into(result);
    result.failed += acknowledged > result.records ? acknowledged - result.records : 0;
    last = std::max(measure_from, receiver->last());
  }
  result.elapsed = last - measure_from;
  if (result.records == 0 && error) return std::unexpected(*error);
  return measured;
}

}  // namespace

Result<Measured> run_pub(const LoadOptions& options) { return run_senders(options, nullptr); }

Result<Measured> run_e2e(const LoadOptions& options) {
  Receiver receiver;
  if (auto opened = receiver.open(options); !opened) return std::unexpected(opened.error());
  auto measured = run_senders(options, &receiver);
  receiver.close();
  return measured;
}

Result<Measured> run_sub(const LoadOptions& options) {
  auto client = Client::open(client_options(options, "tailrace-bench"));
  if (!client) return std::unexpected(client.error());
  auto described = client->admin().describe_topic(options.topic).get();
  if (!described) return std::unexpected(described.error());
  std::uint64_t held = 0;
  for (const auto& p : described->partitions) held += static_cast<std::uint64_t>(p.high_watermark - p.log_start);
  Measured measured;
  measured.durability = name_of(described->topic.durability);
  if (held < options.records) {
    LoadOptions filling = options;
    filling.rate = 0;
    filling.records = options.records - held;
    filling.duration = {};
    filling.warmup = {};
    auto filled = run_senders(filling, nullptr);
    if (!filled) return std::unexpected(filled.error());
  }
  ConsumerOptions reading;
  reading.until = From::latest();
  reading.credit_bytes = 32u << 20;
  reading.credit_records = 256u << 10;
  const auto start = Clock::now();
  auto consumer = client->consumer(options.topic, reading);
  if (!consumer) return std::unexpected(consumer.error());
  auto& result = measured.result;
  while (!consumer->finished() && !options.stop()) {
    auto messages = consumer->next_batch(4'096, milliseconds{200});
    if (!messages) return std::unexpected(messages.error());
    for (const auto& m : *messages) {
      ++result.records;
      result.bytes += (m.value ? m.value->size() : 0) + (m.key ? m.key->size() : 0);
      result.checksum ^= mixed(m.partition, m.offset);
    }
    options.progress(result.records, std::max(held, options.records));
  }
  result.elapsed = Clock::now() - start;
  (void)client->close(milliseconds{2'000});
  return measured;
}

}  // namespace tailrace::load
