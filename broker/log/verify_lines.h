#pragma once
#include <string>
#include <string_view>

namespace tailrace::broker::log {

/// A JSON string with its quotes.
[[nodiscard]] std::string json_text(std::string_view text);

}  // namespace tailrace::broker::log
