#pragma once
/// Memberships as bytes, as they lie in the log's `members` entries and in `partition_create`. The log keeps them unread.
/// Format   u8 version (1), u8 count, then for each member: i32 node, 16 bytes directory, u8 voter. Little endian.
#include <cstddef>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "raft/membership.h"

namespace tailrace::broker::service {

[[nodiscard]] std::vector<std::byte> encode_members(const raft::Membership& members);
/// Errors: newer_format, corrupt (length, a member twice, none at all).
[[nodiscard]] Result<raft::Membership> decode_members(Bytes bytes);
/// Of 32 hex digits, as data/node.toml has them; zeros for anything else.
[[nodiscard]] raft::DirectoryId directory_id_of(std::string_view hex);

}  // namespace tailrace::broker::service
