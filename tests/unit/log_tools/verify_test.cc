// The offline tools against directories written by the log itself, whole and damaged.
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>

#include "codec/batch_builder.h"
#include "log/data_directory.h"
#include "log/shard_log.h"
#include "log/verify.h"
#include "tests/support/lone_log.h"
#include "tests/support/sim_disk.h"

namespace tailrace::broker::log {
namespace {

using sim::DiskImage;

class Lines final : public LineSink {
 public:
  void line(std::string_view json) override { all.emplace_back(json); }
  [[nodiscard]] std::size_t with(std::string_view text) const {
    return static_cast<std::size_t>(std::ranges::count_if(all, [&](const std::string& l) { return l.find(text) != std::string::npos; }));
  }
  [[nodiscard]] std::string text() const {
    std::string out;
    for (const auto& l : all) out += l + "\n";
    return out;
  }
  std::vector<std::string> all{};
};

constexpr std::string_view kRoot = "/data";
const PartitionId kOrders{TopicId{{7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}}, PartitionIndex{3}};

Slice batch_of(std::string_view text, int records, std::int64_t time, std::int32_t sequence) {
  codec::BatchBuilder builder{codec::BatchOptions{}};
  for (int i = 0; i < records; ++i) {
    std::string value{text};
    value += std::to_string(i);
    EXPECT_TRUE(builder.add(codec::RecordInput{.timestamp = time, .key = as_bytes(text), .value = as_bytes(value)}));
  }
  return *builder.finish({.producer_id = ProducerId{9}, .producer_epoch = ProducerEpoch{0}, .base_sequence = sequence});
}

Task<Result<void>> publish(Partition& partition, sim::SimLoop& loop, int batches, int& sequence) {
  for (int i = 0; i < batches; ++i) {
    Slice batch = batch_of("event " + std::to_string(sequence) + std::string(300, '.'), 3, 1'700'000'000'000 + sequence, sequence);
    sequence += 3;
    auto header = read_batch_header(batch.bytes(), batch.length);
    TAILRACE_CO_TRY(Appended appended, partition.append(std::move(batch), *header, loop.wall()));
    TAILRACE_CO_TRY_VOID(co_await partition.committed(appended.next_offset));
  }
  co_return Result<void>{};
}

Task<Result<void>> write_directory(sim::SimMachine& m, int batches, bool clean, std::uint64_t cut = 0, DiskImage* left = nullptr) {
  TAILRACE_CO_TRY(auto directory, co_await DataDirectory::open(m.runtime, std::string{kRoot}, 1));
  TAILRACE_CO_TRY_VOID(co_await directory->mark_dirty());
  ShardLogOptions options{.data_directory = std::string{kRoot}, .directory_id = directory->identity().directory_id, .wal_file_bytes = 64 * limits::kKiB, .wal_files = 3};
  TAILRACE_CO_TRY(auto log, co_await LoneShardLog::open(m.runtime, options));
  TAILRACE_CO_TRY(auto partition, co_await log->create(kOrders, PartitionOptions{.segment_bytes_max = 48 * limits::kKiB}));
  int sequence = 0;
  auto done = co_await publish(*partition, m.loop, batches, sequence);
  if (clean) {
    co_await log->close();
    if (done) done = co_await directory->mark_clean();
    co_return done;
  }
  if (cut > 0) *left = m.disk.crash(sim::CrashPlan::seeded(cut));
  else m.disk.kill();  // the process dies here; what follows only unwinds it
  co_await log->close();
  co_return done;
}

/// Several sealed segments, an active one, and WAL files that went round.
DiskImage stored(bool clean = true, int batches = 180) {
  sim::SimMachine m{11};
  auto done = m.loop.run(write_directory(m, batches, clean));
  EXPECT_TRUE(done.has_value() && done->has_value()) << (done && !*done ? done->error().detail : "it hangs");
  return m.disk.visible_image();
}

struct Verified {
  VerifyCounts counts{};
  Lines lines{};
  std::optional<Errc> error{};
  std::string changed{};  // what differs on the disk afterwards
};
Verified verify(const DiskImage& image) {
  Verified out;
  sim::SimMachine m{5, image};
  auto answer = m.loop.run(verify_directory(m.runtime, std::string{kRoot}, out.lines));
  EXPECT_TRUE(answer.has_value()) << "verify hangs";
  if (answer && *answer) out.counts = **answer;
  else if (answer) out.error = answer->error().code;
  out.changed = m.disk.visible_image().difference(image);
  return out;
}
Verified dump(const DiskImage& image, std::string path) {
  Verified out;
  sim::SimMachine m{5, image};
  auto answer = m.loop.run(dump_file(m.runtime, std::move(path), out.lines));
  EXPECT_TRUE(answer.has_value()) << "dump hangs";
  if (answer && *answer) out.counts = **answer;
  else if (answer) out.error = answer->error().code;
  return out;
}

/// The files of one kind, in order of their names.
std::vector<std::string> files_of(const DiskImage& image, std::string_view part, std::string_view end) {
  std::vector<std::string> out;
  for (const std::string& path : image.paths(part)) {
    if (path.ends_with(end)) out.push_back(path);
  }
  return out;
}

// A directory that nothing happened to is good, whole and to the last record; a tool that cries wolf is switched off.
TEST(Verify, AGoodDirectoryIsGood) {
  DiskImage image = stored();
  ASSERT_GE(files_of(image, "/topics/", ".idx").size(), 3U);
  Verified v = verify(image);
  EXPECT_FALSE(v.error);
  EXPECT_EQ(v.counts.damaged, 0U) << v.lines.text();
  EXPECT_EQ(v.counts.torn, 0U);
  EXPECT_EQ(v.counts.partitions, 1U);
  EXPECT_EQ(v.counts.batches, 180U);
  EXPECT_EQ(v.counts.records, 540U);
  EXPECT_GT(v.counts.frames, 0U);
  EXPECT_EQ(v.changed, "");
}

// After the death of the process the log's end is in the WAL alone, and that is as good: nothing is damaged by a crash.
TEST(Verify, ACrashIsNoDamage) {
  for (int batches : {0, 1, 3, 40, 90, 180}) {
    Verified v = verify(stored(false, batches));
    EXPECT_FALSE(v.error);
    EXPECT_EQ(v.counts.damaged, 0U) << batches << " batches\n" << v.lines.text();
    EXPECT_EQ(v.changed, "");
  }
}

// Nor by a power cut, whatever of the unflushed sectors, names and sizes it keeps.
TEST(Verify, APowerCutIsNoDamage) {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    sim::SimMachine m{seed};
    DiskImage image;
    auto done = m.loop.run(write_directory(m, static_cast<int>(seed * 37 % 200), false, seed, &image));
    ASSERT_TRUE(done.has_value());
    Verified v = verify(image);
    EXPECT_FALSE(v.error) << seed;
    EXPECT_EQ(v.counts.damaged, 0U) << "seed " << seed << "\n" << v.lines.text();
  }
}

// Whatever bit of what counts is flipped is found, with the file's name. These places are all covered by a checksum or by
// what the neighbours say.
TEST(Verify, AFlippedBitIsFoundInEveryKindOfFile) {
  const DiskImage good = stored();
  struct Place {
    std::string path;
    std::uint64_t position;
  };
  std::vector<Place> places;
  for (const auto& path : files_of(good, "/topics/", ".idx")) {
    for (std::uint64_t at = 0; at < good.file(path).size(); at += 37) places.push_back({path, at});
  }
  for (const auto& path : files_of(good, "/topics/", ".snap")) {
    for (std::uint64_t at = 0; at < good.file(path).size(); at += 37) places.push_back({path, at});
  }
  auto segments = files_of(good, "/topics/", ".log");
  ASSERT_GE(segments.size(), 3U);
  for (std::uint64_t at = 0; at < good.file(segments[0]).size(); at += 977) places.push_back({segments[0], at});  // sealed
  for (std::uint64_t at = 0; at < 3'000; at += 61) places.push_back({segments.back(), at});                       // active
  for (const auto& path : files_of(good, "/shard-0/checkpoint", "")) {
    for (std::uint64_t at = 0; at < 200; at += 13) places.push_back({path, at});
  }
  for (const auto& path : files_of(good, "/wal/", ".log")) {
    places.push_back({path, 40});                                   // first header
    places.push_back({path, good.file(path).size() - 4096 + 40});  // its copy
  }
  std::size_t missed = 0;
  for (const Place& p : places) {
    DiskImage image = good;
    image.flip_bit(p.path, p.position, static_cast<int>(p.position % 8));
    Verified v = verify(image);
    bool found = v.counts.damaged > 0 && v.lines.with(p.path) > 0;
    if (!found) {
      ++missed;
      ADD_FAILURE() << p.path << " position " << p.position << " bit " << p.position % 8 << ": not found";
    }
    if (missed > 10) break;
  }
  EXPECT_GT(places.size(), 100U);
}

// A directory under a file's name is damage, whatever the file was for.
TEST(Verify, ADirectoryWhereAFileBelongsIsFound) {
  const DiskImage good = stored();
  std::vector<std::string> paths{std::string{kRoot} + "/clean", files_of(good, "/topics/", ".snap").back(), files_of(good, "/topics/", ".idx").back(),
                                 files_of(good, "/topics/", ".log").back()};
  for (const std::string& path : paths) {
    DiskImage image = good;
    image.remove(path);
    image.directories.insert(path);
    Verified v = verify(image);
    EXPECT_GT(v.counts.damaged, 0U) << path;
    EXPECT_GT(v.lines.with(path), 0U);
  }
}

// The epoch lies outside a batch's checksum. One that is too high goes with all that its neighbours say, and not with the history.
TEST(Verify, AnEpochThatIsNotTheHistorysIsFound) {
  DiskImage image = stored();
  std::string active = files_of(image, "/topics/", ".log").back();
  std::vector<std::byte> bytes = image.file(active).bytes();
  std::size_t last = 0;
  for (std::size_t at = 0; at < bytes.size();) {
    auto header = read_batch_header(Bytes{bytes}.subspan(at), 1 << 20);
    if (!header) break;
    last = at;
    at += header->total_bytes();
  }
  ASSERT_GT(last, 0U);
  image.flip_bit(active, last + batch_layout::kLeaderEpoch + 3, 2);
  Verified v = verify(image);
  EXPECT_GT(v.counts.damaged, 0U);
  EXPECT_EQ(v.lines.with("not that of the history"), 1U) << v.lines.text();
}

// A file longer than what is read ahead, judged to its last record; and what is under way at its end does not outlive the check.
TEST(Verify, AFileLongerThanTheReadAheadIsReadToItsEnd) {
  sim::SimMachine m{17};
  auto write = [&]() -> Task<Result<void>> {
    TAILRACE_CO_TRY(auto directory, co_await DataDirectory::open(m.runtime, std::string{kRoot}, 1));
    ShardLogOptions options{.data_directory = std::string{kRoot}, .directory_id = directory->identity().directory_id, .wal_file_bytes = 4 * limits::kMiB, .wal_files = 3};
    TAILRACE_CO_TRY(auto log, co_await LoneShardLog::open(m.runtime, options));
    TAILRACE_CO_TRY(auto partition, co_await log->create(kOrders, PartitionOptions{.segment_bytes_max = 64 * limits::kMiB}));
    for (int i = 0; i < 24; ++i) {
      Slice batch = batch_of(std::string(350'000, static_cast<char>('a' + i)), 1, 1'700'000'000'000 + i, i);
      auto header = read_batch_header(batch.bytes(), batch.length);
      TAILRACE_CO_TRY(Appended appended, partition->append(std::move(batch), *header, m.loop.wall()));
      TAILRACE_CO_TRY_VOID(co_await partition->committed(appended.next_offset));
    }
    co_await log->close();
    co_return Result<void>{};
  };
  auto done = m.loop.run(write());
  ASSERT_TRUE(done && *done);
  DiskImage image = m.disk.visible_image();
  std::string path = files_of(image, "/topics/", ".log").front();
  ASSERT_GT(image.file(path).size(), 12 * limits::kMiB);
  Verified v = verify(image);
  EXPECT_EQ(v.counts.damaged, 0U) << v.lines.text();
  EXPECT_EQ(v.counts.records, 24U);
  DiskImage flipped = image;
  flipped.flip_bit(path, 14 * limits::kMiB, 1);
  EXPECT_EQ(verify(flipped).counts.damaged, 1U);
  DiskImage refused = image;
  refused.make_unreadable(path, 11 * limits::kMiB / 512);
  v = verify(refused);
  EXPECT_EQ(v.counts.damaged, 1U) << v.lines.text();
  EXPECT_EQ(v.lines.with("the device refused to read"), 1U) << v.lines.text();
}

// Frames that the checkpoint proves durable are not a torn tail when they break.
TEST(Verify, ABrokenFrameThatWasDurableIsDamageAndAnUnprovenOneATornTail) {
  DiskImage image = stored();
  auto wal = files_of(image, "/wal/", ".log");
  // The file in use: the one with the most recent frames is the last that dump finds frames in, by sequence.
  std::string newest;
  std::uint64_t best = 0;
  std::uint64_t last_frame_at = 0;
  for (const auto& path : wal) {
    Verified d = dump(image, path);
    for (const auto& l : d.lines.all) {
      auto at = l.find("\"kind\":\"frame\"");
      auto sequence = l.find("\"sequence\":");
      if (at == std::string::npos || sequence == std::string::npos) continue;
      std::uint64_t n = std::stoull(l.substr(sequence + 11));
      if (n > best) {
        best = n;
        newest = path;
        last_frame_at = std::stoull(l.substr(l.find("\"position\":") + 11));
      }
    }
  }
  ASSERT_FALSE(newest.empty());
  image.flip_bit(newest, last_frame_at + 20, 3);  // in its sequence
  Verified v = verify(image);
  EXPECT_GT(v.counts.damaged, 0U) << v.lines.text();

  DiskImage crashed = stored(false, 3);
  // Without a clean stop the checkpoint is old, and the very last frame is proven by nobody.
  auto first = files_of(crashed, "/wal/", ".log").front();
  Verified frames = dump(crashed, first);
  std::uint64_t end = 0;
  for (const auto& l : frames.lines.all) {
    if (l.find("\"kind\":\"frame\"") != std::string::npos) end = std::stoull(l.substr(l.find("\"position\":") + 11));
  }
  ASSERT_GT(end, 0U);
  crashed.flip_bit(first, end + 20, 3);
  Verified torn = verify(crashed);
  EXPECT_EQ(torn.counts.damaged, 0U) << torn.lines.text();
}

// A segment between others, or the one in use, that should be there and is not is damage too: no sum over what is left would
// show it.
TEST(Verify, AMissingSegmentIsDamage) {
  const DiskImage good = stored();
  auto segments = files_of(good, "/topics/", ".log");
  ASSERT_GE(segments.size(), 3U);
  std::vector<std::string> victims{segments[1], segments.back()};
  for (const auto& victim : victims) {
    DiskImage image = good;
    image.remove(victim);
    Verified v = verify(image);
    EXPECT_GT(v.counts.damaged, 0U) << victim;
  }
  DiskImage image = good;
  image.remove_tree("/data/topics");
  EXPECT_GT(verify(image).counts.damaged, 0U);
}

// A directory in use is refused: what is read under a writer means nothing.
TEST(Verify, ALockedDirectoryIsRefused) {
  sim::SimMachine m{3, stored()};
  auto lock = m.loop.run(m.disk.lock(std::string{kRoot}));
  ASSERT_TRUE(lock && *lock);
  Lines lines;
  auto answer = m.loop.run(verify_directory(m.runtime, std::string{kRoot}, lines));
  ASSERT_TRUE(answer.has_value());
  ASSERT_FALSE(answer->has_value());
  EXPECT_EQ(answer->error().code, Errc::data_directory_locked);
  EXPECT_TRUE(lines.all.empty());
}

TEST(Verify, AFolderOfSomebodyElseIsRefused) {
  DiskImage image;
  image.directories = {"/", "/data"};
  image.files["/data/notes.txt"] = {};
  EXPECT_EQ(verify(image).error, Errc::foreign_data_directory);
}

// A sector that the device refuses is damage where it lies, and the rest is still checked.
TEST(Verify, AnUnreadableSectorIsDamage) {
  DiskImage image = stored();
  auto segments = files_of(image, "/topics/", ".log");
  image.make_unreadable(segments[0], 12);
  Verified v = verify(image);
  EXPECT_FALSE(v.error);
  EXPECT_GT(v.counts.damaged, 0U);
  EXPECT_GT(v.lines.with(segments[1]), 0U);
}

// Every batch of a segment is printed, also those behind a broken one, for that is where a person looks after damage.
TEST(Dump, GoesOnBehindABrokenBatch) {
  DiskImage image = stored();
  std::string path = files_of(image, "/topics/", ".log").front();
  Verified whole = dump(image, path);
  EXPECT_EQ(whole.counts.damaged, 0U);
  std::size_t batches = whole.lines.with("\"kind\":\"batch\"");
  ASSERT_GT(batches, 10U);
  image.flip_bit(path, image.file(path).size() / 2, 1);  // in some payload
  Verified broken = dump(image, path);
  EXPECT_EQ(broken.counts.damaged, 1U);
  EXPECT_GE(broken.lines.with("\"kind\":\"batch\"") + 1, batches);
}

// WAL frames before and behind a broken one are printed, and the broken place once.
TEST(Dump, GoesOnBehindABrokenFrame) {
  DiskImage image = stored(false, 30);
  std::string path = files_of(image, "/wal/", ".log").front();
  Verified whole = dump(image, path);
  EXPECT_EQ(whole.counts.damaged, 0U) << whole.lines.text();
  ASSERT_GT(whole.counts.frames, 10U);
  image.flip_bit(path, 4096 * 6 + 16, 0);  // the sequence of a frame that begins a commit
  Verified broken = dump(image, path);
  EXPECT_EQ(broken.counts.damaged, 1U) << broken.lines.text();
  EXPECT_LT(broken.counts.frames, whole.counts.frames);
  EXPECT_GT(broken.counts.frames + 10, whole.counts.frames);
}

// Indexes, snapshots and checkpoints print what they hold; payloads are never printed.
TEST(Dump, PrintsEveryKindOfFileAndNoPayload) {
  const DiskImage image = stored();
  for (const std::string& path : image.paths()) {
    bool ours = path.ends_with(".log") || path.ends_with(".idx") || path.ends_with(".snap") || path.find("/checkpoint-") != std::string::npos;
    if (!ours) continue;
    Verified d = dump(image, path);
    EXPECT_FALSE(d.error) << path;
    EXPECT_EQ(d.counts.damaged, 0U) << path << "\n" << d.lines.text();
    EXPECT_EQ(d.lines.with("event "), 0U) << path;
    for (const auto& l : d.lines.all) {
      EXPECT_TRUE(l.starts_with("{") && l.ends_with("}")) << l;
      EXPECT_EQ(l.find('\n'), std::string::npos);
    }
  }
  EXPECT_EQ(dump(image, "/data/nothing").error, Errc::not_found);
}

// What is missing or cut short is found wherever it lies, also at the front, where no neighbour tells of it.
TEST(Verify, WhateverIsMissingOrCutShortIsDamage) {
  const DiskImage good = stored();
  auto segments = files_of(good, "/topics/", ".log");
  auto wal = files_of(good, "/wal/", ".log");
  auto damaged = [&](auto change) {
    DiskImage image = good;
    change(image);
    return verify(image).counts.damaged;
  };
  EXPECT_GT(damaged([&](DiskImage& i) { i.remove(segments[0]); }), 0U);
  EXPECT_GT(damaged([&](DiskImage& i) { i.truncate(segments.back(), 4096); }), 0U);
  EXPECT_GT(damaged([&](DiskImage& i) { i.truncate(segments.back(), 0); }), 0U);
  EXPECT_GT(damaged([&](DiskImage& i) { i.truncate(segments[1], 4096); }), 0U);
  EXPECT_GT(damaged([&](DiskImage& i) { i.truncate("/data/node.toml", 5); }), 0U);
  EXPECT_GT(damaged([&](DiskImage& i) { i.truncate("/data/shards", 0); }), 0U);
  EXPECT_GT(damaged([&](DiskImage& i) { i.remove("/data/shard-0/checkpoint-0"); }), 0U);
  EXPECT_GT(damaged([&](DiskImage& i) { i.remove(files_of(good, "/topics/", ".snap").back()); }), 0U);
  EXPECT_GT(damaged([&](DiskImage& i) { i.remove_tree("/data/shard-0"); }), 0U);
  for (const auto& path : wal) {
    EXPECT_GT(damaged([&](DiskImage& i) { i.remove(path); }), 0U) << path;
    // The one kept back for a start on a full disk was never used: there is nothing in it to lose.
    bool kept_back = path.ends_with("/03.log");
    EXPECT_EQ(damaged([&](DiskImage& i) { i.truncate(path, 8192); }) == 0, kept_back) << path;
  }
}

// A length that lies must not hide the batches behind it.
TEST(Dump, GoesOnBehindABrokenLength) {
  const DiskImage good = stored();
  std::string path = files_of(good, "/topics/", ".log").front();
  auto positions = [](const Verified& v) {
    std::vector<std::uint64_t> out;
    for (const auto& l : v.lines.all) {
      if (l.find("\"kind\":\"batch\"") != std::string::npos) out.push_back(std::stoull(l.substr(l.find("\"position\":") + 11)));
    }
    return out;
  };
  auto whole = positions(dump(good, path));
  ASSERT_GT(whole.size(), 10U);
  for (std::uint64_t byte = 0; byte < 18; ++byte) {  // every field before the covered part: offset, length, epoch, magic, checksum
    DiskImage image = good;
    image.flip_bit(path, whole[3] + byte, 4);
    Verified v = dump(image, path);
    bool epoch = byte >= 12 && byte < 16;  // only the index and the neighbours vouch for it
    EXPECT_TRUE(epoch || v.counts.damaged > 0) << byte;
    EXPECT_GE(positions(v).size() + 1, whole.size()) << byte << "\n" << v.lines.text();
  }
}

TEST(Dump, PrintsTheNodeFile) {
  Verified v = dump(stored(), "/data/node.toml");
  EXPECT_FALSE(v.error);
  EXPECT_GT(v.lines.with("directory_id"), 0U);
}

}  // namespace
}  // namespace tailrace::broker::log
