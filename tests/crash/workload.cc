#include "tests/crash/workload.h"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>

#include "tests/support/history_checker.h"

namespace tailrace::broker::crash {

std::string_view name_of(Mark mark) {
  static constexpr std::array<std::string_view, static_cast<std::size_t>(Mark::count_)> kNames{
      "appended", "committed", "rotated", "recycled", "checkpointed", "rolled", "remainder copied", "truncated", "truncation recovered",
      "start moved", "segments removed", "hard state", "duplicate recovered", "torn", "killed", "stopped", "power cut", "cold read",
      "created late", "removed", "clock jumped"};
  return kNames[static_cast<std::size_t>(mark)];
}

namespace {

class Teller {
 public:
  Teller(std::uint64_t seed, const Profile& profile) : profile_{profile}, draw_{Random{seed}.split()} {
    story_.seed = seed;
    setup_.wal_files = static_cast<int>(draw_.between(2, 4));
    setup_.segment_bytes_max = std::uint64_t{4096} << draw_.below(4);
    setup_.hot_tail_bytes = draw_.chance(1, 2) ? 8 * limits::kKiB : 64 * limits::kKiB;
    if (draw_.chance(1, 4)) setup_.disk.latency_max = 5ms;
    if (draw_.chance(1, 4)) setup_.disk.latency_min = setup_.disk.latency_max = 50us;
    partitions_ = static_cast<int>(draw_.between(1, 5));
    value_bytes_ = std::size_t{16} << draw_.below(9);
    truncations_ = profile.truncations && draw_.chance(1, 2);
    removals_ = draw_.chance(1, 4);
    jumps_ = draw_.chance(1, 4);
  }

  Story tell();

 private:
  void mark(Mark m, std::uint64_t n = 1) { story_.marks[static_cast<std::size_t>(m)] += n; }
  void live(Life& life);
  void step(Life& life);
  void append_some(Life& life, PartitionId id);
  PartitionId any() { return partition_number(static_cast<int>(draw_.below(static_cast<std::uint64_t>(partitions_)))); }
  [[nodiscard]] bool usable(PartitionId id) {
    auto* po = oracle_.find(id);
    return po != nullptr && po->created && !po->remove_asked;
  }
  static bool may_truncate(PartitionId id) { return id.index.value() % 2 == 1; }

