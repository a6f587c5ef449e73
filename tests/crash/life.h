#pragma once
/// One life of a simulated node: a machine that starts from a disk image, opens its data directory and shard log, does what a
/// test says, and ends by a power cut, a kill or a clean stop. Everything asked and answered goes to the oracle.
#include <array>
#include <functional>
#include <memory>
#include <string>

#include "log/data_directory.h"
#include "log/shard_log.h"
#include "tests/crash/oracle.h"
#include "tests/support/lone_log.h"
#include "tests/support/sim_disk.h"

namespace tailrace::broker::crash {

inline constexpr const char* kDataDirectory = "/data";

struct Setup {
  std::uint64_t wal_file_bytes = limits::kWalFileBytesMin;
  int wal_files = 3;
  std::uint64_t segment_bytes_max = 16 * limits::kKiB;
  std::uint64_t hot_tail_bytes = 32 * limits::kKiB;
  std::size_t open_files_max = 64;
  sim::DiskOptions disk{};
};

struct Shape {
  int records = 1;
  std::size_t value_bytes = 100;
  ProducerId producer = kNoProducer;  // none: not idempotent
  std::vector<std::byte> value{};     // not empty: these bytes instead of drawn ones, after the first eight
};

/// What the test did to the disk, and so what recovery may say.
struct Expectation {
  bool damage = false;           // bytes were damaged: an explicit error is as good as the data
  bool may_cut_acknowledged = false;  // damage before the idle mark: the newest commits may be cut, if counted as torn
  bool check_use = true;         // go on after the recovery: append, commit, stop cleanly, open again
  bool check_twice = false;      // recover what the first recovery left behind, and compare
};

struct Recovered {
  bool opened = false;
  Error error{};
  log::RecoveryReport report{};
  std::uint64_t damaged_partitions = 0;   // an explicit error, or damage in the statistics
  std::uint64_t read_errors = 0;
  std::map<PartitionId, std::uint64_t> content;  // hash of the batches read
};

class Life {
 public:
  Life(std::uint64_t seed, sim::DiskImage image, const Setup& setup, Oracle& oracle);
  ~Life();
  Life(const Life&) = delete;
  Life& operator=(const Life&) = delete;

  /// Opens directory and shard log. False: error() says why.
  bool start();
  [[nodiscard]] const Error& error() const { return error_; }
  [[nodiscard]] bool running() const { return log_ != nullptr; }
  [[nodiscard]] log::ShardLog& log() { return *log_; }
  [[nodiscard]] sim::SimLoop& loop() { return machine_.loop; }
  [[nodiscard]] sim::SimDisk& disk() { return machine_.disk; }
  [[nodiscard]] Random& random() { return random_; }
  [[nodiscard]] io::Runtime& runtime() { return machine_.runtime; }

  // Verbs. Those that end in _later return at once; settle() waits for all of them.
  bool create(PartitionId id);
  log::PartitionPtr open(PartitionId id);
  /// Queues one batch; false when the log refused it.
  bool append_later(PartitionId id, Shape shape);
  bool append(PartitionId id, Shape shape);  // and waits for the acknowledgement
  void truncate_later(PartitionId id, Offset end);
  void advance_start_later(PartitionId id, Offset start);
  void hard_state_later(PartitionId id, LeaderEpoch term, NodeId vote);
  void start_term_later(PartitionId id, LeaderEpoch term);
  void retention_later(PartitionId id);
  void remove_later(PartitionId id);
  void create_later(PartitionId id);
  void read_later(PartitionId id, Offset from);
  void tail_later(PartitionId id);  // goes on where this life's last one ended
  /// Until every verb has its answer. False: some never got one.
  bool settle(Duration limit = std::chrono::minutes{5});
  [[nodiscard]] std::size_t waiting() const { return scope_.running(); }

  /// Power off now. The life is over; the image is what the disk still has.
  sim::DiskImage power_cut(const sim::CrashPlan& plan);
  /// What a power cut now would leave, with the oracle told of every high watermark: the life goes on.
  sim::DiskImage image_now(const sim::CrashPlan& plan);
  sim::DiskImage kill();
  /// Clean stop. The image, or nothing when it hangs.
  sim::DiskImage stop();

