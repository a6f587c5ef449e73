#include "log/verify.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>

#include "log/data_directory.h"
#include "log/recovery.h"
#include "log/segment_files.h"
#include "log/verify_parts.h"

namespace tailrace::broker::log {
namespace {

constexpr std::uint32_t kShardsMax = 256;

std::optional<std::uint32_t> shard_number(std::string_view name) {
  if (!name.starts_with("shard-")) return std::nullopt;
  name.remove_prefix(6);
  std::uint32_t n = 0;
  auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), n);
  if (error != std::errc{} || end != name.data() + name.size() || n >= kShardsMax) return std::nullopt;
  return n;
}

class DirectoryCheck {
 public:
  DirectoryCheck(io::Runtime& runtime, OfflineReport& report, std::string root) : runtime_{runtime}, report_{report} { facts_.root = std::move(root); }

  Task<Result<void>> run() {
    TAILRACE_CO_TRY(auto entries, co_await runtime_.files.list(facts_.root));
    bool named = false;
    bool topics = false;
    for (const io::DirectoryEntry& e : entries) {
      named |= e.name == "node.toml";
      topics |= e.name == "topics";
      facts_.clean_mark |= e.name == "clean" && !e.is_directory;
      if (e.name == "clean" && e.is_directory) report_.damage(facts_.root + "/clean", 0, 0, "a directory where a file belongs");
      if (auto k = shard_number(e.name)) shards_.push_back(*k);
    }
    std::ranges::sort(shards_);
    if (!named && shards_.empty()) co_return fail(Errc::foreign_data_directory, facts_.root + " has no node.toml");
    for (const io::DirectoryEntry& e : entries) {
      bool ours = e.name == "node.toml" || e.name == "topics" || e.name == "clean" || e.name == "shards" || e.name == "lost+found" || shard_number(e.name);
      if (e.name == "rehome") report_.note(facts_.root + "/rehome", 0, 0, "a change of the number of shards was under way; the next start finishes it");
      else if (e.name.ends_with(".tmp")) report_.note(facts_.root + "/" + e.name, 0, e.size, "left by a crash while it was written");
      else if (!ours) report_.note(facts_.root + "/" + e.name, 0, e.size, "not a file of ours");
    }
    TAILRACE_CO_TRY_VOID(co_await identity(named));
    TAILRACE_CO_TRY_VOID(co_await shard_count(topics));
    std::map<PartitionId, KnownPartition> known;
    for (std::uint32_t k : shards_) {
      ShardSeen seen;
      TAILRACE_CO_TRY_VOID(co_await verify_shard(runtime_, report_, facts_, k, seen));
      for (auto& [number, p] : seen.partitions) {
        auto [at, fresh] = known.try_emplace(p.state.id, p);
        if (fresh) continue;
        // Deleted and created again under another number: the living one counts.
        if (at->second.removed && !p.removed) at->second = std::move(p);
        else if (!p.removed && !at->second.removed) report_.damage(shard_folder(facts_.root, ShardIndex{k}), 0, 0, "two places claim partition " + partition_folder("", p.state.id));
      }
    }
    if (topics && report_.wants_progress()) report_.bytes_expected = report_.counts.bytes + co_await segment_bytes();
    co_return co_await topics_tree(topics, known);
  }

 private:
  Task<Result<void>> identity(bool named) {
    std::string path = facts_.root + "/node.toml";
    if (!named) {
      report_.damage(path, 0, 0, "missing");
      co_return Result<void>{};
    }
    ++report_.counts.files;
    auto file = co_await read_whole_file(runtime_, path, kTextFileBytesMax);
    if (!file) {
      report_.damage(path, 0, 0, file.error().detail);
      co_return Result<void>{};
    }
    report_.counts.bytes += file->length;
    std::string_view text = as_text(file->bytes());
    std::string format = text_value(text, "format");
    if (format.size() == 1 && format[0] > '1' && format[0] <= '9') co_return fail(Errc::newer_format, path);
    std::string node = text_value(text, "node_id");
    std::string directory = text_value(text, "directory_id");
    bool number = !node.empty() && std::ranges::all_of(node, [](char c) { return c >= '0' && c <= '9'; });
    bool plain = std::ranges::all_of(text, [](char c) { return (c >= ' ' && c < 0x7f) || c == '\n'; });
    if (format != "1" || !number || !plain || !parse_topic_id(text_value(text, "cluster_id")) || !parse_topic_id(directory)) {
      report_.damage(path, 0, file->length, "a key is missing or not valid");
    }
    if (parse_topic_id(directory)) {
      facts_.identity_known = true;
      facts_.directory_id = directory_id_bytes(directory);
    }
    JsonLine line{"file"};
    line.text("file", path).text("type", "node").number("bytes", file->length).text("directory_id", directory);
    report_.entry(std::move(line));
    co_return Result<void>{};
  }

