#include "group/records.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/byte_writer.h"
#include "model/limits.h"

namespace tailrace::broker::group {
namespace {

constexpr std::uint16_t kVersion = 1;

std::unexpected<Error> torn(const char* what) { return fail(Errc::corrupt, fmt::format("a stored {} contradicts itself", what)); }

void put_topic(ByteWriter& to, const TopicId& id) { to.raw(std::as_bytes(std::span{id.bytes})); }
TopicId get_topic(ByteReader& from) {
  TopicId id;
  Bytes bytes = from.take(id.bytes.size());
  if (bytes.size() == id.bytes.size()) std::memcpy(id.bytes.data(), bytes.data(), bytes.size());
  return id;
}
std::string get_text(ByteReader& from) { return std::string{as_text(from.take(from.le<std::uint16_t>()))}; }

/// u32 topics, and for each: id, u32 partitions, their indexes.
void put_partitions(ByteWriter& to, const std::vector<PartitionId>& all) {
  std::vector<std::size_t> begins;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (i == 0 || all[i].topic != all[i - 1].topic) begins.push_back(i);
  }
  to.le(static_cast<std::uint32_t>(begins.size()));
  for (std::size_t t = 0; t < begins.size(); ++t) {
    std::size_t end = t + 1 < begins.size() ? begins[t + 1] : all.size();
    put_topic(to, all[begins[t]].topic);
    to.le(static_cast<std::uint32_t>(end - begins[t]));
    for (std::size_t i = begins[t]; i < end; ++i) to.le(all[i].index.value());
  }
}
/// False: not ascending, or more than a group can have.
bool get_partitions(ByteReader& from, std::vector<PartitionId>& all) {
  auto topics = from.le<std::uint32_t>();
  for (std::uint32_t t = 0; t < topics && from.ok(); ++t) {
    TopicId topic = get_topic(from);
    auto count = from.le<std::uint32_t>();
    for (std::uint32_t i = 0; i < count && from.ok(); ++i) {
      PartitionId one{topic, PartitionIndex{from.le<std::int32_t>()}};
      if (!from.ok()) break;
      if (all.size() >= limits::kGroupPartitionsMax || (!all.empty() && !(all.back() < one)) || one.index.value() < 0) return false;
      all.push_back(one);
    }
  }
  return from.ok();
}

Result<void> check_version(ByteReader& from) {
  auto version = from.le<std::uint16_t>();
  if (from.ok() && version != kVersion) return fail(Errc::newer_format, fmt::format("a stored group has version {}, only {} is known", version, kVersion));
  return {};
}

}  // namespace

std::vector<std::byte> encode(const RecordKey& key) {
  ByteWriter to;
  to.le(static_cast<std::uint8_t>(key.kind)).text(key.group);
  if (key.kind == RecordKey::Kind::member) to.text(key.member);
  if (key.kind == RecordKey::Kind::offset) {
    put_topic(to, key.partition.topic);
    to.le(key.partition.index.value());
  }
  return to.take();
}

std::vector<std::byte> encode(const GroupRecord& record) {
  ByteWriter to;
  to.le(kVersion).le(record.generation).le(static_cast<std::uint8_t>(record.assignor)).le(static_cast<std::uint8_t>(record.out_of_range)).le(record.empty_since_ms);
  return to.take();
}

std::vector<std::byte> encode(const MemberRecord& record) {
  ByteWriter to;
  to.le(kVersion).text(record.instance).le(record.session_timeout_ms).le(record.told).le(static_cast<std::uint16_t>(record.topics.size()));
  for (const TopicId& topic : record.topics) put_topic(to, topic);
  put_partitions(to, record.granted);
  put_partitions(to, record.target);
  return to.take();
}

std::vector<std::byte> encode(const OffsetRecord& record) {
  ByteWriter to;
  to.le(kVersion).le(record.offset.value()).le(record.leader_epoch.value()).le(record.time_ms).text(record.metadata);
  return to.take();
}

Result<RecordKey> decode_key(Bytes bytes) {
  ByteReader from{bytes};
  auto kind = from.le<std::uint8_t>();
  if (!from.ok()) return torn("group's key");
  if (kind < 1 || kind > 3) return fail(Errc::newer_format, fmt::format("a stored group's key has kind {}, which is not known", kind));
  RecordKey key{.kind = static_cast<RecordKey::Kind>(kind), .group = get_text(from)};
  if (key.kind == RecordKey::Kind::member) key.member = get_text(from);
  if (key.kind == RecordKey::Kind::offset) {
    key.partition.topic = get_topic(from);
    key.partition.index = PartitionIndex{from.le<std::int32_t>()};
  }
  if (!from.ok() || from.remaining() != 0 || key.group.empty()) return torn("group's key");
  return key;
}

Result<GroupRecord> decode_group(Bytes bytes) {
  ByteReader from{bytes};
  TAILRACE_TRY_VOID(check_version(from));
  GroupRecord record{.generation = from.le<std::int64_t>()};
  auto assignor = from.le<std::uint8_t>();
  auto out_of_range = from.le<std::uint8_t>();
  record.empty_since_ms = from.le<std::int64_t>();
  if (!from.ok() || from.remaining() != 0 || record.generation < 0 || assignor > 1 || out_of_range > 2) return torn("group");
  record.out_of_range = static_cast<OutOfRange>(out_of_range);
  record.assignor = static_cast<Assignor>(assignor);
  return record;
}

Result<MemberRecord> decode_member(MemberId member, Bytes bytes) {
  ByteReader from{bytes};
  TAILRACE_TRY_VOID(check_version(from));
  MemberRecord record{.member = std::move(member), .instance = get_text(from)};
  record.session_timeout_ms = from.le<std::int64_t>();
  record.told = from.le<std::int64_t>();
  auto topics = from.le<std::uint16_t>();
  for (std::uint16_t i = 0; i < topics && from.ok(); ++i) record.topics.push_back(get_topic(from));
  bool whole = from.ok() && get_partitions(from, record.granted) && get_partitions(from, record.target);
  if (!whole || from.remaining() != 0 || !std::ranges::is_sorted(record.topics) || record.topics.size() > limits::kGroupTopicsMax ||
      record.session_timeout_ms < limits::kSessionTimeoutMin.count() || record.session_timeout_ms > limits::kSessionTimeoutMax.count()) {
    return torn("member");
  }
  return record;
}

Result<OffsetRecord> decode_offset(Bytes bytes) {
  ByteReader from{bytes};
  TAILRACE_TRY_VOID(check_version(from));
  OffsetRecord record{.offset = Offset{from.le<std::int64_t>()}};
  record.leader_epoch = LeaderEpoch{from.le<std::int32_t>()};
  record.time_ms = from.le<std::int64_t>();
  record.metadata = get_text(from);
  if (!from.ok() || from.remaining() != 0 || record.offset < Offset{0}) return torn("offset");
  return record;
}

}  // namespace tailrace::broker::group