  Profile profile_;
  Random draw_;
  Setup setup_;
  Oracle oracle_;
  Story story_;
  int partitions_;
  std::size_t value_bytes_;
  bool truncations_, removals_, jumps_;
  std::map<PartitionId, std::int32_t> terms_;
};

void Teller::append_some(Life& life, PartitionId id) {
  std::uint64_t count = draw_.chance(1, 4) ? draw_.between(1, 12) : 1;
  for (std::uint64_t i = 0; i < count; ++i) {
    Shape shape;
    shape.records = static_cast<int>(draw_.between(1, 4));
    shape.value_bytes = draw_.between(8, value_bytes_);
    if (draw_.chance(2, 3)) shape.producer = ProducerId{static_cast<std::int64_t>(100 + draw_.below(3))};
    if (life.append_later(id, shape)) mark(Mark::appended);
  }
}

void Teller::step(Life& life) {
  PartitionId id = any();
  if (!usable(id)) {
    if (auto& po = oracle_.partition(id); !po.create_asked && !po.removed) {
      life.create_later(id);
      mark(Mark::created_late);
    }
    return;
  }
  auto& po = oracle_.partition(id);
  auto partition = life.open(id);
  if (!partition) return;
  if (po.truncation_open()) {  // replication does nothing else with a log that it truncates
    life.loop().run_for(1ms);
    return;
  }
  switch (draw_.below(16)) {
    default: append_some(life, id); break;
    case 8: life.tail_later(id); break;
    case 9: {
      Offset low = partition->log_start(), high = partition->high_watermark();
      if (low < high) life.read_later(id, low + static_cast<std::int64_t>(draw_.below(static_cast<std::uint64_t>(high - low))));
      break;
    }
    case 10: {
      Offset low = partition->log_start(), high = partition->high_watermark();
      if (low < high && draw_.chance(1, 2)) {
        life.advance_start_later(id, low + static_cast<std::int64_t>(draw_.below(static_cast<std::uint64_t>(high - low) + 1)));
        mark(Mark::start_moved);
      }
      break;
    }
    case 11: {
      auto& term = terms_[id];
      term = std::max(term, partition->term().value()) + 1;
      life.hard_state_later(id, LeaderEpoch{term}, NodeId{static_cast<std::int32_t>(draw_.between(1, 3))});
      mark(Mark::hard_state);
      if (draw_.chance(1, 2)) {
        if (life.settle()) life.start_term_later(id, LeaderEpoch{term});
      }
      break;
    }
    case 12:
      if (truncations_ && may_truncate(id) && draw_.chance(1, 2)) {
        // One at a time, and nothing else of this partition in flight: replication truncates what it has, then appends.
        if (!life.settle()) break;
        Log log = po.asked();
        auto first = std::ranges::find_if(log, [&](const BatchPtr& b) { return b->base() >= po.start_asked; });
        if (first == log.end()) break;
        auto choice = first + static_cast<std::ptrdiff_t>(draw_.below(static_cast<std::uint64_t>(log.end() - first)));
        life.truncate_later(id, (*choice)->base());
        mark(Mark::truncated);
        if (draw_.chance(3, 4)) (void)life.settle();
      }
      break;
    case 13:
      if (removals_ && draw_.chance(1, 4)) {
        if (!life.settle()) break;
        life.remove_later(id);
        mark(Mark::removed);
      } else {
        life.retention_later(id);
      }
      break;
    case 14: (void)life.settle(); break;
    case 15:
      if (jumps_) {
        life.loop().jump_wall(std::chrono::milliseconds{static_cast<std::int64_t>(draw_.below(6 * 3'600'000)) - 3 * 3'600'000});
        mark(Mark::clock_jumped);
      }
      life.loop().run_for(draw_.chance(1, 3) ? 2s : 20ms);
      break;
  }
  // Let some of it happen: from nothing at all to a while.
  if (draw_.chance(1, 2)) {
    std::uint64_t until = life.disk().counters().completed + draw_.below(8);
    (void)life.loop().run_until([&] { return life.disk().counters().completed >= until; }, 50ms);
  }
}

void Teller::live(Life& life) {
  if (draw_.chance(1, 3)) life.retention_bytes = setup_.segment_bytes_max * draw_.between(1, 4);
  auto steps = draw_.between(1, static_cast<std::uint64_t>(profile_.steps));
  for (std::uint64_t i = 0; i < steps && oracle_.violations.empty(); ++i) step(life);
  const auto& stats = life.log().stats();
  mark(Mark::committed, stats.commits);
  mark(Mark::rotated, stats.wal_rotations);
  mark(Mark::recycled, stats.wal_recycles);
  mark(Mark::checkpointed, stats.checkpoints);
  mark(Mark::rolled, stats.segments_created);
  mark(Mark::remainder_copied, stats.remainders_copied);
  mark(Mark::segments_removed, stats.segments_removed);
  mark(Mark::cold_read, stats.cold_reads);
}

Story Teller::tell() {
  sim::DiskImage image;
  int lives = static_cast<int>(draw_.between(1, static_cast<std::uint64_t>(profile_.lives)));
  for (int number = 0; number < lives && oracle_.violations.empty(); ++number) {
    Life life{draw_.next(), image, setup_, oracle_};
    if (!life.start()) {
      oracle_.violation(fmt::format("life {} does not start: {}", number, life.error().detail));
      break;
    }
    if (number > 0) {
      for (const auto& [id, po] : oracle_.partitions) {
        if (po.truncation_open()) mark(Mark::truncation_recovered);
      }
      Recovered recovered = life.verify({});
      ++story_.recoveries;
      mark(Mark::torn, recovered.report.torn);
      if (!oracle_.violations.empty()) break;
      for (const auto& [who, sequence] : oracle_.sequences) mark(Mark::duplicate_recovered, sequence > 0 ? 1 : 0);
    } else {
      int early = static_cast<int>(draw_.between(1, static_cast<std::uint64_t>(partitions_)));
      for (int i = 0; i < early; ++i) {
        if (!life.create(partition_number(i))) oracle_.violation("a partition cannot be created");
      }
    }
    live(life);
    if (!oracle_.violations.empty()) break;
    switch (draw_.below(8)) {
      case 0:
        image = life.stop();
        mark(Mark::stopped);
        break;
      case 1:
        image = life.kill();
        mark(Mark::killed);
        break;
      default:
        image = life.power_cut(sim::CrashPlan::seeded(draw_.next()));
        mark(Mark::power_cut);
        break;
    }
    story_.hash = story_.hash * 0xff51afd7ed558ccdULL ^ life.loop().hash();
  }
  if (oracle_.violations.empty()) {
    for (const auto& [id, po] : oracle_.partitions) {
      if (po.truncation_open()) mark(Mark::truncation_recovered);
    }
    bool use = draw_.chance(1, 2);
    recover_and_verify(image, setup_, oracle_, draw_.next(), {.check_use = use, .check_twice = true});
    story_.recoveries += 2;
  }
  if (oracle_.violations.empty()) {
    history::Verdict verdict = history::check(oracle_.history, {.skip_keys = oracle_.unjudged});
    if (verdict.fatal() > 0) oracle_.violation("the clients' history: " + verdict.summary());
  }
  story_.violations = oracle_.violations;
  return story_;
}

}  // namespace

Story tell(std::uint64_t seed, const Profile& profile) { return Teller{seed, profile}.tell(); }

Sweep sweep(std::uint64_t first, std::uint64_t count, const Profile& profile) {
  Sweep out;
  auto began = std::chrono::steady_clock::now();
  for (std::uint64_t seed = first; seed < first + count; ++seed) {
    Story story = tell(seed, profile);
    ++out.told;
    out.recoveries += story.recoveries;
    for (std::size_t i = 0; i < out.marks.size(); ++i) out.marks[i] += story.marks[i];
    if (!story.violations.empty()) {
      out.failed_seed = seed;
      out.violations = story.violations;
      break;
    }
  }
  out.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  return out;
}

std::string Sweep::text() const {
  std::string out = fmt::format("{} seeds, {} recoveries in {:.2f} s ({:.0f} seeds/s)", told, recoveries, seconds, static_cast<double>(told) / std::max(seconds, 1e-9));
  for (std::size_t i = 0; i < marks.size(); ++i) out += fmt::format("\n  {}: {}", name_of(static_cast<Mark>(i)), marks[i]);
  if (!violations.empty()) out += fmt::format("\nseed {} (again: crash_sweep --seed {}):", failed_seed, failed_seed);
  for (const auto& violation : violations) out += "\n  " + violation;
  return out;
}

}  // namespace tailrace::broker::crash
