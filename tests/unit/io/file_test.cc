#include "io/file.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <deque>
#include <optional>
#include <utility>
#include <vector>

#include "io/counters.h"

namespace tailrace::broker::io {
namespace {

/// A file whose device does what a script says: a positive number is the most it moves, a negative one an errno value.
class ScriptedFile final : public File {
 public:
  explicit ScriptedFile(std::deque<std::int64_t> script) : script_{std::move(script)} {}
  void read(Operation& op, MutableBytes into, std::uint64_t position) override {
    std::uint64_t left = position < content.size() ? content.size() - position : 0;
    bool fits = !direct || (position % kDirectAlignment == 0 && into.size() % kDirectAlignment == 0);
    std::int64_t n = fits ? next(std::min<std::uint64_t>(into.size(), left)) : -EINVAL;
    if (n > 0) std::copy_n(content.begin() + static_cast<std::ptrdiff_t>(position), n, into.begin());
    done(op, n);
  }
  void write(Operation& op, Bytes from, std::uint64_t position, Durable durable) override {
    durable_ += durable == Durable::yes;
    std::int64_t n = next(from.size());
    if (n > 0) {
      if (content.size() < position + static_cast<std::uint64_t>(n)) content.resize(position + static_cast<std::uint64_t>(n));
      std::copy_n(from.begin(), n, content.begin() + static_cast<std::ptrdiff_t>(position));
    }
    done(op, n);
  }
  void sync(Operation& op) override { done(op, next(0)); }
  void allocate(Operation& op, std::uint64_t, std::uint64_t) override { done(op, next(0)); }
  void truncate(Operation& op, std::uint64_t) override { done(op, next(0)); }
  Result<std::uint64_t> size() override { return content.size(); }

  std::vector<std::byte> content;
  bool direct = false;  // as O_DIRECT: whole blocks from a block's front on
  int calls = 0;
  int durable_ = 0;
  /// Completes what was started, one at a time, as a loop would.
  bool step() {
    if (!pending_) return false;
    Operation* op = std::exchange(pending_, nullptr);
    op->complete(op);
    return true;
  }

