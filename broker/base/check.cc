#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace tailrace::broker {

void check_failed(const char* condition, const char* why, const char* file, int line) noexcept {
  std::fprintf(stderr, "tailrace: internal check failed: %s (%s) at %s:%d\n", why, condition, file, line);
  std::fflush(stderr);
  std::abort();
}

}  // namespace tailrace::broker
