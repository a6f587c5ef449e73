#pragma once
/// What a stream may be called. Spec: docs/event-store.md, "Words".
#include <string_view>

#include "model/limits.h"

namespace tailrace::broker::stream {

/// UTF-8 (no overlong forms, no surrogates, nothing above U+10FFFF) without control characters (C0, DEL, C1), 1 to
/// limits::kStreamNameBytesMax bytes.
[[nodiscard]] bool valid_name(std::string_view name);

}  // namespace tailrace::broker::stream
