#pragma once
/// How the cluster names places and members in what it reports.
#include <fmt/format.h>

#include <string>

#include "raft/membership.h"

namespace tailrace::broker::raft::test {

[[nodiscard]] inline std::string text(LogPosition at) { return fmt::format("({},{})", at.offset.value(), at.sub); }

[[nodiscard]] inline std::string text(const Membership& members) {
  std::string out;
  for (const Member& m : members.members()) out += fmt::format(" {}.{}{}", m.id.node.value(), m.id.directory.bytes[0], m.voter ? "" : "?");
  return out;
}

}  // namespace tailrace::broker::raft::test
