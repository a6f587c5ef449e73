#pragma once
/// A simulated disk and its file system. Pessimistic where POSIX leaves room: nothing is durable until the call that
/// promises it has completed, and a crash keeps any subset of the rest.
///
///   contents    a write is visible to reads when it completes. It is durable then only with Durable::yes; otherwise when a
///               sync() that started after it completed completes. Such a sync also makes earlier size changes durable, and
///               so does a durable write. Until then a crash may keep any of its 512-byte sectors, new or old.
///   names       create, remove, rename and make_directory are durable when a sync_directory() that started later completes.
///               Until then a crash keeps any subset; a rename is two such changes, so both names or neither may be left.
///   after a failed sync or durable write, the bytes are visible and no later sync makes them durable (they may be lost).
///   direct      position, length and address must be multiples of io::kDirectAlignment, or the call answers -EINVAL (a read
///               past the end: 0).
///   buffers     the bytes of a write must stay untouched until it completes; a change is recorded in violations().
///
/// After crash() or kill() the disk is dead: operations in flight and later ones complete with -EIO and change nothing, so
/// that the code under test unwinds, and the image lives on in a new disk.
#include <array>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/random.h"
#include "io/file.h"
#include "io/runtime.h"
#include "tests/support/disk_image.h"
#include "tests/support/sim_runtime.h"

namespace tailrace::broker::sim {

enum class DiskOp : std::uint8_t {
  open, read, write, write_durable, sync, allocate, truncate, remove, remove_directory, rename, make_directory,
  sync_directory, list, space, lock, count_
};
[[nodiscard]] std::string_view name_of(DiskOp op);

/// One rule. It sees the calls that match `op` and `path_part`, lets `after` of them pass, and strikes the next, or with
/// `sticky` all that follow.
struct Fault {
  enum class Effect {
    error,      // fails with `error`; a write may have reached any sectors, a sync loses what it should have flushed
    shorten,    // moves at most `bytes` (a direct file: rounded down to its alignment, at least one block)
    stall,      // completes after `stall`
    lie,        // a durable write or sync answers success and makes nothing durable
    misdirect,  // a write lands at `to_path` (empty: the same file), shifted by `shift`; a read answers from there
  };
  std::optional<DiskOp> op{};  // none: any
  std::string path_part{};
  std::uint64_t after = 0;
  bool sticky = false;
  Effect effect = Effect::error;
  int error = 5;  // EIO
  std::size_t bytes = 0;
  Duration stall{};
  std::string to_path{};
  std::int64_t shift = 0;
  std::uint64_t seen = 0;    // matching calls so far
  std::uint64_t struck = 0;  // calls it changed
};

/// A write whose bytes a crash may lose, as the crash plan sees it.
struct UnflushedWrite {
  std::string path;
  std::uint64_t position = 0;
  std::uint64_t length = 0;
  bool in_flight = false;
};
/// What a crash leaves of one such write.
struct Fate {
  enum class Keep {
    none,
    all,
    sectors,      // each 512-byte sector by a coin
    blocks,       // each 4 KiB block by a coin
    prefix,       // the first `value` bytes, torn anywhere
    block_mask,   // bit i of `value`: 4 KiB block i
    sector_mask,  // bit i of `value`: sector i, the last bit for all further ones
  };
  enum class Rest { old, zeros, noise };  // what stands where it was not kept
  Keep keep = Keep::sectors;
  std::uint64_t value = 0;
  Rest rest = Rest::old;
};
struct CrashPlan {
  enum class Changes { none, all, coin };
  std::uint64_t seed = 1;
  Changes names = Changes::coin;  // un-synced directory entries
  Changes sizes = Changes::coin;  // un-synced sizes; a coin keeps a prefix of the changes of each file
  std::function<Fate(const UnflushedWrite&)> fate;  // default: sectors by a coin

  [[nodiscard]] static CrashPlan lose_all() { return {0, Changes::none, Changes::none, [](const UnflushedWrite&) { return Fate{Fate::Keep::none}; }}; }
  [[nodiscard]] static CrashPlan keep_all() { return {0, Changes::all, Changes::all, [](const UnflushedWrite&) { return Fate{Fate::Keep::all}; }}; }
  [[nodiscard]] static CrashPlan seeded(std::uint64_t seed) { return {seed, Changes::coin, Changes::coin, {}}; }
};

struct DiskOptions {
  Duration latency_min = std::chrono::microseconds{20};
  Duration latency_max = std::chrono::microseconds{300};
  std::uint64_t capacity = std::uint64_t{1} << 40;
  std::size_t descriptors_max = 20'000;
};

struct DiskCounters {
  std::array<std::uint64_t, static_cast<std::size_t>(DiskOp::count_)> calls{};
  std::uint64_t completed = 0;
  std::uint64_t bytes_written = 0;
};

class SimDisk final : public io::FileSystem {
 public:
  explicit SimDisk(SimLoop& loop, DiskImage image = {}, DiskOptions options = {});
  ~SimDisk() override;
  SimDisk(const SimDisk&) = delete;
  SimDisk& operator=(const SimDisk&) = delete;

