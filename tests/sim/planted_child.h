#pragma once
/// Runs a check in a child process with a bug planted: it may stop, loop for ever or corrupt memory there.
#include <functional>
#include <optional>
#include <string>

#include "base/planted.h"

namespace tailrace::broker::sim {

/// What is said last tells what was found.
using Say = std::function<void(const std::string&)>;

/// What a child finds with the bug planted: the text behind the last "\n@" that it said, or none. `body` answers true when it found
/// something. A check of the code under test that stops the child counts as found; a child that loops for `seconds_max` does not.
[[nodiscard]] std::optional<std::string> in_child(PlantedBug bug, unsigned seconds_max, const std::function<bool(const Say&)>& body);

}  // namespace tailrace::broker::sim
