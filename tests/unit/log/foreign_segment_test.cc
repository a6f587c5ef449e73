// A segment file that holds another partition's batches, or its own of another history: each batch in it is good, and none of them
// is what was written there.
#include <algorithm>

#include "log/segment_files.h"
#include "log/verify.h"
#include "tests/unit/log/log_world.h"

namespace tailrace::broker::log {
namespace {

class NoLines final : public LineSink {
 public:
  void line(std::string_view) override {}
};
std::uint64_t verified_damage(const sim::DiskImage& image) {
  sim::SimMachine m{5, image};
  NoLines lines;
  auto answer = m.loop.run(verify_directory(m.runtime, "/data", lines));
  EXPECT_TRUE(answer && *answer);
  return answer && *answer ? (*answer)->damaged : 0;
}
std::string active_of(const PartitionId& id) { return segment_path(partition_folder("/data", id), Offset{0}, "log"); }

struct Two {
  PartitionId a = partition_id(1), b = partition_id(2), c = partition_id(3);
};

/// Records of one size in all partitions, or of several: the files then break off in mid batch for whoever reads the other's.
void fill(LogWorld& w, bool same_size, int batches = 12) {
  Two ids;
  for (const PartitionId& id : {ids.a, ids.b, ids.c}) {
    auto p = w.create(id);
    for (int i = 0; i < batches; ++i) {
      std::string text(same_size ? 700 : 500 + 200 * id.topic.bytes[15], static_cast<char>('a' + id.topic.bytes[15]));
      w.publish(*p, text);
    }
  }
}

void expect_damaged(LogWorld& w, const PartitionId& id) {
  auto p = w.open(id);
  ASSERT_TRUE(p);
  EXPECT_NE(p->stats().damage, "");
  for (std::int64_t at : {0, 5, 11}) {
    auto read = w.run(p->read(Offset{at}, {}));
    ASSERT_FALSE(read) << at;
    EXPECT_EQ(read.error().code, Errc::corrupt) << read.error().detail;
  }
  auto refused = w.append(*p, make_batch("more"));
  EXPECT_FALSE(refused);
}

// Both were served, and verify said that all was well.
TEST(ForeignSegment, TwoPartitionsWhoseActiveSegmentsWereSwappedAreBothDamaged) {
  for (bool same_size : {true, false}) {
    for (bool clean : {true, false}) {
      LogWorld w{same_size ? 3U : 4U};
      ASSERT_TRUE(w.start());
      fill(w, same_size);
      w.reboot();
      if (!clean) {  // a life behind the checkpoint
        ASSERT_TRUE(w.start());
        auto c = w.open(Two{}.c);
        w.publish(*c, "behind");
        w.kill();
      } else {
        w.close();
      }
      sim::DiskImage image = w.disk().visible_image();
      EXPECT_EQ(verified_damage(image), 0U);
      std::swap(image.file(active_of(Two{}.a)), image.file(active_of(Two{}.b)));
      EXPECT_GE(verified_damage(image), 2U) << same_size << clean;
      w.boot(std::move(image));
      ASSERT_TRUE(w.start());
      expect_damaged(w, Two{}.a);
      expect_damaged(w, Two{}.b);
      auto c = w.open(Two{}.c);
      EXPECT_EQ(c->stats().damage, "");
      EXPECT_TRUE(w.read_all(*c, Offset{0}));
      // The way on: what was there is given up, and offsets are not used twice.
      auto a = w.open(Two{}.a);
      ASSERT_TRUE(w.run(a->skip_damage()));
      EXPECT_EQ(w.publish(*a, "on").base_offset, Offset{12});
      w.reboot();
      ASSERT_TRUE(w.start());
      a = w.open(Two{}.a);
      auto read = w.read_all(*a, Offset{0});
      ASSERT_TRUE(read);
      EXPECT_EQ(read->size(), 1U);
    }
  }
}

// The same batches in front, and others behind: only what all of them add up to tells that the end is not the one that was written.
TEST(ForeignSegment, ASegmentOfTheSamePartitionWithAnotherEndIsDamaged) {
  LogWorld w{9};
  ASSERT_TRUE(w.start());
  auto p = w.create(Two{}.a);
  for (int i = 0; i < 6; ++i) w.publish(*p, "front");
  w.close();
  sim::DiskImage front = w.disk().visible_image();
  auto go_on = [&](std::string_view text) {
    w.boot(front);
    EXPECT_TRUE(w.start());
    auto again = w.open(Two{}.a);
    for (int i = 0; i < 6; ++i) w.publish(*again, text);
    again.reset();
    w.close();
    return w.disk().visible_image();
  };
  sim::DiskImage other = go_on("other");
  sim::DiskImage image = go_on("again");
  EXPECT_EQ(verified_damage(image), 0U);
  image.restore(active_of(Two{}.a), other);
  EXPECT_GT(verified_damage(image), 0U);
  w.boot(std::move(image));
  ASSERT_TRUE(w.start());
  expect_damaged(w, Two{}.a);
}

// A saved index of the active segment spares the start most of it, and goes the same way as its segment.
TEST(ForeignSegment, AnIndexThatCameAlongDoesNotVouchForItsSegment) {
  auto options = LogWorld::small();
  options.wal_file_bytes = 2 * limits::kMiB;
  for (bool index_too : {true, false}) {
    LogWorld w{12, options};
    ASSERT_TRUE(w.start());
    Two ids;
    for (const PartitionId& id : {ids.a, ids.b}) {
      auto p = w.create(id);
      for (int i = 0; i < 90; ++i) w.publish(*p, std::string(200'000, static_cast<char>('a' + id.topic.bytes[15])));
    }
    w.close();
    sim::DiskImage image = w.disk().visible_image();
    std::string a = segment_path(partition_folder("/data", ids.a), Offset{0}, "idx"), b = segment_path(partition_folder("/data", ids.b), Offset{0}, "idx");
    ASSERT_EQ(image.paths(".idx").size(), 2U);
    EXPECT_EQ(verified_damage(image), 0U);
    std::swap(image.file(active_of(ids.a)), image.file(active_of(ids.b)));
    if (index_too) std::swap(image.file(a), image.file(b));
    EXPECT_GE(verified_damage(image), 2U) << index_too;
    w.boot(std::move(image));
    ASSERT_TRUE(w.start());
    for (const PartitionId& id : {ids.a, ids.b}) {
      auto p = w.open(id);
      auto read = w.run(p->read(Offset{0}, {}));
      ASSERT_FALSE(read) << index_too;
      EXPECT_EQ(read.error().code, Errc::corrupt);
    }
  }
}

// An index of the active segment that is another's costs a scan, and no record.
TEST(ForeignSegment, AnIndexOfAnotherSegmentIsNotUsed) {
  auto options = LogWorld::small();
  options.wal_file_bytes = 2 * limits::kMiB;
  LogWorld w{13, options};
  ASSERT_TRUE(w.start());
  Two ids;
  for (const PartitionId& id : {ids.a, ids.b}) {
    auto p = w.create(id);
    for (int i = 0; i < 90; ++i) w.publish(*p, std::string(200'000, static_cast<char>('a' + id.topic.bytes[15])));
  }
  w.close();
  sim::DiskImage image = w.disk().visible_image();
  std::swap(image.file(segment_path(partition_folder("/data", ids.a), Offset{0}, "idx")),
            image.file(segment_path(partition_folder("/data", ids.b), Offset{0}, "idx")));
  w.boot(std::move(image));
  ASSERT_TRUE(w.start());
  for (const PartitionId& id : {ids.a, ids.b}) {
    auto p = w.open(id);
    EXPECT_EQ(p->stats().damage, "");
    auto read = w.read_all(*p, Offset{0});
    ASSERT_TRUE(read) << read.error().detail;
    EXPECT_EQ(read->size(), 90U);
  }
}

}  // namespace
}  // namespace tailrace::broker::log
