#include "service/members_codec.h"

#include <charconv>
#include <cstring>

namespace tailrace::broker::service {
namespace {

constexpr std::uint8_t kVersion = 1;
constexpr std::size_t kHeaderBytes = 2;
constexpr std::size_t kMemberBytes = 4 + 16 + 1;

}  // namespace

std::vector<std::byte> encode_members(const raft::Membership& members) {
  std::vector<std::byte> out(kHeaderBytes + members.members().size() * kMemberBytes);
  store_le(out.data(), kVersion);
  store_le(out.data() + 1, static_cast<std::uint8_t>(members.members().size()));
  std::byte* at = out.data() + kHeaderBytes;
  for (const raft::Member& member : members.members()) {
    store_le(at, member.id.node.value());
    std::memcpy(at + 4, member.id.directory.bytes.data(), 16);
    store_le(at + 20, static_cast<std::uint8_t>(member.voter ? 1 : 0));
    at += kMemberBytes;
  }
  return out;
}

Result<raft::Membership> decode_members(Bytes bytes) {
  if (bytes.size() < kHeaderBytes) return fail(Errc::corrupt, "a membership without a header");
  if (auto version = load_le<std::uint8_t>(bytes.data()); version != kVersion) return fail(Errc::newer_format, "a membership of another version");
  auto count = load_le<std::uint8_t>(bytes.data() + 1);
  if (count == 0 || count > raft::kMembersMax || bytes.size() != kHeaderBytes + count * kMemberBytes) {
    return fail(Errc::corrupt, "a membership of another length");
  }
  raft::Membership out;
  for (std::size_t i = 0; i < count; ++i) {
    const std::byte* at = bytes.data() + kHeaderBytes + i * kMemberBytes;
    raft::Member member{.id = {NodeId{load_le<std::int32_t>(at)}, {}}, .voter = load_le<std::uint8_t>(at + 20) == 1};
    std::memcpy(member.id.directory.bytes.data(), at + 4, 16);
    if (!member.id.valid() || load_le<std::uint8_t>(at + 20) > 1 || !out.add(member)) return fail(Errc::corrupt, "a membership that makes no sense");
  }
  return out;
}

raft::DirectoryId directory_id_of(std::string_view hex) {
  raft::DirectoryId out;
  if (hex.size() != out.bytes.size() * 2) return {};
  for (std::size_t i = 0; i < out.bytes.size(); ++i) {
    auto [end, error] = std::from_chars(hex.data() + 2 * i, hex.data() + 2 * i + 2, out.bytes[i], 16);
    if (error != std::errc{} || end != hex.data() + 2 * i + 2) return {};
  }
  return out;
}

}  // namespace tailrace::broker::service