  Task<Result<void>> shard_count(bool topics) {
    std::string path = facts_.root + "/shards";
    auto file = co_await read_whole_file(runtime_, path, kTextFileBytesMax);
    if (!file && file.error().code == Errc::not_found) {
      if (topics) report_.note(path, 0, 0, "missing; the shard folders say how many there are");
      co_return Result<void>{};
    }
    ++report_.counts.files;
    if (!file) {
      report_.damage(path, 0, 0, file.error().detail);
      co_return Result<void>{};
    }
    report_.counts.bytes += file->length;
    std::string value = text_value(as_text(file->bytes()), "shards");
    std::uint32_t count = 0;
    auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), count);
    if (error != std::errc{} || end != value.data() + value.size() || count == 0 || count > kShardsMax) {
      report_.damage(path, 0, file->length, "not a number of shards");
      co_return Result<void>{};
    }
    for (std::uint32_t k = 0; k < count; ++k) {
      if (std::ranges::find(shards_, k) != shards_.end()) continue;
      std::string what = fmt::format("missing; the directory has {} shards", count);
      // The very first start makes them one after the other.
      if (topics || facts_.clean_mark) report_.damage(shard_folder(facts_.root, ShardIndex{k}), 0, 0, std::move(what));
      else report_.note(shard_folder(facts_.root, ShardIndex{k}), 0, 0, std::move(what));
    }
    // Folders of an earlier, larger count are empty; what is in them is not read by a start.
    std::erase_if(shards_, [&](std::uint32_t k) { return k >= count; });
    co_return Result<void>{};
  }

  /// As the file system has them: what is allocated ahead is in it. Whatever cannot be listed is reported later.
  Task<std::uint64_t> segment_bytes() {
    std::uint64_t bytes = 0;
    auto topics = co_await runtime_.files.list(topics_folder(facts_.root));
    for (std::size_t t = 0; topics && t < topics->size(); ++t) {
      std::string topic = topics_folder(facts_.root) + "/" + (*topics)[t].name;
      auto partitions = co_await runtime_.files.list(topic);
      for (std::size_t p = 0; partitions && p < partitions->size(); ++p) {
        auto files = co_await runtime_.files.list(topic + "/" + (*partitions)[p].name);
        for (std::size_t f = 0; files && f < files->size(); ++f) bytes += parse_segment_name((*files)[f].name, "log") ? (*files)[f].size : 0;
      }
    }
    co_return bytes;
  }

  Task<Result<void>> topics_tree(bool there, std::map<PartitionId, KnownPartition>& known) {
    std::vector<io::DirectoryEntry> topics;
    if (there) {
      auto listed = co_await runtime_.files.list(topics_folder(facts_.root));
      if (listed) topics = *std::move(listed);
      else report_.damage(topics_folder(facts_.root), 0, 0, listed.error().detail);
    }
    for (const io::DirectoryEntry& t : topics) {
      std::string path = topics_folder(facts_.root) + "/" + t.name;
      auto id = parse_topic_id(t.name);
      if (!id) {
        report_.note(path, 0, t.size, "not a folder of ours");
        continue;
      }
      auto partitions = co_await runtime_.files.list(path);
      if (!partitions) {
        report_.damage(path, 0, 0, partitions.error().detail);
        continue;
      }
      for (const io::DirectoryEntry& p : *partitions) {
        std::int32_t index = -1;
        auto [end, error] = std::from_chars(p.name.data(), p.name.data() + p.name.size(), index);
        if (error != std::errc{} || end != p.name.data() + p.name.size() || index < 0) {
          report_.note(path + "/" + p.name, 0, p.size, "not a folder of ours");
          continue;
        }
        PartitionId partition{*id, PartitionIndex{index}};
        auto found = known.find(partition);
        if (found != known.end() && found->second.removed) {
          report_.note(path + "/" + p.name, 0, 0, "deleted; the next start removes its files");
          known.erase(found);
          continue;
        }
        TAILRACE_CO_TRY_VOID(co_await verify_partition(runtime_, report_, path + "/" + p.name, found == known.end() ? nullptr : &found->second));
        if (found != known.end()) known.erase(found);
      }
    }
    // Those without a folder have nothing on disk yet, or should have.
    for (const auto& [id, p] : known) {
      if (!p.removed) TAILRACE_CO_TRY_VOID(co_await verify_partition(runtime_, report_, partition_folder(facts_.root, id), &p));
    }
    co_return Result<void>{};
  }

  io::Runtime& runtime_;
  OfflineReport& report_;
  DirectoryFacts facts_{};
  std::vector<std::uint32_t> shards_{};
};

}  // namespace

std::string text_value(std::string_view text, std::string_view key) {
  auto trim = [](std::string_view s) {
    while (!s.empty() && (s.front() == ' ' || s.front() == '"')) s.remove_prefix(1);
    while (!s.empty() && (s.back() == ' ' || s.back() == '"' || s.back() == '\r')) s.remove_suffix(1);
    return s;
  };
  while (!text.empty()) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    std::size_t equals = line.find('=');
    if (equals != std::string_view::npos && !line.starts_with('#') && trim(line.substr(0, equals)) == key) return std::string{trim(line.substr(equals + 1))};
  }
  return {};
}

Task<Result<VerifyCounts>> verify_directory(io::Runtime& runtime, std::string path, LineSink& sink) {
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  auto listed = co_await runtime.files.list(path);
  if (!listed) co_return std::unexpected(listed.error());
  TAILRACE_CO_TRY(auto lock, co_await runtime.files.lock(path));
  OfflineReport report{sink};
  DirectoryCheck check{runtime, report, std::move(path)};
  auto done = co_await check.run();
  co_await report.reads.drain();
  if (!done) co_return std::unexpected(std::move(done.error()));
  co_return report.counts;
}

}  // namespace tailrace::broker::log
