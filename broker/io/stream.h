#pragma once
/// Byte streams as protocol code sees them: plain TCP today, TLS or ring-driven sockets later.
#include <sys/uio.h>

#include <memory>
#include <span>
#include <string>

#include "base/result.h"
#include "base/task.h"
#include "io/file.h"

namespace tailrace::broker::io {

/// Thread   the shard that accepted it.
/// One read and one write may be in flight at the same time.
/// Results  as Operation: bytes, 0 on a read = the peer closed its side, minus errno on failure (-ECANCELED after shut()).
class Stream {
 public:
  virtual ~Stream() = default;
  virtual void read_some(Operation& op, MutableBytes into) = 0;
  /// Writes all of `parts`, or fails; the array and the bytes stay in place until it completes.
  virtual void write(Operation& op, std::span<const iovec> parts) = 0;
  /// Ends both directions at once; pending operations complete with -ECANCELED. Safe to call twice.
  virtual void shut() = 0;
  [[nodiscard]] virtual std::string peer() const = 0;
};

/// Accepts connections. Each answer is one stream, or an error that ends the listener.
class Listener {
 public:
  virtual ~Listener() = default;
  virtual Task<Result<std::unique_ptr<Stream>>> accept() = 0;
  virtual void close() = 0;  // a pending accept answers Errc::closed
  [[nodiscard]] virtual std::uint16_t port() const = 0;
};

}  // namespace tailrace::broker::io
