#include "version.h"

#include "commit.inc"

namespace tailrace::cli {

const char* version() { return TAILRACE_VERSION " (" TAILRACE_COMMIT ")"; }
const char* version_number() { return TAILRACE_VERSION; }
const char* commit() { return TAILRACE_COMMIT; }

}  // namespace tailrace::cli