 private:
  std::int64_t next(std::uint64_t wanted) {
    ++calls;
    if (script_.empty()) return static_cast<std::int64_t>(wanted);
    std::int64_t n = script_.front();
    script_.pop_front();
    return n < 0 ? n : std::min(n, static_cast<std::int64_t>(wanted));
  }
  void done(Operation& op, std::int64_t result) {
    op.result = result;
    pending_ = &op;
  }
  std::deque<std::int64_t> script_;
  Operation* pending_ = nullptr;
};

template <class T>
Task<void> keep(Task<Result<T>> task, std::optional<Result<T>>* out) {
  out->emplace(co_await std::move(task));
}
template <class T>
Result<T> run(ScriptedFile& file, Task<Result<T>> task) {
  std::optional<Result<T>> out;
  TaskScope scope;
  scope.spawn(keep(std::move(task), &out));
  while (file.step()) {
  }
  return *std::move(out);
}
std::vector<std::byte> counting(std::size_t n) {
  std::vector<std::byte> out(n);
  for (std::size_t i = 0; i < n; ++i) out[i] = static_cast<std::byte>(i * 7 + 1);
  return out;
}

// A short write of any length, an interrupted one and one to be tried again are continued; durability stays asked for.
TEST(WriteAll, GoesOnAfterShortAndInterruptedWritesOfEveryLength) {
  auto data = counting(100);
  for (std::int64_t first = 1; first <= 100; ++first) {
    ScriptedFile file{{first, -EINTR, -EAGAIN, 1}};
    ASSERT_TRUE(run(file, write_all(file, data, 0, Durable::yes))) << first;
    EXPECT_EQ(file.content, data) << first;
    EXPECT_EQ(file.durable_, file.calls);
  }
}

// An error ends it at once with its reason, and a device that takes nothing must not be asked for ever.
TEST(WriteAll, EndsWithTheDevicesError) {
  auto data = counting(10);
  for (auto [number, code] : {std::pair{ENOSPC, Errc::storage_full}, {EDQUOT, Errc::storage_full}, {EIO, Errc::io_error}}) {
    ScriptedFile file{{3, -number}};
    auto written = run(file, write_all(file, data, 0, Durable::no));
    ASSERT_FALSE(written);
    EXPECT_EQ(written.error().code, code);
    EXPECT_EQ(file.calls, 2);
  }
  ScriptedFile stuck{{0}};
  EXPECT_EQ(run(stuck, write_all(stuck, data, 0, Durable::no)).error().code, Errc::io_error);
}

// Short reads of every length are put together; only the file's end is an end.
TEST(ReadUpTo, PutsShortReadsTogether) {
  for (std::int64_t first = 1; first <= 50; ++first) {
    ScriptedFile file{{first, -EINTR, 2, -EAGAIN}};
    file.content = counting(50);
    std::vector<std::byte> into(80);
    EXPECT_EQ(run(file, read_up_to(file, into, 0)).value_or(0), 50u) << first;
    EXPECT_TRUE(std::equal(file.content.begin(), file.content.end(), into.begin())) << first;
  }
  ScriptedFile file{{4}};
  file.content = counting(50);
  std::vector<std::byte> into(51);
  EXPECT_EQ(run(file, read_exactly(file, into, 0)).error().code, Errc::unexpected_end);
  ScriptedFile broken{{4, -EIO}};
  broken.content = counting(50);
  EXPECT_EQ(run(broken, read_exactly(broken, into, 0)).error().code, Errc::io_error);
}

// A direct file goes on at a block's front only. A short read that ended inside a block is the file's end, or not: a device
// with smaller sectors than our blocks may stop anywhere between two of them.
TEST(ReadUpTo, GoesOnInADirectFileAfterAReadThatEndedInsideABlock) {
  for (std::size_t size : {5'000u, 8'192u, 12'000u}) {
    for (std::int64_t first = 512; first < static_cast<std::int64_t>(size); first += 512) {
      ScriptedFile file{{first, -EINTR, 4'096}};
      file.direct = true;
      file.content = counting(size);
      std::vector<std::byte> into(4 * kDirectAlignment);
      EXPECT_EQ(run(file, read_up_to(file, into, 0)).value_or(0), size) << size << " first " << first;
      EXPECT_TRUE(std::equal(file.content.begin(), file.content.end(), into.begin())) << size << " first " << first;
    }
  }
  ScriptedFile broken{{1'024, -EIO}};
  broken.direct = true;
  broken.content = counting(9'000);
  std::vector<std::byte> into(3 * kDirectAlignment);
  EXPECT_EQ(run(broken, read_up_to(broken, into, 0)).error().code, Errc::io_error);
}

// A failed sync is never tried again: the kernel has marked the lost pages clean, and a second one would lie.
TEST(Sync, ReportsAFailureWithoutTryingAgain) {
  for (int number : {EIO, EINTR, EAGAIN}) {
    ScriptedFile file{{-number, 0}};
    EXPECT_FALSE(run(file, sync(file)));
    EXPECT_EQ(file.calls, 1) << number;
  }
}

TEST(ErrorOf, NamesTheErrorAndWhatItMeans) {
  EXPECT_EQ(error_of(-EMFILE, "open x").code, Errc::descriptors_exhausted);
  EXPECT_EQ(error_of(-ENFILE, "open x").code, Errc::descriptors_exhausted);
  EXPECT_EQ(error_of(-ENOENT, "open x").code, Errc::not_found);
  EXPECT_EQ(error_of(-EEXIST, "open x").code, Errc::exists);
  EXPECT_EQ(error_of(-EIO, "read y").detail, "read y: Input/output error");
}

// Whatever number a device answers, counting it stays inside the table.
TEST(FileCounters, CountsResultsByKind) {
  FileCounters counters;
  counters.in_flight.add(4);
  counters.finished(-EIO, 10);
  counters.finished(-100'000, 10);
  counters.finished(7, 10);
  counters.finished(10, 10);
  EXPECT_EQ(counters.failures.value(), 2u);
  EXPECT_EQ(counters.failures_by_errno[EIO].value(), 1u);
  EXPECT_EQ(counters.failures_by_errno[0].value(), 1u);
  EXPECT_EQ(counters.short_results.value(), 1u);
  EXPECT_EQ(counters.in_flight.value(), 0u);
}

}  // namespace
}  // namespace tailrace::broker::io
