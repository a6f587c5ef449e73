#include "tests/crash/faults.h"

#include <fmt/core.h>

#include <algorithm>
#include <cerrno>

namespace tailrace::broker::crash {
namespace {

const PartitionId kFirst = partition_number(0);
const PartitionId kCut = partition_number(1);
const PartitionId kGone = partition_number(2);

sim::DiskImage empty_disk() {
  sim::DiskImage image;
  image.directories.insert(kDataDirectory);
  return image;
}

Setup small() {
  Setup setup;
  setup.wal_files = 2;
  setup.segment_bytes_max = 8 * limits::kKiB;
  setup.hot_tail_bytes = 8 * limits::kKiB;
  return setup;
}

/// Every verb may fail; none of that is a violation here.
void perform(Life& life, Oracle& oracle, FaultRun& run) {
  Random random{7};
  auto settle = [&] { (void)life.settle(3min); };
  for (int i = 0; i < 3; ++i) {
    life.create_later(partition_number(i));
    settle();
  }
  auto append = [&](PartitionId id, std::size_t bytes, ProducerId producer = kNoProducer) {
    auto* po = oracle.find(id);
    if (po == nullptr || !po->created || po->remove_asked) return;
    if (!life.append_later(id, {.records = 1, .value_bytes = bytes, .producer = producer})) ++run.refused;
  };
  auto created = [&](PartitionId id) { return oracle.partition(id).created && !oracle.partition(id).remove_asked; };
  for (int i = 0; i < 70; ++i) {
    append(kFirst, random.between(100, 4'000), ProducerId{100});
    append(kCut, random.between(100, 1'500));
    if (i % 5 == 0) append(kGone, 300);
    if (i % 4 == 3) settle();
    if (i == 10 && created(kFirst)) life.hard_state_later(kFirst, LeaderEpoch{3}, NodeId{2});
    if (i == 20 && created(kCut)) {
      settle();
      Log log = oracle.partition(kCut).asked();
      if (log.size() > 4) life.truncate_later(kCut, log[log.size() - 3]->base());
      settle();
    }
    if (i == 30 && created(kFirst)) {
      settle();
      if (auto partition = life.open(kFirst)) life.advance_start_later(kFirst, partition->high_watermark());
    }
    if (i == 35 && created(kGone)) {
      settle();
      life.remove_later(kGone);
    }
    if (i % 9 == 4 && created(kFirst)) {
      if (auto partition = life.open(kFirst); partition && partition->log_start() < partition->high_watermark()) life.read_later(kFirst, partition->log_start());
    }
    if (i % 20 == 19) life.loop().run_for(1'500ms);
  }
  settle();
  life.loop().run_for(1'500ms);
}

}  // namespace

FaultRun run_script(std::uint64_t seed, const std::optional<sim::Fault>& fault) {
  FaultRun run;
  Setup setup = small();
  Oracle oracle;
  sim::DiskImage image;
  {
    Life life{seed, empty_disk(), setup, oracle};
    sim::Fault* injected = fault ? &life.disk().inject(*fault) : nullptr;
    run.started = life.start();
    if (run.started) {
      perform(life, oracle, run);
      run.failed = life.log().failed();
      run.recycles = life.log().stats().wal_recycles;
      run.rolls = life.log().stats().segments_created;
      run.calls = life.disk().counters().calls;
    }
    run.struck = injected != nullptr ? injected->struck : 0;
    image = life.power_cut(sim::CrashPlan::seeded(seed));
  }
  Expectation expectation;
  expectation.check_use = seed % 8 == 0;
  recover_and_verify(image, setup, oracle, seed + 1, expectation);
  run.violations = oracle.violations;
  return run;
}

FaultSweep fail_every_call(std::uint64_t seed, sim::DiskOp op, bool sticky, int error, std::uint64_t stride) {
  FaultSweep sweep;
  FaultRun healthy = run_script(seed, std::nullopt);
  if (!healthy.violations.empty() || healthy.recycles == 0 || healthy.rolls == 0) {
    sweep.violations.push_back("the script without a fault is no base: " + (healthy.violations.empty() ? "it does not recycle and roll" : healthy.violations[0]));
    return sweep;
  }
  std::uint64_t calls = healthy.calls[static_cast<std::size_t>(op)];
  for (std::uint64_t number = 0; number < calls && sweep.violations.size() < 5; number += stride) {
    FaultRun run = run_script(seed, sim::Fault{.op = op, .after = number, .sticky = sticky, .error = error});
    ++sweep.runs;
    sweep.struck += run.struck > 0 ? 1 : 0;
    for (const auto& violation : run.violations) {
      sweep.violations.push_back(fmt::format("seed {}, {} call {} of {} {}: {}", seed, name_of(op), number, calls, sticky ? "failing for good" : "failing once", violation));
    }
  }
  return sweep;
}

namespace {

/// A log with something of everything for recovery to do, cut off in the middle of commits.
sim::DiskImage interesting_image(std::uint64_t seed, const Setup& setup, Oracle& oracle) {
  FaultRun run;
  Life life{seed, empty_disk(), setup, oracle};
  if (!life.start()) {
    oracle.violation("the node does not start: " + life.error().detail);
    return {};
  }
  perform(life, oracle, run);
  for (int i = 0; i < 6; ++i) {
    (void)life.append_later(kFirst, {.records = 2, .value_bytes = 2'500, .producer = ProducerId{100}});
    (void)life.append_later(kCut, {.records = 1, .value_bytes = 500});
    life.loop().run_for(100us);
  }
  return life.power_cut(sim::CrashPlan::seeded(seed));
}

}  // namespace

FaultSweep crash_during_recovery(std::uint64_t seed) {
  FaultSweep sweep;
  Setup setup = small();
  Oracle oracle;
  sim::DiskImage image = interesting_image(seed, setup, oracle);
  sweep.violations = oracle.violations;
  for (std::uint64_t operations = 1; sweep.violations.empty(); ++operations) {
    // The first recovery gets so far; its own life is not judged, only what it leaves.
    sim::DiskImage left;
    bool finished = false;
    {
      Oracle unheard = oracle.fork();
      Life life{seed + 1, image, setup, unheard};
      life.disk().on_done = [&, done = std::uint64_t{0}](sim::DiskOp, const std::string&, std::uint64_t, std::int64_t) mutable {
        if (++done == operations) left = life.disk().crash(sim::CrashPlan::seeded(seed + operations));
      };
      bool started = life.start();
      life.disk().on_done = nullptr;
      if (started && !life.disk().dead()) {
        finished = true;
        left = life.kill();
      }
    }
    ++sweep.runs;
    auto found = judge_image(left, setup, oracle, seed + 2, {.check_use = operations % 7 == 0});
    for (const auto& violation : found) sweep.violations.push_back(fmt::format("seed {}, power cut after operation {} of a recovery: {}", seed, operations, violation));
    if (finished) break;
  }
  return sweep;
}

FaultSweep fail_during_recovery(std::uint64_t seed) {
  FaultSweep sweep;
  Setup setup = small();
  Oracle oracle;
  sim::DiskImage image = interesting_image(seed, setup, oracle);
  sweep.violations = oracle.violations;
  for (std::uint64_t number = 0; sweep.violations.empty() && number < 10'000; ++number) {
    sim::DiskImage left;
    std::uint64_t struck = 0;
    {
      Oracle unheard = oracle.fork();
      Life life{seed + 1, image, setup, unheard};
      sim::Fault& fault = life.disk().inject({.after = number, .error = number % 3 == 0 ? EMFILE : EIO});
      bool started = life.start();
      struck = fault.struck;
      life.disk().clear_faults();
      if (started) {
        // Whatever it could not read must not be taken for absent.
        (void)life.verify({.damage = true, .check_use = false});
        for (const auto& violation : unheard.violations) sweep.violations.push_back(fmt::format("seed {}, call {} of a recovery fails: {}", seed, number, violation));
      }
      left = life.kill();
    }
    ++sweep.runs;
    if (struck == 0) break;
    ++sweep.struck;
    auto found = judge_image(left, setup, oracle, seed + 2, {.check_use = number % 7 == 0});
    for (const auto& violation : found) sweep.violations.push_back(fmt::format("seed {}, after call {} of a recovery failed: {}", seed, number, violation));
  }
  return sweep;
}

std::vector<std::string> disk_full_and_freed(std::uint64_t seed) {
  Setup setup = small();
  setup.disk.capacity = 2 * limits::kMiB;
  Scene scene{seed, setup};
  scene.create(3);
  if (!scene.running()) return scene.finish();
  Life& life = scene.life();
  for (int round = 0; round < 3 && !scene.failed(); ++round) {
    bool refused = false;
    for (int i = 0; i < 3'000 && !refused && !scene.failed(); ++i) {
      if (life.append_later(kFirst, {.records = 1, .value_bytes = 3'500})) {
        if (i % 8 == 7) (void)life.settle(1min);
        if (life.waiting() > 200) refused = true;  // stalled behind a WAL that cannot recycle: as good as refused
        continue;
      }
      refused = life.log().disk_full() || life.log().failed();
      if (!refused) life.loop().run_for(50ms);
    }
    if (life.log().failed()) scene.violation("a full disk failed the log: " + life.log().failure().detail);
    if (!refused) scene.violation("a full disk refuses nothing");
    if (scene.failed()) break;
    // Reads, votes and deletes still work, and what was acknowledged survives a crash with the disk still full.
    (void)scene.judge(life.image_now(sim::CrashPlan::lose_all()), fmt::format("round {}, crash on a full disk", round), {.check_use = false});
    life.read_later(kFirst, life.open(kFirst)->log_start());
    life.hard_state_later(kFirst, LeaderEpoch{round + 2}, NodeId{1});
    life.loop().run_for(2s);
    if (scene.oracle().partition(kFirst).hard.term != LeaderEpoch{round + 2}) scene.violation("a vote does not get through on a full disk");
    // Space comes back by deleting records in one round, from outside in another.
    if (round == 1) {
      life.advance_start_later(kFirst, life.open(kFirst)->high_watermark());
      life.loop().run_for(5s);
      (void)life.append_later(kCut, {.records = 1});
    } else {
      life.disk().set_capacity(setup.disk.capacity + 2 * limits::kMiB * static_cast<std::uint64_t>(round + 1));
    }
    life.loop().run_for(15s);
    if (!life.settle(1min)) scene.violation(fmt::format("round {}: {} calls hang after space came back", round, life.waiting()));
    bool again = false;
    for (int i = 0; i < 50 && !again; ++i) {
      again = life.append_later(kFirst, {.records = 1, .value_bytes = 500});
      if (!again) life.loop().run_for(1s);
    }
    if (!again || !life.settle(1min)) scene.violation(fmt::format("round {}: no append is taken after space came back", round));
  }
  if (!scene.failed()) scene.restart(life.stop());
  return scene.finish();
}

}  // namespace tailrace::broker::crash
