// What ill-behaved clients cost: memory stays within what is configured, and a neighbour goes on publishing and reading.
//
//   flood --binary PATH [--small] [--only ATTACK]     every attack in turn against one broker; exit 1 if any hurts
//   flood --connect HOST:PORT --idle N                N greeted connections that say nothing, until stdin ends
//
// Attacks: garbage, prefix, half, window, unread, replies, bombs, fields. Each is described where it is written. The neighbour is an
// SDK client that publishes a record, waits for its receipt, and reads it back, over and over; its worst times are printed, not judged.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <memory>
#include <thread>
#include <vector>

#include "base/random.h"
#include "codec/batch_builder.h"
#include "proto/native/native.pb.h"
#include "tailrace/tailrace.h"
#include "tests/process/broker_process.h"
#include "tests/unit/native/frames.h"

namespace {

using namespace std::chrono_literals;
namespace broker = tailrace::broker;
namespace proto = tailrace::proto;
using broker::native::frame_of;
using tailrace::process::BrokerProcess;
using Clock = std::chrono::steady_clock;

struct Arguments {
  std::string binary, only, connect;
  int idle = 0;
  bool small = false;
  [[nodiscard]] int scaled(int full) const { return small ? std::max(1, full / 10) : full; }
  [[nodiscard]] Clock::duration time(Clock::duration full) const { return small ? full / 4 : full; }
};

/// A socket that sends without ever waiting long, as attackers do.
class Attacker {
 public:
  explicit Attacker(const std::string& address) {
    auto colon = address.rfind(':');
    fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<std::uint16_t>(std::stoi(address.substr(colon + 1))));
    ::inet_pton(AF_INET, address.substr(0, colon).c_str(), &to.sin_addr);
    if (::connect(fd_, reinterpret_cast<sockaddr*>(&to), sizeof to) != 0) drop();
  }
  ~Attacker() { drop(); }
  Attacker(const Attacker&) = delete;
  Attacker& operator=(const Attacker&) = delete;
  [[nodiscard]] bool connected() const { return fd_ >= 0; }
  void drop() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  /// As much of `bytes` as the socket takes within 20 ms; what is left is sent first by the next call. False: the connection is gone.
  bool push(const std::string& bytes) {
    if (fd_ < 0) return false;
    if (rest_.empty()) rest_ = bytes;
    auto until = Clock::now() + 20ms;
    while (!rest_.empty() && Clock::now() < until) {
      ssize_t count = ::send(fd_, rest_.data(), rest_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (count > 0) {
        rest_.erase(0, static_cast<std::size_t>(count));
      } else if (errno == EAGAIN) {
        pollfd writable{fd_, POLLOUT, 0};
        ::poll(&writable, 1, 5);
      } else {
        drop();
        return false;
      }
    }
    return true;
  }
  /// The whole of it.
  bool send(const std::string& bytes) {
    auto until = Clock::now() + 30s;
    if (!push(bytes)) return false;
    while (!rest_.empty() && Clock::now() < until) {
      if (!push({})) return false;
    }
    return rest_.empty();
  }
  bool greet() {
    proto::Hello hello;
    hello.set_major(proto::kProtocolMajor);
    return send(frame_of(proto::FrameType::hello, 0, hello)) && answer().has_value();
  }
  /// Opens publish stream 1; no producer id, so that batches need no sequences.
  bool open(const std::string& topic) {
    proto::OpenProducerRequest request;
    request.set_topic(topic);
    request.set_not_idempotent(true);
    return send(frame_of(proto::FrameType::open_producer, 1, request)) && answer() == proto::FrameType::open_producer_reply;
  }
  /// The next frame's type; nullopt: the connection ended, or nothing came.
  std::optional<proto::FrameType> answer() {
    std::string head;
    if (!read(head, proto::kFrameHeaderBytes)) return std::nullopt;
    auto header = proto::read_frame_header(reinterpret_cast<const std::byte*>(head.data()));
    std::string body;
    if (!read(body, header.total_bytes() - proto::kFrameHeaderBytes)) return std::nullopt;
    return header.type;
  }

 private:
  bool read(std::string& into, std::size_t count) {
    into.resize(count);
    auto until = Clock::now() + 30s;
    for (std::size_t done = 0; done < count && fd_ >= 0;) {
      pollfd readable{fd_, POLLIN, 0};
      ::poll(&readable, 1, 100);
      ssize_t got = ::recv(fd_, into.data() + done, count - done, MSG_DONTWAIT);
      if (got == 0 || (got < 0 && errno != EAGAIN) || Clock::now() > until) {
        drop();
        return false;
      }
      if (got > 0) done += static_cast<std::size_t>(got);
    }
    return fd_ >= 0;
  }
  int fd_ = -1;
  std::string rest_{};
};

std::string text_of(const broker::Slice& slice) { return {reinterpret_cast<const char*>(slice.bytes().data()), slice.length}; }

std::string batch_of(std::size_t value_bytes, bool noise, broker::Compression compression) {
  std::string value(value_bytes, 'x');
  broker::Random random{7};
  if (noise) {
    for (char& c : value) c = static_cast<char>(random.below(256));
  }
  broker::codec::BatchBuilder builder{{.compression = compression, .bytes_max = broker::limits::kMessageBytesCeiling}};
  if (!builder.add({.timestamp = 1, .value = broker::as_bytes(value)})) std::abort();
  auto batch = builder.finish({});
  if (!batch) std::abort();
  return text_of(*batch);
}
std::string publish_of(const std::string& batch) {
  proto::Publish publish;
  publish.set_ticket(1);
  return frame_of(proto::FrameType::publish, 1, publish, batch);
}

// ---- the neighbour ------------------------------------------------------------------------------------------------------

/// Publishes, waits, reads back; counts, and keeps the worst time.
class Neighbour {
 public:
  explicit Neighbour(const std::string& address) {
    tailrace::ClientOptions options;
    options.servers = {address};
    client_ = tailrace::Client::open(options).value();
    if (!client_->admin().create_topic("neighbour").get()) failures_ = 1;
    thread_ = std::jthread{[this](std::stop_token stop) { run(stop); }};
  }
  struct Figures {
    int rounds = 0, failures = 0;
    Clock::duration worst{};
  };
  /// Since the last call.
  Figures take() { return {rounds_.exchange(0), failures_.exchange(0), Clock::duration{worst_.exchange(0)}}; }

