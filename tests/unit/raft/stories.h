#pragma once
/// Directed tests of replication, each a story that the true code must survive and that shows the planted bug it was written for.
#include <span>
#include <string>
#include <string_view>

#include "base/planted.h"

namespace tailrace::broker::raft::test {

struct Story {
  std::string_view name;
  PlantedBug bug = PlantedBug::none;  // none: told for its own sake
  std::string (*run)() = nullptr;     // what went wrong; empty: nothing
};
[[nodiscard]] std::span<const Story> stories();

}  // namespace tailrace::broker::raft::test
