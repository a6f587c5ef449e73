#include "cluster/commands.h"

#include <fmt/format.h>

#include "base/byte_writer.h"
#include "cluster/encoding.h"

namespace tailrace::broker::cluster {
namespace {

enum class Type : std::uint8_t {
  create_topic = 1, alter_topic = 2, delete_topic = 3, topic_removed = 4, allocate_producer_ids = 5,
  snapshot_begin = 6, snapshot_part = 7,
};
constexpr std::uint8_t kVersion = 1;

void put(ByteWriter& to, const CreateTopic& c) {
  put_id(to, c.id);
  to.text(c.name).le(c.partitions);
  put_settings(to, c.settings);
}
void put(ByteWriter& to, const AlterTopic& c) {
  put_id(to, c.id);
  to.le(c.partitions);
  put_settings(to, c.set);
  to.le(static_cast<std::uint16_t>(c.unset.size()));
  for (TopicKey key : c.unset) to.text(info_of(key).name);
}
void put(ByteWriter& to, const DeleteTopic& c) { put_id(to, c.id); }
void put(ByteWriter& to, const TopicRemoved& c) { put_id(to, c.id); }
void put(ByteWriter& to, const AllocateProducerIds& c) { to.le(c.node.value()).le(c.first).le(c.count); }
void put(ByteWriter& to, const SnapshotBegin& c) { to.le(c.parts).le(c.bytes).le(c.crc); }
void put(ByteWriter& to, const SnapshotPart& c) { to.le(c.index).le(static_cast<std::uint32_t>(c.bytes.size())).raw(c.bytes); }

constexpr Type type_of(const CreateTopic&) { return Type::create_topic; }
constexpr Type type_of(const AlterTopic&) { return Type::alter_topic; }
constexpr Type type_of(const DeleteTopic&) { return Type::delete_topic; }
constexpr Type type_of(const TopicRemoved&) { return Type::topic_removed; }
constexpr Type type_of(const AllocateProducerIds&) { return Type::allocate_producer_ids; }
constexpr Type type_of(const SnapshotBegin&) { return Type::snapshot_begin; }
constexpr Type type_of(const SnapshotPart&) { return Type::snapshot_part; }

Result<Command> read_fields(Type type, ByteReader& from) {
  switch (type) {
    case Type::create_topic: {
      CreateTopic c{.id = get_id(from), .name = get_text(from)};
      c.partitions = from.le<std::int32_t>();
      TAILRACE_TRY(c.settings, get_settings(from));
      return c;
    }
    case Type::alter_topic: {
      AlterTopic c{.id = get_id(from)};
      c.partitions = from.le<std::int32_t>();
      TAILRACE_TRY(c.set, get_settings(from));
      auto count = from.le<std::uint16_t>();
      for (std::uint16_t i = 0; i < count && from.ok(); ++i) {
        std::string name = get_text(from);
        if (!from.ok()) break;
        TAILRACE_TRY(TopicKey key, stored_key(name));
        c.unset.push_back(key);
      }
      return c;
    }
    case Type::delete_topic: return DeleteTopic{.id = get_id(from)};
    case Type::topic_removed: return TopicRemoved{.id = get_id(from)};
    case Type::allocate_producer_ids: {
      AllocateProducerIds c{.node = NodeId{from.le<std::int32_t>()}};
      c.first = from.le<std::int64_t>();
      c.count = from.le<std::int32_t>();
      return c;
    }
    case Type::snapshot_begin: {
      SnapshotBegin c{.parts = from.le<std::uint32_t>()};
      c.bytes = from.le<std::uint64_t>();
      c.crc = from.le<std::uint32_t>();
      return c;
    }
    case Type::snapshot_part: {
      SnapshotPart c{.index = from.le<std::uint32_t>()};
      Bytes bytes = from.take(from.le<std::uint32_t>());
      c.bytes.assign(bytes.begin(), bytes.end());
      return c;
    }
  }
  return fail(Errc::newer_format, fmt::format("metadata command type {} is not known to this version", static_cast<int>(type)));
}

}  // namespace

std::vector<std::byte> encode(const Command& command) {
  ByteWriter to;
  std::visit([&](const auto& c) {
    to.le(static_cast<std::uint8_t>(type_of(c))).le(kVersion);
    put(to, c);
  }, command);
  return to.take();
}

Result<Command> decode_command(Bytes bytes) {
  if (bytes.size() > kCommandBytesMax) {
    return fail(Errc::corrupt, fmt::format("a metadata command of {} bytes, at most {} are possible", bytes.size(), kCommandBytesMax));
  }
  ByteReader from{bytes};
  auto type = static_cast<Type>(from.le<std::uint8_t>());
  auto version = from.le<std::uint8_t>();
  if (!from.ok()) return fail(Errc::corrupt, "a metadata command ends within its first two bytes");
  if (version != kVersion) {
    return fail(Errc::newer_format, fmt::format("metadata command type {} has version {}, only {} is known",
                                                static_cast<int>(type), version, kVersion));
  }
  TAILRACE_TRY(Command command, read_fields(type, from));
  if (!from.ok()) return fail(Errc::corrupt, fmt::format("metadata command type {} ends too early", static_cast<int>(type)));
  if (from.remaining() != 0) {
    return fail(Errc::corrupt, fmt::format("metadata command type {} has {} bytes too many", static_cast<int>(type), from.remaining()));
  }
  return command;
}

}  // namespace tailrace::broker::cluster
