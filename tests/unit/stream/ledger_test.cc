#include "stream/ledger.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/planted.h"
#include "base/random.h"
#include "model/limits.h"
#include "tests/support/map_index.h"

namespace tailrace::broker::stream {
namespace {

using Kind = Judgement::Kind;
using Ids = std::vector<std::string>;

Expected none() { return {Expected::Kind::none, kNoVersion}; }
Expected exactly(Version v) { return {Expected::Kind::exactly, v}; }
Expected any() { return {Expected::Kind::any, kNoVersion}; }
Expected exists() { return {Expected::Kind::exists, kNoVersion}; }

/// A task that never waits: MapIndex's.
template <class T>
T now(Task<T> task) {
  std::optional<T> value;
  TaskScope scope;
  auto take = [](Task<T> from, std::optional<T>* into) -> Task<void> { *into = co_await std::move(from); };
  scope.spawn(take(std::move(task), &value));
  return *std::move(value);
}

struct Ledgers : testing::Test {
  WarmHeads warm{10'000};
  Ledger ledger{Offset{0}, warm, 1};
  Offset end{0};
  void know(std::string_view stream, Head head = {}) {
    ledger.begin_lookup(stream);
    ledger.end_lookup(stream, head);
  }
  void append(const std::string& stream, std::int32_t count) {
    Offset base = end;
    end = end + count;
    ledger.appended({.stream = stream, .base = base, .next = end, .count = count, .time_ms = 100 + base.value()});
  }
};

TEST_F(Ledgers, AStreamThatNobodyLookedUpIsCold) {
  EXPECT_EQ(ledger.judge("s", any(), 1).kind, Kind::cold);
  know("s");
  EXPECT_EQ(ledger.judge("s", any(), 1).kind, Kind::append);
}

TEST_F(Ledgers, EveryExpectationHasItsAnswer) {
  know("s");
  EXPECT_EQ(ledger.judge("s", none(), 2).kind, Kind::append);
  EXPECT_EQ(ledger.judge("s", exactly(0), 1).kind, Kind::wrong_version);
  EXPECT_EQ(ledger.judge("s", exactly(-1), 1).kind, Kind::wrong_version) << "none is not a version";
  EXPECT_EQ(ledger.judge("s", exists(), 1).kind, Kind::wrong_version);
  append("s", 3);
  Judgement right = ledger.judge("s", exactly(2), 1);
  EXPECT_EQ(right.kind, Kind::append);
  EXPECT_EQ(right.first, 3);
  Judgement early = ledger.judge("s", exactly(5), 1);
  EXPECT_EQ(early.kind, Kind::wrong_version);
  EXPECT_EQ(early.head.last, 2);
  EXPECT_EQ(early.rests_on, Offset{3});
  EXPECT_EQ(ledger.judge("s", exists(), 1).kind, Kind::append);
  // Behind what is there: the ids decide, but only where all of them could stand.
  Judgement again = ledger.judge("s", none(), 3);
  EXPECT_EQ(again.kind, Kind::compare);
  EXPECT_EQ(again.first, 0);
  EXPECT_EQ(ledger.judge("s", exactly(0), 2).kind, Kind::compare);
  EXPECT_EQ(ledger.judge("s", exactly(0), 3).kind, Kind::wrong_version);
  EXPECT_EQ(ledger.judge("s", none(), 4).kind, Kind::wrong_version);
  EXPECT_EQ(ledger.judge("s", exactly(std::numeric_limits<Version>::max() - 1), 1'000).kind, Kind::wrong_version);
}

TEST_F(Ledgers, ATruncationHidesAndCountsOn) {
  know("s");
  append("s", 5);
  Offset base = end;
  end = end + 1;
  ledger.appended({.kind = Entry::Kind::truncate, .stream = "s", .base = base, .next = end, .before = 3});
  EXPECT_EQ(ledger.head("s")->first, 3);
  EXPECT_EQ(ledger.head("s")->last, 4);
  base = end;
  end = end + 1;
  ledger.appended({.kind = Entry::Kind::truncate, .stream = "s", .base = base, .next = end, .before = 99});
  EXPECT_EQ(ledger.head("s")->first, 5) << "no further than there are events";
  EXPECT_EQ(ledger.judge("s", none(), 6).kind, Kind::wrong_version) << "it was there once";
  EXPECT_EQ(ledger.judge("s", exactly(4), 1).kind, Kind::append);
  ledger.rolled_back(Offset{5});
  EXPECT_EQ(ledger.head("s")->first, 0);
}

TEST_F(Ledgers, ItIsFullWithoutTheIndexAndGoesOnWithIt) {
  know("s");
  for (std::size_t i = 0; i < limits::kLedgerEntriesMax; ++i) append("s", 1);
  EXPECT_EQ(ledger.judge("s", any(), 1).kind, Kind::no_credit);
  EXPECT_EQ(ledger.committed(end, 10).size(), 10u);
  ledger.indexed(Offset{10});
  EXPECT_EQ(ledger.judge("s", any(), 1).kind, Kind::append);
}

/// A partition of streams as its owner drives it, against the log itself: what is right is counted from its beginning.
class World {
 public:
  explicit World(std::uint64_t seed) : random_{seed}, warm_{seed % 3 == 0 ? 1U : 2'000U} { begin(); }

  std::string run(int steps) {
    for (int i = 0; i < steps && wrong_.empty(); ++i) {
      switch (random_.below(12)) {
        case 0: commit(); break;
        case 1: case 2: index(); break;
        case 3: roll_back(); break;
        case 4: if (random_.chance(1, 10)) crash(); break;
        case 5: truncate(); break;
        case 6: end_lookups(); break;
        case 7: look(); break;
        default: append(); break;
      }
    }
    return wrong_;
  }
  std::uint64_t appended = 0, refused = 0, duplicates = 0, cold = 0, overtaken = 0, rolled = 0, crashes = 0;

 private:
  struct Logged {
    Entry entry;
    Ids ids{};
  };
  struct Request {
    std::string stream;
    Expected expected;
    Ids ids;
  };
  struct Pending {
    std::string stream;
    Head found;
  };

  void fail(std::string what) {
    if (wrong_.empty()) wrong_ = std::move(what);
  }
  [[nodiscard]] Offset end() const { return log_.empty() ? Offset{0} : log_.back().entry.next; }
  /// Counted from the log's beginning to `until`.
  [[nodiscard]] Head truth(const std::string& stream, Offset until) const {
    Head head;
    for (const Logged& logged : log_) {
      if (logged.entry.next <= until && logged.entry.stream == stream) head = after(head, logged.entry);
    }
    return head;
  }
  [[nodiscard]] Ids ids_of(const std::string& stream) const {
    Ids out;
    for (const Logged& logged : log_) {
      if (logged.entry.stream == stream) out.insert(out.end(), logged.ids.begin(), logged.ids.end());
    }
    return out;
  }
  std::string some_stream() { return "s" + std::to_string(random_.below(5)); }

  void begin() {
    ledger_ = std::make_unique<Ledger>(now(index_.reached()).value(), warm_, 7);
    ++life_;
    pending_.clear();
    for (const Logged& logged : log_) {
      if (logged.entry.next <= ledger_->begin()) continue;
      if (!ledger_->head(logged.entry.stream)) {
        ledger_->begin_lookup(logged.entry.stream);
        ledger_->end_lookup(logged.entry.stream, now(index_.head(logged.entry.stream)).value());
      }
      ledger_->appended(logged.entry);
    }
  }

  void append() {
    Request request;
    if (!earlier_.empty() && random_.chance(1, 4)) {
      request = earlier_[random_.below(earlier_.size())];  // a retry, however late
      if (random_.chance(1, 4)) request.ids.back() += "x";
    } else {
      request.stream = some_stream();
      Head head = truth(request.stream, random_.chance(1, 3) ? committed_ : end());
      constexpr std::array kKinds{Expected::Kind::none, Expected::Kind::exactly, Expected::Kind::exactly, Expected::Kind::exists, Expected::Kind::any};
      request.expected = {kKinds[random_.below(kKinds.size())], head.last + static_cast<Version>(random_.below(3)) - 1};
      for (std::uint64_t n = 1 + random_.below(3); n > 0; --n) request.ids.push_back(std::to_string(++next_id_));
      earlier_.push_back(request);
    }
    auto count = static_cast<std::int32_t>(request.ids.size());
    Judgement judged = ledger_->judge(request.stream, request.expected, count);
    Head head = truth(request.stream, end());
    Ids stored = ids_of(request.stream);
    bool met = request.expected.met_by(head);
    switch (judged.kind) {
      case Kind::cold:
        ++cold;
        ledger_->begin_lookup(request.stream);
        pending_.push_back({request.stream, now(index_.head(request.stream)).value()});
        return;
      case Kind::append:
        if (!met) fail("an append was taken although its version is not the one expected");
        if (judged.first != head.last + 1) fail("an append gets another version than the next");
        store(request, count);
        ++appended;
        return;
      case Kind::compare: {
        auto first = static_cast<std::size_t>(judged.first);
        if (met || first + request.ids.size() > stored.size()) return fail("ids are compared that cannot stand there");
        Ids there(stored.begin() + judged.first, stored.begin() + judged.first + count);
        bool same = there == request.ids;
        if (same) ++duplicates;
        refuse(request, judged, same);
        return;
      }
      case Kind::wrong_version: {
        if (met) fail("an append was refused although its version is the one expected");
        auto first = request.expected.first_version();
        bool there = first && *first >= 0 && static_cast<std::size_t>(*first) + request.ids.size() <= stored.size() &&
                     std::equal(request.ids.begin(), request.ids.end(), stored.begin() + *first);
        if (there) fail("a retry was not known");
        if (judged.head != head) fail("a refusal names another head than the newest");
        refuse(request, judged, false);
        return;
      }
      case Kind::no_credit: fail("nothing is full here"); return;
    }
  }
  /// The answer leaves when what it rests on is committed: what it says must be so in that part of the log.
  void refuse(const Request& request, const Judgement& judged, bool duplicate) {
    ++refused;
    Head there = truth(request.stream, judged.rests_on > Offset{0} ? judged.rests_on : committed_);
    bool justified = duplicate ? there.last >= judged.first + static_cast<Version>(request.ids.size()) - 1 : !request.expected.met_by(there);
    if (judged.rests_on == Offset{0} && truth(request.stream, end()) != truth(request.stream, committed_)) justified = false;
    if (!justified) fail("an answer does not wait for what it rests on");
  }
  void store(const Request& request, std::int32_t count) {
    Entry entry{.stream = request.stream, .base = end(), .next = end() + count, .count = count, .time_ms = end().value()};
    log_.push_back({entry, request.ids});
    ledger_->appended(entry);
  }
  void truncate() {
    std::string stream = some_stream();
    if (!ledger_->head(stream)) return;
    Entry entry{.kind = Entry::Kind::truncate, .stream = stream, .base = end(), .next = end() + 1, .before = static_cast<Version>(random_.below(6))};
    log_.push_back({entry});
    ledger_->appended(entry);
  }
  void commit() {
    std::vector<Offset> ends;
    for (const Logged& logged : log_) {
      if (logged.entry.next > committed_) ends.push_back(logged.entry.next);
    }
    if (!ends.empty()) committed_ = ends[random_.below(ends.size())];
  }
  void index() {
    auto updates = ledger_->committed(committed_, 1 + random_.below(4));
    if (updates.empty()) return;
    Offset reached = updates.back().entry.next;
    if (planted(PlantedBug::stream_index_ahead)) updates.pop_back();
    (void)now(index_.apply(std::move(updates), reached));
    for (const Pending& pending : pending_) overtaken += ledger_->of(pending.stream, reached).empty() ? 0 : 1;
    ledger_->indexed(reached);
  }
  void roll_back() {
    Offset to = committed_;
    for (const Logged& logged : log_) {
      if (logged.entry.next > to && random_.chance(1, 2)) to = logged.entry.next;
    }
    if (to == end()) return;
    std::erase_if(log_, [&](const Logged& logged) { return logged.entry.next > to; });
    ledger_->rolled_back(to);
    ++rolled;
  }
  /// All but the log and the index is gone.
  void crash() {
    ++crashes;
    ledger_.reset();
    begin();
  }
  void end_lookups() {
    if (pending_.empty()) return;
    auto one = pending_.begin() + static_cast<std::ptrdiff_t>(random_.below(pending_.size()));
    ledger_->end_lookup(one->stream, one->found);
    pending_.erase(one);
  }
  void look() {
    for (int i = 0; i < 5; ++i) {
      std::string stream = "s" + std::to_string(i);
      auto known = ledger_->head(stream);
      if (known && *known != truth(stream, end())) fail("a head is not what the log says");
      // What reads see: the index, then the committed part of the ledger.
      auto places = now(index_.places(stream, 0, false, 10'000)).value();
      for (const Ledger::Update& update : ledger_->of(stream, committed_)) {
        if (update.entry.kind == Entry::Kind::events) places.push_back({update.first_version, update.entry.count, update.entry.base});
      }
      std::vector<Place> right;
      Version next = 0;
      for (const Logged& logged : log_) {
        if (logged.entry.stream != stream || logged.entry.kind != Entry::Kind::events || logged.entry.next > committed_) continue;
        right.push_back({next, logged.entry.count, logged.entry.base});
        next += logged.entry.count;
      }
      if (places != right) fail("a stream is not read as it is");
    }
  }

  Random random_;
  std::vector<Logged> log_{};
  Offset committed_{0};
  MapIndex index_{};
  WarmHeads warm_;
  std::unique_ptr<Ledger> ledger_{};
  std::vector<Pending> pending_{};
  std::vector<Request> earlier_{};
  std::uint64_t next_id_ = 0, life_ = 0;
  std::string wrong_{};
};

std::string sweep(World* sum = nullptr) {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    World world{seed};
    std::string wrong = world.run(700);
    if (!wrong.empty()) return "seed " + std::to_string(seed) + ": " + wrong;
    if (!sum) continue;
    sum->appended += world.appended;
    sum->refused += world.refused;
    sum->duplicates += world.duplicates;
    sum->cold += world.cold;
    sum->overtaken += world.overtaken;
    sum->rolled += world.rolled;
    sum->crashes += world.crashes;
  }
  return {};
}

TEST(LedgerModel, AgreesWithTheLogCountedFromItsBeginning) {
  World sum{0};
  EXPECT_EQ(sweep(&sum), "");
  EXPECT_GT(sum.appended, 10'000u);
  EXPECT_GT(sum.refused, 5'000u);
  EXPECT_GT(sum.duplicates, 500u);
  EXPECT_GT(sum.cold, 500u);
  EXPECT_GT(sum.overtaken, 100u);
  EXPECT_GT(sum.rolled, 500u);
  EXPECT_GT(sum.crashes, 100u);
}

class PlantedInStreams : public testing::TestWithParam<PlantedBug> {
 protected:
  void TearDown() override { plant(PlantedBug::none); }
};
TEST_P(PlantedInStreams, IsFound) {
  plant(GetParam());
  EXPECT_NE(sweep(), "") << "nothing notices " << name_of(GetParam());
}
INSTANTIATE_TEST_SUITE_P(All, PlantedInStreams,
                         testing::Values(PlantedBug::stream_judge_committed_only, PlantedBug::stream_refuse_uncommitted, PlantedBug::stream_no_roll_back,
                                         PlantedBug::stream_stale_lookup, PlantedBug::stream_index_ahead, PlantedBug::stream_keep_stale_head),
                         [](const auto& info) { return std::string{name_of(info.param)}; });

}  // namespace
}  // namespace tailrace::broker::stream