  /// Reads everything of every partition and compares with the oracle, which then knows the outcome.
  Recovered verify(const Expectation& expectation);
  /// The next batch of a producer or of nobody, as a client would send it. Its sequence is not used up.
  [[nodiscard]] Slice make_batch(PartitionId id, const Shape& shape, std::vector<history::Value>& values);
  std::optional<std::uint64_t> retention_bytes{};  // of partitions opened or created from now on

 private:
  void note_watermarks();
  void end_life();
  void violation(std::string text);
  [[nodiscard]] std::int64_t now() const;
  void answered(PartitionOracle& po, std::string_view what, const Result<void>& result);
  Task<void> await_commit(PartitionOracle* po, log::PartitionPtr partition, std::uint64_t number, BatchPtr batch);
  Task<void> truncate(PartitionOracle* po, log::PartitionPtr partition, Offset end);
  Task<void> advance_start(PartitionOracle* po, log::PartitionPtr partition, Offset start);
  Task<void> set_hard_state(PartitionOracle* po, log::PartitionPtr partition, HardState state);
  Task<void> start_term(PartitionOracle* po, log::PartitionPtr partition, LeaderEpoch term);
  Task<void> enforce_retention(PartitionOracle* po, log::PartitionPtr partition);
  Task<void> create_partition(PartitionOracle* po);
  Task<void> remove_partition(PartitionOracle* po);
  Task<void> read(PartitionOracle* po, log::PartitionPtr partition, Offset from, std::uint32_t process, bool tail);
  Task<Recovered> verify_all(Expectation expectation);
  Task<void> verify_one(PartitionOracle* po, Expectation expectation, Recovered* out);
  Task<void> verify_contents(PartitionOracle* po, log::PartitionPtr partition, Expectation expectation, Recovered* out);
  Task<void> verify_lookups(PartitionOracle* po, log::PartitionPtr partition, const Log* found);
  void verify_producers(PartitionOracle& po, log::Partition& partition, const Log& found);
  [[nodiscard]] log::PartitionOptions options() const { return {.segment_bytes_max = setup_.segment_bytes_max, .retention_bytes = retention_bytes}; }

  /// What waiting coroutines point into. A life that cannot end leaves it behind: nobody may destroy it then.
  struct Body {
    Body(std::uint64_t seed, sim::DiskImage image, const sim::DiskOptions& options) : machine{seed, std::move(image), options} {}
    sim::SimMachine machine;
    std::unique_ptr<log::DataDirectory> directory;
    std::unique_ptr<log::ShardLog> log;
    std::map<PartitionId, log::PartitionPtr> open;
    TaskScope scope;
  };

  Setup setup_;
  Oracle& oracle_;
  std::unique_ptr<Body> body_;
  sim::SimMachine& machine_ = body_->machine;
  std::unique_ptr<log::DataDirectory>& directory_ = body_->directory;
  std::unique_ptr<log::ShardLog>& log_ = body_->log;
  std::map<PartitionId, log::PartitionPtr>& open_ = body_->open;
  TaskScope& scope_ = body_->scope;
  Random random_;
  std::map<PartitionId, std::uint64_t> last_answered_;  // number of the operation
  std::map<PartitionId, Offset> tails_;
  Error error_{};
  bool ended_ = false;
  std::uint32_t reader_;
  std::int64_t time_base_;
};

/// Starts a life from `image` only to look: recovers, compares, goes on a little if asked. Violations go to the oracle.
Recovered recover_and_verify(const sim::DiskImage& image, const Setup& setup, Oracle& oracle, std::uint64_t seed,
                             const Expectation& expectation = {});
/// The same on a copy of the oracle: for many crashes of one run. Answers the violations.
[[nodiscard]] std::vector<std::string> judge_image(const sim::DiskImage& image, const Setup& setup, const Oracle& oracle, std::uint64_t seed,
                                                   const Expectation& expectation = {}, Recovered* recovered = nullptr);

[[nodiscard]] PartitionId partition_number(int number);

}  // namespace tailrace::broker::crash
