#include "bench/micro/rig.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <unistd.h>

#include "bench/micro/bench_support.h"
#include "codec/batch_builder.h"
#include "io/wait.h"
#include "io_asio/loop.h"
#include "io_uring/file_system.h"
#include "tests/support/lone_log.h"

namespace tailrace::bench {

using namespace broker;

namespace {
bool smoke_run = false;
}
bool smoke() { return smoke_run; }

int bench_main(int argc, char** argv) {
  smoke_run = take_smoke(argc, argv);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  return benchmark::RunSpecifiedBenchmarks() > 0 ? 0 : 1;
}

std::string bench_folder() {
  const char* named = std::getenv("TAILRACE_BENCH_DIR");
  return named ? named : std::filesystem::temp_directory_path().string();
}

double seconds(Duration d) { return std::chrono::duration<double>(d).count(); }

double Latencies::us(int per_mille) {
  if (ns.empty()) return 0;
  if (!sorted_) std::ranges::sort(ns), sorted_ = true;
  return static_cast<double>(ns[std::min(ns.size() - 1, ns.size() * static_cast<std::size_t>(per_mille) / 1000)]) / 1e3;
}
double Latencies::us_9999() {
  (void)us(500);  // sorts
  return ns.empty() ? 0 : static_cast<double>(ns[std::min(ns.size() - 1, ns.size() * 9999 / 10000)]) / 1e3;
}

double Rounds::median() const {
  if (values.empty()) return 0;
  std::vector<double> sorted = values;
  std::ranges::sort(sorted);
  return sorted[sorted.size() / 2];
}

void Rounds::report(benchmark::State& state, const std::string& name) const {
  state.counters[name] = median();
  if (values.empty()) return;
  state.counters[name + "_min"] = std::ranges::min(values);
  state.counters[name + "_max"] = std::ranges::max(values);
}

int rounds() { return smoke() ? 1 : 7; }

namespace {

/// Hands everything through and notes durable writes.
class RecordingFile final : public io::File {
 public:
  RecordingFile(std::unique_ptr<io::File> inner, std::function<void(std::size_t)> began, std::function<void()> ended)
      : inner_{std::move(inner)}, began_{std::move(began)}, ended_{std::move(ended)} {}
  void read(io::Operation& op, MutableBytes into, std::uint64_t position) override { inner_->read(op, into, position); }
  void write(io::Operation& op, Bytes from, std::uint64_t position, io::Durable durable) override {
    if (durable != io::Durable::yes) return inner_->write(op, from, position, durable);
    began_(from.size());
    auto* wrapped = new Wrapped{};
    wrapped->file = this;
    wrapped->original = &op;
    wrapped->complete = [](io::Operation* self) noexcept {
      std::unique_ptr<Wrapped> mine{static_cast<Wrapped*>(self)};
      mine->file->ended_();
      mine->original->result = mine->result;
      mine->original->complete(mine->original);
    };
    inner_->write(*wrapped, from, position, durable);
  }
  void sync(io::Operation& op) override { inner_->sync(op); }
  void allocate(io::Operation& op, std::uint64_t position, std::uint64_t length) override { inner_->allocate(op, position, length); }
  void truncate(io::Operation& op, std::uint64_t size) override { inner_->truncate(op, size); }
  Result<std::uint64_t> size() override { return inner_->size(); }

