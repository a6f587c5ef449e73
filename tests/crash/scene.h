#pragma once
/// What directed crash tests share: one node with its oracle, verbs to bring it to a certain state, and a judge for the disk
/// images of many crashes. A scene gathers violations instead of failing at once, since the same scene must find nothing in
/// the product and something in a product with a planted bug.
#include <memory>
#include <string>
#include <vector>

#include "tests/crash/life.h"

namespace tailrace::broker::crash {

struct WalWrite {
  std::string path;
  std::uint64_t position = 0;
  std::uint64_t length = 0;
};

class Scene {
 public:
  explicit Scene(std::uint64_t seed, Setup setup = {});
  [[nodiscard]] Life& life() { return *life_; }
  [[nodiscard]] Oracle& oracle() { return oracle_; }
  [[nodiscard]] const Setup& setup() const { return setup_; }
  [[nodiscard]] bool running() const { return life_ != nullptr && life_->running(); }

  // State to start from.
  void create(int partitions);
  /// Appends and waits for the acknowledgement; a refusal is a violation.
  void append(PartitionId id, Shape shape = {});
  void append(PartitionId id, int batches, Shape shape);
  /// Fills `filler` until the WAL has been recycled `times` more often.
  void recycle(PartitionId filler, std::uint64_t times);
  /// Runs until `count` WAL writes are in flight. False: that never happened.
  bool until_wal_writes(std::size_t count);
  /// After the last commit, until the idle mark is durable: from here on no damage may be taken for a torn tail.
  void quiet();
  /// WAL writes of frames since the scene began, in order of submission.
  [[nodiscard]] const std::vector<WalWrite>& wal_writes() const { return wal_writes_; }

  /// Judges one crash on a copy of the oracle. Answers what recovery said.
  Recovered judge(const sim::DiskImage& image, const std::string& what, const Expectation& expectation = {});
  /// Ends the life by a power cut and starts the next one, verified.
  void power_cut(const sim::CrashPlan& plan);
  void kill();
  void restart(const sim::DiskImage& image, const Expectation& expectation = {});

  void violation(std::string text) { violations_.push_back(std::move(text)); }
  /// All of them, the oracle's included; the node is put away.
  std::vector<std::string> finish();
  [[nodiscard]] bool failed() const { return !violations_.empty() || !oracle_.violations.empty(); }
  [[nodiscard]] std::uint64_t judged() const { return judged_; }

 private:
  void begin(const sim::DiskImage& image);
  Setup setup_;
  Oracle oracle_;
  Random seeds_;
  std::unique_ptr<Life> life_;
  std::vector<WalWrite> wal_writes_;
  std::vector<std::string> violations_;
  std::uint64_t judged_ = 0;
};

[[nodiscard]] inline bool is_wal(std::string_view path) { return path.find("/wal/") != std::string_view::npos; }
[[nodiscard]] inline bool is_segment(std::string_view path) { return path.find("/topics/") != std::string_view::npos && path.ends_with(".log"); }

}  // namespace tailrace::broker::crash