  Task<Result<std::unique_ptr<io::File>>> open(std::string path, io::OpenOptions options) override;
  Task<Result<void>> remove(std::string path) override;
  Task<Result<void>> remove_directory(std::string path) override;
  Task<Result<void>> rename(std::string from, std::string to) override;
  Task<Result<void>> make_directory(std::string path) override;
  Task<Result<void>> sync_directory(std::string path) override;
  Task<Result<std::vector<io::DirectoryEntry>>> list(std::string path) override;
  Task<Result<io::Space>> space(std::string path) override;
  Task<Result<std::unique_ptr<io::Lock>>> lock(std::string path) override;
  [[nodiscard]] std::string_view name() const override { return "simulated"; }

  /// What a power cut at this moment leaves, by the plan. Changes nothing, so one run gives many crashes.
  [[nodiscard]] DiskImage crash_image(const CrashPlan& plan) const;
  /// What the death of the process leaves: all that is visible. Writes in flight have not landed.
  [[nodiscard]] DiskImage visible_image() const { return image_of(CrashPlan::keep_all(), true); }
  /// crash_image, and the disk is dead from here on.
  DiskImage crash(const CrashPlan& plan);
  DiskImage kill();
  [[nodiscard]] bool dead() const { return dead_; }

  Fault& inject(Fault fault);
  void clear_faults() { faults_.clear(); }
  [[nodiscard]] const std::vector<std::unique_ptr<Fault>>& faults() const { return faults_; }
  void set_capacity(std::uint64_t bytes) { options_.capacity = bytes; }
  void set_latency(Duration min, Duration max) { options_.latency_min = min, options_.latency_max = max; }
  void set_descriptors_max(std::size_t count) { options_.descriptors_max = count; }
  [[nodiscard]] std::uint64_t used_bytes() const;
  [[nodiscard]] std::size_t open_files() const { return open_files_; }

  /// Writes in flight, in order of submission.
  struct InFlight {
    UnflushedWrite write;
    bool durable = false;
    std::vector<std::byte> bytes;
  };
  [[nodiscard]] std::vector<InFlight> writes_in_flight() const;
  /// Applies a write that an earlier process left queued, and keeps the lock of `locked` held until then.
  void land_later(const InFlight& write, Duration after, std::string locked);

  [[nodiscard]] const DiskCounters& counters() const { return counters_; }
  [[nodiscard]] std::uint64_t calls(DiskOp op) const { return counters_.calls[static_cast<std::size_t>(op)]; }
  /// Called when an operation on a file or name starts; for tests that watch the order of writes.
  std::function<void(DiskOp, const std::string& path, std::uint64_t position, Bytes)> on_start;
  std::function<void(DiskOp, const std::string& path, std::uint64_t position, std::int64_t result)> on_done;
  /// Broken rules of the File contract.
  [[nodiscard]] const std::vector<std::string>& violations() const { return violations_; }

 private:
  friend class SimFile;
  friend class SimLock;
  struct Node;
  struct Change;
  struct Active;
  struct Late;
  using NodePtr = std::shared_ptr<Node>;

  [[nodiscard]] NodePtr find(std::string_view path) const;
  [[nodiscard]] std::pair<NodePtr, std::string> parent_of(std::string_view path) const;
  NodePtr add_directory(const std::string& path);
  void start(io::Operation& op, DiskOp kind, Active prepared);
  void finish(Active& active);
  std::int64_t perform(Active& active);
  std::int64_t perform_write(Active& active);
  void perform_sync(Node& node, std::uint64_t started);
  std::int64_t resize(Active& active, std::uint64_t size);
  void make_durable(Node& node, Change& change);
  void change_name(const NodePtr& directory, const std::string& name, NodePtr target);
  [[nodiscard]] DiskImage image_of(const CrashPlan& plan, bool process_only) const;
  void collect(const Node& directory, const std::string& path, const CrashPlan& plan, bool process_only, Random& random,
               DiskImage& out) const;
  [[nodiscard]] Content content_of(const Node& node, const std::string& path, const CrashPlan& plan, bool process_only,
                                   Random& random) const;
  void die();
  Task<std::int64_t> name_op(DiskOp kind, const std::string& path);
  [[nodiscard]] static std::uint64_t size_of_tree(const Node& node);

  SimLoop& loop_;
  DiskOptions options_;
  Random random_;
  NodePtr root_;
  std::vector<std::unique_ptr<Active>> active_;
  std::vector<std::unique_ptr<Active>> spare_;
  std::vector<std::unique_ptr<Late>> late_;
  std::vector<std::unique_ptr<Fault>> faults_;
  std::set<std::string> locks_;
  std::map<std::string, std::set<std::uint64_t>> unreadable_;
  std::vector<std::string> violations_;
  DiskCounters counters_;
  std::uint64_t sequence_ = 0;
  std::size_t open_files_ = 0;
  bool dead_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // files and locks may be closed after the disk is gone
};

/// One simulated machine: time, disk and the runtime that the code under test is given.
struct SimMachine {
  explicit SimMachine(std::uint64_t seed, DiskImage image = {}, DiskOptions options = {})
      : loop{seed}, disk{loop, std::move(image), options} {}
  SimLoop loop;
  SimDisk disk;
  io::Runtime runtime{disk, loop, loop, loop, loop.random()};
};

}  // namespace tailrace::broker::sim
