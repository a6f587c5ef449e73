#pragma once
/// What every io::FileSystem must do, whoever implements it. A test program instantiates the suite for its backend:
///
///   INSTANTIATE_TEST_SUITE_P(Threads, FileSystemConformance, testing::Values(&make_world), [](auto&) { return "threads"; });
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "base/task.h"
#include "io/file.h"

namespace tailrace::broker::testing_support {

/// One file system with the loop that drives it, and an empty directory in it.
class FileSystemWorld {
 public:
  virtual ~FileSystemWorld() = default;
  [[nodiscard]] virtual io::FileSystem& files() = 0;
  [[nodiscard]] virtual std::string root() = 0;
  /// Runs the task to its end. Called once.
  virtual void run(Task<void> task) = 0;
};
using MakeFileSystemWorld = std::unique_ptr<FileSystemWorld> (*)();

class FileSystemConformance : public ::testing::TestWithParam<MakeFileSystemWorld> {
 protected:
  void run(Task<void> (*story)(io::FileSystem& files, std::string root)) {
    auto world = GetParam()();
    bool ended = false;
    world->run(mark_end(story(world->files(), world->root()), &ended));
    EXPECT_TRUE(ended) << "the story came to its end";
  }

 private:
  static Task<void> mark_end(Task<void> task, bool* ended) {
    co_await std::move(task);
    *ended = true;
  }
};

/// ASSERT_* return from the function, which a coroutine may not do.
#define TAILRACE_CO_ASSERT(condition)                 \
  if (!(condition)) {                                 \
    ADD_FAILURE() << "not true: " << #condition;      \
    co_return;                                        \
  } else                                              \
    static_cast<void>(0)

namespace conformance {

inline constexpr io::OpenOptions kCreate{.create = true, .exclusive = true, .write = true};
inline constexpr io::OpenOptions kCreateDirect{.create = true, .exclusive = true, .write = true, .direct = true};

/// A 4 KiB-aligned block filled from a seed; two seeds differ in every eighth byte at least.
inline Buffer block(std::uint64_t seed, std::size_t size = io::kDirectAlignment) {
  Buffer out = Buffer::allocate(size, io::kDirectAlignment);
  for (std::size_t i = 0; i < size; ++i) out.data()[i] = static_cast<std::byte>(i % 8 == 0 ? seed : seed * 31 + i);
  return out;
}
inline bool same(Bytes a, Bytes b) { return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size()) == 0; }
inline bool all_zero(Bytes bytes) {
  for (auto b : bytes) {
    if (b != std::byte{0}) return false;
  }
  return true;
}
template <class T>
Errc code_of(const Result<T>& result) {
  return result ? Errc{} : result.error().code;
}

// Without create a missing file is not_found; with exclusive an existing one is exists; both name the path.
inline Task<void> opens_as_asked(io::FileSystem& files, std::string root) {
  std::string path = root + "/a";
  auto missing = co_await files.open(path, {});
  EXPECT_EQ(code_of(missing), Errc::not_found);
  if (!missing) EXPECT_NE(missing.error().detail.find(path), std::string::npos) << missing.error().detail;
  EXPECT_EQ(code_of(co_await files.open(root + "/none/a", kCreate)), Errc::not_found);
  EXPECT_TRUE(co_await files.open(path, kCreate));
  EXPECT_EQ(code_of(co_await files.open(path, kCreate)), Errc::exists);
  auto again = co_await files.open(path, {.create = true, .write = true});
  TAILRACE_CO_ASSERT(again);
  EXPECT_EQ((*again)->size().value_or(99), 0u);
  // A directory is no file, however it is opened, and that is not the device's fault.
  EXPECT_TRUE(co_await files.make_directory(root + "/folder"));
  for (bool write : {false, true}) {
    for (bool direct : {false, true}) EXPECT_EQ(code_of(co_await files.open(root + "/folder", {.write = write, .direct = direct})), Errc::corrupt);
  }
  EXPECT_EQ(code_of(co_await files.remove(root + "/folder")), Errc::corrupt);
}

// What was written is read back, here and through a second handle, with and without durability, direct or not.
inline Task<void> reads_back_what_was_written(io::FileSystem& files, std::string root) {
  for (bool direct : {false, true}) {
    for (auto durable : {io::Durable::no, io::Durable::yes}) {
      std::string path = root + (direct ? "/direct" : "/cached") + (durable == io::Durable::yes ? "_durable" : "");
      auto file = co_await files.open(path, direct ? kCreateDirect : kCreate);
      TAILRACE_CO_ASSERT(file);
      Buffer first = block(1), second = block(2, 3 * io::kDirectAlignment);
      EXPECT_TRUE(co_await io::write_all(**file, first.bytes(), 0, durable));
      EXPECT_TRUE(co_await io::write_all(**file, second.bytes(), io::kDirectAlignment, durable));
      EXPECT_TRUE(co_await io::write_all(**file, second.bytes(), 0, durable));  // an overwrite wins
      EXPECT_TRUE(co_await io::sync(**file));
      auto other = co_await files.open(path, {.direct = direct});
      TAILRACE_CO_ASSERT(other);
      EXPECT_EQ((*other)->size().value_or(0), 4 * io::kDirectAlignment);
      Buffer back = block(0, 4 * io::kDirectAlignment);
      EXPECT_TRUE(co_await io::read_exactly(**other, back.bytes(), 0));
      EXPECT_TRUE(same(Bytes{back.bytes()}.first(second.size()), second.bytes()));
      EXPECT_TRUE(same(Bytes{back.bytes()}.subspan(second.size()), Bytes{second.bytes()}.last(io::kDirectAlignment)));
    }
  }
}

// A read at or past the end answers 0, across it the bytes that are there: never an error, never old memory as data.
inline Task<void> reads_end_with_the_file(io::FileSystem& files, std::string root) {
  auto file = co_await files.open(root + "/short", kCreate);
  TAILRACE_CO_ASSERT(file);
  EXPECT_TRUE(co_await io::write_all(**file, as_bytes("hello"), 0, io::Durable::no));
  std::array<std::byte, 16> into{};
  EXPECT_EQ((co_await io::read_up_to(**file, into, 0)).value_or(99), 5u);
  EXPECT_EQ(as_text(Bytes{into}.first(5)), "hello");
  EXPECT_EQ((co_await io::read_up_to(**file, into, 5)).value_or(99), 0u);
  EXPECT_EQ((co_await io::read_up_to(**file, into, 1'000'000)).value_or(99), 0u);
  EXPECT_EQ(code_of(co_await io::read_exactly(**file, into, 0)), Errc::unexpected_end);
}

// A direct file may end inside a block, as a segment does: whole blocks are asked for, and what is there comes back.
inline Task<void> reads_directly_across_an_end_inside_a_block(io::FileSystem& files, std::string root) {
  constexpr std::size_t kBlock = io::kDirectAlignment, kSize = 2 * kBlock + 904;
  auto file = co_await files.open(root + "/direct", kCreateDirect);
  TAILRACE_CO_ASSERT(file);
  Buffer data = block(5, 3 * kBlock);
  EXPECT_TRUE(co_await io::write_all(**file, data.bytes(), 0, io::Durable::no));
  EXPECT_TRUE(co_await io::truncate(**file, kSize));
  Buffer back = block(9, 8 * kBlock);
  EXPECT_EQ((co_await io::read_up_to(**file, back.bytes(), 0)).value_or(0), kSize);
  EXPECT_TRUE(same(Bytes{back.bytes()}.first(kSize), Bytes{data.bytes()}.first(kSize)));
  EXPECT_EQ((co_await io::read_up_to(**file, back.bytes(), 2 * kBlock)).value_or(0), 904u);
  EXPECT_EQ((co_await io::read_up_to(**file, back.bytes(), 3 * kBlock)).value_or(99), 0u);
  EXPECT_EQ(code_of(co_await io::read_exactly(**file, back.bytes(), 0)), Errc::unexpected_end);
}

// Holes, allocated ranges and a grown end read as zeros; a cut end is gone, and growing again does not bring it back.
inline Task<void> sizes_follow_writes_allocation_and_truncation(io::FileSystem& files, std::string root) {
  auto file = co_await files.open(root + "/sizes", kCreate);
  TAILRACE_CO_ASSERT(file);
  Buffer data = block(3);
  constexpr std::size_t kBlock = io::kDirectAlignment;
  EXPECT_TRUE(co_await io::write_all(**file, data.bytes(), 2 * kBlock, io::Durable::no));
  EXPECT_EQ((*file)->size().value_or(0), 3 * kBlock);
  Buffer back = block(9, 2 * kBlock);
  EXPECT_TRUE(co_await io::read_exactly(**file, back.bytes(), 0));
  EXPECT_TRUE(all_zero(back.bytes()));
  EXPECT_TRUE(co_await io::allocate(**file, 0, 8 * kBlock));
  EXPECT_EQ((*file)->size().value_or(0), 8 * kBlock);
  EXPECT_TRUE(co_await io::allocate(**file, 0, kBlock));  // allocation never shortens, nor touches what is there
  EXPECT_EQ((*file)->size().value_or(0), 8 * kBlock);
  Buffer one = block(9);
  EXPECT_TRUE(co_await io::read_exactly(**file, one.bytes(), 2 * kBlock));
  EXPECT_TRUE(same(one.bytes(), data.bytes()));
  EXPECT_TRUE(co_await io::read_exactly(**file, one.bytes(), 7 * kBlock));
  EXPECT_TRUE(all_zero(one.bytes()));
  EXPECT_TRUE(co_await io::truncate(**file, 2 * kBlock + 100));
  EXPECT_EQ((*file)->size().value_or(0), 2 * kBlock + 100);
  EXPECT_TRUE(co_await io::truncate(**file, 3 * kBlock));
  EXPECT_TRUE(co_await io::read_exactly(**file, one.bytes(), 2 * kBlock));
  EXPECT_TRUE(same(Bytes{one.bytes()}.first(100), Bytes{data.bytes()}.first(100)));
  EXPECT_TRUE(all_zero(Bytes{one.bytes()}.subspan(100)));
}

// Lists are sorted and complete, with kinds and sizes: recovery decides from them what exists.
inline Task<void> lists_directories_in_order(io::FileSystem& files, std::string root) {
  EXPECT_EQ(code_of(co_await files.list(root + "/none")), Errc::not_found);
  EXPECT_TRUE(co_await files.make_directory(root + "/b"));
  for (std::string name : {"c", "a", "0010"}) {
    auto file = co_await files.open(root + "/" + name, kCreate);
    TAILRACE_CO_ASSERT(file);
    EXPECT_TRUE(co_await io::write_all(**file, as_bytes(name), 0, io::Durable::no));
  }
  EXPECT_TRUE(co_await files.sync_directory(root));
  auto entries = co_await files.list(root);
  TAILRACE_CO_ASSERT(entries && entries->size() == 4);
  const char* names[] = {"0010", "a", "b", "c"};
  for (std::size_t i = 0; i < 4; ++i) {
    const auto& entry = (*entries)[i];
    EXPECT_EQ(entry.name, names[i]);
    EXPECT_EQ(entry.is_directory, entry.name == "b");
    if (!entry.is_directory) EXPECT_EQ(entry.size, entry.name.size());
  }
  EXPECT_TRUE((co_await files.list(root + "/b")).value().empty());
}

// A rename replaces its target as one step; a removed file is gone by name, and whole for whoever holds it open.
inline Task<void> renames_and_removes(io::FileSystem& files, std::string root) {
  auto from = co_await files.open(root + "/new", kCreate);
  auto old = co_await files.open(root + "/name", kCreate);
  TAILRACE_CO_ASSERT(from && old);
  EXPECT_TRUE(co_await io::write_all(**from, as_bytes("new"), 0, io::Durable::yes));
  EXPECT_TRUE(co_await io::write_all(**old, as_bytes("old"), 0, io::Durable::yes));
  EXPECT_TRUE(co_await files.rename(root + "/new", root + "/name"));
  EXPECT_EQ(code_of(co_await files.open(root + "/new", {})), Errc::not_found);
  EXPECT_EQ(code_of(co_await files.rename(root + "/new", root + "/x")), Errc::not_found);
  std::array<std::byte, 3> text{};
  auto named = co_await files.open(root + "/name", {});
  TAILRACE_CO_ASSERT(named);
  EXPECT_TRUE(co_await io::read_exactly(**named, text, 0));
  EXPECT_EQ(as_text(text), "new");
  EXPECT_TRUE(co_await files.remove(root + "/name"));
  EXPECT_EQ(code_of(co_await files.remove(root + "/name")), Errc::not_found);
  EXPECT_TRUE(co_await io::read_exactly(**named, text, 0));
  EXPECT_EQ(as_text(text), "new");
  EXPECT_TRUE(co_await io::read_exactly(**old, text, 0));
  EXPECT_EQ(as_text(text), "old");
  EXPECT_TRUE((co_await files.list(root)).value().empty());
}

// Making a directory that is there is fine, so that start-up may repeat; one level only; only empty ones are removed.
inline Task<void> makes_and_removes_directories(io::FileSystem& files, std::string root) {
  EXPECT_EQ(code_of(co_await files.make_directory(root + "/d/e")), Errc::not_found);
  EXPECT_TRUE(co_await files.make_directory(root + "/d"));
  EXPECT_TRUE(co_await files.make_directory(root + "/d"));
  EXPECT_TRUE(co_await files.open(root + "/d/file", kCreate));
  EXPECT_EQ(code_of(co_await files.make_directory(root + "/d/file")), Errc::exists);
  EXPECT_FALSE(co_await files.remove_directory(root + "/d"));
  EXPECT_TRUE(co_await files.remove(root + "/d/file"));
  EXPECT_TRUE(co_await files.sync_directory(root + "/d"));
  EXPECT_TRUE(co_await files.remove_directory(root + "/d"));
  EXPECT_EQ(code_of(co_await files.remove_directory(root + "/d")), Errc::not_found);
  EXPECT_EQ(code_of(co_await files.sync_directory(root + "/d")), Errc::not_found);
  EXPECT_TRUE(co_await files.sync_directory(root));
}

// Two brokers on one data directory would destroy it: the second lock is refused, and freed with the first holder.
inline Task<void> locks_a_directory_once(io::FileSystem& files, std::string root) {
  auto first = co_await files.lock(root);
  TAILRACE_CO_ASSERT(first);
  EXPECT_EQ(code_of(co_await files.lock(root)), Errc::data_directory_locked);
  first->reset();
  EXPECT_TRUE(co_await files.lock(root));
  EXPECT_EQ(code_of(co_await files.lock(root + "/none")), Errc::not_found);
  auto space = co_await files.space(root);
  TAILRACE_CO_ASSERT(space);
  EXPECT_GT(space->free_bytes, 0u);
  EXPECT_GE(space->total_bytes, space->free_bytes);
}

/// Counts itself down; resumes the story when the last one is done.
struct Counted : io::Operation {
  std::size_t* left = nullptr;
  std::size_t* completed_inside = nullptr;
  const bool* starting = nullptr;
  std::coroutine_handle<>* waiting = nullptr;
  int completions = 0;
  Counted() {
    complete = [](io::Operation* self) noexcept {
      auto* me = static_cast<Counted*>(self);
      ++me->completions;
      *me->completed_inside += *me->starting;
      if (--*me->left == 0 && *me->waiting) std::exchange(*me->waiting, nullptr).resume();
    };
  }
};
struct AllDone {
  const std::size_t& left;
  std::coroutine_handle<>& waiting;
  [[nodiscard]] bool await_ready() const noexcept { return left == 0; }
  void await_suspend(std::coroutine_handle<> handle) const noexcept { waiting = handle; }
  void await_resume() const noexcept {}
};

// More operations at once than any ring holds: each completes once, with its own bytes, and never inside the call that
// started it, since callers still change their state there.
inline Task<void> completes_many_operations_in_flight(io::FileSystem& files, std::string root) {
  constexpr std::size_t kOperations = 3'000;
  auto file = co_await files.open(root + "/many", kCreateDirect);
  TAILRACE_CO_ASSERT(file);
  std::vector<Counted> operations(kOperations);
  std::vector<Buffer> blocks;
  for (std::size_t i = 0; i < kOperations; ++i) blocks.push_back(block(i + 1));
  for (bool writing : {true, false}) {
    std::size_t left = kOperations, inside = 0;
    bool starting = true;
    std::coroutine_handle<> waiting;
    for (std::size_t i = 0; i < kOperations; ++i) {
      auto& op = operations[i];
      op.left = &left;
      op.completed_inside = &inside;
      op.starting = &starting;
      op.waiting = &waiting;
      op.completions = 0;
      std::uint64_t position = i * io::kDirectAlignment;
      if (writing) {
        (*file)->write(op, blocks[i].bytes(), position, io::Durable::no);
      } else {
        std::memset(blocks[i].data(), 0, blocks[i].size());
        (*file)->read(op, blocks[i].bytes(), position);
      }
    }
    starting = false;
    AllDone all_done{left, waiting};
    co_await all_done;
    EXPECT_EQ(inside, 0u);
    for (std::size_t i = 0; i < kOperations; ++i) {
      EXPECT_EQ(operations[i].completions, 1);
      EXPECT_EQ(operations[i].result, static_cast<std::int64_t>(io::kDirectAlignment));
    }
  }
  for (std::size_t i = 0; i < kOperations; ++i) EXPECT_TRUE(same(blocks[i].bytes(), block(i + 1).bytes())) << i;
}

}  // namespace conformance

