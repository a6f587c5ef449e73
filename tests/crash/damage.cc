#include "tests/crash/damage.h"

#include <fmt/core.h>

#include <algorithm>

#include "log/wal_format.h"

namespace tailrace::broker::crash {
namespace {

const PartitionId kFirst = partition_number(0);
const PartitionId kSecond = partition_number(1);
const PartitionId kFiller = partition_number(2);

Setup small() {
  Setup setup;
  setup.wal_files = 3;
  setup.segment_bytes_max = 8 * limits::kKiB;
  return setup;
}

void judge_damage(const AtRest& log, const sim::DiskImage& image, const std::string& what, std::uint64_t seed, DamageSweep& sweep) {
  if (sweep.violations.size() >= 10) return;
  Expectation expectation{.damage = true, .may_cut_acknowledged = !log.quiet, .check_use = false};
  Recovered recovered;
  auto found = judge_image(image, log.setup, log.oracle, seed, expectation, &recovered);
  ++sweep.judged;
  bool noticed = !recovered.opened || recovered.damaged_partitions > 0 || recovered.report.corrupt > 0 || recovered.report.damaged_partitions > 0 ||
                 recovered.report.padding_repaired > 0;
  sweep.noticed += noticed ? 1 : 0;
  sweep.cut += recovered.opened && recovered.report.torn > 0 ? 1 : 0;
  for (auto& violation : found) sweep.violations.push_back(what + ": " + violation);
}

}  // namespace

AtRest small_log(std::uint64_t seed, Rest rest) {
  AtRest out;
  out.setup = small();
  out.quiet = rest != Rest::cut;
  Scene scene{seed, out.setup};
  scene.create(3);
  if (!scene.running()) {
    out.oracle.violations = scene.finish();
    return out;
  }
  for (int i = 0; i < 10; ++i) scene.append(kFirst, {.records = 2, .value_bytes = 900, .producer = ProducerId{100}});
  scene.life().hard_state_later(kFirst, LeaderEpoch{3}, NodeId{2});
  scene.append(kSecond, 3, {.records = 1, .value_bytes = 200});
  scene.recycle(kFiller, 2);
  scene.quiet();
  out.older = scene.life().image_now(sim::CrashPlan::lose_all());
  for (int i = 0; i < 8; ++i) scene.append(kFirst, {.records = 1, .value_bytes = 700, .producer = ProducerId{100}});
  scene.append(kSecond, 3, {.records = 1, .value_bytes = 300});
  if (scene.running()) {
    scene.life().advance_start_later(kFiller, scene.life().open(kFiller)->high_watermark() + (-3));
    (void)scene.life().settle();
    switch (rest) {
      case Rest::quiet:
        scene.quiet();
        out.image = scene.life().image_now(sim::CrashPlan::lose_all());
        break;
      case Rest::stopped: out.image = scene.life().stop(); break;
      case Rest::cut:
        for (int i = 0; i < 3; ++i) {
          (void)scene.life().append_later(kSecond, {.records = 1, .value_bytes = 1'000});
          scene.life().loop().run_for(30us);
        }
        out.image = scene.life().image_now(sim::CrashPlan::seeded(seed));
        break;
    }
  }
  out.oracle = scene.oracle().fork();
  out.oracle.violations = scene.finish();
  return out;
}

namespace {

void flip(const AtRest& log, const std::string& path, std::uint64_t at, int bit, std::uint64_t seed, DamageSweep& sweep) {
  sim::DiskImage image = log.image;
  image.flip_bit(path, at, bit);
  judge_damage(log, image, fmt::format("{} byte {} bit {}", path, at, bit), seed, sweep);
}

}  // namespace

DamageSweep flip_bits(const AtRest& log, std::string_view part, std::uint64_t stride, std::uint64_t seed, Bits bits) {
  DamageSweep sweep;
  for (const auto& path : log.image.paths(part)) {
    std::uint64_t size = log.image.file(path).size();
    if (bits == Bits::every) {  // what is allocated ahead holds nothing, block after block
      std::vector<std::byte> bytes = log.image.file(path).bytes();
      while (size > limits::kWalBlock && std::ranges::all_of(Bytes{bytes}.subspan(size - limits::kWalBlock, limits::kWalBlock), [](std::byte b) { return b == std::byte{0}; })) {
        size -= limits::kWalBlock;
      }
    }
    for (std::uint64_t at = seed % stride; at < size; at += stride) {
      if (bits == Bits::one) {
        flip(log, path, at, static_cast<int>((at * 5 + seed) % 8), seed, sweep);
      } else {
        for (int bit = 0; bit < 8; ++bit) flip(log, path, at, bit, seed, sweep);
      }
    }
  }
  return sweep;
}

DamageSweep flip_batch_fronts(const AtRest& log, std::size_t stride, std::uint64_t seed) {
  DamageSweep sweep;
  std::size_t number = 0;
  for (const auto& path : log.image.paths("/topics/")) {
    if (!path.ends_with(".log")) continue;
    std::vector<std::byte> bytes = log.image.file(path).bytes();
    for (std::size_t at = 0; at < bytes.size();) {
      auto header = read_batch_header(Bytes{bytes}.subspan(at), limits::kMessageBytesCeiling);
      if (!header) break;  // what is allocated behind the last batch
      if (number++ % stride == 0) {
        for (std::size_t byte = 0; byte < batch_layout::kCrc; ++byte) {
          for (int bit = 0; bit < 8; ++bit) flip(log, path, at + byte, bit, seed, sweep);
        }
      }
      at += header->total_bytes();
    }
  }
  return sweep;
}

DamageSweep lose_sectors(const AtRest& log, std::uint64_t seed) {
  DamageSweep sweep;
  for (const auto& path : log.image.paths()) {
    std::uint64_t size = log.image.file(path).size();
    // Every sector of small files, every eighth of a WAL file: the start of each block.
    std::uint64_t stride = size > 32 * limits::kKiB ? 8 : 1;
    for (std::uint64_t sector = 0; sector * sim::kSector < size; sector += stride) {
      sim::DiskImage zeroed = log.image;
      zeroed.zero(path, sector * sim::kSector, sim::kSector);
      judge_damage(log, zeroed, fmt::format("{} sector {} zeroed", path, sector), seed, sweep);
      sim::DiskImage unreadable = log.image;
      unreadable.make_unreadable(path, sector);
      judge_damage(log, unreadable, fmt::format("{} sector {} unreadable", path, sector), seed, sweep);
    }
    sim::DiskImage gone = log.image;
    gone.zero(path, 0, size);
    judge_damage(log, gone, path + " zeroed", seed, sweep);
  }
  return sweep;
}

DamageSweep lose_files(const AtRest& log, std::uint64_t seed) {
  DamageSweep sweep;
  for (const auto& path : log.image.paths()) {
    std::uint64_t size = log.image.file(path).size();
    for (std::uint64_t length = 0; length < size; length += limits::kWalBlock) {
      sim::DiskImage image = log.image;
      image.truncate(path, length);
      judge_damage(log, image, fmt::format("{} truncated to {}", path, length), seed, sweep);
    }
    if (path.ends_with("/clean")) continue;  // without it a clean stop is an unclean one, and that is all
    sim::DiskImage image = log.image;
    image.remove(path);
    judge_damage(log, image, path + " deleted", seed, sweep);
    if (log.older.files.contains(path) && !(log.older.file(path) == log.image.file(path))) {
      sim::DiskImage old = log.image;
      old.restore(path, log.older);
      judge_damage(log, old, path + " restored from an older version", seed, sweep);
    }
  }
  for (const auto& directory : log.image.directories) {
    if (directory == kDataDirectory) continue;  // an empty disk is a new node, and no node can know better
    sim::DiskImage image = log.image;
    image.remove_tree(directory);
    judge_damage(log, image, directory + " deleted", seed, sweep);
  }
  return sweep;
}

std::vector<std::string> lying_flush(std::uint64_t seed) {
  Scene scene{seed, small()};
  scene.create(2);
  scene.append(kFirst, 3, {.records = 1, .value_bytes = 500});
  scene.quiet();
  if (!scene.running()) return scene.finish();
  // One commit of five is not where the disk says it is; the later ones are, and say that it was durable.
  scene.life().disk().inject({.op = sim::DiskOp::write_durable, .path_part = "/wal/", .effect = sim::Fault::Effect::lie});
  scene.append(kSecond, 1, {.records = 1, .value_bytes = 500});
  scene.append(kFirst, 4, {.records = 1, .value_bytes = 500});
  scene.quiet();
  if (scene.failed()) return scene.finish();
  auto recovered = scene.judge(scene.life().image_now(sim::CrashPlan::lose_all()), "a commit under a lie is lost", {.damage = true});
  bool told = !recovered.opened || recovered.report.corrupt > 0;
  if (!told) scene.violation("a commit that was lost under a lie is not reported as corruption");
  if (recovered.opened && recovered.report.torn > 0) scene.violation("a lost flush that later frames prove was taken for a torn tail");
  return scene.finish();
}

std::vector<std::string> misdirected_writes(std::uint64_t seed) {
  std::vector<std::string> out;
  struct Case {
    const char* what;
    const char* from;
    std::uint64_t after;
    std::int64_t shift;
  };
  for (const Case& c : {Case{"a WAL write lands a block later", "/wal/", 3, 4096}, Case{"a WAL write lands two blocks earlier", "/wal/", 6, -8192},
                        Case{"a segment write lands a block later", "/topics/", 1, 4096}, Case{"a WAL write lands far off", "/wal/", 9, 20'480}}) {
    Scene scene{seed, small()};
    scene.create(2);
    scene.append(kFirst, 3, {.records = 1, .value_bytes = 2'500});
    scene.quiet();
    if (scene.running()) {
      bool wal = std::string_view{c.from} == "/wal/";
      scene.life().disk().inject({.op = wal ? sim::DiskOp::write_durable : sim::DiskOp::write, .path_part = c.from, .after = c.after,
                                  .effect = sim::Fault::Effect::misdirect, .shift = c.shift});
      for (int i = 0; i < 14 && !scene.failed(); ++i) {
        scene.append(i % 2 == 0 ? kFirst : kSecond, {.records = 1, .value_bytes = 1'500});
        if (i % 5 == 4) scene.life().loop().run_for(1'500ms);
      }
      scene.quiet();
      (void)scene.judge(scene.life().image_now(sim::CrashPlan::lose_all()), c.what, {.damage = true});
    }
    auto found = scene.finish();
    out.insert(out.end(), found.begin(), found.end());
  }
  return out;
}

namespace {

/// A log whose next commit of about `blocks` blocks is in flight, the only write that is.
struct Torn {
  Torn(std::uint64_t seed, std::size_t blocks, bool recycled) : scene{seed, setup()} {
    scene.create(3);
    scene.append(kFirst, 3, {.records = 2, .value_bytes = 300, .producer = ProducerId{100}});
    if (recycled) scene.recycle(kFiller, 4);
    scene.append(kFirst, {.records = 1, .value_bytes = 100, .producer = ProducerId{100}});
    scene.quiet();
    // The commit must fit what is left of the file, and the file be one of an earlier use where that is asked for.
    auto fits = [&] {
      const WalWrite& last = scene.wal_writes().back();
      return last.position + last.length + (blocks + 2) * limits::kWalBlock <= scene.setup().wal_file_bytes - limits::kWalBlock;
    };
    for (int i = 0; i < 40 && !scene.failed() && !fits(); ++i) {
      scene.append(kFiller, {.records = 1, .value_bytes = 3'000});
      scene.quiet();
    }
    if (scene.failed()) return;
    // Two batches of two partitions in one commit: neither may be half there.
    std::size_t bytes = blocks * limits::kWalBlock - 1'200;
    (void)scene.life().append_later(kFirst, {.records = 1, .value_bytes = bytes / 2, .producer = ProducerId{100}});
    (void)scene.life().append_later(kSecond, {.records = 1, .value_bytes = bytes - bytes / 2});
    if (!scene.until_wal_writes(1)) scene.violation("the commit is never in flight");
    for (const auto& write : scene.life().disk().writes_in_flight()) {
      if (is_wal(write.write.path)) length = write.write.length;
    }
    if (length != blocks * limits::kWalBlock) scene.violation(fmt::format("the commit has {} bytes, not {} blocks", length, blocks));
  }
  static Setup setup() {
    Setup out = small();
    out.wal_files = 2;
    return out;
  }
  void judge(const sim::Fate& fate, const std::string& what, TornSweep& sweep, bool use) {
    sim::CrashPlan plan = sim::CrashPlan::lose_all();
    plan.fate = [&](const sim::UnflushedWrite& write) { return is_wal(write.path) && write.in_flight ? fate : sim::Fate{sim::Fate::Keep::none}; };
    plan.seed = ++seed;
    auto recovered = scene.judge(scene.life().image_now(plan), what, {.check_use = use});
    ++sweep.judged;
    sweep.torn += recovered.report.torn;
  }
  Scene scene;
  std::uint64_t length = 0;
  std::uint64_t seed = 0;
};

}  // namespace

TornSweep tear_at_every_byte(std::uint64_t seed, std::size_t blocks, sim::Fate::Rest rest, bool recycled, std::uint64_t stride) {
  TornSweep sweep;
  Torn torn{seed, blocks, recycled};
  for (std::uint64_t cut = 0; cut <= torn.length && !torn.scene.failed(); cut += stride) {
    torn.judge({sim::Fate::Keep::prefix, cut, rest}, fmt::format("cut at byte {}", cut), sweep, cut % 512 == 0);
  }
  sweep.violations = torn.scene.finish();
  return sweep;
}

TornSweep tear_every_subset(std::uint64_t seed, std::size_t blocks, sim::Fate::Rest rest, bool recycled) {
  TornSweep sweep;
  Torn torn{seed, blocks, recycled};
  for (std::uint64_t mask = 0; mask < (std::uint64_t{1} << blocks) && !torn.scene.failed(); ++mask) {
    torn.judge({sim::Fate::Keep::block_mask, mask, rest}, fmt::format("blocks {:b} land", mask), sweep, true);
  }
  sweep.violations = torn.scene.finish();
  return sweep;
}

TornSweep tear_by_seeds(std::uint64_t seed, std::size_t blocks, std::uint64_t count, bool recycled) {
  TornSweep sweep;
  Torn torn{seed, blocks, recycled};
  Random random{seed};
  for (std::uint64_t i = 0; i < count && !torn.scene.failed(); ++i) {
    auto rest = static_cast<sim::Fate::Rest>(random.below(3));
    torn.judge({random.chance(1, 2) ? sim::Fate::Keep::sectors : sim::Fate::Keep::blocks, 0, rest}, fmt::format("subset {}", i), sweep, i % 64 == 0);
  }
  sweep.violations = torn.scene.finish();
  return sweep;
}

}  // namespace tailrace::broker::crash
