#include "log/segment_files.h"

#include <fmt/format.h>

#include <cerrno>
#include <charconv>

#include "base/crc32c.h"
#include "log/wal_format.h"

namespace tailrace::broker::log {
namespace {

constexpr std::uint32_t kSnapshotMagic = 0x4e535254;  // "TRSN"
constexpr std::uint16_t kSnapshotVersion = 1;
constexpr std::size_t kSnapshotHeader = 24;
constexpr std::size_t kBaseDigits = 20;

}  // namespace

std::string topics_folder(const std::string& data_directory) { return data_directory + "/topics"; }
std::string topic_folder(const std::string& data_directory, const TopicId& topic) {
  std::string hex;
  for (auto b : topic.bytes) hex += fmt::format("{:02x}", b);
  return topics_folder(data_directory) + "/" + hex;
}
std::string partition_folder(const std::string& data_directory, const PartitionId& id) {
  return fmt::format("{}/{}", topic_folder(data_directory, id.topic), id.index.value());
}
std::string shard_folder(const std::string& data_directory, ShardIndex shard) {
  return fmt::format("{}/shard-{}", data_directory, shard.value());
}
std::string segment_path(const std::string& folder, Offset base, std::string_view extension) {
  return fmt::format("{}/{:020}.{}", folder, base.value(), extension);
}

std::optional<Offset> parse_segment_name(std::string_view name, std::string_view extension) {
  if (name.size() != kBaseDigits + 1 + extension.size() || name[kBaseDigits] != '.' || !name.ends_with(extension)) return std::nullopt;
  std::int64_t base = 0;
  const char* end = name.data() + kBaseDigits;
  auto [stopped, error] = std::from_chars(name.data(), end, base);
  if (error != std::errc{} || stopped != end || base < 0) return std::nullopt;
  return Offset{base};
}

Task<Result<void>> set_files_aside(io::Runtime& runtime, std::string folder) {
  auto listed = co_await runtime.files.list(folder);
  if (!listed && listed.error().code == Errc::not_found) co_return Result<void>{};
  if (!listed) co_return std::unexpected(listed.error());
  for (const io::DirectoryEntry& file : *listed) {
    std::string path = folder + "/" + file.name;
    if (parse_segment_name(file.name, "log")) TAILRACE_CO_TRY_VOID(co_await runtime.files.rename(path, path + ".orphan"));
    if (parse_segment_name(file.name, "idx") || parse_segment_name(file.name, "snap")) TAILRACE_CO_TRY_VOID(co_await runtime.files.remove(path));
  }
  co_return co_await runtime.files.sync_directory(folder);
}

std::optional<TopicId> parse_topic_id(std::string_view text) {
  TopicId id;
  if (text.size() != 2 * id.bytes.size()) return std::nullopt;
  for (std::size_t i = 0; i < id.bytes.size(); ++i) {
    const char* from = text.data() + 2 * i;
    auto [stopped, error] = std::from_chars(from, from + 2, id.bytes[i], 16);
    if (error != std::errc{} || stopped != from + 2) return std::nullopt;
  }
  return id;
}

Task<Result<Slice>> read_whole_file(io::Runtime& runtime, std::string path, std::size_t bytes_max) {
  io::OpenOptions options{.direct = true};
  TAILRACE_CO_TRY(auto file, co_await runtime.files.open(path, options));
  TAILRACE_CO_TRY(std::uint64_t size, file->size());
  if (size > bytes_max) co_return fail(Errc::too_large, path);
  Buffer buffer = Buffer::allocate(align_up(static_cast<std::size_t>(size) + 1), io::kDirectAlignment);
  TAILRACE_CO_TRY(std::size_t got, co_await io::read_up_to(*file, buffer.bytes(), 0));
  co_return Slice{std::move(buffer), 0, got};
}

Task<Result<void>> replace_file(io::Runtime& runtime, std::string path, std::vector<std::byte> bytes) {
  std::string temporary = path + ".tmp";
  io::OpenOptions options{.create = true, .write = true};
  {
    TAILRACE_CO_TRY(auto file, co_await runtime.files.open(temporary, options));
    TAILRACE_CO_TRY_VOID(co_await io::truncate(*file, 0));
    TAILRACE_CO_TRY_VOID(co_await io::write_all(*file, bytes, 0, io::Durable::no));
    TAILRACE_CO_TRY_VOID(co_await io::sync(*file));
  }
  co_return co_await runtime.files.rename(temporary, path);
}

std::vector<std::byte> encode_snapshot(Offset at, Bytes state) {
  std::vector<std::byte> out(kSnapshotHeader + state.size() + 4);
  store_le(out.data(), kSnapshotMagic);
  store_le(out.data() + 4, kSnapshotVersion);
  store_le(out.data() + 6, std::uint16_t{1});  // kind 1: producers
  store_le(out.data() + 8, at.value());
  store_le(out.data() + 16, static_cast<std::uint32_t>(state.size()));
  store_le(out.data() + 20, std::uint32_t{0});
  if (!state.empty()) std::memcpy(out.data() + kSnapshotHeader, state.data(), state.size());
  store_le(out.data() + out.size() - 4, crc32c(Bytes{out}.first(out.size() - 4)));
  return out;
}

Result<DecodedSnapshot> decode_snapshot(Bytes bytes) {
  if (bytes.size() < kSnapshotHeader + 4) return fail(Errc::corrupt, "snapshot: too short");
  const std::byte* p = bytes.data();
  if (load_le<std::uint32_t>(p) != kSnapshotMagic) return fail(Errc::corrupt, "snapshot: magic");
  // Every version ends with the checksum of all before it: a flipped bit is damage, and no newer version.
  if (load_le<std::uint32_t>(p + bytes.size() - 4) != crc32c(bytes.first(bytes.size() - 4))) return fail(Errc::corrupt, "snapshot: CRC");
  auto version = load_le<std::uint16_t>(p + 4);
  if (version > kSnapshotVersion) return fail(Errc::newer_format, "snapshot");
  auto length = load_le<std::uint32_t>(p + 16);
  bool sane = version == kSnapshotVersion && load_le<std::uint16_t>(p + 6) == 1 && load_le<std::uint32_t>(p + 20) == 0 &&
              bytes.size() == kSnapshotHeader + std::uint64_t{length} + 4;
  if (!sane) return fail(Errc::corrupt, "snapshot: a field is out of range");
  return DecodedSnapshot{Offset{load_le<std::int64_t>(p + 8)}, bytes.subspan(kSnapshotHeader, length)};
}

}  // namespace tailrace::broker::log
