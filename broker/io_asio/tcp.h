#pragma once
/// TCP on a shard's loop.
#include <memory>
#include <string>

#include "base/result.h"
#include "io/stream.h"
#include "io_asio/loop.h"

namespace tailrace::broker::io_asio {

struct ListenOptions {
  /// SO_REUSEPORT: each shard listens on the same port, and the kernel spreads connections over them.
  bool share_port = false;
  /// With share_port, for the first listener: makes sure that no one outside this process listens there already. Without
  /// it two brokers of one user would share the port unnoticed.
  bool first = true;
  int backlog = 1024;
};

/// Listens on `host` (a number, or a name that is resolved here and now; IPv4 is preferred) and `port` (0: any free one, see
/// Listener::port()). Accepted streams have TCP_NODELAY set and must be gone before the loop is.
///
/// accept() waits out a shortage of descriptors or memory (100 ms steps, one log line for each shortage) and skips
/// connections that their peers gave up; one accept at a time.
/// Errors   address_in_use, invalid_argument (no such address here, no permission for the port): the detail names the address.
[[nodiscard]] Result<std::unique_ptr<io::Listener>> listen(Loop& loop, const std::string& host, std::uint16_t port, ListenOptions options = {});

}  // namespace tailrace::broker::io_asio
