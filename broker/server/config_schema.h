#pragma once
/// Judging and applying one key's value. Text in, text out: the same rules hold for file, environment and flags.
#include <expected>
#include <map>
#include <string>
#include <string_view>

#include "server/config.h"

namespace tailrace::broker::server {

/// The normalised spelling, or what the key takes instead ("takes ..., not ...").
[[nodiscard]] std::expected<std::string, std::string> normalise(const Setting& setting, std::string_view text);
[[nodiscard]] std::string accepted_form(const Setting& setting);

/// `values` holds every key of settings(), normalised. `processors` stands in for shards = 0.
[[nodiscard]] ServerOptions options_from(const std::map<std::string, EffectiveValue, std::less<>>& values, std::uint32_t processors);

}  // namespace tailrace::broker::server
