// Reads: from memory, from the disk, over the edge between them, over segments, while they are deleted, and from a disk that
// lies, refuses or has lost something.
#include <cerrno>

#include "log/segment_files.h"
#include "tests/unit/log/log_world.h"

namespace tailrace::broker::log {
namespace {

const PartitionId kId = partition_id(1);

/// A log whose hot tail is small, so that most of it must be read from the disk.
ShardLogOptions cold() {
  ShardLogOptions options = LogWorld::small();
  options.hot_tail_bytes = 16 * limits::kKiB;
  options.read_pool_bytes = limits::kMiB;
  return options;
}

struct ColdWorld {
  explicit ColdWorld(std::uint64_t segment_bytes = 100'000, std::size_t batches = 300, std::size_t bytes = 1'500) : options{.segment_bytes_max = segment_bytes} {
    EXPECT_TRUE(world.start());
    partition = world.create(kId, options);
    fill(batches, bytes);
  }
  ~ColdWorld() { partition.reset(); }
  void fill(std::size_t batches, std::size_t bytes) {
    for (std::size_t i = 0; i < batches; ++i) {
      world.publish(*partition, std::string(bytes - i % 700, static_cast<char>('a' + i % 26)));
    }
    world.loop().run_for(std::chrono::seconds{3});
  }
  /// A start anew on the disk as it is, changed by `damage`; everything is on the disk, and nothing in memory.
  template <class Damage>
  void reopen(Damage damage) {
    partition.reset();
    world.close();
    sim::DiskImage image = world.disk().visible_image();
    damage(image);
    world.boot(std::move(image));
    ASSERT_TRUE(world.start());
    partition = world.open(kId, options);
    ASSERT_TRUE(partition);
  }
  [[nodiscard]] std::vector<std::string> files(std::string_view extension) {
    std::vector<std::string> found = world.disk().visible_image().paths("/topics/");
    std::erase_if(found, [&](const std::string& path) { return !path.ends_with(extension); });
    return found;
  }
  [[nodiscard]] std::vector<std::string> all() {
    auto read = world.read_all(*partition, partition->log_start());
    EXPECT_TRUE(read) << (read ? "" : read.error().detail);
    return read.value_or(std::vector<std::string>{});
  }
  LogWorld world{7, cold()};
  PartitionOptions options;
  PartitionPtr partition;
};

Offset first_of(const ReadResult& read) { return read_batch_header(read.batches.front().bytes(), limits::kMessageBytesCeiling)->base_offset; }

// Every offset, with limits around a batch's size: what comes back begins at that batch, is in order, and keeps the limit.
TEST(Read, EveryOffsetFromMemoryAndDiskWithSmallLimits) {
  ColdWorld w;
  std::vector<std::string> whole = w.all();
  ASSERT_EQ(whole.size(), 300u);
  ASSERT_GT(w.world.log().stats().cold_reads, 0u);
  ASSERT_GT(w.files(".log").size(), 3u);
  for (std::size_t bytes : {1u, 1'500u, 1'700u, 40'000u, 3'000'000u}) {
    for (std::int64_t at = 0; at < 300; at += bytes > 10'000 ? 7 : 1) {
      auto read = w.world.run(w.partition->read(Offset{at}, {.bytes_max = bytes, .batches_max = 100}));
      ASSERT_TRUE(read) << at << " " << read.error().detail;
      ASSERT_FALSE(read->batches.empty());
      EXPECT_EQ(first_of(*read), Offset{at});
      EXPECT_EQ(read->next, Offset{at + static_cast<std::int64_t>(read->batches.size())});
      std::size_t sum = 0;
      for (std::size_t i = 0; i < read->batches.size(); ++i) {
        ASSERT_EQ(as_text(read->batches[i].bytes()), whole[static_cast<std::size_t>(at) + i]) << at << " " << i;
        sum += read->batches[i].length;
      }
      EXPECT_TRUE(read->batches.size() == 1 || sum <= bytes);
      EXPECT_LE(read->batches.size(), 100u);
    }
  }
  EXPECT_EQ(w.world.log().stats().corrupt_reads, 0u);
}

// Batches larger than a chunk, and blocks that lie over the edge of one.
TEST(Read, BatchesLargerThanAChunkComeWhole) {
  LogWorld world{3, [] {
                   ShardLogOptions o = cold();
                   o.wal_file_bytes = 4 * limits::kMiB;
                   return o;
                 }()};
  ASSERT_TRUE(world.start());
  auto p = world.create(kId);
  for (int i = 0; i < 12; ++i) world.publish(*p, std::string(i % 3 == 0 ? 700'000 : 30'001, static_cast<char>('a' + i)));
  world.loop().run_for(std::chrono::seconds{3});
  auto hot = world.read_all(*p, Offset{0});
  p.reset();
  world.reboot();
  ASSERT_TRUE(world.start());
  p = world.open(kId);
  EXPECT_EQ(world.read_all(*p, Offset{0}).value(), hot.value());
}

// Readers go on while the tail is appended to, evicted, rolled and sealed under them.
TEST(Read, WhileTheLogGrowsSealsAndEvicts) {
  ColdWorld w{60'000, 50};
  struct Reader {
    static Task<void> follow(PartitionPtr p, Offset from, Offset to, std::vector<std::string>* out, std::string* error) {
      for (Offset at = from; at < to;) {
        auto read = co_await p->read(at, {.bytes_max = 9'000});
        if (!read) {
          *error = read.error().detail;
          co_return;
        }
        for (const Slice& b : read->batches) out->emplace_back(as_text(b.bytes()));
        at = read->next;
        if (read->batches.empty()) co_await p->advanced().wait();
      }
    }
  };
  std::vector<std::vector<std::string>> seen(6);
  std::vector<std::string> errors(6);
  {
    TaskScope scope;
    for (std::size_t r = 0; r < 6; ++r) scope.spawn(Reader::follow(w.partition, Offset{static_cast<std::int64_t>(r * 9)}, Offset{400}, &seen[r], &errors[r]));
    w.fill(350, 1'500);
    ASSERT_EQ(scope.running(), 0u);
  }
  std::vector<std::string> whole = w.all();
  ASSERT_EQ(whole.size(), 400u);
  for (std::size_t r = 0; r < 6; ++r) {
    EXPECT_EQ(errors[r], "");
    EXPECT_EQ(seen[r], std::vector<std::string>(whole.begin() + static_cast<std::ptrdiff_t>(r * 9), whole.end()));
  }
  EXPECT_EQ(w.world.log().stats().corrupt_reads, 0u);
}

// The records a reader is at are deleted: it gets what it had asked for, or the valid range, never something else.
TEST(Read, UnderRetentionAnswersTheValidRange) {
  ColdWorld w{40'000, 200};
  std::vector<std::string> whole = w.all();
  struct Reader {
    static Task<void> read(PartitionPtr p, Offset at, std::optional<Result<ReadResult>>* out) { out->emplace(co_await p->read(at, {.bytes_max = 20'000})); }
    static Task<void> cut(PartitionPtr p, Offset at, bool* done) { *done = (co_await lone(*p).advance_log_start(at)).has_value(); }
  };
  for (int delay = 0; delay < 40; ++delay) {
    ColdWorld v{40'000, 200};
    v.reopen([](auto&) {});
    std::optional<Result<ReadResult>> read;
    bool cut = false;
    {
      TaskScope scope;
      scope.spawn(Reader::read(v.partition, Offset{30}, &read));
      v.world.loop().run_for(std::chrono::microseconds{delay * 25});
      scope.spawn(Reader::cut(v.partition, Offset{150}, &cut));
      v.world.loop().run_for(std::chrono::seconds{1});
      ASSERT_EQ(scope.running(), 0u);
    }
    ASSERT_TRUE(cut && read);
    if (*read) {
      EXPECT_EQ(as_text((*read)->batches.front().bytes()), whole[30]);
    } else {
      EXPECT_EQ(read->error().code, Errc::offset_out_of_range) << read->error().detail;
      EXPECT_NE(read->error().detail.find("150 to 200"), std::string::npos) << read->error().detail;
    }
    EXPECT_EQ(v.world.log().stats().corrupt_reads, 0u);
    EXPECT_EQ(v.world.run(v.partition->read(Offset{149}, {})).error().code, Errc::offset_out_of_range);
    EXPECT_TRUE(v.world.run(v.partition->read(Offset{150}, {})));
  }
}

// A leader epoch lies outside the batch's checksum. Sealed with its index, without it, and in the segment still written to.
TEST(Read, AFlippedEpochIsNeverServed) {
  for (bool index : {true, false}) {
    ColdWorld w;
    std::vector<std::string> whole = w.all();
    std::string sealed = w.files(".log")[1];
    w.reopen([&](sim::DiskImage& image) {
      image.flip_bit(sealed, batch_layout::kLeaderEpoch + 3, 2);
      if (!index) image.remove(sealed.substr(0, sealed.size() - 3) + "idx");
    });
    auto read = w.world.read_all(*w.partition, Offset{0});
    ASSERT_FALSE(read);
    EXPECT_EQ(read.error().code, Errc::corrupt);
    if (index) EXPECT_NE(read.error().detail.find("leader epoch"), std::string::npos) << read.error().detail;
    EXPECT_GT(w.world.log().stats().corrupt_reads, 0u);
  }
  ColdWorld w;
  std::string active = w.files(".log").back();
  w.reopen([&](sim::DiskImage& image) { image.flip_bit(active, batch_layout::kLeaderEpoch + 3, 2); });
  EXPECT_NE(w.partition->stats().damage, "");
}

// Evicted, and damaged on the disk afterwards, by a write that went astray: the index in memory knows what was written.
TEST(Read, AnOpenSegmentsSyncedPartIsHeldAgainstWhatWasWritten) {
  ColdWorld w{10'000'000};
  ASSERT_EQ(w.files(".log").size(), 1u);
  auto file = w.world.run(w.world.disk().open(w.files(".log").front(), {.write = true}));
  ASSERT_TRUE(file);
  std::byte wrong{0x40};
  ASSERT_TRUE(w.world.run(io::write_all(**file, Bytes{&wrong, 1}, batch_layout::kLeaderEpoch, io::Durable::yes)));
  auto read = w.world.run(w.partition->read(Offset{0}, {}));
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code, Errc::corrupt);
  EXPECT_NE(read.error().detail.find("leader epoch"), std::string::npos) << read.error().detail;
  EXPECT_EQ(w.world.log().stats().corrupt_reads, 1u);
  EXPECT_TRUE(w.world.read_all(*w.partition, Offset{50}));
}

// One bad sector hides its batch and what of its block lies behind it, and nothing else; a refusal of the moment hides nothing.
TEST(Read, AnUnreadableSectorHidesNoMoreThanItsBlock) {
  ColdWorld w{1'000'000, 300};
  std::vector<std::string> whole = w.all();
  std::string path = w.files(".log").front();
  w.fill(800, 1'500);
  ASSERT_GT(w.files(".log").size(), 1u);
  constexpr std::uint64_t kAt = 200'000;
  w.reopen([&](sim::DiskImage& image) { image.make_unreadable(path, kAt / sim::kSector); });
  std::size_t refused = 0, first = 0, last = 0;
  std::size_t at = 0;
  for (std::int64_t offset = 0; offset < 300; ++offset) {
    auto read = w.world.run(w.partition->read(Offset{offset}, {.bytes_max = 1}));
    if (read) {
      EXPECT_EQ(as_text(read->batches.front().bytes()), whole[static_cast<std::size_t>(offset)]);
    } else {
      EXPECT_EQ(read.error().code, Errc::io_error) << read.error().detail;
      if (refused++ == 0) first = at;
      last = at + whole[static_cast<std::size_t>(offset)].size();
    }
    at += whole[static_cast<std::size_t>(offset)].size();
  }
  EXPECT_GT(refused, 0u);
  EXPECT_LE(first, kAt);
  EXPECT_GT(last, kAt);
  EXPECT_LE(last - first, limits::kIndexInterval + 2 * limits::kWalBlock);
  // Known to be bad: it is not asked for with every read.
  std::uint64_t asked = w.world.log().stats().refused_blocks;
  for (int i = 0; i < 20; ++i) EXPECT_FALSE(w.world.read_all(*w.partition, Offset{0}));
  EXPECT_EQ(w.world.log().stats().refused_blocks, asked);
  EXPECT_GT(asked, 0u);
}
TEST(Read, ARefusalOfTheMomentHidesNothing) {
  std::uint64_t after = 0;
  for (bool struck = true; struck; ++after) {
    ColdWorld w;
    std::vector<std::string> whole = w.all();
    w.reopen([](auto&) {});
    sim::Fault& fault = w.world.disk().inject({.op = sim::DiskOp::read, .path_part = ".log", .after = after, .error = EIO});
    EXPECT_EQ(w.all(), whole);
    struck = fault.struck > 0;
  }
  EXPECT_GT(after, 3u);
}
// Short reads of any length are put together.
TEST(Read, ShortReadsArePutTogether) {
  ColdWorld w;
  std::vector<std::string> whole = w.all();
  w.reopen([](auto&) {});
  w.world.disk().inject({.op = sim::DiskOp::read, .path_part = "/topics/", .sticky = true, .effect = sim::Fault::Effect::shorten, .bytes = 5'000});
  EXPECT_EQ(w.all(), whole);
}

// No descriptor is left: an error that says so, and the next read works. Idle ones of ours are given up before that.
TEST(Read, WithoutADescriptorSaysSoAndGoesOn) {
  ColdWorld w;
  std::vector<std::string> whole = w.all();
  w.reopen([](auto&) {});
  w.world.disk().inject({.op = sim::DiskOp::open, .path_part = ".log", .sticky = true, .error = EMFILE});
  auto read = w.world.read_all(*w.partition, Offset{0});
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code, Errc::descriptors_exhausted) << read.error().detail;
  w.world.disk().clear_faults();
  EXPECT_EQ(w.all(), whole);
  EXPECT_EQ(w.world.log().stats().corrupt_reads, 0u);
}

// Somebody removed a file: damage with an offset, not an empty log.
TEST(Read, ASegmentThatWentAwayIsReportedAsCorrupt) {
  ColdWorld w;
  std::vector<std::string> whole = w.all();
  std::string gone = w.files(".log")[1];
  Offset base = *parse_segment_name(gone.substr(gone.rfind('/') + 1), "log");
  w.reopen([](auto&) {});
  ASSERT_TRUE(w.world.run(w.world.disk().remove(gone)));
  auto before = w.world.run(w.partition->read(Offset{0}, {.bytes_max = 10'000'000}));
  ASSERT_TRUE(before);
  EXPECT_EQ(before->next, base);
  auto read = w.world.run(w.partition->read(base, {}));
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code, Errc::corrupt);
  EXPECT_NE(read.error().detail.find("missing"), std::string::npos) << read.error().detail;
}

// Lost records at the end of a partition are no end of the log: who reads on, or begins behind them, hears of it.
TEST(Read, AHoleAtTheEndIsReportedBehindTheHighWatermark) {
  ColdWorld w;
  Offset before = w.partition->log_end();
  std::string active = w.files(".log").back();
  Offset base = *parse_segment_name(active.substr(active.rfind('/') + 1), "log");
  ASSERT_LT(base, before);
  EXPECT_FALSE(w.partition->lost(base));
  w.reopen([&](sim::DiskImage& image) { image.remove(active); });
  EXPECT_EQ(w.world.log().stats().found_damaged, 1u);
  for (Offset at : {base, base + 1, before + -1}) {
    EXPECT_TRUE(w.partition->lost(at)) << at.value();
    auto read = w.world.run(w.partition->read(at, {}));
    ASSERT_FALSE(read) << at.value();
    EXPECT_EQ(read.error().code, Errc::corrupt) << at.value();
  }
  EXPECT_FALSE(w.partition->lost(base + -1));
  auto behind = w.world.run(w.partition->read(before + 1'000, {}));
  ASSERT_FALSE(behind);
  EXPECT_EQ(behind.error().code, Errc::offset_out_of_range);
}

// A sealed segment's end is lost, the operator accepts it, and reads step over the hole; appends go on behind it.
TEST(Read, BehindAcceptedDamageReadsGoOn) {
  ColdWorld w;
  std::vector<std::string> whole = w.all();
  std::string active = w.files(".log").back();
  Offset base = *parse_segment_name(active.substr(active.rfind('/') + 1), "log");
  w.reopen([&](sim::DiskImage& image) { image.remove(active); });
  EXPECT_NE(w.partition->stats().damage, "");
  auto batch = make_batch("no");
  EXPECT_EQ(w.world.append(*w.partition, batch).error().code, Errc::corrupt);
  auto up_to = w.world.run(w.partition->read(base + -1, {}));
  ASSERT_TRUE(up_to);
  ASSERT_TRUE(w.world.run(w.partition->skip_damage()));
  EXPECT_EQ(w.partition->stats().damage, "");
  Offset end = w.partition->log_end();
  EXPECT_GE(end, base);
  auto appended = w.world.publish(*w.partition, "behind");
  EXPECT_EQ(appended.base_offset, end);
  for (int life = 0; life < 3; ++life) {
    auto after = w.world.read_all(*w.partition, Offset{0});
    ASSERT_TRUE(after) << after.error().detail;
    ASSERT_EQ(after->size(), static_cast<std::size_t>(base.value()) + 1);
    EXPECT_TRUE(std::equal(whole.begin(), whole.begin() + base.value(), after->begin()));
    EXPECT_NE(after->back().find("behind"), std::string::npos);
    w.reopen([](auto&) {});
  }
}

// What is appended while the acceptance is on its way to the disk lies behind the hole and stays readable, crash or not.
TEST(Read, AnAppendDuringTheAcceptanceOfDamageIsNotLost) {
  ColdWorld w;
  std::string active = w.files(".log").back();
  Offset base = *parse_segment_name(active.substr(active.rfind('/') + 1), "log");
  w.reopen([&](sim::DiskImage& image) { image.remove(active); });
  struct Caller {
    static Task<void> skip(PartitionPtr p, int* answered) {
      if (co_await p->skip_damage()) ++*answered;
    }
  };
  int answered = 0;
  TaskScope scope;
  scope.spawn(Caller::skip(w.partition, &answered));
  scope.spawn(Caller::skip(w.partition, &answered));
  w.world.loop().run_for(0us);
  ASSERT_EQ(answered, 0) << "both wait for the disk";
  auto batch = make_batch("meanwhile");
  auto appended = w.world.append(*w.partition, batch);
  ASSERT_TRUE(appended) << appended.error().detail;
  EXPECT_GT(appended->base_offset, base) << "behind the hole";
  w.world.loop().run_for(1s);
  EXPECT_EQ(answered, 2);
  for (int life = 0; life < 3; ++life) {
    auto after = w.world.read_all(*w.partition, Offset{0});
    ASSERT_TRUE(after) << after.error().detail;
    ASSERT_EQ(after->size(), static_cast<std::size_t>(base.value()) + 1);
    EXPECT_NE(after->back().find("meanwhile"), std::string::npos);
    w.reopen([](auto&) {});
  }
}

// Reads and openings that wait for the disk when the log closes are answered before what they read from goes away.
TEST(Read, IsAnsweredWheneverTheLogCloses) {
  for (int steps = 0; steps < 40; ++steps) {
    ColdWorld w{40'000, 100};
    w.reopen([](auto&) {});
    struct Caller {
      static Task<void> read(PartitionPtr p, int* answered) {
        (void)co_await p->read(Offset{0}, {.bytes_max = 200'000});
        ++*answered;
      }
      static Task<void> find(PartitionPtr p, int* answered) {
        (void)co_await p->find_time(1'000);
        ++*answered;
      }
    };
    int answered = 0;
    TaskScope scope;
    scope.spawn(Caller::read(w.partition, &answered));
    scope.spawn(Caller::find(w.partition, &answered));
    for (int i = 0; i < steps; ++i) w.world.loop().step();
    w.world.close();
    EXPECT_EQ(answered, 2) << "after " << steps << " steps";
    EXPECT_EQ(scope.running(), 0u);
  }
}

// Term by term: a log written by many runs and truncated in between is read back whole, from the disk.
TEST(Read, EpochsOfManyRunsAndTruncationsAreKnown) {
  ColdWorld w{30'000, 20};
  std::int64_t end = 20;
  for (int run = 0; run < 12; ++run) {
    if (run % 3 == 1) {
      end -= 9;  // in front of where this run's term began
      ASSERT_TRUE(w.world.run(w.partition->truncate_suffix({Offset{end}, 0})));
    }
    if (run % 4 == 2) ASSERT_TRUE(w.world.run(lone(*w.partition).set_hard_state(w.partition->term() + 5, NodeId{1})));
    w.fill(15, 1'500);
    end += 15;
    std::vector<std::string> before = w.all();
    EXPECT_EQ(before.size(), static_cast<std::size_t>(end));
    if (run % 2 == 0) w.reopen([](auto&) {});
    EXPECT_EQ(w.all(), before);
    EXPECT_EQ(w.partition->stats().damage, "");
  }
  EXPECT_EQ(w.world.log().stats().corrupt_reads, 0u);
}

}  // namespace
}  // namespace tailrace::broker::log