 private:
  struct Wrapped : io::Operation {
    RecordingFile* file = nullptr;
    io::Operation* original = nullptr;
  };
  std::unique_ptr<io::File> inner_;
  std::function<void(std::size_t)> began_;
  std::function<void()> ended_;
};

class RecordingFileSystem final : public io::FileSystem {
 public:
  RecordingFileSystem(io::FileSystem& inner, std::function<void(std::size_t)> began, std::function<void()> ended)
      : inner_{inner}, began_{std::move(began)}, ended_{std::move(ended)} {}
  Task<Result<std::unique_ptr<io::File>>> open(std::string path, io::OpenOptions options) override {
    auto opened = co_await inner_.open(std::move(path), options);
    if (!opened) co_return std::unexpected(opened.error());
    std::unique_ptr<io::File> file = std::make_unique<RecordingFile>(std::move(*opened), began_, ended_);
    co_return file;
  }
  Task<Result<void>> remove(std::string path) override { return inner_.remove(std::move(path)); }
  Task<Result<void>> remove_directory(std::string path) override { return inner_.remove_directory(std::move(path)); }
  Task<Result<void>> rename(std::string from, std::string to) override { return inner_.rename(std::move(from), std::move(to)); }
  Task<Result<void>> make_directory(std::string path) override { return inner_.make_directory(std::move(path)); }
  Task<Result<void>> sync_directory(std::string path) override { return inner_.sync_directory(std::move(path)); }
  Task<Result<std::vector<io::DirectoryEntry>>> list(std::string path) override { return inner_.list(std::move(path)); }
  Task<Result<io::Space>> space(std::string path) override { return inner_.space(std::move(path)); }
  Task<Result<std::unique_ptr<io::Lock>>> lock(std::string path) override { return inner_.lock(std::move(path)); }
  void pin(MutableBytes memory) override { inner_.pin(memory); }
  void unpin(MutableBytes memory) override { inner_.unpin(memory); }
  std::string_view name() const override { return inner_.name(); }

 private:
  io::FileSystem& inner_;
  std::function<void(std::size_t)> began_;
  std::function<void()> ended_;
};

[[noreturn]] void give_up(const Error& error) {
  std::fprintf(stderr, "bench: %.*s: %s\n", static_cast<int>(describe(error.code).name.size()), describe(error.code).name.data(), error.detail.c_str());
  std::exit(1);
}

}  // namespace

struct Rig::Recorder {
  bool on = false;
  std::uint32_t in_flight = 0;
  std::vector<RecordedWrite> writes;
};

Rig::Rig() : recorder_{std::make_unique<Recorder>()} {
  static int count = 0;
  folder_ = bench_folder() + "/tailrace-bench." + std::to_string(::getpid()) + "." + std::to_string(count++);
  std::filesystem::remove_all(folder_);
  std::filesystem::create_directories(folder_);
}
Rig::~Rig() { std::filesystem::remove_all(folder_); }

void Rig::record(bool on) { recorder_->on = on; }
const std::vector<RecordedWrite>& Rig::recorded() const { return recorder_->writes; }

void Rig::run(std::function<Task<Result<void>>(io::Runtime&)> body) {
  io_asio::Loop loop;
  loop_ = &loop;
  auto files = io_uring::FileSystem::create(loop);
  if (!files) give_up(files.error());
  loop.watch((*files)->event_fd(), [&] { (*files)->on_event(); });
  RecordingFileSystem recording{**files,
                                [this](std::size_t bytes) {
                                  ++recorder_->in_flight;
                                  if (recorder_->on) recorder_->writes.push_back({static_cast<std::uint32_t>(bytes), recorder_->in_flight});
                                },
                                [this] { --recorder_->in_flight; }};
  Random random{42};
  io::Runtime runtime{recording, loop, loop, loop, random};
  {
    TaskScope scope;
    auto whole = [](std::function<Task<Result<void>>(io::Runtime&)> run_body, io::Runtime& rt, io_asio::Loop& until) -> Task<void> {
      auto done = co_await run_body(rt);
      if (!done) give_up(done.error());
      until.stop();
    };
    scope.spawn(whole(std::move(body), runtime, loop));
    loop.run();
  }
  loop.unwatch((*files)->event_fd());
}

Task<Result<RawFile>> make_raw_file(io::Runtime& runtime, std::string path, std::uint64_t bytes) {
  TAILRACE_CO_TRY(auto file, co_await runtime.files.open(path, {.create = true, .write = true, .direct = true}));
  Buffer zeros = Buffer::allocate(1 << 20, io::kDirectAlignment);
  std::memset(zeros.data(), 0, zeros.size());
  for (std::uint64_t at = 0; at < bytes; at += zeros.size()) {
    auto count = static_cast<std::size_t>(std::min<std::uint64_t>(zeros.size(), bytes - at));
    TAILRACE_CO_TRY_VOID(co_await io::write_all(*file, Bytes{zeros.data(), count}, at, io::Durable::no));
  }
  TAILRACE_CO_TRY_VOID(co_await io::sync(*file));
  co_return RawFile{path, bytes};
}

namespace {

/// Keeps a number of operations in flight, started one by one from a plan.
class Pump {
 public:
  struct Step {
    std::uint64_t position;
    std::size_t bytes;
    int depth;
  };
  Pump(io::Runtime& runtime, io::File& file, Buffer data, std::vector<Step> plan, io::Durable durable, bool reading, bool in_order = false)
      : runtime_{runtime}, file_{file}, data_{std::move(data)}, plan_{std::move(plan)}, durable_{durable}, reading_{reading},
        in_order_{in_order}, done_{runtime.executor} {
    runtime_.files.pin(data_.bytes());  // as the log's staging memory is
    operations_.resize(64);
    for (auto& op : operations_) {
      op.pump = this;
      op.complete = [](io::Operation* self) noexcept {
        auto* mine = static_cast<Op*>(self);
        mine->busy = false;
        --mine->pump->in_flight_;
        mine->pump->finished_[mine->step] = true;
        if (mine->result != static_cast<std::int64_t>(mine->expected)) mine->pump->failed_ = mine->result;
        mine->pump->fill();
      };
    }
  }
  ~Pump() { runtime_.files.unpin(data_.bytes()); }
  Pump(const Pump&) = delete;
  Pump& operator=(const Pump&) = delete;
  Task<Result<double>> run() {
    Instant from = runtime_.clock.now();
    fill();
    while (in_flight_ > 0) co_await done_.wait();
    if (failed_ != 0) co_return std::unexpected(io::error_of(failed_ < 0 ? failed_ : -5, "raw operation"));
    co_return seconds(runtime_.clock.now() - from);
  }

