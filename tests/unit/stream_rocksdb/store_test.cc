// The database answers as a map does, and what is left of it, whenever the process ends, is a prefix.
#include "stream_rocksdb/store.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "base/planted.h"
#include "base/random.h"
#include "tests/support/map_index.h"
#include "tests/support/scratch_directory.h"

namespace tailrace::broker::stream {
namespace {

namespace fs = std::filesystem;

/// On the caller's thread, at once.
class Inline final : public io::BlockingCalls {
 public:
  void call(std::move_only_function<void()> work, Runnable& after) override {
    work();
    after.run(&after);
  }
};

template <class T>
T now(Task<T> task) {
  std::optional<T> value;
  TaskScope scope;
  auto take = [](Task<T> from, std::optional<T>* into) -> Task<void> { *into = co_await std::move(from); };
  scope.spawn(take(std::move(task), &value));
  return *std::move(value);
}

PartitionId partition(std::int32_t index) {
  PartitionId id;
  id.topic.bytes[3] = 200;
  id.index = PartitionIndex{index};
  return id;
}

struct Store : testing::Test {
  testing_support::ScratchDirectory scratch;
  Inline calls;
  std::string path = scratch.path() + "/streams";
  std::unique_ptr<RocksStore> store;
  std::unique_ptr<StreamIndex> index;

  void open(const std::string& at) {
    auto opened = now(RocksStore::open({.path = at, .memtable_bytes = 256 << 10}, calls));
    ASSERT_TRUE(opened) << opened.error().detail;
    store = *std::move(opened);
    index = store->index(partition(0));
  }
  void close() {
    index.reset();
    ASSERT_TRUE(now(store->close()));
    store.reset();
  }
};

/// The same updates for two indexes, as a ledger gives them.
class Feed {
 public:
  explicit Feed(std::uint64_t seed) : random_{seed} {}
  std::vector<Ledger::Update> next() {
    std::vector<Ledger::Update> out;
    for (std::uint64_t n = 1 + random_.below(20); n > 0; --n) {
      Entry entry{.stream = "s" + std::string(random_.below(3), '/') + std::to_string(random_.below(40)), .base = reached_};
      Head& head = heads_[entry.stream];
      if (head.exists() && random_.chance(1, 10)) {
        entry.kind = Entry::Kind::truncate;
        entry.before = static_cast<Version>(random_.below(static_cast<std::uint64_t>(head.last) + 2));
        entry.next = reached_ + 1;
      } else {
        entry.count = static_cast<std::int32_t>(1 + random_.below(4));
        entry.next = reached_ + entry.count;
        entry.time_ms = reached_.value();
      }
      Version first = head.last + 1;
      head = after(head, entry);
      reached_ = entry.next;
      out.push_back({entry, first, head});
    }
    return out;
  }
  [[nodiscard]] Offset reached() const { return reached_; }