#define TAILRACE_CONFORMANCE(Claim, story) \
  TEST_P(FileSystemConformance, Claim) { run(conformance::story); }
TAILRACE_CONFORMANCE(OpensAsAsked, opens_as_asked)
TAILRACE_CONFORMANCE(ReadsBackWhatWasWritten, reads_back_what_was_written)
TAILRACE_CONFORMANCE(ReadsEndWithTheFile, reads_end_with_the_file)
TAILRACE_CONFORMANCE(ReadsDirectlyAcrossAnEndInsideABlock, reads_directly_across_an_end_inside_a_block)
TAILRACE_CONFORMANCE(SizesFollowWritesAllocationAndTruncation, sizes_follow_writes_allocation_and_truncation)
TAILRACE_CONFORMANCE(ListsDirectoriesInOrder, lists_directories_in_order)
TAILRACE_CONFORMANCE(RenamesAndRemoves, renames_and_removes)
TAILRACE_CONFORMANCE(MakesAndRemovesDirectories, makes_and_removes_directories)
TAILRACE_CONFORMANCE(LocksADirectoryOnce, locks_a_directory_once)
TAILRACE_CONFORMANCE(CompletesManyOperationsInFlight, completes_many_operations_in_flight)
#undef TAILRACE_CONFORMANCE

}  // namespace tailrace::broker::testing_support