 private:
  struct Op : io::Operation {
    Pump* pump = nullptr;
    std::size_t expected = 0;
    std::size_t step = 0;
    bool busy = false;
  };
  [[nodiscard]] int outstanding() {
    while (prefix_ < next_ && finished_[prefix_]) ++prefix_;
    return in_order_ ? static_cast<int>(next_ - prefix_) : in_flight_;
  }
  void fill() {
    while (next_ < plan_.size() && failed_ == 0 && outstanding() < plan_[next_].depth) {
      auto free = std::ranges::find_if(operations_, [](const Op& op) { return !op.busy; });
      if (free == operations_.end()) break;
      free->step = next_;
      const Step& step = plan_[next_++];
      free->busy = true;
      free->expected = step.bytes;
      ++in_flight_;
      std::size_t slot = static_cast<std::size_t>(free - operations_.begin());
      if (reading_) {
        file_.read(*free, data_.bytes().subspan(slot * step.bytes, step.bytes), step.position);
      } else {
        file_.write(*free, Bytes{data_.data(), step.bytes}, step.position, durable_);
      }
    }
    if (in_flight_ == 0) done_.notify_all();
  }
  io::Runtime& runtime_;
  io::File& file_;
  Buffer data_;
  std::vector<Step> plan_;
  io::Durable durable_;
  bool reading_;
  bool in_order_;
  std::vector<bool> finished_ = std::vector<bool>(plan_.size());
  std::size_t prefix_ = 0;  // the first so many steps are finished
  Notifier done_;
  std::vector<Op> operations_;
  std::size_t next_ = 0;
  int in_flight_ = 0;
  std::int64_t failed_ = 0;
};

/// In large pages where there are any, as the log's staging memory.
Buffer pattern(std::size_t bytes) {
  constexpr std::size_t kLargePage = 2 << 20;
  Buffer data = Buffer::allocate((bytes + kLargePage - 1) / kLargePage * kLargePage, kLargePage);
  std::memset(data.data(), 0x5a, data.size());
  return data;
}

}  // namespace

Task<Result<double>> raw_writes(io::Runtime& runtime, RawFile raw, std::size_t bytes, int depth, std::uint64_t total, io::Durable durable,
                                bool in_order) {
  TAILRACE_CO_TRY(auto file, co_await runtime.files.open(raw.path, {.write = true, .direct = true}));
  std::vector<Pump::Step> plan;
  std::uint64_t at = 0;
  for (std::uint64_t done = 0; done < total; done += bytes) {
    if (at + bytes > raw.bytes) at = 0;
    plan.push_back({at, bytes, depth});
    at += bytes;
  }
  Pump pump{runtime, *file, pattern(bytes), std::move(plan), durable, false, in_order};
  co_return co_await pump.run();
}

Task<Result<double>> replay_writes(io::Runtime& runtime, RawFile raw, const std::vector<RecordedWrite>& writes) {
  TAILRACE_CO_TRY(auto file, co_await runtime.files.open(raw.path, {.write = true, .direct = true}));
  std::vector<Pump::Step> plan;
  std::uint64_t at = 0;
  std::size_t largest = io::kDirectAlignment;
  for (const auto& w : writes) {
    if (at + w.bytes > raw.bytes) at = 0;
    plan.push_back({at, w.bytes, static_cast<int>(w.depth)});
    at += w.bytes;
    largest = std::max<std::size_t>(largest, w.bytes);
  }
  Pump pump{runtime, *file, pattern(largest), std::move(plan), io::Durable::yes, false};
  co_return co_await pump.run();
}

Task<Result<double>> raw_reads(io::Runtime& runtime, std::vector<RawFile> raws, std::size_t bytes, int depth) {
  double total = 0;
  for (const auto& raw : raws) {
    TAILRACE_CO_TRY(auto file, co_await runtime.files.open(raw.path, {.direct = true}));
    std::vector<Pump::Step> plan;
    for (std::uint64_t at = 0; at + bytes <= raw.bytes; at += bytes) plan.push_back({at, bytes, depth});
    Buffer data = Buffer::allocate(bytes * 64, io::kDirectAlignment);
    Pump pump{runtime, *file, std::move(data), std::move(plan), io::Durable::no, true};
    TAILRACE_CO_TRY(double one, co_await pump.run());
    total += one;
  }
  co_return total;
}

Slice make_batch(int records, std::size_t value_bytes) {
  codec::BatchBuilder builder{{.bytes_max = limits::kMessageBytesCeiling}};
  std::string value(value_bytes, 'v');
  for (int i = 0; i < records; ++i) {
    codec::RecordInput record;
    record.timestamp = 1'700'000'000'000 + i;
    record.value = as_bytes(value);
    if (auto added = builder.add(record); !added) give_up(added.error());
  }
  auto batch = builder.finish();
  if (!batch) give_up(batch.error());
  return *batch;
}

Slice random_bytes(std::size_t count, std::uint64_t seed) {
  Random random{seed};
  Buffer buffer = Buffer::allocate(count);
  for (std::size_t at = 0; at < count; at += 8) {
    std::uint64_t value = random.next();
    std::memcpy(buffer.data() + at, &value, std::min<std::size_t>(8, count - at));
  }
  return Slice::whole(std::move(buffer));
}

Task<void> settled(io::Runtime& runtime, const log::ShardLog& log) {
  auto written = [&] { return log.stats().commit_bytes + log.stats().segment_bytes + log.stats().checkpoint_bytes + log.stats().segment_syncs; };
  std::uint64_t before = written();
  for (int quiet = 0; quiet < 5; ++quiet) {
    co_await io::SleepUntil{runtime, runtime.clock.now() + std::chrono::milliseconds{10}};
    if (written() != std::exchange(before, written())) quiet = 0;
  }
}

double device_bytes(const log::ShardLogStats& now, const log::ShardLogStats& before) {
  return static_cast<double>(now.commit_bytes - before.commit_bytes + now.segment_bytes - before.segment_bytes + now.checkpoint_bytes -
                             before.checkpoint_bytes);
}

PartitionId partition_id(int n) {
  PartitionId id;
  id.topic.bytes[0] = 0xbe;
  id.index = PartitionIndex{n};
  return id;
}

Task<Result<std::unique_ptr<log::ShardLog>>> open_log(io::Runtime& runtime, std::string folder, log::ShardLogOptions options) {
  TAILRACE_CO_TRY(auto directory, co_await log::DataDirectory::open(runtime, folder + "/data", 1));
  TAILRACE_CO_TRY_VOID(co_await directory->mark_dirty());
  options.data_directory = directory->path();
  options.directory_id = directory->identity().directory_id;
  co_return co_await log::LoneShardLog::open(runtime, std::move(options));
}

std::vector<RawFile> files_below(const std::string& folder, const std::string& suffix) {
  std::vector<RawFile> found;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file() && entry.path().string().ends_with(suffix)) found.push_back({entry.path().string(), entry.file_size()});
  }
  std::ranges::sort(found, {}, &RawFile::path);
  return found;
}

}  // namespace tailrace::bench