 private:
  void run(std::stop_token stop) {
    auto producer = client_->producer().value();
    auto consumer = client_->consumer("neighbour").value();
    for (int number = 0; !stop.stop_requested(); ++number) {
      auto began = Clock::now();
      std::string value = std::to_string(number) + std::string(1'000, '.');
      bool good = producer.send(tailrace::RecordView{"neighbour", std::nullopt, value}).get().has_value();
      auto read = consumer.next(30s);
      good = good && read && *read && (*read)->value_text() == value;
      good ? ++rounds_ : ++failures_;
      worst_ = std::max(worst_.load(), (Clock::now() - began).count());
      std::this_thread::sleep_for(5ms);
    }
    (void)client_->close(5s);
  }
  std::optional<tailrace::Client> client_{};
  std::atomic<int> rounds_ = 0, failures_ = 0;
  std::atomic<Clock::rep> worst_ = 0;
  std::jthread thread_{};
};

// ---- attacks ------------------------------------------------------------------------------------------------------------

using Attackers = std::vector<std::unique_ptr<Attacker>>;
struct Target {
  std::string address;
  const Arguments& args;
};

Attackers connect(const Target& target, int count, bool greeted = true) {
  Attackers all;
  for (int i = 0; i < count; ++i) {
    auto one = std::make_unique<Attacker>(target.address);
    if (one->connected() && (!greeted || one->greet())) all.push_back(std::move(one));
  }
  return all;
}
void keep_at_it(const Target& target, Clock::duration time, const std::function<void()>& step) {
  auto until = Clock::now() + target.args.time(time);
  while (Clock::now() < until) step();
}

/// Strangers: random bytes, HTTP, TLS, and lengths that lie, on new connections again and again.
void garbage(const Target& target) {
  broker::Random random{1};
  keep_at_it(target, 8s, [&] {
    auto all = connect(target, target.args.scaled(2'000), false);
    for (auto& one : all) {
      std::string bytes;
      switch (random.below(3)) {
        case 0: bytes = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"; break;
        case 1: bytes = "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"; break;
        default: bytes.resize(random.below(200));
      }
      if (bytes.empty() || bytes[0] == 0) {
        for (char& c : bytes) c = static_cast<char>(random.below(256));
      }
      one->push(bytes);
    }
  });
}

/// A greeted client announces the largest frame there is, on everything that has a payload or none, and goes silent.
void prefix(const Target& target) {
  auto all = connect(target, target.args.scaled(2'000));
  for (auto& one : all) {
    std::string head(proto::kFrameHeaderBytes, '\0');
    proto::write_frame_header(reinterpret_cast<std::byte*>(head.data()), proto::FrameType::metadata, 5, 1'000, 32'000'000);
    one->push(head);
  }
  std::this_thread::sleep_for(target.args.time(8s));
}

/// Slow loris: a publish stream, the head of a batch of 1 MiB, then a byte now and then.
void half(const Target& target) {
  auto all = connect(target, target.args.scaled(500));
  std::string frame = publish_of(batch_of(1'000'000, false, broker::Compression::none));
  for (auto& one : all) {
    if (one->open("flood")) one->push(frame.substr(0, 20'000));
  }
  keep_at_it(target, 20s, [&] {
    for (auto& one : all) one->push("x");
    std::this_thread::sleep_for(500ms);
  });
}

/// Producers that ignore their window and read no answer.
void window(const Target& target) {
  auto all = connect(target, target.args.scaled(40));
  for (auto& one : all) one->open("flood");
  std::string frame = publish_of(batch_of(1'000'000, false, broker::Compression::none));
  keep_at_it(target, 10s, [&] {
    for (auto& one : all) one->push(frame);
  });
}

/// Consumers that grant endless credit from the start of a large topic and never read.
void unread(const Target& target) {
  auto all = connect(target, target.args.scaled(500));
  for (auto& one : all) {
    proto::SubscribeRequest request;
    request.set_topic("flood");
    request.add_partitions()->mutable_start()->set_start(true);
    request.set_credit_records(1'000'000'000);
    request.set_credit_bytes(1'000'000'000'000);
    one->push(frame_of(proto::FrameType::subscribe, 2, request));
  }
  std::this_thread::sleep_for(target.args.time(20s));
}

/// Small requests with large answers, as many as may be under way, and nothing is read.
void replies(const Target& target) {
  auto all = connect(target, target.args.scaled(200));
  proto::DescribeTopicRequest describe;
  describe.set_name("wide");
  proto::MetadataRequest metadata;
  std::string burst;
  for (std::uint64_t i = 1; i <= 1'000; ++i) {
    burst += frame_of(proto::FrameType::describe_topic, i, describe);
    burst += frame_of(proto::FrameType::metadata, i, metadata);
  }
  for (auto& one : all) one->push(burst);
  std::this_thread::sleep_for(target.args.time(20s));
}

/// Batches that inflate to more than the broker allows, and to as much as it allows.
void bombs(const Target& target) {
  auto all = connect(target, target.args.scaled(20));
  for (auto& one : all) one->open("flood");
  std::string large = publish_of(batch_of(30'000'000, false, broker::Compression::zstd));
  std::string lz4 = publish_of(batch_of(30'000'000, false, broker::Compression::lz4));
  keep_at_it(target, 8s, [&] {
    for (auto& one : all) {
      one->push(large);
      one->push(lz4);
    }
  });
}

/// Control messages that grow 32 times and more when they are parsed: empty sub-messages, up to the frame's limit.
void fields(const Target& target) {
  auto all = connect(target, target.args.scaled(200));
  std::string names, queries, entries;
  while (names.size() < 200'000) names += std::string{"\x12\x00", 2};     // MetadataRequest.topics
  while (queries.size() < 200'000) queries += std::string{"\x1a\x00", 2};  // ListOffsetsRequest.queries, SubscribeRequest.partitions
  while (entries.size() < 200'000) entries += std::string{"\x2a\x00", 2};  // CreateTopicRequest.config
  keep_at_it(target, 8s, [&] {
    for (auto& one : all) {
      one->push(frame_of(proto::FrameType::metadata, 1, names));
      one->push(frame_of(proto::FrameType::list_offsets, 2, queries));
      one->push(frame_of(proto::FrameType::subscribe, 3, queries));
      one->push(frame_of(proto::FrameType::create_topic, 4, entries));
    }
  });
}

struct Attack {
  const char* name;
  void (*run)(const Target&);
};
constexpr Attack kAttacks[] = {{"garbage", garbage}, {"prefix", prefix}, {"half", half}, {"window", window},
                               {"unread", unread}, {"replies", replies}, {"bombs", bombs}, {"fields", fields}};

// ---- measuring ----------------------------------------------------------------------------------------------------------

std::size_t resident_kib(pid_t pid) {
  std::ifstream status{"/proc/" + std::to_string(pid) + "/status"};
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmRSS:")) return std::strtoull(line.c_str() + 6, nullptr, 10);
  }
  return 0;
}

/// The largest resident memory seen while it lives.
class Watch {
 public:
  explicit Watch(pid_t pid)
      : thread_{[this, pid](std::stop_token stop) {
          while (!stop.stop_requested()) {
            most_ = std::max(most_.load(), resident_kib(pid));
            std::this_thread::sleep_for(5ms);
          }
        }} {}
  [[nodiscard]] std::size_t most_kib() const { return most_; }

 private:
  std::atomic<std::size_t> most_ = 0;
  std::jthread thread_;
};

// What the broker below is given, and what may be resident with it: the pools, the WAL's buffers (bounded by its queue of 64 MiB a
// shard), 2 x 64 MiB for inflating, and room for the program, its connections and the allocator.
constexpr std::size_t kShards = 2, kClientMiB = 32, kHotMiB = 32, kReadMiB = 16, kQueueMiB = 64, kInflateMiB = 64, kRestMiB = 96;
constexpr std::size_t kMostMiB = kShards * (kClientMiB + kHotMiB + kReadMiB + kQueueMiB + kInflateMiB) + kRestMiB;

int flood(const Arguments& args) {
  auto folder = std::filesystem::temp_directory_path() / ("tailrace-flood." + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  auto mib = [](const char* key, std::size_t value) { return std::string{key} + "=" + std::to_string(value) + "MiB"; };
  BrokerProcess process{{.binary = args.binary,
                         .data = folder / "data",
                         .log_file = folder / "broker.log",
                         .arguments = {"--set", "shards=2", "--set", "wal.file_bytes=16MiB", "--set", mib("memory.client_bytes", kClientMiB), "--set",
                                       mib("memory.hot_tail_bytes", kHotMiB), "--set", mib("memory.read_pool_bytes", kReadMiB)}}};
  if (!process.start()) {
    std::cout << "FAILED: the broker did not start\n";
    return 1;
  }
  int bad = 0;
  {
    tailrace::ClientOptions options;
    options.servers = {process.address()};
    auto client = tailrace::Client::open(options).value();
    tailrace::TopicSpec few{.partitions = 1}, many{.partitions = args.small ? 200 : 2'000};
    few.config["retention_bytes"] = "256MiB";
    few.config["segment_bytes_max"] = "32MiB";
    if (!client.admin().create_topic("flood", few).get() || !client.admin().create_topic("wide", many).get()) ++bad;
    auto producer = client.producer().value();
    std::string value(500'000, 'v');
    for (int i = 0; i < args.scaled(200); ++i) {
      if (!producer.send(tailrace::RecordView{"flood", std::nullopt, value}).get()) ++bad;
    }
    (void)client.close(10s);
  }
  Neighbour neighbour{process.address()};
  std::this_thread::sleep_for(1s);
  auto quiet = neighbour.take();
  auto ms = [](Clock::duration d) { return std::chrono::duration_cast<std::chrono::milliseconds>(d).count(); };
  std::cout << "bound " << kMostMiB << " MiB resident; before: " << resident_kib(process.pid()) / 1024 << " MiB, neighbour " << quiet.rounds
            << " rounds in 1 s, worst " << ms(quiet.worst) << " ms\n";
  for (const Attack& attack : kAttacks) {
    if (!args.only.empty() && args.only != attack.name) continue;
    Watch watch{process.pid()};
    auto began = Clock::now();
    attack.run({process.address(), args});
    std::this_thread::sleep_for(200ms);
    auto seen = neighbour.take();
    bool good = seen.failures == 0 && seen.rounds > 0 && watch.most_kib() / 1024 <= kMostMiB;
    bad += !good;
    std::cout << attack.name << ": " << ms(Clock::now() - began) / 1000 << " s, at most " << watch.most_kib() / 1024 << " MiB resident, neighbour "
              << seen.rounds << " rounds, worst " << ms(seen.worst) << " ms, " << seen.failures << " failed" << (good ? "" : "  FAILED") << std::endl;
  }
  std::this_thread::sleep_for(args.time(4s));
  neighbour.take();
  std::this_thread::sleep_for(1s);
  auto after = neighbour.take();
  std::cout << "after: " << resident_kib(process.pid()) / 1024 << " MiB, neighbour " << after.rounds << " rounds in 1 s, worst " << ms(after.worst) << " ms\n";
  bad += after.rounds == 0 || after.failures > 0;
  std::ifstream log{folder / "broker.log"};
  std::size_t lines = 0;
  for (std::string line; std::getline(log, line);) ++lines;
  std::cout << lines << " lines in the broker's log\n";
  bad += lines > 300;  // at most one a second for strangers, and what happens to topics
  bool clean = process.stop() == 0;
  std::cout << (clean ? "stopped clean\n" : "FAILED: did not stop clean\n");
  bad += !clean;
  if (bad) {
    std::ifstream last{folder / "broker.log"};
    std::cout << last.rdbuf();
  }
  std::filesystem::remove_all(folder);
  return bad ? 1 : 0;
}

int idle(const Arguments& args) {
  Attackers all = connect({args.connect, args}, args.idle);
  std::cout << "connected " << all.size() << std::endl;
  std::string line;
  while (std::getline(std::cin, line)) {
  }
  return all.size() == static_cast<std::size_t>(args.idle) ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  Arguments args;
  for (int i = 1; i < argc; ++i) {
    std::string_view word = argv[i];
    auto next = [&]() -> std::string { return i + 1 < argc ? argv[++i] : ""; };
    if (word == "--binary") args.binary = std::filesystem::absolute(next());
    else if (word == "--only") args.only = next();
    else if (word == "--connect") args.connect = next();
    else if (word == "--idle") args.idle = std::atoi(next().c_str());
    else if (word == "--small") args.small = true;
    else {
      std::cerr << "unknown argument " << word << "; see the top of flood.cc\n";
      return 2;
    }
  }
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
  }
  if (!args.connect.empty() && args.idle > 0) return idle(args);
  if (args.binary.empty()) {
    std::cerr << "usage: flood --binary PATH [--small] [--only ATTACK] | --connect HOST:PORT --idle N\n";
    return 2;
  }
  return flood(args);
}
