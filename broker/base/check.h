#pragma once
/// TAILRACE_CHECK is for our own bugs: always on, stops the process. Nothing a peer, a client or a disk can send may
/// trip one. TAILRACE_DCHECK is for hot loops and is off in release builds. One fact per check.

namespace tailrace::broker {
[[noreturn]] void check_failed(const char* condition, const char* why, const char* file, int line) noexcept;
}

#define TAILRACE_CHECK(condition, why) \
  (static_cast<bool>(condition) ? void() : ::tailrace::broker::check_failed(#condition, why, __FILE__, __LINE__))
#ifdef NDEBUG
#define TAILRACE_DCHECK(condition, why) void()
#else
#define TAILRACE_DCHECK(condition, why) TAILRACE_CHECK(condition, why)
#endif
