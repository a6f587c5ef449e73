#include "tests/crash/histories.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>

#include "log/wal_format.h"
#include "tests/crash/scene.h"

namespace tailrace::broker::crash {
namespace {

const PartitionId kFirst = partition_number(0);
const PartitionId kSecond = partition_number(1);
const PartitionId kFiller = partition_number(2);

/// Judges a crash that loses all un-flushed bytes, one that keeps them, and `seeds` random ones.
void judge_now(Scene& scene, const std::string& what, int seeds = 2) {
  (void)scene.judge(scene.life().image_now(sim::CrashPlan::lose_all()), what + ", all un-flushed lost", {.check_use = false});
  (void)scene.judge(scene.life().image_now(sim::CrashPlan::keep_all()), what + ", all un-flushed kept", {.check_use = false});
  for (int i = 0; i < seeds; ++i) {
    auto seed = scene.life().random().next();
    (void)scene.judge(scene.life().image_now(sim::CrashPlan::seeded(seed)), fmt::format("{}, crash seed {}", what, seed), {.check_use = false});
  }
}

}  // namespace

Violations vote_forgotten(std::uint64_t seed) {
  Scene scene{seed};
  scene.create(3);
  scene.append(kFirst);
  if (!scene.running()) return scene.finish();
  scene.life().hard_state_later(kFirst, LeaderEpoch{7}, NodeId{2});
  (void)scene.life().settle();
  scene.recycle(kFiller, 4);  // more often than there are files: the frame of the vote is gone
  scene.power_cut(sim::CrashPlan::lose_all());
  if (!scene.running()) return scene.finish();
  auto partition = scene.life().open(kFirst);
  bool kept = partition && (partition->term() > LeaderEpoch{7} || (partition->term() == LeaderEpoch{7} && log::lone(*partition).vote() == NodeId{2}));
  if (!kept) scene.violation("the vote of term 7 is forgotten");
  // A second vote in the same term must be refused, whatever the node remembers of the first.
  if (partition) {
    auto again = scene.life().loop().run(log::lone(*partition).set_hard_state(LeaderEpoch{7}, NodeId{3}));
    if (!again || *again) scene.violation("a second vote in term 7 was accepted");
  }
  return scene.finish();
}

Violations padded_tail_torn(std::uint64_t seed) {
  Scene scene{seed, {.wal_files = 2}};
  scene.create(3);
  // A tail of less than a block that the WAL has to let go of, again and again.
  for (int round = 0; round < 3 && !scene.failed(); ++round) {
    scene.append(kFirst, 2, {.records = 1, .value_bytes = 200 + 64 * static_cast<std::size_t>(round)});
    scene.recycle(kFiller, 3);
    if (scene.failed()) break;
    judge_now(scene, fmt::format("round {} after recycling", round));
    // Now grow the tail by enough that its block is rewritten, and cut power at each step of that.
    for (int i = 0; i < 6 && !scene.failed(); ++i) {
      (void)scene.life().append_later(kFirst, {.records = 2, .value_bytes = 900});
      (void)scene.life().append_later(kFiller, {.records = 1, .value_bytes = 3'000});
      for (int moment = 0; moment < 6 && !scene.failed(); ++moment) {
        judge_now(scene, fmt::format("round {} append {} moment {}", round, i, moment), 1);
        std::uint64_t until = scene.life().disk().counters().completed + 1;
        (void)scene.life().loop().run_until([&] { return scene.life().disk().counters().completed >= until; }, 3s);
      }
      (void)scene.life().settle();
    }
  }
  return scene.finish();
}

Violations rot_at_the_end_of_a_file(std::uint64_t seed) {
  Scene scene{seed, {.wal_files = 4}};
  scene.create(2);
  scene.append(kFirst, 4, {.records = 1, .value_bytes = 5'000});
  // Fill the rest of the first file from one partition and begin the next from the other.
  while (!scene.failed() && scene.life().log().stats().wal_rotations == 0) scene.append(kFirst, {.records = 1, .value_bytes = 5'000});
  scene.append(kSecond, 2, {.records = 1, .value_bytes = 300});
  scene.quiet();
  if (scene.failed()) return scene.finish();
  sim::DiskImage image = scene.life().image_now(sim::CrashPlan::lose_all());
  const auto& writes = scene.wal_writes();
  // The last commits of batches in the file before the newest one.
  std::string newest = writes.back().path;
  std::size_t at = writes.size();
  while (at > 0 && writes[at - 1].path == newest) --at;
  std::string older;
  for (std::size_t i = at; i-- > 0 && older.empty();) {
    if (writes[i].position >= log::kWalDataStart && writes[i].position + writes[i].length <= scene.setup().wal_file_bytes - limits::kWalBlock) older = writes[i].path;
  }
  std::vector<WalWrite> commits;
  for (std::size_t i = 0; i < at; ++i) {
    bool data = writes[i].position >= log::kWalDataStart && writes[i].position + writes[i].length <= scene.setup().wal_file_bytes - limits::kWalBlock;
    if (writes[i].path == older && data && writes[i].length < 16 * limits::kKiB) commits.push_back(writes[i]);
  }
  if (commits.size() < 2) {
    scene.violation("the scene did not come about: no commits before the newest file");
    return scene.finish();
  }
  for (std::size_t count = 1; count <= 2; ++count) {
    sim::DiskImage rotten = image;
    for (std::size_t i = 0; i < count; ++i) {
      const auto& commit = commits[commits.size() - 1 - i];
      rotten.zero(commit.path, commit.position, commit.length);
    }
    auto recovered = scene.judge(rotten, fmt::format("the last {} commits of {} rot", count, older), {.damage = true});
    if (recovered.opened && recovered.report.torn > 0) scene.violation("rot that a later file proves was taken for a torn tail");
    if (recovered.opened && recovered.damaged_partitions == 0 && recovered.report.corrupt == 0 && recovered.report.padding_repaired == 0) {
      // Legal only when every record of the rotten commits is in segments already: judge() compared them all.
      continue;
    }
  }
  return scene.finish();
}

Violations segment_ahead_of_the_wal(std::uint64_t seed) {
  Scene scene{seed, {.segment_bytes_max = 64 * limits::kKiB}};
  scene.create(2);
  scene.append(kFirst);
  if (!scene.running()) return scene.finish();
  // Nothing may be written to a segment while its frame is not durable: looked at on every write.
  scene.life().disk().on_start = [&](sim::DiskOp op, const std::string& path, std::uint64_t, Bytes bytes) {
    if (op != sim::DiskOp::write && op != sim::DiskOp::write_durable) return;
    if (!is_segment(path)) return;
    for (auto& [id, po] : scene.oracle().partitions) {
      auto partition = scene.life().log().find(id);
      if (!partition) continue;
      for (const auto& batch : po.asked()) {
        if (batch->next() <= partition->high_watermark()) continue;
        Bytes begin = Bytes{batch->bytes}.first(batch_layout::kHeaderBytes);
        if (std::ranges::search(bytes, begin).begin() != bytes.end()) {
          scene.violation(fmt::format("{}: offset {} goes to {} above the high watermark {}", name_of(id), batch->base().value(), path, partition->high_watermark().value()));
          return;
        }
      }
    }
  };
  Random random{seed};
  for (int i = 0; i < 120 && !scene.failed(); ++i) {
    (void)scene.life().append_later(random.chance(1, 2) ? kFirst : kSecond, {.records = 1, .value_bytes = random.between(100, 12'000)});
    if (random.chance(1, 3)) (void)scene.life().settle();
    if (random.chance(1, 10)) scene.life().loop().run_for(1'200ms);
    // Segments land, frames in flight do not.
    if (i % 4 != 0) continue;
    sim::CrashPlan plan = sim::CrashPlan::keep_all();
    plan.fate = [](const sim::UnflushedWrite& write) { return sim::Fate{is_wal(write.path) ? sim::Fate::Keep::none : sim::Fate::Keep::all}; };
    (void)scene.judge(scene.life().image_now(plan), fmt::format("segments land and frames do not, step {}", i), {.check_use = false});
  }
  scene.life().disk().on_start = nullptr;
  return scene.finish();
}

Violations old_truncation_replayed(std::uint64_t seed) {
  Scene scene{seed, {.wal_files = 4, .segment_bytes_max = 64 * limits::kKiB}};
  scene.create(3);
  if (!scene.running()) return scene.finish();
  auto term = [&](int number) {
    scene.life().hard_state_later(kSecond, LeaderEpoch{number}, NodeId{1});
    (void)scene.life().settle();
    scene.life().start_term_later(kSecond, LeaderEpoch{number});
    (void)scene.life().settle();
  };
  term(2);
  scene.append(kSecond, 9, {.records = 10, .value_bytes = 60});  // [0, 90)
  // The truncation goes into the second file, so that the recycling of the first leaves it behind a checkpoint that knows its outcome.
  for (int i = 0; i < 60 && !scene.failed() && scene.life().log().stats().wal_rotations == 0; ++i) scene.append(kFiller, {.records = 1, .value_bytes = 3'000});
  scene.append(kFirst);  // keeps the second file in use when the first is recycled
  term(3);
  scene.life().truncate_later(kSecond, Offset{50});
  if (!scene.life().settle()) scene.violation("truncation hangs");
  term(4);
  scene.append(kSecond, 4, {.records = 10, .value_bytes = 700});  // [50, 90) again, other records
  if (scene.failed()) return scene.finish();
  judge_now(scene, "before the flush");
  // Flushed by its age, checkpointed by rotations, and the truncation still in a WAL file that is not recycled yet.
  scene.life().loop().run_for(3s);
  judge_now(scene, "after the flush");
  std::uint64_t recycles = scene.life().log().stats().wal_recycles;
  for (int i = 0; i < 200 && !scene.failed() && (i < 60 || scene.life().log().stats().wal_recycles == recycles); ++i) {
    scene.append(kFiller, {.records = 1, .value_bytes = 3'000});
    if (i % 6 == 5) scene.life().loop().run_for(1'200ms);
    if (i % 3 == 0) judge_now(scene, fmt::format("filler {}", i), 1);
  }
  if (!scene.failed()) scene.power_cut(sim::CrashPlan::lose_all());
  // And once more: recovery of a recovery, then a clean stop.
  if (!scene.failed() && scene.running()) {
    judge_now(scene, "after the recovery");
    scene.restart(scene.life().stop());
  }
  return scene.finish();
}

Violations late_write(std::uint64_t seed) {
  Scene scene{seed, {.segment_bytes_max = 256 * limits::kKiB}};
  scene.create(3);
  if (!scene.running()) return scene.finish();
  scene.append(kSecond, 12, {.records = 5, .value_bytes = 1'500});
  // The next write to a segment of this partition takes 20 s; meanwhile the partition truncates and goes on.
  auto& stall = scene.life().disk().inject({.op = sim::DiskOp::write, .path_part = "/topics/", .sticky = true, .effect = sim::Fault::Effect::stall, .stall = 20s});
  for (int i = 0; i < 40 && stall.struck == 0 && !scene.failed(); ++i) {
    scene.append(kSecond, {.records = 5, .value_bytes = 1'500});
    scene.life().loop().run_for(500ms);
  }
  if (stall.struck == 0) scene.violation("the scene did not come about: no segment write was in flight");
  if (scene.failed()) return scene.finish();
  auto partition = scene.life().open(kSecond);
  scene.life().truncate_later(kSecond, Offset{10});
  for (int i = 0; i < 10; ++i) {  // while the truncation waits for the write
    judge_now(scene, fmt::format("truncating, moment {}", i), 1);
    scene.life().loop().run_for(3s);
  }
  scene.life().disk().clear_faults();
  if (!scene.life().settle()) scene.violation("a truncation behind a slow write hangs");
  scene.life().hard_state_later(kSecond, LeaderEpoch{5}, NodeId{1});
  (void)scene.life().settle();
  scene.append(kSecond, 8, {.records = 5, .value_bytes = 1'400});
  scene.life().loop().run_for(30s);
  judge_now(scene, "after the late write");
  if (!scene.failed()) scene.restart(scene.life().stop());
  return scene.finish();
}

Violations late_write_over_new_bytes(std::uint64_t seed) {
  Scene scene{seed, {.wal_files = 2, .segment_bytes_max = 256 * limits::kKiB}};
  scene.create(3);
  scene.append(kSecond, 6, {.records = 1, .value_bytes = 1'500});
  scene.recycle(kFiller, 3);  // these are in the segment
  if (!scene.running()) return scene.finish();
  // One write of what follows is slow; the partition is cut inside it and goes on.
  auto& stall = scene.life().disk().inject({.op = sim::DiskOp::write, .path_part = "/1/", .effect = sim::Fault::Effect::stall, .stall = 20s});
  scene.append(kSecond, 4, {.records = 1, .value_bytes = 1'500});
  for (int i = 0; i < 400 && stall.struck == 0 && !scene.failed(); ++i) scene.append(kFiller, {.records = 1, .value_bytes = 3'000});
  if (stall.struck == 0) scene.violation("the scene did not come about: no segment write was in flight");
  if (scene.failed()) return scene.finish();
  scene.life().truncate_later(kSecond, Offset{8});
  scene.life().loop().run_for(100ms);
  if (!scene.life().settle()) scene.violation("a truncation behind a slow write hangs");
  scene.life().hard_state_later(kSecond, LeaderEpoch{5}, NodeId{1});
  (void)scene.life().settle();
  scene.append(kSecond, 6, {.records = 1, .value_bytes = 1'400});
  scene.recycle(kFiller, 3);
  scene.life().loop().run_for(30s);
  scene.recycle(kFiller, 3);  // nobody has the new records any more but the segment
  judge_now(scene, "after the late write");
  if (!scene.failed()) scene.restart(scene.life().stop());
  return scene.finish();
}

Violations moved_while_truncating(std::uint64_t seed) {
  Violations out;
  // Cut in memory, and cut in a segment that has left it: the second takes more steps.
  for (bool cold : {false, true}) {
    for (std::uint64_t moment = 0; moment < (cold ? 24 : 12) && out.empty(); ++moment) {
      Scene scene{seed + moment, {.wal_files = 2}};
      scene.create(3);
      scene.append(kFirst, 8, {.records = 1, .value_bytes = 1'500});
      if (cold) scene.recycle(kFiller, 3);
      if (!scene.running()) return scene.finish();
      Life& life = scene.life();
      auto partition = life.open(kFirst);
      Log log = scene.oracle().partition(kFirst).asked();
      Offset old_end = partition->high_watermark();
      std::uint64_t until = life.disk().counters().completed + moment;
      life.truncate_later(kFirst, log[3]->base());
      (void)life.loop().run_until([&] { return life.disk().counters().completed >= until; }, 3s);
      LeaderEpoch term = partition->term() + 5;
      life.advance_start_later(kFirst, std::min(old_end, partition->high_watermark()));
      life.hard_state_later(kFirst, term, NodeId{2});
      if (!life.settle()) scene.violation("a truncation never answers");
      if (partition->log_start() > partition->log_end()) scene.violation("the log starts behind its end");
      if (partition->term() != term || log::lone(*partition).vote() != NodeId{2}) scene.violation("a truncation forgets a vote");
      scene.append(kFirst, 2, {.records = 1, .value_bytes = 300});
      judge_now(scene, fmt::format("{} cut, moment {}", cold ? "cold" : "hot", moment), 1);
      for (auto& violation : scene.finish()) out.push_back(std::move(violation));
    }
  }
  return out;
}

Violations late_write_after_restart(std::uint64_t seed) {
  Scene scene{seed, {.segment_bytes_max = 64 * limits::kKiB}};
  scene.create(2);
  if (!scene.running()) return scene.finish();
  scene.append(kFirst, 6, {.records = 2, .value_bytes = 2'000});
  for (int i = 0; i < 5; ++i) (void)scene.life().append_later(kFirst, {.records = 2, .value_bytes = 4'000});
  (void)scene.until_wal_writes(1);
  auto late = scene.life().disk().writes_in_flight();
  if (late.empty()) {
    scene.violation("the scene did not come about: nothing was in flight");
    return scene.finish();
  }
  sim::DiskImage image = scene.life().kill();
  // The next process comes at once: it must be kept out while the kernel still has the writes of the last one.
  Oracle& oracle = scene.oracle();
  {
    Life early{seed + 9, image, scene.setup(), oracle};
    for (const auto& write : late) early.disk().land_later(write, 2s, kDataDirectory);
    if (early.start()) {
      scene.violation("a node starts while writes of its last life are queued");
    } else if (early.error().code != Errc::data_directory_locked) {
      scene.violation("a locked directory is refused with another error: " + early.error().detail);
    }
    early.loop().run_for(5s);
    if (!scene.failed()) {
      if (!early.start()) {
        scene.violation("the node does not start after the late writes landed: " + early.error().detail);
      } else {
        (void)early.verify({});
      }
    }
  }
  return scene.finish();
}

Violations frame_inside_a_payload(std::uint64_t seed) {
  Scene scene{seed, {.wal_files = 4}};
  scene.create(2);
  scene.append(kSecond, 3, {.records = 1, .value_bytes = 1'000});
  scene.quiet();
  if (scene.failed()) return scene.finish();
  // What a user could have got hold of: a whole commit of this very log, copied from an old backup of the disk.
  sim::DiskImage before = scene.life().image_now(sim::CrashPlan::lose_all());
  const WalWrite* commit = nullptr;
  for (const auto& write : scene.wal_writes()) {
    if (write.position >= log::kWalDataStart && write.length == limits::kWalBlock && write.position + write.length < scene.setup().wal_file_bytes) commit = &write;
  }
  if (commit == nullptr) {
    scene.violation("the scene did not come about: no commit of one block");
    return scene.finish();
  }
  std::vector<std::byte> stolen = before.file(commit->path).bytes(commit->position, commit->length);
  // The payload repeats it at every offset modulo a block that frame and batch headers may shift it by, 8 apart.
  Shape shape{.records = 1, .value_bytes = 8 * limits::kKiB, .producer = kNoProducer, .value = {}};
  shape.value.assign(24 * limits::kKiB, std::byte{0});
  for (std::size_t block = 0; block < 5; ++block) {
    std::size_t at = block * limits::kWalBlock + (limits::kWalBlock - log::kFrameHeaderBytes - batch_layout::kHeaderBytes - 9);
    std::copy_n(stolen.begin(), std::min(stolen.size(), shape.value.size() - at), shape.value.begin() + static_cast<std::ptrdiff_t>(at));
  }
  std::size_t first = scene.wal_writes().size();
  scene.append(kFirst, shape);
  scene.append(kSecond, 2, {.records = 1, .value_bytes = 500});
  scene.quiet();
  if (scene.failed()) return scene.finish();
  sim::DiskImage image = scene.life().image_now(sim::CrashPlan::lose_all());
  const WalWrite& outer = scene.wal_writes()[first];
  for (std::uint64_t damage : {std::uint64_t{0}, std::uint64_t{17}, std::uint64_t{200}}) {
    sim::DiskImage rotten = image;
    rotten.flip_bit(outer.path, outer.position + damage, 3);
    auto recovered = scene.judge(rotten, fmt::format("byte {} of the outer frame is damaged", damage), {.damage = true});
    if (recovered.opened && recovered.report.torn > 0) scene.violation("damage that later frames prove was taken for a torn tail");
  }
  return scene.finish();
}

Violations forged_frame_inside_a_payload(std::uint64_t seed) {
  Scene scene{seed, {.wal_files = 4}};
  scene.create(2);
  scene.append(kSecond, 3, {.records = 1, .value_bytes = 500});
  scene.append(kFirst, {.records = 1, .value_bytes = 500});
  scene.quiet();
  if (scene.failed()) return scene.finish();
  // The forger knows the format and guesses every number right; only the file's salt is secret.
  sim::DiskImage before = scene.life().image_now(sim::CrashPlan::lose_all());
  const WalWrite last = scene.wal_writes().back();
  auto file = log::decode_wal_file_header(before.file(last.path).bytes(0, limits::kWalBlock));
  auto newest = file ? log::decode_frame_header(before.file(last.path).bytes(last.position, limits::kWalBlock), file->salt) : fail(Errc::corrupt);
  if (!newest) {
    scene.violation("the scene did not come about: the last commit cannot be read");
    return scene.finish();
  }
  log::FrameHeader forged;
  forged.type = log::FrameType::log_start;
  forged.sequence = newest->sequence + 1;
  forged.file_sequence = newest->file_sequence;
  forged.partition = 1;  // numbers are given in order of creation
  forged.base_offset = Offset{2};
  forged.durable_lag = 1;
  std::array<std::byte, log::kFrameHeaderBytes> bytes{};
  log::encode(forged, 0, bytes);
  Shape shape{.records = 1, .value_bytes = 0, .producer = kNoProducer, .value = {}};
  shape.value.assign(20 * limits::kKiB, std::byte{0});
  std::vector<history::Value> unused;
  std::size_t overhead = scene.life().make_batch(kFirst, shape, unused).length - shape.value.size() - 1;  // a header count follows
  for (std::size_t block = 1; block < 5; ++block) {
    std::size_t at = block * limits::kWalBlock - log::kFrameHeaderBytes - overhead;
    std::ranges::copy(bytes, shape.value.begin() + static_cast<std::ptrdiff_t>(at));
  }
  std::size_t first = scene.wal_writes().size();
  scene.append(kFirst, shape);
  scene.append(kSecond, 3, {.records = 1, .value_bytes = 500});
  scene.append(kFirst, 2, {.records = 1, .value_bytes = 500});
  scene.quiet();
  if (scene.failed()) return scene.finish();
  sim::DiskImage image = scene.life().image_now(sim::CrashPlan::lose_all());
  const WalWrite& outer = scene.wal_writes()[first];
  for (std::uint64_t damage : {std::uint64_t{1}, std::uint64_t{17}, std::uint64_t{40}}) {
    sim::DiskImage rotten = image;
    rotten.flip_bit(outer.path, outer.position + damage, 3);
    auto recovered = scene.judge(rotten, fmt::format("byte {} of the frame around forged ones is damaged", damage), {.damage = true});
    if (recovered.opened && recovered.damaged_partitions > 1) scene.violation("a forged frame takes another partition's records with it");
  }
  return scene.finish();
}

Violations empty_topic_with_an_end_offset(std::uint64_t seed) {
  Scene scene{seed};
  scene.create(2);
  if (!scene.running()) return scene.finish();
  auto check = [&](const char* when) {
    auto partition = scene.life().open(kFirst);
    if (!partition || partition->log_start() != Offset{0} || partition->high_watermark() != Offset{0} || partition->log_end() != Offset{0}) {
      scene.violation(fmt::format("{}: an empty partition has moved offsets", when));
    }
  };
  for (int round = 0, term = 2; round < 4 && !scene.failed(); ++round, term += 2) {
    scene.life().hard_state_later(kFirst, LeaderEpoch{term}, NodeId{1});
    (void)scene.life().settle();
    scene.life().start_term_later(kFirst, LeaderEpoch{term});
    (void)scene.life().settle();
    check("after a term start");
    scene.power_cut(sim::CrashPlan::seeded(seed + static_cast<std::uint64_t>(term)));
    if (!scene.running()) return scene.finish();
    check("after a crash");
    if (scene.life().open(kFirst) && scene.life().open(kFirst)->term() < LeaderEpoch{term}) scene.violation("the term did not last");
  }
  if (scene.failed()) return scene.finish();
  Shape shape;
  scene.append(kFirst, shape);
  auto& log = scene.oracle().partition(kFirst).settled();
  if (log.empty() || log.front()->base() != Offset{0}) scene.violation("the first record is not at offset 0");
  return scene.finish();
}

Violations segment_names_lost(std::uint64_t seed) {
  Scene scene{seed, {.segment_bytes_max = 8 * limits::kKiB}};
  scene.create(3);
  for (int i = 0; i < 12 && !scene.failed(); ++i) {
    scene.append(kFirst, 2, {.records = 1, .value_bytes = 3'000});
    scene.recycle(kFiller, 1);
    if (scene.failed()) break;
    sim::CrashPlan plan = sim::CrashPlan::keep_all();
    plan.names = sim::CrashPlan::Changes::none;
    (void)scene.judge(scene.life().image_now(plan), fmt::format("all un-synced names lost, round {}", i), {.check_use = false});
    judge_now(scene, fmt::format("round {}", i), 1);
  }
  return scene.finish();
}

Violations crash_around_recycling(std::uint64_t seed) {
  Scene scene{seed, {.wal_files = 2, .segment_bytes_max = 32 * limits::kKiB}};
  scene.create(3);
  if (!scene.running()) return scene.finish();
  Random random{seed};
  std::uint64_t aim = scene.life().log().stats().wal_recycles + 6;
  for (int i = 0; i < 1'000 && !scene.failed() && scene.life().log().stats().wal_recycles < aim; ++i) {
    PartitionId id = partition_number(static_cast<int>(random.below(3)));
    if (!scene.life().append_later(id, {.records = 1, .value_bytes = random.between(100, 5'000)})) scene.life().loop().run_for(5ms);
    std::uint64_t until = scene.life().disk().counters().completed + random.below(6);
    (void)scene.life().loop().run_until([&] { return scene.life().disk().counters().completed >= until; }, 100ms);
    (void)scene.judge(scene.life().image_now(sim::CrashPlan::lose_all()), fmt::format("step {}, all un-flushed lost", i), {.check_use = false});
    if (i % 4 == 0) judge_now(scene, fmt::format("step {}", i), 1);
  }
  return scene.finish();
}

Violations pipelined_commits(std::uint64_t seed) {
  Setup setup;
  setup.wal_files = 4;
  setup.disk.latency_min = 50us;
  setup.disk.latency_max = 5ms;
  Scene scene{seed, setup};
  scene.create(2);
  scene.append(kFirst, 3, {.records = 1, .value_bytes = 300});
  if (!scene.running()) return scene.finish();
  for (int round = 0; round < 6 && !scene.failed(); ++round) {
    for (int i = 0; i < 6; ++i) {
      (void)scene.life().append_later(i % 2 == 0 ? kFirst : kSecond, {.records = 2, .value_bytes = 1'500});
      scene.life().loop().run_for(10us);  // a turn of its own: a commit of its own
    }
    for (int moment = 0; moment < 6 && !scene.failed(); ++moment) {
      std::vector<std::string> paths;
      auto in_flight = scene.life().disk().writes_in_flight();
      std::erase_if(in_flight, [](const auto& write) { return !is_wal(write.write.path); });
      std::size_t subsets = std::size_t{1} << std::min<std::size_t>(in_flight.size(), 6);
      for (std::size_t mask = 0; mask < subsets && !scene.failed(); ++mask) {
        sim::CrashPlan plan = sim::CrashPlan::lose_all();
        plan.fate = [&](const sim::UnflushedWrite& write) {
          for (std::size_t i = 0; i < in_flight.size(); ++i) {
            bool same = in_flight[i].write.path == write.path && in_flight[i].write.position == write.position && write.in_flight;
            if (same) return sim::Fate{(mask >> i & 1) != 0 ? sim::Fate::Keep::all : sim::Fate::Keep::none};
          }
          return sim::Fate{sim::Fate::Keep::none};
        };
        (void)scene.judge(scene.life().image_now(plan), fmt::format("round {} moment {}: subset {:b} of {} commits lands", round, moment, mask, in_flight.size()),
                          {.check_use = false});
      }
      std::uint64_t until = scene.life().disk().counters().completed + 1;
      (void)scene.life().loop().run_until([&] { return scene.life().disk().counters().completed >= until; }, 100ms);
    }
    (void)scene.life().settle();
  }
  return scene.finish();
}

Violations stale_frames_behind_the_tail(std::uint64_t seed) {
  Scene scene{seed, {.wal_files = 2}};
  scene.create(3);
  scene.append(kFirst);
  scene.recycle(kFiller, 4);  // every block of every file has held frames of an earlier use
  Random random{seed};
  for (int i = 0; i < 60 && !scene.failed(); ++i) {
    // Commits of one block, as the earlier uses had them at many places: old frames begin right where the tail ends.
    scene.append(kFirst, {.records = 1, .value_bytes = random.between(100, 3'500)});
    (void)scene.judge(scene.life().image_now(sim::CrashPlan::lose_all()), fmt::format("old frames behind tail {}", i), {.check_use = i % 8 == 0});
    (void)scene.life().append_later(kFirst, {.records = 1, .value_bytes = 2'000});
    if (!scene.until_wal_writes(1)) continue;
    sim::CrashPlan plan = sim::CrashPlan::lose_all();
    (void)scene.judge(scene.life().image_now(plan), fmt::format("old frames behind a lost commit {}", i), {.check_use = false});
    (void)scene.life().settle();
  }
  return scene.finish();
}

Violations retries_after_a_crash(std::uint64_t seed) {
  Scene scene{seed, {.segment_bytes_max = 16 * limits::kKiB}};
  scene.create(3);
  Random random{seed};
  for (int round = 0; round < 4 && !scene.failed(); ++round) {
    for (int i = 0; i < 8 && !scene.failed(); ++i) {
      scene.append(kFirst, {.records = 2, .value_bytes = random.between(50, 2'000), .producer = ProducerId{static_cast<std::int64_t>(100 + random.below(2))}});
    }
    // verify() asks for every one of the last five batches of each producer again.
    judge_now(scene, fmt::format("round {}", round), 1);
    scene.recycle(kFiller, 4);
    judge_now(scene, fmt::format("round {} after recycling", round), 1);
    scene.power_cut(sim::CrashPlan::seeded(seed + static_cast<std::uint64_t>(round)));
  }
  return scene.finish();
}

}  // namespace tailrace::broker::crash
