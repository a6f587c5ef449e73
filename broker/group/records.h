#pragma once
/// What is stored of consumer groups: keys and values of the records of `__offsets`. The newest value of a key counts; none: the key is gone.
/// Spec     docs/groups.md, "Stored".
#include <cstddef>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "group/assignor.h"

namespace tailrace::broker::group {

/// Grows with each change; 0: before the first. Stored before it is told, so that it never goes back.
using Generation = std::int64_t;

struct RecordKey {
  enum class Kind : std::uint8_t { group = 1, member = 2, offset = 3 };
  Kind kind = Kind::group;
  std::string group{};
  MemberId member{};        // of member
  PartitionId partition{};  // of offset
  friend auto operator<=>(const RecordKey&, const RecordKey&) = default;
};

/// Where a member begins if the stored offset is no longer, or not yet, in the log.
enum class OutOfRange : std::uint8_t { error, earliest, latest };

struct GroupRecord {
  Generation generation = 0;
  Assignor assignor = Assignor::sticky;
  OutOfRange out_of_range = OutOfRange::earliest;
  std::int64_t empty_since_ms = 0;  // UTC; since when nobody is in it; 0: somebody is
  friend bool operator==(const GroupRecord&, const GroupRecord&) = default;
};
struct MemberRecord {
  MemberId member{};  // in the key
  std::string instance{};
  std::vector<TopicId> topics{};       // ascending
  std::int64_t session_timeout_ms = 0;
  Generation told = 0;
  std::vector<PartitionId> granted{};  // ascending
  std::vector<PartitionId> target{};   // ascending
  friend bool operator==(const MemberRecord&, const MemberRecord&) = default;
};
struct OffsetRecord {
  Offset offset{};              // of the next record to read
  LeaderEpoch leader_epoch{-1};  // -1: not known
  std::int64_t time_ms = 0;      // of the commit, UTC
  std::string metadata{};
  /// What it takes in memory, about: the record, its key, and the tree that holds them.
  [[nodiscard]] std::size_t bytes() const { return 112 + metadata.size(); }
  friend bool operator==(const OffsetRecord&, const OffsetRecord&) = default;
};

[[nodiscard]] std::vector<std::byte> encode(const RecordKey& key);
[[nodiscard]] inline std::vector<std::byte> key_of_group(const std::string& name) { return encode(RecordKey{.kind = RecordKey::Kind::group, .group = name}); }
[[nodiscard]] inline std::vector<std::byte> key_of_member(const std::string& name, const MemberId& id) { return encode(RecordKey{.kind = RecordKey::Kind::member, .group = name, .member = id}); }
[[nodiscard]] inline std::vector<std::byte> key_of_offset(const std::string& name, const PartitionId& id) { return encode(RecordKey{.kind = RecordKey::Kind::offset, .group = name, .partition = id}); }
[[nodiscard]] std::vector<std::byte> encode(const GroupRecord& record);
[[nodiscard]] std::vector<std::byte> encode(const MemberRecord& record);
[[nodiscard]] std::vector<std::byte> encode(const OffsetRecord& record);
// Errors: corrupt, newer_format.
[[nodiscard]] Result<RecordKey> decode_key(Bytes bytes);
[[nodiscard]] Result<GroupRecord> decode_group(Bytes bytes);
[[nodiscard]] Result<MemberRecord> decode_member(MemberId member, Bytes bytes);
[[nodiscard]] Result<OffsetRecord> decode_offset(Bytes bytes);

}  // namespace tailrace::broker::group