 private:
  Random random_;
  std::map<std::string, Head> heads_{};
  Offset reached_{0};
};

void expect_same(StreamIndex& a, StreamIndex& b, Random& random) {
  EXPECT_EQ(now(a.reached()).value(), now(b.reached()).value());
  EXPECT_EQ(now(a.list("", "", 10'000)).value(), now(b.list("", "", 10'000)).value());
  EXPECT_EQ(now(a.list("s/", "s/2", 5)).value(), now(b.list("s/", "s/2", 5)).value());
  EXPECT_EQ(now(a.list("none", "", 5)).value(), now(b.list("none", "", 5)).value());
  for (int i = 0; i < 24; ++i) {
    std::string stream = "s" + std::string(random.below(3), '/') + std::to_string(random.below(42));
    EXPECT_EQ(now(a.head(stream)).value(), now(b.head(stream)).value()) << stream;
    auto from = static_cast<Version>(random.below(60)) - 2;
    bool backwards = random.chance(1, 2);
    std::size_t max = 1 + random.below(9);
    EXPECT_EQ(now(a.places(stream, from, backwards, max)).value(), now(b.places(stream, from, backwards, max)).value()) << stream << " from " << from << (backwards ? " backwards" : "");
  }
}

TEST_F(Store, AnswersAsAMapDoesThroughRestarts) {
  Feed feed{5};
  Random random{6};
  MapIndex map;
  open(path);
  for (int round = 0; round < 40; ++round) {
    auto updates = feed.next();
    ASSERT_TRUE(now(index->apply(updates, feed.reached())));
    (void)now(map.apply(updates, feed.reached()));
    if (round % 4 == 0) expect_same(*index, map, random);
    if (round % 13 == 12) {
      close();
      open(path);
      EXPECT_FALSE(store->begun_anew());
      expect_same(*index, map, random);
    }
  }
}

TEST_F(Store, PartitionsDoNotMeetAndOneIsClearedAlone) {
  open(path);
  auto other = store->index(partition(1));
  Feed feed{9};
  MapIndex map;
  for (int round = 0; round < 5; ++round) {
    auto updates = feed.next();
    ASSERT_TRUE(now(index->apply(updates, feed.reached())));
    ASSERT_TRUE(now(other->apply(updates, feed.reached())));
    (void)now(map.apply(updates, feed.reached()));
  }
  ASSERT_TRUE(now(index->clear()));
  Random random{1};
  MapIndex empty;
  expect_same(*index, empty, random);
  expect_same(*other, map, random);
  // Nothing of it comes back when the process dies now.
  fs::copy(path, scratch.path() + "/killed", fs::copy_options::recursive);
  other.reset();
  close();
  open(scratch.path() + "/killed");
  expect_same(*index, empty, random);
  close();
}

/// What the files hold when the process dies at any moment: some prefix of what was applied, whole.
std::string killed_somewhere(Store& world) {
  Feed feed{11};
  MapIndex map;
  std::map<Offset, MapIndex> states;
  states.emplace(Offset{0}, map);
  world.open(world.path);
  std::size_t late = 0;
  for (int round = 0; round < 3'000; ++round) {
    auto updates = feed.next();
    if (!now(world.index->apply(updates, feed.reached()))) return "apply failed";
    (void)now(map.apply(updates, feed.reached()));
    states.emplace(feed.reached(), map);
    if (round % 300 != 299) continue;
    std::string copy = world.scratch.path() + "/killed" + std::to_string(round);
    std::error_code ignored;
    fs::copy(world.path, copy, fs::copy_options::recursive, ignored);
    auto after = now(RocksStore::open({.path = copy}, world.calls));
    if (!after) return "it does not open: " + after.error().detail;
    auto index = (*after)->index(partition(0));
    Offset reached = now(index->reached()).value();
    late += reached > Offset{0} ? 1 : 0;
    auto state = states.find(reached);
    if (state == states.end()) return "it has reached what was never a whole step";
    if (now(index->list("", "", 10'000)).value() != now(state->second.list("", "", 10'000)).value()) return "what it has reached is not in it";
    for (int i = 0; i < 40; ++i) {
      std::string stream = "s" + std::to_string(i);
      if (now(index->places(stream, 0, false, 10'000)).value() != now(state->second.places(stream, 0, false, 10'000)).value()) return "places of " + stream + " are missing";
    }
    index.reset();
    (void)now((*after)->close());
    fs::remove_all(copy, ignored);
  }
  if (late < 3) return "nothing was ever on disk: the test shows nothing";
  return {};
}

TEST_F(Store, AKillLeavesAPrefix) { EXPECT_EQ(killed_somewhere(*this), ""); }

TEST_F(Store, AReachAheadOfItsContentsIsFound) {
  plant(PlantedBug::stream_index_ahead);
  std::string found = killed_somewhere(*this);
  plant(PlantedBug::none);
  EXPECT_NE(found, "");
  EXPECT_EQ(found.find("shows nothing"), std::string::npos) << found;
}

// The log is the truth: whatever has become of these files, the index opens, perhaps empty, or says `corrupt`, and a clear makes it whole.
TEST_F(Store, DamagedFilesAreAnEmptyIndexOrAnErrorAndNeverAWrongAnswer) {
  Feed feed{21};
  MapIndex map;
  open(path);
  for (int round = 0; round < 400; ++round) {
    auto updates = feed.next();
    ASSERT_TRUE(now(index->apply(updates, feed.reached())));
    (void)now(map.apply(updates, feed.reached()));
  }
  close();
  std::vector<fs::path> files;
  for (const auto& file : fs::directory_iterator(path)) {
    if (file.is_regular_file() && file.file_size() > 0 && file.path().filename() != "LOCK" && file.path().filename().string().find("LOG") != 0) files.push_back(file.path().filename());
  }
  Random random{3};
  std::size_t anew = 0, errors = 0, same = 0;
  for (int i = 0; i < 24; ++i) {
    std::string copy = scratch.path() + "/damaged";
    fs::remove_all(copy);
    fs::copy(path, copy, fs::copy_options::recursive);
    fs::path victim = fs::path{copy} / files[random.below(files.size())];
    if (i % 3 == 0) {
      fs::remove(victim);
    } else {
      std::fstream file{victim, std::ios::in | std::ios::out | std::ios::binary};
      auto at = static_cast<std::streamoff>(random.below(fs::file_size(victim)));
      file.seekg(at);
      char byte = 0;
      file.get(byte);
      file.seekp(at);
      file.put(static_cast<char>(byte ^ (1 << random.below(8))));
    }
    auto opened = now(RocksStore::open({.path = copy}, calls));
    if (!opened) {
      ++errors;
      continue;
    }
    auto damaged = (*opened)->index(partition(0));
    auto reached = now(damaged->reached());
    if (reached && *reached == Offset{0}) ++anew;
    for (int k = 0; k < 40; ++k) {
      std::string stream = "s" + std::to_string(k);
      auto head = now(damaged->head(stream));
      if (!head) {
        ++errors;
        EXPECT_TRUE(head.error().code == Errc::corrupt || head.error().code == Errc::io_error);
        continue;
      }
      bool right = (reached && *reached == Offset{0} && !head->exists()) || *head == now(map.head(stream)).value();
      EXPECT_TRUE(right) << stream << " after " << victim;
      same += right ? 1 : 0;
    }
    auto cleared = now(damaged->clear());
    if (cleared) EXPECT_EQ(now(damaged->reached()).value(), Offset{0});
    damaged.reset();
    (void)now((*opened)->close());
  }
  EXPECT_GT(anew + errors, 5u);
  EXPECT_GT(same, 100u);
}

}  // namespace
}  // namespace tailrace::broker::stream
