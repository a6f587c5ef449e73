#include "tests/support/sim_disk.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <set>

#include "base/buffer.h"
#include "io/runtime.h"

namespace tailrace::broker::sim {
namespace {

std::vector<std::byte> filled(std::size_t size, char with) { return std::vector<std::byte>(size, static_cast<std::byte>(with)); }

/// Blocking calls on a simulated machine, so that a test reads as a story.
class World {
 public:
  explicit World(std::uint64_t seed = 1, DiskImage image = {}) : machine{seed, std::move(image)} {}
  std::unique_ptr<io::File> open(const std::string& path, io::OpenOptions options = {.create = true, .write = true}) {
    auto opened = machine.loop.run(machine.disk.open(path, options));
    EXPECT_TRUE(opened && *opened) << path;
    return opened && *opened ? std::move(**opened) : nullptr;
  }
  bool ok(Task<Result<void>> task) {
    auto done = machine.loop.run(std::move(task));
    return done && done->has_value();
  }
  Errc error(Task<Result<void>> task) {
    auto done = machine.loop.run(std::move(task));
    return done && !*done ? done->error().code : Errc{};
  }
  bool write(io::File& file, std::vector<std::byte> bytes, std::uint64_t at, io::Durable durable = io::Durable::no) {
    return ok(io::write_all(file, bytes, at, durable));
  }
  SimMachine machine;
};

/// Starts an operation and keeps its result, without waiting.
struct Pending : io::Operation {
  Pending() {
    complete = [](io::Operation* self) noexcept { static_cast<Pending*>(self)->done = true; };
  }
  bool done = false;
};

// What was never flushed may vanish whole, and what was flushed may not: the two ends of every crash.
TEST(SimDisk, KeepsFlushedBytesAndMayLoseTheRest) {
  World world;
  auto file = world.open("/log");
  ASSERT_TRUE(world.ok(world.machine.disk.sync_directory("/")));
  ASSERT_TRUE(world.write(*file, filled(4096, 'a'), 0));
  ASSERT_TRUE(world.ok(io::sync(*file)));
  ASSERT_TRUE(world.write(*file, filled(4096, 'b'), 4096));
  DiskImage none = world.machine.disk.crash_image(CrashPlan::lose_all());
  DiskImage all = world.machine.disk.crash_image(CrashPlan::keep_all());
  EXPECT_EQ(none.file("/log").size(), 4096u);
  EXPECT_EQ(none.file("/log").bytes(), filled(4096, 'a'));
  EXPECT_EQ(all.file("/log").size(), 8192u);
  EXPECT_EQ(all.file("/log").bytes(4096, 4096), filled(4096, 'b'));
  EXPECT_EQ(world.machine.disk.visible_image().difference(all), "");
}

// Over many seeds every subset of a few unflushed sectors must turn up: a crash that always keeps a prefix hides bugs.
TEST(SimDisk, ACrashKeepsAnySubsetOfUnflushedSectors) {
  World world;
  auto file = world.open("/log");
  ASSERT_TRUE(world.ok(world.machine.disk.sync_directory("/")));
  ASSERT_TRUE(world.write(*file, filled(2048, 'o'), 0));
  ASSERT_TRUE(world.ok(io::sync(*file)));
  ASSERT_TRUE(world.write(*file, filled(2048, 'n'), 0));
  std::set<std::string> seen;
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    DiskImage image = world.machine.disk.crash_image(CrashPlan::seeded(seed));
    std::string shape;
    for (std::size_t sector = 0; sector < 4; ++sector) {
      auto bytes = image.file("/log").bytes(sector * kSector, kSector);
      ASSERT_TRUE(bytes == filled(kSector, 'n') || bytes == filled(kSector, 'o'));
      shape += static_cast<char>(bytes[0]);
    }
    seen.insert(shape);
  }
  EXPECT_EQ(seen.size(), 16u);
}

// Of two unflushed versions of one sector either may be the one that lasts, but never a mix of them.
TEST(SimDisk, ACrashMayKeepAnOlderUnflushedVersion) {
  World world;
  auto file = world.open("/log");
  ASSERT_TRUE(world.ok(world.machine.disk.sync_directory("/")));
  ASSERT_TRUE(world.write(*file, filled(512, '1'), 0, io::Durable::yes));
  ASSERT_TRUE(world.write(*file, filled(512, '2'), 0));
  ASSERT_TRUE(world.write(*file, filled(512, '3'), 0));
  std::set<char> seen;
  for (std::uint64_t seed = 0; seed < 64; ++seed) {
    auto bytes = world.machine.disk.crash_image(CrashPlan::seeded(seed)).file("/log").bytes();
    ASSERT_EQ(bytes, filled(512, static_cast<char>(bytes[0])));
    seen.insert(static_cast<char>(bytes[0]));
  }
  EXPECT_EQ(seen, (std::set<char>{'1', '2', '3'}));
}

// A durable write settles its own sectors for good; an older unflushed write must not come back over it.
TEST(SimDisk, ADurableWriteIsNotUndoneByAnOlderUnflushedOne) {
  World world;
  auto file = world.open("/log");
  ASSERT_TRUE(world.ok(world.machine.disk.sync_directory("/")));
  ASSERT_TRUE(world.write(*file, filled(1024, 'u'), 0));
  ASSERT_TRUE(world.write(*file, filled(512, 'd'), 0, io::Durable::yes));
  for (std::uint64_t seed = 0; seed < 64; ++seed) {
    DiskImage image = world.machine.disk.crash_image(CrashPlan::seeded(seed));
    EXPECT_EQ(image.file("/log").bytes(0, 512), filled(512, 'd'));
  }
}

// fdatasync covers what had completed when it was called, not what completed meanwhile.
TEST(SimDisk, ASyncCoversOnlyWritesThatCompletedBeforeItStarted) {
  World world;
  auto file = world.open("/log");
  ASSERT_TRUE(world.ok(world.machine.disk.sync_directory("/")));
  ASSERT_TRUE(world.ok(io::allocate(*file, 0, 4096)));
  auto bytes = filled(512, 'w');
  Pending write, sync;
  file->write(write, bytes, 0, io::Durable::no);
  file->sync(sync);
  ASSERT_TRUE(world.machine.loop.run_until([&] { return write.done && sync.done; }));
  EXPECT_EQ(world.machine.disk.crash_image(CrashPlan::lose_all()).file("/log").bytes(0, 512), filled(512, 0));
  ASSERT_TRUE(world.ok(io::sync(*file)));
  EXPECT_EQ(world.machine.disk.crash_image(CrashPlan::lose_all()).file("/log").bytes(0, 512), filled(512, 'w'));
}

// storage.md section 5 item 1 asks for a cut at every byte; what lies past the cut is the old content.
TEST(SimDisk, TearsAWriteInFlightAtAnyByteOrBlock) {
  World world;
  auto file = world.open("/log", {.create = true, .write = true, .direct = true});
  ASSERT_TRUE(world.ok(world.machine.disk.sync_directory("/")));
  Buffer buffer = Buffer::allocate(3 * 4096, io::kDirectAlignment);
  std::ranges::fill(buffer.bytes(), std::byte{'o'});
  ASSERT_TRUE(world.ok(io::write_all(*file, buffer.bytes(), 0, io::Durable::yes)));
  Buffer fresh = Buffer::allocate(3 * 4096, io::kDirectAlignment);
  std::ranges::fill(fresh.bytes(), std::byte{'n'});
  Pending write;
  file->write(write, fresh.bytes(), 0, io::Durable::yes);
  ASSERT_EQ(world.machine.disk.writes_in_flight().size(), 1u);
  for (std::uint64_t cut = 0; cut <= 3 * 4096; cut += 97) {
    CrashPlan plan;
    plan.fate = [&](const UnflushedWrite&) { return Fate{Fate::Keep::prefix, cut, Fate::Rest::old}; };
    auto bytes = world.machine.disk.crash_image(plan).file("/log").bytes();
    for (std::size_t i = 0; i < bytes.size(); ++i) ASSERT_EQ(bytes[i], std::byte{static_cast<unsigned char>(i < cut ? 'n' : 'o')}) << cut;
  }
  CrashPlan plan;
  plan.fate = [&](const UnflushedWrite& w) {
    EXPECT_TRUE(w.in_flight);
    return Fate{Fate::Keep::block_mask, 0b101, Fate::Rest::zeros};
  };
  auto bytes = world.machine.disk.crash_image(plan).file("/log").bytes();
  EXPECT_EQ(static_cast<char>(bytes[0]), 'n');
  EXPECT_EQ(static_cast<char>(bytes[4096]), 0);
  EXPECT_EQ(static_cast<char>(bytes[8192]), 'n');
  ASSERT_TRUE(world.machine.loop.run_until([&] { return write.done; }));
  EXPECT_EQ(world.machine.disk.crash_image(CrashPlan::lose_all()).file("/log").bytes(), filled(3 * 4096, 'n'));
}

// A file without its directory entry is gone, however well it was synced; and a rename may leave both names or neither.
TEST(SimDisk, NamesLastOnlyAfterADirectorySync) {
  World world;
  ASSERT_TRUE(world.ok(world.machine.disk.make_directory("/d")));
  ASSERT_TRUE(world.ok(world.machine.disk.sync_directory("/")));
  auto file = world.open("/d/new");
  ASSERT_TRUE(world.write(*file, filled(10, 'x'), 0));
  ASSERT_TRUE(world.ok(io::sync(*file)));
  EXPECT_TRUE(world.machine.disk.crash_image(CrashPlan::lose_all()).paths().empty());
  ASSERT_TRUE(world.ok(world.machine.disk.sync_directory("/d")));
  EXPECT_EQ(world.machine.disk.crash_image(CrashPlan::lose_all()).paths(), std::vector<std::string>{"/d/new"});
  ASSERT_TRUE(world.ok(world.machine.disk.rename("/d/new", "/d/final")));
  std::set<std::vector<std::string>> seen;
  for (std::uint64_t seed = 0; seed < 64; ++seed) seen.insert(world.machine.disk.crash_image(CrashPlan::seeded(seed)).paths());
  EXPECT_EQ(seen, (std::set<std::vector<std::string>>{{}, {"/d/new"}, {"/d/final"}, {"/d/final", "/d/new"}}));
  ASSERT_TRUE(world.ok(world.machine.disk.sync_directory("/d")));
  EXPECT_EQ(world.machine.disk.crash_image(CrashPlan::seeded(9)).paths(), std::vector<std::string>{"/d/final"});
}

// A size that was not synced may be lost though the bytes under it lasted; a truncation may be undone.
TEST(SimDisk, SizesLastOnlyAfterASync) {
  World world;
  auto file = world.open("/log");
  ASSERT_TRUE(world.ok(world.machine.disk.sync_directory("/")));
  ASSERT_TRUE(world.write(*file, filled(8192, 'a'), 0, io::Durable::yes));
  ASSERT_TRUE(world.ok(io::truncate(*file, 100)));
  ASSERT_TRUE(world.ok(io::allocate(*file, 0, 4096)));
  std::set<std::uint64_t> sizes;
  for (std::uint64_t seed = 0; seed < 64; ++seed) {
    Content content = world.machine.disk.crash_image(CrashPlan::seeded(seed)).file("/log");
    sizes.insert(content.size());
    EXPECT_EQ(content.bytes(0, 100), filled(100, 'a'));
    if (content.size() == 4096) EXPECT_EQ(content.bytes(100, 3996), filled(3996, 0));
  }
  EXPECT_EQ(sizes, (std::set<std::uint64_t>{100, 4096, 8192}));
  ASSERT_TRUE(world.ok(io::sync(*file)));
  EXPECT_EQ(world.machine.disk.crash_image(CrashPlan::seeded(1)).file("/log").size(), 4096u);
}

// What a failed sync did not make durable does not come back over what a later one did: a file has one size, and each sector one newest content.
TEST(SimDisk, NothingLostComesBackOverWhatIsDurable) {
  World world;
  auto file = world.open("/log");
  ASSERT_TRUE(world.ok(world.machine.disk.sync_directory("/")));
  ASSERT_TRUE(world.write(*file, filled(8192, 'a'), 0, io::Durable::yes));
  ASSERT_TRUE(world.ok(io::truncate(*file, 512)));
  ASSERT_TRUE(world.write(*file, filled(512, 'l'), 0));
  world.machine.disk.inject({.op = DiskOp::sync});
  EXPECT_EQ(world.error(io::sync(*file)), Errc::io_error);
  ASSERT_TRUE(world.write(*file, filled(4096, 'n'), 0));
  ASSERT_TRUE(world.ok(io::sync(*file)));
  for (std::uint64_t seed = 0; seed < 64; ++seed) {
    Content content = world.machine.disk.crash_image(CrashPlan::seeded(seed)).file("/log");
    ASSERT_EQ(content.size(), 4096u) << seed;
    ASSERT_EQ(content.bytes(), filled(4096, 'n')) << seed;
  }
}

// ATC'20: after a failed fsync the page cache shows the new bytes, the disk has the old ones, and a retry says success.
TEST(SimDisk, ARetriedSyncAfterAFailedOneLies) {
  World world;
  auto file = world.open("/log");
  ASSERT_TRUE(world.ok(world.machine.disk.sync_directory("/")));
  ASSERT_TRUE(world.write(*file, filled(512, 'o'), 0, io::Durable::yes));
  ASSERT_TRUE(world.write(*file, filled(512, 'n'), 0));
  world.machine.disk.inject({.op = DiskOp::sync});
  EXPECT_EQ(world.error(io::sync(*file)), Errc::io_error);
  EXPECT_TRUE(world.ok(io::sync(*file)));
  EXPECT_EQ(world.machine.disk.visible_image().file("/log").bytes(), filled(512, 'n'));
  EXPECT_EQ(world.machine.disk.crash_image(CrashPlan::lose_all()).file("/log").bytes(), filled(512, 'o'));
}

// Each rule strikes the call it names: once after `after` calls, or from there on.
TEST(SimDisk, FaultsStrikeTheCallTheyName) {
  World world;
  auto file = world.open("/log");
  world.machine.disk.inject({.op = DiskOp::write, .after = 1, .error = ENOSPC});
  EXPECT_TRUE(world.write(*file, filled(10, 'a'), 0));
  EXPECT_EQ(world.error(io::write_all(*file, filled(10, 'b'), 0, io::Durable::no)), Errc::storage_full);
  EXPECT_TRUE(world.write(*file, filled(10, 'c'), 0));
  world.machine.disk.clear_faults();
  world.machine.disk.inject({.op = DiskOp::write, .sticky = true, .error = EIO});
  EXPECT_FALSE(world.write(*file, filled(10, 'a'), 0));
  EXPECT_FALSE(world.write(*file, filled(10, 'a'), 0));
  world.machine.disk.clear_faults();
  // Short and interrupted transfers are ordinary: the helpers go on until all is moved.
  world.machine.disk.inject({.op = DiskOp::write, .sticky = true, .effect = Fault::Effect::shorten, .bytes = 3});
  world.machine.disk.inject({.op = DiskOp::write, .after = 1, .error = EINTR});
  EXPECT_TRUE(world.write(*file, filled(10, 'd'), 0));
  EXPECT_EQ(world.machine.disk.visible_image().file("/log").bytes(), filled(10, 'd'));
  world.machine.disk.clear_faults();
  Fault& stall = world.machine.disk.inject({.effect = Fault::Effect::stall, .stall = 30s});
  Instant before = world.machine.loop.now();
  EXPECT_TRUE(world.write(*file, filled(10, 'e'), 0));
  EXPECT_EQ(world.machine.loop.now() - before, 30s);
  EXPECT_EQ(stall.struck, 1u);
}

// A lying disk says "durable" and is not: nothing but a crash shows it.
TEST(SimDisk, ALyingFlushIsLostInACrash) {
  World world;
  auto file = world.open("/log");
  ASSERT_TRUE(world.ok(world.machine.disk.sync_directory("/")));
  world.machine.disk.inject({.op = DiskOp::write_durable, .effect = Fault::Effect::lie});
  ASSERT_TRUE(world.write(*file, filled(512, 'x'), 0, io::Durable::yes));
  EXPECT_EQ(world.machine.disk.visible_image().file("/log").size(), 512u);
  EXPECT_EQ(world.machine.disk.crash_image(CrashPlan::lose_all()).file("/log").size(), 0u);
}

TEST(SimDisk, MisdirectedWritesLandElsewhereAndUnreadableSectorsFail) {
  World world;
  auto file = world.open("/a");
  auto other = world.open("/b");
  ASSERT_TRUE(world.write(*file, filled(2048, 'a'), 0));
  ASSERT_TRUE(world.write(*other, filled(2048, 'b'), 0));
  world.machine.disk.inject({.op = DiskOp::write, .path_part = "/a", .effect = Fault::Effect::misdirect, .to_path = "/b", .shift = 512});
  ASSERT_TRUE(world.write(*file, filled(512, 'x'), 0));
  DiskImage image = world.machine.disk.visible_image();
  EXPECT_EQ(image.file("/a").bytes(), filled(2048, 'a'));
  EXPECT_EQ(image.file("/b").bytes(512, 512), filled(512, 'x'));
  image.make_unreadable("/b", 2);
  image.flip_bit("/a", 7, 3);
  World again{2, image};
  auto damaged = again.open("/b", {});
  std::vector<std::byte> into(512);
  EXPECT_TRUE(again.ok(io::read_exactly(*damaged, into, 512)));
  EXPECT_EQ(again.error(io::read_exactly(*damaged, into, 1024)), Errc::io_error);
  auto flipped = again.open("/a", {});
  ASSERT_TRUE(again.ok(io::read_exactly(*flipped, into, 0)));
  EXPECT_EQ(into[7], std::byte{'a' ^ 8});
}

TEST(SimDisk, RefusesMisalignedDirectCallsAsTheKernelDoes) {
  World world;
  auto file = world.open("/log", {.create = true, .write = true, .direct = true});
  Buffer buffer = Buffer::allocate(2 * 4096, io::kDirectAlignment);
  std::ranges::fill(buffer.bytes(), std::byte{1});
  EXPECT_TRUE(world.ok(io::write_all(*file, buffer.bytes(), 4096, io::Durable::yes)));
  EXPECT_EQ(world.error(io::write_all(*file, buffer.bytes(), 512, io::Durable::yes)), Errc::io_error);
  EXPECT_EQ(world.error(io::write_all(*file, buffer.bytes().first(100), 0, io::Durable::yes)), Errc::io_error);
  EXPECT_EQ(world.error(io::write_all(*file, buffer.bytes().subspan(512, 4096), 0, io::Durable::yes)), Errc::io_error);
  EXPECT_EQ(world.error(io::read_exactly(*file, buffer.bytes().first(512), 0)), Errc::io_error);
  // A file whose end is not aligned is read to its end: the call behind it answers 0.
  ASSERT_TRUE(world.ok(io::truncate(*file, 5'000)));
  auto got = world.machine.loop.run(io::read_up_to(*file, buffer.bytes(), 0));
  ASSERT_TRUE(got && *got);
  EXPECT_EQ(**got, 5'000u);
}

// A full disk refuses growth and nothing else, and goes on when space returns; descriptors likewise.
TEST(SimDisk, RunsOutOfSpaceAndDescriptors) {
  World world;
  world.machine.disk.set_capacity(16 * 1024);
  auto file = world.open("/log");
  ASSERT_TRUE(world.ok(io::allocate(*file, 0, 12 * 1024)));
  EXPECT_EQ(world.error(io::allocate(*file, 0, 20 * 1024)), Errc::storage_full);
  EXPECT_EQ(world.error(io::write_all(*file, filled(8192, 'x'), 12 * 1024, io::Durable::no)), Errc::storage_full);
  EXPECT_TRUE(world.write(*file, filled(8192, 'x'), 0));
  auto space = world.machine.loop.run(world.machine.disk.space("/"));
  ASSERT_TRUE(space && *space);
  EXPECT_EQ((*space)->free_bytes, 4096u);
  world.machine.disk.set_capacity(64 * 1024);
  EXPECT_TRUE(world.ok(io::allocate(*file, 0, 20 * 1024)));
  world.machine.disk.set_descriptors_max(1);
  auto refused = world.machine.loop.run(world.machine.disk.open("/log", {}));
  ASSERT_TRUE(refused && !*refused);
  EXPECT_EQ(refused->error().code, Errc::descriptors_exhausted);
}

// After a power cut the code under test must unwind: what was in flight and what comes later fails, and changes nothing.
TEST(SimDisk, ADeadDiskFailsEverythingAndLeavesTheImageAlone) {
  World world;
  auto file = world.open("/log");
  ASSERT_TRUE(world.ok(world.machine.disk.sync_directory("/")));
  auto bytes = filled(512, 'x');
  Pending write;
  file->write(write, bytes, 0, io::Durable::yes);
  DiskImage image = world.machine.disk.crash(CrashPlan::lose_all());
  ASSERT_TRUE(world.machine.loop.run_until([&] { return write.done; }));
  EXPECT_EQ(write.result, -EIO);
  EXPECT_FALSE(world.write(*file, filled(512, 'y'), 0));
  EXPECT_EQ(world.error(world.machine.disk.remove("/log")), Errc::io_error);
  EXPECT_EQ(image.file("/log").size(), 0u);
}

// Writes that a killed process left in the kernel land later, and its lock lives until then.
TEST(SimDisk, LateWritesLandAfterAReopenAndHoldTheLock) {
  World world;
  auto file = world.open("/log");
  ASSERT_TRUE(world.write(*file, filled(512, 'o'), 0, io::Durable::yes));
  auto bytes = filled(512, 'l');
  Pending write;
  file->write(write, bytes, 0, io::Durable::yes);
  auto late = world.machine.disk.writes_in_flight();
  ASSERT_EQ(late.size(), 1u);
  DiskImage image = world.machine.disk.kill();
  ASSERT_TRUE(world.machine.loop.run_until([&] { return write.done; }));
  World next{2, image};
  next.machine.disk.land_later(late[0], 2s, "/");
  auto refused = next.machine.loop.run(next.machine.disk.lock("/"));
  ASSERT_TRUE(refused && !*refused);
  EXPECT_EQ(refused->error().code, Errc::data_directory_locked);
  EXPECT_EQ(next.machine.disk.visible_image().file("/log").bytes(), filled(512, 'o'));
  next.machine.loop.run_for(3s);
  EXPECT_EQ(next.machine.disk.visible_image().file("/log").bytes(), filled(512, 'l'));
  auto locked = next.machine.loop.run(next.machine.disk.lock("/"));
  EXPECT_TRUE(locked && *locked);
}

// The two rules of the File contract that no return value shows.
TEST(SimDisk, NoticesABufferChangedInFlightAndAFileClosedTooEarly) {
  World world;
  auto file = world.open("/log");
  auto bytes = filled(512, 'x');
  Pending write;
  file->write(write, bytes, 0, io::Durable::no);
  bytes[100] = std::byte{'y'};
  ASSERT_TRUE(world.machine.loop.run_until([&] { return write.done; }));
  EXPECT_EQ(world.machine.disk.violations().size(), 1u);
  Pending sync;
  file->sync(sync);
  file.reset();
  EXPECT_EQ(world.machine.disk.violations().size(), 2u);
  ASSERT_TRUE(world.machine.loop.run_until([&] { return sync.done; }));
}

// Two runs of one seed are one run: every latency, order and result alike. Another seed is another run.
TEST(SimDisk, TheSameSeedGivesTheSameEvents) {
  auto run = [](std::uint64_t seed) {
    World world{seed};
    auto file = world.open("/log");
    std::vector<std::vector<std::byte>> buffers;
    for (int i = 0; i < 20; ++i) buffers.push_back(filled(512, static_cast<char>(i)));
    std::array<Pending, 20> writes;
    for (std::size_t i = 0; i < 20; ++i) file->write(writes[i], buffers[i], 0, io::Durable::no);
    EXPECT_TRUE(world.machine.loop.run_until_idle());
    return std::pair{world.machine.loop.hash(), world.machine.disk.visible_image().hash()};
  };
  EXPECT_EQ(run(1), run(1));
  EXPECT_NE(run(1).first, run(2).first);
  std::set<std::uint64_t> last;
  for (std::uint64_t seed = 0; seed < 50; ++seed) last.insert(run(seed).second);
  EXPECT_GT(last.size(), 5u) << "writes in flight complete in any order";
}

}  // namespace
}  // namespace tailrace::broker::sim
