#include "log/data_directory.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>

#include "base/log.h"
#include "log/checkpoint.h"
#include "log/recovery.h"
#include "log/segment_files.h"
#include "log/shard_log.h"

namespace tailrace::broker::log {
namespace {

constexpr std::uint32_t kFormat = 1;
constexpr std::uint32_t kShardsMax = 256;
constexpr std::size_t kSmallFileMax = 64 * limits::kKiB;

/// node.toml and shards hold `key = value` lines of ours; a small part of TOML is enough to read them back.
std::map<std::string, std::string, std::less<>> parse_lines(std::string_view text) {
  std::map<std::string, std::string, std::less<>> out;
  while (!text.empty()) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    std::size_t equals = line.find('=');
    if (line.starts_with('#') || equals == std::string_view::npos) continue;
    auto trim = [](std::string_view s) {
      while (!s.empty() && (s.front() == ' ' || s.front() == '"')) s.remove_prefix(1);
      while (!s.empty() && (s.back() == ' ' || s.back() == '"' || s.back() == '\r')) s.remove_suffix(1);
      return s;
    };
    out.emplace(trim(line.substr(0, equals)), trim(line.substr(equals + 1)));
  }
  return out;
}

template <class T>
std::optional<T> number_in(std::string_view text) {
  T value{};
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::string random_id(Random& random) { return fmt::format("{:016x}{:016x}", random.next(), random.next()); }

std::vector<std::byte> bytes_of(std::string_view text) {
  Bytes bytes = as_bytes(text);
  return {bytes.begin(), bytes.end()};
}

std::string parent_of(std::string path) {
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

class DataDirectoryImpl final : public DataDirectory {
 public:
  DataDirectoryImpl(io::Runtime& runtime, std::string path, std::uint32_t wanted) : runtime_{runtime}, path_{std::move(path)}, wanted_{wanted} {}

  Task<Result<void>> start(NewIdentity identity) {
    auto made = co_await runtime_.files.make_directory(path_);
    if (!made && made.error().code == Errc::exists) co_return fail(Errc::not_a_directory, path_);
    if (!made) co_return std::unexpected(made.error());
    std::size_t slash = path_.find_last_of('/');
    std::string parent = slash == std::string::npos ? "." : slash == 0 ? "/" : path_.substr(0, slash);
    TAILRACE_CO_TRY_VOID(co_await runtime_.files.sync_directory(parent));
    TAILRACE_CO_TRY(lock_, co_await runtime_.files.lock(path_));
    TAILRACE_CO_TRY(auto entries, co_await runtime_.files.list(path_));
    bool named = false;
    bool foreign = false;
    for (const io::DirectoryEntry& e : entries) {
      named |= e.name == "node.toml";
      clean_ |= e.name == "clean" && !e.is_directory;
      // What a crash inside the very first start leaves; anything else was here before us.
      foreign |= e.name != "node.toml" && e.name != "node.toml.tmp" && e.name != "lost+found";
    }
    if (!named && foreign) co_return fail(Errc::foreign_data_directory, path_ + " is not empty and has no node.toml");
    // Its own name must last as long as what will be in it.
    if (!named) TAILRACE_CO_TRY_VOID(co_await runtime_.files.sync_directory(parent_of(path_)));
    auto known = named ? co_await read_identity() : co_await write_identity(std::move(identity));
    if (!known) co_return known;
    co_return co_await read_shards();
  }

  [[nodiscard]] const std::string& path() const override { return path_; }
  [[nodiscard]] const NodeIdentity& identity() const override { return identity_; }
  [[nodiscard]] bool was_clean() const override { return clean_; }
  [[nodiscard]] bool is_new() const override { return new_; }
  [[nodiscard]] std::uint32_t shards_before() const override { return before_; }
  [[nodiscard]] std::uint32_t shards_wanted() const override { return wanted_; }

  Task<Result<void>> mark_dirty() override {
    if (dirty_) co_return Result<void>{};
    auto gone = co_await runtime_.files.remove(path_ + "/clean");
    if (!gone && gone.error().code == Errc::corrupt) {
      log_warn("data_directory.clean_mark", "{}/clean is a directory where a file belongs; it is removed", path_);
      gone = co_await runtime_.files.remove_directory(path_ + "/clean");
      if (!gone) co_return fail(Errc::corrupt, path_ + "/clean is a directory with something in it, where a file of ours belongs: move it away");
    }
    if (!gone && gone.error().code != Errc::not_found) co_return gone;
    TAILRACE_CO_TRY_VOID(co_await runtime_.files.sync_directory(path_));
    dirty_ = true;
    co_return Result<void>{};
  }
  Task<Result<void>> mark_clean() override {
    TAILRACE_CO_TRY_VOID(co_await replace_file(runtime_, path_ + "/clean", bytes_of("stopped cleanly\n")));
    TAILRACE_CO_TRY_VOID(co_await runtime_.files.sync_directory(path_));
    dirty_ = false;
    co_return Result<void>{};
  }
  Task<Result<void>> set_shards(std::uint32_t count) {
    TAILRACE_CO_TRY_VOID(co_await replace_file(runtime_, path_ + "/shards", bytes_of(fmt::format("shards = {}\n", count))));
    TAILRACE_CO_TRY_VOID(co_await runtime_.files.sync_directory(path_));
    before_ = count;
    co_return Result<void>{};
  }

 private:
  Task<Result<void>> read_identity() {
    TAILRACE_CO_TRY(Slice file, co_await read_whole_file(runtime_, path_ + "/node.toml", kSmallFileMax));
    auto lines = parse_lines(as_text(file.bytes()));
    auto format = number_in<std::uint32_t>(lines["format"]);
    auto node = number_in<std::int32_t>(lines["node_id"]);
    if (format && *format > kFormat) co_return fail(Errc::newer_format, fmt::format("{}: format {}", path_, *format));
    bool whole = format == kFormat && node && parse_topic_id(lines["cluster_id"]) && parse_topic_id(lines["directory_id"]);
    if (!whole) co_return fail(Errc::corrupt, path_ + "/node.toml");
    identity_ = {NodeId{*node}, lines["cluster_id"], lines["directory_id"], *format};
    co_return Result<void>{};
  }
  Task<Result<void>> write_identity(NewIdentity identity) {
    if (identity.cluster_id.empty()) identity.cluster_id = random_id(runtime_.random);
    identity_ = {identity.node, identity.cluster_id, random_id(runtime_.random), kFormat};
    std::string text = fmt::format(
        "# Written once by Tailrace. Do not edit, and never copy this directory to a second node.\n"
        "format = {}\nnode_id = {}\ncluster_id = \"{}\"\ndirectory_id = \"{}\"\n",
        kFormat, identity_.node.value(), identity_.cluster_id, identity_.directory_id);
    TAILRACE_CO_TRY_VOID(co_await replace_file(runtime_, path_ + "/node.toml", bytes_of(text)));
    new_ = true;
    co_return co_await runtime_.files.sync_directory(path_);
  }
  Task<Result<void>> read_shards() {
    auto file = co_await read_whole_file(runtime_, path_ + "/shards", kSmallFileMax);
    if (!file && file.error().code != Errc::not_found) co_return std::unexpected(file.error());
    if (file) {
      auto lines = parse_lines(as_text(file->bytes()));
      auto count = number_in<std::uint32_t>(lines["shards"]);
      if (!count || *count == 0 || *count > kShardsMax) co_return fail(Errc::corrupt, path_ + "/shards");
      before_ = *count;
      co_return Result<void>{};
    }
    // Not written yet, or lost: the shard folders say it. If all that is there is as the very first start leaves it, that start
    // was cut short, and this one goes on.
    std::uint32_t found = 0;
    bool used = false;
    for (std::uint32_t k = 0; k < kShardsMax; ++k) {
      std::string folder = shard_folder(path_, ShardIndex{k});
      auto files = co_await runtime_.files.list(folder);
      if (!files && files.error().code == Errc::not_found) continue;
      if (!files) co_return std::unexpected(files.error());
      TAILRACE_CO_TRY(LoadedCheckpoint loaded, co_await load_checkpoint(runtime_, folder));
      if (!loaded.found) continue;
      found = k + 1;
      used |= loaded.checkpoint.newest_file > 0 || !loaded.checkpoint.partitions.empty();
    }
    if (used) co_return co_await set_shards(found);
    for (std::uint32_t k = 0; k < wanted_; ++k) TAILRACE_CO_TRY_VOID(co_await make_shard(k));
    co_return co_await set_shards(wanted_);
  }
  /// The folder and the first checkpoint, durable. From then on a shard without a checkpoint is one that lost it, never a new one.
  Task<Result<void>> make_shard(std::uint32_t number) {
    std::string folder = shard_folder(path_, ShardIndex{number});
    TAILRACE_CO_TRY_VOID(co_await runtime_.files.make_directory(folder));
    TAILRACE_CO_TRY_VOID(co_await runtime_.files.sync_directory(path_));
    Checkpoint first{.shard = number, .directory_id = directory_id_bytes(identity_.directory_id)};
    CheckpointCopies copies;
    TAILRACE_CO_TRY(auto written, co_await write_checkpoint_copies(runtime_, folder, copies, first));
    (void)written;
    co_return Result<void>{};
  }

  io::Runtime& runtime_;
  std::string path_;
  std::uint32_t wanted_;
  std::uint32_t before_ = 0;
  NodeIdentity identity_{};
  bool clean_ = false;
  bool new_ = false;
  bool dirty_ = false;
  std::unique_ptr<io::Lock> lock_;
};

std::string plan_path(const std::string& root, std::uint32_t shard) { return fmt::format("{}/rehome/shard-{}", root, shard); }

/// The target count, if a plan was finished and not yet carried out wholly.
Task<Result<std::optional<std::uint32_t>>> planned(io::Runtime& runtime, std::string root) {
  auto file = co_await read_whole_file(runtime, root + "/rehome/plan", kSmallFileMax);
  if (!file && file.error().code == Errc::not_found) co_return std::optional<std::uint32_t>{};
  if (!file) co_return std::unexpected(file.error());
  auto lines = parse_lines(as_text(file->bytes()));
  auto count = number_in<std::uint32_t>(lines["shards"]);
  if (!count || *count == 0 || *count > kShardsMax) co_return fail(Errc::corrupt, root + "/rehome/plan");
  co_return count;
}

Task<Result<void>> remove_if_there(io::Runtime& runtime, std::string path) {
  auto gone = co_await runtime.files.remove(path);
  if (!gone && gone.error().code != Errc::not_found) co_return gone;
  co_return Result<void>{};
}

/// Every old shard is brought to rest, then the checkpoints of the new ones are laid aside. Nothing is changed yet.
Task<Result<void>> make_plan(io::Runtime& runtime, DataDirectory& directory, ShardLogOptions options) {
  const std::string& root = directory.path();
  std::uint32_t from = directory.shards_before();
  std::uint32_t to = directory.shards_wanted();
  std::vector<Checkpoint> plan(to);
  std::vector<PartitionCheckpoint> all;
  for (std::uint32_t k = 0; k < from; ++k) {
    options.data_directory = root;
    options.directory_id = directory.identity().directory_id;
    options.shard = ShardIndex{k};
    TAILRACE_CO_TRY(auto log, co_await ShardLog::open(runtime, options));
    co_await log->close();
    log.reset();
    TAILRACE_CO_TRY(LoadedCheckpoint loaded, co_await load_checkpoint(runtime, shard_folder(root, ShardIndex{k})));
    if (!loaded.found || !loaded.checkpoint.clean) {
      co_return fail(Errc::io_error, fmt::format("shard {} could not be brought to rest; start once with {} shards", k, from));
    }
    for (PartitionCheckpoint& p : loaded.checkpoint.partitions) all.push_back(std::move(p));
    for (Checkpoint& c : plan) {
      c.directory_id = loaded.checkpoint.directory_id;
      c.incarnation = std::max(c.incarnation, loaded.checkpoint.incarnation);
    }
  }
  for (PartitionCheckpoint& p : all) {
    Checkpoint& home = plan[home_of(p.id, to).value()];
    p.number = home.next_number++;
    p.hard_frame = 0;
    p.applied_through = 0;  // frames begin at 1 again, in new files
    home.partitions.push_back(std::move(p));
  }
  TAILRACE_CO_TRY_VOID(co_await runtime.files.make_directory(root + "/rehome"));
  for (std::uint32_t k = 0; k < to; ++k) {
    plan[k].shard = k;
    plan[k].wal_file_bytes = options.wal_file_bytes;
    TAILRACE_CO_TRY_VOID(co_await runtime.files.make_directory(plan_path(root, k)));
    CheckpointCopies copies;
    TAILRACE_CO_TRY(auto written, co_await write_checkpoint_copies(runtime, plan_path(root, k), copies, plan[k]));
    (void)written;
  }
  TAILRACE_CO_TRY_VOID(co_await runtime.files.sync_directory(root));
  TAILRACE_CO_TRY_VOID(co_await runtime.files.sync_directory(root + "/rehome"));  // all parts, before there is a plan
  TAILRACE_CO_TRY_VOID(co_await replace_file(runtime, root + "/rehome/plan", bytes_of(fmt::format("shards = {}\n", to))));
  co_return co_await runtime.files.sync_directory(root + "/rehome");
}

Task<Result<void>> remove_checkpoints(io::Runtime& runtime, std::string folder) {
  for (int copy = 0; copy < 2; ++copy) {
    TAILRACE_CO_TRY_VOID(co_await remove_if_there(runtime, checkpoint_path(folder, copy)));
    TAILRACE_CO_TRY_VOID(co_await remove_if_there(runtime, checkpoint_path(folder, copy) + ".tmp"));
  }
  co_return Result<void>{};
}

Task<Result<void>> empty_shard(io::Runtime& runtime, std::string folder) {
  auto slots = co_await runtime.files.list(folder + "/wal");
  if (!slots && slots.error().code != Errc::not_found) co_return std::unexpected(slots.error());
  if (slots) {
    for (const io::DirectoryEntry& e : *slots) TAILRACE_CO_TRY_VOID(co_await remove_if_there(runtime, folder + "/wal/" + e.name));
    TAILRACE_CO_TRY_VOID(co_await runtime.files.sync_directory(folder + "/wal"));
  }
  TAILRACE_CO_TRY_VOID(co_await remove_checkpoints(runtime, folder));
  co_return co_await runtime.files.sync_directory(folder);
}

/// The plan stands, and no shard was opened since: all of it may be done again, however far an earlier run got.
Task<Result<void>> carry_out(io::Runtime& runtime, std::string root, std::uint32_t from, std::uint32_t to) {
  for (std::uint32_t k = 0; k < to; ++k) {
    std::string folder = shard_folder(root, ShardIndex{k});
    TAILRACE_CO_TRY(LoadedCheckpoint part, co_await load_checkpoint(runtime, plan_path(root, k)));
    if (!part.found) co_return fail(Errc::corrupt, plan_path(root, k) + ": a part of the plan is gone");
    TAILRACE_CO_TRY_VOID(co_await runtime.files.make_directory(folder));
    TAILRACE_CO_TRY_VOID(co_await runtime.files.make_directory(folder + "/wal"));
    TAILRACE_CO_TRY_VOID(co_await empty_shard(runtime, folder));
    TAILRACE_CO_TRY_VOID(co_await runtime.files.sync_directory(root));
    CheckpointCopies copies;
    TAILRACE_CO_TRY(auto written, co_await write_checkpoint_copies(runtime, folder, copies, part.checkpoint));
    (void)written;
  }
  for (std::uint32_t k = to; k < std::max(from, to); ++k) TAILRACE_CO_TRY_VOID(co_await empty_shard(runtime, shard_folder(root, ShardIndex{k})));
  co_return Result<void>{};
}

Task<Result<void>> forget_plan(io::Runtime& runtime, std::string root, std::uint32_t to) {
  TAILRACE_CO_TRY_VOID(co_await remove_if_there(runtime, root + "/rehome/plan"));
  TAILRACE_CO_TRY_VOID(co_await runtime.files.sync_directory(root + "/rehome"));
  for (std::uint32_t k = 0; k < to; ++k) {
    TAILRACE_CO_TRY_VOID(co_await remove_checkpoints(runtime, plan_path(root, k)));
    auto gone = co_await runtime.files.remove_directory(plan_path(root, k));
    if (!gone) log_warn("rehome.left", "{}: {}", plan_path(root, k), gone.error().detail);
  }
  auto gone = co_await runtime.files.remove_directory(root + "/rehome");
  if (!gone) log_warn("rehome.left", "{}/rehome: {}", root, gone.error().detail);
  co_return Result<void>{};
}

}  // namespace

Task<Result<std::unique_ptr<DataDirectory>>> DataDirectory::open(io::Runtime& runtime, std::string path, std::uint32_t shards_wanted, NewIdentity identity) {
  if (shards_wanted == 0 || shards_wanted > kShardsMax) co_return fail(Errc::invalid_argument, "1 to 256 shards");
  auto directory = std::make_unique<DataDirectoryImpl>(runtime, std::move(path), shards_wanted);
  TAILRACE_CO_TRY_VOID(co_await directory->start(std::move(identity)));
  co_return std::unique_ptr<DataDirectory>{std::move(directory)};
}

Task<Result<void>> rehome(io::Runtime& runtime, DataDirectory& directory, ShardLogOptions options) {
  auto& ours = static_cast<DataDirectoryImpl&>(directory);
  const std::string root = directory.path();
  TAILRACE_CO_TRY_VOID(co_await directory.mark_dirty());
  for (;;) {
    TAILRACE_CO_TRY(auto plan, co_await planned(runtime, root));
    if (plan) {
      // From this run or one that was cut short; it may be for another count than is wanted now.
      TAILRACE_CO_TRY_VOID(co_await carry_out(runtime, root, directory.shards_before(), *plan));
      TAILRACE_CO_TRY_VOID(co_await ours.set_shards(*plan));
      TAILRACE_CO_TRY_VOID(co_await forget_plan(runtime, root, *plan));
    }
    if (directory.shards_before() == directory.shards_wanted()) co_return Result<void>{};
    TAILRACE_CO_TRY_VOID(co_await make_plan(runtime, directory, options));
  }
}

ShardIndex home_of(const PartitionId& partition, std::uint32_t shards) {
  if (partition.topic == kMetadataTopicId || shards <= 1) return ShardIndex{0};
  // A topic's partitions go round the shards in turn, from a place that its id gives: a hash of id and index together was seen
  // to put 11 of 16 partitions, and once all of them, on one of two shards. FNV-1a, then the finaliser of MurmurHash3 (the low
  // bits of FNV alone are nearly a parity); never std::hash, whose values are nobody's promise.
  std::uint64_t h = 0xcbf29ce484222325ULL;
  for (auto b : partition.topic.bytes) h = (h ^ b) * 0x100000001b3ULL;
  h = (h ^ (h >> 33)) * 0xff51afd7ed558ccdULL;
  h = (h ^ (h >> 33)) * 0xc4ceb9fe1a85ec53ULL;
  h ^= h >> 33;
  return ShardIndex{static_cast<std::uint32_t>((h % shards + static_cast<std::uint32_t>(partition.index.value()) % shards) % shards)};
}

}  // namespace tailrace::broker::log
