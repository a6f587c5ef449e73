#pragma once
/// `server`, `dev` and `config` read the broker's configuration the same way: from their flags, the environment, a file.
#include <expected>
#include <string>
#include <vector>

#include "context.h"
#include "flags.h"
#include "server/config.h"

namespace tailrace::cli {

/// All problems of all layers, the malformed --set included. Prints nothing: a reload uses it as well.
[[nodiscard]] std::expected<broker::server::LoadedConfig, std::vector<broker::server::ConfigProblem>> read_configuration(
    const ServerFlags& flags, bool dev, const std::vector<broker::server::FlagValue>& more = {});

/// Prints every problem on stderr, as "error E1007: ..." lines; the answer's Failure stands for the last of them and is
/// not printed by it. Warnings (config.unknown_keys = "warn") go to stderr too.
[[nodiscard]] Outcome<broker::server::LoadedConfig> load_configuration(const Context& context, const ServerFlags& flags, bool dev,
                                                                       const std::vector<broker::server::FlagValue>& more = {});

}  // namespace tailrace::cli
