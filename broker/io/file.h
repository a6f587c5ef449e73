#pragma once
/// Files as the log sees them. Three implementations: io_uring, a thread pool (io_threads), the simulated disk of the tests.
#include <coroutine>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "base/task.h"

namespace tailrace::broker::io {

/// Buffers, positions and lengths of a direct file are multiples of this (4 KiB physical blocks).
inline constexpr std::size_t kDirectAlignment = 4096;

/// One read, write or sync in flight. Owned by the caller, in place until `complete` was called; cancelled ones too.
/// `complete` runs on the shard's thread from its flat loop, never inside the call that started the operation.
struct Operation {
  void (*complete)(Operation*) noexcept = nullptr;
  std::int64_t result = 0;   // bytes done, or minus an errno value
  Operation* next = nullptr;  // the backend's, while the operation is in flight
  void* backend = nullptr;    // likewise
};

enum class Durable : bool { no, yes };  // yes: RWF_DSYNC, on stable storage when it completes

struct OpenOptions {
  bool create = false;
  bool exclusive = false;  // with create: fail if it exists
  bool write = false;
  bool direct = false;     // O_DIRECT: alignment as kDirectAlignment; an implementation may degrade (tmpfs) and says so
};

/// Thread   the shard that opened it.
/// After    close() or destruction: no operation may be in flight.
/// Short    reads and writes may do less than asked; read_exactly and write_all below go on.
class File {
 public:
  virtual ~File() = default;
  virtual void read(Operation& op, MutableBytes into, std::uint64_t position) = 0;
  /// The bytes stay untouched until the operation completes.
  virtual void write(Operation& op, Bytes from, std::uint64_t position, Durable durable) = 0;
  /// fdatasync. After it failed, nothing about this file's unsynced bytes may be believed, whatever a retry says.
  virtual void sync(Operation& op) = 0;
  /// Allocates and extends the size to position + length (fallocate without KEEP_SIZE).
  virtual void allocate(Operation& op, std::uint64_t position, std::uint64_t length) = 0;
  virtual void truncate(Operation& op, std::uint64_t size) = 0;
  [[nodiscard]] virtual Result<std::uint64_t> size() = 0;
};

struct DirectoryEntry {
  std::string name;
  bool is_directory = false;
  std::uint64_t size = 0;
};
struct Space {
  std::uint64_t total_bytes = 0;
  std::uint64_t free_bytes = 0;  // what an unprivileged writer may still use
};

/// An exclusive lock on a data directory, held until destruction; dies with the process.
class Lock {
 public:
  virtual ~Lock() = default;
};

/// Operations on names. All of them are slow and belong outside the produce and fetch path; implementations run them so
/// that they do not block the shard's thread. Nothing here is durable until the directory is synced.
/// Errors: not_found, exists, storage_full, io_error with path and errno text; descriptors_exhausted for EMFILE/ENFILE.
class FileSystem {
 public:
  virtual ~FileSystem() = default;
  virtual Task<Result<std::unique_ptr<File>>> open(std::string path, OpenOptions options) = 0;
  virtual Task<Result<void>> remove(std::string path) = 0;
  virtual Task<Result<void>> remove_directory(std::string path) = 0;  // empty ones only
  virtual Task<Result<void>> rename(std::string from, std::string to) = 0;
  virtual Task<Result<void>> make_directory(std::string path) = 0;    // ok if it is there already; one level
  virtual Task<Result<void>> sync_directory(std::string path) = 0;
  virtual Task<Result<std::vector<DirectoryEntry>>> list(std::string path) = 0;  // sorted by name
  virtual Task<Result<Space>> space(std::string path) = 0;
  virtual Task<Result<std::unique_ptr<Lock>>> lock(std::string path) = 0;        // Errc::data_directory_locked
  /// A hint: this memory, aligned for direct files, will be read into or written from again and again until unpin(), which comes
  /// before it goes away. A backend may keep it in place, to save doing so for each operation; or do nothing.
  virtual void pin(MutableBytes) {}
  virtual void unpin(MutableBytes) {}
  /// "io_uring", "threads" or "simulated": for metrics and bench headers.
  [[nodiscard]] virtual std::string_view name() const = 0;
};

/// Awaits one operation: `std::int64_t n = co_await FileOp{[&](Operation& op) { file.sync(op); }}`.
template <class Start>
class FileOp : private Operation {
 public:
  explicit FileOp(Start start) : start_{std::move(start)} {}
  [[nodiscard]] bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) {
    handle_ = handle;
    complete = [](Operation* self) noexcept { static_cast<FileOp*>(self)->handle_.resume(); };
    start_(static_cast<Operation&>(*this));
  }
  [[nodiscard]] std::int64_t await_resume() const noexcept { return result; }

 private:
  Start start_;
  std::coroutine_handle<> handle_;
};

/// io_error or storage_full (ENOSPC, EDQUOT) from a negative operation result; `what` names file and operation.
[[nodiscard]] Error error_of(std::int64_t result, std::string what);

/// Reads until `into` is full; `unexpected_end` if the file ends first.
[[nodiscard]] Task<Result<void>> read_exactly(File& file, MutableBytes into, std::uint64_t position);
/// Reads until `into` is full or the file ends; answers the count. Of a direct file too: a short read need not end at a
/// block's boundary, where alone such a file can go on.
[[nodiscard]] Task<Result<std::size_t>> read_up_to(File& file, MutableBytes into, std::uint64_t position);
[[nodiscard]] Task<Result<void>> write_all(File& file, Bytes from, std::uint64_t position, Durable durable);
[[nodiscard]] Task<Result<void>> sync(File& file);
[[nodiscard]] Task<Result<void>> allocate(File& file, std::uint64_t position, std::uint64_t length);
[[nodiscard]] Task<Result<void>> truncate(File& file, std::uint64_t size);

}  // namespace tailrace::broker::io
